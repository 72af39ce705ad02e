"""No test hangs in silence: one that takes too long has every thread's stack printed, and its process ends."""

import faulthandler
import gc
import os
import sys

import pytest

SECONDS = 120.0

_stderr = None


def pytest_configure(config):
    global _stderr
    config.addinivalue_line("markers", "time_limit(seconds): end the process if the test takes longer")
    # A copy, because pytest puts a file of its own under the number of stderr while a test runs.
    _stderr = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    marker = item.get_closest_marker("time_limit")
    seconds = marker.args[0] if marker else SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def fast_switches():
    """Threads of the GIL build take turns as often as they can, which finds races that sleeping would not."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def unraisable(monkeypatch):
    """What goes to `sys.unraisablehook` during the test, as a list of exceptions."""
    caught = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_value))
    return caught


@pytest.fixture
def quick_collections():
    """The collector looks only at what the test makes, not at all that pytest holds, which takes 0.1 s each time."""
    gc.freeze()
    yield
    gc.unfreeze()
