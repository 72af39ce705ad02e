"""`moka_py.integrations.flask_caching.MokaCache`: what the suites of cachelib and Flask-Caching do not test."""

import threading
from datetime import timedelta

import pytest

pytest.importorskip("flask_caching", reason="Flask-Caching is not installed")

from flask import Flask
from flask_caching import Cache
from integrations.servers import wsgi_server

from moka_py.integrations.flask_caching import MokaCache, SharedValues
from moka_py.testing import ManualClock

WAIT_SECONDS = 60
PATH = "moka_py.integrations.flask_caching.MokaCache"


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def cache(clock):
    return MokaCache()


def backend_of(**config):
    app = Flask(__name__)
    cache = Cache(app, config={"CACHE_TYPE": PATH, **config})
    return app.extensions["cache"][cache]


def test_config_chooses_the_backend_and_its_options():
    backend = backend_of(
        CACHE_THRESHOLD=7, CACHE_DEFAULT_TIMEOUT=5, CACHE_IGNORE_ERRORS=True, CACHE_OPTIONS={"policy": "lru"}
    )
    assert type(backend) is MokaCache
    assert (backend.moka.capacity, backend.moka.policy, backend.default_timeout) == (7, "lru", 5)
    assert backend.ignore_delete_many_errors
    assert backend_of(CACHE_OPTIONS={"threshold": 3}).moka.capacity == 3
    assert backend_of(CACHE_THRESHOLD=0).moka.capacity == 500


def test_wrong_option_is_an_error():
    with pytest.raises(ValueError, match="policy"):
        backend_of(CACHE_OPTIONS={"policy": "fifo"})
    with pytest.raises(TypeError, match="polcy"):
        backend_of(CACHE_OPTIONS={"polcy": "lru"})
    with pytest.raises(ValueError, match="capacity must be at least 0, got -1"):
        backend_of(CACHE_THRESHOLD=-1)


def test_each_read_returns_a_copy(cache):
    value = ["a"]
    cache.set("key", value)
    value.append("b")
    assert cache.get("key") == ["a"] and cache.get("key") is not cache.get("key")


def test_shared_values_serializer_returns_the_object_that_was_set():
    backend = backend_of(CACHE_SERIALIZER=SharedValues)
    value = object()
    assert backend.set("a", value) and backend.add("b", value)
    assert backend.get_many("a", "b") == [value, value]
    assert backend.set("none", None) and not backend.add("none", 1)
    assert backend.has("none") and backend.get("none") is None
    assert backend.inc("number", 2) == 2


class FailingSerializer(SharedValues):
    """As cachelib's serializers do, it returns None for a value that it cannot store."""

    def dumps(self, value, protocol=0):
        return None


def test_a_value_that_cannot_be_serialized_changes_nothing(cache):
    cache.set("key", 1)
    before = cache.serializer
    cache.serializer = FailingSerializer()
    assert cache.set("key", 2) is False and cache.add("other", 2) is False
    assert cache.inc("other") is None and cache.dec("other") is None
    cache.serializer = before
    assert cache.get_many("key", "other") == [1, None]


def test_entry_expires_after_its_timeout(cache, clock):
    cache.set("a", 1, 10)
    cache.set("b", 1)
    cache.set("c", 1, 0)
    cache.set("d", 1, timedelta(seconds=10))
    clock.advance(10)
    assert cache.get_many("a", "b", "c", "d") == [None, 1, 1, None]
    clock.advance(290)
    assert cache.get_many("b", "c") == [None, 1]
    clock.advance(10**9)
    assert cache.get("c") == 1


def test_negative_timeout_expires_at_once(cache):
    cache.set("a", 1)
    assert cache.set("a", 2, -1) and not cache.has("a")
    assert cache.add("b", 1, -1) and not cache.has("b")
    cache.set("b", 1)
    assert not cache.add("b", 2, -1)
    assert cache.get("b") == 1
    expired = MokaCache(default_timeout=-1)
    assert expired.inc("a", 3) == 3 and not expired.has("a")


def test_inc_and_dec_restart_the_default_timeout(cache, clock):
    cache.set("a", 1, 10)
    assert cache.inc("a") == 2 and cache.dec("new", 2) == -2
    clock.advance(299)
    assert cache.get_many("a", "new") == [2, -2]
    endless = MokaCache(default_timeout=0)
    endless.set("a", 1, 10)
    assert endless.inc("a") == 2
    clock.advance(10**9)
    assert endless.get("a") == 2


def test_timeout_of_more_than_a_thousand_years_is_accepted(cache):
    assert cache.set("a", 1, 10**15)
    assert cache.get("a") == 1


def in_threads(number, function):
    barrier = threading.Barrier(number)
    results = []

    def run():
        barrier.wait(WAIT_SECONDS)
        results.append(function())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    return results


def test_threads_that_increment_lose_no_step_and_one_of_those_that_add_succeeds(cache, fast_switches):
    in_threads(4, lambda: [cache.inc("number") for _ in range(250)])
    assert cache.get("number") == 1000
    for number in range(50):
        assert sum(in_threads(4, lambda: cache.add(f"key {number}", 1))) == 1


def test_a_small_app_on_a_real_server_computes_each_page_once():
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    app = Flask(__name__)
    cache = Cache(app, config={"CACHE_TYPE": PATH})
    calls = []

    @app.get("/page/<name>")
    @cache.cached(timeout=50)
    def page(name):
        calls.append(name)
        return f"{name} {double(len(name))} {len(calls)}"

    @cache.memoize()
    def double(number):
        calls.append(number)
        return 2 * number

    @app.post("/forget")
    def forget():
        cache.delete_memoized(double)
        cache.delete("view//page/tea")
        return ""

    with wsgi_server(app) as address, httpx.Client(base_url=address, timeout=WAIT_SECONDS) as client:
        assert [client.get("/page/tea").text for _ in range(3)] == ["tea 6 2"] * 3
        assert client.get("/page/pot").text == "pot 6 3"
        client.post("/forget")
        assert client.get("/page/tea").text == "tea 6 5"
        assert client.get("/page/pot").text == "pot 6 3"
    assert calls == ["tea", 3, "pot", "tea", 3]
