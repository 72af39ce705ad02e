"""The methods that are plain C functions: the arguments that they parse, and those that they pass to the fallback."""

import math
import sys
from datetime import timedelta

import pytest
from helpers import Key

from moka_py import Moka

POLICIES = ["lru", "tiny_lfu"]


@pytest.mark.parametrize("ttl", [30, 30.0, timedelta(seconds=30), True])
def test_ttl_by_name_takes_every_kind_of_number(ttl):
    cache = Moka(10)
    cache.set(1, "a", ttl=ttl)
    assert 0 < cache.expires_in(1) <= 30
    cache.set(1, "b", tti=ttl)
    assert 0 < cache.expires_in(1) <= 30
    cache.set(1, "c", ttl=None)
    assert cache.expires_in(1) is None


@pytest.mark.parametrize(
    ("deadlines", "names", "expected"),
    [
        ((30,), {}, 30),
        ((None, 40.0), {}, 40),
        ((50, 20), {}, 20),
        ((50,), {"tti": 60}, 50),
        ((), {"tti": 20, "ttl": 50}, 20),
        ((), {"ttl": 50, "tti": None}, 50),
        ((timedelta(seconds=30),), {"tti": 40}, 30),
        ((None, None), {}, None),
        ((), {"ttl": None}, None),
    ],
)
def test_durations_can_be_positional_and_keyword_arguments(deadlines, names, expected):
    cache = Moka(10)
    cache.set(1, "a", *deadlines, **names)
    assert cache.get_with(2, lambda: "b", *deadlines, **names) == "b"
    # A hit leaves the deadlines of the entry.
    assert cache.get_with(2, lambda: "c", 1) == "b"
    for key in (1, 2):
        left = cache.expires_in(key)
        assert left is None if expected is None else expected - 10 < left <= expected


def test_too_many_too_few_or_repeated_arguments_are_refused_and_nothing_is_set():
    cache = Moka(10)
    for call in (cache.set, cache.get_with):
        for arguments, names in [
            ((1, int, 30, 30, 30), {}),
            ((1, int, 30), {"ttl": 30}),
            ((1, int, 30, 30), {"tti": 30}),
            ((1,), {"ttl": 30}),
            ((), {"ttl": 30, "tti": 30}),
            ((1, int), {"ttl": 30, "other": 30}),
        ]:
            with pytest.raises(TypeError):
                call(*arguments, **names)
    assert len(cache) == 0


@pytest.mark.parametrize("name", ["ttl", "tti"])
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.inf, math.nan, 1e300, 2**70, "1"])
def test_values_that_are_not_durations_are_refused_and_nothing_is_set(name, value):
    cache = Moka(10)
    with pytest.raises((TypeError, ValueError), match=name):
        cache.set(1, "a", **{name: value})
    assert 1 not in cache


def test_keyword_names_need_not_be_interned_strings():
    cache = Moka(10)
    cache.set(1, "a", **{"".join(["t", "tl"]): 30})
    assert 0 < cache.expires_in(1) <= 30
    cache.set(key=2, value="b", ttl=30)
    assert 0 < cache.expires_in(2) <= 30
    with pytest.raises(TypeError):
        cache.set(1, "a", tt=30)
    with pytest.raises(TypeError):
        cache.set(1, "a", 30, ttl=30)


@pytest.mark.parametrize("policy", POLICIES)
def test_weigher_is_called_once_whatever_it_returns(policy):
    asked = []

    def weigher(key, value):
        asked.append(key)
        return value

    cache = Moka(10**18, policy=policy, weigher=weigher)
    for key, value in enumerate([0, 3, True, 2**31, 2**70]):
        cache.set(key, value)
        assert asked.pop() == key and not asked
    assert cache.weighted_size() == 0 + 3 + 1 + 2**31 + 2**32 - 1
    for wrong, error in [(-1, ValueError), ("1", TypeError), (None, TypeError), (1.0, TypeError)]:
        with pytest.raises(error, match="weigher"):
            cache.set(0, wrong)
        assert asked.pop() == 0 and not asked
    assert cache.get(0) == 0


def test_weigher_is_called_once_when_a_user_defined_eq_runs():
    asked = []
    cache = Moka(100, weigher=lambda key, value: asked.append(key) or 2)
    stored = Key(1)
    cache.set(stored, "a")
    asked.clear()
    # An int of the same hash, with which the stored key is compared.
    cache.set(1, "b")
    assert asked == [1]
    assert cache.get(1) == "b"


def test_error_of_the_weigher_is_raised_and_nothing_is_set():
    error = LookupError("mine")

    def weigher(key, value):
        raise error

    cache = Moka(10, weigher=weigher)
    with pytest.raises(LookupError) as raised:
        cache.set(1, "a", ttl=5)
    assert raised.value is error
    assert len(cache) == 0


def test_listener_is_called_before_set_and_remove_return():
    left = []
    cache = Moka(2, policy="lru", eviction_listener=lambda *event: left.append(event))
    cache.set(1, "a", ttl=60)
    cache.set(1, "b")
    assert left == [(1, "a", "replaced")]
    assert cache.remove(1) == "b"
    assert left.pop() == (1, "b", "explicit")
    assert cache.remove(1) is None
    assert cache.remove(1, "none") == "none"
    assert cache.remove(key=1, default=5) == 5
    assert len(left) == 1


def test_error_of_the_listener_is_unraisable_and_the_call_goes_on(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append((info.exc_value, info.object)))
    error = OSError("mine")

    def listener(*event):
        raise error

    cache = Moka(10, eviction_listener=listener)
    cache.set(1, "a")
    cache.set(1, "b")
    assert cache.remove(1) == "b"
    assert seen == [(error, listener)] * 2


def test_get_with_checks_its_initializer_on_a_hit_too():
    cache = Moka(10)
    cache.set(1, "a")
    assert cache.get_with(1, int) == "a"
    with pytest.raises(TypeError, match="initializer"):
        cache.get_with(1, "no function")
    assert cache.get_with(2, lambda: "b") == "b"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads) == (1, 1, 1)
