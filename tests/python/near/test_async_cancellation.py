"""Cancelled calls of coroutines, and their effects on others."""

import asyncio
import itertools

import pytest
from near.async_caches import RUNNERS, Load, caught, open_near_cache, runner, settled, stop_answering, turns, until
from near.near_caches import is_lease, payload

from moka_py.near import _async_driver
from moka_py.near._lease import RELEASE, REPLACE

OTHER_LEASE = b"\xc1mk?" + b"0123456789abcdef"


@pytest.fixture(params=RUNNERS)
def run(request):
    return runner(request.param)


@pytest.fixture
def opened(server, make_async_client, manual_clock, paced):
    """Return a function that makes a near cache for an `async with` block."""
    return lambda **options: open_near_cache(make_async_client(server), **options)


def read(server, key="k"):
    return server.do("GET", f"n:{key}")


ORDERS = [order for number in (1, 2, 3) for order in itertools.permutations(range(3), number)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_load_goes_on_until_its_last_call_is_cancelled(opened, server, order):
    async def main():
        async with opened() as cache:
            load = Load()
            # Without a lease, whose own report would keep the later calls from joining.
            calls = [asyncio.create_task(cache.get_with("k", load, across=False)) for _ in range(3)]
            await load.began.wait()
            for index in order:
                assert load.cancelled == 0
                calls[index].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calls[index]
            assert load.cancelled == (len(order) == 3)
            load.go_on.set()
            for index, call in enumerate(calls):
                if index not in order:
                    assert await call == "loaded"
            assert load.runs == 1
            assert read(server) == (None if len(order) == 3 else payload('"loaded"'))
            # A later call begins anew, or finds the value.
            assert await cache.get_with("k", load, across=False) == "loaded"
            assert load.runs == (2 if len(order) == 3 else 1)

    asyncio.run(main())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_fetch_goes_on_until_its_last_call_is_cancelled(opened, server, order):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload("1"))
            await settled(cache, server)
            with server.hold("GET", "n:k") as hold:
                calls = [asyncio.create_task(cache.get("k")) for _ in range(3)]
                await caught(hold)
                for index in order:
                    calls[index].cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await calls[index]
                hold.release()
                for index, call in enumerate(calls):
                    if index not in order:
                        assert await call == 1
            # The client serves later calls.
            assert await cache.get("k") == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["coherent", "incoherent", "fresh"])
def test_a_cancelled_call_frees_its_lease_and_waits_for_the_cleanup(run, opened, server, manual_clock, kind):
    async def main():
        async with opened() as cache:
            pings = stop_answering(server, manual_clock) if kind == "incoherent" else None
            cleaned = []
            began, may_end = asyncio.Event(), asyncio.Event()

            async def load():
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    await may_end.wait()
                    cleaned.append(1)

            call = asyncio.create_task(cache.get_with("k", load, fresh=kind == "fresh"))
            await began.wait()
            assert is_lease(read(server))
            call.cancel()
            await turns()
            assert not call.done()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert cleaned == [1]
            assert read(server) is None
            if pings is not None:
                pings.release()

    run(main())


def test_a_waiter_tries_when_the_holder_of_the_lease_was_cancelled(run, opened, server):
    async def main():
        async with opened() as cache:
            first, second = Load("first"), Load("second")
            holder = asyncio.create_task(cache.get_with("k", first))
            await first.began.wait()
            # The report of the lease has come, so no call joins.
            await settled(cache, server)
            waiter = asyncio.create_task(cache.get_with("k", second))
            await until(lambda: cache.stats().lease_waits == 1)
            holder.cancel()
            second.go_on.set()
            assert await waiter == "second"
            assert (first.cancelled, cache.stats().lease_takeovers) == (1, 1)
            with pytest.raises(asyncio.CancelledError):
                await holder

    run(main())


def test_a_silent_server_does_not_hold_a_cancelled_call(run, opened, server, monkeypatch):
    monkeypatch.setattr(_async_driver, "CLEANUP_SECONDS", 0.01)

    async def main():
        async with opened() as cache:
            load = Load()
            with server.hold("EVALSHA", RELEASE.digest) as hold:
                call = asyncio.create_task(cache.get_with("k", load))
                await load.began.wait()
                call.cancel()
                await asyncio.wait([call], timeout=30)
                assert call.cancelled()
                await caught(hold)
            # The lease ends by itself.
            assert is_lease(read(server))

    run(main())


def test_a_call_that_is_cancelled_while_it_waits_for_a_lease_leaves_nothing(run, opened, server):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", OTHER_LEASE, "PX", 30_000)
            load = Load()
            call = asyncio.create_task(cache.get_with("k", load))
            await until(lambda: cache.stats().lease_waits == 1)
            await turns()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert load.runs == 0
            assert cache._tier._watches == {}
            assert read(server) == OTHER_LEASE

    run(main())


WRITES = {
    "set": lambda cache: cache.set("k", "new"),
    "set_many": lambda cache: cache.set_many({"k": "new"}),
    "remove": lambda cache: cache.remove("k"),
}


@pytest.mark.parametrize("name", WRITES)
def test_after_a_cancelled_write_no_call_returns_an_older_value(run, opened, server, name):
    command = "DEL" if name == "remove" else "SET"

    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload('"old"'))
            await settled(cache, server)
            assert await cache.get("k") == "old"
            server.hold_pushes()
            with server.hold(command, "n:k") as hold:
                call = asyncio.create_task(WRITES[name](cache))
                await caught(hold)
                hold.execute()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await cache.get("k") == (None if name == "remove" else "new")
            server.release_pushes()

    run(main())


async def time_out_when(reached, call):
    """Await a call with a timeout, whose time comes when the awaitable `reached` ends."""

    async def expire(timeout):
        await reached
        timeout.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as timeout:
        expiry = asyncio.create_task(expire(timeout))
        await call
    await expiry


def test_timeouts_end_calls(run, opened, server):
    async def main():
        async with opened() as cache:
            load = Load()
            with pytest.raises(TimeoutError):
                await time_out_when(load.began.wait(), cache.get_with("k", load))
            assert read(server) is None
            with server.hold("GET", "n:k") as hold:
                with pytest.raises(TimeoutError):
                    await time_out_when(caught(hold), cache.get("k"))
            assert await cache.get("k") is None

    run(main())


async def cancel_in_request(call, server, hold, *, is_executed):
    """Cancel a call, which has a lease, in the request that the hold stops: before or after the server executes it."""
    task = asyncio.create_task(call)
    await caught(hold)
    if is_executed:
        hold.execute()
    assert is_lease(read(server))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert read(server) is None


def test_a_call_that_is_cancelled_while_it_asks_for_a_lease_leaves_none(run, opened, server):
    async def main():
        async with opened() as cache:
            load = Load()
            with server.hold("SET", "n:k") as hold:
                await cancel_in_request(cache.get_with("k", load), server, hold, is_executed=True)
            assert load.runs == 0

    run(main())


def test_a_call_that_is_cancelled_while_it_stores_its_value_leaves_no_lease(run, opened, server):
    async def main():
        async with opened() as cache:
            load = Load()
            load.go_on.set()
            with server.hold("EVALSHA", REPLACE.digest) as hold:
                await cancel_in_request(cache.get_with("k", load), server, hold, is_executed=False)
            assert load.runs == 1

    run(main())


def test_an_initializer_that_cancels_its_own_task_cancels_the_call(opened, server):
    async def main():
        async with opened() as cache:

            async def load():
                raise asyncio.CancelledError("stop")

            with pytest.raises(asyncio.CancelledError):
                await cache.get_with("k", load)
            assert read(server) is None

    asyncio.run(main())
