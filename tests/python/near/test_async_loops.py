"""Event loops: the client of each, their ends, threads, and forks."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import weakref
from pathlib import Path

import pytest
from helpers import Background, run_script
from near.async_caches import RUNNERS, open_near_cache, runner, settled, until
from near.blocking_near_cache import LoopThread
from near.near_caches import LONG, payload, wait_until

from moka_py.near import AsyncNearCache

OTHER_LEASE = b"\xc1mk?" + b"0123456789abcdef"


@pytest.fixture(params=RUNNERS)
def run(request):
    return runner(request.param)


@pytest.fixture
def client(server, make_async_client):
    """Return a client whose connections the server can tell from others."""
    return make_async_client(server, client_name="data", username="me", password="secret", db=3)


@pytest.fixture
def cache(client, manual_clock, paced):
    """Return a near cache that no event loop has used. The client stays open until the loop of the test ends it."""
    cache = AsyncNearCache(client, "n", ttl=300, max_staleness=LONG)
    yield cache
    asyncio.run(cache.close())


def data_connections(server):
    """Return the connections that clients of the program have. The listener's tracks, the probe's is not used again."""
    connections = [each for each in server.connections if not each.is_tracking]
    return [each for each in connections if any(command[0] == b"GET" for command in commands_of(server, each))]


def commands_of(server, connection):
    return [command for sender, command in list(server._log) if sender is connection]


async def use(cache):
    """Use the near cache in this loop, with requests to the server."""
    await until(lambda: cache.is_coherent)
    await cache.set("k", [1])
    assert await cache.get("k", fresh=True) == [1]


async def use_and_end(cache, client):
    """Do what a program does that ends its client."""
    await use(cache)
    await client.aclose()


def test_the_client_serves_the_loop_that_first_uses_it(run, server, client, cache):
    async def main():
        await use(cache)
        [connection] = data_connections(server)
        # The client's own pool has it.
        await client.get("mine")
        assert data_connections(server) == [connection]
        await client.aclose()

    run(main())
    wait_until(lambda: not data_connections(server))


def test_each_further_loop_has_a_client_with_the_same_settings(run, server, client, cache):
    asyncio.run(use_and_end(cache, client))
    wait_until(lambda: not data_connections(server))

    async def main():
        await use(cache)
        [first] = data_connections(server)
        # The client stays while no call uses it, also if the collector runs.
        gc.collect()
        await use(cache)
        [connection] = data_connections(server)
        assert connection is first
        assert (connection.name, connection.user, connection.database) == ("data", "me", 3)
        # It is not the client of the first loop.
        assert not any(each.is_connected for each in client.connection_pool._available_connections)

    for _ in range(3):
        run(main())
        # The end of the loop has closed its client.
        wait_until(lambda: not data_connections(server))


def test_a_pool_that_waits_for_connections_has_its_like_in_each_loop(server, client_package, manual_clock, paced):
    from importlib import import_module

    aio = import_module(f"{client_package.__name__}.asyncio")
    kind = getattr(aio, "Redis", None) or aio.Valkey
    pool = aio.BlockingConnectionPool(host=server.host, port=server.port, max_connections=2, timeout=7)

    made = []

    class Client(kind):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    client = Client(connection_pool=pool)
    cache = AsyncNearCache(client, "n", ttl=300, max_staleness=LONG)

    async def main():
        await until(lambda: cache.is_coherent)
        await asyncio.gather(*(cache.get(number, fresh=True) for number in range(20)))
        if len(made) == 1:
            await pool.aclose()

    for _ in range(2):
        asyncio.run(main())
    first, second = made
    assert first is client and type(second) is Client
    other = second.connection_pool
    assert type(other) is type(pool) and other is not pool
    assert (other.max_connections, other.timeout) == (2, 7)
    asyncio.run(cache.close())


@pytest.mark.parametrize("end", ["run", "close"])
def test_a_near_cache_keeps_no_loop(run, request, client, cache, end):
    """Neither by its client nor by calls that were under way."""
    asyncio.run(use_and_end(cache, client))
    loops = []

    async def main():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await use(cache)

    if end == "run":
        run(main())
    else:
        if "uvloop" in request.node.name:
            loop = pytest.importorskip("uvloop").new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        del loop
    gc.collect()
    assert loops[0]() is None
    assert len(cache._clients._own) == 0


def test_a_loop_that_is_closed_while_a_call_waits_leaves_nothing(server, client, cache, monkeypatch):
    monkeypatch.setattr("moka_py.near._loading.POLL_SECONDS", (60, 60))
    asyncio.run(use_and_end(cache, client))
    server.do("SET", "n:waited", OTHER_LEASE, "PX", 30_000, database=3)
    loop = asyncio.new_event_loop()
    tier = cache._tier
    flights = []

    async def begin():
        # No late report of that write wakes the call.
        await settled(cache, server)
        call = asyncio.create_task(cache.get_with("waited", asyncio.sleep))
        # The wakeup of a call that waits has a function that wakes it.
        await until(lambda: any(watch.notify.__self__.notify for watch in tier._watches.get("waited", ())))
        # asyncio need not report the tasks that this test abandons.
        for task in asyncio.all_tasks():
            task._log_destroy_pending = False
            if task is not asyncio.current_task() and task is not call:
                flights.append(weakref.ref(task))

    loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_asyncgens())
    [watch] = tier._watches["waited"]
    loop.close()
    # The listener may hear of the key before the collector has run.
    watch.notify()
    server.do("SET", "n:waited", payload("1"), database=3)
    del loop, watch
    gc.collect()
    assert [flight() for flight in flights] == [None]
    assert "waited" not in tier._watches
    assert cache.is_coherent

    async def after():
        assert await cache.get("waited") == 1

    asyncio.run(after())


# --- Several loops at a time ---


@pytest.fixture
def loops(run):
    """Return two threads with event loops."""
    with LoopThread(run) as one, LoopThread(run) as two:
        yield one, two


def test_loops_in_threads_use_one_near_cache(server, client, cache, loops):
    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    assert len(data_connections(server)) == 2
    assert len(server.tracking) == 1
    one.wait_for(cache.set("k", "one"))
    # No later call in this process returns an older value.
    assert two.wait_for(cache.get("k")) == "one"
    two.wait_for(cache.set("k", "two"))
    assert one.wait_for(cache.get("k")) == "two"
    one.wait_for(client.aclose())


def test_calls_of_different_loops_do_not_wait_for_each_other(server, client, cache, loops):
    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    began, go_on = threading.Event(), threading.Event()

    async def slow():
        began.set()
        await asyncio.to_thread(go_on.wait, 60)
        return "slow"

    async def quick():
        return "quick"

    first = one.submit(cache.get_with("l", slow, across=False))
    assert began.wait(60)
    assert two.wait_for(cache.get_with("l", quick, across=False)) == "quick"
    go_on.set()
    assert first.result(60) == "slow"
    assert server.do("GET", "n:l", database=3) == payload('"quick"')
    one.wait_for(client.aclose())


def test_a_lease_serves_all_loops(server, client, cache, loops):
    one, two = loops
    began, go_on = threading.Event(), threading.Event()
    loads = []

    async def load():
        loads.append(1)
        began.set()
        await asyncio.to_thread(go_on.wait, 60)
        return "loaded"

    first = one.submit(cache.get_with("l", load))
    assert began.wait(60)
    second = two.submit(cache.get_with("l", load))
    wait_until(lambda: cache.stats().lease_waits == 1)
    go_on.set()
    assert first.result(60) == second.result(60) == "loaded"
    assert loads == [1]
    one.wait_for(client.aclose())


# --- The end of a near cache ---


def test_close_closes_the_clients_that_were_made_and_not_the_users(server, client, cache, loops):
    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    assert len(data_connections(server)) == 2
    two.wait_for(cache.close())
    wait_until(lambda: len(data_connections(server)) == 1)
    [connection] = data_connections(server)
    assert one.wait_for(client.get("n:k")) == payload("[1]")
    assert data_connections(server) == [connection]
    one.wait_for(client.aclose())


def test_close_in_one_loop_closes_the_client_of_another(server, client, cache, loops):
    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    one.wait_for(cache.close())
    wait_until(lambda: len(data_connections(server)) == 1)
    one.wait_for(client.aclose())
    wait_until(lambda: data_connections(server) == [])


def test_a_loop_that_begins_while_the_clients_are_closed_does_not_disturb_that(server, client, cache, loops):
    class Begun:
        """The client of a loop that has just begun, as far as `retire` uses it."""

        def __init__(self):
            self.loop = self

        def call_soon_threadsafe(self, _function):
            pass

        retire_and_close = None

    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    begun = []

    def begin(frame, _event, _argument):
        """Add a client before each line that `weakref` executes, as a thread may do."""
        if frame.f_globals is vars(weakref):
            begun.append(Begun())
            cache._clients._own[0, len(begun)] = begun[-1]
        return begin

    sys.settrace(begin)
    try:
        cache._clients.retire()
    finally:
        sys.settrace(None)
    assert begun
    wait_until(lambda: len(data_connections(server)) == 1)
    one.wait_for(client.aclose())


@pytest.mark.parametrize("closer", [0, 1])
def test_calls_that_are_under_way_at_close_end_normally(server, client, cache, loops, closer):
    one, two = loops
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    server.do("SET", "n:l", payload("1"), database=3)
    began, go_on = threading.Event(), threading.Event()

    async def load():
        began.set()
        await asyncio.to_thread(go_on.wait, 60)
        return 2

    with server.hold("GET", "n:l") as hold:
        calls = [two.submit(cache.get("l")), two.submit(cache.get_with("m", load))]
        hold.wait()
        assert began.wait(60)
        loops[closer].wait_for(cache.close())
        hold.release()
        go_on.set()
        assert [call.result(60) for call in calls] == [1, 2]
    assert server.do("GET", "n:m", database=3) == payload("2")
    # Then the client of their loop is closed.
    wait_until(lambda: len(data_connections(server)) == 1)
    one.wait_for(client.aclose())


def test_a_dropped_near_cache_closes_its_clients_and_its_listener(
    server, make_async_client, manual_clock, paced, loops
):
    one, two = loops
    client = make_async_client(server)
    cache = AsyncNearCache(client, "dropped", ttl=300, max_staleness=LONG)
    one.wait_for(use(cache))
    two.wait_for(use(cache))
    alive = weakref.ref(cache)
    del cache
    wait_until(lambda: gc.collect() is not None and alive() is None)
    wait_until(lambda: len(data_connections(server)) == 1 and not server.tracking)
    one.wait_for(client.aclose())


# --- Forks ---

SETUP = """
import asyncio, os, signal, sys, threading
PACKAGE, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
aio = __import__(PACKAGE + ".asyncio").asyncio
Client = getattr(aio, "Redis", None) or aio.Valkey
from moka_py.near import AsyncNearCache
from near.async_caches import runner, until
from near.near_caches import payload

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("is_used", [True, False], ids=["used", "unused"])
def test_the_child_of_a_fork_uses_no_socket_of_the_parent(real_server, client_package, is_used):
    source = f"""
IS_USED = {is_used}
client = Client(host=HOST, port=PORT)
cache = AsyncNearCache(client, "n", ttl=300, max_staleness=3600)

async def use():
    await until(lambda: cache.is_coherent)
    await cache.set("k", os.getpid())
    return await cache.get("k")

async def child_main():
    assert await cache.get("k") == (parent if IS_USED else None)
    assert await use() == os.getpid()
    await cache.get_with("l", lambda: asyncio.sleep(0, "loaded"))

async def main():
    if IS_USED:
        await use()
    else:
        await client.ping()
    connections = {{id(each) for each in client.connection_pool._available_connections}}
    assert len(connections) == 1
    await asyncio.to_thread(in_child, lambda: asyncio.run(child_main()))
    # The connections of the parent go on.
    assert await client.ping()
    assert {{id(each) for each in client.connection_pool._available_connections}} == connections
    if IS_USED:
        await until(lambda: cache.is_coherent)
        assert await cache.get("k") != parent
    assert await cache.get("l") == "loaded"
    await client.aclose()
    await cache.close()

parent = os.getpid()
asyncio.run(main())
"""
    tests = str(Path(__file__).parents[1])
    run_script(SETUP + source, client_package.__name__, real_server.host, str(real_server.port), tests)


# --- A real server ---


def test_many_loops_and_coroutines_see_their_own_writes(real_server, make_async_client, namespace):
    """Each thread writes growing numbers to a key of its own, and reads them in all loops."""
    client = make_async_client(real_server, max_connections=100)
    cache = AsyncNearCache(client, namespace, ttl=300, max_staleness=5)

    async def write_and_read(key):
        for number in range(30):
            await cache.set(key, number)
            assert await cache.get(key) >= number
            assert await cache.get_with(key, lambda: asyncio.sleep(0, -1)) >= number
            assert (await cache.get_many([key]))[key] >= number
            await cache.remove(key)
            assert await cache.get(key) is None

    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(LoopThread()) for _ in range(3)]
        futures = [
            thread.submit(write_and_read(f"{index}:{key}")) for index, thread in enumerate(threads) for key in "ab"
        ]
        for future in futures:
            future.result(60)
        threads[0].wait_for(cache.close())
        for thread in threads:
            with contextlib.suppress(RuntimeError):
                thread.wait_for(client.aclose())


def test_a_program_with_coroutines_and_threads_agrees_with_the_server(real_server, make_async_client, make_client):
    other = make_client(real_server)

    async def main():
        async with open_near_cache(make_async_client(real_server), "agreed") as cache:
            for number in range(50):
                await asyncio.to_thread(other.set, "agreed:k", payload(str(number)))
                assert await cache.get("k", fresh=True) == number
                # The report of the write comes.
                await until(lambda number=number: cache.get_local("k", number) == number)
                assert await cache.get("k") == number
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(cache.set(number, number))
            assert await cache.get_many(range(100)) == {number: number for number in range(100)}
            assert await cache.remove_many(range(50)) == 50
            await cache.clear()
            assert await cache.get_many(range(100)) == {}
        with Background(lambda: other.keys("agreed:*")) as keys:
            pass
        assert keys.result == []

    asyncio.run(main())
