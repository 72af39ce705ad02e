"""The interpreter exits cleanly, with caches in any state and daemon threads inside calls of the cache.

Such a thread never returns from the user's code: CPython ends the thread there, or blocks it for ever.
"""

import pytest
from helpers import run_script

# Each thread runs user code inside a call of the cache, and attaches to the interpreter again and again.
INSIDE = """
import asyncio, atexit, os, sys, threading, time
from moka_py import Moka, cached
sys.setswitchinterval(1e-5)
cache = Moka(50)
inside = threading.Semaphore(0)

def stay(*_):
    inside.release()
    while True:
        sum(range(100))
        time.sleep(0)

class Hashed:
    def __hash__(self): stay()

class Compared:
    def __hash__(self): return 1
    def __eq__(self, other): stay()

class Ends:
    def __del__(self): stay()

class Truth:
    def __bool__(self): stay()

def yields(*items):
    yield from items
    stay()

cache.set("there", 1)
cache.set(Compared(), 1)

def begin(call, threads=3):
    for _ in range(threads):
        threading.Thread(target=call, daemon=True).start()
    assert inside.acquire(timeout=50)
    time.sleep(0.02)
"""

CALLS = {
    "hash of get": "cache.get(Hashed())",
    "eq of get": "cache.get(Compared())",
    "eq of set": "cache.set(Compared(), 1)",
    "eq of remove": "cache.remove(Compared())",
    "eq of in": "Compared() in cache",
    "eq of get_with": "cache.get_with(Compared(), int)",
    "eq of items": "('there', Compared()) in cache.items()",
    "initializer": "cache.get_with('key', stay)",
    "listener of set": "own = Moka(1, eviction_listener=stay); own.set(1, 1); own.set(1, 2)",
    "listener of clear": "own = Moka(1, eviction_listener=stay); own.set(1, 1); own.clear()",
    "weigher": "Moka(1, weigher=stay).set(1, 1)",
    "predicate": "cache.remove_if(stay)",
    "truth of the predicate's answer": "cache.remove_if(lambda key, value: Truth())",
    "end of a replaced value": "own = Moka(1); own.set(1, Ends()); own.set(1, 1); own.run_pending_tasks()",
    "end of the cache": "own = Moka(1); own.set(1, Ends()); del own",
    "keys of get_many": "cache.get_many(yields(1))",
    "pairs of set_many": "cache.set_many(yields((1, 1)))",
    "keys of remove_many": "cache.remove_many(yields(1))",
    "pairs of update": "cache.update(yields((1, 1)))",
    "cached function": "cached()(stay)(1)",
    "cached function of all threads": "shared(1)",
    "hash of an argument": "cached()(int)(Hashed())",
    "cached coroutine function": "asyncio.run(cached()(later)(1))",
    "cached coroutine function of all tasks": "asyncio.run(cached(wait_concurrent=True)(later)(1))",
    "iteration": "all(stay() for _ in cache.items())",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_interpreter_ends_with_daemon_threads_inside_each_call(call):
    run_script(
        INSIDE
        + f"""
async def later(x): stay()
shared = cached(wait_concurrent=True)(stay)
def call():
    {call}
begin(call)
"""
    )


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit()",
        "os._exit(0)",
        "atexit.register(lambda: (cache.set('late', 1), cache.get('late'), cache.clear()))",
        "atexit.register(lambda: cache.get_with('late', int))",
        "cache.clear(); del cache",
    ],
)
def test_interpreter_ends_in_any_way_with_daemon_threads_inside(end):
    run_script(
        INSIDE
        + f"""
listened = Moka(1, eviction_listener=stay)
listened.set(1, 1)
begin(lambda: cache.get_with('key', stay))
begin(lambda: listened.set(1, 1))
{end}
"""
    )


@pytest.mark.parametrize("call", ["cache.get_with('led', leads)", "shared(1)"])
def test_interpreter_ends_with_a_leader_and_waiters(call):
    run_script(
        INSIDE
        + f"""
begun = []
def leads(*_):
    begun.append(1)
    stay()
shared = cached(wait_concurrent=True)(leads)
begin(lambda: {call}, threads=5)
time.sleep(0.1)
assert begun == [1]
"""
    )


def test_interpreter_ends_with_tasks_that_wait_for_each_other():
    run_script(
        INSIDE
        + """
@cached(wait_concurrent=True)
async def later(x):
    inside.release()
    await asyncio.sleep(1000)

async def main():
    await asyncio.gather(*(later(1) for _ in range(5)))

begin(lambda: asyncio.run(main()))
"""
    )


def test_interpreter_ends_with_busy_daemon_threads():
    run_script(
        INSIDE
        + """
import random
heard = []
busy = Moka(30, ttl=0.001, eviction_listener=lambda *event: heard.append(1), weigher=lambda key, value: 1)
function = cached(maxsize=20, wait_concurrent=True)(lambda x: [x])

def work():
    inside.release()
    while True:
        key = random.randrange(60)
        for call in (
            lambda: busy.set(key, [key]), lambda: busy.get(key), lambda: busy.get_with(key, list), busy.stats,
            lambda: function(key), lambda: busy.pop(key, None), lambda: busy.remove_if(lambda key, value: key % 7 == 0),
            lambda: list(busy.items()), lambda: busy.get_many(range(5)), lambda: busy.set_many([(1, 1)]), busy.count,
        ):
            call()

begin(work, threads=6)
time.sleep(0.1)
"""
    )


def test_interpreter_ends_with_a_full_cache():
    run_script(
        """
from moka_py import Moka
class Value:
    def __del__(self):
        cache.get("a"), cache.set("late", 1)
cache = Moka(10, eviction_listener=lambda *event: None, ttl=1e-9)
keeper = Moka(10)
for number in range(10):
    keeper.set(number, Value())
    cache.set(number, Value())
"""
    )


@pytest.mark.parametrize("listener", ["None", "lambda *event: None"])
def test_interpreter_ends_with_daemon_threads_that_use_a_cache(listener):
    run_script(
        f"listener = {listener}"
        + """
import threading, time
from moka_py import Moka
cache = Moka(100, eviction_listener=listener, tti=1)
def work():
    number = 0
    while True:
        number += 1
        cache.set(number % 300, [number])
        cache.get_with(number % 200, list)
        list(cache.items())
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""
    )


def test_interpreter_ends_with_waiting_daemon_threads():
    run_script(
        """
import threading, time
from moka_py import Moka
cache = Moka(10)
inside = threading.Event()
def compute():
    inside.set()
    time.sleep(1000)
threading.Thread(target=lambda: cache.get_with("a", compute), daemon=True).start()
inside.wait()
for _ in range(3):
    threading.Thread(target=lambda: cache.get_with("a", list), daemon=True).start()
time.sleep(0.2)
"""
    )


def test_atexit_handlers_and_late_finalizers_can_use_a_cache():
    out = run_script(
        """
import atexit
from moka_py import Moka
cache = Moka(10, eviction_listener=lambda key, value, cause: print("left", key))
cache.set("a", 1)
class Late:
    def __del__(self, cache=cache):
        cache.set("late", 1)
        print("late", cache.get("late"))
late = Late()
atexit.register(lambda: print("removed", cache.remove("a")))
"""
    )
    assert "left a" in out and "removed 1" in out and "late 1" in out


def test_os_exit_ends_the_process_immediately_in_any_callback():
    for place in (
        "cache.get_with(1, end)",
        "Moka(1, weigher=end).set(1, 1)",
        "own = Moka(1, eviction_listener=end); own.set(1, 1); own.set(1, 2)",
        "cache.set(1, 1); cache.remove_if(end)",
        "cached()(end)(1)",
    ):
        run_script(
            f"""
import os
from moka_py import Moka, cached
cache = Moka(5)
def end(*_): os._exit(0)
{place}
raise AssertionError
"""
        )
