"""Which entries a full cache evicts, and that the bound is exact."""

import functools
import random
import threading
from collections import OrderedDict

import pytest
from helpers import Events, Key, contents, run_threads

from moka_py import Moka

both_policies = pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])


def victims(events):
    return [key for key, _, cause in events if cause == "size"]


@both_policies
def test_capacity_of_two_evicts_the_third_entry(policy):
    events = Events()
    cache = Moka(2, eviction_listener=events, policy=policy)
    cache.set("hello", [1, 2, 3])
    cache.set("hello", [3, 2, 1])
    cache.set("foo", [4])
    cache.set("baz", "size")
    assert contents(cache) == {"foo": [4], "baz": "size"}
    assert events == [("hello", [1, 2, 3], "replaced"), ("hello", [3, 2, 1], "size")]


@pytest.mark.parametrize(("policy", "capacity"), [("lru", 1), ("lru", 3), ("lru", 100), ("tiny_lfu", 7)])
def test_without_accesses_the_oldest_entry_is_evicted(policy, capacity):
    events = Events()
    cache = Moka(capacity, eviction_listener=events, policy=policy)
    for number in range(5 * capacity):
        cache.set(number, None)
    assert victims(events) == list(range(4 * capacity))


@pytest.mark.parametrize(("policy", "capacity"), [("lru", 3), ("lru", 100), ("tiny_lfu", 7)])
def test_entries_are_evicted_in_order_of_access(policy, capacity):
    events = Events()
    cache = Moka(capacity, eviction_listener=events, policy=policy)
    order = list(range(capacity))
    for number in order:
        cache.set(number, None)
    random.Random(5).shuffle(order)
    for number in order:
        cache.get(number)
    for number in range(capacity):
        cache.set(-1 - number, None)
    assert victims(events) == order


@pytest.mark.parametrize("capacity", [100, 2_000])
def test_lru_order_is_exact_while_another_thread_uses_another_cache(capacity):
    dice = random.Random(capacity)
    met, over = threading.Barrier(2), threading.Event()

    def other():
        mine = Moka(capacity, policy="lru")
        for number in range(3 * capacity):
            mine.set(number, number)
            mine.get(number % capacity)
        met.wait(60)
        over.wait(60)

    def main():
        met.wait(60)
        events, expected, ordered = Events(), [], OrderedDict()
        cache = Moka(capacity, policy="lru", eviction_listener=events)
        try:
            for _ in range(20 * capacity):
                key = int(1.5 * capacity * dice.random() ** 2)
                if cache.get(key) is None:
                    cache.set(key, key + 1)
                ordered[key] = None
                ordered.move_to_end(key)
                if len(ordered) > capacity:
                    expected.append(ordered.popitem(last=False)[0])
        finally:
            over.set()
        assert victims(events) == expected

    run_threads(other, main)


@pytest.mark.parametrize("capacity", [20, 2_000])
def test_entries_that_two_threads_accessed_outlive_the_others(capacity):
    cache, met = Moka(capacity, policy="lru"), threading.Barrier(2)
    cache.set(0, None)

    def use(numbers):
        cache.get(0)
        met.wait(60)
        if numbers[0] == 0:
            for number in range(capacity):
                cache.set(number, None)
        met.wait(60)
        for number in numbers:
            cache.get(number)
        met.wait(60)

    halves = range(0, capacity, 4), range(2, capacity, 4)
    run_threads(*(functools.partial(use, numbers) for numbers in halves))
    for number in range(capacity // 2):
        cache.set(-1 - number, None)
    assert all(number in cache for numbers in halves for number in numbers)
    assert len(cache) == capacity


def test_hot_entry_of_an_lru_survives_any_insert():
    cache = Moka(10, policy="lru")
    cache.set("hot", 1)
    for number in range(1000):
        cache.set(number, None)
        assert cache.get("hot") == 1


def test_tiny_lfu_keeps_popular_entries_through_a_scan():
    cache = Moka(100)
    popular = [f"popular {number}" for number in range(50)]
    for _ in range(10):
        for key in popular:
            cache.get_with(key, object)
    for number in range(1000):
        cache.set(number, None)
    assert sum(key in cache for key in popular) > 40


def test_tiny_lfu_admits_a_candidate_that_is_accessed_more_often():
    cache = Moka(100)
    for number in range(100):
        cache.set(number, None)
    for _ in range(50):
        for name in ("x", "y", "z"):
            cache.get_with(name, object)
    for number in range(1000, 1050):
        cache.set(number, None)
    assert {"x", "y", "z"} <= set(cache)


def test_removed_entries_are_never_victims():
    events = Events()
    cache = Moka(3, eviction_listener=events, policy="lru")
    for name in "abc":
        cache.set(name, None)
    cache.remove("a")
    cache.set("d", None)
    cache.set("e", None)
    assert victims(events) == ["b"]


def test_entry_set_after_its_removal_is_the_youngest():
    cache = Moka(3, policy="lru")
    for name in "abc":
        cache.set(name, None)
    cache.remove("a")
    cache.set("a", None)
    cache.set("d", None)
    assert set(cache) == {"c", "a", "d"}


# Law 6: the bound is exact.
@both_policies
@pytest.mark.parametrize("capacity", [0, 1, 2, 7, 100, 3000])
def test_bound_holds_after_each_call(policy, capacity):
    cache = Moka(capacity, policy=policy)
    for number in range(2 * capacity + 20):
        cache.set(number, None)
        expected = min(number + 1, capacity)
        assert (cache.count(), len(cache), cache.weighted_size()) == (expected,) * 3
    assert len(list(cache)) == capacity


KEYS = {
    "counted": lambda number: number,
    "strided": lambda number: number << 20,
    "far strided": lambda number: number << 50,
    "negative": lambda number: -number,
    "strings": lambda number: f"key {number}",
    "tuples": lambda number: (number, "x"),
    "floats": lambda number: number / 7,
    "eight hashes": lambda number: Key(number, number % 8 << 60) if number < 600 else Key(number),
}


# Law 6: a cache of capacity N holds N entries of weight 1, whatever the keys hash to.
@both_policies
@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("capacity", [500, 5000])
def test_capacity_is_reached_whatever_the_keys_hash_to(policy, make, capacity):
    cache = Moka(capacity, policy=policy)
    keys = [make(number) for number in range(capacity)]
    for key in keys:
        cache.set(key, None)
    assert len(cache) == capacity
    assert all(key in cache for key in keys)
    for number in range(capacity, capacity + 50):
        cache.set(make(number), None)
        assert len(cache) == capacity


# Law 6: with threads, the excess is at most one entry a thread.
@both_policies
@pytest.mark.parametrize("capacity", [10, 100, 4096])
def test_excess_is_at_most_one_entry_a_thread(policy, capacity, fast_switches):
    cache = Moka(capacity, policy=policy)

    def write(thread):
        for number in range(6000):
            cache.set((thread, number), None)

    def watch():
        most = 0
        for _ in range(3000):
            most = max(most, cache.count(), cache.weighted_size(), len(cache))
        return most

    results = run_threads(*(lambda thread=thread: write(thread) for thread in range(4)), watch)
    assert results[-1] <= capacity + 4
    assert cache.count() == len(cache) == cache.weighted_size() == len(list(cache)) == capacity


@both_policies
def test_weights_of_threads_exceed_the_bound_by_one_entry_a_thread(policy, fast_switches):
    cache = Moka(5000, policy=policy, weigher=lambda key, value: value)

    def write(thread):
        for number in range(4000):
            cache.set((thread, number), 1 + number % 10)

    def watch():
        return max(cache.weighted_size() for _ in range(3000))

    results = run_threads(*(lambda thread=thread: write(thread) for thread in range(4)), watch)
    assert results[-1] <= 5000 + 4 * 10
    assert cache.weighted_size() == sum(cache.values()) <= 5000
    assert cache.count() == len(list(cache))


# Law 7: get finds an entry that was just set.
@both_policies
@pytest.mark.parametrize("capacity", [1, 2, 3, 16, 100, 3000])
def test_get_finds_an_entry_that_was_just_set(policy, capacity):
    cache, dice = Moka(capacity, policy=policy), random.Random(7)
    for number in range(3 * capacity + 1000):
        cache.set(number, number)
        assert cache.get(number) == number
        cache.get(dice.randrange(number + 1))


# Law 7: get finds an entry that was just set, unless it alone outweighs the capacity.
@both_policies
@pytest.mark.parametrize("seed", range(5))
def test_get_finds_an_entry_that_was_just_set_with_a_weigher(policy, seed):
    cache, dice = Moka(50, policy=policy, weigher=lambda key, value: value), random.Random(seed)
    for number in range(2000):
        weight = dice.randrange(60)
        key = dice.randrange(200)
        cache.set(key, weight)
        assert (key in cache) == (weight <= 50), seed
        assert cache.weighted_size() == sum(cache.values()) <= 50, seed


@both_policies
def test_get_finds_an_entry_that_get_with_just_computed(policy):
    cache = Moka(20, policy=policy)
    for number in range(1000):
        cache.get_with(number, lambda: number)
        assert number in cache


@both_policies
def test_each_insert_into_a_full_cache_evicts_one_entry(policy):
    events = Events()
    cache = Moka(64, eviction_listener=events, policy=policy)
    for number in range(64):
        cache.set(number, None)
    for number in range(64, 500):
        before = len(events)
        cache.set(number, None)
        assert len(events) == before + 1


@both_policies
def test_replacing_in_a_full_cache_evicts_no_entry(policy):
    events = Events()
    cache = Moka(64, eviction_listener=events, policy=policy)
    for number in range(64):
        cache.set(number, None)
    for number in range(64):
        cache.set(number, number)
    assert set(events.causes()) == {"replaced"}
    assert contents(cache) == {number: number for number in range(64)}


@both_policies
def test_removal_makes_room_for_an_insert(policy):
    events = Events()
    cache = Moka(64, eviction_listener=events, policy=policy)
    for number in range(64):
        cache.set(number, None)
    for number in range(32):
        cache.remove(number)
    for number in range(100, 132):
        cache.set(number, None)
    assert victims(events) == []
    assert len(cache) == 64


@both_policies
def test_removal_in_other_shards_makes_room_for_an_insert(policy):
    events = Events()
    cache = Moka(4000, eviction_listener=events, policy=policy)
    for _ in range(5):
        for number in range(4000):
            cache.set(number, None)
        cache.clear()
    assert victims(events) == []
