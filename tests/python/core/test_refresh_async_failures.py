"""`refresh` in coroutines: failures, cancellations and interrupts."""

import asyncio
import itertools

import pytest
from cached_helpers import finish, run_async, run_ready_tasks
from helpers import assert_copies_of_exception
from refresh_async_helpers import (
    NANOSECOND,
    REFRESH,
    Caller,
    Loader,
    every_kind_of_call,
    every_kind_of_shared_call,
    until_idle,
)

from moka_py import Moka, cached


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
def test_failing_refresh_past_the_ttl_raises_copies_in_the_calls_that_wait_for_it(kind, clock, unraisable_reports):
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
        assert [exception for exception, _ in unraisable_reports] == [error]

    run_async(main)


@every_kind_of_call
def test_without_a_ttl_the_old_value_stays_until_a_refresh_succeeds(kind, clock, unraisable_reports):
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
        assert len(unraisable_reports) == 3

    run_async(main)


@every_kind_of_call
def test_failure_keeps_the_old_value_and_is_tried_again_a_tenth_of_refresh_later(kind, clock, unraisable_reports):
    error = LookupError("of the refresh")
    loader = Loader(error)

    async def main():
        caller = Caller(kind, loader)
        await caller.call()
        clock.advance(2 * REFRESH)
        assert await caller.call() == 1
        await until_idle(loader)
        assert [exception for exception, _ in unraisable_reports] == [error]
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


def test_report_of_a_failure_names_the_function_of_the_user(clock, unraisable_reports):
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
        assert [reported for _, reported in unraisable_reports] == [fail, fail]

    run_async(main)


@pytest.mark.parametrize("what", ["weigher", "ttl", "no awaitable"])
def test_failure_of_the_users_other_functions_is_a_failure_of_the_refresh(what, clock, unraisable_reports):
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
        ((error, _),) = unraisable_reports
        assert type(error) is (TypeError if what == "no awaitable" else ValueError)
        assert await cache.aget_with("a", value) == cache["a"] == 1
        assert cache.stats().load_failures == 1

    run_async(main)


@every_kind_of_call
def test_cancellation_ends_the_refresh_and_is_no_failure(kind, clock, unraisable_reports):
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
        assert (caller.cache.stats().load_failures, unraisable_reports) == (0, [])
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
def test_interrupt_leaves_the_event_loop_and_is_no_failure(kind, error, clock, unraisable_reports):
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
    assert (caller.cache.stats().load_failures, unraisable_reports) == (0, [])

    async def again():
        assert await caller.call() == 1
        await run_ready_tasks()
        assert await caller.call() == 3

    run_async(again)
