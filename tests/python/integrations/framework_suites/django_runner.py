"""Runs Django's cache tests with a backend, and writes the outcome of each to the file that MOKA_PY_OUTCOMES names.

Wherever the tests and the default settings name `LocMemCache`, they get `MokaCache`. Where they sleep, the clock of the
caches advances. With a server the tests of `RedisCache` run instead, with `NearCache`, and really sleep.
"""

import contextlib
import json
import os
import time
import unittest
from pathlib import Path
from unittest import mock

from django.core.cache.backends import locmem, redis
from django.test.runner import DiscoverRunner

from moka_py.integrations.django import MokaCache, NearCache
from moka_py.testing import ManualClock

# The begins of the names of classes that test other backends.
OTHER_BACKENDS = (
    "AsyncDummyCacheTests",
    "CreateCacheTableForDBCacheTests",
    "DBCache",
    "DummyCacheTests",
    "FileBasedCache",
    "PyLibMCCacheTests",
    "PyMemcacheCacheTests",
    "RedisCacheTests",
)
HAS_SERVER = "MOKA_PY_DJANGO_SERVER" in os.environ


def tests_of(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


class Outcomes(unittest.TextTestResult):
    """Records the outcome of each test by its name, such as "LocMemCacheTests.test_add"."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.outcomes = {}

    def record(self, test, outcome):
        self.outcomes[test.id().split(".", 2)[2]] = outcome

    def startTest(self, test):
        super().startTest(test)
        self.record(test, "passed")

    def addError(self, test, error):
        super().addError(test, error)
        self.record(test, "failed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.record(test, "failed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.record(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.record(test, "skipped")


class MokaRunner(DiscoverRunner):
    def build_suite(self, *args, **keywords):
        locmem.LocMemCache = MokaCache
        redis.RedisCache = NearCache
        from cache.tests import LocMemCacheTests

        # It makes the aliases share private attributes of `LocMemCache`. Those of `MokaCache` share their LOCATION.
        del LocMemCacheTests.setUp
        # Aliases of one LOCATION have the same MAX_ENTRIES.
        for name in ("cull", "zero_cull"):
            LocMemCacheTests._overridden_settings["CACHES"][name]["LOCATION"] = name
        suite = super().build_suite(*args, **keywords)
        return unittest.TestSuite(test for test in tests_of(suite) if self.is_chosen(type(test).__name__))

    def is_chosen(self, class_name):
        return class_name == "RedisCacheTests" if HAS_SERVER else not class_name.startswith(OTHER_BACKENDS)

    def get_resultclass(self):
        return Outcomes

    def run_suite(self, suite, **keywords):
        with contextlib.ExitStack() as stack:
            if not HAS_SERVER:
                clock = stack.enter_context(ManualClock())
                stack.enter_context(mock.patch.object(time, "sleep", clock.advance))
            result = super().run_suite(suite, **keywords)
        Path(os.environ["MOKA_PY_OUTCOMES"]).write_text(json.dumps(result.outcomes))
        return result
