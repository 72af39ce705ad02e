"""`cached` coroutine functions under anyio, trio and uvloop."""

import asyncio

import pytest
from cached_helpers import both_wait_modes

from moka_py import cached

anyio = pytest.importorskip("anyio")
trio = pytest.importorskip("trio")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_calls_run_on_both_anyio_backends(backend):
    runs = []

    @cached
    async def function(x):
        runs.append(x)
        await anyio.sleep(0)
        return x

    async def main():
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for x in range(3):
                    group.start_soon(function, x)
        assert [await function(x) for x in range(3)] == [0, 1, 2]

    anyio.run(main, backend=backend)
    assert anyio.run(function, 1, backend=backend) == 1
    assert sorted(runs) == [0, 1, 2]


def test_anyio_tasks_on_asyncio_share_a_run():
    @cached(wait_concurrent=True)
    async def function(x):
        await anyio.sleep(0)
        return x

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(function, 1)

    anyio.run(main, backend="asyncio")
    assert function.cache_info() == (9, 1, 128, 1)


@both_wait_modes
def test_anyio_can_cancel_a_run_whose_cleanup_is_shielded(wait):
    done = []

    @cached(wait_concurrent=wait)
    async def function(x):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                done.append("cleaning")
                for _ in range(5):
                    await anyio.sleep(0)
                done.append("cleaned")

    async def main():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(function, 1)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert done == ["cleaning", "cleaned"]
        with anyio.move_on_after(0) as scope:
            await function(2)
        assert scope.cancelled_caught and done == ["cleaning", "cleaned"] * (len(done) // 2)

    anyio.run(main, backend="asyncio")


@both_wait_modes
def test_anyio_can_cancel_a_run_that_then_returns(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        with anyio.CancelScope():
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0)
                raise

    async def main():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await function(1)
        assert scope.cancelled_caught

    anyio.run(main, backend="asyncio")


def test_trio_can_cancel_a_run():
    @cached
    async def function(x):
        await trio.sleep_forever()

    async def main():
        with trio.move_on_after(0.001):
            await function(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function, 2)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert function.cache_info() == (0, 2, 128, 0)


def test_wait_concurrent_under_trio_raises_an_error():
    @cached(wait_concurrent=True)
    async def function(x):
        return x

    with pytest.raises(RuntimeError, match=r"wait_concurrent=True .* needs an asyncio event loop"):
        trio.run(function, 1)


def test_uvloop_tasks_share_a_run_and_the_last_waiter_can_cancel_it():
    uvloop = pytest.importorskip("uvloop")
    opened = []

    @cached(wait_concurrent=True)
    async def function(x):
        await opened[0].wait()
        return x

    async def main():
        opened.append(asyncio.Event())
        waiters = [asyncio.create_task(function(1)) for _ in range(10)]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        waiters = [asyncio.create_task(function(1)) for _ in range(10)]
        await asyncio.sleep(0)
        opened[0].set()
        assert await asyncio.gather(*waiters) == [1] * 10

    uvloop.run(main())
    assert function.cache_info() == (9, 2, 128, 1)
