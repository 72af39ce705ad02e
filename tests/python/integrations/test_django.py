"""`moka_py.integrations.django.MokaCache`: what Django's own suite does not test."""

import asyncio
import itertools
import sys
import threading

import pytest

pytest.importorskip("django", reason="Django is not installed")

from django.conf import settings

LOCATION = "moka_py.integrations.django.MokaCache"
if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": {"BACKEND": LOCATION, "LOCATION": "of the server"}},
        MIDDLEWARE=[
            "django.middleware.cache.UpdateCacheMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="secret",
    )

from django.core.cache import CacheHandler
from django.core.cache.backends.base import CacheKeyWarning
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import setting_changed
from django.http import HttpResponse
from django.urls import path
from integrations.servers import wsgi_server

from moka_py.integrations.django import MokaCache
from moka_py.testing import ManualClock

WAIT_SECONDS = 60
_locations = itertools.count()


@pytest.fixture
def location():
    return f"location {next(_locations)}"


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def cache(clock, location):
    return MokaCache(location, {})


def in_threads(number, function):
    """Call the function with each number in a thread of its own, all at once. Returns the results."""
    barrier = threading.Barrier(number)
    results = [None] * number

    def run(index):
        barrier.wait(WAIT_SECONDS)
        results[index] = function(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    return results


# --- Values ---


def test_each_read_returns_a_copy(cache):
    value = {"names": ["a"]}
    cache.set("key", value)
    value["names"].append("b")
    first, second = cache.get("key"), cache.get("key")
    assert first == second == {"names": ["a"]}
    assert first is not second and first["names"] is not second["names"]
    assert cache.get_many(["key"])["key"] is not first
    assert cache.get_or_set("key", dict) == first
    made = []
    assert cache.get_or_set("other", lambda: made) == made
    assert cache.get_or_set("other", lambda: made) is not made


def test_share_values_returns_the_object_that_was_set(location):
    cache = MokaCache(location, {"OPTIONS": {"SHARE_VALUES": True}})
    value = object()
    cache.set("a", value)
    assert cache.add("b", value) and not cache.add("b", None)
    cache.set_many({"c": value})
    assert all(cache.get(key) is value for key in "abc")
    assert all(found is value for found in cache.get_many("abc").values())
    assert cache.get_or_set("d", lambda: value) is value
    cache.set("none", None)
    assert not cache.add("none", 1)
    assert cache.get("none", 1) is cache.get_or_set("none", lambda: 1) is None
    cache.set("number", 1)
    assert cache.incr("number") == 2


def test_a_value_that_cannot_be_pickled_changes_nothing(cache):
    cache.set("key", 1)
    for write in (
        lambda: cache.set("key", lambda: None),
        lambda: cache.set_many({"key": 2, "other": lambda: None}),
        lambda: cache.add("other", lambda: None),
        lambda: cache.get_or_set("other", lambda: lambda: None),
    ):
        with pytest.raises(Exception, match=r"[Pp]ickle|local object"):
            write()
    assert cache.get_many(["key", "other"]) == {"key": 1}


# --- State ---


def test_backends_of_one_location_share_entries_and_others_do_not(location):
    first, second, other = MokaCache(location, {}), MokaCache(location, {}), MokaCache(location + "x", {})
    first.set("key", 1)
    assert (second.get("key"), other.get("key")) == (1, None)
    assert first.moka is second.moka is not other.moka


def test_prefix_and_version_and_key_function_make_the_key(location):
    cache = MokaCache(location, {"KEY_PREFIX": "shop", "VERSION": 3})
    cache.set("key", 1)
    assert list(cache.moka) == ["shop:3:key"]
    assert cache.get("key", version=4) is None
    assert cache.incr_version("key") == 4
    assert list(cache.moka) == ["shop:4:key"]
    own = MokaCache(location, {"KEY_FUNCTION": lambda key, prefix, version: f"own {key}"})
    with pytest.warns(CacheKeyWarning):
        own.set("key", 1)
    assert "own key" in cache.moka


def test_threads_of_a_handler_share_entries_and_close_keeps_them(location):
    handler = CacheHandler({"default": {"BACKEND": LOCATION, "LOCATION": location}})
    backends = in_threads(2, lambda index: handler["default"])
    assert backends[0] is not backends[1]
    backends[0].set("key", 1)
    handler.close_all()
    backends[0].close()
    assert backends[1].get("key") == 1


def test_threads_that_make_the_first_backend_at_once_share_a_cache(location):
    assert len({id(backend.moka) for backend in in_threads(8, lambda index: MokaCache(location, {}))}) == 1


def test_clear_removes_the_entries_of_all_aliases_of_the_location(location):
    cache, other = MokaCache(location, {}), MokaCache(location, {"KEY_PREFIX": "other"})
    other.set("key", 1)
    cache.clear()
    assert other.get("key") is None


def test_an_override_of_the_caches_setting_begins_with_empty_caches(location):
    before = MokaCache(location, {})
    before.set("key", 1)
    setting_changed.send(sender=None, setting="DEBUG", value=True, enter=True)
    assert MokaCache(location, {}).get("key") == 1
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=True)
    after = MokaCache(location, {"OPTIONS": {"MAX_ENTRIES": 1}})
    assert (after.get("key"), after.moka.capacity, len(before.moka)) == (None, 1, 0)


def test_backend_that_a_module_holds_shares_its_entries_after_an_override_of_the_caches_setting(location):
    held = MokaCache(location, {})
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=True)
    MokaCache(location, {"OPTIONS": {"MAX_ENTRIES": 1}}).set("key", 1)
    setting_changed.send(sender=None, setting="CACHES", value={}, enter=False)
    held.set("key", 2)
    assert MokaCache(location, {}).get("key") == 2


# --- Options ---


def test_a_full_cache_removes_one_entry_for_each_new_one(location):
    cache = MokaCache(location, {"OPTIONS": {"MAX_ENTRIES": 30, "POLICY": "lru", "CULL_FREQUENCY": 3}})
    cache.set_many({str(number): number for number in range(31)})
    assert cache.get("0") is None
    assert len(cache.moka) == cache.moka.capacity == 30
    assert cache.moka.policy == "lru"


def test_default_capacity_is_that_of_django(cache):
    assert cache.moka.capacity == 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"SHARED_VALUES": True}, "must be of MAX_ENTRIES, CULL_FREQUENCY, POLICY, SHARE_VALUES, got SHARED_VALUES"),
        ({"SHARE_VALUES": 1}, "SHARE_VALUES of the cache with LOCATION 'bad' must be a bool, got 1"),
        ({"POLICY": "fifo"}, "POLICY of the cache with LOCATION 'bad' must be 'tiny_lfu' or 'lru', got 'fifo'"),
        ({"MAX_ENTRIES": -1}, "MAX_ENTRIES of the cache with LOCATION 'bad' must be at least 0, got -1"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ImproperlyConfigured, match=message):
        MokaCache("bad", {"OPTIONS": options})
    # It changed nothing.
    MokaCache("bad", {})


def test_wrong_location_is_an_error():
    with pytest.raises(ImproperlyConfigured, match="LOCATION of a MokaCache must be a str, got \\['a', 'b'\\]"):
        MokaCache(["a", "b"], {})


@pytest.mark.parametrize(
    ("name", "here", "there"), [("MAX_ENTRIES", 30, 300), ("POLICY", "lru", "tiny_lfu"), ("SHARE_VALUES", True, False)]
)
def test_aliases_of_one_location_with_other_options_are_an_error(location, name, here, there):
    MokaCache(location, {})
    with pytest.raises(ImproperlyConfigured, match=f"{name} of .* the same in all aliases, got {there!r} and {here!r}"):
        MokaCache(location, {"OPTIONS": {name: here}})


# --- Deadlines ---


def test_entry_expires_after_its_timeout(cache, clock):
    cache.set("a", 1, 10)
    cache.set("b", 1)
    cache.set("c", 1, None)
    clock.advance(10)
    assert cache.get_many("abc") == {"b": 1, "c": 1}
    clock.advance(290)
    assert cache.get_many("abc") == {"c": 1}
    clock.advance(10**9)
    assert cache.get_many("abc") == {"c": 1}


def test_timeout_setting_of_none_means_no_deadline(location):
    cache = MokaCache(location, {"TIMEOUT": None})
    cache.set("a", 1)
    cache.set("b", 1, 5)
    assert cache.moka.expires_in(":1:a") is None
    assert 0 < cache.moka.expires_in(":1:b") <= 5


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_setting_of_zero_or_less_keeps_nothing(location, timeout):
    cache = MokaCache(location, {"TIMEOUT": timeout})
    cache.set("a", 1)
    cache.set_many({"a": 1})
    assert cache.add("a", 1) and cache.get_or_set("a", lambda: 1) == 1
    assert cache.get("a") is None
    cache.set("a", 1, 5)
    assert cache.incr("a") == cache.get("a") == 2
    assert cache.touch("a") and cache.get("a") is None


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_of_zero_or_less_expires_at_once(cache, timeout):
    cache.set_many({"a": 1, "b": 1, "c": 1})
    cache.set("a", 2, timeout)
    cache.set_many({"b": 2}, timeout)
    assert cache.touch("c", timeout) and not cache.touch("c", timeout)
    assert cache.add("d", 1, timeout)
    assert cache.get_or_set("e", lambda: 1, timeout) == 1
    assert cache.get_many("abcde") == {}
    cache.set("f", 1)
    assert not cache.add("f", 2, timeout)
    assert cache.get_or_set("f", lambda: 2, timeout) == cache.get("f") == 1


def test_timeout_of_more_than_a_thousand_years_is_accepted(cache):
    cache.set("a", 1, 10**15)
    assert cache.touch("a", 10**15)
    assert cache.get("a") == 1


def test_timeout_of_the_wrong_kind_is_an_error_that_names_it(cache):
    for write in (
        lambda: cache.set("a", 1, "5"),
        lambda: cache.add("a", 1, "5"),
        lambda: cache.set_many({"a": 1}, "5"),
        lambda: cache.get_or_set("a", lambda: 1, "5"),
    ):
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None, got '5'"):
            write()
    assert cache.get("a") is None


def test_set_without_a_deadline_ends_the_deadline_of_the_value_before(cache):
    cache.set("a", 1, 5)
    cache.set("a", 2, None)
    cache.set_many({"b": 1}, 5)
    cache.set_many({"b": 2}, None)
    assert cache.moka.expires_in(":1:a") is cache.moka.expires_in(":1:b") is None


def test_touch_restarts_and_removes_deadlines(cache, clock):
    cache.set("a", 1, 10)
    clock.advance(9)
    assert cache.touch("a", 10)
    clock.advance(9)
    assert cache.touch("a")
    clock.advance(299)
    assert cache.touch("a", None)
    clock.advance(10**9)
    assert cache.get("a") == 1
    assert not cache.touch("other", None)


def test_incr_and_decr_keep_the_deadline(cache, clock):
    cache.set("a", 1, 10)
    clock.advance(9)
    assert (cache.incr("a", 5), cache.decr("a")) == (6, 5)
    clock.advance(1)
    with pytest.raises(ValueError, match="Key ':1:a' not found"):
        cache.incr("a")


# --- Threads ---


def test_one_of_the_threads_that_add_a_key_succeeds(cache):
    for round_number in range(50):
        results = in_threads(4, lambda index: cache.add(f"key {round_number}".replace(" ", "-"), index))
        assert sum(results) == 1
        assert cache.get(f"key-{round_number}") == results.index(True)


def test_one_of_the_threads_that_add_an_expired_key_succeeds_with_its_own_timeout(cache, clock, fast_switches):
    timeouts = (10, 20, 30, None)
    for _ in range(50):
        cache.set("key", "old", 1)
        clock.advance(1)
        results = in_threads(4, lambda index: cache.add("key", index, timeouts[index]))
        assert sum(results) == 1
        winner = results.index(True)
        assert (cache.get("key"), cache.moka.expires_in(":1:key")) == (winner, timeouts[winner])
        cache.clear()


def test_threads_that_increment_lose_no_step(cache, fast_switches):
    cache.set("number", 0)
    in_threads(4, lambda index: [cache.incr("number") for _ in range(250)])
    assert cache.get("number") == 1000


def test_threads_that_increment_two_versions_lose_no_step_and_keep_the_deadlines(cache, clock, fast_switches):
    cache.set("number", 0, 10, version=1)
    cache.set("number", 0, None, version=2)
    in_threads(4, lambda index: [cache.incr("number", version=1 + index % 2) for _ in range(250)])
    assert [cache.get("number", version=version) for version in (1, 2)] == [500, 500]
    assert (cache.moka.expires_in(":1:number"), cache.moka.expires_in(":2:number")) == (10, None)


def test_a_touch_and_the_increments_beside_it_lose_neither(cache, clock, fast_switches):
    cache.set("number", 0, 10)
    in_threads(2, lambda index: [cache.touch("number", 50) if index else cache.incr("number") for _ in range(250)])
    assert (cache.get("number"), cache.moka.expires_in(":1:number")) == (250, 50)


def test_threads_that_miss_a_key_share_one_computation(cache):
    begun, go_on, computed = threading.Event(), threading.Event(), []

    def compute():
        computed.append(1)
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        return ["value"]

    results = []
    threads = [threading.Thread(target=lambda: results.append(cache.get_or_set("key", compute))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(WAIT_SECONDS)
    threads[1].start()
    while cache.moka._counts().misses < 2:
        pass
    go_on.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert results == [["value"], ["value"]] and results[0] is not results[1]
    assert computed == [1]


def test_add_and_async_get_or_set_do_not_wait_for_a_computation_and_win_over_it(cache):
    begun, go_on = threading.Event(), threading.Event()

    def compute():
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        return "computed"

    for name, write in (
        ("add", lambda: cache.add("add", "written")),
        ("aget_or_set", lambda: asyncio.run(cache.aget_or_set("aget_or_set", lambda: "written"))),
    ):
        begun.clear(), go_on.clear()
        results = []
        thread = threading.Thread(target=lambda: results.append(cache.get_or_set(name, compute)))
        thread.start()
        assert begun.wait(WAIT_SECONDS)
        assert write() in (True, "written")
        go_on.set()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        assert results == ["computed"]
        assert cache.get(name) == "written"


def test_an_exception_of_the_default_leaves_get_or_set_and_stores_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("key", lambda: 1 / 0)
    assert "key" not in cache


def test_a_default_that_asks_for_its_own_key_raises(cache):
    with pytest.raises(RuntimeError, match="asked for that very key"):
        cache.get_or_set("key", lambda: cache.get_or_set("key", lambda: 1))
    assert cache.get_or_set("key", lambda: 2) == 2


# --- Async methods ---


class Recorder:
    """A value that records the threads in which it is pickled."""

    threads: list[int] = []

    def __reduce__(self):
        self.threads.append(threading.get_ident())
        return (Recorder, ())


def test_async_methods_do_what_the_sync_ones_do_in_the_thread_of_the_event_loop(cache, clock):
    async def main():
        await cache.aset("a", 1)
        assert await cache.aadd("b", 2) and not await cache.aadd("b", 3)
        assert (await cache.aget("a"), await cache.aget("x", 7)) == (1, 7)
        assert await cache.aset_many({"c": 3, "d": 4}) == []
        assert await cache.aget_many(["a", "c", "x"]) == {"a": 1, "c": 3}
        assert (await cache.aincr("a", 5), await cache.adecr("a")) == (6, 5)
        assert await cache.ahas_key("a") and not await cache.ahas_key("x")
        assert await cache.adelete("a") and not await cache.adelete("a")
        assert await cache.aget_or_set("e", lambda: 5) == await cache.aget_or_set("e", 6) == 5
        assert await cache.aincr_version("e") == 2 and await cache.adecr_version("e", version=2) == 1
        assert await cache.atouch("b", 10) and not await cache.atouch("x")
        clock.advance(10)
        assert await cache.aget("b") is None
        await cache.adelete_many(["c", "x"])
        assert sorted(cache.moka) == [":1:d", ":1:e"]
        await cache.aset("recorder", Recorder())
        await cache.aget_or_set("recorder 2".replace(" ", ""), Recorder)
        await cache.aclose()
        await cache.aclear()
        assert len(cache.moka) == 0

    asyncio.run(main())
    assert set(Recorder.threads) == {threading.get_ident()}


# --- A real server ---


def slow_view(request):
    computed.append(threading.get_ident())
    return HttpResponse(f"page {len(computed)}")


computed = []
urlpatterns = [path("", slow_view)]


def test_requests_of_a_real_server_share_the_cache():
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    import django

    django.setup()
    with wsgi_server(WSGIHandler()) as address, httpx.Client(timeout=WAIT_SECONDS) as client:
        pages = [client.get(address, headers={"Connection": "close"}).text for _ in range(3)]
    assert pages == ["page 1"] * 3
    # The server handled each request in a thread, and Django closed the caches after it.
    assert len(computed) == 1 and computed[0] != threading.get_ident()


def test_module_imports_without_settings():
    import subprocess

    code = "import moka_py.integrations.django as django; assert django.MokaCache('', {}).add('a', 1)"
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True, timeout=WAIT_SECONDS)
