"""Calls of cached coroutine functions that share a run: stampedes, and cancellation of waiters and runs."""

import asyncio
import contextlib
import contextvars
import itertools

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
        await asyncio.sleep(0.01)
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


def test_cancelled_error_raised_by_the_function_cancels_no_waiter():
    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main():
        tasks = [asyncio.create_task(function(1)) for _ in range(3)]
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(asyncio.CancelledError):
            await function(1)

    run_async(main)
    assert function.cache_info() == (0, 2, 128, 0)


@pytest.mark.parametrize("spared", [0, 1, 2, 500, 999])
def test_cancelled_waiters_leave_other_waiters_alone(spared):
    async def main():
        gate = GatedFunction()
        tasks = await gate.waiters(1000)
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await run_ready_tasks()
        assert [task.done() for task in tasks] == [number != spared for number in range(1000)]
        gate.open.set()
        assert await tasks[spared] is await gate.cached(1)
        assert (gate.started, gate.cancelled) == (1, 0)

    run_async(main)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_cancelling_the_last_waiter_cancels_the_run(order, together):
    async def main():
        gate = GatedFunction()
        tasks = await gate.waiters(3)
        for number in order:
            assert gate.cancelled == 0
            tasks[number].cancel()
            if not together:
                with contextlib.suppress(asyncio.CancelledError):
                    await tasks[number]
        # The last waiter ends after the run, because it awaits the run's cleanup.
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert (gate.started, gate.cancelled) == (1, 1)
        gate.open.set()
        await gate.cached(1)
        assert gate.started == 2
        assert gate.cached.cache_info() == (0, 2, 128, 1)

    run_async(main)


def test_run_can_be_cancelled_before_it_begins():
    async def main():
        gate = GatedFunction()
        tasks = [asyncio.create_task(gate.cached(1)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.open.set()
        await gate.cached(1)

    run_async(main)


def test_call_during_the_cleanup_of_a_cancelled_run_starts_a_new_run():
    began, cleanup = [], []

    @cached(wait_concurrent=True)
    async def function(x):
        began.append(x)
        if len(began) > 1:
            return "second"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleanup.append(x)

    async def main():
        first = asyncio.create_task(function(1))
        await run_ready_tasks()
        first.cancel()
        await run_ready_tasks()
        assert not first.done()
        assert await function(1) == "second"
        assert cleanup == []
        with pytest.raises(asyncio.CancelledError):
            await first
        assert cleanup == [1]

    run_async(main)


def test_run_that_suppresses_its_cancellation_returns_its_value():
    @cached(wait_concurrent=True)
    async def function(x):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "at last"

    async def main():
        task = asyncio.create_task(function(1))
        await run_ready_tasks()
        task.cancel()
        assert await task == "at last"

    run_async(main)


def test_exception_of_a_cancelled_run_reaches_the_last_waiter():
    @cached(wait_concurrent=True)
    async def function(x):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    async def main():
        tasks = [asyncio.create_task(function(1)) for _ in range(2)]
        await run_ready_tasks()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[1], LookupError)

    run_async(main)


def test_timeout_of_one_waiter_leaves_the_other_alone():
    async def main():
        gate = GatedFunction()
        patient = asyncio.create_task(gate.cached(1))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.cached(1), 0.05)
        gate.open.set()
        await patient
        assert (gate.started, gate.cancelled) == (1, 0)
        # The timeout of the only waiter cancels the run.
        gate.open.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.cached(2), 0.05)
        assert (gate.started, gate.cancelled) == (2, 1)

    run_async(main)


def test_waiter_can_be_cancelled_as_the_run_ends():
    async def main():
        for fails in (False, True):
            done = asyncio.Event()

            @cached(wait_concurrent=True)
            async def function(x, fails=fails, done=done):
                await done.wait()
                if fails:
                    raise LookupError("not seen by any waiter")
                return object()

            task = asyncio.create_task(function(1))
            await run_ready_tasks()
            done.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or not fails

    run_async(main)


def test_closed_waiter_leaves_other_waiters_alone():
    async def main():
        gate = GatedFunction()
        (task,) = await gate.waiters(1)
        call = gate.cached(1)
        call.send(None)
        call.close()
        await run_ready_tasks()
        gate.open.set()
        await task
        assert gate.started == 1

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
