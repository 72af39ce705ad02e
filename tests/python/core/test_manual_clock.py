"""The manual clock, which tests of durations advance instead of waiting."""

from helpers import IMMEDIATELY_DUE, run_in_thread

from moka_py import Moka, cached
from moka_py._moka_py import _ManualClock

SECOND = 10**9


def test_cache_made_under_a_manual_clock_keeps_that_clock():
    with _ManualClock() as clock:
        cache = Moka(10, ttl=1)
    cache["key"] = "value"
    clock.advance(SECOND - 1)
    assert cache["key"] == "value" and cache.expires_in("key") == 1e-9
    clock.advance(1)
    assert "key" not in cache and cache.count() == 0


def test_cached_function_made_under_a_manual_clock_uses_it():
    calls = []
    with _ManualClock() as clock:
        function = cached(ttl=1)(calls.append)
    function(1), function(1)
    clock.advance(SECOND)
    function(1)
    assert calls == [1, 1]


def test_other_caches_ignore_a_manual_clock():
    before = Moka(10, ttl=IMMEDIATELY_DUE)
    with _ManualClock():
        elsewhere = run_in_thread(lambda: Moka(10, ttl=IMMEDIATELY_DUE))
    after = Moka(10, ttl=IMMEDIATELY_DUE)
    for cache in (before, elsewhere, after):
        cache["key"] = "value"
        assert "key" not in cache


def test_innermost_manual_clock_is_used():
    with _ManualClock() as outer:
        with _ManualClock() as inner:
            cache = Moka(10, ttl=1)
        other = Moka(10, ttl=1)
    cache["key"] = other["key"] = "value"
    inner.advance(SECOND)
    assert "key" not in cache and "key" in other
    outer.advance(SECOND)
    assert "key" not in other
