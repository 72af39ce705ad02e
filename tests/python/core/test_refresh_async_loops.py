"""`refresh` in coroutines of several event loops, of a loop that is closed midway, and of a forked child."""

import asyncio
import functools
import gc
import os
import threading

import pytest
from cached_helpers import run_async, run_ready_tasks
from helpers import run_script, run_threads
from refresh_async_helpers import REFRESH, Caller, Loader, every_kind_of_call, until_idle


@every_kind_of_call
def test_one_of_several_event_loops_computes(kind, clock):
    started = []

    async def load(key):
        started.append(key)
        return "new"

    caller = Caller(kind, load)
    caller.cache.set("a", "old")
    clock.advance(2 * REFRESH)
    barrier = threading.Barrier(4)

    async def main():
        barrier.wait(60)
        assert await caller.call() in ("old", "new")
        await run_ready_tasks()
        barrier.wait(60)
        assert await caller.call() == "new"

    run_threads(*[functools.partial(run_async, main)] * 4)
    assert started == ["a"]


@every_kind_of_call
def test_calls_of_another_event_loop_get_the_old_value_while_one_computes(kind, clock):
    loader = Loader()

    async def begin():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        return caller

    with asyncio.Runner() as runner:
        caller = runner.run(begin())

        async def other():
            assert await caller.call() == 1
            await run_ready_tasks()
            assert loader.started == 2

        run_async(other)

        async def end():
            await until_idle(loader)
            assert await caller.call() == 2

        runner.run(end())


@every_kind_of_call
def test_refresh_of_an_event_loop_that_is_closed_midway_is_left_to_the_next_call(kind, clock, unraisable_reports):
    async def load(key):
        starts.append(key)
        if len(starts) == 2:
            await asyncio.get_running_loop().create_future()
        return len(starts)

    starts = []
    caller = Caller(kind, load)

    async def begin():
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await run_ready_tasks()

    loop = asyncio.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    loop.run_until_complete(begin())
    loop.close()
    # The loop is alive, and its task can go on no more. The cache does not keep it from the collector.
    gc.collect()

    async def again():
        assert await caller.call() == 1
        await run_ready_tasks()
        assert await caller.call() == 3

    run_async(again)
    assert (caller.cache.stats().load_failures, unraisable_reports, reports) == (0, [], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_fork_has_no_refresh_under_way():
    run_script(
        """
        import asyncio, os, warnings
        from moka_py import Moka, cached
        from moka_py.testing import ManualClock

        warnings.simplefilter("ignore")
        starts = []

        async def load():
            starts.append(os.getpid())
            await asyncio.sleep(0)
            return len(starts)

        async def turn():
            for _ in range(20):
                await asyncio.sleep(0)

        with ManualClock() as clock:
            cache = Moka(10, refresh=10)

            async def main():
                await cache.aget_with("a", load)
                clock.advance(20)
                assert await cache.aget_with("a", load) == 1
                child = os.fork()
                if child:
                    _, status = os.waitpid(child, 0)
                    assert os.waitstatus_to_exitcode(status) == 0
                    await turn()
                    assert await cache.aget_with("a", load) == 2
                    assert starts == [os.getpid()] * 2
                    return
                code = 1
                try:
                    import threading

                    async def in_child():
                        assert await cache.aget_with("a", load) == 1
                        await turn()
                        assert starts[1:] == [os.getpid()]
                        assert await cache.aget_with("a", load) == 2

                    # The event loop of the parent counts as running in this thread of the child only for the parent.
                    thread = threading.Thread(target=lambda: done.append(asyncio.run(in_child())))
                    done = []
                    thread.start()
                    thread.join(30)
                    code = 0 if done == [None] else 2
                finally:
                    os._exit(code)

            asyncio.run(main())
        """
    )
