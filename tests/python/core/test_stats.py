"""`stats()` counts hits, misses, inserts, and removals by cause."""

import pickle
import random
import time
from collections import Counter

import pytest
from helpers import (
    IMMEDIATELY_DUE,
    CallbackKey,
    Events,
    Key,
    counted,
)

import moka_py
from moka_py import Moka, Stats
from moka_py.testing import ManualClock

FIELDS = """hits misses hit_ratio inserts replacements evictions expirations removals loads load_failures load_seconds
weight count refreshes""".split()


# Each kind of cache and of key takes another code path.
CACHES = {
    "plain": {},
    "lru": {"policy": "lru"},
    "listener": {"eviction_listener": lambda *_: None},
    "weigher": {"weigher": lambda *_: 1},
    "ttl": {"ttl": 1000},
}


KEYS = {"str": str, "int": int, "tuple": lambda number: (number, "x"), "own": lambda number: Key(number, number % 2)}


every_cache = pytest.mark.parametrize("options", CACHES.values(), ids=CACHES)


every_key = pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)


def subscript(cache, key):
    try:
        cache[key]
    except KeyError:
        pass


ACCESSES = {
    "get": lambda cache, key: cache.get(key),
    "get with a default": lambda cache, key: cache.get(key, 1),
    "get by name": lambda cache, key: cache.get(key=key),
    "subscript": subscript,
    "setdefault": lambda cache, key: cache.setdefault(key, 1),
    "get_with": lambda cache, key: cache.get_with(key, lambda: 1),
    "get_many": lambda cache, key: cache.get_many([key]),
}


NO_ACCESSES = {
    "in": lambda cache, key: key in cache,
    "in keys": lambda cache, key: key in cache.keys(),
    "in values": lambda cache, key: "value" in cache.values(),
    "in items": lambda cache, key: (key, "value") in cache.items(),
    "iteration": lambda cache, key: [list(cache), list(cache.values()), list(cache.items())],
    "expires_in": lambda cache, key: cache.expires_in(key),
    "set": lambda cache, key: cache.set(key, 1),
    "subscript": lambda cache, key: cache.__setitem__(key, 1),
    "update": lambda cache, key: cache.update([(key, 1)]),
    "set_many": lambda cache, key: cache.set_many([(key, 1)]),
    "remove": lambda cache, key: cache.remove(key),
    "pop": lambda cache, key: cache.pop(key, None),
    "remove_many": lambda cache, key: cache.remove_many([key]),
    "remove_if": lambda cache, key: cache.remove_if(lambda held, value: held == key),
    "popitem": lambda cache, key: cache.popitem(),
    "clear": lambda cache, key: cache.clear(),
    "sizes": lambda cache, key: (len(cache), cache.count(), cache.weighted_size(), repr(cache), cache.stats()),
    "run_pending_tasks": lambda cache, key: cache.run_pending_tasks(),
}


def test_counts_of_a_new_cache_are_zero():
    assert Moka(10).stats() == (0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0)


def test_fields_have_a_fixed_order_and_types():
    cache = Moka(10)
    cache.get_with("a", time.time)
    stats = cache.stats()
    assert type(stats) is Stats is moka_py.Stats
    assert list(stats._fields) == FIELDS
    kinds = {name: type(value) for name, value in stats._asdict().items()}
    floats = {"hit_ratio": float, "load_seconds": float}
    assert kinds == {name: floats.get(name, int) for name in FIELDS}


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_has_a_docstring(name):
    text = getattr(Stats, name).__doc__
    assert text and "Alias for field" not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_stats_can_be_pickled(protocol):
    cache = Moka(10)
    cache.get("a")
    stats = cache.stats()
    copy = pickle.loads(pickle.dumps(stats, protocol))
    assert copy == stats
    assert type(copy) is Stats


def test_stats_are_a_snapshot():
    cache = Moka(10)
    before = cache.stats()
    cache.get("a")
    assert (before.misses, cache.stats().misses) == (0, 1)


# Accesses.
@every_cache
@every_key
@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_access_is_a_hit_or_a_miss(options, make, access):
    cache = Moka(10, **options)
    cache.set(make(1), "value")
    for _ in range(3):
        access(cache, make(1))
    assert counted(cache, "hits", "misses") == (3, 0)
    access(cache, make(2))
    assert counted(cache, "hits", "misses") == (3, 1)


@every_cache
@every_key
@pytest.mark.parametrize("call", NO_ACCESSES.values(), ids=NO_ACCESSES)
def test_call_that_is_not_an_access_is_neither_hit_nor_miss(options, make, call):
    cache = Moka(10, **options)
    for key in (make(1), make(2)):
        cache.set(make(1), "value")
        call(cache, key)
    assert counted(cache, "hits", "misses", "hit_ratio", "loads") == (0, 0, 0.0, 0)


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_access_whose_key_raises_is_neither_hit_nor_miss(access):
    cache, key = Moka(10), CallbackKey("a", 1)
    cache.set(Key("a", 1), "value")
    key.on_eq = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        access(cache, key)
    with pytest.raises(TypeError):
        access(cache, [])
    assert cache.stats() == (0, 0, 0.0, 1, 0, 0, 0, 0, 0, 0, 0.0, 1, 1, 0)


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_access_of_an_expired_entry_is_a_miss(access):
    cache = Moka(10)
    cache.set("a", 1, ttl=IMMEDIATELY_DUE)
    access(cache, "a")
    assert counted(cache, "hits", "misses", "expirations") == (0, 1, 1)


def test_access_of_a_stored_none_is_a_hit():
    cache = Moka(10)
    cache.set("a", None)
    cache.get("a")
    assert counted(cache, "hits", "misses") == (1, 0)


def test_hit_ratio_is_the_share_of_hits():
    cache = Moka(10)
    assert cache.stats().hit_ratio == 0.0
    cache.set("a", 1)
    cache.get_many("aaab")
    assert cache.stats().hit_ratio == 0.75


# Inserts and removals.
@every_cache
def test_new_keys_are_inserts_and_new_values_replacements(options):
    cache = Moka(10, **options)
    cache.set("a", 1)
    cache.set("a", 2)
    cache["b"] = 1
    cache.update(a=3, c=1)
    cache.setdefault("a", 4)
    cache.setdefault("d", 4)
    cache.get_with("e", lambda: 5)
    assert counted(cache, "inserts", "replacements", "count", "weight") == (5, 2, 5, 5)


@every_cache
def test_setting_the_same_value_is_a_replacement(options):
    cache, value = Moka(10, **options), object()
    for _ in range(5):
        cache.set("a", value)
        cache.set("b", True)
    assert counted(cache, "inserts", "replacements", "count", "weight") == (2, 8, 2, 2)


@every_cache
def test_evictions_are_removals_for_want_of_room(options):
    cache = Moka(10, **options)
    cache.set_many((number, 1) for number in range(25))
    assert counted(cache, "inserts", "evictions", "removals", "count") == (25, 15, 0, 10)


@every_cache
def test_removals_are_entries_that_calls_removed(options):
    cache = Moka(100, **options)
    cache.set_many((number, number) for number in range(20))
    cache.remove(0)
    cache.remove("absent")
    cache.pop(1)
    del cache[2]
    cache.popitem()
    before = cache.stats().removals
    cache.remove_many([10, 11, 11])
    cache.remove_if(lambda key, value: key >= 18)
    cache.clear()
    assert before == 4
    assert counted(cache, "inserts", "removals", "count", "evictions", "expirations") == (20, 20, 0, 0, 0)


@every_cache
def test_stats_removes_and_counts_expired_entries(options):
    cache = Moka(100, **options)
    for number in range(40):
        cache.set(number, 1, ttl=IMMEDIATELY_DUE if number % 2 else 1000)
    assert counted(cache, "inserts", "expirations", "count") == (40, 20, 20)


@every_cache
def test_counts_for_metrics_remove_nothing_and_call_no_listener(options):
    told = []
    clock = ManualClock()
    with clock:
        cache = Moka(10, **(options | {"eviction_listener": lambda *event: told.append(event), "ttl": 1}))
    cache.update(a=1, b=2)
    cache.get("a")
    clock.advance(60)
    due = cache._counts()
    assert (due.count, due.weight, due.expirations, due.inserts, due.hits) == (2, 2, 0, 2, 1)
    assert type(due) is Stats and told == []
    current = cache.stats()
    assert (current.count, current.weight, current.expirations, current.inserts) == (0, 0, 2, 2)
    assert cache._counts() == current and len(told) == 2


def test_entries_that_stats_removes_are_counted_before_they_are_reported():
    seen = []
    cache = Moka(10, eviction_listener=lambda *_: seen.append(cache.stats()))
    cache.set("a", 1, ttl=IMMEDIATELY_DUE)
    stats = cache.stats()
    assert (stats.expirations, stats.inserts, stats.count) == (1, 1, 0)
    assert seen == [stats]


def test_stats_are_taken_before_the_listener_runs():
    def listener(key, value, cause):
        if key == "a":
            cache.set("by listener", 1)
            cache.remove("by listener")

    cache = Moka(10, eviction_listener=listener)
    cache.set("a", 1, ttl=IMMEDIATELY_DUE)
    assert counted(cache, "expirations", "inserts", "removals", "count") == (1, 1, 0, 0)
    assert counted(cache, "expirations", "inserts", "removals", "count") == (1, 2, 1, 0)


def test_entry_heavier_than_the_capacity_is_an_insert_and_an_eviction():
    cache = Moka(10, weigher=lambda key, value: value)
    cache.set("a", 11)
    assert counted(cache, "inserts", "replacements", "evictions", "count") == (1, 0, 1, 0)
    cache.set("b", 5)
    cache.set("b", 11)
    assert counted(cache, "inserts", "replacements", "evictions", "count") == (2, 1, 2, 0)


def test_write_whose_weigher_raises_counts_nothing():
    cache = Moka(10, weigher=lambda key, value: value)
    with pytest.raises(TypeError):
        cache.set("a", "heavy")
    assert cache.stats() == Moka(10).stats()


def test_weight_and_count_are_current():
    cache = Moka(100, weigher=lambda key, value: value)
    cache.set_many({"a": 10, "b": 20})
    cache.remove("a")
    assert counted(cache, "weight", "count") == (20, 1) == (cache.weighted_size(), cache.count())


@pytest.mark.parametrize("has_listener", [False, True], ids=["plain", "listener"])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_the_listener(seed, policy, has_listener):
    """Make the same calls on a cache with a listener and on one without."""
    dice, events = random.Random(seed), Events()
    caches = [Moka(50, policy=policy, eviction_listener=events), Moka(50, policy=policy)]
    counting = caches[not has_listener]
    for number in range(4000):
        key, what = dice.choice((int, str))(dice.randrange(80)), dice.randrange(12)
        for cache in caches:
            if what < 7:
                cache.set(key, number)
            elif what < 8:
                # The two caches would remove this entry at different calls, because they read the clock separately.
                cache.set(key, number, ttl=IMMEDIATELY_DUE if has_listener else None)
            elif what < 9:
                cache.remove(key)
            elif what < 10:
                cache.remove_if(lambda held, value: held == key)
            else:
                cache.get(key)
        if dice.randrange(1000) == 0:
            for cache in caches:
                cache.clear()
    stats = counting.stats()
    caches[0].run_pending_tasks()
    causes = Counter(events.causes())
    if has_listener or policy == "lru":
        left = (stats.replacements, stats.removals, stats.evictions, stats.expirations)
        assert left == tuple(causes[cause] for cause in ("replaced", "explicit", "size", "expired"))
    assert stats.inserts == stats.count + stats.evictions + stats.expirations + stats.removals
    assert stats.count == counting.count()


# Reset.
@every_cache
def test_reset_zeroes_the_counts_and_keeps_the_entries(options):
    cache = Moka(10, **options)
    cache.set_many((number, 1) for number in range(15))
    cache.get_many(range(100))
    cache.get_with("loaded", lambda: 1)
    cache.set("due", 1, ttl=IMMEDIATELY_DUE)
    assert cache.reset_stats() is None
    count = len(cache)
    assert cache.stats() == (0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0.0, count, count, 0)
    cache.clear()
    cache.set("a", 1)
    cache.get("a")
    cache.get("b")
    assert cache.stats() == (1, 1, 0.5, 1, 0, 0, 0, count, 0, 0, 0.0, 1, 1, 0)


def test_listener_can_read_and_reset_stats():
    seen = []

    def listener(key, value, cause):
        seen.append((cache.stats().removals, cache.stats().inserts))
        cache.reset_stats()

    cache = Moka(10, eviction_listener=listener)
    cache.set_many({"a": 1, "b": 2})
    cache.remove_many("ab")
    assert seen == [(1, 2), (1, 0)]
    assert cache.stats() == Moka(10).stats()


def test_keys_weigher_and_predicate_can_read_and_reset_stats():
    def ask(*_):
        cache.stats()
        cache.reset_stats()
        return 1

    cache = Moka(10, weigher=ask)
    cache.set(CallbackKey("a", 1), 1)
    asking = CallbackKey("a", 1)
    asking.on_eq = ask
    assert cache.get(asking) == 1
    assert counted(cache, "hits", "misses", "inserts", "count") == (1, 0, 0, 1)
    assert cache.remove_if(ask) == 1
    assert counted(cache, "hits", "misses", "removals", "count") == (0, 0, 1, 0)
