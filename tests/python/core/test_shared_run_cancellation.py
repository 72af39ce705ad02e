"""Coroutines that share a run, by `aget_with` or by `cached`: cancellation of waiters and runs, in every order."""

import asyncio
import contextlib
import functools
import itertools

import pytest
from cached_helpers import run_async, run_ready_tasks

from moka_py import Moka, cached


def share_by_aget_with(function):
    """Return a cache, and a function that calls `function` and shares the run. The key is the argument."""
    cache = Moka(10)
    return cache, lambda key="key": cache.aget_with(key, functools.partial(function, key))


def share_by_cached(function):
    shared = cached(wait_concurrent=True)(function)
    return shared.cache, lambda key="key": shared(key)


either_way = pytest.mark.parametrize("share", [share_by_aget_with, share_by_cached], ids=["aget_with", "cached"])


class GatedRuns:
    """A function whose runs wait until `open` is set. Calls share its runs. It counts started and cancelled runs."""

    def __init__(self, share):
        self.open = asyncio.Event()
        self.started = self.cancelled = 0
        self.cache, self.call = share(self.run)

    async def run(self, key):
        self.started += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return object()

    async def waiters(self, count):
        """Return tasks that share a run, after all of them have begun."""
        tasks = [asyncio.create_task(self.call()) for _ in range(count)]
        await run_ready_tasks()
        return tasks


@either_way
@pytest.mark.parametrize("spared", [0, 1, 2, 500, 999])
def test_cancelled_waiters_leave_other_waiters_alone(share, spared):
    async def main():
        gate = GatedRuns(share)
        tasks = await gate.waiters(1000)
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await run_ready_tasks()
        assert [task.done() for task in tasks] == [number != spared for number in range(1000)]
        gate.open.set()
        assert await tasks[spared] is await gate.call()
        assert (gate.started, gate.cancelled) == (1, 0)

    run_async(main)


@either_way
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_cancelling_the_last_waiter_cancels_the_run(share, order, together):
    async def main():
        gate = GatedRuns(share)
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
        assert gate.cache.count() == 0
        gate.open.set()
        assert await gate.call() is await gate.call()
        assert gate.started == 2
        stats = gate.cache.stats()
        assert (stats.hits, stats.loads, stats.load_failures, stats.count) == (1, 2, 1, 1)

    run_async(main)


@either_way
def test_run_can_be_cancelled_before_it_begins(share):
    async def main():
        gate = GatedRuns(share)
        tasks = [asyncio.create_task(gate.call()) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.open.set()
        await gate.call()

    run_async(main)


@either_way
def test_call_during_the_cleanup_of_a_cancelled_run_starts_another(share):
    cleanup = asyncio.Event()
    runs = []

    async def function(key):
        runs.append("began")
        if len(runs) > 1:
            return "second"
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await cleanup.wait()

    async def main():
        _, call = share(function)
        first = asyncio.create_task(call())
        await run_ready_tasks()
        first.cancel()
        await run_ready_tasks()
        assert not first.done()
        assert await call() == "second"
        cleanup.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await call() == "second" and len(runs) == 2

    run_async(main)


@either_way
def test_run_whose_own_timeout_has_passed_can_be_joined_and_cancelled(share):
    timed_out = asyncio.Event()
    runs = []
    cancelled = []

    async def function(key):
        runs.append("began")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        timed_out.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append("once")
            raise

    async def main():
        _, call = share(function)
        first = asyncio.create_task(call())
        await timed_out.wait()
        second = asyncio.create_task(call())
        await run_ready_tasks()
        assert len(runs) == 1
        for task in (second, first):
            task.cancel()
            await run_ready_tasks()
        assert first.cancelled() and second.cancelled() and len(cancelled) == 1

    run_async(main)


@either_way
def test_run_that_suppresses_its_cancellation_returns_its_value(share):
    async def function(key):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "at last"

    async def main():
        cache, call = share(function)
        task = asyncio.create_task(call())
        await run_ready_tasks()
        task.cancel()
        assert await task == cache["key"] == "at last"

    run_async(main)


def returning_after(cleanup):
    """Return a coroutine function that, once it is cancelled, waits for the cleanup and returns a value."""

    async def function(key):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await cleanup.wait()
            return "at last"

    return function


async def task_cancelled_during_the_cleanup(call, cleanup, messages):
    """Return the task of a call that was cancelled with each message before the cleanup ended."""
    task = asyncio.create_task(call())
    await run_ready_tasks()
    for message in messages:
        task.cancel(message)
        await run_ready_tasks()
    assert not task.done()
    cleanup.set()
    return task


@either_way
def test_waiter_that_is_cancelled_again_during_the_cleanup_is_cancelled(share):
    cleanup = asyncio.Event()
    function = returning_after(cleanup)

    async def main():
        _, call = share(function)
        task = await task_cancelled_during_the_cleanup(call, cleanup, ["first", "second"])
        with pytest.raises(asyncio.CancelledError, match="second"):
            await task

    run_async(main)


@either_way
def test_repeated_cancellation_does_not_keep_the_value_of_the_cleanup_from_the_waiter(share):
    cleanup = asyncio.Event()
    function = returning_after(cleanup)

    async def main():
        cache, call = share(function)
        # As anyio does until its scope is left.
        task = await task_cancelled_during_the_cleanup(call, cleanup, ["scope"] * 3)
        assert await task == cache["key"] == "at last"

    run_async(main)


@either_way
def test_exception_of_a_cancelled_run_reaches_the_last_waiter(share):
    async def function(key):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    async def main():
        _, call = share(function)
        tasks = [asyncio.create_task(call()) for _ in range(2)]
        await run_ready_tasks()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[1], LookupError)

    run_async(main)


@either_way
def test_cancelled_error_of_the_function_cancels_each_waiter(share):
    async def function(key):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main():
        cache, call = share(function)
        tasks = [asyncio.create_task(call()) for _ in range(3)]
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(asyncio.CancelledError):
            await call()
        stats = cache.stats()
        assert (stats.hits, stats.loads, stats.load_failures, stats.count) == (0, 2, 2, 0)

    run_async(main)


@either_way
def test_timeout_of_one_waiter_leaves_the_other_alone(share):
    async def main():
        gate = GatedRuns(share)
        (patient,) = await gate.waiters(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.call(), 0.01)
        gate.open.set()
        await patient
        assert (gate.started, gate.cancelled) == (1, 0)

    run_async(main)


@either_way
def test_timeout_of_the_only_waiter_cancels_the_run(share):
    async def main():
        gate = GatedRuns(share)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.call(), 0.01)
        assert (gate.started, gate.cancelled) == (1, 1)

    run_async(main)


@either_way
def test_waiter_can_be_cancelled_as_the_run_ends(share):
    async def main():
        for fails in (False, True):
            done = asyncio.Event()

            async def function(key, fails=fails, done=done):
                await done.wait()
                if fails:
                    raise LookupError("not seen by any waiter")
                return object()

            _, call = share(function)
            task = asyncio.create_task(call())
            await run_ready_tasks()
            done.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or not fails

    run_async(main)


@either_way
def test_closed_waiter_leaves_other_waiters_alone(share):
    async def main():
        gate = GatedRuns(share)
        (task,) = await gate.waiters(1)
        call = gate.call()
        call.send(None)
        call.close()
        await run_ready_tasks()
        gate.open.set()
        await task
        assert gate.started == 1

    run_async(main)


@either_way
def test_throw_before_the_call_begins_raises_there(share):
    async def main():
        gate = GatedRuns(share)
        with pytest.raises(KeyError, match="thrown"):
            gate.call().throw(KeyError("thrown"))
        assert gate.started == 0

    run_async(main)
