"""Iteration is weakly consistent: changes never make it raise, and it yields entries that stay throughout once."""

import random
import time
from collections import Counter

import pytest
from helpers import IMMEDIATELY_DUE, Background, Key, run_threads

from moka_py import Moka

KINDS = {
    "iter": iter,
    "keys": lambda cache: iter(cache.keys()),
    "values": lambda cache: iter(cache.values()),
    "items": lambda cache: iter(cache.items()),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def filled(count=100, capacity=10_000, **options):
    cache = Moka(capacity, **options)
    for number in range(count):
        cache.set(number, number)
    return cache


@every_kind
def test_iterator_is_its_own_iterator(kind):
    iterator = kind(filled())
    assert iter(iterator) is iterator


@every_kind
def test_exhausted_iterator_stays_exhausted(kind):
    cache = filled()
    iterator = kind(cache)
    assert len(list(iterator)) == 100
    cache.set("new", 1)
    assert list(iterator) == []
    with pytest.raises(StopIteration):
        next(iterator)


@every_kind
def test_iterator_of_an_empty_cache_ends(kind):
    assert list(kind(Moka(10))) == []
    assert list(kind(Moka(0))) == []


@every_kind
def test_iteration_yields_each_entry_once(kind):
    for count in (1, 2, 7, 8, 100, 5000):
        things = [thing[0] if isinstance(thing, tuple) else thing for thing in kind(filled(count))]
        assert sorted(things) == list(range(count))


def test_iteration_yields_keys_of_equal_hash_once_each():
    cache = Moka(1000)
    for number in range(300):
        cache.set(Key(number, number % 3), number)
    assert sorted(cache.values()) == list(range(300))


def test_iterators_are_independent():
    cache = filled(10)
    assert sorted((one, other) for one in cache for other in cache) == [(i, j) for i in range(10) for j in range(10)]


def test_yielded_keys_can_be_removed_during_iteration():
    cache = filled()
    seen = []
    for key in cache:
        seen.append(key)
        del cache[key]
    assert sorted(seen) == list(range(100))
    assert len(cache) == 0


def test_popitem_during_iteration_leaves_no_entry():
    cache = filled()
    seen = [(key, cache.popitem()) for key in cache]
    assert 50 <= len(seen) <= 100
    assert len(cache) == 100 - len(seen)


@every_kind
def test_clear_ends_an_iteration(kind):
    cache = filled()
    iterator = kind(cache)
    next(iterator)
    cache.clear()
    assert list(iterator) == []


def test_replacing_values_during_iteration_yields_each_key_once():
    cache = filled(1000)
    seen = []
    for key in cache:
        seen.append(key)
        cache.set(key, -key)
    assert sorted(seen) == list(range(1000))
    assert sorted(cache.values()) == list(range(-999, 1))


def test_items_yields_the_value_at_that_moment():
    cache = filled()
    iterator = iter(cache.items())
    first, _ = next(iterator)
    for number in range(100):
        cache.set(number, "new")
    assert {value for _, value in iterator} == {"new"}


def test_iteration_yields_lasting_entries_once_while_the_map_grows():
    cache = filled(100, 1_000_000)
    iterator, seen = iter(cache), []
    for step in range(50):
        seen.append(next(iterator))
        for number in range(200):
            cache.set((step, number), 0)
    seen.extend(iterator)
    counts = Counter(key for key in seen if not isinstance(key, tuple))
    assert counts == Counter(range(100))


def test_iteration_yields_lasting_entries_once_while_the_map_shrinks():
    cache = filled(100, 1_000_000)
    for number in range(10_000):
        cache.set(("extra", number), 0)
    iterator = iter(cache)
    seen = [next(iterator) for _ in range(20)]
    for number in range(10_000):
        cache.remove(("extra", number))
    cache.run_pending_tasks()
    seen.extend(iterator)
    counts = Counter(key for key in seen if not isinstance(key, tuple))
    assert counts == Counter(range(100))


@pytest.mark.time_limit(60)
def test_iteration_that_adds_entries_terminates():
    cache, steps = filled(10, 1000), 0
    for _ in cache:
        cache.set(object(), 1)
        steps += 1
        assert steps < 1_000_000
    assert len(cache) <= 1000


@pytest.mark.time_limit(60)
def test_iteration_that_always_adds_entries_terminates():
    cache, steps = filled(10, 10**9), 0
    for _ in cache:
        cache.set(object(), 1)
        steps += 1
        assert steps < 1_000_000


@every_kind
def test_entries_that_expire_during_iteration_are_not_yielded(kind):
    cache = Moka(100)
    for number in range(10):
        cache.set(number, number, ttl=0.1)
    iterator = kind(cache)
    next(iterator, None)
    time.sleep(0.12)
    assert list(iterator) == []


def test_expired_entries_are_not_yielded():
    cache = filled(100)
    for number in range(100):
        cache.set(("due", number), 0, ttl=IMMEDIATELY_DUE)
    assert sorted(cache) == list(range(100))


@every_kind
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_iteration_yields_lasting_entries_once_whatever_threads_do(kind, policy, fast_switches):
    cache, done = Moka(100_000, policy=policy), []
    for number in range(300):
        cache.set(("stays", number), ("stays", number))

    def churn(seed):
        dice = random.Random(seed)
        while not done:
            size = dice.randrange(1, 2000)
            for number in range(size):
                cache.set((seed, number), 0, ttl=IMMEDIATELY_DUE if number % 9 == 0 else None)
            for number in range(size):
                cache.remove((seed, number))

    def key_of(thing):
        return thing[0] if isinstance(thing[0], tuple) else thing

    with Background(lambda: churn(1)), Background(lambda: churn(2)):
        try:
            for _ in range(40):
                stayed = [thing for thing in kind(cache) if thing != 0 and key_of(thing)[0] == "stays"]
                assert len(stayed) == len(set(stayed)) == 300
        finally:
            done.append(True)


def test_values_replaced_during_iteration_do_not_hide_their_keys(fast_switches):
    cache, done = filled(200), []

    def replace():
        while not done:
            for number in range(200):
                cache.set(number, number)

    with Background(replace):
        try:
            for _ in range(60):
                assert sorted(cache) == list(range(200))
        finally:
            done.append(True)


def test_len_and_iteration_work_beside_clear(fast_switches):
    cache, done = Moka(1000), []

    def change():
        while not done:
            for number in range(100):
                cache.set(number, number)
            cache.clear()

    with Background(change):
        try:
            for _ in range(500):
                # An entry that was removed and set again may be yielded twice.
                assert set(cache) <= set(range(100))
                assert 0 <= len(cache) <= 100
        finally:
            done.append(True)


def test_threads_can_share_an_iterator(fast_switches):
    for _ in range(20):
        iterator = iter(filled(500))
        seen = [key for keys in run_threads(*[lambda: list(iterator)] * 4) for key in keys]
        assert sorted(seen) == list(range(500))
