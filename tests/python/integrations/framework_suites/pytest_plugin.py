"""A plugin for the tests of cachelib and of Flask-Caching, which then test `MokaCache`.

MOKA_PY_REPLACED has the names of the classes in whose place they get it. Where they sleep or advance their clock, the
clock of the caches advances. The outcome of each test goes to the file that MOKA_PY_OUTCOMES names.
"""

import json
import os
import sys
import time
import types
from pathlib import Path
from unittest import mock

from moka_py.integrations.flask_caching import MokaCache
from moka_py.testing import ManualClock

# Their fixtures for servers need it. The tests that use those are not run.
sys.modules["xprocess"] = types.SimpleNamespace(ProcessStarter=object)

clock = ManualClock()
patches = [
    mock.patch.object(time, "sleep", clock.advance),
    *(mock.patch(name, MokaCache) for name in os.environ["MOKA_PY_REPLACED"].split()),
]
outcomes = {}


def pytest_configure():
    clock.__enter__()
    for patch in patches:
        patch.start()


def pytest_collection_finish():
    # Flask-Caching's fixture `clock` makes an object of this class.
    if of_tests := getattr(sys.modules["conftest"], "_Clock", None):
        of_tests.advance = lambda _self, seconds: clock.advance(seconds)


def pytest_runtest_logreport(report):
    name = report.nodeid.rpartition("/")[2]
    if report.outcome != "passed" or report.when == "call":
        outcomes[name] = report.outcome


def pytest_unconfigure():
    for patch in patches:
        patch.stop()
    clock.__exit__()
    Path(os.environ["MOKA_PY_OUTCOMES"]).write_text(json.dumps(outcomes))
