"""Calls for many keys: `get_many`, `set_many`, `remove_many`."""

import time

import pytest
from helpers import (
    IMMEDIATELY_DUE,
    CallbackKey,
    Key,
    contents,
    observable_state,
    run_threads,
)

from moka_py import Moka


@pytest.fixture
def cache(events):
    cache = Moka(10, policy="lru", eviction_listener=events)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    return cache


class FailingIterable:
    """An iterable whose `__iter__` raises."""

    def __iter__(self):
        raise ZeroDivisionError("mine")


# get_many.
def test_get_many_returns_only_present_keys(cache):
    found = cache.get_many(["c", "x", "a"])
    assert type(found) is dict
    assert list(found.items()) == [("c", 3), ("a", 1)]
    assert cache.get_many([]) == {}


@pytest.mark.parametrize("make", [list, tuple, set, iter, dict.fromkeys, lambda keys: (key for key in keys)])
def test_keys_can_be_any_iterable(cache, make):
    assert cache.get_many(make(["a", "b"])) == {"a": 1, "b": 2}
    assert cache.remove_many(make(["a", "b"])) == 2


def test_get_many_takes_keys_of_any_type():
    cache, keys = Moka(10), [1, "1", (1,), b"1", 1.5, Key("a", 1), Key("b", 1), None]
    cache.set_many((key, number) for number, key in enumerate(keys))
    assert cache.get_many([*keys, Key("c", 1)]) == {key: number for number, key in enumerate(keys)}


def test_get_many_finds_none_as_a_value(cache):
    cache.set("a", None)
    assert cache.get_many("ax") == {"a": None}


def test_keys_can_be_a_keyword_argument(cache):
    assert cache.get_many(keys="ab") == {"a": 1, "b": 2}
    assert cache.remove_many(keys="ab") == 2


def test_get_many_counts_as_an_access_of_each_key():
    cache = Moka(3, policy="lru")
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.get_many(["b", "a"])
    cache.set_many({"d": 4, "e": 5})
    assert contents(cache) == {"a": 1, "d": 4, "e": 5}


def test_get_many_restarts_the_time_to_idle():
    cache = Moka(10, tti=1000)
    cache.set("a", 1)
    time.sleep(0.01)
    before = cache.expires_in("a")
    cache.get_many("a")
    assert cache.expires_in("a") > before


def test_get_many_raises_the_error_of_a_key_in_the_middle():
    odd = CallbackKey("odd", 1)
    odd.on_eq = lambda: 1 / 0
    for wrong, error in ((odd, ZeroDivisionError), ([], TypeError)):
        cache = Moka(3, policy="lru")
        cache.set_many({"a": 1, Key("odd", 1): 2, "b": 3})
        with pytest.raises(error):
            cache.get_many(["a", wrong, "b"])
        assert cache.stats().hits == 1
        cache.set("new", 4)
        assert "a" in cache


# set_many.
class WithKeys:
    def keys(self):
        return iter("xy")

    def __getitem__(self, key):
        return key * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"x": "xx", "y": "yy"},
        lambda: [("x", "xx"), ["y", "yy"]],
        lambda: iter([("x", "xx"), ("y", "yy")]),
        lambda: {"x": "xx", "y": "yy"}.items(),
        lambda: (pair for pair in [("x", "xx"), ("y", "yy")]),
        WithKeys,
    ],
    ids=["dict", "list", "iterator", "items", "generator", "keys"],
)
def test_set_many_takes_the_same_arguments_as_update(make):
    cache = Moka(10)
    cache.set("x", 0)
    assert cache.set_many(make()) is None
    assert contents(cache) == {"x": "xx", "y": "yy"}
    cache.clear()
    cache.set_many(entries=make())
    assert contents(cache) == {"x": "xx", "y": "yy"}


def test_set_many_copies_another_cache_and_itself(cache, events):
    other = Moka(10)
    other.set_many(cache)
    assert contents(other) == contents(cache) == {"a": 1, "b": 2, "c": 3}
    cache.set_many(cache)
    assert contents(cache) == {"a": 1, "b": 2, "c": 3}
    assert events.causes() == ["replaced"] * 3
    assert other.stats()[:2] == cache.stats()[:2] == (0, 0)


@pytest.mark.parametrize("kind", ["ttl", "tti"])
def test_durations_of_set_many_apply_to_each_entry(cache, kind):
    cache.set_many({"a": 5, "d": 6}, **{kind: 1000})
    lives = [cache.expires_in(key) for key in "abd"]
    assert lives[1] is None
    assert 900 < lives[0] <= 1000
    assert 900 < lives[2] <= 1000
    cache.set_many([("a", 7)])
    assert cache.expires_in("a") is None


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "1", 1e300])
def test_set_many_checks_durations_first(cache, events, kind, wrong):
    before = observable_state(cache)
    with pytest.raises((ValueError, TypeError), match=f"^{kind} "):
        cache.set_many((pytest.fail("asked before the durations were checked") for _ in "x"), **{kind: wrong})
    with pytest.raises((ValueError, TypeError), match=f"^{kind} "):
        cache.set_many(5, **{kind: wrong})
    assert (observable_state(cache), events) == (before, [])


def test_set_many_calls_the_weigher_and_evicts(events):
    cache = Moka(10, policy="lru", eviction_listener=events, weigher=lambda key, value: value)
    cache.set_many([("a", 4), ("b", 4), ("c", 4), ("a", 1), ("d", 11)])
    assert contents(cache) == {"a": 1, "b": 4, "c": 4}
    assert events == [("a", 4, "size"), ("d", 11, "size")]


def test_set_many_that_fails_in_the_middle_keeps_the_entries_already_set(events):
    def weigh(key, value):
        if value == 0:
            raise ZeroDivisionError("mine")
        return 1

    cache = Moka(10, eviction_listener=events, weigher=weigh)
    odd = CallbackKey("odd", 1)
    cache.set_many({"a": 1, Key("odd", 1): 1})
    odd.on_eq = lambda: 1 / 0

    def fails():
        yield "a", 6
        raise ZeroDivisionError

    cases = [
        ([("a", 2), ("b", 0), ("c", 1)], ZeroDivisionError),
        ([("a", 3), ([], 1), ("c", 1)], TypeError),
        ([("a", 4), (odd, 1), ("c", 1)], ZeroDivisionError),
        ([("a", 5), 7], TypeError),
        (fails(), ZeroDivisionError),
        ([("a", 7), ("c", 1, 2)], ValueError),
    ]
    for number, (entries, error) in enumerate(cases):
        with pytest.raises(error):
            cache.set_many(entries)
        assert contents(cache) == {"a": number + 2, Key("odd", 1): 1}
        assert events[number:] == [("a", number + 1, "replaced")]


@pytest.mark.parametrize(("pair", "len"), [((), 0), ("x", 1), ((1, 2, 3), 3)])
def test_error_message_names_an_item_that_is_not_a_pair(cache, pair, len):
    text = f"^entries must have pairs of a key and a value, got {len} things in its element 1$"
    with pytest.raises(ValueError, match=text):
        cache.set_many([("a", 1), pair])


def test_error_message_names_an_item_that_is_not_iterable(cache):
    for call, name in ((cache.set_many, "entries"), (cache.update, "other")):
        text = f"^{name} must have pairs of a key and a value, got int in its element 1$"
        with pytest.raises(TypeError, match=text):
            call([("a", 1), 7])


def test_error_of_iterating_over_a_pair_is_raised_unchanged(cache):
    class Pair:
        def __iter__(self):
            raise TypeError("of its own")

    with pytest.raises(TypeError, match=r"^of its own$"):
        cache.set_many([Pair()])


# remove_many.
def test_remove_many_returns_the_number_of_removed_entries(cache, events):
    assert cache.remove_many(["a", "x", "c", "a"]) == 2
    assert contents(cache) == {"b": 2}
    assert events == [("a", 1, "explicit"), ("c", 3, "explicit")]
    assert cache.remove_many([]) == 0


def test_remove_many_does_not_count_expired_entries(cache, events):
    cache.set("d", 4, ttl=IMMEDIATELY_DUE)
    assert cache.remove_many("ad") == 1
    assert sorted(events) == [("a", 1, "explicit"), ("d", 4, "expired")]


def test_remove_many_that_fails_in_the_middle_has_removed_the_keys_before(cache, events):
    odd = CallbackKey("odd", 1)
    cache.set(Key("odd", 1), 4)
    odd.on_eq = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        cache.remove_many(["a", odd, "b"])
    with pytest.raises(TypeError, match="unhashable"):
        cache.remove_many(["b", [], "c"])
    assert contents(cache) == {"c": 3, Key("odd", 1): 4}
    assert events == [("a", 1, "explicit"), ("b", 2, "explicit")]


# Bad input.
@pytest.mark.parametrize("method", ["get_many", "remove_many"])
@pytest.mark.parametrize("wrong", [1, None, object(), len], ids=["int", "None", "object", "function"])
def test_keys_that_are_not_iterable_are_refused(cache, method, wrong):
    with pytest.raises(TypeError, match=f"^keys must be an iterable, got {type(wrong).__name__}$"):
        getattr(cache, method)(wrong)


@pytest.mark.parametrize("method", ["get_many", "remove_many", "set_many"])
def test_error_of_the_iterable_is_raised_unchanged(cache, method):
    with pytest.raises(ZeroDivisionError, match="mine"):
        getattr(cache, method)(FailingIterable())


@pytest.mark.parametrize("wrong", [1, None, object()], ids=["int", "None", "object"])
def test_entries_that_are_not_iterable_are_refused(cache, wrong):
    rule = f"must be a mapping or an iterable of pairs, got {type(wrong).__name__}$"
    with pytest.raises(TypeError, match=f"^entries {rule}"):
        cache.set_many(wrong)
    with pytest.raises(TypeError, match=f"^other {rule}"):
        cache.update(wrong)


# The iterable is the caller's code, and may use the cache.
@pytest.mark.parametrize("method", ["get_many", "set_many", "remove_many"])
def test_an_iterable_may_use_the_cache(cache, method):
    def keys():
        for key in list(cache):
            cache.remove_many([key])
            cache.set_many({key: 5, "new": 6})
            cache.remove_if(lambda held, value: held == "new")
            cache.get_many(cache)
            yield (key, 7) if method == "set_many" else key

    result = getattr(cache, method)(keys())
    assert result == {"get_many": dict.fromkeys("abc", 5), "set_many": None, "remove_many": 3}[method]
    assert contents(cache) == {"get_many": dict.fromkeys("abc", 5), "set_many": dict.fromkeys("abc", 7)}.get(method, {})


@pytest.mark.parametrize("method", ["get_many", "set_many", "remove_many"])
def test_bulk_calls_over_the_cache_itself_end(method):
    cache = Moka(5000)
    cache.set_many((number, number) for number in range(3000))
    getattr(cache, method)(cache.items() if method == "set_many" else cache)
    assert len(cache) == (0 if method == "remove_many" else 3000)


# Threads.
def test_counts_of_bulk_calls_by_many_threads_add_up(fast_switches):
    cache = Moka(100_000)

    def work(thread):
        keys = [(thread, number) for number in range(300)]
        for _ in range(10):
            cache.set_many((key, thread) for key in keys)
            assert cache.get_many(keys) == dict.fromkeys(keys, thread)
            assert cache.remove_many(keys) == 300

    run_threads(*(lambda thread=thread: work(thread) for thread in range(6)))
    stats = cache.stats()
    assert (stats.hits, stats.inserts, stats.removals, stats.count) == (18_000, 18_000, 18_000, 0)
