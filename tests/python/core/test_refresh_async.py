"""`refresh` in coroutines: calls get the old value while one task computes, and later writes win."""

import asyncio
import functools

import pytest
from cached_helpers import finish, run_async, run_ready_tasks
from helpers import CallbackKey, Events
from refresh_async_helpers import (
    NANOSECOND,
    REFRESH,
    Caller,
    Loader,
    every_kind_of_call,
    every_kind_of_shared_call,
    until_idle,
)

from moka_py import Moka

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
