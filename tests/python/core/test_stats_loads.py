"""`stats()` counts loads and their time."""

import time

import pytest
from helpers import (
    IMMEDIATELY_DUE,
    MAX_CLOCK_SKEW,
    Background,
    Gate,
    counted,
)

from moka_py import Moka


def test_loads_are_completed_initializers():
    cache = Moka(10)
    for _ in range(3):
        cache.get_with("a", lambda: time.sleep(0.02))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures, stats.inserts) == (2, 1, 1, 0, 1)
    assert stats.load_seconds >= 0.02 - MAX_CLOCK_SKEW


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_load_that_raises_is_a_failure_and_its_time_is_counted(error):
    cache = Moka(10)

    def fail():
        time.sleep(0.02)
        raise error

    with pytest.raises(error):
        cache.get_with("a", fail)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures, stats.inserts) == (0, 1, 1, 1, 0)
    assert stats.load_seconds >= 0.02 - MAX_CLOCK_SKEW


def test_nested_load_is_counted():
    cache = Moka(10)
    assert cache.get_with("a", lambda: cache.get_with("b", lambda: 1)) == 1
    assert counted(cache, "hits", "misses", "loads", "inserts") == (0, 2, 2, 2)


def test_initializer_can_read_and_reset_stats():
    cache = Moka(10)
    cache.set("due", 1, ttl=IMMEDIATELY_DUE)

    def ask():
        stats = cache.stats()
        cache.reset_stats()
        return stats

    stats = cache.get_with("a", ask)
    assert (stats.misses, stats.loads, stats.inserts, stats.expirations) == (1, 0, 1, 1)
    assert counted(cache, "misses", "loads", "inserts", "expirations") == (0, 1, 1, 0)


def test_load_that_needs_its_own_key_fails_once():
    cache = Moka(10)
    with pytest.raises(RuntimeError):
        cache.get_with("a", lambda: cache.get_with("a", list))
    assert counted(cache, "hits", "misses", "loads", "load_failures") == (0, 2, 1, 1)


def test_waiter_of_a_load_counts_a_miss_and_no_load():
    cache, gate, late = Moka(10), Gate(), []

    def lead():
        gate.stop_here()
        return "value"

    with Background(lambda: cache.get_with("a", lead)) as leader:
        gate.wait_until_reached()
        waiters = [Background(lambda: cache.get_with("a", lambda: late.append(1))) for _ in range(4)]
        for waiter in waiters:
            waiter.__enter__()
        while cache.stats().misses < 5:
            time.sleep(0.001)
        gate.open()
        for waiter in waiters:
            waiter.__exit__(None, None, None)
    assert [thread.result for thread in (leader, *waiters)] == ["value"] * 5
    assert late == []
    assert counted(cache, "hits", "misses", "loads", "inserts") == (0, 5, 1, 1)
