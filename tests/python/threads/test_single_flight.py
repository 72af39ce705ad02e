"""`get_with`: one thread computes a key, and the others wait for the result."""

import gc
import time

import pytest
from helpers import (
    MISSING,
    Background,
    Events,
    Gate,
    Key,
    assert_copies_of_exception,
    contents,
    observable_state,
    run_threads,
    wait_for_misses,
)

from moka_py import Moka


def test_miss_computes_and_stores_the_value():
    cache = Moka(10)
    assert cache.get_with("a", lambda: 1) == 1
    assert cache.get("a") == 1


def test_hit_computes_nothing():
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.get_with("a", pytest.fail) == 1


def test_computed_none_is_stored():
    cache, calls = Moka(10), []
    for _ in range(3):
        assert cache.get_with("a", lambda: calls.append(1)) is None
    assert calls == [1]


def test_get_with_returns_the_computed_object():
    cache, value = Moka(10), object()
    assert cache.get_with("a", lambda: value) is value
    assert cache.get("a") is value


def test_computing_reports_nothing_to_the_listener():
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.get_with("a", lambda: 1)
    assert events == []


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), KeyboardInterrupt(), SystemExit(2)])
def test_exception_of_the_initializer_is_raised_and_not_cached(error):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("b", 1)
    before = observable_state(cache)

    def fail():
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            cache.get_with("a", fail)
        assert caught.value is error
        assert (observable_state(cache), events) == (before, [])
    assert cache.get_with("a", lambda: 2) == 2


def test_threads_share_one_computation(fast_switches):
    cache, calls = Moka(1000), []

    def compute():
        calls.append(1)
        time.sleep(0)
        return object()

    for number in range(100):
        calls.clear()
        results = run_threads(*[lambda: cache.get_with(number, compute)] * 6)
        assert len(calls) == 1
        assert len(set(map(id, results))) == 1


def test_threads_compute_each_key_once(fast_switches):
    cache, calls = Moka(1000), []

    def work(thread):
        for step in range(2000):
            key = (step * (7 + 2 * thread)) % 500
            assert cache.get_with(key, lambda: calls.append(key) or -key) == -key

    run_threads(*(lambda thread=thread: work(thread) for thread in range(4)))
    assert sorted(calls) == sorted(set(calls))


def outcomes_of_waiters(leader_ends, late, waiters=4):
    """Run a leader and some waiters on one key. Return their outcomes, or None if a thread came too late to wait."""
    cache, gate = Moka(10), Gate()
    came_late = []

    def lead():
        def compute():
            gate.stop_here()
            return leader_ends()

        return cache.get_with("a", compute)

    def compute_late():
        came_late.append(1)
        return late()

    def wait():
        return cache.get_with("a", compute_late)

    def outcome(call):
        try:
            return call()
        except BaseException as error:
            return error

    with Background(lambda: outcome(lead)) as leader:
        gate.wait_until_reached()
        threads = [Background(lambda: outcome(wait)) for _ in range(waiters)]
        for thread in threads:
            thread.__enter__()
        wait_for_misses(cache, 1 + waiters)
        gate.open()
        for thread in threads:
            thread.__exit__(None, None, None)
    return cache, leader.result, [thread.result for thread in threads], len(came_late)


def test_waiters_get_the_value_of_the_leader():
    value = object()
    cache, leader, waiters, computed = outcomes_of_waiters(lambda: value, late=object)
    assert leader is value
    assert all(result is value for result in waiters)
    assert computed == 0


def test_waiters_get_the_exception_of_the_leader():
    error = ZeroDivisionError("mine")

    def fail():
        raise error

    for _ in range(20):
        cache, leader, waiters, computed = outcomes_of_waiters(fail, late=lambda: "too late")
        assert leader is error
        if computed == 0:
            assert_copies_of_exception(error, waiters)
            assert contents(cache) == {}
            return
    pytest.fail("the waiters came too late each time")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_one_waiter_takes_over_when_the_leader_is_interrupted(error):
    def interrupted():
        raise error

    cache, leader, waiters, computed = outcomes_of_waiters(interrupted, late=lambda: "anew")
    assert leader is error
    assert waiters == ["anew"] * 4
    assert computed == 1
    assert cache.get("a") == "anew"


def test_waiters_take_over_in_turn_when_each_leader_is_interrupted():
    def interrupted():
        raise KeyboardInterrupt

    cache, leader, waiters, computed = outcomes_of_waiters(interrupted, late=interrupted)
    assert all(type(result) is KeyboardInterrupt for result in waiters)
    assert computed == 4
    assert cache.get_with("a", lambda: 1) == 1


def test_weigher_that_raises_leaves_no_thread_waiting():
    cache, gate = Moka(10, weigher=lambda key, value: value), Gate()

    def compute():
        gate.stop_here()
        return "heavy"

    def attempt(initializer):
        with pytest.raises(TypeError, match="weigher must return an int"):
            cache.get_with("a", initializer)

    with Background(lambda: attempt(compute)):
        gate.wait_until_reached()
        with Background(lambda: attempt(lambda: "heavy")):
            wait_for_misses(cache, 2)
            gate.open()
    assert contents(cache) == {}
    assert cache.get_with("a", lambda: 1) == 1


# Law 1: nothing is held while a computation runs.
def test_initializer_can_use_the_cache():
    cache = Moka(10)

    def compute():
        cache.set("b", 1)
        assert cache.get("a", MISSING) is MISSING
        assert cache.get_with("c", lambda: cache.get_with("d", lambda: 4)) == 4
        cache.remove("b"), len(cache), list(cache.items()), cache.run_pending_tasks()
        return "value"

    assert cache.get_with("a", compute) == "value"
    assert contents(cache) == {"a": "value", "c": 4, "d": 4}


def test_initializers_can_recurse_over_many_keys():
    cache = Moka(1000)

    def fibonacci(number):
        if number < 2:
            return number
        return cache.get_with(number - 1, lambda: fibonacci(number - 1)) + cache.get_with(
            number - 2, lambda: fibonacci(number - 2)
        )

    assert fibonacci(100) == 354224848179261915075


def test_endless_recursion_of_initializers_raises_recursion_error():
    cache = Moka(10)

    def endless(number):
        return cache.get_with(number, lambda: endless(number + 1))

    with pytest.raises(RecursionError):
        endless(0)
    assert contents(cache) == {}
    assert cache.get_with(0, lambda: 1) == 1


# Keys of equal hash have separate flights, although the table of flights is keyed by the hash.
def test_keys_of_equal_hash_do_not_wait_for_each_other():
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return "first"

    with Background(lambda: cache.get_with(Key("a", 1), compute)) as leader:
        gate.wait_until_reached()
        assert cache.get_with(Key("b", 1), lambda: "second") == "second"
        gate.open()
    assert leader.result == "first"
    assert contents(cache) == {Key("a", 1): "first", Key("b", 1): "second"}


def test_loads_of_keys_of_equal_hash_can_nest():
    cache = Moka(10)
    value = cache.get_with(Key("a", 1), lambda: cache.get_with(Key("b", 1), lambda: "inner") + " outer")
    assert value == "inner outer"


def test_leader_sees_a_value_that_eq_with_an_in_flight_key_set():
    """The comparison comes after the look-up, so the leader must look up the key again."""
    cache = Moka(10)

    class Acting:
        def __hash__(self):
            return hash(7)

        def __eq__(self, other):
            # The write below compares with the in-flight key again.
            if type(other) is int and not asked:
                asked.append(other)
                cache.set(7, "set")
            return self is other

    asked, inner = [], []
    cache.get_with(Acting(), lambda: inner.append(cache.get_with(7, lambda: "computed")))
    assert inner == ["set"]
    assert cache.get(7) == "set"


def test_equal_keys_share_a_computation():
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return object()

    with Background(lambda: cache.get_with(Key("a"), compute)) as leader:
        gate.wait_until_reached()
        with Background(lambda: cache.get_with(Key("a"), lambda: pytest.fail("computed twice"))) as waiter:
            wait_for_misses(cache, 2)
            gate.open()
    assert leader.result is waiter.result


def test_other_calls_do_not_wait_for_a_computation():
    cache, gate = Moka(10), Gate()
    cache.set("b", 1)
    with Background(lambda: cache.get_with("a", gate.stop_here)):
        gate.wait_until_reached()
        assert cache.get("a", MISSING) is MISSING
        assert "a" not in cache
        assert (cache.get("b"), cache.count(), list(cache.items())) == (1, 1, [("b", 1)])
        assert cache.get_with("c", lambda: 3) == 3
        cache.run_pending_tasks()
        gate.open()


def test_many_threads_can_wait_for_many_keys(fast_switches):
    cache, calls = Moka(1000), []

    def work(thread):
        for step in range(300):
            key = step % 20
            value = cache.get_with((step // 20, key), lambda: (calls.append((step // 20, key)), time.sleep(0)))
            assert value is not None

    run_threads(*(lambda thread=thread: work(thread) for thread in range(8)))
    assert len(calls) == len(set(calls)) == 300


# Law 2: no map while detached.
def test_waiters_get_their_value_after_the_cache_was_dropped():
    cache, gate = Moka(100), Gate()

    def compute():
        gate.stop_here()
        return "computed"

    def wait():
        return cache.get_with("a", lambda: "computed")

    with Background(lambda: cache.get_with("a", compute)):
        gate.wait_until_reached()
        waiters = [Background(wait) for _ in range(4)]
        for waiter in waiters:
            waiter.__enter__()
        for round_ in range(30):
            for number in range(200):
                cache.set((round_, number), [number])
            cache.clear()
            gc.collect()
        gate.open()
        for waiter in waiters:
            waiter.__exit__(None, None, None)
            assert waiter.result == "computed"
