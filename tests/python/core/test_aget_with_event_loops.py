"""`aget_with` in several event loops and threads, in loops that are closed midway, and under trio, anyio and uvloop."""

import asyncio
import functools
import gc
import threading
import weakref

import pytest
from cached_helpers import GatedInitializer, run_async, run_ready_tasks
from helpers import Background, Gate, Key, run_threads

from moka_py import Moka


async def value():
    return "value"


def test_call_never_waits_for_a_get_with_of_another_thread():
    cache = Moka(10)
    gate = Gate()

    def initializer():
        gate.stop_here()
        return "of the thread"

    with Background(lambda: cache.get_with("key", initializer)) as thread:
        gate.wait_until_reached()
        run_async(lambda: cache.aget_with("key", value))
        assert cache["key"] == "value"
        gate.open()
        thread.join()
        assert thread.result == "of the thread"


def test_get_with_never_waits_for_a_coroutine():
    cache = Moka(10)

    async def main():
        opened = asyncio.Event()

        async def initializer():
            await opened.wait()
            return "of the loop"

        task = asyncio.create_task(cache.aget_with("key", initializer))
        await run_ready_tasks()
        assert cache.get_with("key", lambda: "of get_with") == "of get_with"
        opened.set()
        assert await task == "of the loop"

    run_async(main)


def test_event_loops_never_wait_for_each_other():
    cache = Moka(10)
    barrier = threading.Barrier(4)

    async def initializer():
        # All loops are in their loads at the same time.
        barrier.wait(60)
        return threading.get_ident()

    async def main():
        values = await asyncio.gather(*(cache.aget_with("key", initializer) for _ in range(10)))
        assert set(values) == {threading.get_ident()}

    run_threads(*[functools.partial(run_async, main)] * 4)
    assert cache.stats().loads == 4


def test_event_loops_in_threads_share_a_cache_under_load():
    cache = Moka(8)

    async def load(key):
        async def initializer():
            await asyncio.sleep(0)
            return key

        return await cache.aget_with(Key(str(key), hash_=key % 3), initializer)

    async def main():
        for _ in range(20):
            assert await asyncio.gather(*map(load, range(16))) == list(range(16))
            cache.remove(Key("3", hash_=0))

    run_threads(*[functools.partial(run_async, main)] * 4)
    cache.run_pending_tasks()
    assert cache.count() <= 8


def test_event_loop_that_is_closed_during_a_load_leaves_nothing_behind(monkeypatch):
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    cache = Moka(10)
    key = Key("key")

    async def forever():
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"
    tasks = [loop.create_task(cache.aget_with(key, forever)) for _ in range(3)]
    loop.run_until_complete(run_ready_tasks())
    loop.close()
    references = [weakref.ref(thing) for thing in (key, loop, *tasks)]
    del key, loop, tasks
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert unraisable == []


def test_new_event_loop_loads_after_one_was_closed_during_a_load():
    cache = Moka(10)
    left = list(range(3))

    async def initializer():
        if left:
            left.pop()
            await asyncio.get_running_loop().create_future()
        return "value"

    loops, tasks = [asyncio.new_event_loop() for _ in range(3)], []
    for loop in loops:
        loop.set_exception_handler(lambda loop, context: None)
        tasks.append(loop.create_task(cache.aget_with("key", initializer)))
        loop.run_until_complete(run_ready_tasks())
        loop.close()
    # The tasks of the closed event loops never end, and must not block the new call.
    assert run_async(lambda: cache.aget_with("key", initializer)) == "value"
    del tasks


def test_event_loop_that_pauses_continues_its_load():
    async def begin():
        gate = GatedInitializer()
        return gate, await gate.waiters(2)

    with asyncio.Runner() as runner:
        gate, tasks = runner.run(begin())
        gate.open.set()

        async def end():
            return await asyncio.gather(*tasks)

        first, second = runner.run(end())
        assert first is second is gate.cache[1]


def test_end_of_asyncio_run_cancels_a_load():
    gates = []

    async def main():
        gates.append(GatedInitializer())
        await gates[0].waiters(2)

    asyncio.run(main())
    assert (gates[0].started, gates[0].cancelled, gates[0].cache.count()) == (1, 1, 0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_hit_works_under_each_library(backend):
    anyio = pytest.importorskip("anyio")
    pytest.importorskip(backend)
    cache = Moka(10)
    cache.set("key", 1)

    async def main():
        assert await cache.aget_with("key", value) == 1

    anyio.run(main, backend=backend)


def test_miss_under_trio_raises_an_error():
    trio = pytest.importorskip("trio")
    cache = Moka(10)

    async def main():
        await cache.aget_with("key", value)

    with pytest.raises(RuntimeError, match="aget_with needs an asyncio event loop"):
        trio.run(main)


def test_anyio_can_cancel_a_load_whose_cleanup_is_shielded():
    anyio = pytest.importorskip("anyio")
    done = []

    async def initializer():
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
                group.start_soon(Moka(10).aget_with, "key", initializer)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert done == ["cleaning", "cleaned"]

    anyio.run(main, backend="asyncio")


def test_uvloop_tasks_share_a_load_and_the_last_waiter_can_cancel_it():
    uvloop = pytest.importorskip("uvloop")

    async def main():
        gate = GatedInitializer()
        waiters = await gate.waiters(10)
        for waiter in waiters:
            waiter.cancel()
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        waiters = await gate.waiters(10)
        gate.open.set()
        assert len(set(await asyncio.gather(*waiters))) == 1
        assert (gate.started, gate.cancelled) == (2, 1)

    uvloop.run(main())


def test_eager_tasks_share_a_load():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        gate = GatedInitializer()
        tasks = await gate.waiters(10)
        gate.open.set()
        assert len(set(await asyncio.gather(*tasks))) == gate.started == 1

    run_async(main)
