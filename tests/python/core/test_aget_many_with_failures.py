"""`aget_many_with`: failures, wrong arguments, and loads that ask for keys in flight."""

import asyncio
import functools
from collections import UserDict

import pytest
from bulk_load_helpers import GatedLoad, answers, begun, load_all, unexpected
from cached_helpers import run_async, run_ready_tasks
from helpers import CallbackKey, Events, assert_copies_of_exception

from moka_py import Moka

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
