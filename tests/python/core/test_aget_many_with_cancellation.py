"""`aget_many_with`: cancellation of waiters and loads."""

import asyncio
import contextlib
import itertools

import pytest
from bulk_load_helpers import GatedLoad, answers, begun, load_all, unexpected
from cached_helpers import run_async, run_ready_tasks

from moka_py import Moka


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_load_is_cancelled_with_its_last_waiter_for_any_of_its_keys(order):
    cache = Moka(100)
    load, own = GatedLoad(), GatedLoad()

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", load), cache.aget_many_with("bc", own), cache.aget_with("a", unexpected)
        )
        for number in order:
            assert load.cancelled == 0
            tasks[number].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tasks[number]
        assert all(task.cancelled() for task in tasks)
        assert (load.cancelled, own.cancelled) == (1, 1)
        load.open.set()
        assert await cache.aget_many_with("ab", load) == answers("a", "b")

    run_async(main)


@pytest.mark.parametrize("spared", range(3))
def test_cancelled_waiters_leave_the_last_one_alone(spared):
    cache = Moka(100)
    load, own = GatedLoad(), GatedLoad()
    expected = [answers("a", "b"), answers("b", "c"), "value of a"]

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", load), cache.aget_many_with("bc", own), cache.aget_with("a", unexpected)
        )
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await run_ready_tasks()
        load.open.set()
        own.open.set()
        assert await tasks[spared] == expected[spared]
        assert load.cancelled == 0

    run_async(main)


def test_call_that_waits_for_its_own_load_is_a_waiter_of_the_other_flights():
    cache = Moka(100)
    load, other = GatedLoad(), GatedLoad()

    async def main():
        first, call = await begun(cache.aget_many_with("a", other), cache.aget_many_with("ab", load))
        first.cancel()
        await asyncio.wait([first])
        assert other.cancelled == 0
        other.open.set()
        load.open.set()
        assert await call == answers("a", "b")

    run_async(main)


def test_call_that_fails_cancels_the_flights_that_it_alone_waits_for():
    cache = Moka(100)
    others = [GatedLoad(), GatedLoad()]
    opened = asyncio.Event()

    async def fail(missing):
        await opened.wait()
        raise LookupError("of load")

    async def main():
        first, second, call = await begun(
            cache.aget_many_with("a", others[0]),
            cache.aget_many_with("b", others[1]),
            cache.aget_many_with("abc", fail),
        )
        first.cancel()
        await asyncio.wait([first])
        opened.set()
        with pytest.raises(LookupError, match="of load"):
            await call
        # It waited for the cleanup.
        assert [other.cancelled for other in others] == [1, 0]
        others[1].open.set()
        assert await second == answers("b")

    run_async(main)


@pytest.mark.parametrize("alone", range(3))
def test_call_that_is_cancelled_while_it_waits_for_others_leaves_them_to_their_waiters(alone):
    cache = Moka(100)
    others = [GatedLoad() for _ in range(3)]

    async def main():
        *firsts, call = await begun(
            *(cache.aget_many_with(key, other) for key, other in zip("abc", others, strict=True)),
            cache.aget_many_with("abcd", load_all),
        )
        firsts[alone].cancel()
        await asyncio.wait([firsts[alone]])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [other.cancelled for other in others] == [number == alone for number in range(3)]
        for other in others:
            other.open.set()
        assert [await task for number, task in enumerate(firsts) if number != alone] == [
            answers(key) for number, key in enumerate("abc") if number != alone
        ]

    run_async(main)


def test_load_that_suppresses_its_cancellation_answers_the_last_waiter():
    cache = Moka(100)

    async def load(missing):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return answers(*missing)

    async def main():
        (call,) = await begun(cache.aget_many_with("ab", load))
        call.cancel()
        assert await call == answers("a", "b")

    run_async(main)
