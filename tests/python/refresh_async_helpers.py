"""Helpers that the tests of `refresh` in coroutines share: a call of each kind, and a loader."""

import asyncio
import functools

import pytest
from cached_helpers import run_ready_tasks

from moka_py import Moka, cached

REFRESH = 10


NANOSECOND = 1e-9


every_kind_of_call = pytest.mark.parametrize("kind", ["aget_with", "cached", "cached, shared"])


every_kind_of_shared_call = pytest.mark.parametrize("kind", ["aget_with", "cached, shared"])


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
