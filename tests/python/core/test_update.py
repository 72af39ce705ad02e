"""`peek`, `touch`, `set_with` and `next_deadline`: looks without a trace, new deadlines, atomic changes of a value."""

import gc
import threading
import weakref
from datetime import timedelta

import pytest
from helpers import MISSING, Background, Events, Gate, Key, Value, contents, run_threads

from moka_py import Moka, cached


class PlannedError(Exception):
    """The error that a user's function raises."""


def counts(cache):
    stats = cache.stats()
    return stats.hits, stats.misses


# peek


def test_peek_returns_the_value_or_the_default():
    cache = Moka(10)
    cache.set("a", None)
    assert cache.peek("a", MISSING) is None
    assert (cache.peek("b"), cache.peek("b", MISSING), cache.peek(key="b", default=1)) == (None, MISSING, 1)


def test_peek_is_not_an_access_and_not_counted(clock):
    cache = Moka(2, tti=10, policy="lru")
    cache.set("a", 1)
    clock.advance(3)
    cache.set("b", 2)
    assert (cache.peek("a"), cache.peek("c")) == (1, None)
    assert cache.expires_in("a") == 7
    assert counts(cache) == (0, 0)
    cache.set("c", 3)
    assert set(contents(cache)) == {"b", "c"}


def test_peek_returns_no_entry_past_its_deadline(clock):
    cache = Moka(10, ttl=10)
    cache.set("a", 1)
    clock.advance(10)
    assert cache.peek("a", MISSING) is MISSING


# touch


def test_touch_restarts_the_deadlines(clock):
    cache = Moka(10, ttl=10, tti=8)
    cache.set("a", 1)
    cache.set("b", 2, ttl=5)
    clock.advance(4)
    assert cache.touch("a") is True
    assert cache.touch("b") is True
    assert (cache.expires_in("a"), cache.expires_in("b")) == (8, 5)
    clock.advance(5)
    assert (cache.peek("a"), cache.peek("b")) == (1, None)


def test_touch_gives_an_entry_new_deadlines_within_those_of_the_cache(clock):
    cache = Moka(10, ttl=10)
    cache.set("a", 1, ttl=2)
    for options, expected in [({"ttl": 7}, 7), ({"ttl": 70}, 10), ({"tti": timedelta(seconds=3)}, 3), ({}, 3)]:
        assert cache.touch("a", **options)
        assert cache.expires_in("a") == expected, options


def test_touch_gives_a_deadline_in_a_cache_without_any(clock):
    cache = Moka(10)
    cache["a"] = 1
    assert cache.touch("a") and cache.expires_in("a") is None
    assert cache.touch("a", 5) and cache.expires_in("a") == 5
    clock.advance(5)
    assert not cache.touch("a") and len(cache) == 0


def test_touch_of_an_absent_or_expired_key_returns_false(clock):
    cache = Moka(10, ttl=10)
    cache.set("a", 1)
    assert cache.touch("b", ttl=5) is False
    clock.advance(10)
    assert cache.touch("a", ttl=5) is False
    assert len(cache) == 0


def test_touch_is_a_use_and_neither_a_hit_nor_a_miss():
    cache = Moka(2, policy="lru")
    cache.update(a=1, b=2)
    assert cache.touch("a") and not cache.touch("c")
    assert counts(cache) == (0, 0)
    cache.set("c", 3)
    assert set(contents(cache)) == {"a", "c"}


def test_touch_does_not_keep_out_the_result_of_a_load():
    cache = Moka(10, ttl=1000)
    cache.get_with("a", lambda: cache.touch("a", 10))
    assert cache.peek("a") is False

    @cached
    def function(key):
        function.cache.touch(key, 10)
        return key

    function(1)
    assert function.cache_contains(1)


def test_touch_finds_an_equal_key_and_tells_no_listener():
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set(Key("a", 1), 1)
    cache.set(Key("b", 1), 2)
    assert cache.touch(Key("b", 1), 100)
    assert cache.expires_in(Key("b", 1)) is not None and cache.expires_in(Key("a", 1)) is None
    assert events == []


# set_with


def increment(count):
    return count + 1


def test_set_with_sets_and_returns_what_the_function_returns():
    cache = Moka(10)
    assert cache.set_with("a", lambda value: [value]) == [None]
    assert cache.set_with("a", lambda value: [value], default=0) == [[None]]
    assert cache.set_with(key="n", function=increment, default=5) == 6
    assert contents(cache) == {"a": [[None]], "n": 6}


def test_set_with_holds_no_lock_while_the_function_runs():
    cache, gate = Moka(10), Gate()
    cache.set("a", 1)

    def change(value):
        gate.stop_here()
        return value + 1

    with Background(lambda: cache.set_with("a", change)) as writer:
        gate.wait_until_reached()
        cache.set("b", 2)
        assert cache.get("a") == 1
        assert len(cache) == 2
        gate.open()
    assert writer.result == cache.peek("a") == 2


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        (lambda cache: cache.set("a", 10), 11),
        (lambda cache: cache.remove("a"), 1),
        (lambda cache: cache.clear(), 1),
        (lambda cache: cache.set_with("a", increment), 3),
        (lambda cache: (cache.remove("a"), cache.set("a", 20)), 21),
    ],
    ids=["set", "remove", "clear", "set_with", "remove and set"],
)
def test_set_with_calls_the_function_again_if_the_entry_is_another_one(meanwhile, expected):
    cache, seen = Moka(10), []
    cache.set("a", 1)

    def change(value):
        seen.append(value)
        if len(seen) == 1:
            meanwhile(cache)
        return value + 1

    assert cache.set_with("a", change, 0) == cache.peek("a") == expected
    assert seen == [1, expected - 1]


def test_set_with_calls_the_function_again_if_the_absent_key_got_a_value():
    cache, seen = Moka(10), []

    def change(value):
        seen.append(value)
        cache.setdefault("a", 10)
        return value + 1

    assert cache.set_with("a", change, 0) == 11
    assert seen == [0, 10]


def test_set_with_keeps_the_deadlines_of_a_present_entry(clock):
    cache = Moka(10, ttl=10, tti=8)
    cache.set("a", 0)
    cache.set("b", 0, ttl=5)
    clock.advance(3)
    cache.set_with("a", increment)
    cache.set_with("b", increment)
    assert (cache.expires_in("a"), cache.expires_in("b")) == (5, 2)
    clock.advance(2)
    assert contents(cache) == {"a": 1}


def test_set_with_restarts_the_deadlines_if_a_duration_is_given(clock):
    cache = Moka(10, ttl=10)
    cache.set("a", 0)
    clock.advance(3)
    cache.set_with("a", increment, ttl=4)
    assert cache.expires_in("a") == 4
    clock.advance(1)
    cache.set_with("a", increment, tti=timedelta(seconds=100))
    assert cache.expires_in("a") == 4
    cache.set_with("a", increment, ttl=100)
    assert (cache.expires_in("a"), cache.peek("a")) == (10, 3)


def test_set_with_of_an_absent_or_expired_key_is_a_set(clock):
    events = Events()
    cache = Moka(10, ttl=10, eviction_listener=events)
    cache.set_with("a", increment, 0)
    cache.set_with("b", increment, 0, tti=3)
    assert (cache.expires_in("a"), cache.expires_in("b")) == (10, 3)
    clock.advance(10)
    assert cache.set_with("a", increment, 100) == 101
    assert cache.expires_in("a") == 10
    assert sorted(events) == [("a", 1, "expired"), ("b", 1, "expired")]


def test_set_with_is_a_use_and_neither_a_hit_nor_a_miss():
    cache = Moka(2, policy="lru")
    cache.update(a=1, b=2)
    cache.set_with("a", increment)
    cache.set_with("c", increment, 0)
    assert set(contents(cache)) == {"a", "c"}
    assert counts(cache) == (0, 0)


def test_exception_of_the_function_or_the_weigher_changes_nothing(clock):
    def weigh(key, value):
        if value == "bad":
            raise PlannedError
        return 1

    events = Events()
    cache = Moka(2, ttl=10, policy="lru", weigher=weigh, eviction_listener=events)
    cache.update(a=1, b=2)
    clock.advance(3)

    def fail(value):
        raise PlannedError

    for function in (fail, lambda value: "bad"):
        for key in ("a", "absent"):
            with pytest.raises(PlannedError):
                cache.set_with(key, function, ttl=5)
    assert (contents(cache), cache.expires_in("a"), events) == ({"a": 1, "b": 2}, 7, [])
    cache.set("c", 3)
    assert "a" not in cache, "a call that failed is no use of the entry"


def test_set_with_calls_the_weigher_for_the_new_value_and_evicts():
    events = Events()
    cache = Moka(10, policy="lru", weigher=lambda key, value: len(value), eviction_listener=events)
    cache.update(a="aaaa", b="bbbb")
    cache.set_with("b", lambda value: value + "bbb")
    assert (contents(cache), cache.weighted_size()) == ({"b": "bbbbbbb"}, 7)
    assert events == [("b", "bbbb", "replaced"), ("a", "aaaa", "size")]
    cache.set_with("b", lambda value: 11 * "b")
    assert len(cache) == 0


def test_set_with_releases_the_old_value_and_results_that_were_not_stored():
    cache, references = Moka(10), []

    def change(value):
        new = Value()
        references.append(weakref.ref(new))
        if len(references) == 2:
            cache.set("a", Value())
        return new

    cache.set_with("a", change)
    cache.set_with("a", change)
    cache.run_pending_tasks()
    gc.collect()
    assert [reference() is None for reference in references] == [True, True, False]
    assert references[2]() is cache.peek("a")


def test_set_with_keeps_out_the_result_of_a_load_that_began_before():
    cache = Moka(10)
    cache.get_with("a", lambda: cache.set_with("a", increment, 0) + 100)
    assert cache.peek("a") == 1


def test_set_with_that_fails_lets_the_result_of_a_load_in():
    cache = Moka(10)

    def compute():
        with pytest.raises(TypeError):
            cache.set_with("a", increment)
        return "computed"

    cache.get_with("a", compute)
    assert cache.peek("a") == "computed"


@pytest.mark.parametrize("key", [1, Key("a", 1)], ids=["int", "user's __eq__"])
@pytest.mark.parametrize(
    "options", [{}, {"ttl": 1000}, {"weigher": lambda key, value: 1}], ids=["plain", "ttl", "weigher"]
)
def test_eight_threads_that_count_lose_no_increment(key, options, fast_switches):
    cache = Moka(10, **options)
    rounds = 500

    def count():
        for _ in range(rounds):
            cache.set_with(key, increment, 0)

    run_threads(*[count] * 8)
    assert cache.peek(key) == 8 * rounds


def test_set_with_beside_sets_that_take_no_lock_loses_no_value(fast_switches):
    cache, rounds = Moka(10), 2_000
    cache.set("a", frozenset())

    def add():
        for number in range(rounds):
            cache.set_with("a", lambda old, number=number: old | {number})

    def replace():
        for _ in range(rounds):
            cache.set("a", frozenset(["set"]))

    run_threads(add, replace)
    value = cache.peek("a")
    # The numbers since the last `set` are complete.
    numbers = value - {"set"}
    assert "set" in value and numbers == set(range(rounds - len(numbers), rounds))


def test_endless_recursion_through_set_with_raises():
    cache = Moka(10)

    def recurse(value):
        return cache.set_with("a", recurse)

    with pytest.raises(RecursionError):
        cache.set_with("a", recurse)
    assert len(cache) == 0


# next_deadline


def test_next_deadline_is_none_if_nothing_expires():
    cache = Moka(10)
    assert cache.next_deadline() is None
    cache.set("a", 1)
    assert cache.next_deadline() is None
    cache.set("a", 1, ttl=5)
    assert 0 <= cache.next_deadline() <= 5
    cache.remove("a")
    assert cache.next_deadline() is None


@pytest.mark.parametrize("kind", ["ttl", "tti"])
def test_scheduler_that_follows_next_deadline_expires_each_entry_promptly(kind, clock):
    now, wakes, expired_at = 0.0, 0, {}
    cache = Moka(100, eviction_listener=lambda key, value, cause: expired_at.update({key: now}))
    deadlines = dict(enumerate([0.5, 3, 3, 3.0001, 60, 3600, 86_400]))
    for key, seconds in deadlines.items():
        cache.set(key, None, **{kind: seconds})
    while (seconds := cache.next_deadline()) is not None:
        assert seconds <= min(map(cache.expires_in, cache)), "it is never later than the next deadline"
        seconds = max(seconds, 0.001)
        clock.advance(seconds)
        now, wakes = now + seconds, wakes + 1
        cache.run_pending_tasks()
    late = {key: expired_at[key] - deadline for key, deadline in deadlines.items()}
    assert all(-1e-6 <= each <= 0.002 for each in late.values()), late
    assert wakes < 300


def test_next_deadline_is_zero_if_an_entry_is_due(clock):
    cache = Moka(10, ttl=5)
    cache.set("a", 1)
    clock.advance(5)
    assert cache.next_deadline() == 0.0
    cache.run_pending_tasks()
    assert cache.next_deadline() is None


def test_next_deadline_sees_what_another_thread_has_set():
    cache = Moka(10_000)
    done = threading.Barrier(2)

    def store():
        for number in range(100):
            cache.set(number, number, ttl=1000 - number)
            done.wait(60)
            done.wait(60)

    def look():
        for number in range(100):
            done.wait(60)
            assert cache.next_deadline() <= 1000 - number
            done.wait(60)

    run_threads(store, look)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda cache: cache.set_with("a", 1), TypeError, "function must be callable, got int"),
        (lambda cache: cache.set_with([], increment), TypeError, "unhashable"),
        (lambda cache: cache.set_with("a", increment, 0, -1), ValueError, "ttl must be positive and finite, got -1"),
        (lambda cache: cache.touch("a", tti="x"), TypeError, "tti must be a number of seconds or a timedelta, got str"),
        (lambda cache: cache.touch({}), TypeError, "unhashable"),
        (lambda cache: cache.peek([]), TypeError, "unhashable"),
    ],
)
def test_bad_argument_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(Moka(10))
