"""What the tests of `cached` share."""

import asyncio
import gc
import threading

import pytest

from moka_py import cached

WAIT = pytest.mark.parametrize("wait", [False, True], ids=["alone", "shared"])


def recorded(**options):
    """A cached function of any arguments that returns a new object a run, and the list of its runs."""
    runs = []

    @cached(**options)
    def function(*args, **kwargs):
        runs.append((args, kwargs))
        return object()

    return function, runs


def at_once(count, call):
    """Runs `call(number)` in threads that start together; their results or exceptions, in order of number."""
    barrier = threading.Barrier(count)
    outcomes = [None] * count

    def run(number):
        barrier.wait(30)
        try:
            outcomes[number] = call(number)
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a call hangs"
    return outcomes


def run(main):
    """Runs a coroutine function in a fresh loop and fails if the loop's exception handler was told anything."""
    told = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        result = await asyncio.wait_for(main(), 60)
        gc.collect()  # what was never awaited or retrieved is told here
        await asyncio.sleep(0)
        return result

    result = asyncio.run(watched())
    assert told == []
    return result


async def settle():
    """Lets all that can go on without the clock go on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Gate:
    """A cached function whose runs wait until `open` is set; it counts what became of them."""

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
        await settle()
        return tasks
