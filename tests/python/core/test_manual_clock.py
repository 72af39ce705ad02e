"""`moka_py.testing.ManualClock`, which tests of durations advance instead of waiting."""

import asyncio
import gc
import threading
import weakref
from datetime import timedelta

import pytest
from helpers import IMMEDIATELY_DUE, run_in_thread, run_threads

import moka_py.testing
from moka_py import Moka, cached
from moka_py.testing import ManualClock

NANOSECOND = 1e-9


def test_module_exports_the_clock():
    assert moka_py.testing.__all__ == ["ManualClock"]
    assert (ManualClock.__module__, ManualClock.__qualname__) == ("moka_py.testing", "ManualClock")


def test_cache_made_under_a_manual_clock_keeps_that_clock():
    with ManualClock() as clock:
        cache = Moka(10, ttl=1)
        cache["key"] = "value"
        clock.advance(1 - NANOSECOND)
        assert cache["key"] == "value" and cache.expires_in("key") == NANOSECOND
    clock.advance(NANOSECOND)
    assert "key" not in cache and cache.count() == 0


def test_time_to_idle_follows_the_clock():
    with ManualClock() as clock:
        cache = Moka(10, tti=timedelta(seconds=10))
    cache["key"] = "value"
    for _ in range(3):
        clock.advance(timedelta(seconds=9))
        assert cache.get("key") == "value"
    clock.advance(10)
    assert cache.get("key") is None


def test_cached_function_made_under_a_manual_clock_uses_it():
    calls = []
    with ManualClock() as clock:
        function = cached(ttl=1)(calls.append)
    function(1), function(1)
    clock.advance(1)
    function(1)
    assert calls == [1, 1]


def test_cached_coroutine_function_made_under_a_manual_clock_uses_it():
    calls = []

    async def append(number):
        calls.append(number)

    with ManualClock() as clock:
        function = cached(ttl=60)(append)

    async def main():
        await function(1), await function(1)
        clock.advance(60)
        await function(1)

    asyncio.run(main())
    assert calls == [1, 1]


def test_cache_made_in_another_thread_follows_the_clock():
    made = threading.Barrier(5)
    caches = []

    def make():
        cache = Moka(10, ttl=1)
        cache["key"] = "value"
        caches.append(cache)
        made.wait()
        advanced.wait()
        assert "key" not in cache

    def advance():
        made.wait()
        assert all("key" in cache for cache in caches)
        clock.advance(1)
        advanced.wait()

    advanced = threading.Barrier(5)
    with ManualClock() as clock:
        run_threads(*[make] * 4, advance)
    assert len(caches) == 4


def test_clock_entered_in_one_thread_can_be_exited_in_another():
    clock = ManualClock()
    run_in_thread(clock.__enter__)
    cache = Moka(10, ttl=1)
    run_in_thread(lambda: clock.__exit__(None, None, None))
    cache["key"] = "value"
    clock.advance(1)
    assert "key" not in cache


def test_other_caches_ignore_a_manual_clock():
    before = Moka(10, ttl=IMMEDIATELY_DUE)
    lasting = Moka(10, ttl=1000)
    lasting["key"] = "value"
    with ManualClock() as clock:
        clock.advance(10_000)
        before["key"] = "value"
        assert "key" not in before and "key" in lasting
    after = Moka(10, ttl=IMMEDIATELY_DUE)
    after["key"] = "value"
    assert "key" not in after


def test_nested_clock_is_an_error_in_any_thread_and_changes_nothing():
    existing = Moka(10, ttl=1000)
    existing["key"] = "value"
    other = ManualClock(caches=[existing])

    def enter():
        for clock in (other, ManualClock(), outer):
            with pytest.raises(RuntimeError, match="a ManualClock is entered already in this process"):
                clock.__enter__()

    with ManualClock() as outer:
        enter()
        run_in_thread(enter)
        other.__exit__(None, None, None)
        other.advance(2000)
        assert "key" in existing
        cache = Moka(10, ttl=1)
        cache["key"] = "value"
        outer.advance(1)
        assert "key" not in cache
    with other:
        pass


def test_clock_can_be_entered_again_and_goes_on():
    clock = ManualClock()
    with clock:
        first = Moka(10, ttl=10)
        first["key"] = "value"
    clock.advance(4)
    with clock:
        second = Moka(10, ttl=10)
        second["key"] = "value"
        clock.advance(6)
        assert "key" not in first and second.expires_in("key") == 4


def test_block_that_raises_exits_the_clock():
    with pytest.raises(ZeroDivisionError), ManualClock():
        1 / 0
    with ManualClock():
        pass


def test_existing_caches_are_moved_for_the_block():
    cache = Moka(10, ttl=1000)
    cache["before"] = 1
    left = cache.expires_in("before")
    with ManualClock(caches=[cache]) as clock:
        stopped = cache.expires_in("before")
        assert left - 500 < stopped <= left
        assert cache.expires_in("before") == stopped
        cache["inside"] = 2
        assert cache.expires_in("inside") == 1000
        clock.advance(400)
        assert cache.expires_in("before") == pytest.approx(stopped - 400)
        assert cache.expires_in("inside") == 600
        clock.advance(600)
        assert "before" not in cache and "inside" not in cache
        cache["last"] = 3
    clock.advance(5000)
    assert 900 < cache.expires_in("last") <= 1000


def test_time_of_a_moved_cache_never_goes_back():
    cache = Moka(10, ttl=1000)
    clock = ManualClock(caches=[cache])
    for _ in range(3):
        cache["key"] = "value"
        with clock:
            clock.advance(900)
        assert 0 < cache.expires_in("key") <= 100
        with clock:
            clock.advance(100)
        assert "key" not in cache


def test_cache_of_a_clock_can_be_moved_by_another():
    with ManualClock() as first:
        cache = Moka(10, ttl=10)
    cache["key"] = "value"
    with ManualClock(caches=[cache]) as second:
        first.advance(9)
        assert cache.expires_in("key") == 10
        second.advance(3)
        assert cache.expires_in("key") == 7
    assert cache.expires_in("key") == 1
    first.advance(1)
    assert "key" not in cache


def test_caches_of_cached_functions_are_moved_each_once():
    calls = []

    @cached(ttl=60)
    def function(number):
        calls.append(number)

    class Shop:
        @cached(ttl=60)
        def price(self, number):
            calls.append(number)

    shop = Shop()
    with ManualClock(caches=[function, function.cache, shop.price, Shop.price]) as clock:
        function(1), shop.price(2)
        clock.advance(30)
        function(1), shop.price(2)
        assert calls == [1, 2]
        clock.advance(30)
        function(1), shop.price(2)
        assert calls == [1, 2, 1, 2]


@pytest.mark.parametrize("caches", [[], (), iter([]), None])
def test_clock_may_have_no_caches(caches):
    with ManualClock(caches=caches) as clock:
        clock.advance(1)


@pytest.mark.parametrize("wrong", [5, {}, len, Moka])
def test_what_has_no_cache_is_refused_with_its_position(wrong):
    with pytest.raises(TypeError, match=r"caches must have caches and cached functions, got \w+ in its element 1"):
        ManualClock(caches=[Moka(1), wrong])


def test_caches_must_be_iterable():
    with pytest.raises(TypeError, match="caches must be an iterable of caches and cached functions, got int"):
        ManualClock(caches=5)


@pytest.mark.parametrize("wrong", [-1, 0, float("nan"), float("inf"), timedelta(0), 10**400])
def test_wrong_step_is_refused(wrong):
    with pytest.raises(ValueError, match="seconds must be"):
        ManualClock().advance(wrong)


@pytest.mark.parametrize("wrong", ["1", None, [1]])
def test_step_of_another_kind_is_refused(wrong):
    with pytest.raises(TypeError, match="seconds must be a number of seconds or a timedelta, got"):
        ManualClock().advance(wrong)


def test_listener_is_told_when_the_clock_makes_entries_expire():
    removed = []
    with ManualClock() as clock:
        cache = Moka(10, ttl=1, eviction_listener=lambda *removal: removed.append(removal))
    cache["key"] = "value"
    clock.advance(1)
    cache.run_pending_tasks()
    assert removed == [("key", "value", "expired")]


def test_cycle_through_a_clock_is_collected():
    class Value:
        pass

    cache, value = Moka(10), Value()
    value.clock = ManualClock(caches=[cache])
    cache["key"] = value
    reference = weakref.ref(value)
    del cache, value
    for _ in range(3):
        gc.collect()
    assert reference() is None
