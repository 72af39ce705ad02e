"""After `fork()` beside running threads the child's caches work."""

import os

import pytest
from fork_helpers import FORK
from helpers import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_child_has_the_contents_of_the_parent():
    run_script(
        FORK
        + """
cache = Moka(10)
cache.set("a", 1)
def work():
    assert cache.get("a") == 1
    cache.set("b", 2)
    cache.remove("a")
    assert dict(cache.items()) == {"b": 2} and len(cache) == 1
in_child(work)
assert dict(cache.items()) == {"a": 1}
"""
    )


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_process_can_fork_under_load(policy):
    run_script(
        FORK
        + f"cache = Moka(3000, tti=1000, policy={policy!r}, eviction_listener=lambda *event: None)"
        + """
done = []
class Key:
    def __init__(self, name): self.name = name
    def __hash__(self): return self.name % 500
    def __eq__(self, other): return isinstance(other, Key) and self.name == other.name
def load(seed):
    dice = random.Random(seed)
    while not done:
        number = dice.randrange(5000)
        key = Key(number) if number % 3 == 0 else number
        cache.set(key, [number])
        cache.get(key)
        cache.get_with(number + 1, lambda: number)
        if number % 5 == 0:
            cache.remove(key)
        if number % 1000 == 0:
            cache.clear()
            list(cache.items())
threads = [thread(lambda seed=seed: load(seed)) for seed in range(3)]

class Value:
    pass

def work():
    for number in range(300):
        cache.set(number, number)
        assert cache.get(number) == number
        cache.get_with(Key(number), lambda: number)
    references = []
    for number in range(300):
        value = Value()
        references.append(weakref.ref(value))
        cache.set("same", value)
    del value
    cache.run_pending_tasks()
    assert sum(reference() is not None for reference in references) == 1
    list(cache.items()), gc.collect()
    assert len(cache) == len(list(cache)) <= 3000
    cache.clear()
    assert len(cache) == 0
    other = thread(lambda: [cache.set(number, 1) for number in range(4000)])
    other.join()
    assert len(cache) == 3000

for _ in range(25):
    in_child(work)
done.append(True)
for it in threads:
    it.join()
""",
        timeout=100,
    )


def test_child_waits_for_no_thread_of_its_parent():
    """The child has one thread, so a removed value is released before the call returns, on both builds."""
    run_script(
        FORK
        + """
go = threading.Event()
inside = [threading.Event() for _ in range(3)]
def use(number):
    cache = Moka(10)
    cache.set("a", 1)
    cache.get("a")
    inside[number].set()
    go.wait()
threads = [thread(lambda number=number: use(number)) for number in range(3)]
for event in inside:
    event.wait()

class Value:
    def __del__(self):
        gone.append(1)

def work():
    cache = Moka(10)
    for number in range(5):
        cache.set("key", Value())
        assert len(gone) == number, gone
    one = threading.Thread(target=use, args=(0,))
    go.set()
    one.start()
    one.join()
    other = Moka(10)
    other.set("key", Value())
    other.remove("key")
    assert len(gone) == 5, gone

gone = []
# The thread that forks uses caches before, too.
Moka(10).set("a", 1)
in_child(work)
go.set()
"""
    )


def test_child_uses_methods_whose_owners_other_threads_register():
    run_script(
        FORK
        + """
from moka_py import cached
class Kind:
    @cached(weak_self=True, maxsize=None)
    def method(self, x):
        return id(self), x
# A tuple: CPython 3.13t locks a list to read it, and a fork may leave that lock taken in the child.
kept = tuple(Kind() for _ in range(20))
done = []
def load():
    while not done:
        new = tuple(Kind() for _ in range(20))
        assert all(one.method(1) == (id(one), 1) for one in kept + new)
threads = [thread(load) for _ in range(3)]
def work():
    new = tuple(Kind() for _ in range(200))
    assert all(one.method(number) == (id(one), number) for number in range(2) for one in kept + new)
    del new
    gc.collect()
    assert all(one.method(1) == (id(one), 1) for one in kept)
for _ in range(25):
    in_child(work)
done.append(True)
for it in threads:
    it.join()
""",
        timeout=100,
    )


def test_caches_from_before_and_after_the_fork_are_collected_in_the_child():
    run_script(
        FORK
        + """
cache = Moka(10)
cache.set("me", cache)
reference = weakref.ref(cache)
def work():
    global cache
    del cache
    gc.collect()
    assert reference() is None
    other = Moka(10)
    other.set("me", other)
    another = weakref.ref(other)
    del other
    gc.collect()
    assert another() is None
in_child(work)
"""
    )


def test_multiprocessing_by_fork_works():
    run_script(
        """
import multiprocessing
from moka_py import Moka
cache = Moka(100)
cache.set("a", 1)
def work(number):
    return cache.get("a") + cache.get_with(number, lambda: number)
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(10)) == list(range(1, 11))
"""
    )


@pytest.mark.parametrize("forker", ["main", "another thread"])
def test_process_can_fork_beside_threads_inside_every_operation(forker):
    """The child and its own children use the cache, wait for a computation, clear the cache, and exit."""
    run_script(
        """
import asyncio, faulthandler, os, random, signal, sys, threading, time
from moka_py import Moka, cached
sys.setswitchinterval(1e-5)
faulthandler.register(signal.SIGALRM, chain=True)
ended = []
sys.unraisablehook = lambda report: None
class Key:
    def __init__(self, name): self.name = name
    def __hash__(self): return self.name % 9
    def __eq__(self, other): time.sleep(0); return isinstance(other, Key) and self.name == other.name
def listener(*event): time.sleep(0)
def slow(*_): time.sleep(0.001); return [1]
cache = Moka(40, ttl=0.01, eviction_listener=listener, weigher=lambda key, value: time.sleep(0) or 1)
shared = cached(maxsize=10, wait_concurrent=True)(slow)
@cached(maxsize=10, wait_concurrent=True)
async def later(x):
    await asyncio.sleep(0.001)
    return x
async def gather():
    return await asyncio.gather(*(later(number % 5) for number in range(10)))
jobs = [
    lambda key: cache.set(Key(key), [key]), lambda key: cache.get(Key(key)), lambda key: cache.get_with(key % 4, slow),
    lambda key: cache.remove_if(lambda key, value: time.sleep(0)), lambda key: shared(key % 20),
    lambda key: asyncio.run(gather()), lambda key: list(cache.items()), lambda key: cache.set_many([(1, 1), (2, 2)]),
    lambda key: cache.pop(key, None),
    lambda key: cache.get_many_with([key % 4, Key(key), key % 7], lambda missing: dict.fromkeys(missing, slow())),
]
def work(number):
    dice = random.Random(number)
    while not ended:
        dice.choice(jobs)(dice.randrange(90))
        if number == 0 and dice.random() < 0.01:
            cache.clear()
threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
for thread in threads: thread.start()

def live(depth):
    signal.alarm(50)
    try:
        for number in range(60):
            cache.set(Key(number), number)
            cache.set(number, number)
            assert cache.get_with(number % 4, slow) is not None and shared(number % 20) == [1]
        assert asyncio.run(gather())[4] == 4
        results = []
        waiters = [threading.Thread(target=lambda: results.append(cache.get_with("new", slow))) for _ in range(3)]
        for it in waiters: it.start()
        for it in waiters: it.join()
        assert results == [[1]] * 3
        if depth:
            fork(depth - 1)
        cache.clear()
        cache.run_pending_tasks()
        assert len(cache) == 0
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)

def fork(depth):
    child = os.fork()
    if child == 0:
        live(depth)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"

errors = []
def forks():
    try:
        for number in range(12):
            time.sleep(random.random() * 0.01)
            fork(number % 3 == 0)
    except BaseException as error:
        errors.append(error)
"""
        + ("forks()" if forker == "main" else "forker = threading.Thread(target=forks)\nforker.start()\nforker.join()")
        + """
ended.append(True)
for thread in threads: thread.join()
if errors: raise errors[0]
""",
        timeout=100.0,
    )
