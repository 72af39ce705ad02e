"""Fixtures, and a time limit for each test: faulthandler prints the stacks of all threads and ends the process."""

import faulthandler
import gc
import os
import sys

import pytest
from helpers import FREE_THREADED, Events

from moka_py.testing import ManualClock

TIME_LIMIT_SECONDS = 120.0
# New objects after which a free-threaded build collects garbage in tests.
FREE_THREADED_COLLECTION_THRESHOLD = 100_000

_stderr = None


def pytest_configure(config):
    global _stderr
    config.addinivalue_line("markers", "time_limit(seconds): end the process if the test takes longer")
    # A copy, because pytest redirects the file descriptor of stderr while a test runs.
    _stderr = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")


def pytest_unconfigure():
    _stderr.close()


def pytest_collection_finish():
    """Hide the objects of pytest from the collector, which would visit them for 0.1 s in each collection.

    A free-threaded build visits frozen objects, too, so there the collector runs less often by itself.
    """
    gc.collect()
    gc.freeze()
    if FREE_THREADED:
        gc.set_threshold(FREE_THREADED_COLLECTION_THRESHOLD)


def pytest_sessionfinish():
    # Hypothesis asks the collector what refers to its random generator, also in the summary.
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    marker = item.get_closest_marker("time_limit")
    seconds = marker.args[0] if marker else TIME_LIMIT_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def fast_switches():
    """Switch threads of the GIL build as often as possible, which provokes races."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def unraisable(monkeypatch):
    """Return the list of exceptions that go to `sys.unraisablehook` during the test."""
    caught = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_value))
    return caught


@pytest.fixture
def unraisable_reports(monkeypatch):
    """Return the list of pairs of exception and object that go to `sys.unraisablehook` during the test."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append((report.exc_value, report.object)))
    return reported


@pytest.fixture
def clock():
    """Return a clock that all new caches read. It stands still until the test advances it."""
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def events():
    """Return a listener that records its events."""
    return Events()
