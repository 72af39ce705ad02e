"""A ttl may be a function of key and value: it decides how long the entry lives, or that it is not kept."""

import datetime
import gc
import math
import random
import threading
import weakref
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
from helpers import Events, Key, Value, assert_copies_of_exception, contents, observable_state, outcomes_of_threads

from moka_py import Moka
from moka_py.testing import ManualClock

NOT_KEPT = [0, -1, 0.0, -0.0, -5e-324, -math.inf, timedelta(0), timedelta(microseconds=-1), False, -(10**400)]

WRONG_RESULTS = [
    (math.nan, ValueError, "ttl must return a number, got nan"),
    (math.inf, ValueError, "ttl must return at most 1,000 years (out of range), got inf"),
    (1e11, ValueError, "ttl must return at most 1,000 years (out of range), got 100000000000.0"),
    (10**400, ValueError, f"ttl must return at most 1,000 years (out of range), got {10**400}"),
    (
        timedelta(days=366 * 1001),
        ValueError,
        f"ttl must return at most 1,000 years (out of range), got {timedelta(days=366 * 1001)!r}",
    ),
    ("1", TypeError, "ttl must return a number of seconds, a timedelta or None, got str"),
    ([], TypeError, "ttl must return a number of seconds, a timedelta or None, got list"),
    (1j, TypeError, "ttl must return a number of seconds, a timedelta or None, got complex"),
    (len, TypeError, "ttl must return a number of seconds, a timedelta or None, got builtin_function_or_method"),
]

# Each call that inserts a value of an absent key, and returns what it returns.
INSERTS = {
    "set": lambda cache, key, value: cache.set(key, value),
    "setitem": lambda cache, key, value: cache.__setitem__(key, value),
    "setdefault": lambda cache, key, value: cache.setdefault(key, value),
    "update": lambda cache, key, value: cache.update({key: value}),
    "set_many": lambda cache, key, value: cache.set_many({key: value}),
    "get_with": lambda cache, key, value: cache.get_with(key, lambda: value),
    "set_with": lambda cache, key, value: cache.set_with(key, lambda _: value),
}
each_insert = pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
RETURNING = ("setdefault", "get_with", "set_with")

# Each call that replaces a present value, and calls the ttl function for that.
REPLACEMENTS = {name: INSERTS[name] for name in ("set", "setitem", "update", "set_many")}
each_replacement = pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)

# Each call that takes a ttl function of its own.
CALLS_WITH_TTL = {
    "set": lambda cache, key, value, ttl: cache.set(key, value, ttl=ttl),
    "set by position": lambda cache, key, value, ttl: cache.set(key, value, ttl, None),
    "set_many": lambda cache, key, value, ttl: cache.set_many([(key, value)], ttl),
    "get_with": lambda cache, key, value, ttl: cache.get_with(key, lambda: value, ttl=ttl),
}
each_call_with_ttl = pytest.mark.parametrize("call", CALLS_WITH_TTL.values(), ids=CALLS_WITH_TTL)


class Recorder:
    """A ttl function that returns what it is told, and records its arguments."""

    def __init__(self, result=None):
        self.result = result
        self.calls = []

    def __call__(self, key, value):
        self.calls.append((key, value))
        return self.result


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


# What the function returns.
@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        (5, 5),
        (0.5, 0.5),
        (True, 1),
        (timedelta(minutes=1), 60),
        (1e-12, 1e-9),
        (timedelta(days=360_000), 31_104_000_000),
    ],
)
@each_insert
def test_result_of_the_function_of_the_cache_is_the_ttl_of_the_entry(clock, insert, result, seconds):
    cache = Moka(10, ttl=lambda key, value: result)
    insert(cache, "a", 1)
    assert cache.expires_in("a") == pytest.approx(seconds)


@each_insert
def test_none_means_no_deadline(clock, insert):
    cache = Moka(10, ttl=lambda key, value: None)
    insert(cache, "a", 1)
    clock.advance(10**9)
    assert cache["a"] == 1 and cache.expires_in("a") is None and cache.next_deadline() is None


@each_call_with_ttl
def test_call_takes_a_function_for_its_own_entries(clock, call):
    cache = Moka(10)
    call(cache, "a", 5, lambda key, value: value)
    call(cache, "b", 5, lambda key, value: timedelta(seconds=value + 1))
    call(cache, "c", 5, lambda key, value: None)
    assert [cache.expires_in(key) for key in "abc"] == [5, 6, None]
    cache.set("a", 5)
    assert cache.expires_in("a") is None, "the next set does not inherit it"


def test_function_decides_for_each_pair_of_set_many(clock):
    cache = Moka(10)
    cache.set_many({"a": 1, "b": 2, "c": 0}, ttl=lambda key, value: value)
    assert [cache.expires_in(key) for key in "abc"] == [1, 2, None]
    assert contents(cache) == {"a": 1, "b": 2}


def test_value_decides_at_each_replacement(clock):
    cache = Moka(10, ttl=lambda key, value: value)
    for value in (5, 3, None, 7):
        cache["a"] = value
        assert cache.expires_in("a") == value


def test_tti_applies_beside_the_function(clock):
    cache = Moka(10, ttl=lambda key, value: value, tti=4)
    cache.update(a=10, b=2, c=None)
    assert [cache.expires_in(key) for key in "abc"] == [4, 2, 4]
    cache.set("d", 10, tti=1)
    assert cache.expires_in("d") == 1


def test_object_that_is_also_a_number_is_called(clock):
    # `MagicMock` has `__index__`, too.
    function = MagicMock(return_value=3)
    cache = Moka(10, ttl=function)
    cache["a"] = 1
    function.assert_called_once_with("a", 1)
    assert cache.expires_in("a") == 3


# When it is called.
@each_insert
def test_function_is_called_once_an_insert_with_key_and_value(insert):
    function = Recorder(60)
    insert(Moka(10, ttl=function), "a", 3)
    assert function.calls == [("a", 3)]


@each_replacement
def test_function_is_called_once_a_replacement(replace):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    replace(cache, "a", 3)
    replace(cache, "a", 4)
    assert function.calls == [("a", 3), ("a", 4)]


@each_call_with_ttl
def test_function_of_a_call_is_called_once(call):
    function = Recorder(60)
    call(Moka(10), "a", 3, function)
    assert function.calls == [("a", 3)]


def test_function_is_not_called_by_reads_and_removals():
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    cache.set("a", 3)
    del function.calls[:]
    cache.get("a"), cache["a"], "a" in cache, list(cache.items()), cache.peek("a"), cache.expires_in("a")
    cache.get_with("a", list), cache.get_with("a", list, ttl=function), cache.setdefault("a", 5), cache.touch("a")
    cache.get_many("ab"), cache.remove("a"), cache.get("a"), cache.clear(), cache.stats()
    assert function.calls == []


def test_set_with_calls_it_if_the_key_is_absent_and_else_keeps_the_deadlines(clock):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    assert cache.set_with("a", lambda value: (value or 0) + 1) == 1
    assert (function.calls, cache.expires_in("a")) == ([("a", 1)], 60)
    clock.advance(10)
    function.result = 5
    assert cache.set_with("a", lambda value: value + 1) == 2
    assert (function.calls, cache.expires_in("a")) == ([("a", 1)], 50)
    clock.advance(50)
    assert cache.set_with("a", lambda value: (value or 0) + 1) == 1
    assert (function.calls, cache.expires_in("a")) == ([("a", 1), ("a", 1)], 5)


def test_function_is_called_once_even_if_the_write_is_retried():
    function = Recorder(60)
    cache = Moka(100, ttl=function)

    class Moving(Key):
        moves = 3
        __hash__ = Key.__hash__

        def __eq__(self, other):
            if Moving.moves:
                Moving.moves -= 1
                cache.remove(stored)
                cache.set(stored, "moved")
            return super().__eq__(other)

    stored, asking = Moving("a"), Moving("a")
    cache.set(stored, "first")
    cache.set(asking, "last")
    assert [value for _, value in function.calls].count("last") == 1
    assert contents(cache) == {Key("a"): "last"}


def test_function_runs_on_the_calling_thread_after_the_weigher():
    calls = []
    cache = Moka(
        10,
        ttl=lambda key, value: calls.append(("ttl", threading.get_ident())),
        weigher=lambda key, value: calls.append(("weigher", threading.get_ident())) or 1,
    )
    mine = threading.get_ident()
    cache.set("a", 1)
    cache.get_with("b", list)
    assert calls == [("weigher", mine), ("ttl", mine)] * 2


# Law 1: no Python under a lock.
def test_function_can_use_the_cache():
    def ttl(key, value):
        if key == "outer":
            assert cache.get("old") == 1
            cache.set("inner", 2)
            cache.remove("old")
            len(cache), list(cache.items()), cache.run_pending_tasks()
        return 60

    cache = Moka(10, ttl=ttl)
    cache.set("old", 1)
    cache.set("outer", 3)
    assert contents(cache) == {"inner": 2, "outer": 3}


@pytest.mark.parametrize("how", ["sets", "removes", "clears"])
def test_function_can_write_the_key_that_is_being_set(how):
    depth = [True]

    def ttl(key, value):
        if not depth:
            depth.append(True)
            {"sets": lambda: cache.set(key, "by ttl"), "removes": lambda: cache.remove(key)}.get(how, cache.clear)()
        return 60

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("a", "old")
    depth.clear()
    cache.set("a", "new")
    assert contents(cache) == {"a": "new"}
    assert events[0] == ("a", "old", "replaced" if how == "sets" else "explicit")


def test_endless_recursion_through_the_function_raises():
    cache = Moka(10, ttl=lambda key, value: cache.set(key, value))
    with pytest.raises(RecursionError):
        cache.set("a", 1)
    assert len(cache) == 0


# Law 10: the error is the user's, and the cache as before.
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), KeyboardInterrupt(), SystemExit(3)])
@each_insert
def test_error_of_the_function_leaves_the_call_and_the_cache_as_before(insert, error):
    def ttl(key, value):
        if key != "present":
            raise error

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    with pytest.raises(type(error)) as caught:
        insert(cache, "absent", 2)
    assert caught.value is error
    assert (observable_state(cache), events) == (before, [])


@each_replacement
def test_error_at_a_replacement_keeps_the_old_value(replace):
    def ttl(key, value):
        return 60 / value

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("a", 1)
    before = observable_state(cache)
    with pytest.raises(ZeroDivisionError):
        replace(cache, "a", 0)
    assert (observable_state(cache), events) == (before, [])


@each_call_with_ttl
def test_error_of_the_function_of_a_call_leaves_the_cache_as_before(call):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    for key in ("absent", Key("absent")):
        with pytest.raises(ZeroDivisionError):
            call(cache, key, 2, lambda key, value: 1 / 0)
        assert (observable_state(cache), events) == (before, [])


@pytest.mark.parametrize(("result", "error", "text"), WRONG_RESULTS, ids=[text for _, _, text in WRONG_RESULTS])
def test_wrong_result_is_an_error_that_names_ttl(result, error, text):
    events = Events()
    cache = Moka(10, ttl=lambda key, value: result if value == 2 else None, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    attempts = [lambda insert=insert: insert(cache, "absent", 2) for insert in INSERTS.values()]
    attempts += [lambda replace=replace: replace(cache, "present", 2) for replace in REPLACEMENTS.values()]
    attempts += [
        lambda call=call: call(cache, "absent", 3, lambda key, value: result) for call in CALLS_WITH_TTL.values()
    ]
    for attempt in attempts:
        with pytest.raises(error) as caught:
            attempt()
        assert str(caught.value) == text
        assert (observable_state(cache), events) == (before, [])


def outcomes_with_waiters(cache, value, waiters=3, **options):
    """Load a key whose value is `value` in one thread, while others wait for it. Return the outcomes and the runs."""
    computing, asking, runs = threading.Event(), threading.Semaphore(0), []

    class Announced(Key):
        __hash__ = Key.__hash__

        # A thread that is about to wait compares its key with the one in flight.
        def __eq__(self, other):
            asking.release()
            return super().__eq__(other)

    def initializer():
        runs.append(threading.get_ident())
        if len(runs) == 1:
            computing.set()
            assert all(asking.acquire(timeout=60) for _ in range(waiters))
        return value

    def call(number):
        assert number == 0 or computing.wait(60)
        return cache.get_with(Announced("a"), initializer, **options)

    return outcomes_of_threads(1 + waiters, call), runs


@pytest.mark.parametrize("of_cache", [True, False], ids=["of the cache", "of the call"])
def test_waiters_of_get_with_get_the_error_of_the_function(of_cache):
    def ttl(key, value):
        raise LookupError("mine")

    cache = Moka(10, ttl=ttl if of_cache else None)
    (first, *others), runs = outcomes_with_waiters(cache, 1, ttl=None if of_cache else ttl)
    assert type(first) is LookupError
    assert_copies_of_exception(first, others)
    assert len(runs) == 1 and len(cache) == 0


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


# Law 7 and law 8.
def test_value_that_is_kept_can_be_got_after_its_set():
    cache = Moka(3, ttl=lambda key, value: value)
    for number in range(1, 200):
        cache.set(number, number)
        assert cache.get(number) == number
    cache.set(1, -1)
    assert cache.get(1) is None


@each_insert
def test_entry_expires_exactly_at_the_end_of_its_ttl(clock, insert, events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    insert(cache, "a", 3)
    clock.advance(2.999_999)
    assert cache.peek("a") == 3
    clock.advance(0.000_001)
    assert cache.peek("a") is None and "a" not in cache and cache.get("a") is None
    cache.run_pending_tasks()
    assert events == [("a", 3, "expired")]


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


# An own ttl only shortens.
@each_call_with_ttl
def test_own_ttl_of_an_entry_only_shortens_that_of_the_function(clock, call):
    cache = Moka(10, ttl=lambda key, value: value)
    for key, value, own, expected in [("a", 5, 3, 3), ("b", 5, 7, 5), ("c", None, 7, 7), ("d", 5, None, 5)]:
        call(cache, key, value, own)
        assert cache.expires_in(key) == expected


@each_call_with_ttl
def test_function_of_a_call_only_shortens_the_ttl_of_the_cache(clock, call):
    cache = Moka(10, ttl=5)
    for key, value, expected in [("a", 3, 3), ("b", 7, 5), ("c", None, 5)]:
        call(cache, key, value, lambda key, value: value)
        assert cache.expires_in(key) == expected


@each_call_with_ttl
def test_shorter_of_two_functions_counts_and_each_is_called_once(clock, call):
    for mine, others, expected in [(3, 5, 3), (5, 3, 3), (None, 4, 4), (4, None, 4), (None, None, None)]:
        of_cache, of_call = Recorder(mine), Recorder(others)
        cache = Moka(10, ttl=of_cache)
        call(cache, "a", 1, of_call)
        assert cache.expires_in("a") == expected
        assert of_cache.calls == of_call.calls == [("a", 1)]


@pytest.mark.parametrize(("of_cache", "of_call"), [(0, 5), (5, 0), (None, -1), (-1, None)])
@each_call_with_ttl
def test_entry_is_kept_only_if_both_functions_keep_it(call, of_cache, of_call, events):
    cache = Moka(10, ttl=lambda key, value: of_cache, eviction_listener=events)
    call(cache, "a", 1, lambda key, value: of_call)
    assert (contents(cache), events) == ({}, [("a", 1, "expired")])


def test_restart_of_deadlines_stays_within_the_ttl_that_the_entry_has(clock):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    cache["a"] = 1
    clock.advance(20)
    function.result = 500
    for own, expected in [(None, 60), (100, 60), (10, 10), (30, 10)]:
        assert cache.touch("a", ttl=own)
        assert cache.expires_in("a") == expected
    cache["a"] = 1
    assert cache.set_with("a", lambda value: value + 1, ttl=1000) == 2
    assert cache.expires_in("a") == 500
    assert len(function.calls) == 2
    cache.set_with("b", lambda value: 1, ttl=7)
    assert cache.expires_in("b") == 7


def test_touch_and_set_with_take_no_function():
    cache = Moka(10)
    cache["a"] = 1
    text = r"^ttl must be a number of seconds or a timedelta, got function$"
    with pytest.raises(TypeError, match=text):
        cache.touch("a", ttl=lambda key, value: 1)
    with pytest.raises(TypeError, match=text):
        cache.set_with("a", lambda value: 2, ttl=lambda key, value: 1)
    for call in (cache.touch, lambda key, **named: cache.set(key, 2, **named), lambda key, **named: Moka(10, **named)):
        with pytest.raises(TypeError, match=r"^tti must be a number of seconds or a timedelta, got function$"):
            call("a", tti=lambda key, value: 1)
    assert contents(cache) == {"a": 1}


# The attribute.
def test_ttl_returns_the_function():
    def function(key, value):
        return 5

    cache = Moka(10, ttl=function)
    assert cache.ttl is function and cache.tti is None
    assert Moka(10, ttl=5).ttl == 5.0 and Moka(10).ttl is None


def test_repr_names_the_type_of_the_function():
    cache = Moka(10, ttl=lambda key, value: 5, tti=3)
    assert "ttl=<function>" in repr(cache) and "tti=3" in repr(cache)


def test_subclass_hands_a_function_on():
    class Tokens(Moka):
        def __init__(self):
            super().__init__(10, ttl=self.seconds)

        def seconds(self, key, value):
            return value

    with ManualClock():
        tokens = Tokens()
        tokens["a"] = 5
        assert tokens.expires_in("a") == 5


# Law 12.
def test_cycle_through_the_function_is_collected():
    class Holder:
        def ttl(self, key, value):
            return 60

    holder = Holder()
    holder.cache = Moka(10, ttl=holder.ttl)
    holder.cache["a"] = holder
    watch = weakref.ref(holder)
    del holder
    gc.collect()
    assert watch() is None


def test_function_may_return_the_rest_of_a_token(clock):
    now = datetime.datetime(2030, 1, 1)
    cache = Moka(10, ttl=lambda key, token: token["expires"] - now)
    cache["a"] = {"expires": now + timedelta(hours=1)}
    cache["b"] = {"expires": now - timedelta(hours=1)}
    assert cache.expires_in("a") == 3600 and "b" not in cache
