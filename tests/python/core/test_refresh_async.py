"""`refresh` in coroutines: who computes, tasks, event loops, cancellation, failures."""

import asyncio
import contextvars
import functools
import gc
import itertools
import os
import sys
import threading
import weakref

import pytest
from cached_helpers import finish, run_async, run_ready_tasks
from helpers import CallbackKey, Events, assert_copies_of_exception, run_script, run_threads

from moka_py import Moka, cached
from moka_py.testing import ManualClock

REFRESH = 10
NANOSECOND = 1e-9

every_kind_of_call = pytest.mark.parametrize("kind", ["aget_with", "cached", "cached, shared"])
every_kind_of_shared_call = pytest.mark.parametrize("kind", ["aget_with", "cached, shared"])


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def unraisable(monkeypatch):
    """The failures that went to `sys.unraisablehook`: pairs of exception and object."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append((report.exc_value, report.object)))
    return reported


class Caller:
    """A cache, and calls of coroutines of one kind. The key of a call is its argument."""

    def __init__(self, kind, load, **options):
        options = {"refresh": REFRESH, **options}
        self.load = load
        if kind == "aget_with":
            self.cache = Moka(100, **options)
            self.call = lambda key="a": self.cache.aget_with(key, functools.partial(load, key))
        else:
            function = cached(100, wait_concurrent=kind == "cached, shared", **options)(load)
            self.cache = function.cache
            self.call = lambda key="a": function(key)

    async def begun(self, count):
        """Return tasks that call, each of which has begun."""
        tasks = [asyncio.create_task(self.call()) for _ in range(count)]
        await run_ready_tasks()
        return tasks


class Loader:
    """A loader that returns 1, 2, 3 and so on. From the second run on, a run waits until `open` is set.

    It can be told to raise an error in place of a result.
    """

    def __init__(self, error=None):
        self.open = asyncio.Event()
        self.error = error
        self.started = self.cancelled = 0

    async def __call__(self, key=None):
        self.started += 1
        number = self.started
        if number > 1:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.error is not None:
                raise self.error
        return number


async def until_idle(loader):
    """Let the runs of a loader end."""
    loader.open.set()
    await run_ready_tasks()
    loader.open.clear()


# When and what.


@every_kind_of_call
def test_call_gets_the_old_value_without_suspending_and_one_task_computes(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        assert await caller.call() == 1
        clock.advance(REFRESH)
        assert finish(caller.call()) == 1
        await run_ready_tasks()
        assert loader.started == 1
        clock.advance(NANOSECOND)
        for _ in range(5):
            assert finish(caller.call()) == 1
        await run_ready_tasks()
        assert loader.started == 2
        await until_idle(loader)
        assert finish(caller.call()) == 2
        clock.advance(REFRESH + NANOSECOND)
        assert finish(caller.call()) == 2
        await until_idle(loader)
        assert finish(caller.call()) == 3

    run_async(main)


def test_get_and_the_like_never_begin_a_refresh(clock):
    loader = Loader()

    async def main():
        caller = Caller("aget_with", loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert caller.cache.get("a") == caller.cache["a"] == caller.cache.peek("a") == 1
        assert caller.cache.get_many(["a"]) == {"a": 1}
        assert await caller.cache.aget_many_with(["a"], loader) == {"a": 1}
        await run_ready_tasks()
        assert loader.started == 1

    run_async(main)


@every_kind_of_call
def test_a_thousand_callers_begin_one_refresh(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await asyncio.gather(*(caller.call() for _ in range(1000))) == [1] * 1000
        await run_ready_tasks()
        assert loader.started == 2
        await until_idle(loader)
        assert finish(caller.call()) == 2
        stats = caller.cache.stats()
        assert (stats.hits, stats.misses, stats.loads, stats.refreshes) == (1001, 1, 2, 1)

    run_async(main)


def test_refresh_uses_initializer_ttl_and_tti_of_the_call_that_noticed(clock):
    async def value(text):
        return text

    async def main():
        cache = Moka(100, refresh=REFRESH)
        await cache.aget_with("a", functools.partial(value, "first"), ttl=100)
        clock.advance(2 * REFRESH)
        assert await cache.aget_with("a", functools.partial(value, "second"), ttl=50, tti=40) == "first"
        assert await cache.aget_with("a", functools.partial(value, "third"), ttl=1) == "first"
        await run_ready_tasks()
        assert cache.peek("a") == "second"
        assert cache.expires_in("a") == 40
        clock.advance(2 * REFRESH)
        assert (
            await cache.aget_with("a", functools.partial(value, "fourth"), ttl=lambda key, value: len(value))
            == "second"
        )
        await run_ready_tasks()
        assert cache.peek("a") == "fourth"
        assert cache.expires_in("a") == 6

    run_async(main)


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
def test_key_with_equality_of_its_own_is_refreshed(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call(CallbackKey("a"))
        clock.advance(2 * REFRESH)
        assert await caller.call(CallbackKey("a")) == 1
        await until_idle(loader)
        assert await caller.call(CallbackKey("a")) == 2

    run_async(main)


@every_kind_of_call
def test_function_that_asks_for_its_own_key_gets_the_old_value(kind, clock):
    async def load(key):
        await asyncio.sleep(0)
        runs.append(await caller.call() if runs else "first")
        return len(runs)

    runs = []
    caller = Caller(kind, load)

    async def main():
        assert await caller.call() == 1
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await run_ready_tasks()
        assert runs == ["first", 1] and await caller.call() == 2

    run_async(main)


# Who computes.


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
def test_under_trio_the_call_computes_itself(kind, clock, unraisable):
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
        assert unraisable == [(error, caller.load if kind != "aget_with" else unraisable[0][1])]
        clock.advance(2 * REFRESH)
        # It fails, and the old value passes its deadline meanwhile.
        with pytest.raises(LookupError) as raised:
            await caller.call()
        assert raised.value is error and len(unraisable) == 1
        stats = caller.cache.stats()
        assert (stats.refreshes, stats.load_failures) == (3, 2)

    trio.run(main)


@every_kind_of_call
def test_under_trio_other_calls_get_the_old_value_and_a_cancellation_ends_the_refresh(kind, clock, unraisable):
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
        assert (stats.load_failures, unraisable) == (0, [])

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


# `ttl` stays the hard end.


@every_kind_of_shared_call
def test_calls_join_a_refresh_that_hangs_past_the_ttl(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader, ttl=100)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        clock.advance(100)
        tasks = await caller.begun(1000)
        assert not any(task.done() for task in tasks)
        await until_idle(loader)
        assert await asyncio.gather(*tasks) == [2] * 1000
        assert loader.started == 2
        assert caller.cache.stats().loads == 2

    run_async(main)


def test_separate_call_computes_for_itself_once_the_old_value_has_expired(clock):
    loader = Loader()

    async def main():
        caller = Caller("cached", loader, ttl=100)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        clock.advance(100)
        (task,) = await caller.begun(1)
        assert loader.started == 3
        await until_idle(loader)
        assert await task == 3

    run_async(main)


@every_kind_of_shared_call
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_cancelled_waiters_of_a_refresh_do_not_cancel_it(kind, order, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader, ttl=100)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        clock.advance(100)
        tasks = await caller.begun(3)
        for number in order:
            tasks[number].cancel()
            await asyncio.wait([tasks[number]])
        assert all(task.cancelled() for task in tasks)
        await until_idle(loader)
        assert (loader.started, loader.cancelled) == (2, 0)
        assert caller.cache.peek(next(iter(caller.cache))) == 2

    run_async(main)


@every_kind_of_shared_call
def test_failing_refresh_past_the_ttl_raises_copies_in_the_calls_that_wait_for_it(kind, clock, unraisable):
    error = LookupError("of the refresh")
    loader = Loader(error)

    async def main():
        caller = Caller(kind, loader, ttl=100)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        clock.advance(100)
        tasks = await caller.begun(3)
        await until_idle(loader)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert_copies_of_exception(error, outcomes)
        assert [exception for exception, _ in unraisable] == [error]

    run_async(main)


@every_kind_of_call
def test_without_a_ttl_the_old_value_stays_until_a_refresh_succeeds(kind, clock, unraisable):
    error = LookupError("of the refresh")
    loader = Loader(error)

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        for _ in range(3):
            clock.advance(1000 * REFRESH)
            assert await caller.call() == 1
            await until_idle(loader)
        loader.error = None
        clock.advance(1000 * REFRESH)
        assert await caller.call() == 1
        await until_idle(loader)
        assert await caller.call() == 5
        assert len(unraisable) == 3

    run_async(main)


# Failures and cancellations.


@every_kind_of_call
def test_failure_keeps_the_old_value_and_is_tried_again_a_tenth_of_refresh_later(kind, clock, unraisable):
    error = LookupError("of the refresh")
    loader = Loader(error)

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await until_idle(loader)
        assert [exception for exception, _ in unraisable] == [error]
        assert caller.cache.stats().load_failures == 1
        clock.advance(REFRESH / 10 - NANOSECOND)
        assert await caller.call() == 1
        await until_idle(loader)
        assert loader.started == 2
        clock.advance(NANOSECOND)
        assert await caller.call() == 1
        await until_idle(loader)
        assert loader.started == 3

    run_async(main)


def test_report_of_a_failure_names_the_function_of_the_user(clock, unraisable):
    async def fail(key=None):
        raise LookupError("of the refresh")

    function = cached(refresh=REFRESH)(fail)

    async def main():
        cache = Moka(10, refresh=REFRESH)
        cache.set("a", 1)
        function.cache_set(1, "a")
        clock.advance(2 * REFRESH)
        assert await cache.aget_with("a", fail) == await function("a") == 1
        await run_ready_tasks()
        assert [reported for _, reported in unraisable] == [fail, fail]

    run_async(main)


@pytest.mark.parametrize("what", ["weigher", "ttl", "no awaitable"])
def test_failure_of_the_users_other_functions_is_a_failure_of_the_refresh(what, clock, unraisable):
    def measure(key, value):
        if value == 2:
            raise ValueError("of the function")
        return 1000

    async def value():
        return 2

    options = {} if what == "no awaitable" else {what: measure}

    async def main():
        cache = Moka(10_000, refresh=REFRESH, **options)
        cache.set("a", 1)
        clock.advance(2 * REFRESH)
        assert await cache.aget_with("a", (lambda: 5) if what == "no awaitable" else value) == 1
        await run_ready_tasks()
        ((error, _),) = unraisable
        assert type(error) is (TypeError if what == "no awaitable" else ValueError)
        assert await cache.aget_with("a", value) == cache["a"] == 1
        assert cache.stats().load_failures == 1

    run_async(main)


@every_kind_of_call
def test_cancellation_ends_the_refresh_and_is_no_failure(kind, clock, unraisable):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        before = asyncio.all_tasks()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await run_ready_tasks()
        (task,) = asyncio.all_tasks() - before
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and loader.cancelled == 1
        assert (caller.cache.stats().load_failures, unraisable) == (0, [])
        # The next call begins another.
        assert await caller.call() == 1
        await until_idle(loader)
        assert loader.started == 3 and await caller.call() == 3

    run_async(main)


@every_kind_of_call
def test_cancellation_before_the_task_begins_ends_the_refresh(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        before = asyncio.all_tasks()
        clock.advance(2 * REFRESH)
        finish(caller.call())
        (task,) = asyncio.all_tasks() - before
        task.cancel()
        await asyncio.wait([task])
        del task
        assert (loader.started, caller.cache.stats().load_failures) == (1, 0)
        assert await caller.call() == 1
        await until_idle(loader)
        assert loader.started == 2 and await caller.call() == 2

    run_async(main)


@every_kind_of_call
def test_end_of_asyncio_run_cancels_a_refresh(kind, clock):
    loaders = []

    async def main():
        loaders.append(Loader())
        caller = Caller(kind, loaders[0])
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        return caller

    caller = asyncio.run(main())
    assert loaders[0].cancelled == 1
    assert caller.cache.stats().load_failures == 0


@every_kind_of_call
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_leaves_the_event_loop_and_is_no_failure(kind, error, clock, unraisable):
    runs = []

    async def load(key):
        runs.append(key)
        if len(runs) == 2:
            raise error("in the refresh")
        return len(runs)

    caller = Caller(kind, load)

    async def main():
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await run_ready_tasks()

    with pytest.raises(error, match="in the refresh"):
        asyncio.run(main())
    assert (caller.cache.stats().load_failures, unraisable) == (0, [])

    async def again():
        assert await caller.call() == 1
        await run_ready_tasks()
        assert await caller.call() == 3

    run_async(again)


# Success.


@every_kind_of_call
def test_success_is_a_set_for_deadlines_and_listener(kind, clock):
    events = Events()
    loader = Loader()

    async def main():
        # `cached` takes no listener.
        options = {"eviction_listener": events} if kind == "aget_with" else {}
        caller = Caller(kind, loader, ttl=100, **options)
        await caller.call()
        clock.advance(60)
        await caller.call()
        clock.advance(20)
        await until_idle(loader)
        (key,) = caller.cache
        assert caller.cache.expires_in(key) == 100
        if kind == "aget_with":
            assert events == [("a", 1, "replaced")]
        stats = caller.cache.stats()
        assert (stats.hits, stats.misses, stats.loads, stats.refreshes) == (1, 1, 2, 1)
        assert stats.replacements == 1

    run_async(main)


WRITES = {
    "set": (lambda cache, key: cache.set(key, "new"), ["new"]),
    "remove": (lambda cache, key: cache.remove(key), []),
    "clear": (lambda cache, key: cache.clear(), []),
}


@every_kind_of_call
@pytest.mark.parametrize(("write", "after"), WRITES.values(), ids=WRITES)
def test_write_during_a_refresh_wins(kind, write, after, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        (key,) = caller.cache
        write(caller.cache, key)
        await until_idle(loader)
        assert list(caller.cache.values()) == after

    run_async(main)


@every_kind_of_shared_call
def test_call_after_a_removal_does_not_join_a_refresh_from_before_it(kind, clock):
    loader = Loader()

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        await caller.call()
        await run_ready_tasks()
        caller.cache.remove(next(iter(caller.cache)))
        (task,) = await caller.begun(1)
        assert loader.started == 3
        await until_idle(loader)
        assert await task == await caller.call() == 3

    run_async(main)


# Event loops.


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
def test_refresh_of_an_event_loop_that_is_closed_midway_is_left_to_the_next_call(kind, clock, unraisable):
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
    assert (caller.cache.stats().load_failures, unraisable, reports) == (0, [], [])


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


# `weak_self`.


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
