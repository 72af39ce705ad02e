"""`hottest` and `coldest`: the entries in the order of the policy, and a warm start with them."""

import json
import weakref

import pytest
from helpers import contents, run_threads
from traces import accesses, hits_of

from moka_py import Moka
from moka_py.testing import ManualClock

POLICIES = ["lru", "tiny_lfu"]
# From this capacity on, a cache of the free-threaded build has several shards.
MIN_SHARDED_CAPACITY = 2048


def keys_of(pairs):
    return [key for key, value in pairs]


def test_lru_is_in_the_order_of_the_last_use():
    cache = Moka(4, policy="lru")
    cache.update(a=1, b=2, c=3, d=4)
    cache.get("a")
    cache["b"] = 5
    assert cache.hottest() == [("b", 5), ("a", 1), ("d", 4), ("c", 3)]
    assert cache.coldest() == [("c", 3), ("d", 4), ("a", 1), ("b", 5)]


def test_lru_evicts_the_coldest_first():
    removed = []
    cache = Moka(500, policy="lru", eviction_listener=lambda key, value, cause: removed.append(key))
    for number in range(500):
        cache[number] = number
    for number in range(1000):
        cache.get(number * number % 500)
    order = keys_of(cache.coldest())
    for number in range(500, 1000):
        cache[number] = number
    assert removed == order


def test_tiny_lfu_is_in_the_order_of_use():
    cache = Moka(100)
    for number in range(10):
        cache[number] = number
    for key, times in ((3, 5), (7, 2), (1, 3)):
        for _ in range(times):
            cache.get(key)
    assert keys_of(cache.hottest(3)) == [3, 1, 7]
    assert set(keys_of(cache.coldest(7))) == {0, 2, 4, 5, 6, 8, 9}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", [300, 5000])
def test_limit_takes_the_first_of_all(policy, capacity):
    cache = Moka(capacity, policy=policy)
    for number in range(capacity + 100):
        cache[number] = number
        cache.get(number * number % capacity)
    everything = cache.hottest()
    assert sorted(everything) == sorted(cache.items())
    assert cache.coldest() == everything[::-1] == cache.coldest(limit=None)
    for limit in (0, 1, 255, 256, 257, capacity - 1, capacity, 10**6, 2**100):
        assert cache.hottest(limit) == everything[:limit]
        assert cache.coldest(limit=limit) == everything[::-1][:limit]


@pytest.mark.parametrize("policy", POLICIES)
def test_order_over_several_shards_follows_the_use(policy):
    cache = Moka(4 * MIN_SHARDED_CAPACITY, policy=policy)
    for number in range(MIN_SHARDED_CAPACITY * 2):
        cache[number] = number
    used = range(0, MIN_SHARDED_CAPACITY * 2, 8)
    for _ in range(3):
        for number in used:
            cache.get(number)
    found = set(keys_of(cache.hottest(len(used))))
    assert len(found & set(used)) >= 0.9 * len(used)
    assert not set(keys_of(cache.coldest(len(used)))) & set(used)


@pytest.mark.parametrize("method", [Moka.hottest, Moka.coldest])
def test_call_is_not_an_access(method):
    with ManualClock() as clock:
        cache = Moka(3, tti=10, policy="lru")
    cache.update(a=1, b=2, c=3)
    before = cache.stats()
    clock.advance(6)
    assert len(method(cache)) == 3
    assert cache.stats() == before
    assert cache.expires_in("a") == 4
    cache["d"] = 4
    assert "a" not in cache


@pytest.mark.parametrize("policy", POLICIES)
def test_expired_entries_are_left_out(policy):
    with ManualClock() as clock:
        cache = Moka(100, policy=policy)
    cache.set("a", 1, ttl=1)
    cache.set("b", 2, ttl=2)
    clock.advance(1)
    assert cache.hottest() == cache.coldest() == [("b", 2)]
    clock.advance(1)
    assert cache.hottest() == cache.coldest() == []


def test_empty_cache_has_an_empty_list():
    assert Moka(10).hottest() == Moka(0).coldest() == []


@pytest.mark.parametrize("method", [Moka.hottest, Moka.coldest])
def test_wrong_limit_is_refused(method):
    cache = Moka(10)
    for wrong in (-1, -(2**70)):
        with pytest.raises(ValueError, match=f"limit must be at least 0, got {wrong}"):
            method(cache, wrong)
    for wrong in (1.0, "1"):
        with pytest.raises(TypeError, match="limit must be an int or None, got"):
            method(cache, wrong)


def test_pairs_are_the_objects_of_the_cache():
    cache, key, value = Moka(10), (1, "key"), object()
    cache[key] = value
    [(found_key, found)] = cache.hottest()
    assert found_key is key and found is value


def test_entries_out_of_the_limit_are_released():
    class Value:
        pass

    cache = Moka(2000)
    references = []
    for number in range(1500):
        cache[number] = value = Value()
        references.append(weakref.ref(value))
    del value
    assert len(cache.hottest(10)) == 10
    cache.clear()
    assert not any(reference() for reference in references)


def test_keys_are_neither_hashed_nor_compared():
    class Key:
        calls = 0

        def __hash__(self):
            Key.calls += 1
            return 5

        def __eq__(self, other):
            Key.calls += 1
            return self is other

    cache = Moka(100)
    for number in range(20):
        cache[Key()] = number
    Key.calls = 0
    assert len(cache.hottest()) == len(cache.coldest()) == 20
    assert Key.calls == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_entry_that_stays_is_listed_once_whatever_other_threads_do(policy, fast_switches):
    cache = Moka(20_000, policy=policy)
    lasting = range(2000)
    for number in lasting:
        cache[number] = number
    stop = []

    def write():
        number = 100_000
        while not stop:
            number += 1
            cache[number % 1000 + 100_000] = number
            cache.get(number % 2000)
            cache.remove((number + 500) % 1000 + 100_000)

    def rank():
        try:
            for _ in range(10):
                for pairs in (cache.hottest(), cache.coldest()):
                    kept = [key for key, value in pairs if key < 2000]
                    assert len(kept) == len(lasting) == len(set(kept))
        finally:
            stop.append(True)

    run_threads(write, write, rank)


def save(cache, path):
    path.write_text(json.dumps(cache.hottest()))


def load(cache, path):
    for key, value in reversed(json.loads(path.read_text())):
        cache.set(key, value)


# Under "lru" a warm start restores the whole order. Under "tiny_lfu" it does not restore the size of the window, so the
# rows are those of a trace that wants the window of a new cache.
WARM_STARTS = [
    ("2_pools", 400, "lru"),
    ("2_pools", 5000, "lru"),
    ("sprite", 500, "lru"),
    ("web12", 2000, "lru"),
    ("2_pools", 400, "tiny_lfu"),
    ("2_pools", 5000, "tiny_lfu"),
]


@pytest.mark.parametrize(("name", "capacity", "policy"), WARM_STARTS)
def test_warm_start_has_the_hits_of_a_cache_that_was_never_stopped(tmp_path, name, capacity, policy):
    keys = accesses(name)
    hits, accessed = [0, 0, 0], 0
    for stop in range(len(keys) // 4, len(keys) * 3 // 4, len(keys) // 8):
        following = keys[stop : stop + 2 * capacity]
        lasting, started, empty = (Moka(capacity, policy=policy) for _ in range(3))
        hits_of(lasting, keys[:stop])
        save(lasting, tmp_path / "cache.json")
        load(started, tmp_path / "cache.json")
        assert contents(started) == contents(lasting)
        for number, cache in enumerate((lasting, started, empty)):
            hits[number] += hits_of(cache, following)
        accessed += len(following)
    lasting, started, empty = (100 * count / accessed for count in hits)
    assert abs(started - lasting) <= 1, (lasting, started)
    assert empty < lasting - 5, (lasting, empty)
