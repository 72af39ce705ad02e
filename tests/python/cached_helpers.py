"""Helpers that the tests of `cached` share."""

import asyncio
import gc
import types

import pytest

from moka_py import Moka, cached

both_wait_modes = pytest.mark.parametrize("wait", [False, True], ids=["alone", "shared"])


def recording_function(**options):
    """Return a cached function that returns a new object per run, and the list of the arguments of its runs."""
    runs = []

    @cached(**options)
    def function(*args, **kwargs):
        runs.append((args, kwargs))
        return object()

    return function, runs


def run_async(main):
    """Run a coroutine function in a new event loop, and fail if the exception handler of the loop was called."""
    errors = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        result = await asyncio.wait_for(main(), 60)
        gc.collect()  # This reports coroutines and exceptions that were never awaited or retrieved.
        await asyncio.sleep(0)
        return result

    result = asyncio.run(watched())
    assert errors == []
    return result


async def run_ready_tasks():
    """Let every task run that waits for no timer."""
    for _ in range(20):
        await asyncio.sleep(0)


class GatedFunction:
    """A cached function whose runs wait until `open` is set. It counts started and cancelled runs."""

    def __init__(self, **options):
        self.open = asyncio.Event()
        self.started = self.cancelled = 0
        self.cached = cached(**{"wait_concurrent": True, **options})(self.function)

    async def function(self, x):
        self.started += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return object()

    async def waiters(self, count, x=1):
        tasks = [asyncio.create_task(self.cached(x)) for _ in range(count)]
        await run_ready_tasks()
        return tasks


@types.coroutine
def pause(value=None):
    """Yield a value, and return the value that is sent."""
    return (yield value)


@cached
async def async_identity(x):
    return x


def finish(call):
    """Return the result of a call that waits for nothing."""
    with pytest.raises(StopIteration) as stopped:
        call.send(None)
    return stopped.value.value


class GatedInitializer:
    """A cache, and an initializer whose runs wait until `open` is set. It counts started and cancelled runs."""

    def __init__(self, **options):
        self.open = asyncio.Event()
        self.started = self.cancelled = 0
        self.cache = Moka(100, **options)

    async def initializer(self):
        self.started += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return object()

    def load(self, key=1, **lifetime):
        """Return a coroutine that loads a key."""
        return self.cache.aget_with(key, self.initializer, **lifetime)

    async def waiters(self, count, key=1):
        """Return tasks that load a key, after all of them have begun."""
        tasks = [asyncio.create_task(self.load(key)) for _ in range(count)]
        await run_ready_tasks()
        return tasks
