"""`aget_many_with`: what is loaded, kept and returned, waits for other flights, and cancellation."""

import asyncio
import contextlib
import functools
import gc
import itertools
import threading
from collections import ChainMap, UserDict

import pytest
from cached_helpers import run_async, run_ready_tasks
from helpers import Background, CallbackKey, Events, Gate, assert_copies_of_exception, run_threads

from moka_py import Moka
from moka_py.testing import ManualClock


class GatedLoad:
    """A bulk loader whose runs wait until `open` is set. It records the keys of each run, and counts cancelled runs.

    It has an answer for each key but `without`.
    """

    def __init__(self, without=()):
        self.open = asyncio.Event()
        self.runs = []
        self.without = without
        self.cancelled = 0

    async def __call__(self, missing):
        self.runs.append(list(missing))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return {key: f"value of {key}" for key in missing if key not in self.without}


def answers(*keys):
    return {key: f"value of {key}" for key in keys}


async def load_all(missing):
    await asyncio.sleep(0)
    return answers(*missing)


async def unexpected(missing):
    raise AssertionError(missing)


async def begun(*calls):
    """Return tasks of the calls, each of which has begun and waits."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await run_ready_tasks()
    return tasks


# Keys that are loaded.


def test_load_gets_the_missing_keys_once_in_the_order_asked_for():
    cache = Moka(100)
    cache.set("b", "present")
    load = GatedLoad()

    async def main():
        load.open.set()
        result = await cache.aget_many_with(iter(["d", "b", "c", "d", "a", "c"]), load)
        assert load.runs == [["d", "c", "a"]]
        assert result == answers("d", "c", "a") | {"b": "present"}
        assert list(result) == ["d", "b", "c", "a"]
        assert dict(cache.items()) == result

    run_async(main)


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "a"]])
def test_load_is_not_called_if_no_key_is_missing(keys):
    cache = Moka(100)
    cache.set_many(answers("a", "b"))

    async def main():
        assert await cache.aget_many_with(keys, unexpected) == answers(*keys)

    run_async(main)


@pytest.mark.parametrize("make", [dict, UserDict, lambda pairs: ChainMap(pairs), lambda pairs: _moka_of(pairs)])
def test_load_may_return_any_mapping(make):
    async def load(missing):
        return make(answers(*missing))

    async def main():
        assert await Moka(100).aget_many_with("ab", load) == answers("a", "b")

    run_async(main)


def _moka_of(pairs):
    cache = Moka(100)
    cache.set_many(pairs)
    return cache


def test_later_change_of_the_mapping_changes_nothing():
    mappings = []

    async def load(missing):
        mappings.append(answers(*missing))
        return mappings[0]

    async def main():
        cache = Moka(100)
        first, second = await begun(cache.aget_many_with("ab", load), cache.aget_many_with("ab", unexpected))
        result = await first
        mappings[0].clear()
        result.clear()
        assert await second == answers("a", "b")
        assert await cache.aget_many_with("ab", unexpected) == answers("a", "b")

    run_async(main)


def test_keys_in_flight_are_not_loaded_and_waited_for_after_load():
    cache = Moka(100)
    load, other = GatedLoad(), GatedLoad()
    opened = asyncio.Event()

    async def initializer():
        await opened.wait()
        return "single"

    async def main():
        single, bulk, call = await begun(
            cache.aget_with("a", initializer),
            cache.aget_many_with("bc", other),
            cache.aget_many_with("abcd", load),
        )
        assert load.runs == [["d"]]
        load.open.set()
        await run_ready_tasks()
        assert cache["d"] == "value of d" and not call.done()
        other.open.set()
        await run_ready_tasks()
        assert not call.done()
        opened.set()
        assert await call == answers("b", "c", "d") | {"a": "single"}
        assert list(await call) == ["a", "b", "c", "d"]
        assert await single == "single" and await bulk == answers("b", "c")

    run_async(main)


def test_call_that_loads_nothing_waits_for_the_flights_of_others():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        first, second = await begun(cache.aget_many_with("ab", load), cache.aget_many_with("ba", unexpected))
        load.open.set()
        assert await first == await second == answers("a", "b")

    run_async(main)


def test_two_calls_with_the_same_keys_in_opposite_orders_never_wait_for_each_other():
    async def main():
        cache = Moka(1000)
        keys = list(range(100))
        calls = [cache.aget_many_with(keys[shift:] + keys[:shift], load_all) for shift in range(0, 100, 10)]
        calls += [cache.aget_many_with(reversed(keys), load_all)]
        for result in await asyncio.gather(*calls):
            assert result == answers(*keys)

    run_async(main)


def test_two_calls_whose_keys_overlap_crosswise_never_wait_for_each_other():
    cache = Moka(100)
    loads = [GatedLoad(), GatedLoad(), GatedLoad()]

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", loads[0]),
            cache.aget_many_with("bca", loads[1]),
            cache.aget_many_with("cda", loads[2]),
        )
        assert [load.runs for load in loads] == [[["a", "b"]], [["c"]], [["d"]]]
        for load in reversed(loads):
            load.open.set()
            await run_ready_tasks()
        results = await asyncio.gather(*tasks)
        assert results == [answers("a", "b"), answers("b", "c", "a"), answers("c", "d", "a")]

    run_async(main)


def test_thousand_calls_share_one_load():
    cache = Moka(1000)
    load = GatedLoad()
    keys = list(range(10))

    async def main():
        tasks = [asyncio.create_task(cache.aget_many_with(keys, load)) for _ in range(1000)]
        await run_ready_tasks()
        load.open.set()
        assert await asyncio.gather(*tasks) == [answers(*keys)] * 1000
        assert load.runs == [keys]

    run_async(main)
    stats = cache.stats()
    assert (stats.loads, stats.misses, stats.hits) == (1, 10_000, 0)


# Other event loops and threads.


def test_call_never_waits_for_a_thread():
    cache = Moka(100)
    gate = Gate()

    def initializer():
        gate.stop_here()
        return "of the thread"

    async def main():
        assert await cache.aget_many_with("ab", load_all) == answers("a", "b")

    with Background(lambda: cache.get_with("a", initializer)) as thread:
        gate.wait_until_reached()
        run_async(main)
        gate.open()
        thread.join()
        assert thread.result == "of the thread"


def test_get_many_with_never_waits_for_a_coroutine():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("ab", load))
        assert cache.get_many_with("ab", lambda missing: dict.fromkeys(missing, "sync")) == {"a": "sync", "b": "sync"}
        load.open.set()
        assert await call == answers("a", "b")

    run_async(main)


def test_event_loops_never_wait_for_each_other():
    cache = Moka(100)
    barrier = threading.Barrier(4)

    async def load(missing):
        # All loops are in their loads at the same time.
        barrier.wait(60)
        return dict.fromkeys(missing, threading.get_ident())

    async def main():
        for result in await asyncio.gather(*(cache.aget_many_with("abc", load) for _ in range(5))):
            assert set(result.values()) == {threading.get_ident()}

    run_threads(*[functools.partial(run_async, main)] * 4)
    assert cache.stats().loads == 4


def test_hit_works_under_trio_and_a_miss_raises():
    trio = pytest.importorskip("trio")
    cache = Moka(100)
    cache.set_many(answers("a", "b"))

    async def main():
        assert await cache.aget_many_with("ab", unexpected) == answers("a", "b")
        with pytest.raises(RuntimeError, match="aget_many_with needs an asyncio event loop"):
            await cache.aget_many_with("abc", load_all)

    trio.run(main)


# Keys that `load` does not answer, and those that it was not asked for.


def test_unanswered_key_is_absent_and_not_kept():
    cache = Moka(100)
    load = GatedLoad(without="b")

    async def main():
        load.open.set()
        assert await cache.aget_many_with("abc", load) == answers("a", "c")
        assert "b" not in cache

    run_async(main)


def test_aget_with_that_waits_for_an_unanswered_key_runs_its_own_initializer():
    cache = Moka(100)
    load = GatedLoad(without="b")
    runs = []

    async def initializer():
        runs.append("ran")
        await asyncio.sleep(0)
        return "own"

    async def main():
        bulk, *singles = await begun(
            cache.aget_many_with("abc", load), *(cache.aget_with("b", initializer) for _ in range(100))
        )
        assert runs == []
        load.open.set()
        assert await bulk == answers("a", "c")
        assert await asyncio.gather(*singles) == ["own"] * 100
        assert runs == ["ran"] and cache["b"] == "own"

    run_async(main)


def test_aget_with_that_waits_for_an_unanswered_key_finds_a_value_that_was_set_meanwhile():
    cache = Moka(100)

    async def load(missing):
        await run_ready_tasks()
        await run_ready_tasks()
        cache.set("b", "set")
        return {}

    async def unexpected_initializer():
        raise AssertionError("there is a value")

    async def main():
        bulk, single = await begun(cache.aget_many_with("ab", load), cache.aget_with("b", unexpected_initializer))
        assert await single == "set"
        assert await bulk == {}

    run_async(main)


def test_aget_with_gets_its_key_of_a_bulk():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        bulk, *singles = await begun(
            cache.aget_many_with("ab", load), *(cache.aget_with("b", unexpected) for _ in range(100))
        )
        load.open.set()
        assert await asyncio.gather(*singles) == ["value of b"] * 100
        assert await bulk == answers("a", "b")

    run_async(main)


def test_key_that_another_bulk_does_not_answer_is_absent():
    cache = Moka(100)
    other, load = GatedLoad(without="b"), GatedLoad()

    async def main():
        first, second = await begun(cache.aget_many_with("ab", other), cache.aget_many_with("abc", load))
        load.open.set()
        other.open.set()
        assert await second == answers("a", "c")
        assert await first == answers("a")
        assert "b" not in cache

    run_async(main)


def test_key_whose_other_leader_gave_up_is_absent_unless_it_has_a_value():
    cache = Moka(100)
    opened = asyncio.Event()

    async def give_up():
        await opened.wait()
        raise asyncio.CancelledError

    async def main():
        first, second, call = await begun(
            cache.aget_with("a", give_up), cache.aget_with("b", give_up), cache.aget_many_with("abc", load_all)
        )
        cache.set("b", "set")
        opened.set()
        assert await call == answers("c") | {"b": "set"}
        assert "a" not in cache
        await asyncio.wait([first, second])

    run_async(main)


def test_keys_that_were_not_asked_for_are_kept_unless_they_have_a_value_or_are_in_flight():
    cache = Moka(100)
    cache.set("present", "old")
    opened = asyncio.Event()

    async def initializer():
        await opened.wait()
        return "of the flight"

    async def load(missing):
        await asyncio.sleep(0)
        return answers("a", "more", "present", "in flight")

    async def main():
        (single,) = await begun(cache.aget_with("in flight", initializer))
        result = await cache.aget_many_with("a", load)
        assert result == answers("a", "more", "present", "in flight")
        assert next(iter(result)) == "a"
        assert dict(cache.items()) == answers("a", "more") | {"present": "old"}
        opened.set()
        assert await single == cache["in flight"] == "of the flight"

    run_async(main)


def test_key_that_another_call_computes_keeps_the_value_of_that_call_in_the_result():
    cache = Moka(100)
    cache.set("present", "old")
    other = GatedLoad()

    async def load(missing):
        return dict.fromkeys(["a", "b", "present"], "of load")

    async def main():
        first, call = await begun(cache.aget_many_with("b", other), cache.aget_many_with(["present", "b", "a"], load))
        other.open.set()
        assert await call == {"present": "old", "b": "value of b", "a": "of load"}
        assert await first == answers("b")

    run_async(main)


# Failures.


def test_failure_of_load_reaches_all_that_wait_and_nothing_is_kept():
    cache = Moka(100)
    error = LookupError("of load")
    opened = asyncio.Event()

    async def load(missing):
        await opened.wait()
        raise error

    async def main():
        tasks = await begun(
            cache.aget_many_with("abc", load),
            cache.aget_many_with("cb", unexpected),
            cache.aget_with("a", unexpected),
            cache.aget_with("b", unexpected),
        )
        opened.set()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert first is error
        assert_copies_of_exception(error, others)
        assert cache.count() == 0
        assert await cache.aget_many_with("abc", load_all) == answers("a", "b", "c")

    run_async(main)
    stats = cache.stats()
    assert (stats.loads, stats.load_failures) == (2, 1)


@pytest.mark.parametrize("function", ["weigher", "ttl", "ttl of the call"])
def test_weigher_and_ttl_function_run_for_all_values_before_the_first_is_kept(function):
    calls = []

    def measure(key, value):
        calls.append((key, value, cache.count()))
        if key == fails_at:
            raise ValueError(key)
        return 1

    options = {} if function == "ttl of the call" else {function: measure}
    given = {"ttl": measure} if function == "ttl of the call" else {}
    events = Events()
    cache = Moka(100, eviction_listener=events, **options)

    async def load(missing):
        await run_ready_tasks()
        await run_ready_tasks()
        return answers("more", "c", "b", "a")

    async def main():
        tasks = await begun(cache.aget_many_with("abc", load, **given), cache.aget_with("b", unexpected))
        return await asyncio.gather(*tasks, return_exceptions=True)

    for fails_at in ("a", "c", "more"):
        for outcome in run_async(main):
            assert type(outcome) is ValueError and outcome.args == (fails_at,)
        assert cache.count() == 0 and events == []
    calls.clear()
    fails_at = None
    assert run_async(main) == [answers("a", "b", "c", "more"), "value of b"]
    assert [call[0] for call in calls] == ["a", "b", "c", "more"]
    assert {call[2] for call in calls} == {0}
    assert cache.count() == 4


@pytest.mark.parametrize("loaded", [None, 5, [("a", 1)], "ab", {"a"}])
def test_load_that_returns_no_mapping_is_a_type_error(loaded):
    cache = Moka(100)

    async def load(missing):
        return loaded

    async def main():
        with pytest.raises(TypeError, match=f"load must return a mapping, got {type(loaded).__name__}"):
            await cache.aget_many_with("ab", load)
        assert cache.count() == 0

    run_async(main)
    assert cache.stats().load_failures == 1


@pytest.mark.parametrize("loaded", [None, {}, {"a": 1}])
def test_load_that_returns_no_awaitable_is_a_type_error(loaded):
    async def main():
        with pytest.raises(TypeError, match=f"load must return an awaitable, got {type(loaded).__name__}"):
            await Moka(100).aget_many_with("ab", lambda missing: loaded)

    run_async(main)


def test_error_of_a_mapping_leaves_the_call():
    class Broken(UserDict):
        def __getitem__(self, key):
            raise OSError("broken")

    async def load(missing):
        return Broken(dict.fromkeys(missing))

    async def main():
        with pytest.raises(OSError, match="broken"):
            await Moka(100).aget_many_with("ab", load)

    run_async(main)


@pytest.mark.parametrize("fails", ["load", "weigher"])
def test_load_that_failed_is_no_longer_in_flight_while_its_exception_lives(fails):
    def weigh(key, value):
        if errors and fails == "weigher":
            raise errors.pop()
        return 1

    async def fail(missing):
        if fails == "load":
            raise errors.pop()
        return answers(*missing)

    async def offer(missing):
        return answers(*missing, "a", "b")

    errors = [LookupError("first")]
    cache = Moka(100, weigher=weigh)

    async def main():
        with pytest.raises(LookupError) as raised:
            await cache.aget_many_with("ab", fail)
        await cache.aget_many_with("c", offer)
        assert dict(cache.items()) == answers("a", "b", "c")
        return raised

    run_async(main)


def test_failure_of_the_flight_of_another_call_leaves_the_call_after_its_own_load():
    cache = Moka(100)
    opened = asyncio.Event()

    async def fail():
        await opened.wait()
        raise LookupError("of another call")

    async def main():
        single, call = await begun(cache.aget_with("a", fail), cache.aget_many_with("ab", load_all))
        assert cache["b"] == "value of b"
        opened.set()
        outcomes = await asyncio.gather(single, call, return_exceptions=True)
        assert_copies_of_exception(outcomes[0], outcomes[1:])

    run_async(main)


def test_failure_of_eq_leaves_the_call():
    def fail():
        raise ZeroDivisionError("of the key")

    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (task,) = await begun(cache.aget_many_with([CallbackKey("a")], load))
        key = CallbackKey("a")
        key.on_eq = fail
        with pytest.raises(ZeroDivisionError, match="of the key"):
            await cache.aget_many_with(["b", key], unexpected)
        load.open.set()
        assert len(await task) == 1
        assert await cache.aget_many_with("b", load_all) == answers("b")

    run_async(main)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], 5), "load must be callable, got int"),
        ((["a"], load_all, "5"), "ttl must be .*, got str"),
        ((["a"], load_all, None, "5"), "tti must be .*, got str"),
        ((["a"],), "missing 1 required positional argument: 'load'"),
    ],
)
def test_wrong_argument_is_a_type_error_of_the_call(arguments, message):
    with pytest.raises(TypeError, match=message):
        Moka(100).aget_many_with(*arguments)


@pytest.mark.parametrize(("keys", "message"), [(5, "keys must be an iterable, got int"), ([[]], "unhashable")])
def test_wrong_keys_are_a_type_error_when_awaited(keys, message):
    async def main():
        with pytest.raises(TypeError, match=message):
            await Moka(100).aget_many_with(keys, load_all)

    run_async(main)


# Own keys and circles.


def test_load_that_asks_for_its_own_key_raises():
    cache = Moka(100)

    async def ask_alone(missing):
        return {"a": await cache.aget_with("b", unexpected)}

    async def ask_together(missing):
        return await cache.aget_many_with(["c", "b"], unexpected)

    async def main():
        for load in (ask_alone, ask_together):
            with pytest.raises(RuntimeError, match="asked for that very key, 'b'"):
                await cache.aget_many_with("ab", load)
        assert await cache.aget_many_with("abc", load_all) == answers("a", "b", "c")

    run_async(main)


def test_loads_that_wait_for_each_other_raise():
    cache = Moka(100)

    async def ask_for(key, missing):
        await asyncio.sleep(0)
        return await cache.aget_many_with([key, "more"], load_all)

    async def main():
        outcomes = await asyncio.gather(
            cache.aget_many_with("a", functools.partial(ask_for, "b")),
            cache.aget_many_with("b", functools.partial(ask_for, "c")),
            cache.aget_with("c", functools.partial(ask_for, "a", [])),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, RuntimeError) and "very key" in str(outcome) for outcome in outcomes)

    run_async(main)


def test_load_may_ask_for_other_keys():
    cache = Moka(100)

    async def load(missing):
        others = await cache.aget_many_with([2 * key for key in missing if key < 8], load)
        return {key: len(others) for key in missing}

    async def main():
        assert await cache.aget_many_with([1, 5], load) == {1: 2, 5: 2}
        assert sorted(cache) == [1, 2, 4, 5, 8, 10]

    run_async(main)


# Counts, lifetimes, later writes.


def test_load_counts_once_and_each_missing_key_is_a_miss():
    cache = Moka(100)
    cache.set("a", 1)

    async def main():
        await cache.aget_many_with("aabcd", load_all)

    run_async(main)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 3, 1, 0)


def test_result_has_values_that_are_not_kept():
    cache = Moka(0)

    async def load(missing):
        return answers(*missing, "more")

    async def main():
        assert await cache.aget_many_with("ab", load) == answers("a", "b", "more")
        assert cache.count() == 0

    run_async(main)


def test_ttl_and_tti_are_those_of_the_loaded_entries():
    with ManualClock():
        cache = Moka(100, ttl=100)

    async def load(missing):
        return answers(*missing, f"more than {missing[0]}")

    async def main():
        cache.set("present", 1)
        await cache.aget_many_with(["present", "ttl"], load, 10)
        await cache.aget_many_with(["tti"], load, tti=20)
        await cache.aget_many_with(["function"], load, ttl=lambda key, value: len(key))
        assert {key: cache.expires_in(key) for key in cache} == {
            "present": 100,
            "ttl": 10,
            "more than ttl": 10,
            "tti": 20,
            "more than tti": 20,
            "function": 8,
            "more than function": 18,
        }

    run_async(main)


@pytest.mark.parametrize(
    "write",
    [lambda cache: cache.set("b", "new"), lambda cache: cache.remove("b"), lambda cache: cache.remove_many("b")],
    ids=["set", "remove", "remove_many"],
)
def test_write_during_a_load_wins_for_its_key(write):
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("abc", load))
        write(cache)
        after = dict(cache.items())
        load.open.set()
        assert await call == answers("a", "b", "c")
        assert dict(cache.items()) == answers("a", "c") | after

    run_async(main)


def test_clear_during_a_load_keeps_all_out():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("abc", load))
        cache.clear()
        load.open.set()
        assert await call == answers("a", "b", "c")
        assert cache.count() == 0

    run_async(main)


def test_call_after_a_removal_does_not_join_the_load_of_that_key():
    cache = Moka(100)
    load, later = GatedLoad(), GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("ab", load))
        cache.remove("b")
        (second,) = await begun(cache.aget_many_with("ab", later))
        assert later.runs == [["b"]]
        load.open.set()
        later.open.set()
        assert await call == await second == answers("a", "b")

    run_async(main)


def test_listener_is_called_after_the_flights_have_ended():
    cache = Moka(1, policy="lru", eviction_listener=lambda key, value, cause: heard.append((key, cause)))
    heard = []

    async def main():
        assert await cache.aget_many_with("ab", load_all) == answers("a", "b")

    run_async(main)
    assert heard == [("a", "size")]


# Cancellation.


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_load_is_cancelled_with_its_last_waiter_for_any_of_its_keys(order):
    cache = Moka(100)
    load, own = GatedLoad(), GatedLoad()

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", load), cache.aget_many_with("bc", own), cache.aget_with("a", unexpected)
        )
        for number in order:
            assert load.cancelled == 0
            tasks[number].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tasks[number]
        assert all(task.cancelled() for task in tasks)
        assert (load.cancelled, own.cancelled) == (1, 1)
        load.open.set()
        assert await cache.aget_many_with("ab", load) == answers("a", "b")

    run_async(main)


@pytest.mark.parametrize("spared", range(3))
def test_cancelled_waiters_leave_the_last_one_alone(spared):
    cache = Moka(100)
    load, own = GatedLoad(), GatedLoad()
    expected = [answers("a", "b"), answers("b", "c"), "value of a"]

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", load), cache.aget_many_with("bc", own), cache.aget_with("a", unexpected)
        )
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await run_ready_tasks()
        load.open.set()
        own.open.set()
        assert await tasks[spared] == expected[spared]
        assert load.cancelled == 0

    run_async(main)


def test_call_that_waits_for_its_own_load_is_a_waiter_of_the_other_flights():
    cache = Moka(100)
    load, other = GatedLoad(), GatedLoad()

    async def main():
        first, call = await begun(cache.aget_many_with("a", other), cache.aget_many_with("ab", load))
        first.cancel()
        await asyncio.wait([first])
        assert other.cancelled == 0
        other.open.set()
        load.open.set()
        assert await call == answers("a", "b")

    run_async(main)


def test_call_that_fails_cancels_the_flights_that_it_alone_waits_for():
    cache = Moka(100)
    others = [GatedLoad(), GatedLoad()]
    opened = asyncio.Event()

    async def fail(missing):
        await opened.wait()
        raise LookupError("of load")

    async def main():
        first, second, call = await begun(
            cache.aget_many_with("a", others[0]),
            cache.aget_many_with("b", others[1]),
            cache.aget_many_with("abc", fail),
        )
        first.cancel()
        await asyncio.wait([first])
        opened.set()
        with pytest.raises(LookupError, match="of load"):
            await call
        # It waited for the cleanup.
        assert [other.cancelled for other in others] == [1, 0]
        others[1].open.set()
        assert await second == answers("b")

    run_async(main)


@pytest.mark.parametrize("alone", range(3))
def test_call_that_is_cancelled_while_it_waits_for_others_leaves_them_to_their_waiters(alone):
    cache = Moka(100)
    others = [GatedLoad() for _ in range(3)]

    async def main():
        *firsts, call = await begun(
            *(cache.aget_many_with(key, other) for key, other in zip("abc", others, strict=True)),
            cache.aget_many_with("abcd", load_all),
        )
        firsts[alone].cancel()
        await asyncio.wait([firsts[alone]])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [other.cancelled for other in others] == [number == alone for number in range(3)]
        for other in others:
            other.open.set()
        assert [await task for number, task in enumerate(firsts) if number != alone] == [
            answers(key) for number, key in enumerate("abc") if number != alone
        ]

    run_async(main)


@pytest.mark.parametrize("is_collected", [False, True])
def test_event_loop_that_is_closed_during_a_load_blocks_no_other(is_collected):
    cache = Moka(100)

    async def forever(missing):
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    tasks = [loop.create_task(cache.aget_many_with(keys, forever)) for keys in ("ab", "bc", "ab")]
    loop.run_until_complete(run_ready_tasks())
    loop.close()
    # The waiters are closed, though they cannot wait for the flights.
    if is_collected:
        tasks.clear()
        gc.collect()

    async def main():
        assert await cache.aget_many_with("ab", load_all) == answers("a", "b")

    run_async(main)
    del tasks


def test_load_that_suppresses_its_cancellation_answers_the_last_waiter():
    cache = Moka(100)

    async def load(missing):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return answers(*missing)

    async def main():
        (call,) = await begun(cache.aget_many_with("ab", load))
        call.cancel()
        assert await call == answers("a", "b")

    run_async(main)
