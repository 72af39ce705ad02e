"""Random calls on a cache and on a naive model of it: a dict in order of use, and a list of removals.

Durations are either over immediately or very long. After every call both have the same contents, sizes and events.
"""

import random
from typing import Any, NamedTuple

import pytest
from helpers import IMMEDIATELY_DUE, MISSING, Events, Key

from moka_py import Moka

NEVER = 1000.0


class Entry(NamedTuple):
    value: Any
    weight: int
    expired: bool


class NaiveLru:
    """An LRU cache, implemented the slow way."""

    def __init__(self, capacity, weigh):
        self.capacity, self.weigh = capacity, weigh
        self.entries = {}  # In order of use, the least recently used first.
        self.events = []
        self.is_closed = False

    def weight(self):
        return sum(entry.weight for entry in self.entries.values())

    def contents(self):
        return {key: entry.value for key, entry in self.entries.items()}

    def remove_entry(self, key, cause):
        entry = self.entries.pop(key)
        self.events.append((key, entry.value, cause))
        return entry.value

    def remove_expired(self):
        for key in [key for key, entry in self.entries.items() if entry.expired]:
            self.remove_entry(key, "expired")

    def get(self, key):
        if key in self.entries:
            self.entries[key] = self.entries.pop(key)
            return self.entries[key].value
        return None

    def set(self, key, value, expired=False):
        if key in self.entries:
            self.remove_entry(key, "replaced")
        entry = Entry(value, self.weigh(key, value), expired)
        if entry.weight > self.capacity or self.is_closed:
            self.events.append((key, value, "size"))
            return
        while self.weight() + entry.weight > self.capacity:
            self.remove_entry(self.victim(), "size")
        self.entries[key] = entry

    def resize(self, capacity):
        self.capacity, self.is_closed = capacity, capacity == 0
        while self.weight() > capacity:
            self.remove_entry(self.victim(), "size")
        # After a resize to 0, entries of weight zero leave last, in any order.
        while self.is_closed and self.entries:
            self.remove_entry(self.next_weightless(), "size")

    def next_weightless(self):
        return next(iter(self.entries))

    def victim(self):
        """The least recently used entry that has a weight."""
        return next(key for key, entry in self.entries.items() if entry.weight)

    def get_with(self, key, value, expired):
        if key not in self.entries:
            self.set(key, value, expired)
            return value
        return self.get(key)

    def remove(self, key):
        return self.remove_entry(key, "explicit") if key in self.entries else None


class FollowingModel(NaiveLru):
    """A model that takes the victims from the events of the cache, and checks that each was allowed."""

    def __init__(self, capacity, weigh, listener_events):
        super().__init__(capacity, weigh)
        self.listener_events = listener_events

    def victim(self):
        """The next victim of the cache, which must be an entry of the model."""
        victims = [key for key, _, cause in self.listener_events if cause == "size"]
        done = sum(cause == "size" for _, _, cause in self.events)
        assert done < len(victims), "the cache evicted too few"
        assert victims[done] in self.entries, "the cache evicted an absent entry or the one just inserted"
        return victims[done]

    def next_weightless(self):
        return self.victim()


def make_keys(count):
    """Return keys of many types, some of equal hash."""
    kinds = [
        int,
        str,
        lambda number: (number, "t"),
        lambda number: Key(number, number % 3),
        lambda number: -number / 3,
    ]
    return [kinds[number % len(kinds)](number) for number in range(1, count + 1)]


def random_call(dice, cache, model, keys, value, durations):
    """Make one random call on both, and return both results."""
    key = dice.choice(keys)
    expired = durations and dice.random() < 0.15
    options = {}
    if durations:
        options = (
            {dice.choice(["ttl", "tti"]): IMMEDIATELY_DUE}
            if expired
            else dice.choice([{}, {"ttl": NEVER}, {"tti": NEVER}])
        )
    call = dice.choices(range(14), [12, 20, 4, 3, 3, 3, 5, 3, 3, 2, 1, 0.2, 1, 0.4])[0]
    if call == 0:
        return cache.get(key), model.get(key)
    if call == 1:
        return cache.set(key, value, **options), model.set(key, value, expired)
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
        return cache.get_with(key, lambda: value, **options), model.get_with(key, value, expired)
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
            model.remove_entry(each, "explicit")
        return None, None
    if call == 13:
        capacity = dice.choice([0, 1, len(keys) // 4, len(keys) // 2, len(keys)])
        return cache.resize(capacity), model.resize(capacity)
    remaining = cache.expires_in(key)
    return remaining is None or 0 < remaining <= NEVER, True


def compare(seed, capacity, steps=600, policy="lru", weights=None, durations=False, exact=True):
    print("seed", seed, "capacity", capacity, policy)
    dice, listener_events = random.Random(seed), Events()

    def weigh(key, value):
        if weights is None:
            return 1
        return weights[hash((str(key), str(value))) % len(weights)]

    of_cache = {"ttl": NEVER, "tti": NEVER} if durations and seed % 2 else {}
    weigher = {} if weights is None else {"weigher": weigh}
    cache = Moka(capacity, policy=policy, eviction_listener=listener_events, **weigher, **of_cache)
    model = NaiveLru(capacity, weigh) if exact else FollowingModel(capacity, weigh, listener_events)
    keys = make_keys(max(3, int(capacity * dice.choice([0.8, 1.5, 3]))))
    for number in range(steps):
        got, expected = random_call(dice, cache, model, keys, number, durations)
        assert got == expected, number
        model.remove_expired()
        assert dict(cache.items()) == model.contents(), number
        assert len(cache) == cache.count() == len(model.entries), number
        assert cache.weighted_size() == model.weight() <= model.capacity == cache.capacity, number
        assert victims_in_order(listener_events, model) == victims_in_order(model.events, model), number
        assert sorted(map(str, listener_events)) == sorted(map(str, model.events)), number
        listener_events.clear()
        model.events.clear()


def victims_in_order(events, model):
    """The victims. After a resize to 0 there are none, since it removes entries of weight zero in any order."""
    return [] if model.is_closed else [key for key, _, cause in events if cause == "size"]


@pytest.mark.parametrize("capacity", range(1, 65))
def test_lru_is_exact(capacity):
    compare(capacity, capacity)


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_deadlines(seed):
    compare(seed, random.Random(seed).randrange(1, 65), durations=True)


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_weights(seed):
    compare(seed, random.Random(seed).randrange(1, 65), weights=range(9))


@pytest.mark.parametrize("seed", range(20))
def test_lru_is_exact_with_weights_and_deadlines(seed):
    compare(seed, random.Random(seed).randrange(1, 65), weights=range(9), durations=True)


@pytest.mark.parametrize("seed", range(7))
def test_small_tiny_lfu_evicts_by_recency(seed):
    compare(seed, seed + 1, policy="tiny_lfu", durations=seed % 2 == 0)


@pytest.mark.parametrize("durations", [False, True], ids=["", "deadlines"])
@pytest.mark.parametrize("weights", [None, range(9), [0, 1, 1, 30]], ids=["", "weights", "uneven weights"])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
@pytest.mark.parametrize("capacity", [0, 1, 5, 16, 40, 64, 200])
def test_contents_sizes_and_events_agree_with_the_model(capacity, policy, weights, durations):
    compare(capacity, capacity, policy=policy, weights=weights, durations=durations, exact=False)


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_larger_cache_agrees_with_the_model(policy):
    compare(99, 2500, steps=6000 if policy == "lru" else 3000, policy=policy, exact=False)


@pytest.mark.parametrize("seed", range(3))
def test_cache_without_a_listener_agrees_with_the_model(seed):
    """Without a listener the cache takes other code paths."""
    dice, cache, model = random.Random(seed), Moka(20, policy="lru"), NaiveLru(20, lambda key, value: 1)
    keys = make_keys(40)
    for number in range(3000):
        got, expected = random_call(dice, cache, model, keys, number, seed == 1)
        assert got == expected, (seed, number)
        model.remove_expired()
        assert dict(cache.items()) == model.contents(), (seed, number)
        assert cache.get("nothing", MISSING) is MISSING
