"""Near caches for tests: made, waited for and closed; and the scripts of the near cache for the scripted server."""

import asyncio
import threading
import time

from near.scripted_store import OK

from moka_py.near import NearCache
from moka_py.near._lease import ADD, RELEASE, REPLACE, TOUCH

TIME_LIMIT_SECONDS = 60.0
WAIT_SECONDS = 0.001

# No local entry outlives it in a test that does not move its clock.
LONG = 3600.0
LEASE_LENGTH = 20


def wait_until(condition):
    """Wait until a condition holds that another thread brings about."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        pause.wait(WAIT_SECONDS)


def wait_until_coherent(cache):
    wait_until(lambda: cache.is_coherent)


def settle(cache, client, namespace):
    """Wait until the near cache has applied the invalidations of all writes before the call.

    The server reports writes in order, also those of the near cache itself.
    """
    applied = threading.Event()
    watch = cache._tier.watch("settled", applied.set)
    client.set(f"{namespace}:settled", b"")
    assert applied.wait(TIME_LIMIT_SECONDS), "the server did not report a write"
    watch.close()


def write(server, key, text):
    """Write a value as another program does."""
    server.do("SET", f"n:{key}", payload(text))


def fill(cache, server, scripted_client, key="k", text='"old"'):
    """Have a value in the local tier."""
    write(server, key, text)
    settle(cache, scripted_client, "n")
    assert f'"{cache.get(key)}"' == text
    requests = server.count("GET", f"n:{key}")
    assert f'"{cache.get(key)}"' == text
    assert server.count("GET", f"n:{key}") == requests


def pass_two_pings(server):
    """Wait until the deadline counts from now on. No other thread moves the clock."""
    pings = server.count("PING", tracking=True)
    server.wait_for_command("PING", count=pings + 4, tracking=True)


def catch(function):
    try:
        return function()
    except Exception as error:
        return error


def make_near_cache(client, namespace, near_class=NearCache, **options):
    """Return a near cache that is coherent, and stays so for the time of a test."""
    cache = near_class(client, namespace, **{"ttl": 300, "max_staleness": LONG, **options})
    wait_until_coherent(cache)
    return cache


def callers(cache, kind):
    """Return how many calls of this process take part in a shared "load" or "computation", as the leader or not."""
    if isinstance(cache, NearCache):
        return {"load": cache._tier.loads, "computation": cache._tier.computations}[kind].stats().misses
    tasks = asyncio.all_tasks(cache._thread.loop)
    return sum(task._waiters for task in tasks if task.get_name().startswith(f"moka_py near {kind} "))


def payload(text):
    """The bytes that the server has for a value, as the text of its JSON."""
    return b"\xc1mk=json:" + text.encode()


def is_lease(value):
    return value is not None and value.startswith(b"\xc1mk?") and len(value) == LEASE_LENGTH


def _set(store, database, key, value, milliseconds):
    words = [key, value] if milliseconds == b"" else [key, value, b"PX", milliseconds]
    assert store.do_set(database, *words) is OK
    return 1


def _replace(store, database, keys, arguments):
    expected, value, milliseconds = arguments
    return _set(store, database, keys[0], value, milliseconds) if store.get(database, keys[0]) == expected else 0


def _release(store, database, keys, arguments):
    return int(store.get(database, keys[0]) == arguments[0] and store.delete(database, keys[0]))


def _add(store, database, keys, arguments):
    present = store.get(database, keys[0])
    return 0 if present is not None and not is_lease(present) else _set(store, database, keys[0], *arguments)


def _touch(store, database, keys, arguments):
    present = store.get(database, keys[0])
    if present is None or is_lease(present):
        return 0
    return _set(store, database, keys[0], present, arguments[0])


def install_scripts(server):
    """Have a scripted server know the scripts of the near cache."""
    functions = {REPLACE: _replace, RELEASE: _release, ADD: _add, TOUCH: _touch}
    server.store.scripts.update({script.source.decode(): function for script, function in functions.items()})
