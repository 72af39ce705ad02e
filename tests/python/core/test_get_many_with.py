"""`get_many_with`: the values of several keys, of which one call of a function loads all that are missing."""

import collections
import gc
import types
import weakref

import pytest
from bulk_load_helpers import Load, must_not_load
from helpers import (
    IMMEDIATELY_DUE,
    MISSING,
    Events,
    Key,
    Value,
    collect,
    contents,
)

from moka_py import Moka
from moka_py.testing import ManualClock


# The keys of a call.
def test_load_gets_the_missing_keys_in_the_order_asked_for():
    cache, load = Moka(10), Load()
    cache.set("b", 2)
    result = cache.get_many_with(["d", "b", "a", "c"], load)
    assert load.calls == [["d", "a", "c"]]
    assert type(load.calls[0]) is list
    assert result == {"d": "value of d", "b": 2, "a": "value of a", "c": "value of c"}
    assert contents(cache) == result


def test_result_is_a_dict_in_the_order_asked_for():
    cache = Moka(10)
    cache.set("b", 2)
    result = cache.get_many_with(["c", "b", "a"], lambda missing: {"z": 26, "a": 1, "c": 3})
    assert type(result) is dict
    assert list(result.items()) == [("c", 3), ("b", 2), ("a", 1), ("z", 26)]


def test_load_gets_each_key_once():
    cache, load = Moka(10), Load()
    keys = [Key("a"), Key("b"), Key("a"), Key("b"), Key("a")]
    result = cache.get_many_with(keys, load)
    assert [key is first for key, first in zip(load.calls[0], keys, strict=False)] == [True, True]
    assert list(result) == keys[:2]
    assert cache.stats()[:2] == (0, 2)


def test_duplicates_of_a_present_key_count_one_hit():
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.get_many_with("aaa", must_not_load) == {"a": 1}
    assert cache.stats()[:2] == (1, 0)


def test_load_is_not_called_if_no_key_is_missing():
    cache = Moka(10)
    cache.set_many({"a": 1, "b": None})
    assert cache.get_many_with(["a", "b"], must_not_load) == {"a": 1, "b": None}
    assert cache.get_many_with([], must_not_load) == {}
    assert cache.stats().loads == 0


@pytest.mark.parametrize("make", [list, tuple, set, iter, dict.fromkeys, lambda keys: (key for key in keys)])
def test_keys_can_be_any_iterable(make):
    cache = Moka(10)
    assert cache.get_many_with(make(["a"]), Load()) == {"a": "value of a"}


def test_arguments_can_be_given_by_name():
    cache = Moka(10)
    with ManualClock(caches=[cache]):
        cache.get_many_with(keys="a", load=Load(), ttl=100, tti=50)
        assert cache.expires_in("a") == 50


def test_an_iterator_of_keys_may_use_the_cache():
    cache = Moka(10)

    def keys():
        for key in "ab":
            yield key
            assert cache.get_with(key, lambda key=key: key.upper()) == key.upper()

    assert cache.get_many_with(keys(), must_not_load) == {"a": "A", "b": "B"}


def test_a_changed_list_of_keys_changes_nothing():
    cache = Moka(10)

    def load(missing):
        values = dict.fromkeys(missing, 1)
        missing.clear()
        return values

    assert cache.get_many_with("ab", load) == contents(cache) == {"a": 1, "b": 1}


def test_keys_of_equal_hash_are_loaded_together():
    cache = Moka(10)
    keys = [Key(name, 1) for name in "abc"]
    cache.set(keys[1], "set")
    result = cache.get_many_with(keys, lambda missing: {key: key.name for key in missing})
    assert result == contents(cache) == {keys[0]: "a", keys[1]: "set", keys[2]: "c"}


# What `load` returns.
class WithKeys:
    def keys(self):
        return iter("ab")

    def __getitem__(self, key):
        return key * 2


@pytest.mark.parametrize(
    "make",
    [
        dict,
        collections.OrderedDict,
        lambda values: collections.defaultdict(pytest.fail, values),
        types.MappingProxyType,
        collections.ChainMap,
        lambda values: WithKeys(),
    ],
    ids=["dict", "OrderedDict", "defaultdict", "mapping proxy", "ChainMap", "keys"],
)
def test_load_may_return_any_mapping(make):
    cache = Moka(10)
    result = cache.get_many_with(["a", "b", "c"], lambda missing: make({"a": "aa", "b": "bb"}))
    assert result == contents(cache) == {"a": "aa", "b": "bb"}


def test_load_may_return_another_cache_and_the_cache_itself():
    cache, other = Moka(10), Moka(10)
    other.set_many({"a": 1, "b": 2})
    assert cache.get_many_with(["a", "c"], lambda missing: other) == {"a": 1, "b": 2}
    assert cache.get_many_with(["c"], lambda missing: cache) == {"a": 1, "b": 2}
    assert contents(cache) == {"a": 1, "b": 2}


@pytest.mark.parametrize("wrong", [None, 1, ["a"], [("a", 1)], {"a"}, "ab"], ids=repr)
def test_load_that_returns_no_mapping_raises_type_error(wrong):
    cache = Moka(10)
    with pytest.raises(TypeError, match=f"load must return a mapping, got {type(wrong).__name__}"):
        cache.get_many_with(["a"], lambda missing: wrong)
    assert contents(cache) == {}
    assert cache.get_many_with(["a"], Load()) == {"a": "value of a"}


def test_error_of_the_mapping_is_raised():
    class Failing:
        def keys(self):
            return iter("ab")

        def __getitem__(self, key):
            raise ZeroDivisionError(key)

    cache = Moka(10)
    with pytest.raises(ZeroDivisionError, match="a"):
        cache.get_many_with(["a"], lambda missing: Failing())
    assert contents(cache) == {}
    assert cache.stats().load_failures == 1


def test_key_that_load_leaves_out_is_absent_and_not_kept():
    cache = Moka(10)
    assert cache.get_many_with(["a", "b"], lambda missing: {"b": 2}) == contents(cache) == {"b": 2}
    assert cache.get_many_with(["a"], lambda missing: {}) == {}
    assert cache.get_with("a", lambda: 1) == 1


def test_none_is_a_value():
    cache = Moka(10)
    assert cache.get_many_with(["a"], dict.fromkeys) == {"a": None}
    assert cache.get("a", MISSING) is None


def test_result_has_the_loaded_objects():
    cache, value = Moka(10), object()
    assert cache.get_many_with(["a"], lambda missing: {"a": value})["a"] is value
    assert cache.get("a") is value


# Keys that were not asked for.
def test_more_keys_are_kept_and_in_the_result():
    cache = Moka(10)
    assert cache.get_many_with(["a"], lambda missing: {"b": 2, "a": 1}) == contents(cache) == {"a": 1, "b": 2}
    assert cache.stats()[:2] == (0, 1)


def test_more_keys_get_the_durations_of_the_call():
    cache = Moka(10, ttl=1000)
    with ManualClock(caches=[cache]):
        cache.get_many_with(["a"], lambda missing: {"a": 1, "b": 2}, ttl=100)
        assert cache.expires_in("a") == cache.expires_in("b") == 100


def test_more_keys_do_not_replace_a_value():
    events = Events()
    cache = Moka(3, policy="lru", eviction_listener=events)
    cache.set_many({"b": "old", "c": "old"})
    result = cache.get_many_with(["a"], lambda missing: {"b": "new", "a": 1})
    assert result == {"a": 1, "b": "new"}
    assert contents(cache) == {"a": 1, "b": "old", "c": "old"}
    # The present value was not accessed either.
    cache.set("d", 4)
    assert events == [("b", "old", "size")]


def test_key_that_was_found_keeps_its_value():
    cache = Moka(10)
    cache.set("b", "old")
    result = cache.get_many_with(["a", "b"], lambda missing: {"b": "new", "a": 1})
    assert result == contents(cache) == {"a": 1, "b": "old"}


def test_more_keys_replace_an_expired_value():
    cache = Moka(10)
    cache.set("b", "old", ttl=IMMEDIATELY_DUE)
    cache.get_many_with(["a"], lambda missing: {"b": "new", "a": 1})
    assert contents(cache) == {"a": 1, "b": "new"}


def test_more_keys_are_not_kept_while_they_are_computed():
    cache = Moka(10)

    def compute():
        result = cache.get_many_with(["a"], lambda missing: {"a": 1, "b": "early"})
        assert result == {"a": 1, "b": "early"}
        assert contents(cache) == {"a": 1}
        return "computed"

    assert cache.get_with("b", compute) == "computed"
    assert contents(cache) == {"a": 1, "b": "computed"}


# The entries that are kept.
def test_values_that_are_not_kept_are_in_the_result():
    events = Events()
    cache = Moka(5, weigher=lambda key, value: value, eviction_listener=events)
    result = cache.get_many_with(["a", "b"], lambda missing: {"a": 1, "b": 9, "c": 8})
    assert result == {"a": 1, "b": 9, "c": 8}
    assert contents(cache) == {"a": 1}
    assert events == [("b", 9, "size"), ("c", 8, "size")]


def test_more_keys_than_the_capacity_are_all_returned():
    for capacity in (0, 1, 10):
        cache = Moka(capacity)
        keys = range(1000)
        assert cache.get_many_with(keys, lambda missing: dict.fromkeys(missing, 1)) == dict.fromkeys(keys, 1)
        assert len(cache) == cache.weighted_size() == capacity


def test_listener_may_ask_for_each_key_of_the_load():
    asked = []

    def listener(key, value, cause):
        if not asked:
            asked.append(key)
            asked.extend(cache.get_with(number, lambda: -1) for number in range(3))

    cache = Moka(2, policy="lru", eviction_listener=listener)
    cache.get_many_with(range(3), lambda missing: dict.fromkeys(missing, 5))
    assert asked == [0, -1, -1, -1]


WRITES = {
    "set": (lambda cache: cache.set("a", "by hand"), "by hand"),
    "setdefault": (lambda cache: cache.setdefault("a", "by hand"), "by hand"),
    "set_with": (lambda cache: cache.set_with("a", str, "by hand"), "by hand"),
    "set_many": (lambda cache: cache.set_many({"a": "by hand"}), "by hand"),
    "remove": (lambda cache: cache.remove("a"), MISSING),
    "remove_many": (lambda cache: cache.remove_many("a"), MISSING),
    "remove_if": (lambda cache: cache.remove_if(lambda key, value: False), MISSING),
    "clear": (lambda cache: cache.clear(), MISSING),
    "set and remove": (lambda cache: (cache.set("a", 5), cache.remove("a")), MISSING),
}


@pytest.mark.parametrize(("write", "remains"), WRITES.values(), ids=WRITES)
def test_write_during_the_load_wins(write, remains):
    cache = Moka(10)

    def load(missing):
        write(cache)
        return dict.fromkeys(missing, "loaded")

    assert cache.get_many_with(["a", "b"], load) == {"a": "loaded", "b": "loaded"}
    assert cache.get("a", MISSING) == remains
    loses_all = write in (WRITES["remove_if"][0], WRITES["clear"][0])
    assert cache.get("b", MISSING) == (MISSING if loses_all else "loaded")


def test_write_of_another_key_during_the_load_keeps_the_values():
    cache = Moka(10)

    def load(missing):
        cache.set(Key("c", hash("a")), 1)
        cache.remove("d")
        return dict.fromkeys(missing, "loaded")

    cache.get_many_with(["a"], load)
    assert cache.get("a") == "loaded"


# Statistics.
def test_call_counts_one_load_and_a_miss_for_each_missing_key():
    cache = Moka(10)
    cache.set("a", 1)
    cache.get_many_with(["a", "b", "c"], lambda missing: {"b": 2, "z": 1})
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 2, 1, 0)
    assert stats.load_seconds > 0
    with pytest.raises(ZeroDivisionError):
        cache.get_many_with(["c", "d"], lambda missing: 1 / 0)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 4, 2, 1)


def test_found_keys_count_as_accesses():
    cache = Moka(3, policy="lru")
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.get_many_with(["a"], must_not_load)
    cache.set("d", 4)
    assert contents(cache) == {"a": 1, "c": 3, "d": 4}


def test_expired_key_is_loaded():
    cache = Moka(10)
    cache.set("a", "old", ttl=IMMEDIATELY_DUE)
    assert cache.get_many_with(["a"], Load()) == contents(cache) == {"a": "value of a"}


def test_durations_of_the_call_shorten_those_of_the_cache():
    cache = Moka(10, ttl=100)
    with ManualClock(caches=[cache]) as clock:
        cache.get_many_with(["a"], Load(), ttl=5)
        cache.get_many_with(["b"], Load(), ttl=500)
        assert (cache.expires_in("a"), cache.expires_in("b")) == (5, 100)
        clock.advance(5)
        assert cache.get_many_with(["a", "b"], Load(values={"a": "anew"})) == {"a": "anew", "b": "value of b"}


# ttl functions.
def test_ttl_functions_of_cache_and_call_run_once_for_each_loaded_value():
    asked = []
    cache = Moka(10, ttl=lambda key, value: asked.append((key, value)) or 10)
    with ManualClock(caches=[cache]):
        cache.set("b", 2, ttl=7)
        asked.clear()
        result = cache.get_many_with(
            ["a", "b", "c"], lambda missing: {"a": 1, "d": 4}, ttl=lambda key, value: asked.append(key) or value
        )
        assert result == {"a": 1, "b": 2, "d": 4}
        assert asked == [("a", 1), "a", ("d", 4), "d"]
        assert [cache.expires_in(key) for key in "abd"] == [1, 7, 4]


def test_values_that_the_ttl_function_does_not_keep_are_in_the_result():
    events = Events()
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    assert cache.get_many_with(["a", "b"], lambda missing: {"a": 5, "b": 0, "c": -1}) == {"a": 5, "b": 0, "c": -1}
    assert contents(cache) == {"a": 5}
    assert events == [("b", 0, "expired"), ("c", -1, "expired")]
    stats = cache.stats()
    assert (stats.inserts, stats.expirations) == (3, 2)


def test_present_value_stays_beside_a_value_that_is_not_kept():
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("b", "old")
    result = cache.get_many_with(["a"], lambda missing: {"a": 1, "b": 0}, ttl=lambda key, value: value)
    assert (result, contents(cache), events) == ({"a": 1, "b": 0}, {"a": 1, "b": "old"}, [])


# References.
def test_call_keeps_no_reference():
    cache = Moka(10)
    values = {"a": Value(), "b": Value()}
    watched = [weakref.ref(value) for value in values.values()]
    cache.get_many_with(["a"], lambda missing: values)
    values.clear()
    cache.clear()
    cache.run_pending_tasks()
    collect()
    assert [reference() for reference in watched] == [None, None]


def test_dict_of_load_is_not_changed_and_may_be_changed_by_the_weigher():
    values = {"a": 1, "b": 2, "c": 3}

    def weigher(key, value):
        values.clear()
        gc.collect()
        return 1

    cache = Moka(10, weigher=weigher)
    assert cache.get_many_with(["a"], lambda missing: values) == {"a": 1}
    assert contents(cache) == {"a": 1}
