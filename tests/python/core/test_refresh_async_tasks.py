"""The task that computes a `refresh`: its references in both directions, and calls without a task."""

import asyncio
import contextvars
import gc
import itertools
import sys
import threading
import weakref

import pytest
from cached_helpers import finish, run_async, run_ready_tasks
from refresh_async_helpers import REFRESH, Caller, Loader, every_kind_of_call, until_idle

from moka_py import Moka, cached


@every_kind_of_call
def test_task_sees_the_context_variables_of_the_caller(kind, clock):
    name = contextvars.ContextVar("name", default="none")

    async def load(key):
        await asyncio.sleep(0)
        return name.get()

    async def call(caller, text):
        name.set(text)
        return await caller.call()

    async def main():
        caller = Caller(kind, load)
        await asyncio.create_task(call(caller, "first"))
        clock.advance(2 * REFRESH)
        assert await asyncio.create_task(call(caller, "second")) == "first"
        await run_ready_tasks()
        assert await caller.call() == "second"

    run_async(main)


@every_kind_of_call
def test_task_is_held_until_it_is_done(kind, clock):
    futures = []

    async def load(key):
        if not runs:
            runs.append("first")
            return 1
        future = asyncio.get_running_loop().create_future()
        # Only this frame and the task refer to the future.
        futures.append(weakref.ref(future))
        return await future

    runs = []

    async def main():
        caller = Caller(kind, load)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        gc.collect()
        futures[0]().set_result("new")
        await run_ready_tasks()
        assert await caller.call() == "new"

    run_async(main)


@every_kind_of_call
def test_task_leaves_nothing_behind(kind, clock):
    class Failure(Exception):
        pass

    tasks = []

    async def load(key):
        tasks.append(weakref.ref(asyncio.current_task()))
        await asyncio.sleep(0)
        if len(tasks) == 3:
            raise Failure
        return len(tasks)

    async def main():
        caller = Caller(kind, load)
        for _ in range(4):
            await caller.call()
            await run_ready_tasks()
            clock.advance(2 * REFRESH)
        gc.collect()
        assert [task() for task in tasks[1:]] == [None] * 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda report: None)
        run_async(main)


@every_kind_of_call
def test_executor_is_not_asked_and_no_thread_starts(kind, clock):
    class Executor:
        def submit(self, job):
            raise AssertionError("not for coroutines")

    loader = Loader()

    async def main():
        caller = Caller(kind, loader, executor=Executor())
        await caller.call()
        threads = threading.enumerate()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await until_idle(loader)
        assert await caller.call() == 2
        assert threading.enumerate() == threads

    run_async(main)


@every_kind_of_call
def test_under_trio_the_call_computes_itself(kind, clock, unraisable_reports):
    trio = pytest.importorskip("trio")
    error = LookupError("of the refresh")
    outcomes = [1, 2, error, error]

    async def load(key):
        await trio.lowlevel.checkpoint()
        outcome = outcomes.pop(0)
        if outcome is error:
            if not outcomes:
                clock.advance(100)
            raise outcome
        return outcome

    async def main():
        caller = Caller(kind, load, ttl=100)
        if kind == "cached":
            assert await caller.call() == 1
        else:
            caller.cache.set("a", outcomes.pop(0))
        clock.advance(2 * REFRESH)
        assert await caller.call() == 2
        clock.advance(2 * REFRESH)
        # It fails, and the old value has not passed its deadline.
        assert await caller.call() == 2
        assert unraisable_reports == [(error, caller.load if kind != "aget_with" else unraisable_reports[0][1])]
        clock.advance(2 * REFRESH)
        # It fails, and the old value passes its deadline meanwhile.
        with pytest.raises(LookupError) as raised:
            await caller.call()
        assert raised.value is error and len(unraisable_reports) == 1
        stats = caller.cache.stats()
        assert (stats.refreshes, stats.load_failures) == (3, 2)

    trio.run(main)


@every_kind_of_call
def test_under_trio_other_calls_get_the_old_value_and_a_cancellation_ends_the_refresh(kind, clock, unraisable_reports):
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    async def load(key):
        starts.append(key)
        await trio.sleep_forever()

    starts = []

    async def main():
        caller = Caller(kind, load)
        caller.cache.set("a", 1)
        clock.advance(2 * REFRESH)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call)
            await testing.wait_all_tasks_blocked()
            assert await caller.call() == 1
            assert starts == ["a"]
            nursery.cancel_scope.cancel()
        with trio.CancelScope() as scope:
            scope.cancel()
            await caller.call()
        assert scope.cancelled_caught and starts == ["a", "a"]
        stats = caller.cache.stats()
        assert (stats.load_failures, unraisable_reports) == (0, [])

    trio.run(main)


def test_in_a_callback_of_asyncio_the_call_computes_itself(clock):
    """There is no task which could begin another, as in a trio loop that runs as a guest."""

    async def load():
        return next(numbers)

    numbers = itertools.count(1)

    async def main():
        cache = Moka(10, refresh=REFRESH)
        assert await cache.aget_with("a", load) == 1
        clock.advance(2 * REFRESH)
        result = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: result.set_result(finish(cache.aget_with("a", load))))
        assert await result == 2

    run_async(main)


def test_uvloop_computes_in_a_task_that_it_holds(clock):
    uvloop = pytest.importorskip("uvloop")
    loader = Loader()

    async def main():
        caller = Caller("aget_with", loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert finish(caller.call()) == 1
        await run_ready_tasks()
        gc.collect()
        await until_idle(loader)
        assert await caller.call() == 2

    uvloop.run(main())


def test_eager_tasks_compute_in_a_task(clock):
    loader = Loader()

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        caller = Caller("aget_with", loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await asyncio.gather(*(caller.call() for _ in range(10))) == [1] * 10
        await until_idle(loader)
        assert await caller.call() == 2 and loader.started == 2

    run_async(main)


@pytest.mark.parametrize("wait", [False, True], ids=["alone", "shared"])
def test_weak_self_instance_is_held_while_its_refresh_runs(wait, clock):
    opened = []

    class Report:
        @cached(weak_self=True, refresh=REFRESH, wait_concurrent=wait)
        async def total(self, factor):
            if not opened:
                opened.append(asyncio.Event())
                return 1
            await opened[0].wait()
            return 2

    async def main():
        report = Report()
        assert await report.total(1) == 1
        clock.advance(2 * REFRESH)
        assert await report.total(1) == 1
        await run_ready_tasks()
        reference = weakref.ref(report)
        del report
        gc.collect()
        assert reference() is not None
        opened[0].set()
        await run_ready_tasks()
        gc.collect()
        assert reference() is None
        assert Report.total.cache.count() == 0

    run_async(main)


def test_dropped_cache_lives_until_its_refresh_ends(clock):
    loader = Loader()

    async def main():
        caller = Caller("aget_with", loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        reference = weakref.ref(caller.cache)
        del caller
        gc.collect()
        assert reference() is not None
        await until_idle(loader)
        gc.collect()
        assert reference() is None

    run_async(main)
