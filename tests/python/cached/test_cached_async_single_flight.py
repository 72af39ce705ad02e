"""Calls of cached coroutine functions that share a run. Cancellation is in core/test_shared_run_cancellation.py."""

import asyncio
import contextvars

import pytest
from cached_helpers import GatedFunction, both_wait_modes, run_async, run_ready_tasks
from helpers import assert_copies_of_exception

from moka_py import cached


def test_without_wait_concurrent_each_call_runs():
    async def main():
        gate = GatedFunction(wait_concurrent=False)
        tasks = await gate.waiters(3)
        assert gate.started == 3
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.cached.cache_info() == (0, 3, 128, 1)

    run_async(main)


@pytest.mark.parametrize("maxsize", [128, None, 0])
def test_stampede_runs_once(maxsize):
    async def main():
        gate = GatedFunction(maxsize=maxsize)
        tasks = await gate.waiters(1000)
        other = await gate.waiters(1000, x=2)
        gate.open.set()
        values = await asyncio.gather(*tasks, *other)
        assert gate.started == 2
        assert len(set(values[:1000])) == len(set(values[1000:])) == 1
        assert gate.cached.cache_info()[:2] == (1998, 2)
        assert (await gate.cached(1) is values[0]) == (maxsize != 0)

    run_async(main)


def test_failure_is_shared_and_not_cached():
    error = LookupError("first")
    left = [error]

    @cached(wait_concurrent=True)
    async def function(x):
        await run_ready_tasks()
        if left:
            raise left.pop()
        return "fine"

    async def main():
        outcomes = await asyncio.gather(*(function(1) for _ in range(1000)), return_exceptions=True)
        assert outcomes[0] is error
        assert_copies_of_exception(error, outcomes[1:])
        assert error.__context__ is None and error.__cause__ is None
        assert await function(1) == "fine"

    run_async(main)
    assert function.cache_info() == (0, 2, 128, 1)


@pytest.mark.parametrize("kind", [KeyError, ZeroDivisionError])
def test_error_of_eq_with_an_in_flight_argument_is_raised(kind):
    fails = []

    class Argument:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if fails:
                raise kind("of the argument")
            return True

    async def main():
        gate = GatedFunction()
        (task,) = await gate.waiters(1, Argument())
        fails.append(True)
        with pytest.raises(kind, match="of the argument"):
            await gate.cached(Argument())
        await run_ready_tasks()
        fails.clear()
        gate.open.set()
        assert await gate.cached(Argument()) is await task
        assert gate.started == 1
        assert gate.cached.cache_info().misses == 1

    run_async(main)


def test_run_sees_the_context_variables_of_the_first_caller():
    name = contextvars.ContextVar("name", default="no caller")

    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        return name.get()

    async def call(caller):
        name.set(caller)
        return await function(1)

    async def main():
        assert await asyncio.gather(*(call(caller) for caller in ("first", "second"))) == ["first", "first"]

    run_async(main)


@both_wait_modes
def test_run_that_began_before_a_clear_stores_nothing(wait):
    async def main():
        gate = GatedFunction(wait_concurrent=wait)
        (old,) = await gate.waiters(1)
        gate.cached.cache_clear()
        # A call after the clear must not share a run from before it.
        (new,) = await gate.waiters(1)
        assert gate.started == 2
        gate.open.set()
        assert await old is not await new
        assert await gate.cached(1) is await new

    run_async(main)


@both_wait_modes
def test_function_can_clear_its_own_cache(wait):
    runs = []

    @cached(wait_concurrent=wait)
    async def function(x):
        runs.append(x)
        await asyncio.sleep(0)
        if len(runs) == 1:
            function.cache_clear()
        return len(runs)

    async def main():
        assert [await function(1) for _ in range(3)] == [1, 2, 2]

    run_async(main)
