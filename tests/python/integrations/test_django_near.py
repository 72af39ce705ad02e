"""`moka_py.integrations.django.NearCache`: what Django's own suite does not test."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("django", reason="Django is not installed")
pytest.importorskip("redis", reason="redis is not installed")

import redis
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from near.near_caches import LONG, settle, wait_until

from moka_py.integrations import django
from moka_py.integrations.django import NearCache

WAIT_SECONDS = 60
TESTS = str(Path(__file__).parents[1])
_numbers = itertools.count()


@pytest.fixture
def prefix():
    return f"prefix{next(_numbers)}"


@pytest.fixture(autouse=True)
def closed_connections(monkeypatch):
    """Close the connections of all backends at the end. Django leaves them to the collector."""

    def init(self, *args, **options):
        initialize(self, *args, **options)
        clients.append(self)

    clients = []
    initialize = RedisCacheClient.__init__
    monkeypatch.setattr(RedisCacheClient, "__init__", init)
    yield
    for client in clients:
        for pool in client._pools.values():
            pool.disconnect()


@pytest.fixture
def near(server, prefix):
    yield make_near(server, prefix)
    # It closes the near caches.
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=True)


@pytest.fixture
def plain(server, prefix):
    return RedisCache(server, {"KEY_PREFIX": prefix})


def make_near(server, prefix, **options):
    # Also on a busy machine the local tier answers for the time of a test.
    cache = NearCache(server, {"KEY_PREFIX": prefix, "OPTIONS": {"MAX_STALENESS": LONG, **options}})
    wait_until(lambda: cache.near.is_coherent)
    return cache


def is_local(cache, key):
    before = cache.near.stats().local.hits
    cache.get(key)
    return cache.near.stats().local.hits == before + 1


def make_local(cache, key):
    """Read the key once, when the near cache has applied the reports of all earlier writes."""
    settle(cache.near, cache._cache.get_client(), cache._tracked[:-1])
    cache.get(key)
    assert is_local(cache, key)


VALUES = {"int": 42, "zero": 0, "str": "text", "none": None, "list": [1, "a"], "bytes": b"\x00", "true": True}


def test_both_backends_read_what_the_other_one_wrote(near, plain):
    near.set_many(VALUES)
    assert plain.get_many(VALUES) == VALUES
    plain.set_many({f"{key}2": value for key, value in VALUES.items()})
    assert near.get_many([f"{key}2" for key in VALUES]) == {f"{key}2": value for key, value in VALUES.items()}
    for key, value in VALUES.items():
        assert near.get(key) == value and type(near.get(key)) is type(value)
        assert near.has_key(key)
    assert near.get("absent", "default") == "default" and not near.has_key("absent")
    assert near.get("none", "default") is None


def test_second_read_is_local_and_returns_a_copy(near, plain):
    plain.set("key", ["value"])
    make_local(near, "key")
    before = near.near.stats()
    assert near.get("key") == ["value"] and near.get("key") is not near.get("key")
    assert near.get_many(["key"]) == {"key": ["value"]} and near.has_key("key")
    after = near.near.stats()
    assert (after.local.hits, after.remote_hits) == (before.local.hits + 5, before.remote_hits)


def test_write_of_the_other_backend_is_seen(near, plain):
    plain.set("key", 1)
    assert near.get("key") == 1
    plain.set("key", 2)
    wait_until(lambda: near.get("key") == 2)
    plain.delete("key")
    wait_until(lambda: near.get("key") is None)
    # Absence is local, too, and a creation ends it.
    plain.set("key", 3)
    wait_until(lambda: near.get("key") == 3)


WRITES = {
    "set": lambda cache: cache.set("key", 2),
    "add": lambda cache: cache.add("key", 2),
    "set_many": lambda cache: cache.set_many({"key": 2}),
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(iter(["key"])),
    "incr": lambda cache: cache.incr("key"),
    "decr": lambda cache: cache.decr("key"),
    "expire": lambda cache: cache.set("key", 2, timeout=0),
    "touch": lambda cache: cache.touch("key", 0),
    "incr_version": lambda cache: cache.incr_version("key"),
    "get_or_set": lambda cache: cache.get_or_set("key", 2),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_read_after_an_own_write_sees_it(near, plain, write):
    for value in (1, None):
        for _ in range(20):
            if value is None:
                near.delete("key")
            else:
                near.set("key", value)
            assert near.get("key") == value
            try:
                write(near)
            except ValueError:
                assert value is None
            assert near.get("key") == near.get("key") == plain.get("key")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_whose_reply_is_lost_removes_the_local_entry(near, plain, write, monkeypatch):
    def losing_the_reply(execute):
        def run(self, *args):
            execute(self, *args)
            lost.append(args)
            raise redis.ConnectionError("the reply was lost")

        return run

    lost = []
    near.set("key", 1)
    make_local(near, "key")
    for name in ("add", "set", "touch", "delete", "incr", "set_many", "delete_many", "clear"):
        monkeypatch.setattr(RedisCacheClient, name, losing_the_reply(getattr(RedisCacheClient, name)))
    with contextlib.suppress(redis.ConnectionError):
        write(near)
    monkeypatch.undo()
    assert len(lost) == (write is not WRITES["get_or_set"])
    assert near.get("key") == plain.get("key")


def test_read_during_an_own_write_is_not_kept_after_it(near, monkeypatch):
    def set_after_a_read(self, key, value, timeout):
        make_local(near, "key")
        execute(self, key, value, timeout)

    execute = RedisCacheClient.set
    near.set("key", -1)
    monkeypatch.setattr(RedisCacheClient, "set", set_after_a_read)
    for number in range(500):
        near.set("key", number)
        assert near.get("key") == number


def test_threads_share_a_near_cache_and_close_keeps_it(near, server, prefix):
    near.set("key", 1)
    make_local(near, "key")
    found = []
    thread = threading.Thread(target=lambda: found.append(make_near(server, prefix)))
    thread.start()
    thread.join(WAIT_SECONDS)
    [other] = found
    near.close()
    assert is_local(other, "key")
    assert other.near is near.near


def test_backend_that_a_module_holds_works_after_an_override_of_the_caches_setting(near, server, prefix):
    before = near.near
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=True)
    near.set("key", 1)
    assert near.get("key") == 1 and near.near is not before
    other = make_near(server, prefix)
    make_local(near, "key")
    other.clear()
    assert near.get("key") is None and near.near is other.near


def test_connections_of_a_near_cache_are_closed_when_a_test_overrides_the_caches_setting(near):
    near.set("key", 1)
    assert near.get("key") == 1
    [of_server] = django._nears.values()
    [connection] = of_server.client.connection_pool._available_connections
    assert connection._sock is not None
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=True)
    assert connection._sock is None


def test_clear_removes_the_local_entries_of_all_prefixes(near, server, prefix, monkeypatch):
    other, elsewhere = make_near(server, f"{prefix}other"), make_near(server.removesuffix("/0"), prefix, db=3)
    for cache in (near, other, elsewhere):
        cache.set("key", 1)
        make_local(cache, "key")
    # The server reports nothing.
    monkeypatch.setattr(RedisCacheClient, "clear", lambda self: True)
    assert near.clear() is True
    assert not is_local(near, "key") and not is_local(other, "key") and is_local(elsewhere, "key")


@pytest.mark.parametrize("prefix", ["größe", "a*b?[c]", "{a}", "\\"])
def test_prefix_may_have_characters_that_mean_something_in_patterns(near, plain):
    near.set("key", 1)
    make_local(near, "key")
    plain.set("key", 2)
    wait_until(lambda: near.get("key") == 2)
    assert near.incr("key") == near.get("key") == plain.get("key") == 3


def test_versions_and_other_prefixes_are_other_keys(near, server, prefix):
    near.set("key", 1, version=2)
    assert near.get("key") is None and near.get("key", version=2) == 1
    other = make_near(server, prefix + "other")
    assert other.get("key", version=2) is None


def key_with_prefix(key, prefix, version):
    return f"shop:{prefix}-{version}-{key}"


def test_key_function_needs_the_prefix_of_its_keys(server, prefix):
    params = {"KEY_PREFIX": prefix, "KEY_FUNCTION": key_with_prefix}
    with pytest.raises(ImproperlyConfigured, match="needs PREFIX in its OPTIONS"):
        NearCache(server, params)
    cache = NearCache(server, {**params, "OPTIONS": {"PREFIX": "shop"}})
    cache.set("key", 1)
    assert cache.get("key") == 1
    assert RedisCache(server, params).get("key") == 1
    other = NearCache(server, {**params, "OPTIONS": {"PREFIX": "other"}})
    for call in (lambda: other.get("key"), lambda: other.set("key", 2), lambda: other.get_many(["key"])):
        with pytest.raises(ImproperlyConfigured, match="keys that begin with 'other:', got 'shop:"):
            call()
    assert RedisCache(server, params).get("key") == 1


def test_prefix_without_a_key_function_is_that_of_the_setting(server, prefix):
    NearCache(server, {"KEY_PREFIX": prefix, "OPTIONS": {"PREFIX": prefix}})
    for params in ({"KEY_PREFIX": prefix}, {}):
        with pytest.raises(ImproperlyConfigured, match="without a KEY_FUNCTION must be its KEY_PREFIX, got 'other'"):
            NearCache(server, {**params, "OPTIONS": {"PREFIX": "other"}})


@pytest.mark.parametrize("name", ["MAX_STALENES", "CULL_FREQUENCY", "CLIENT_CLASS"])
def test_unknown_option_is_an_error_that_names_it(server, prefix, name):
    with pytest.raises(ImproperlyConfigured, match=f"MAX_ENTRIES, .* and those of RedisCache, got {name}"):
        NearCache(server, {"KEY_PREFIX": prefix, "OPTIONS": {name: 1}})


@pytest.mark.parametrize("location", ["", "localhost", "http://localhost"])
def test_location_must_be_an_address_of_redis(location):
    with pytest.raises(ImproperlyConfigured, match="prefix 'shop': Redis URL must specify"):
        NearCache(location, {"KEY_PREFIX": "shop"})


@pytest.mark.parametrize(
    "location", ["redis://a;redis://b", "redis://a,redis://b", ["redis://a", "redis://b"], [], None]
)
def test_location_must_be_one_server(location):
    with pytest.raises(ImproperlyConfigured, match="LOCATION of a NearCache must be one server"):
        NearCache(location, {"KEY_PREFIX": "shop"})


@pytest.mark.parametrize("prefix", ["", "a:b", None])
def test_prefix_must_be_a_name_without_a_colon(prefix):
    with pytest.raises(ImproperlyConfigured, match='a non-empty str without ":"'):
        NearCache("redis://localhost", {"KEY_PREFIX": prefix})


def test_options_are_those_of_the_near_cache_and_of_redis(server, prefix):
    options = {"MAX_ENTRIES": 3, "POLICY": "lru", "MAX_STALENESS": 0.5, "LOCAL_TIMEOUT": 5, "db": 3}
    # A database in the address would win.
    server = server.removesuffix("/0")
    cache = make_near(server, prefix, **options)
    tier = cache.near._tier
    assert (tier.entries.capacity, tier.entries.policy) == (3, "lru")
    assert cache._cache.get_client().get_connection_kwargs()["db"] == 3
    with pytest.raises(ImproperlyConfigured, match="must be the same in all aliases"):
        make_near(server, prefix, **(options | {"MAX_ENTRIES": 4}))
    with pytest.raises(ImproperlyConfigured, match="max_staleness"):
        make_near(server, prefix + "other", MAX_STALENESS=-1)
    make_near(server, prefix, db=4)


def test_max_connections_bounds_a_thread_as_with_the_backend_of_django(server, prefix):
    make_near(server, prefix, max_connections=1)

    def read(number):
        cache = make_near(server, prefix, max_connections=1)
        barrier.wait(WAIT_SECONDS)
        return [cache.get(f"{number}-{key}") for key in range(200)]

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [[None] * 200] * 4


OTHER_PROCESS = """
import json, sys
from django.core.cache.backends.redis import RedisCache

cache = RedisCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2]})
for line in sys.stdin:
    name, args = json.loads(line)
    print(json.dumps(getattr(cache, name)(*args)), flush=True)
"""


def test_two_processes_one_on_each_backend_see_each_other(near, server, prefix):
    command = [sys.executable, "-P", "-c", OTHER_PROCESS, server, prefix]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(name, *args):
        process.stdin.write(json.dumps([name, args]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        for number in range(20):
            call("set", "key", [number])
            wait_until(lambda: near.get("key") == [number])
            assert near.get("key") == [number]
            near.set("key", {"number": number})
            assert call("get", "key") == {"number": number} == near.get("key")
        near.set("count", 1)
        assert near.get("count") == 1
        assert call("incr", "count", 5) == 6
        wait_until(lambda: near.get("count") == 6)
        assert near.add("count", 1) is False and call("add", "count", 1) is False
    finally:
        process.stdin.close()
        process.wait(WAIT_SECONDS)
        process.stdout.close()


FORK = """
import os, signal, sys, warnings
from django.core.cache.backends.redis import RedisCache
from moka_py.integrations.django import NearCache
from near.near_caches import wait_until

# The listener is a thread.
warnings.simplefilter("ignore", DeprecationWarning)
params = {"KEY_PREFIX": sys.argv[2]}
near, plain = NearCache(sys.argv[1], params), RedisCache(sys.argv[1], params)
wait_until(lambda: near.near.is_coherent)
near.set("key", "parent")
assert near.get("key") == "parent"
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        assert near.get("key") == "parent"
        wait_until(lambda: near.near.is_coherent)
        near.set("key", "child")
        assert near.get("key") == "child"
        plain.set("other", 1)
        wait_until(lambda: near.get("other") == 1)
        plain.set("other", 2)
        wait_until(lambda: near.get("other") == 2)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
wait_until(lambda: near.get("key") == "child")
near.set("key", "parent")
assert near.get("key") == plain.get("key") == "parent"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_of_a_fork_see_each_other(server, prefix):
    result = subprocess.run(
        [sys.executable, "-P", "-c", FORK, server, prefix],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr


def test_metrics_of_a_near_cache_are_those_of_its_local_tier(near):
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    from moka_py.integrations.prometheus import MokaCollector

    near.set("key", 1)
    make_local(near, "key")
    collector = MokaCollector({"near": near.near}, functions=False, registry=None)
    samples = {
        (sample.name, sample.labels.get("result")): sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name in ("moka_requests_total", "moka_entries", "moka_capacity")
    }
    stats = near.near.stats().local
    assert samples["moka_requests_total", "hit"] == stats.hits >= 1
    assert samples["moka_entries", None] == stats.count == 1
    assert samples["moka_capacity", None] == 10_000
