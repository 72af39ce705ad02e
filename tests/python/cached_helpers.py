"""Helpers that the tests of `cached` share."""

import asyncio
import gc
import inspect
import types
from typing import NamedTuple

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


class Kind(NamedTuple):
    """A kind of cached function."""

    is_async: bool
    is_shared: bool


KINDS = {
    "function": Kind(False, False),
    "shared function": Kind(False, True),
    "coroutine": Kind(True, False),
    "shared coroutine": Kind(True, True),
}


every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def made_function(kind, run, **options):
    """Return a cached function of a kind, of which each run calls `run`."""
    if kind.is_async:

        async def function(*args, **kwargs):
            return run(*args, **kwargs)

    else:

        def function(*args, **kwargs):
            return run(*args, **kwargs)

    return cached(wait_concurrent=kind.is_shared, **options)(function)


def call(function, *args, **kwargs):
    """Return the result of a function, or of the coroutine that it returns."""
    result = function(*args, **kwargs)

    async def await_result():
        return await result

    return asyncio.run(await_result()) if inspect.isawaitable(result) else result


MINUTE = {"errors": LookupError, "error_ttl": 60}
"""The options of a function that keeps such failures for a minute."""


def error_of(function, *args, **kwargs):
    """Return the exception that a call raises, or None."""
    try:
        call(function, *args, **kwargs)
    except BaseException as error:
        return error
    return None


def failing(kind, failures, **options):
    """Return a cached function that raises the first of `failures`, or returns "result" if there is none.

    It also returns the list of the arguments of its runs.
    """
    runs = []

    def run_or_fail(*args, **kwargs):
        runs.append((args, kwargs))
        if failures:
            raise failures[0]
        return "result"

    return made_function(kind, run_or_fail, **{**MINUTE, **options}), runs


class Hostile(type):
    """The metaclass of exceptions that cannot be copied."""

    __mro__ = property()


class NotCopied(LookupError, metaclass=Hostile):
    """A failure that cannot be copied."""


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


def class_with_method(**options):
    """Return a class with a cached method, which returns a new object per run."""

    class Made:
        @cached(weak_self=True, **options)
        def method(self, *args, **kwargs):
            return object()

    return Made
