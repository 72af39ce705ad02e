"""Keys that act while they are hashed or compared: on the cache itself, slowly, or without end (laws 1, 4, 10)."""

import gc
import random
import sys
import time
import weakref

import pytest
from helpers import (
    CALLS_WITH_KEY,
    MAX_UNRELEASED_PER_THREAD,
    MISSING,
    Background,
    CallbackKey,
    Gate,
    Key,
    Value,
    contents,
    count_alive,
    run_threads,
)

from moka_py import Moka

every_call = pytest.mark.parametrize("call", CALLS_WITH_KEY.values(), ids=CALLS_WITH_KEY)

# Changes that a key makes to the cache during its own comparison.
ACTS = {
    "clears": lambda cache, stored: cache.clear(),
    "removes the entry": lambda cache, stored: cache.remove(stored),
    "replaces the entry": lambda cache, stored: cache.set(stored, "by eq"),
    "moves the entry": lambda cache, stored: (cache.remove(stored), cache.set(stored, "by eq")),
    "adds others": lambda cache, stored: cache.update({object(): 1 for _ in range(100)}),
    "adds others of the same hash": lambda cache, stored: cache.update({Key(object(), 1): 1 for _ in range(5)}),
    "looks at all": lambda cache, stored: (
        list(cache.items()),
        len(cache),
        cache.get(stored),
        cache.run_pending_tasks(),
    ),
    "sets the first deadline": lambda cache, stored: cache.set("x", 1, ttl=60),
    "computes": lambda cache, stored: cache.get_with("x", lambda: 1),
    "collects": lambda cache, stored: gc.collect(),
}


@every_call
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("times", [1, 3])
def test_eq_can_change_the_cache(call, act, equal, times):
    cache = Moka(1000)
    stored, asking, left = Key("a", 1), CallbackKey("a" if equal else "b", 1), [True] * times

    def once():
        if left:
            left.pop()
            act(cache, stored)

    cache.set(stored, "old")
    cache.set(Key("third", 1), "third")
    asking.on_eq = once
    try:
        result = call(cache, asking)
    except KeyError:
        result = None
    asking.on_eq = None
    assert result in (None, "old", "new", "by eq", True, False)
    if call in [CALLS_WITH_KEY[name] for name in ("set", "setitem", "update", "set_many")]:
        assert cache.get(asking) == "new"
    if call in [CALLS_WITH_KEY[name] for name in ("remove", "pop", "del", "remove_many")]:
        assert asking not in cache
    if call is CALLS_WITH_KEY["setdefault"]:
        assert asking in cache or result == "old"
    assert len(cache) == cache.count() == cache.weighted_size() == len(list(cache))


@every_call
@pytest.mark.time_limit(30)
@pytest.mark.parametrize("act", ["replaces the entry", "moves the entry"])
def test_eq_that_always_changes_the_entry_terminates(call, act):
    cache, stored, asking = Moka(1000), Key("a", 1), CallbackKey("a", 1)
    cache.set(stored, "old")
    asking.on_eq = lambda: ACTS[act](cache, stored)
    try:
        call(cache, asking)
    except (RuntimeError, KeyError):
        pass
    asking.on_eq = None
    assert len(cache) == len(list(cache)) <= 1


@every_call
def test_eq_that_repeats_the_call_raises_recursion_error(call):
    cache, asking = Moka(10), CallbackKey("a", 1)
    cache.set(Key("b", 1), "old")
    asking.on_eq = lambda: call(cache, asking)
    with pytest.raises((RecursionError, RuntimeError)):
        call(cache, asking)
    asking.on_eq = None
    assert contents(cache) == {Key("b", 1): "old"}


@every_call
def test_hash_can_use_the_cache(call):
    cache = Moka(10)

    class Busy(Key):
        __eq__ = Key.__eq__

        def __hash__(self):
            cache.set("by hash", 1)
            cache.remove("by hash")
            len(cache), list(cache)
            return 1

    cache.set(Busy("a"), "old")
    call(cache, Busy("a"))
    assert len(cache) <= 1


def test_hash_is_called_once_per_call():
    asked = []

    class Counted(Key):
        __eq__ = Key.__eq__

        def __hash__(self):
            asked.append(1)
            return 1

    cache, key = Moka(10), Counted("a")
    for call in (lambda: cache.set(key, 1), lambda: cache.get(key), lambda: cache.remove(key)):
        asked.clear()
        call()
        assert len(asked) == 1


def test_changed_hash_hides_that_entry_only():
    cache, key = Moka(10), Key("a", 1)
    cache.set(key, 1)
    key.hash = 2
    assert cache.get(key, MISSING) is MISSING
    cache.set(key, 2)
    assert sorted(cache.values()) == [1, 2]
    cache.clear()
    assert len(cache) == 0


def test_key_can_be_removed_during_its_comparison():
    cache = Moka(10)

    class Forgetful(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            cache.clear()
            cache.update({number: number for number in range(10)})
            return isinstance(other, Forgetful)

    cache.set(Forgetful("a", 1), [1])
    assert cache.get(Forgetful("b", 1)) in (None, [1])


# Law 4: no pin across Python code.
def test_blocked_eq_does_not_delay_the_release_of_values():
    gate, cache, key = Gate(), Moka(1000), CallbackKey("a", 1)
    cache.set(Key("a", 1), 1)
    key.on_eq = gate.stop_here
    references = []
    with Background(lambda: cache.get(key)):
        gate.wait_until_reached()
        for number in range(5000):
            value = Value()
            references.append(weakref.ref(value))
            cache.set("x", value)
            cache.remove("x")
        del value
        assert count_alive(references) <= MAX_UNRELEASED_PER_THREAD
        gate.open()


def test_threads_survive_hostile_keys(fast_switches):
    cache = Moka(60, eviction_listener=lambda *event: None)

    class Hostile(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            chance = random.random()
            if chance < 0.002:
                time.sleep(0.001)
            elif chance < 0.01:
                raise ZeroDivisionError
            elif chance < 0.02:
                cache.clear()
            elif chance < 0.04:
                cache.set(self, 1)
            elif chance < 0.06:
                cache.remove(other)
            elif chance < 0.1:
                time.sleep(0)
            return super().__eq__(other)

    def work():
        dice = random.Random()
        for _ in range(1500):
            key = Hostile(dice.randrange(80), dice.randrange(8))
            try:
                dice.choice(list(CALLS_WITH_KEY.values()))(cache, key)
            except (ZeroDivisionError, KeyError, RuntimeError):
                pass

    run_threads(*[work] * 4)
    cache.run_pending_tasks()
    assert len(cache) == cache.count() == cache.weighted_size() == len(list(cache)) <= 60
    cache.clear()
    assert len(cache) == 0


def test_recursion_limit_stays_unchanged():
    limit = sys.getrecursionlimit()
    cache, asking = Moka(10), CallbackKey("a", 1)
    cache.set(Key("b", 1), "old")
    asking.on_eq = lambda: cache.get(asking)
    for _ in range(20):
        with pytest.raises(RecursionError):
            cache.get(asking)
    assert sys.getrecursionlimit() == limit
