"""The interpreter ends while daemon threads are inside calls: it ends well, whatever they run there.

Such a thread never comes back from the user's code that it is in: CPython ends it there, or lets it hang.
"""

import pytest
from helpers import run_script

# Each thread stands in code of a user's, under a call of the cache, and asks for the interpreter again and again.
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
