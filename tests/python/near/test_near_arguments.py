"""Clients and arguments that are refused, and the imports of the package."""

import warnings

import pytest
from helpers import run_script
from near.near_caches import wait_until

from moka_py.near import NearCache


def test_a_client_of_another_kind_is_refused(client_package):
    from importlib import import_module

    name = client_package.__name__
    aio = import_module(f"{name}.asyncio")
    sync_kind = getattr(client_package, "Redis", None) or client_package.Valkey
    async_kind = getattr(aio, "Redis", None) or aio.Valkey
    for client in (None, "redis://localhost", object(), async_kind(), sync_kind().pipeline(), sync_kind().pubsub()):
        with pytest.raises(TypeError, match=r"client must be a redis\.Redis or valkey\.Valkey, got "):
            NearCache(client, "n", ttl=1)


def test_clients_of_clusters_and_of_sentinel_are_refused(client_package):
    from importlib import import_module

    name = client_package.__name__
    cluster = getattr(client_package, "RedisCluster", None) or client_package.ValkeyCluster
    with pytest.raises(ValueError, match="client must be a client of one server, got one of a cluster"):
        NearCache(cluster.__new__(cluster), "n", ttl=1)
    sentinel = import_module(f"{name}.sentinel").Sentinel([("127.0.0.1", 1)])
    for client in (sentinel, sentinel.master_for("service"), sentinel.slave_for("service")):
        with pytest.raises(ValueError, match="client must be a client of one server, got one of Sentinel"):
            NearCache(client, "n", ttl=1)


def test_a_client_with_a_cache_of_its_own_is_refused(client_package):
    if client_package.__name__ == "redis":
        from redis.cache import CacheConfig

        client = client_package.Redis(protocol=3, cache_config=CacheConfig())
    else:
        client = client_package.Valkey(protocol=3, cache_enabled=True)
    with pytest.raises(ValueError, match="client must not have a cache of its own"):
        NearCache(client, "n", ttl=1)


WRONG_ARGUMENTS = [
    ({"namespace": 1}, TypeError, "namespace must be a str, got int"),
    ({"namespace": ""}, ValueError, "namespace must not be empty"),
    ({"namespace": "a:b"}, ValueError, 'must not contain ":"'),
    ({"namespace": "\ud800"}, ValueError, "surrogates not allowed"),
    ({"ttl": 0}, ValueError, "ttl must be positive and finite, got 0"),
    ({"ttl": "1"}, TypeError, "ttl must be a number of seconds or a timedelta, got str"),
    ({"local_ttl": -1}, ValueError, "local_ttl must be positive and finite, got -1"),
    ({"max_staleness": 0}, ValueError, "max_staleness must be positive and finite, got 0"),
    ({"max_staleness": None}, TypeError, "max_staleness must be a number of seconds or a timedelta, got NoneType"),
    ({"stale_if_error": 0}, ValueError, "stale_if_error must be positive and finite, got 0"),
    ({"capacity": -1}, ValueError, "capacity must be at least 0, got -1"),
    ({"capacity": "1"}, TypeError, "capacity must be an int, got str"),
    ({"policy": "fifo"}, ValueError, "policy must be"),
    ({"weigher": 1}, TypeError, "weigher must be callable or None, got int"),
    ({"copy": 1}, TypeError, "copy must be callable or None, got int"),
    ({"on_error": "ignore"}, ValueError, 'on_error must be "raise" or "miss", got \'ignore\''),
    ({"serializer": "yaml"}, ValueError, 'serializer must be "json", "raw", "pickle" or an object'),
    ({"serializer": None}, TypeError, "or an object with name, dumps and loads, got NoneType"),
    ({"serializer": type("S", (), {"name": "a:b", "dumps": str, "loads": str})}, ValueError, "serializer.name must"),
    ({"serializer": type("S", (), {"name": "", "dumps": str, "loads": str})}, ValueError, "serializer.name must"),
    ({"serializer": type("S", (), {"name": 1, "dumps": str, "loads": str})}, TypeError, "serializer must be"),
]


@pytest.mark.parametrize(("argument", "kind", "text"), WRONG_ARGUMENTS, ids=[str(each[0]) for each in WRONG_ARGUMENTS])
def test_wrong_arguments_are_refused_and_leave_nothing_behind(scripted_client, server, argument, kind, text):
    with pytest.raises(kind, match=text) as caught:
        NearCache(scripted_client, **{"namespace": "n", "ttl": 1, **argument})
    # Although the traceback keeps the object that was not made, another near cache may have other options.
    NearCache(scripted_client, "n", ttl=7, capacity=3).close()
    assert caught.tb is not None
    assert server.connections == []


def test_the_ttl_must_be_given(scripted_client):
    with pytest.raises(TypeError, match="ttl"):
        NearCache(scripted_client, "n")


def test_the_package_imports_no_client():
    run_script("""
import sys, moka_py.near
assert not {"redis", "valkey"} & set(sys.modules)
assert "asyncio" not in sys.modules
""")


def test_warnings_come_from_the_line_of_the_caller(server, scripted_client, manual_clock, paced):
    from near.resp import Failure

    server.answer("CLIENT", "TRACKING", reply=Failure("ERR unknown"))
    with NearCache(scripted_client, "n", ttl=1) as cache:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wait_until(lambda: cache.get("k") or caught)
        assert caught[0].filename == __file__
