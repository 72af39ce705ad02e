"""The cache beside a naive model: a dict in order of use, a list of what left, and a clock that knows two times,
at once and never. After every step both have the same contents, sizes and events."""

import random
from typing import Any, NamedTuple

import pytest
from helpers import AT_ONCE, MISSING, Events, Key

from moka_py import Moka

NEVER = 1000.0


class Entry(NamedTuple):
    value: Any
    weight: int
    due: bool


class Model:
    """A cache of least recent use, done the slow way."""

    def __init__(self, capacity, weigh):
        self.capacity, self.weigh = capacity, weigh
        self.entries = {}  # The least recently used comes first.
        self.events = []

    def weight(self):
        return sum(entry.weight for entry in self.entries.values())

    def contents(self):
        return {key: entry.value for key, entry in self.entries.items()}

    def leave(self, key, cause):
        entry = self.entries.pop(key)
        self.events.append((key, entry.value, cause))
        return entry.value

    def expire(self):
        for key in [key for key, entry in self.entries.items() if entry.due]:
            self.leave(key, "expired")

    def get(self, key):
        if key in self.entries:
            self.entries[key] = self.entries.pop(key)
            return self.entries[key].value
        return None

    def set(self, key, value, due=False):
        if key in self.entries:
            self.leave(key, "replaced")
        entry = Entry(value, self.weigh(key, value), due)
        if entry.weight > self.capacity:
            self.events.append((key, value, "size"))
            return
        while self.weight() + entry.weight > self.capacity:
            self.leave(self.victim(), "size")
        self.entries[key] = entry

    def victim(self):
        """The oldest, passing over those whose leaving would make no room."""
        return next(key for key, entry in self.entries.items() if entry.weight)

    def get_with(self, key, value, due):
        if key not in self.entries:
            self.set(key, value, due)
            return value
        return self.get(key)

    def remove(self, key):
        return self.leave(key, "explicit") if key in self.entries else None


class Follower(Model):
    """A model that is told by the cache who left for want of room, and checks that this was allowed."""

    def __init__(self, capacity, weigh, told):
        super().__init__(capacity, weigh)
        self.told = told

    def victim(self):
        """The next that the cache said to have evicted: one that was there, while the cache was over."""
        gone = [key for key, _, cause in self.told if cause == "size"]
        done = sum(cause == "size" for _, _, cause in self.events)
        assert done < len(gone), "the cache evicted too few"
        assert gone[done] in self.entries, "the cache evicted what was not there, or what it had just taken in"
        return gone[done]


def names(count):
    """Keys of many kinds, some of one hash."""
    kinds = [
        int,
        str,
        lambda number: (number, "t"),
        lambda number: Key(number, number % 3),
        lambda number: -number / 3,
    ]
    return [kinds[number % len(kinds)](number) for number in range(1, count + 1)]


def step(dice, cache, model, keys, value, durations):
    """One random operation on both, with what each returned."""
    key = dice.choice(keys)
    due = durations and dice.random() < 0.15
    options = {}
    if durations:
        options = {dice.choice(["ttl", "tti"]): AT_ONCE} if due else dice.choice([{}, {"ttl": NEVER}, {"tti": NEVER}])
    call = dice.choices(range(13), [12, 20, 4, 3, 3, 3, 5, 3, 3, 2, 1, 0.2, 1])[0]
    if call == 0:
        return cache.get(key), model.get(key)
    if call == 1:
        return cache.set(key, value, **options), model.set(key, value, due)
    if call == 2:
        return cache.remove(key), model.remove(key)
    if call == 3:
        return cache.pop(key, None), model.remove(key)
    if call == 4:
        cache[key] = value
        return None, model.set(key, value)
    if call == 5:
        return cache.setdefault(key, value), model.get_with(key, value, False)
    if call == 6:
        return cache.get_with(key, lambda: value, **options), model.get_with(key, value, due)
    if call == 7:
        return key in cache, key in model.entries
    if call == 8:
        try:
            del cache[key]
            return True, model.remove(key) is not None
        except KeyError:
            return False, key in model.entries
    if call == 9:
        try:
            popped, its_value = cache.popitem()
        except KeyError:
            return 0, len(model.entries)
        return its_value, model.remove(popped)
    if call == 10:
        some = {dice.choice(keys): (value, number) for number in range(3)}
        cache.update(some)
        for each in some.items():
            model.set(*each)
        return None, None
    if call == 11:
        cache.clear()
        for each in list(model.entries):
            model.leave(each, "explicit")
        return None, None
    left = cache.expires_in(key)
    return left is None or 0 < left <= NEVER, True


def run(seed, capacity, steps=600, policy="lru", weights=None, durations=False, exact=True):
    print("seed", seed, "capacity", capacity, policy)
    dice, told = random.Random(seed), Events()

    def weigh(key, value):
        if weights is None:
            return 1
        return weights[hash((str(key), str(value))) % len(weights)]

    of_cache = {"ttl": NEVER, "tti": NEVER} if durations and seed % 2 else {}
    weigher = {} if weights is None else {"weigher": weigh}
    cache = Moka(capacity, policy=policy, eviction_listener=told, **weigher, **of_cache)
    model = Model(capacity, weigh) if exact else Follower(capacity, weigh, told)
    keys = names(max(3, int(capacity * dice.choice([0.8, 1.5, 3]))))
    for number in range(steps):
        got, expected = step(dice, cache, model, keys, number, durations)
        assert got == expected, number
        model.expire()
        assert dict(cache.items()) == model.contents(), number
        assert len(cache) == cache.count() == len(model.entries), number
        assert cache.weighted_size() == model.weight() <= capacity, number
        assert in_order(told) == in_order(model.events), number
        assert sorted(map(str, told)) == sorted(map(str, model.events)), number
        told.clear()
        model.events.clear()


def in_order(events):
    return [key for key, _, cause in events if cause == "size"]


@pytest.mark.parametrize("capacity", range(1, 65))
def test_lru_is_exact(capacity):
    run(capacity, capacity)


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_deadlines(seed):
    run(seed, random.Random(seed).randrange(1, 65), durations=True)


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_weights(seed):
    run(seed, random.Random(seed).randrange(1, 65), weights=range(9))


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_weights_and_deadlines(seed):
    run(seed, random.Random(seed).randrange(1, 65), weights=range(9), durations=True)


@pytest.mark.parametrize("seed", range(7))
def test_small_tiny_lfu_evicts_by_recency(seed):
    run(seed, seed + 1, policy="tiny_lfu", durations=seed % 2 == 0)


@pytest.mark.parametrize("durations", [False, True], ids=["", "deadlines"])
@pytest.mark.parametrize("weights", [None, range(9), [0, 1, 1, 30]], ids=["", "weights", "uneven weights"])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
@pytest.mark.parametrize("capacity", [0, 1, 5, 16, 40, 64, 200])
def test_contents_sizes_and_events_agree_with_the_model(capacity, policy, weights, durations):
    run(capacity, capacity, policy=policy, weights=weights, durations=durations, exact=False)


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_larger_cache_agrees_with_the_model(policy):
    run(99, 2500, steps=6000 if policy == "lru" else 3000, policy=policy, exact=False)


@pytest.mark.parametrize("seed", range(3))
def test_cache_without_a_listener_agrees_with_the_model(seed):
    """The paths without a listener are paths of their own."""
    dice, cache, model = random.Random(seed), Moka(20, policy="lru"), Model(20, lambda key, value: 1)
    keys = names(40)
    for number in range(3000):
        got, expected = step(dice, cache, model, keys, number, seed == 1)
        assert got == expected, (seed, number)
        model.expire()
        assert dict(cache.items()) == model.contents(), (seed, number)
        assert cache.get("nothing", MISSING) is MISSING
