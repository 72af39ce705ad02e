"""The cache tests of Django, cachelib and Flask-Caching pass with `MokaCache`.

Those that are excluded are named here with the reason. `ci/suites` fetches the tests:
`MOKA_PY_SUITES=$(ci/suites) pytest tests/python/integrations`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from integrations.framework_sources import source_of

# Each takes seconds, and more on a busy machine.
pytestmark = pytest.mark.time_limit(600)
HELPERS = Path(__file__).parent / "framework_suites"

OUTCOMES = ("passed", "failed", "skipped")

CULL = "a third of the entries leaves LocMemCache when it is full, and one entry leaves MokaCache"
PRIVATE_DEADLINES = "it reads the private deadlines of LocMemCache"
DJANGO = {
    "LocMemCacheTests.test_cull": CULL,
    "LocMemCacheTests.test_zero_cull": CULL,
    "LocMemCacheTests.test_lru_get": CULL,
    "LocMemCacheTests.test_lru_incr": CULL,
    "LocMemCacheTests.test_lru_set": CULL,
    "LocMemCacheTests.test_locking_on_pickle": "it reads the private lock of LocMemCache",
    "LocMemCacheTests.test_incr_decr_timeout": PRIVATE_DEADLINES,
    "DefaultNonExpiringCacheKeyTests.test_caches_with_unset_timeout_set_expiring_key": PRIVATE_DEADLINES,
    "DefaultNonExpiringCacheKeyTests.test_caches_set_with_timeout_as_none_set_non_expiring_key": PRIVATE_DEADLINES,
}

PREFIX = "its key function does not begin keys with the prefix, which NearCache needs"
DJANGO_WITH_SERVER = {
    "RedisCacheTests.test_custom_key_func": PREFIX,
    "RedisCacheTests.test_invalid_key_characters": PREFIX,
    "RedisCacheTests.test_invalid_key_length": PREFIX,
    "RedisCacheTests.test_invalid_with_version_key_length": PREFIX,
}

THRESHOLD = "it reads the private threshold of SimpleCache"
CACHELIB = {
    "test_simple_cache.py::TestSimpleCache::test_threshold_zero_defaults_to_500[MokaCache]": THRESHOLD,
    "test_simple_cache.py::TestSimpleCache::test_threshold_zero_defaults_to_500[CustomCache]": THRESHOLD,
}

REDIS = "it tests Redis"
FLASK_CACHING = {
    "test_backend_cache.py::TestSimpleCache::test_purge": "SimpleCache holds one entry more than its threshold",
    "test_backend_cache.py::TestSimpleCache::test_deprecated_ignore_errors": "MokaCache has no deprecated option",
    "test_serializer.py::test_values_are_stored_in_the_configured_format": "it reads the private dict of SimpleCache",
    "test_basic_app.py::test_init_app_multi_apps": REDIS,
    "test_cache.py::test_cache_unlink": REDIS,
}


@pytest.fixture
def run_suite(tmp_path, record_property):
    """Return a function that runs a suite, and checks the outcome of each of its tests."""

    def run(name, arguments, folder, exclusions, **environment):
        outcomes_file = tmp_path / "outcomes.json"
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": str(HELPERS), "PYTHONDONTWRITEBYTECODE": "1", "MOKA_PY_OUTCOMES": str(outcomes_file)}
            | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )
        output = result.stdout + result.stderr
        assert outcomes_file.exists(), output
        outcomes = json.loads(outcomes_file.read_text())
        passed, failed, skipped = ({test for test in outcomes if outcomes[test] == each} for each in OUTCOMES)
        assert len(outcomes) == len(passed | failed | skipped)
        # An excluded test that passes is no exclusion.
        assert failed == exclusions.keys(), output
        record_property(
            "suite", f"{name}: {len(passed)} tests passed, {len(failed)} are excluded, {len(skipped)} skip themselves"
        )
        return passed

    return run


def test_django_suite_passes(run_suite):
    source = source_of("django")
    arguments = ["runtests.py", "--settings=django_settings", "--parallel=1", "cache"]
    passed = run_suite(source.name, arguments, source / "tests", DJANGO)
    assert len(passed) >= 115


def test_django_suite_of_redis_passes_with_the_near_cache(run_suite, server):
    source = source_of("django")
    # A test names its database by an option, and one in the address would win.
    address = server.removesuffix("/0")
    arguments = ["runtests.py", "--settings=django_settings", "--parallel=1", "cache"]
    passed = run_suite(
        f"{source.name}, NearCache", arguments, source / "tests", DJANGO_WITH_SERVER, MOKA_PY_DJANGO_SERVER=address
    )
    assert len(passed) >= 50


def pytest_arguments(*more):
    return [
        "-P",
        "-m",
        "pytest",
        "-p",
        "pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        *more,
    ]


def test_cachelib_suite_passes(run_suite):
    source = source_of("cachelib")
    arguments = pytest_arguments("test_simple_cache.py")
    passed = run_suite(source.name, arguments, source / "tests", CACHELIB, MOKA_PY_REPLACED="cachelib.SimpleCache")
    assert len(passed) >= 50


def test_flask_caching_suite_passes(run_suite):
    source = source_of("flask-caching")
    # `test_cachelib.py` tests the classes of cachelib, and `test_init.py` the names of Flask-Caching's backends.
    arguments = pytest_arguments("--ignore=test_cachelib.py", "--ignore=test_init.py")
    others = "not redis and not memcache and not FileSystem and not NullCache"
    replaced = "flask_caching.backends.SimpleCache flask_caching.backends.simplecache.SimpleCache"
    passed = run_suite(
        source.name, [*arguments, "-k", others], source / "tests", FLASK_CACHING, MOKA_PY_REPLACED=replaced
    )
    assert len(passed) >= 150
