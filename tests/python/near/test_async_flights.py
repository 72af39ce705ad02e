"""Calls that coroutines of one event loop share."""

import asyncio

import pytest
from near.async_caches import RUNNERS, Load, caught, open_near_cache, runner, settled, stop_answering, turns, until
from near.near_caches import payload

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


# --- Fetches ---


def test_coroutines_share_a_fetch_while_coherent(run, opened, server):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload("[1]"))
            await settled(cache, server)
            with server.hold("GET", "n:k") as hold:
                calls = [asyncio.create_task(cache.get("k")) for _ in range(5)]
                await caught(hold)
                hold.release()
                values = await asyncio.gather(*calls)
            assert values == [[1]] * 5
            assert server.count("GET", "n:k") == 1

    run(main())


def test_with_copy_each_call_that_shares_a_fetch_has_a_value_of_its_own(opened, server):
    async def main():
        async with opened(copy=list) as cache:
            server.do("SET", "n:k", payload("[1]"))
            await settled(cache, server)
            with server.hold("GET", "n:k") as hold:
                calls = [asyncio.create_task(cache.get("k")) for _ in range(2)]
                await caught(hold)
                hold.release()
                one, two = await asyncio.gather(*calls)
            assert one == two == [1]
            assert one is not two

    asyncio.run(main())


@pytest.mark.parametrize("write", ["own", "foreign", "clear_local"])
def test_no_call_joins_a_fetch_that_began_before_a_write(run, opened, server, write):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload('"old"'))
            await settled(cache, server)
            with server.hold("GET", "n:k") as hold:
                before = asyncio.create_task(cache.get("k"))
                await caught(hold)
                hold.execute()
                if write == "own":
                    await cache.set("k", "new")
                else:
                    server.do("SET", "n:k", payload('"new"'))
                    if write == "foreign":
                        await settled(cache, server)
                    else:
                        await cache.clear_local()
                assert await cache.get("k") == "new"
                hold.release()
                assert await before == "old"
            assert await cache.get("k") == "new"

    run(main())


@pytest.mark.parametrize("kind", ["incoherent", "fresh"])
def test_an_incoherent_or_fresh_call_joins_no_fetch(opened, server, manual_clock, kind):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload('"old"'))
            await settled(cache, server)
            with server.hold("GET", "n:k") as hold:
                before = asyncio.create_task(cache.get("k"))
                await caught(hold)
                hold.execute()
                server.hold_pushes()
                server.do("SET", "n:k", payload('"new"'))
                if kind == "incoherent":
                    pings = stop_answering(server, manual_clock)
                    assert await cache.get("k") == "new"
                    pings.release()
                else:
                    assert await cache.get("k", fresh=True) == "new"
                    # No later call returns an older value than a fresh one.
                    assert await cache.get("k") == "new"
                hold.release()
                assert await before == "old"
            server.release_pushes()

    asyncio.run(main())


# --- Loads ---


@pytest.mark.parametrize("across", [True, False])
def test_coroutines_share_a_load(run, opened, across):
    async def main():
        async with opened() as cache:
            load = Load()
            calls = [asyncio.create_task(cache.get_with("k", load, across=across)) for _ in range(3)]
            await load.began.wait()
            later = [asyncio.create_task(cache.get_with("k", load, across=across)) for _ in range(3)]
            await turns()
            load.go_on.set()
            assert await asyncio.gather(*calls, *later) == ["loaded"] * 6
            assert load.runs == 1

    run(main())


def test_without_a_server_coroutines_share_a_computation(run, opened, server, manual_clock):
    async def main():
        async with opened() as cache:
            server.refuse()
            server.disconnect_all()
            await until(lambda: not server.connections)
            manual_clock.advance(7_200)
            load = Load()
            calls = [asyncio.create_task(cache.get_with("k", load)) for _ in range(3)]
            await load.began.wait()
            errors = cache.stats().remote_errors
            calls += [asyncio.create_task(cache.get_with("k", load)) for _ in range(3)]
            await turns(20)
            load.go_on.set()
            assert await asyncio.gather(*calls) == ["loaded"] * 6
            assert load.runs == 1
            # The later calls did not ask the server.
            assert errors <= 3

    run(main())


def test_a_fresh_load_joins_no_load(opened, server):
    async def main():
        async with opened() as cache:
            first, second = Load("first"), Load("second")
            second.go_on.set()
            before = asyncio.create_task(cache.get_with("k", first, across=False))
            await first.began.wait()
            assert await cache.get_with("k", second, across=False, fresh=True) == "second"
            first.go_on.set()
            assert await before == "first"
            assert read(server) == payload('"second"')

    asyncio.run(main())


def test_a_write_during_a_load_wins(run, opened, server):
    async def main():
        async with opened() as cache:
            load = Load()
            call = asyncio.create_task(cache.get_with("k", load))
            await load.began.wait()
            await cache.set("k", "written")
            load.go_on.set()
            assert await call == "loaded"
            assert read(server) == payload('"written"')
            assert await cache.get("k") == "written"

    run(main())


@pytest.mark.parametrize("across", [True, False])
def test_the_error_of_an_initializer_reaches_all_that_share_it(run, opened, server, across):
    async def main():
        async with opened() as cache:
            error = KeyError("reason")
            load = Load(error)
            # Without a lease the later call joins the first one for certain.
            first = asyncio.create_task(cache.get_with("k", load, across=across))
            await load.began.wait()
            second = asyncio.create_task(cache.get_with("k", load, across=across))
            await turns()
            load.go_on.set()
            one, two = await asyncio.gather(first, second, return_exceptions=True)
            assert one is error
            assert type(two) is KeyError and two.args == ("reason",)
            assert across or (two is not error and load.runs == 1)
            assert read(server) is None

    run(main())


def test_a_waiter_for_the_lease_of_another_process_hears_of_the_value(run, opened, server, monkeypatch):
    monkeypatch.setattr("moka_py.near._loading.POLL_SECONDS", (60, 60))

    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", OTHER_LEASE, "PX", 30_000)
            call = asyncio.create_task(cache.get_with("k", Load()))
            await until(lambda: server.count("SET", "n:k") >= 2)
            server.do("SET", "n:k", payload('"other"'))
            assert await call == "other"
            assert cache._tier._watches == {}

    run(main())


# --- Circles ---


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("way", ["directly", "in a task"])
def test_an_initializer_that_asks_for_its_own_key_raises(opened, server, across, fresh, way):
    async def main():
        async with opened() as cache:

            async def load():
                call = cache.get_with("k", load, across=across, fresh=fresh)
                return await (asyncio.create_task(call) if way == "in a task" else call)

            with pytest.raises(RuntimeError, match="the initializer of a key asked for that very key, 'k'"):
                await cache.get_with("k", load, across=across, fresh=fresh)
            assert read(server) is None

    asyncio.run(main())


def test_a_task_that_outlives_an_initializer_may_ask_for_its_key(opened):
    async def main():
        async with opened() as cache:
            tasks = []
            may_ask = asyncio.Event()

            async def ask_later():
                await may_ask.wait()
                await cache.remove("k")
                return await cache.get_with("k", load_again)

            async def load():
                tasks.append(asyncio.create_task(ask_later()))
                return "first"

            async def load_again():
                return "second"

            assert await cache.get_with("k", load) == "first"
            may_ask.set()
            assert await tasks[0] == "second"

    asyncio.run(main())


def test_initializers_that_wait_for_each_other_raise(opened):
    async def main():
        async with opened() as cache:
            both_began = asyncio.Barrier(2)

            def load_of(other):
                async def load():
                    await both_began.wait()
                    return await cache.get_with(other, load_of(other), across=False)

                return load

            one = asyncio.create_task(cache.get_with("a", load_of("b"), across=False))
            two = asyncio.create_task(cache.get_with("b", load_of("a"), across=False))
            for result in await asyncio.gather(one, two, return_exceptions=True):
                assert isinstance(result, RuntimeError)

    asyncio.run(main())


def test_an_initializer_may_ask_for_other_keys(opened):
    async def main():
        async with opened() as cache:

            async def load(number):
                return number + await cache.get_with(number - 1, lambda: load(number - 1)) if number else 0

            assert await cache.get_with(4, lambda: load(4)) == 10
            assert await cache.get_many(range(5)) == {0: 0, 1: 1, 2: 3, 3: 6, 4: 10}

    asyncio.run(main())
