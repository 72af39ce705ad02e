"""`aget_with`: cancellation of waiters and loads, in every order."""

import asyncio
import contextlib
import itertools

import pytest
from cached_helpers import GatedInitializer, run_async, run_ready_tasks

from moka_py import Moka


@pytest.mark.parametrize("spared", [0, 1, 500, 999])
def test_cancelled_waiters_leave_other_waiters_alone(spared):
    async def main():
        gate = GatedInitializer()
        tasks = await gate.waiters(1000)
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await run_ready_tasks()
        assert [task.done() for task in tasks] == [number != spared for number in range(1000)]
        gate.open.set()
        assert await tasks[spared] is gate.cache[1]
        assert (gate.started, gate.cancelled) == (1, 0)

    run_async(main)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_cancelling_the_last_waiter_cancels_the_load(order, together):
    async def main():
        gate = GatedInitializer()
        tasks = await gate.waiters(3)
        for number in order:
            assert gate.cancelled == 0
            tasks[number].cancel()
            if not together:
                with contextlib.suppress(asyncio.CancelledError):
                    await tasks[number]
        # The last waiter ends after the load, because it awaits the load's cleanup.
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert (gate.started, gate.cancelled) == (1, 1)
        assert gate.cache.count() == 0
        gate.open.set()
        assert await gate.load() is gate.cache[1]
        stats = gate.cache.stats()
        assert (stats.loads, stats.load_failures) == (2, 1)

    run_async(main)


def test_load_can_be_cancelled_as_it_begins():
    async def main():
        gate = GatedInitializer()
        tasks = [asyncio.create_task(gate.load()) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.open.set()
        await gate.load()

    run_async(main)


def test_call_during_the_cleanup_of_a_cancelled_load_starts_another():
    cleanup = asyncio.Event()
    runs = []

    async def initializer():
        runs.append("began")
        if len(runs) > 1:
            return "second"
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await cleanup.wait()

    async def main():
        cache = Moka(10)
        first = asyncio.create_task(cache.aget_with("key", initializer))
        await run_ready_tasks()
        first.cancel()
        await run_ready_tasks()
        assert not first.done()
        assert await cache.aget_with("key", initializer) == "second"
        cleanup.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert cache["key"] == "second"

    run_async(main)


def test_load_whose_own_timeout_has_passed_can_be_joined_and_cancelled():
    timed_out = asyncio.Event()
    runs = []
    cancelled = []

    async def initializer():
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
        cache = Moka(10)
        first = asyncio.create_task(cache.aget_with("key", initializer))
        await timed_out.wait()
        second = asyncio.create_task(cache.aget_with("key", initializer))
        await run_ready_tasks()
        assert len(runs) == 1
        for task in (second, first):
            task.cancel()
            await run_ready_tasks()
        assert first.cancelled() and second.cancelled() and len(cancelled) == 1

    run_async(main)


def test_load_that_suppresses_its_cancellation_returns_its_value():
    async def initializer():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "at last"

    async def main():
        cache = Moka(10)
        task = asyncio.create_task(cache.aget_with("key", initializer))
        await run_ready_tasks()
        task.cancel()
        assert await task == cache["key"] == "at last"

    run_async(main)


def test_waiter_that_is_cancelled_again_during_the_cleanup_is_cancelled():
    cleanup = asyncio.Event()

    async def initializer():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await cleanup.wait()
            return "at last"

    async def main():
        cache = Moka(10)
        task = asyncio.create_task(cache.aget_with("key", initializer))
        await run_ready_tasks()
        task.cancel("first")
        await run_ready_tasks()
        task.cancel("second")
        await run_ready_tasks()
        assert not task.done()
        cleanup.set()
        with pytest.raises(asyncio.CancelledError, match="second"):
            await task

    run_async(main)


def test_exception_of_a_cancelled_load_reaches_the_last_waiter():
    async def initializer():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    async def main():
        cache = Moka(10)
        tasks = [asyncio.create_task(cache.aget_with("key", initializer)) for _ in range(2)]
        await run_ready_tasks()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[1], LookupError)

    run_async(main)


def test_cancelled_error_of_the_initializer_cancels_each_waiter():
    async def initializer():
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main():
        cache = Moka(10)
        tasks = [asyncio.create_task(cache.aget_with("key", initializer)) for _ in range(3)]
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert cache.stats().load_failures == 1

    run_async(main)


def test_timeout_of_one_waiter_leaves_the_other_alone():
    async def main():
        gate = GatedInitializer()
        (patient,) = await gate.waiters(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.load(), 0)
        gate.open.set()
        await patient
        assert (gate.started, gate.cancelled) == (1, 0)

    run_async(main)


def test_waiter_can_be_cancelled_as_the_load_ends():
    async def main():
        for fails in (False, True):
            done = asyncio.Event()
            cache = Moka(10)

            async def initializer(fails=fails, done=done):
                await done.wait()
                if fails:
                    raise LookupError("not seen by any waiter")
                return object()

            task = asyncio.create_task(cache.aget_with("key", initializer))
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
        gate = GatedInitializer()
        (task,) = await gate.waiters(1)
        call = gate.load()
        call.send(None)
        call.close()
        await run_ready_tasks()
        gate.open.set()
        await task
        assert gate.started == 1

    run_async(main)


def test_throw_before_the_call_begins_raises_there():
    async def main():
        gate = GatedInitializer()
        with pytest.raises(KeyError, match="thrown"):
            gate.load().throw(KeyError("thrown"))
        assert gate.started == 0

    run_async(main)
