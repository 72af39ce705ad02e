"""A ttl function that returns zero or less: the value is returned, and not kept."""

import math
import random
import weakref
from datetime import timedelta

import pytest
from helpers import Events, Value, contents, outcomes_of_threads
from ttl_function_helpers import (
    INSERTS,
    RETURNING,
    Recorder,
    each_call_with_ttl,
    each_insert,
    each_replacement,
    outcomes_with_waiters,
)

from moka_py import Moka

NOT_KEPT = [0, -1, 0.0, -0.0, -5e-324, -math.inf, timedelta(0), timedelta(microseconds=-1), False, -(10**400)]


# Zero or less.
@pytest.mark.parametrize("result", NOT_KEPT, ids=repr)
def test_zero_or_less_means_do_not_keep(result, events):
    cache = Moka(10, ttl=lambda key, value: result, eviction_listener=events)
    cache.set("a", 1)
    assert (cache.get("a"), len(cache)) == (None, 0)
    assert events == [("a", 1, "expired")]


@pytest.mark.parametrize("name", INSERTS)
def test_caller_gets_the_result_that_is_not_kept(name, events):
    cache, value = Moka(10, ttl=lambda key, value: 0, eviction_listener=events), Value()
    result = INSERTS[name](cache, "a", value)
    assert result is (value if name in RETURNING else None)
    assert (contents(cache), events) == ({}, [("a", value, "expired")])
    assert events[0][1] is value


@each_replacement
def test_older_value_leaves_as_replaced(replace, events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    cache.set("a", 5)
    replace(cache, "a", 0)
    assert contents(cache) == {}
    assert events == [("a", 5, "replaced"), ("a", 0, "expired")]


def test_older_value_past_its_deadline_leaves_as_expired(clock, events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    cache.set("a", 5)
    clock.advance(5)
    cache.set("a", 0)
    assert events == [("a", 5, "expired"), ("a", 0, "expired")]


@each_call_with_ttl
def test_function_of_a_call_can_say_do_not_keep(call, events):
    cache = Moka(10, eviction_listener=events, ttl=60)
    call(cache, "a", 1, lambda key, value: -1)
    assert (contents(cache), events) == ({}, [("a", 1, "expired")])


@each_insert
def test_result_that_is_not_kept_counts_as_an_insert_and_an_expiration(insert):
    cache = Moka(10, ttl=lambda key, value: 0)
    insert(cache, "a", 1)
    stats = cache.stats()
    assert (stats.inserts, stats.expirations, stats.count, stats.weight) == (1, 1, 0, 0)
    assert (stats.evictions, stats.removals, stats.replacements) == (0, 0, 0)


def test_older_value_counts_as_replaced():
    cache = Moka(10, ttl=lambda key, value: value)
    cache.set("a", 5)
    cache.set("a", 0)
    stats = cache.stats()
    assert (stats.inserts, stats.replacements, stats.expirations, stats.count) == (1, 1, 1, 0)


def test_entry_that_is_not_kept_evicts_no_other():
    cache = Moka(2, ttl=lambda key, value: value, policy="lru")
    cache.update(a=5, b=5)
    cache["c"] = 0
    assert contents(cache) == {"a": 5, "b": 5}


def test_entry_that_is_too_heavy_and_not_kept_leaves_as_expired(events):
    cache = Moka(2, ttl=lambda key, value: 0, weigher=lambda key, value: 3, eviction_listener=events)
    cache.set("a", 1)
    assert events == [("a", 1, "expired")]


def test_present_value_stays_if_the_default_would_not_be_kept(events):
    function = Recorder()
    cache = Moka(10, ttl=function, eviction_listener=events)
    cache.set("a", 1)
    function.result = 0
    assert cache.setdefault("a", 2) == 1
    assert (contents(cache), events) == ({"a": 1}, [])


def test_value_is_released_when_it_is_not_kept():
    cache, value = Moka(10, ttl=lambda key, value: 0), Value()
    watch = weakref.ref(value)
    cache.set("a", value)
    del value
    cache.run_pending_tasks()
    assert watch() is None


def test_value_is_not_kept_in_a_thread_whose_last_sets_replaced():
    results = [None] * 5 + [0]
    cache = Moka(10, ttl=lambda key, value: results.pop(0))
    for number in range(6):
        cache.set("a", number)
    assert contents(cache) == {}


def test_result_that_is_not_kept_is_computed_anew():
    runs = []
    cache = Moka(10, ttl=lambda key, value: 0)
    for _ in range(3):
        assert cache.get_with("a", lambda: runs.append(True) or len(runs)) == len(runs)
    assert len(runs) == 3
    assert (cache.stats().loads, cache.stats().misses) == (3, 3)


def test_waiters_get_a_result_that_is_not_kept(events):
    cache, value = Moka(10, ttl=lambda key, value: 0, eviction_listener=events), object()
    results, runs = outcomes_with_waiters(cache, value)
    assert all(result is value for result in results)
    assert len(runs) == 1 and len(cache) == 0 and events.causes() == ["expired"]


# Law 13: a later write wins.
def test_write_that_is_not_kept_keeps_a_load_in_flight_out(events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    assert cache.get_with("a", lambda: cache.set("a", 0) or 7) == 7
    assert (contents(cache), events) == ({}, [("a", 0, "expired")])


def test_load_whose_result_is_not_kept_leaves_a_later_write_alone(events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    assert cache.get_with("a", lambda: cache.set("a", 7) or 0) == 0
    assert (contents(cache), events) == ({"a": 7}, [])


# Law 9: each removal is reported once.
def test_each_value_is_reported_once_whether_it_was_kept_or_not(clock, events):
    generator = random.Random(7)
    cache = Moka(8, ttl=lambda key, value: generator.choice([None, 0, -1, 1, 5]), eviction_listener=events)
    count = 3_000
    for number in range(count):
        key = generator.randrange(20)
        generator.choice([cache.set, cache.set, lambda key, value: cache.get_with(key, lambda: value)])(key, number)
        if generator.random() < 0.2:
            clock.advance(generator.random())
    held = set(contents(cache).values())
    told = [value for _, value, _ in events]
    assert len(told) == len(set(told)) and not held & set(told)
    stats = cache.stats()
    assert stats.inserts == stats.evictions + stats.expirations + stats.removals + stats.count
    assert events.causes().count("expired") == stats.expirations
    assert events.causes().count("replaced") == stats.replacements


def test_threads_account_for_each_value(fast_switches):
    events, count, threads = Events(), 400, 4
    cache = Moka(20, ttl=lambda key, value: [None, 0, 60][value % 3], eviction_listener=events)

    def work(number):
        for step in range(count):
            cache.set(step % 30, number * count + step)

    outcomes_of_threads(threads, work)
    told = [value for _, value, _ in events]
    assert sorted(told + list(contents(cache).values())) == list(range(threads * count))
    assert all(value % 3 != 1 for value in contents(cache).values())
    not_kept = [value for value in range(threads * count) if value % 3 == 1]
    assert sorted(value for _, value, cause in events if cause == "expired") == not_kept


@pytest.mark.parametrize(("of_cache", "of_call"), [(0, 5), (5, 0), (None, -1), (-1, None)])
@each_call_with_ttl
def test_entry_is_kept_only_if_both_functions_keep_it(call, of_cache, of_call, events):
    cache = Moka(10, ttl=lambda key, value: of_cache, eviction_listener=events)
    call(cache, "a", 1, lambda key, value: of_call)
    assert (contents(cache), events) == ({}, [("a", 1, "expired")])
