"""Helpers that the tests of `get_many_with` and `aget_many_with` share."""

import asyncio

import pytest
from cached_helpers import run_ready_tasks


class GatedLoad:
    """A bulk loader whose runs wait until `open` is set. It records the keys of each run, and counts cancelled runs.

    It has an answer for each key but `without`.
    """

    def __init__(self, without=()):
        self.open = asyncio.Event()
        self.runs = []
        self.without = without
        self.cancelled = 0

    async def __call__(self, missing):
        self.runs.append(list(missing))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return {key: f"value of {key}" for key in missing if key not in self.without}


def answers(*keys):
    return {key: f"value of {key}" for key in keys}


async def load_all(missing):
    await asyncio.sleep(0)
    return answers(*missing)


async def unexpected(missing):
    raise AssertionError(missing)


async def begun(*calls):
    """Return tasks of the calls, each of which has begun and waits."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await run_ready_tasks()
    return tasks


class Load:
    """A load that answers with `values`, and records the lists that it was called with."""

    def __init__(self, values=None):
        self.values = values
        self.calls = []

    def __call__(self, missing):
        self.calls.append(missing)
        return {key: f"value of {key}" for key in missing} if self.values is None else self.values


def must_not_load(missing):
    pytest.fail(f"loaded {missing}")
