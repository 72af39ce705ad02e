"""The cache releases removed values promptly (law 11).

On the GIL build it does so before the call returns. On the free-threaded build at most 64 values per thread await
release, and none after `run_pending_tasks()`, `clear()` or the destruction of the cache.
"""

import gc
import sys
import threading
import time
import weakref

import pytest
from helpers import (
    FREE_THREADED,
    IMMEDIATELY_DUE,
    MAINTENANCE_DELAY,
    MAX_UNRELEASED_PER_THREAD,
    Background,
    Key,
    count_alive,
    run_script,
    run_threads,
    watched_values,
)

from moka_py import Moka


@pytest.fixture(autouse=True)
def without_the_collector():
    """Disable the collector, so that only the cache can have released a value."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


LEAVE = {
    "remove": lambda cache: cache.remove("a"),
    "pop": lambda cache: cache.pop("a"),
    "popitem": lambda cache: cache.popitem(),
    "del": lambda cache: cache.__delitem__("a"),
    "set": lambda cache: cache.set("a", 1),
    "setitem": lambda cache: cache.__setitem__("a", 1),
    "update": lambda cache: cache.update(a=1),
    "clear": lambda cache: cache.clear(),
    "eviction": lambda cache: [cache.set(number, 1) for number in range(10)],
    "too heavy": lambda cache: cache.set("a", 1000),
}
EXPIRE = {
    "get": lambda cache: (time.sleep(MAINTENANCE_DELAY), cache.get("a")),
    "get of another": lambda cache: (time.sleep(MAINTENANCE_DELAY), cache.get("b")),
    "set": lambda cache: (time.sleep(MAINTENANCE_DELAY), cache.set("b", 1)),
    "in": lambda cache: (time.sleep(MAINTENANCE_DELAY), "a" in cache),
    "len": len,
    "iter": list,
    "run_pending_tasks": lambda cache: cache.run_pending_tasks(),
}


def weigh(key, value):
    return value if isinstance(value, int) else 1


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_removed_value_is_released(leave, policy):
    cache = Moka(5, policy=policy, weigher=weigh)
    (value,), (reference,) = watched_values(1)
    cache.set("a", value)
    del value
    assert reference() is not None
    leave(cache)
    if FREE_THREADED:
        cache.run_pending_tasks()
    assert reference() is None


@pytest.mark.parametrize("call", EXPIRE.values(), ids=EXPIRE)
def test_expired_value_is_released(call):
    cache = Moka(5)
    (value,), (reference,) = watched_values(1)
    cache.set("a", value, ttl=IMMEDIATELY_DUE)
    del value
    call(cache)
    if FREE_THREADED:
        cache.run_pending_tasks()
    assert reference() is None


def test_removed_key_is_released():
    class Mortal(Key):
        __hash__, __eq__ = Key.__hash__, Key.__eq__

    cache = Moka(5)
    key = Mortal("a")
    reference = weakref.ref(key)
    cache.set(key, 1)
    del key
    assert reference() is not None
    cache.remove(Key("a"))
    cache.run_pending_tasks()
    assert reference() is None


def test_equal_key_object_of_a_later_set_is_not_kept():
    class Mortal(Key):
        __hash__, __eq__ = Key.__hash__, Key.__eq__

    cache, second = Moka(5), Mortal("a")
    reference = weakref.ref(second)
    cache.set(Key("a"), 1)
    cache.set(second, 2)
    del second
    cache.run_pending_tasks()
    assert reference() is None


def test_value_that_is_set_repeatedly_is_held_once():
    cache, ((value,), (reference,)) = Moka(5), watched_values(1)
    cache.set("a", value)
    cache.run_pending_tasks()
    before = sys.getrefcount(value)
    for _ in range(100):
        cache.set("a", value)
    cache.run_pending_tasks()
    assert sys.getrefcount(value) == before
    cache.set("a", 1)
    del value
    cache.run_pending_tasks()
    assert reference() is None


def test_values_are_released_when_the_cache_is_destroyed():
    cache = Moka(1000)
    values, references = watched_values(1000)
    cache.update(enumerate(values))
    del values
    assert count_alive(references) == 1000
    del cache
    assert count_alive(references) == 0


def test_removed_values_are_released_when_the_cache_is_destroyed():
    cache = Moka(1000)
    values, references = watched_values(1000)
    cache.update(enumerate(values))
    del values
    for number in range(0, 1000, 2):
        cache.remove(number)
    del cache
    assert count_alive(references) == 0


@pytest.mark.parametrize("end", [Moka.clear, lambda cache: (cache.clear(), cache.run_pending_tasks())])
def test_values_are_released_by_clear(end):
    cache = Moka(5000)
    values, references = watched_values(5000)
    cache.update(enumerate(values))
    del values
    end(cache)
    assert count_alive(references) == 0


def test_clear_releases_values_removed_before_it():
    cache = Moka(1000)
    values, references = watched_values(50)
    cache.update(enumerate(values))
    del values
    for number in range(50):
        cache.remove(number)
    cache.clear()
    assert count_alive(references) == 0


@pytest.mark.parametrize(
    "step",
    [
        lambda cache, number, value: cache.set("same", value),
        lambda cache, number, value: cache.set(number, value),
        lambda cache, number, value: (cache.set("x", value), cache.remove("x")),
        lambda cache, number, value: cache.set(number, value, ttl=IMMEDIATELY_DUE),
        lambda cache, number, value: (cache.get_with(number, lambda: value), cache.pop(number)),
    ],
    ids=["replace", "evict", "remove", "expire", "compute and pop"],
)
def test_few_removed_values_await_release(step):
    cache, references = Moka(10), []
    for number in range(3000):
        (value,), (reference,) = watched_values(1)
        references.append(reference)
        step(cache, number, value)
        del value
        if number % 50 == 0:
            assert count_alive(references[-500:]) <= 10 + 1 + MAX_UNRELEASED_PER_THREAD
    assert count_alive(references) <= 10 + 1 + MAX_UNRELEASED_PER_THREAD
    cache.run_pending_tasks()
    assert count_alive(references) == len(cache)


def test_few_removed_values_of_each_thread_await_release():
    cache, references = Moka(10), [[] for _ in range(4)]

    def work(mine):
        for number in range(3000):
            (value,), (reference,) = watched_values(1)
            mine.append(reference)
            cache.set(number % 37, value)
            del value

    run_threads(*(lambda mine=mine: work(mine) for mine in references))
    everything = [reference for mine in references for reference in mine]
    assert count_alive(everything) <= 10 + 4 * MAX_UNRELEASED_PER_THREAD
    cache.run_pending_tasks()
    assert count_alive(everything) == len(cache) == 10
    cache.clear()
    assert count_alive(everything) == 0


def test_values_removed_by_dead_threads_are_released():
    holder, references = [Moka(10)], []

    def work():
        values, mine = watched_values(20)
        references.extend(mine)
        for value in values:
            holder[0].set("same", value)

    for _ in range(50):
        with Background(work):
            pass
    holder[0].run_pending_tasks()
    assert count_alive(references) == 1
    holder.clear()
    assert count_alive(references) == 0


def test_reading_thread_does_not_block_the_release(fast_switches):
    cache, done, references = Moka(100), [], []

    def read():
        while not done:
            for number in range(50):
                cache.get(number)

    with Background(read):
        try:
            for number in range(5000):
                (value,), (reference,) = watched_values(1)
                references.append(reference)
                cache.set(number % 50, value)
                del value
            assert count_alive(references) <= 50 + 1 + 2 * MAX_UNRELEASED_PER_THREAD
        finally:
            done.append(True)
    cache.run_pending_tasks()
    assert count_alive(references) == 50


@pytest.mark.parametrize("kind", ["listener", "weigher"])
def test_callables_are_released_with_the_cache(kind):
    class Callable:
        def __call__(self, *args):
            return 1

    function = Callable()
    reference = weakref.ref(function)
    cache = Moka(10, **{"eviction_listener" if kind == "listener" else kind: function})
    del function
    assert reference() is not None
    del cache
    assert reference() is None


def test_value_is_released_even_if_the_listener_raises(unraisable):
    def listener(key, value, cause):
        raise ZeroDivisionError

    cache = Moka(10, eviction_listener=listener)
    (value,), (reference,) = watched_values(1)
    cache.set("a", value)
    del value
    cache.clear()
    for error in unraisable:
        error.__traceback__ = None
    assert reference() is None


def test_value_of_a_failed_insert_is_released():
    def refuse(key, value):
        raise ZeroDivisionError

    cache = Moka(10, weigher=refuse)
    (value,), (reference,) = watched_values(1)
    try:
        cache.set("a", value)
    except ZeroDivisionError:
        pass
    del value
    assert reference() is None


def test_computed_value_that_is_not_stored_is_released():
    cache, references = Moka(10), []

    def compute():
        (value,), (reference,) = watched_values(1)
        references.append(reference)
        cache.set("a", "by hand")
        return value

    cache.get_with("a", compute)
    cache.run_pending_tasks()
    assert references[0]() is None


def test_waiters_release_a_shared_value():
    cache = Moka(10)
    started, references = threading.Semaphore(0), []

    def compute():
        for _ in range(3):
            started.acquire()
        (value,), (reference,) = watched_values(1)
        references.append(reference)
        return value

    def ask():
        started.release()
        cache.get_with("a", compute)

    run_threads(ask, ask, ask)
    cache.remove("a")
    cache.run_pending_tasks()
    assert [reference() for reference in references] == [None]


def test_iterators_keep_no_removed_value_alive():
    cache = Moka(1000)
    values, references = watched_values(1000)
    cache.update(enumerate(values))
    del values
    iterator = iter(cache.values())
    next(iterator)
    cache.clear()
    cache.run_pending_tasks()
    assert count_alive(references) == 0
    assert list(iterator) == []


# While only one thread uses caches, the free-threaded build waits for no reader either.
def test_values_are_released_immediately_while_only_one_thread_uses_caches():
    run_script(
        """
import threading
from moka_py import Moka

class Value:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        gone.append(self.name)

def use():
    gone.clear()
    cache = Moka(10)
    for name in range(5):
        cache.set("key", Value(name))
        assert gone == list(range(name)), gone
    cache.remove("key")
    assert gone == [0, 1, 2, 3, 4], gone
    for name in range(20):
        cache.set(name, Value(name))
    assert len(gone) == 15, gone

gone = []
use()
# A second thread begins and ends, so there is one thread again.
other = threading.Thread(target=lambda: Moka(10).set(1, 1))
other.start()
other.join()
use()
"""
    )


def test_second_thread_reads_only_live_values():
    run_script(
        """
import sys, threading, time
from moka_py import Moka
sys.setswitchinterval(1e-6)

class Value:
    def __init__(self):
        self.lives = True
    def __del__(self):
        self.lives = False

def read(cache, ready):
    ready.wait()
    for _ in range(50):
        for key in range(4):
            value = cache.get(key)
            assert value is None or value.lives

def meet():
    # This cache has no retire lists yet.
    cache, ready = Moka(4), threading.Barrier(2)
    for key in range(4):
        cache.set(key, Value())
    newcomer = threading.Thread(target=read, args=(cache, ready))
    newcomer.start()
    ready.wait()
    while newcomer.is_alive():
        for key in range(4):
            cache.set(key, Value())
        cache.remove(0)
    newcomer.join()

def fail(failed):
    failures.append(failed)

failures, threading.excepthook = [], fail
end = time.monotonic() + 2
while time.monotonic() < end:
    meet()
assert not failures, failures
"""
    )


def test_unused_cache_delays_no_release():
    """A call on another cache does not keep the values that the first cache removed."""
    first, second = Moka(10), Moka(10)
    values, references = watched_values(100)
    for value in values:
        first.set("same", value)
    del values, value
    first.run_pending_tasks()
    second.set("a", 1)
    assert count_alive(references) == 1


def test_values_die_in_the_thread_that_removed_them():
    """This holds on the GIL build. On no build does a value die in a thread that Python does not know (law 3)."""
    died, known = [], set()

    class Mortal:
        def __del__(self):
            died.append(threading.get_ident())

    cache = Moka(10)

    def work():
        known.add(threading.get_ident())
        for number in range(200):
            cache.set(number % 20, Mortal())

    for _ in range(20):
        with Background(work), Background(work):
            pass
    known.add(threading.get_ident())
    cache.clear()
    cache.run_pending_tasks()
    assert len(died) == 20 * 2 * 200
    assert set(died) <= known
