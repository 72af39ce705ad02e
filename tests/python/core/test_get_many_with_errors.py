"""`get_many_with`: errors of the load, of keys, weighers and ttl functions, and loads inside loads."""

import pytest
from bulk_load_helpers import Load, must_not_load
from helpers import (
    MISSING,
    CallbackKey,
    Events,
    Key,
    contents,
    observable_state,
)

from moka_py import Moka


# Errors.
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), KeyboardInterrupt(), SystemExit(2)])
def test_error_of_load_is_raised_and_nothing_kept(error):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("b", 1)
    before = observable_state(cache)

    def fail(missing):
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            cache.get_many_with(["a", "b", "c"], fail)
        assert caught.value is error
        assert (observable_state(cache), events) == (before, [])
    assert cache.get_many_with(["a"], Load()) == {"a": "value of a"}


@pytest.mark.parametrize("kind", ["asked", "more"])
def test_weigher_that_raises_for_one_value_keeps_all_out(kind):
    weighed, events = [], Events()

    def weigher(key, value):
        assert contents(cache) == {}, "a value was kept before all were weighed"
        weighed.append(key)
        if value == "heavy":
            raise ZeroDivisionError("mine")
        return 1

    cache = Moka(10, weigher=weigher, eviction_listener=events)
    values = {"a": 1, "b": "heavy"} if kind == "asked" else {"a": 1, "c": "heavy"}
    with pytest.raises(ZeroDivisionError, match="mine"):
        cache.get_many_with(["a", "b"], lambda missing: values)
    assert (contents(cache), weighed, events) == ({}, list(values), [])
    assert cache.get_many_with(["a", "b"], lambda missing: {"a": 1, "b": 2}) == {"a": 1, "b": 2}


def test_weigher_runs_for_all_values_before_the_first_is_kept():
    seen = []
    cache = Moka(10, weigher=lambda key, value: seen.append((key, len(cache))) or value)
    cache.get_many_with(["a", "b"], lambda missing: {"c": 3, "a": 1, "b": 2})
    assert seen == [("a", 0), ("b", 0), ("c", 0)]
    assert cache.weighted_size() == 6


def test_key_that_cannot_be_hashed_leaves_no_key_in_flight():
    cache = Moka(10)
    with pytest.raises(TypeError, match="unhashable"):
        cache.get_many_with(["a", []], must_not_load)
    assert cache.get_with("a", lambda: 1) == 1


def test_key_that_cannot_be_compared_leaves_no_key_in_flight():
    cache = Moka(10)
    cache.set(Key("odd", 1), 1)
    odd = CallbackKey("odd", 1)
    odd.on_eq = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        cache.get_many_with(["a", odd], must_not_load)
    assert cache.get_with("a", lambda: 1) == 1


def test_key_that_fails_at_its_write_does_not_keep_other_values_out():
    cache = Moka(10)
    odd = CallbackKey("odd", 1)

    def load(missing):
        cache.set(Key("other", 1), 0)
        odd.on_eq = lambda: 1 / 0
        return {missing[0]: 1, missing[2]: 3, odd: 2}

    with pytest.raises(ZeroDivisionError):
        cache.get_many_with(["a", odd, "b"], load)
    odd.on_eq = None
    assert contents(cache) == {"a": 1, "b": 3, Key("other", 1): 0}
    assert cache.get_with(odd, lambda: 4) == 4


def test_keys_that_are_not_iterable_raise_type_error():
    with pytest.raises(TypeError, match="keys must be an iterable, got int"):
        Moka(10).get_many_with(1, must_not_load)


def test_error_of_the_iterator_of_keys_leaves_no_key_in_flight():
    cache = Moka(10)

    def keys():
        yield "a"
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        cache.get_many_with(keys(), must_not_load)
    assert cache.get_with("a", lambda: 1) == 1
    assert cache.stats()[:2] == (0, 1)


def test_load_that_is_not_callable_raises_type_error():
    cache = Moka(10)
    cache.set("a", 1)
    for keys in ("a", "b", ""):
        with pytest.raises(TypeError, match="load must be callable, got dict"):
            cache.get_many_with(keys, {})
    assert cache.stats()[:2] == (0, 0)


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize(("wrong", "error"), [("1", TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_wrong_duration_raises_before_anything_is_looked_up(kind, wrong, error):
    cache = Moka(10)
    with pytest.raises(error, match=kind):
        cache.get_many_with(["a"], must_not_load, **{kind: wrong})
    assert cache.stats()[:2] == (0, 0)


# Loads inside loads.
def test_load_can_use_the_cache():
    cache = Moka(20)

    def load(missing):
        assert missing == ["a", "b"]
        cache.set("c", 3)
        assert cache.get("a", MISSING) is MISSING
        assert cache.get_many_with(["c", "d"], lambda missing: dict.fromkeys(missing, 4)) == {"c": 3, "d": 4}
        cache.remove("c"), len(cache), list(cache.items()), cache.run_pending_tasks()
        return dict.fromkeys(missing, 1)

    assert cache.get_many_with(["a", "b"], load) == {"a": 1, "b": 1}
    assert contents(cache) == {"a": 1, "b": 1, "d": 4}


@pytest.mark.parametrize("ask", [lambda cache: cache.get_with("b", int), lambda cache: cache.get_many_with("cb", dict)])
def test_load_that_needs_a_key_of_its_own_raises(ask):
    cache = Moka(10)
    with pytest.raises(RuntimeError, match="that very key, 'b'"):
        cache.get_many_with(["a", "b"], lambda missing: ask(cache))
    assert contents(cache) == {}
    assert cache.get_many_with("abc", Load()).keys() == set("abc")


def test_initializer_that_needs_its_own_key_raises_before_the_load():
    cache = Moka(10)
    with pytest.raises(RuntimeError, match="that very key, 'b'"):
        cache.get_with("b", lambda: cache.get_many_with(["a", "b"], must_not_load))
    assert cache.get_with("a", lambda: 1) == 1


def test_endless_recursion_of_loads_raises_recursion_error():
    cache = Moka(10)

    def endless(number):
        return cache.get_many_with([number], lambda missing: endless(number + 1))

    with pytest.raises(RecursionError):
        endless(0)
    assert contents(cache) == {}


@pytest.mark.parametrize("kind", ["asked", "more"])
@pytest.mark.parametrize("owner", ["cache", "call"])
def test_ttl_function_that_raises_for_one_value_keeps_all_out(kind, owner):
    asked, events = [], Events()

    def ttl(key, value):
        assert contents(cache) == {}, "a value was kept before all ttl functions ran"
        asked.append(key)
        return 5 // value

    cache = Moka(10, ttl=ttl if owner == "cache" else None, eviction_listener=events)
    values = {"a": 1, "b": 0} if kind == "asked" else {"a": 1, "c": 0}
    with pytest.raises(ZeroDivisionError):
        cache.get_many_with(["a", "b"], lambda missing: values, ttl=ttl if owner == "call" else None)
    assert (contents(cache), asked, events) == ({}, list(values), [])
    assert cache.get_with("a", lambda: 1) == 1
