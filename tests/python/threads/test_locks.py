"""No lock is held while Python code runs (law 1), and reads take no lock (law 5).

While one thread is blocked inside a callback of the cache, another thread can make any call on it.
"""

import gc
import threading
import time

import pytest
from helpers import IMMEDIATELY_DUE, MAINTENANCE_DELAY, MISSING, Background, CallbackKey, Gate, Key

from moka_py import Moka


class StopsWhenItDies:
    def __init__(self, gate):
        self.gate = gate

    def __del__(self):
        self.gate.stop_here()


class StopsWhenHashed(Key):
    gate = None
    __eq__ = Key.__eq__

    def __hash__(self):
        if self.gate is not None:
            self.gate.stop_here()
        return super().__hash__()


def inside_eq_of_set(gate):
    cache, key = Moka(100), CallbackKey("a", 1)
    cache.set(CallbackKey("a", 1), "old")
    key.on_eq = gate.stop_here
    return cache, lambda: cache.set(key, "new")


def inside_eq_of_get(gate):
    cache, key = Moka(100), CallbackKey("a", 1)
    cache.set(CallbackKey("a", 1), "old")
    key.on_eq = gate.stop_here
    return cache, lambda: cache.get(key)


def inside_eq_of_get_with(gate):
    """Compares with an in-flight key of the same hash."""
    cache, key = Moka(100), CallbackKey("a", 1)
    key.on_eq = gate.stop_here
    return cache, lambda: cache.get_with(Key("other", 1), lambda: cache.get_with(key, list))


def inside_eq_of_remove(gate):
    cache, key = Moka(100), CallbackKey("a", 1)
    cache.set(CallbackKey("a", 1), "old")
    key.on_eq = gate.stop_here
    return cache, lambda: cache.remove(key)


def inside_hash(gate):
    cache, key = Moka(100), StopsWhenHashed("a", 1)
    key.gate = gate
    return cache, lambda: cache.set(key, 1)


def inside_weigher(gate):
    cache = Moka(100, weigher=lambda key, value: gate.stop_here() or 1 if key == "slow" else 1)
    return cache, lambda: cache.set("slow", 1)


def inside_initializer(gate):
    cache = Moka(100)
    return cache, lambda: cache.get_with("slow", gate.stop_here)


def inside_listener_of_set(gate):
    cache = Moka(100, eviction_listener=lambda key, value, cause: key == "slow" and gate.stop_here())
    cache.set("slow", 1)
    return cache, lambda: cache.set("slow", 2)


def inside_listener_of_an_expiring_get(gate):
    cache = Moka(100, eviction_listener=lambda key, value, cause: key == "slow" and gate.stop_here())
    cache.set("slow", 1, ttl=IMMEDIATELY_DUE)
    time.sleep(MAINTENANCE_DELAY)
    return cache, lambda: cache.get("other")


def inside_listener_of_clear(gate):
    cache = Moka(100, eviction_listener=lambda key, value, cause: key == "slow" and gate.stop_here())
    cache.set("slow", 1)
    return cache, cache.clear


def inside_del_of_a_replaced_value(gate):
    # The thread that drops the value makes it, because the free-threaded build frees an object in its owner's thread.
    cache = Moka(100)
    return cache, lambda: (
        cache.set("slow", StopsWhenItDies(gate)),
        cache.set("slow", 1),
        cache.run_pending_tasks(),
    )


def inside_del_of_a_cleared_value(gate):
    cache = Moka(100)
    return cache, lambda: (cache.set("slow", StopsWhenItDies(gate)), cache.clear())


PLACES = {
    function.__name__.replace("_", " "): function
    for function in (
        inside_eq_of_set,
        inside_eq_of_get,
        inside_eq_of_remove,
        inside_eq_of_get_with,
        inside_hash,
        inside_weigher,
        inside_initializer,
        inside_listener_of_set,
        inside_listener_of_an_expiring_get,
        inside_listener_of_clear,
        inside_del_of_a_replaced_value,
        inside_del_of_a_cleared_value,
    )
}


def write_and_evict(cache):
    for number in range(300):
        cache.set(number, number)


CALLS = {
    "get of a miss": lambda cache: cache.get("nothing"),
    "get of a hit": lambda cache: (cache.set("hit", 1), cache.get("hit")),
    "set and evict": write_and_evict,
    "remove": lambda cache: cache.remove("nothing"),
    "get_with": lambda cache: cache.get_with("own", lambda: 1),
    "clear": lambda cache: cache.clear(),
    "items": lambda cache: list(cache.items()),
    "count": lambda cache: (cache.count(), len(cache), cache.weighted_size(), cache.run_pending_tasks()),
    "popitem": lambda cache: (cache.set("one", 1), cache.popitem()),
    "collector": lambda cache: gc.collect(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_another_thread_can_make_any_call_during_a_callback(place, call):
    gate = Gate()
    cache, stands_inside = place(gate)
    with Background(stands_inside):
        gate.wait_until_reached()
        with Background(lambda: call(cache)):
            pass
        gate.open()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_another_thread_can_use_a_key_of_equal_hash_during_a_callback(place):
    gate = Gate()
    cache, stands_inside = place(gate)
    with Background(stands_inside):
        gate.wait_until_reached()
        assert in_background(lambda: cache.get(Key("b", 1), MISSING)) is MISSING
        assert in_background(lambda: cache.set(Key("b", 1), 2)) is None
        assert in_background(lambda: cache.get(Key("b", 1))) == 2
        gate.open()


def in_background(call):
    with Background(call) as it:
        pass
    return it.result


# Law 5: reads do not wait for a write to the same entry.
@pytest.mark.parametrize("place", [inside_eq_of_set, inside_eq_of_remove])
def test_entry_can_be_read_while_another_thread_changes_it(place):
    gate = Gate()
    cache, stands_inside = place(gate)
    (stored,) = cache
    with Background(stands_inside):
        gate.wait_until_reached()
        assert in_background(lambda: cache.get(stored)) == "old"
        assert in_background(lambda: cache.set(stored, "between")) is None
        assert in_background(lambda: cache.get(stored)) == "between"
        gate.open()
    assert cache.get(stored) == ("new" if place is inside_eq_of_set else None)


class TakesALock:
    lock = None

    def __init__(self, lock):
        self.lock = lock

    def __del__(self):
        with self.lock:
            pass


def test_finalizers_of_values_can_take_a_lock_that_threads_hold_during_cache_calls(fast_switches):
    lock = threading.RLock()
    cache = Moka(50, tti=1000)

    def drop():
        for number in range(4000):
            cache.set(number % 200, TakesALock(lock))
            if number % 7 == 0:
                cache.remove(number * 3 % 200)
            if number % 500 == 0:
                cache.clear()

    def hold():
        for number in range(4000):
            with lock:
                cache.get(number % 200)
                cache.set(("plain", number % 20), number)
                number % 100 or list(cache)

    with Background(drop), Background(drop), Background(hold), Background(hold):
        pass


def test_finalizers_of_values_can_take_a_plain_lock(fast_switches):
    lock = threading.Lock()
    cache = Moka(50, eviction_listener=lambda key, value, cause: None)

    def drop():
        for number in range(4000):
            cache.set(number % 200, TakesALock(lock))
            cache.get(number % 13)
            if number % 7 == 0:
                cache.remove(number * 3 % 200)
            if number % 500 == 0:
                cache.clear()

    def hold():
        for _ in range(20_000):
            with lock:
                pass

    with Background(drop), Background(drop), Background(drop), Background(hold):
        pass


class UsesTheCache:
    def __init__(self, cache, number):
        self.cache = cache
        self.number = number

    def __del__(self):
        self.cache.get(self.number)
        if self.number > 0:
            self.cache.set(self.number % 30, UsesTheCache(self.cache, self.number // 3 - 1))
        self.cache.remove(self.number % 7)
        len(self.cache)


def test_finalizers_of_values_can_use_the_cache(fast_switches):
    cache = Moka(20)

    def work():
        for number in range(1500):
            cache.set(number % 50, UsesTheCache(cache, number % 100))
            if number % 500 == 0:
                cache.clear()

    with Background(work), Background(work), Background(work):
        pass
    assert len(cache) <= 20
    cache.clear()


def test_finalizers_of_keys_can_use_the_cache(fast_switches):
    cache = Moka(20)

    class Mortal(Key):
        __hash__, __eq__ = Key.__hash__, Key.__eq__

        def __del__(self):
            cache.set(self.name % 5, 1)
            cache.get(self.name)

    def work():
        for number in range(1500):
            cache.set(Mortal(number % 50, number % 20), number)
            cache.remove(Mortal(number % 30, number % 20))

    with Background(work), Background(work), Background(work):
        pass
    assert len(cache) <= 20
