"""`aget_with`: calls that share a load, ask for their own key, or meet a later write."""

import asyncio
import contextvars
import gc
import weakref

import pytest
from cached_helpers import GatedInitializer, run_async, run_ready_tasks
from helpers import CallbackKey, Events, assert_copies_of_exception

from moka_py import Moka, cached


async def value():
    return "value"


async def unexpected():
    raise AssertionError("the key has a value")


# Shared loads.


def test_stampede_loads_once():
    async def main():
        gate = GatedInitializer()
        tasks = await gate.waiters(1000)
        other = await gate.waiters(1000, key=2)
        gate.open.set()
        values = await asyncio.gather(*tasks, *other)
        assert gate.started == 2
        assert len(set(values[:1000])) == len(set(values[1000:])) == 1
        assert gate.cache[1] is values[0] and gate.cache[2] is values[1000]
        stats = gate.cache.stats()
        assert (stats.loads, stats.load_failures, stats.misses) == (2, 0, 2000)

    run_async(main)


def test_calls_with_equal_keys_share_a_load():
    async def main():
        gate = GatedInitializer()
        tasks = [task for key in (1, 1.0, True) for task in await gate.waiters(1, key)]
        gate.open.set()
        assert len(set(await asyncio.gather(*tasks))) == gate.started == 1

    run_async(main)


def test_failure_is_shared_and_not_kept():
    error = LookupError("first")
    cache = Moka(10)

    async def fail():
        await asyncio.sleep(0)
        raise error

    async def main():
        outcomes = await asyncio.gather(*(cache.aget_with("key", fail) for _ in range(1000)), return_exceptions=True)
        assert outcomes[0] is error
        assert_copies_of_exception(error, outcomes[1:])
        assert "key" not in cache
        assert await cache.aget_with("key", value) == "value"

    run_async(main)
    stats = cache.stats()
    assert (stats.loads, stats.load_failures) == (2, 1)


def test_exception_leaves_no_reference_cycle():
    class Failure(Exception):
        pass

    cache = Moka(10)
    references = []

    async def fail():
        await asyncio.sleep(0)
        raise Failure

    async def load():
        try:
            await cache.aget_with("key", fail)
        except Failure as error:
            references.append(weakref.ref(error))

    async def main():
        gc.disable()
        try:
            await asyncio.gather(*(load() for _ in range(3)))
            await run_ready_tasks()
            assert [reference() for reference in references] == [None] * 3
        finally:
            gc.enable()

    run_async(main)


def test_error_of_the_weigher_reaches_all_waiters_and_nothing_is_kept():
    def weigh(key, value):
        raise ValueError("heavy")

    async def main():
        gate = GatedInitializer(weigher=weigh)
        tasks = await gate.waiters(3)
        gate.open.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert type(outcome) is ValueError and outcome.args == ("heavy",)
        assert gate.cache.count() == 0

    run_async(main)


def test_error_of_hash_leaves_the_call():
    async def main():
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            await Moka(10).aget_with([], value)

    run_async(main)


@pytest.mark.parametrize("kind", [KeyError, ZeroDivisionError])
def test_error_of_eq_with_a_key_in_flight_leaves_the_call_that_compares(kind):
    def fail():
        raise kind("of the key")

    async def main():
        gate = GatedInitializer()
        (task,) = await gate.waiters(1, CallbackKey("key"))
        key = CallbackKey("key")
        key.on_eq = fail
        with pytest.raises(kind, match="of the key"):
            await gate.load(key)
        gate.open.set()
        assert await gate.load(CallbackKey("key")) is await task
        assert gate.started == 1

    run_async(main)


def test_load_sees_the_context_variables_of_the_first_caller():
    name = contextvars.ContextVar("name", default="no caller")
    cache = Moka(10)

    async def initializer():
        await asyncio.sleep(0)
        return name.get()

    async def call(caller):
        name.set(caller)
        return await cache.aget_with("key", initializer)

    async def main():
        assert await asyncio.gather(*(call(caller) for caller in ("first", "second"))) == ["first", "first"]

    run_async(main)


def test_call_joins_a_run_of_a_function_that_is_cached_in_the_cache():
    async def main():
        opened = asyncio.Event()

        @cached(key=lambda x: x, wait_concurrent=True)
        async def function(x):
            await opened.wait()
            return x

        run = asyncio.create_task(function(1))
        await run_ready_tasks()
        load = asyncio.create_task(function.cache.aget_with(1, unexpected))
        await run_ready_tasks()
        opened.set()
        assert await load == await run == 1

    run_async(main)


# Own key and circles.


def test_initializer_that_asks_for_its_own_key_raises():
    cache = Moka(10)

    async def initializer():
        return await cache.aget_with("own key", initializer)

    async def main():
        with pytest.raises(RuntimeError, match="asked for that very key, 'own key'"):
            await cache.aget_with("own key", initializer)
        assert await cache.aget_with("own key", value) == "value"

    run_async(main)


@pytest.mark.parametrize("length", [2, 3, 10])
def test_initializers_that_wait_for_each_other_raise(length):
    cache = Moka(100)

    async def load(key):
        async def initializer():
            await asyncio.sleep(0)
            return await load((key + 1) % length)

        return await cache.aget_with(key, initializer)

    async def main():
        outcomes = await asyncio.gather(*map(load, range(length)), return_exceptions=True)
        assert all(isinstance(outcome, RuntimeError) and "very key" in str(outcome) for outcome in outcomes)
        assert cache.count() == 0

    run_async(main)


def test_initializer_may_ask_for_other_keys():
    cache = Moka(100)

    async def factorial(n):
        async def initializer():
            return n * await factorial(n - 1) if n else 1

        return await cache.aget_with(n, initializer)

    async def main():
        assert await factorial(20) == 2432902008176640000
        assert cache.count() == 21

    run_async(main)


# A later write wins.


WRITES = {
    "set": lambda cache: cache.set(1, "new"),
    "set_with": lambda cache: cache.set_with(1, lambda _: "new"),
    "remove": lambda cache: cache.remove(1),
    "clear": lambda cache: cache.clear(),
    "remove_if": lambda cache: cache.remove_if(lambda *_: False),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_during_a_load_wins(write):
    async def main():
        gate = GatedInitializer()
        tasks = await gate.waiters(2)
        write(gate.cache)
        after = dict(gate.cache.items())
        gate.open.set()
        first, second = await asyncio.gather(*tasks)
        assert first is second
        assert dict(gate.cache.items()) == after

    run_async(main)


def test_call_after_a_removal_does_not_join_a_load_from_before_it():
    async def main():
        gate = GatedInitializer()
        (old,) = await gate.waiters(1)
        gate.cache.remove(1)
        (new,) = await gate.waiters(1)
        assert gate.started == 2
        gate.open.set()
        assert await old is not await new
        assert gate.cache[1] is await new

    run_async(main)


def test_listener_hears_of_a_value_that_outweighs_the_capacity():
    events = Events()
    cache = Moka(10, weigher=lambda *_: 11, eviction_listener=events)

    async def main():
        assert await cache.aget_with("key", value) == "value"
        assert events == [("key", "value", "size")]

    run_async(main)
