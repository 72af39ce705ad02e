"""`get_many_with` in several threads: who loads a key, who waits for it, and what the waiting threads get."""

import contextlib
import threading
import time

import pytest
from helpers import (
    MANY_THREADS,
    MISSING,
    Background,
    CallbackKey,
    Events,
    Gate,
    Key,
    assert_copies_of_exception,
    contents,
    outcomes_of_threads,
    run_threads,
    wait_for_misses,
)

from moka_py import Moka


def must_not_load(missing):
    pytest.fail(f"loaded {missing}")


def stopped_load(gate, values):
    def load(missing):
        gate.stop_here()
        return values() if callable(values) else values

    return load


# Two bulk calls.
def test_overlapping_calls_share_the_keys_and_never_wait_for_each_other():
    """Each thread leads one key and waits for the other's. Both loads run at the same time, so none waits before it."""
    cache, both_lead, both_load = Moka(10), threading.Barrier(2), threading.Barrier(2)
    cache.set(Key("between", 1), "present")
    loaded = []

    def call(keys):
        between = CallbackKey("between", 1)
        # The comparison comes after the first key and before the last.
        between.on_eq = lambda: both_lead.wait(60)

        def load(missing):
            loaded.append(list(missing))
            both_load.wait(60)
            return {key: f"value of {key}" for key in missing}

        result = cache.get_many_with([keys[0], between, keys[1]], load)
        between.on_eq = None
        return {key: value for key, value in result.items() if key != between}

    results = run_threads(lambda: call("ab"), lambda: call("ba"))
    assert results == [{"a": "value of a", "b": "value of b"}] * 2
    assert sorted(loaded) == [["a"], ["b"]]
    assert (cache.stats().misses, cache.stats().loads) == (4, 2)


def test_key_in_flight_elsewhere_is_not_loaded_and_waited_for_after_the_load():
    cache, gate = Moka(10), Gate()

    def load(missing):
        assert missing == ["b", "c"]
        gate.open()
        return dict.fromkeys(missing, "loaded")

    def compute():
        gate.stop_here()
        return "computed"

    with Background(lambda: cache.get_with("a", compute)):
        gate.wait_until_reached()
        assert cache.get_many_with(["a", "b", "c"], load) == {"a": "computed", "b": "loaded", "c": "loaded"}
    assert contents(cache) == {"a": "computed", "b": "loaded", "c": "loaded"}
    assert cache.stats().loads == 2


def test_load_is_not_called_if_all_missing_keys_are_in_flight():
    cache, gate = Moka(10), Gate()
    with Background(lambda: cache.get_many_with("ab", stopped_load(gate, {"a": 1, "b": 2}))):
        gate.wait_until_reached()
        with Background(lambda: cache.get_many_with("ab", must_not_load)) as waiter:
            wait_for_misses(cache, 4)
            assert contents(cache) == {}
            gate.open()
    assert waiter.result == {"a": 1, "b": 2}
    assert cache.stats().loads == 1


def test_threads_load_each_key_once(fast_switches):
    cache, loaded = Moka(10_000), []

    def work(thread):
        for step in range(300):
            keys = [(step * 10 + (number * (3 + 2 * thread)) % 25) % 3000 for number in range(25)]
            result = cache.get_many_with(keys, lambda missing: loaded.extend(missing) or {key: -key for key in missing})
            assert result == {key: -key for key in keys}

    run_threads(*(lambda thread=thread: work(thread) for thread in range(4)))
    assert sorted(loaded) == sorted(set(loaded))


def test_single_and_bulk_loads_of_few_keys_end(fast_switches):
    """Keys are removed all the time, and loads fail, leave keys out and are nested."""
    cache = Moka(3)

    def work(thread):
        def load(missing):
            if thread == 0:
                time.sleep(0)
            if missing[0] % 5 == thread:
                raise ZeroDivisionError
            return {key: -key for key in missing if key % 4 != thread} | {9: -9}

        for step in range(500):
            keys = [(step + number * (1 + thread)) % 9 for number in range(5)]
            try:
                result = cache.get_many_with(keys, load)
                assert all(result[key] == -key for key in result)
                assert cache.get_with(keys[0], lambda: -keys[0]) == -keys[0]
            except ZeroDivisionError:
                pass
            cache.remove(keys[1])

    run_threads(*(lambda thread=thread: work(thread) for thread in range(4)))
    assert cache.get_many_with(range(10), lambda missing: dict.fromkeys(missing, 1)).keys() == set(range(10))


# Threads that wait for a key of a bulk load.
def outcomes_of_waiters(load, initializer, keys="ab"):
    """Run a bulk load, and a `get_with` for each of its keys meanwhile.

    Return the cache, the outcome of the load, those of the waiters, and the keys that waiters computed themselves.
    """
    cache, gate, late = Moka(10), Gate(), []

    def outcome(call):
        try:
            return call()
        except BaseException as error:
            return error

    def stopped(missing):
        gate.stop_here()
        return load(missing)

    def compute(key):
        late.append(key)
        return initializer(key)

    with Background(lambda: outcome(lambda: cache.get_many_with(keys, stopped))) as leader:
        gate.wait_until_reached()
        waiters = [
            Background(lambda key=key: outcome(lambda: cache.get_with(key, lambda: compute(key)))) for key in keys
        ]
        for waiter in waiters:
            waiter.__enter__()
        wait_for_misses(cache, 2 * len(keys))
        gate.open()
        for waiter in waiters:
            waiter.__exit__(None, None, None)
    return cache, leader.result, [waiter.result for waiter in waiters], late


def until_in_time(attempt, is_late):
    for _ in range(20):
        outcomes = attempt()
        if not is_late(outcomes):
            return outcomes
    pytest.fail("the waiters came too late each time")


def test_get_with_waits_for_a_key_of_a_bulk_load():
    value = object()
    cache, _, waiters, late = outcomes_of_waiters(lambda missing: dict.fromkeys(missing, value), pytest.fail)
    assert waiters == [value] * 2
    assert late == []


def test_waiter_of_a_key_that_load_leaves_out_runs_its_own_initializer():
    cache, result, waiters, late = outcomes_of_waiters(lambda missing: {"a": 1}, lambda key: f"own {key}")
    assert result == {"a": 1}
    assert waiters == [1, "own b"]
    assert late == ["b"]
    assert contents(cache) == {"a": 1, "b": "own b"}


def test_waiters_get_copies_of_the_error_of_load():
    error = ZeroDivisionError("mine")

    def fail(missing):
        raise error

    cache, leader, waiters, _ = until_in_time(lambda: outcomes_of_waiters(fail, lambda key: "late"), lambda got: got[3])
    assert leader is error
    assert_copies_of_exception(error, waiters)
    assert contents(cache) == {}


@pytest.mark.parametrize("function", ["weigher", "ttl"])
def test_waiters_get_copies_of_the_error_of_the_weigher_or_ttl_function(function):
    error = ZeroDivisionError("mine")

    def fail(key, value):
        if value == "heavy":
            raise error
        return 1

    for _ in range(20):
        cache, gate, late = Moka(10, **{function: fail}), Gate(), []

        def call():
            with pytest.raises(ZeroDivisionError) as caught:
                cache.get_many_with("ab", stopped_load(gate, {"a": 1, "b": "heavy"}))
            return caught.value

        def wait():
            with pytest.raises(ZeroDivisionError) as caught:
                cache.get_with("a", lambda: late.append(1) or "heavy")
            return caught.value

        with Background(call) as leader:
            gate.wait_until_reached()
            with Background(wait) as waiter:
                wait_for_misses(cache, 3)
                gate.open()
        assert leader.result is error
        assert contents(cache) == {}
        if not late:
            assert_copies_of_exception(error, [waiter.result])
            return
    pytest.fail("the waiter came too late each time")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_waiters_take_over_when_the_load_is_interrupted(error):
    def interrupted(missing):
        raise error

    cache, leader, waiters, _ = outcomes_of_waiters(interrupted, lambda key: f"own {key}")
    assert leader is error
    assert waiters == ["own a", "own b"]
    assert contents(cache) == {"a": "own a", "b": "own b"}


def test_many_waiters_get_the_values_of_one_load():
    cache, gate, count = Moka(100), Gate(), MANY_THREADS
    keys, loads = range(10), []

    def load(missing):
        loads.append(missing)
        gate.stop_here()
        return {key: [key] for key in missing}

    def wait(number):
        key = number % 10
        if number % 2:
            return cache.get_with(key, lambda: pytest.fail("computed again"))
        return cache.get_many_with([key, (key + 1) % 10], must_not_load)[key]

    with Background(lambda: cache.get_many_with(keys, load)) as leader:
        gate.wait_until_reached()
        with Background(lambda: outcomes_of_threads(count, wait)) as waiters:
            wait_for_misses(cache, 10 + count // 2)
            gate.open()
    assert loads == [list(keys)]
    assert all(value is leader.result[number % 10] for number, value in enumerate(waiters.result))


# A call that waits for another thread's key.
def wait_for_failing_leader(fail, load=lambda missing: dict.fromkeys(missing, "loaded")):
    """Ask for a key whose leader fails, and for another one. Return the result or the error."""
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return fail(cache)

    def lead():
        with contextlib.suppress(ZeroDivisionError, KeyboardInterrupt):
            cache.get_with("a", compute)

    def load_and_open(missing):
        assert missing == ["b"]
        gate.open()
        return load(missing)

    with Background(lead):
        gate.wait_until_reached()
        try:
            return cache, cache.get_many_with(["a", "b"], load_and_open)
        except BaseException as error:
            return cache, error


def interrupt(cache):
    raise KeyboardInterrupt


def test_key_whose_other_leader_gave_up_is_absent():
    cache, result = wait_for_failing_leader(interrupt)
    assert result == contents(cache) == {"b": "loaded"}


def test_key_whose_other_leader_gave_up_has_the_value_that_was_set_meanwhile():
    def set_and_interrupt(cache):
        cache.set("a", "set")
        raise KeyboardInterrupt

    cache, result = wait_for_failing_leader(set_and_interrupt)
    assert result == contents(cache) == {"a": "set", "b": "loaded"}


def test_key_whose_other_leader_gave_up_has_the_value_that_load_returned_unasked():
    cache, result = wait_for_failing_leader(interrupt, lambda missing: {"a": "unasked", "b": "loaded"})
    assert result == {"a": "unasked", "b": "loaded"}


def test_error_of_the_other_leader_is_raised_and_the_loaded_keys_are_kept():
    error = ZeroDivisionError("theirs")

    def fail(cache):
        raise error

    cache, raised = wait_for_failing_leader(fail)
    assert_copies_of_exception(error, [raised])
    assert contents(cache) == {"b": "loaded"}


def test_key_that_another_thread_computes_has_its_value_and_not_the_one_of_load():
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return "computed"

    def load(missing):
        gate.open()
        return {"a": "unasked", "b": "loaded"}

    with Background(lambda: cache.get_with("a", compute)):
        gate.wait_until_reached()
        assert cache.get_many_with(["a", "b"], load) == {"a": "computed", "b": "loaded"}
    assert contents(cache) == {"a": "computed", "b": "loaded"}


def test_more_keys_are_not_kept_while_another_thread_computes_them():
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return "computed"

    with Background(lambda: cache.get_with("b", compute)):
        gate.wait_until_reached()
        assert cache.get_many_with(["a"], lambda missing: {"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}
        assert contents(cache) == {"a": 1, "c": 3}
        gate.open()
    assert contents(cache) == {"a": 1, "b": "computed", "c": 3}


# Law 13.
WRITES = {
    "set": (lambda cache: cache.set("a", "by hand"), "by hand"),
    "remove": (lambda cache: cache.remove("a"), MISSING),
    "clear": (lambda cache: cache.clear(), MISSING),
    "remove_if": (lambda cache: cache.remove_if(lambda key, value: False), MISSING),
}


@pytest.mark.parametrize(("write", "remains"), WRITES.values(), ids=WRITES)
def test_write_of_another_thread_during_the_load_wins(write, remains):
    cache, gate = Moka(10), Gate()
    with Background(lambda: cache.get_many_with("ab", stopped_load(gate, {"a": 1, "b": 2}))) as leader:
        gate.wait_until_reached()
        write(cache)
        assert cache.get("a", MISSING) == remains
        gate.open()
    assert leader.result == {"a": 1, "b": 2}
    assert cache.get("a", MISSING) == remains
    assert cache.get("b", MISSING) == (2 if write in (WRITES["set"][0], WRITES["remove"][0]) else MISSING)


def test_call_after_a_write_does_not_wait_for_an_earlier_load():
    cache, gate = Moka(10), Gate()
    with Background(lambda: cache.get_many_with("ab", stopped_load(gate, {"a": "old", "b": "old"}))):
        gate.wait_until_reached()
        cache.remove("a")
        assert cache.get_many_with("a", lambda missing: {"a": "new"}) == {"a": "new"}
        gate.open()
    assert contents(cache) == {"a": "new", "b": "old"}


# Waits that would never end.
def test_two_loads_that_ask_for_a_key_of_the_other_raise():
    cache, both_load = Moka(10), threading.Barrier(2)

    def call(own, other):
        def load(missing):
            both_load.wait(60)
            return {own: cache.get_many_with([other], must_not_load)[other]}

        try:
            return cache.get_many_with([own], load)
        except RuntimeError as error:
            return error

    results = run_threads(lambda: call("a", "b"), lambda: call("b", "a"))
    assert any("in a circle" in str(result) for result in results)
    assert all(isinstance(result, RuntimeError) for result in results)
    assert contents(cache) == {}


def test_key_whose_computation_waits_for_this_call_is_no_circle():
    """The other thread leads `b`, and waits for `a`, which this call leads and ends before it waits for `b`."""
    cache, leads, asks = Moka(10), threading.Event(), threading.Event()
    cache.set(Key("between", 1), "present")
    between = CallbackKey("between", 1)

    def compute():
        leads.set()
        assert asks.wait(60)
        return "b after " + cache.get_with("a", lambda: "late a")

    def after_the_first_key():
        asks.set()
        wait_for_misses(cache, 3)

    with Background(lambda: cache.get_with("b", compute)):
        assert leads.wait(60)
        between.on_eq = after_the_first_key
        result = cache.get_many_with(["a", between, "b"], lambda missing: {key: f"loaded {key}" for key in missing})
        between.on_eq = None
    assert result == {"a": "loaded a", between: "present", "b": "b after loaded a"}


def test_circle_that_is_already_closed_raises_before_the_load():
    """This thread computes `x`. The other thread computes `b`, and waits for `x`."""
    for _ in range(20):
        cache, gate, loads = Moka(10), Gate(), []

        def compute():
            gate.stop_here()
            with pytest.raises(RuntimeError):
                cache.get_with("x", lambda: "late")
            return "b"

        def ask():
            gate.open()
            wait_for_misses(cache, 3)
            return cache.get_many_with(["a", "b"], lambda missing: loads.append(missing) or {"a": 1})

        errors = []
        with Background(lambda: cache.get_with("b", compute)) as other:
            gate.wait_until_reached()
            try:
                cache.get_with("x", ask)
            except RuntimeError as error:
                errors.append(str(error))
        assert other.result == "b"
        # If the other thread came too late, the load has run. Then either thread may have closed the circle.
        if not loads:
            assert len(errors) == 1
            assert "in a circle: this one asked for key 'b'" in errors[0]
            assert contents(cache) == {"b": "b"}
            return
    pytest.fail("the other thread came too late each time")


def test_listener_gets_the_removals_of_a_load_after_all_waiters_can_go_on():
    cache_of_listener, results = [], []

    def listener(key, value, cause):
        results.append(run_threads(lambda: cache_of_listener[0].get_with("c", lambda: "late"))[0])

    events = Events()
    cache = Moka(2, policy="lru", eviction_listener=lambda *event: (events(*event), listener(*event)))
    cache_of_listener.append(cache)
    cache.get_many_with("abc", lambda missing: {key: key.upper() for key in missing})
    assert events == [("a", "A", "size")]
    assert results == ["C"]
