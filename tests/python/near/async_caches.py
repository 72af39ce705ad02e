"""What the tests of `AsyncNearCache` share: event loops, waits, and coroutines that must not suspend."""

import asyncio
import contextlib
import importlib
import time

import pytest
from near.near_caches import LONG, TIME_LIMIT_SECONDS, WAIT_SECONDS

from moka_py.near import AsyncNearCache


def run_with_asyncio(main):
    """Run a coroutine in a new event loop of asyncio."""
    return asyncio.run(asyncio.wait_for(main, 2 * TIME_LIMIT_SECONDS))


def run_with_uvloop(main):
    """Run a coroutine in a new event loop of uvloop."""
    return importlib.import_module("uvloop").run(asyncio.wait_for(main, 2 * TIME_LIMIT_SECONDS))


RUNNERS = {"asyncio": run_with_asyncio, "uvloop": run_with_uvloop}


def runner(name):
    """Return what runs a coroutine in a new event loop of this kind."""
    if name == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    return RUNNERS[name]


async def until(condition):
    """Wait until a condition holds that another thread or task brings about."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(WAIT_SECONDS)


async def caught(hold):
    """Wait until a command stops in a hold of the scripted server."""
    await until(lambda: hold.is_caught)


async def settled(cache, server, namespace="n"):
    """Wait until the near cache has applied the invalidations of all writes before the call."""
    reports = []
    watch = cache._tier.watch("settled", lambda: reports.append(1))
    server.do("SET", f"{namespace}:settled", b"")
    await until(lambda: reports)
    watch.close()


def outcome_at_once(coroutine):
    """Return the result of a coroutine that must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("the coroutine suspended")


@contextlib.asynccontextmanager
async def open_near_cache(client, namespace="n", **options):
    """Make a near cache that is coherent, and stays so for the time of a test. Close it and the client."""
    async with client, AsyncNearCache(client, namespace, **{"ttl": 300, "max_staleness": LONG, **options}) as cache:
        await until(lambda: cache.is_coherent)
        yield cache


def stop_answering(server, manual_clock):
    """Have the tier pass its deadline, and not become coherent again before the end of the returned hold."""
    hold = server.hold("PING", tracking=True)
    hold.wait()
    manual_clock.advance(7_200)
    return hold


class Load:
    """An initializer that waits until the test lets it go on, and counts its runs."""

    def __init__(self, result="loaded"):
        self.result = result
        self.runs = 0
        self.cancelled = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self):
        self.runs += 1
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


async def turns(number=5):
    """Let the other tasks go on."""
    for _ in range(number):
        await asyncio.sleep(0)
