"""`aget_many_with` in several event loops and threads, in a loop that is closed midway, and under trio."""

import asyncio
import functools
import gc
import threading

import pytest
from bulk_load_helpers import GatedLoad, answers, begun, load_all, unexpected
from cached_helpers import run_async, run_ready_tasks
from helpers import Background, Gate, run_threads

from moka_py import Moka


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
