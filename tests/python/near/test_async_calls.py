"""Calls of `AsyncNearCache`: hits that do not suspend, `get_local`, cached coroutine functions, and the end.

What it has in common with `NearCache` is tested in test_near_*.py, for both classes.
"""

import asyncio
import functools
import inspect
import time
import warnings

import pytest
from near.async_caches import RUNNERS, open_near_cache, outcome_at_once, runner, settled, until
from near.near_caches import payload
from near.resp import Failure

from moka_py import near
from moka_py.near import AsyncNearCache, NearCache, NearStats


@pytest.fixture(params=RUNNERS)
def run(request):
    return runner(request.param)


@pytest.fixture
def opened(server, make_async_client, manual_clock, paced):
    """Return a function that makes a near cache for an `async with` block."""
    return lambda **options: open_near_cache(make_async_client(server), **options)


def test_it_has_the_methods_of_near_cache_and_get_local():
    names = {name for name in dir(NearCache) if not name.startswith("_")}
    assert {name for name in dir(AsyncNearCache) if not name.startswith("_")} == names | {"get_local"}
    for name in sorted(names - {"is_coherent"}):
        parameters = inspect.signature(getattr(NearCache, name)).parameters
        assert inspect.signature(getattr(AsyncNearCache, name)).parameters.keys() == parameters.keys()
        is_coroutine_function = inspect.iscoroutinefunction(getattr(AsyncNearCache, name))
        assert is_coroutine_function is (name not in ("stats", "cached")), name
    assert set(near.__all__) <= set(dir(near)) | {"AsyncNearCache"}
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        near.Other


def test_a_hit_does_not_suspend(run, server, opened):
    class Text(str):
        pass

    async def never():
        raise AssertionError("there is a value")

    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload("[1]"))
            await settled(cache, server)
            value = await cache.get("k")
            assert await cache.get("absent", 5) == 5
            commands = len([command for command in server.commands if b"n:" in b" ".join(command)])
            assert outcome_at_once(cache.get("k")) is value
            assert outcome_at_once(cache.get(b"k", "default")) is value
            assert outcome_at_once(cache.get("absent", 6)) == 6
            assert outcome_at_once(cache.get_many(["k", "absent"])) == {"k": value}
            assert outcome_at_once(cache.contains("k"))
            assert not outcome_at_once(cache.contains("absent"))
            assert outcome_at_once(cache.get_with("k", never)) is value
            # A native look-up does not know the key of a subclass, so it misses first.
            assert outcome_at_once(cache.get(Text("k"))) is value
            assert outcome_at_once(cache.get_with(Text("k"), never)) is value
            assert len([command for command in server.commands if b"n:" in b" ".join(command)]) == commands
            # One hit a call.
            assert cache.stats().local.hits == 10

    run(main())


def test_get_local_asks_no_server(opened, server):
    class Text(str):
        pass

    async def main():
        async with opened(copy=list) as cache:
            server.do("SET", "n:1", payload("[1]"))
            await settled(cache, server)
            assert cache.get_local(1, "default") == "default"
            assert cache.get_local(1) is None
            await cache.get(1)
            await cache.get("absent")
            for key in (1, "1", b"1", Text("1")):
                assert cache.get_local(key) == [1]
            assert cache.get_local(1) is not cache.get_local(1)
            assert cache.get_local("absent", "default") == "default"
            for key in (1.5, True, None):
                with pytest.raises(TypeError, match="key must be a str, bytes or int"):
                    cache.get_local(key)
            assert server.count("GET", "n:1") == 1
        with pytest.raises(ValueError, match="the near cache is closed"):
            cache.get_local(1)

    asyncio.run(main())


def test_get_local_starts_the_listener(server, make_async_client, manual_clock, paced):
    cache = AsyncNearCache(make_async_client(server), "n", ttl=1, max_staleness=3600)
    assert server.connections == []
    # It needs no event loop.
    assert cache.get_local("k") is None
    server.wait_for_tracking()
    asyncio.run(cache.close())


# --- Cached coroutine functions ---


def test_a_cached_coroutine_function_keeps_its_results(run, opened, server):
    async def main():
        async with opened() as cache:
            runs = []

            @cache.cached(key=lambda number, flag=False: f"square:{number}", ttl=5)
            async def square(number: int, flag: bool = False):
                """Return a square."""
                runs.append(number)
                await asyncio.sleep(0)
                return number * number

            assert inspect.iscoroutinefunction(square)
            assert (square.__name__, square.__doc__) == ("square", "Return a square.")
            assert square.cache is cache
            assert not await square.cache_contains(3)
            assert await square(3) == await square(number=3, flag=True) == 9
            assert runs == [3]
            assert server.do("PTTL", "n:square:3") == 5_000
            assert square.cache_key(3) == "square:3"
            assert await square.cache_contains(3)
            await settled(cache, server)
            await square(3)
            assert outcome_at_once(square(3)) == 9
            assert await square.cache_invalidate(3)
            assert not await square.cache_invalidate(3)
            assert await square.__wrapped__(3) == await square(3) == 9
            assert runs == [3, 3, 3]

    run(main())


def test_a_method_and_a_partial_can_be_cached(opened):
    async def main():
        async with opened() as cache:

            class Shop:
                name = "tea"

                @cache.cached(key=lambda self, item: f"{self.name}:{item}")
                async def price(self, item):
                    return [self.name, item]

            assert await Shop().price("cup") == ["tea", "cup"]

            async def add(one, two):
                return one + two

            class Doubled:
                async def __call__(self, number):
                    return number * 2

            assert await cache.cached(key=str)(functools.partial(add, 1))(2) == 3
            assert await cache.cached(key=lambda number: f"doubled:{number}")(Doubled())(2) == 4

    asyncio.run(main())


def test_a_cached_coroutine_function_keeps_none_and_no_exception(opened):
    async def main():
        async with opened() as cache:
            runs = []

            @cache.cached(key=lambda number: number)
            async def half(number):
                runs.append(number)
                if number % 2:
                    raise ArithmeticError(number)
                return number // 2 or None

            assert await half(0) is None
            assert await half(0) is None
            for _ in range(2):
                with pytest.raises(ArithmeticError):
                    await half(1)
            assert runs == [0, 1, 1]
            with pytest.raises(TypeError, match="key must be a str, bytes or int, got float"):
                await half(1.5)
        with pytest.raises(ValueError, match="the near cache is closed"):
            await half(0)

    asyncio.run(main())


def test_cached_refuses_what_it_cannot_serve(scripted_client, server, make_async_client):
    cache = AsyncNearCache(make_async_client(server), "n", ttl=1)
    sync = NearCache(scripted_client, "n", ttl=1)

    async def generator():
        yield 1

    async def coroutine_function():
        pass

    with pytest.raises(TypeError, match="key must be callable, got str"):
        cache.cached(key="k")
    with pytest.raises(ValueError, match="ttl must be positive"):
        cache.cached(key=str, ttl=0)
    with pytest.raises(TypeError, match=r"cached needs a coroutine function, got .*: use NearCache\.cached"):
        cache.cached(key=str)(len)
    with pytest.raises(TypeError, match="cached cannot keep what a generator function returns"):
        cache.cached(key=str)(generator)
    with pytest.raises(TypeError, match="cached needs a function, directly below it, got staticmethod"):
        cache.cached(key=str)(staticmethod(coroutine_function))
    for function in (coroutine_function, functools.partial(coroutine_function)):
        with pytest.raises(TypeError, match=r"cached needs a function, got .*: use AsyncNearCache\.cached"):
            sync.cached(key=str)(function)
    sync.close()
    asyncio.run(cache.close())


# --- Arguments ---


def test_an_initializer_must_return_an_awaitable(opened, server):
    async def main():
        async with opened() as cache:
            with pytest.raises(TypeError, match="initializer must be callable, got int"):
                await cache.get_with("k", 1)
            with pytest.raises(TypeError, match="initializer must return an awaitable, got list"):
                await cache.get_with("k", list)
            assert server.do("GET", "n:k") is None

            async def load():
                return 1

            assert await cache.get_with("k", lambda: asyncio.ensure_future(load())) == 1

    asyncio.run(main())


def test_a_client_of_another_kind_is_refused(client_package, scripted_client):
    from importlib import import_module

    name = client_package.__name__
    aio = import_module(f"{name}.asyncio")
    kind = getattr(aio, "Redis", None) or aio.Valkey
    for client in (None, "redis://localhost", object(), scripted_client, kind().pipeline()):
        with pytest.raises(TypeError, match=r"client must be a redis\.asyncio\.Redis or valkey\.asyncio\.Valkey, got "):
            AsyncNearCache(client, "n", ttl=1)
    sentinel = import_module(f"{name}.asyncio.sentinel").Sentinel([("127.0.0.1", 1)])
    for client in (sentinel, sentinel.master_for("service")):
        with pytest.raises(ValueError, match="client must be a client of one server, got one of Sentinel"):
            AsyncNearCache(client, "n", ttl=1)
    cluster = getattr(aio, "RedisCluster", None) or aio.ValkeyCluster
    with pytest.raises(ValueError, match="client must be a client of one server, got one of a cluster"):
        AsyncNearCache(cluster.__new__(cluster), "n", ttl=1)


def test_a_near_cache_of_each_class_share_a_tier(server, scripted_client, opened):
    async def main():
        async with opened() as cache:
            with pytest.raises(ValueError, match="capacity must be the same"):
                NearCache(scripted_client, "n", ttl=300, max_staleness=3600, capacity=5)
            with NearCache(scripted_client, "n", ttl=300, max_staleness=3600) as sync:
                assert len(server.tracking) == 1
                await asyncio.to_thread(sync.set, "k", [1])
                await settled(cache, server)
                value = await cache.get("k")
                assert sync.get("k") is value
                await asyncio.to_thread(sync.set, "k", [2])
                assert await cache.get("k") == [2]
                await cache.set("k", [3])
                assert await asyncio.to_thread(sync.get, "k") == [3]
            # The listener ends with the last of them.
            assert len(server.tracking) == 1
            assert cache.is_coherent

    asyncio.run(main())


# --- The end ---


METHODS = {
    "get": lambda cache: cache.get("k"),
    "get fresh": lambda cache: cache.get("k", fresh=True),
    "get_many": lambda cache: cache.get_many(["k"]),
    "contains": lambda cache: cache.contains("k"),
    "set": lambda cache: cache.set("k", 1),
    "set_many": lambda cache: cache.set_many({"k": 1}),
    "add": lambda cache: cache.add("k", 1),
    "touch": lambda cache: cache.touch("k"),
    "remove": lambda cache: cache.remove("k"),
    "remove_many": lambda cache: cache.remove_many(["k"]),
    "get_with": lambda cache: cache.get_with("k", asyncio.sleep),
    "clear": lambda cache: cache.clear(),
    "clear_local": lambda cache: cache.clear_local(),
    "async with": lambda cache: cache.__aenter__(),
    "get_local": lambda cache: cache.get_local("k"),
    "cached": lambda cache: cache.cached(key=str),
}


@pytest.mark.parametrize("call", METHODS.values(), ids=METHODS)
def test_after_close_every_method_but_stats_raises(opened, server, call):
    async def main():
        async with opened() as cache:
            server.do("SET", "n:k", payload("1"))
            await settled(cache, server)
            assert await cache.get("k") == 1
            await cache.close()
            await cache.close()
            await until(lambda: not server.tracking)
            commands = len(server.commands)
            with pytest.raises(ValueError, match="the near cache is closed"):
                await call(cache)
            assert isinstance(cache.stats(), NearStats)
            assert not cache.is_coherent
            assert len(server.commands) == commands
            assert server.do("GET", "n:k") == payload("1")

    asyncio.run(main())


def test_close_does_not_block_the_loop(opened, monkeypatch):
    async def main():
        async with opened() as cache:
            stopping, go_on = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()
            listener = cache._tier._listener
            stop = listener.stop

            def slow_stop():
                loop.call_soon_threadsafe(stopping.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)
                stop()

            monkeypatch.setattr(listener, "stop", slow_stop)
            closing = asyncio.create_task(cache.close())
            await stopping.wait()
            go_on.set()
            await closing

    asyncio.run(asyncio.wait_for(main(), 60))


def test_without_an_event_loop_calls_raise(server, make_async_client):
    cache = AsyncNearCache(make_async_client(server), "n", ttl=1)
    for call in (cache.get("k"), cache.get_with("k", asyncio.sleep), cache.close()):
        with pytest.raises(RuntimeError, match="AsyncNearCache needs an asyncio event loop, and none is running here"):
            outcome_at_once(call)
    asyncio.run(cache.close())


def test_warnings_come_from_the_line_of_the_caller(server, make_async_client, manual_clock, paced):
    server.answer("CLIENT", "TRACKING", reply=Failure("ERR unknown"))

    async def main():
        async with make_async_client(server) as client, AsyncNearCache(client, "n", ttl=1) as cache:
            for call in (lambda: cache.get("k"), lambda: cache.set("k", 1)):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    cache._tier._has_warned.clear()
                    cache._tier.warn_later("tracking", "there is no local tier")
                    await call()
                assert {warning.filename for warning in caught} == {__file__}

    asyncio.run(main())


def test_a_call_leaves_the_loop_to_others_while_the_server_is_silent(run, opened, server):
    async def main():
        async with opened() as cache:
            with server.hold("GET", "n:k") as hold:
                call = asyncio.create_task(cache.get("k", "absent"))
                # It waits by turns of the loop.
                deadline = time.monotonic() + 60
                while not hold.is_caught:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0)
                hold.release()
            assert await call == "absent"

    run(main())
