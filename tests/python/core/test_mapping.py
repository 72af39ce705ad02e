"""A cache is a `MutableMapping`, so that code that takes a mapping takes a cache."""

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView

import pytest
from helpers import MISSING, Events

from moka_py import Moka
from moka_py.testing import ManualClock


@pytest.fixture
def cache():
    cache = Moka(10)
    cache.set("a", 1)
    cache.set("b", 2)
    return cache


def test_cache_is_a_mutable_mapping(cache):
    assert isinstance(cache, MutableMapping)
    assert issubclass(Moka, MutableMapping)
    assert isinstance(cache, Mapping)


def test_cache_has_every_method_of_a_mutable_mapping():
    names = [name for name in vars(MutableMapping) | vars(Mapping) if not name.startswith("_")]
    assert [name for name in names if not hasattr(Moka, name)] == []


def test_subscript_returns_the_value(cache):
    assert cache["a"] == 1


def test_subscript_of_an_absent_key_raises_key_error_with_the_key(cache):
    with pytest.raises(KeyError) as caught:
        cache["c"]
    assert caught.value.args == ("c",)


@pytest.mark.parametrize("call", [Moka.__getitem__, Moka.__delitem__, Moka.pop])
def test_key_error_of_a_tuple_holds_the_tuple(cache, call):
    key = (1, 2)
    with pytest.raises(KeyError) as caught:
        call(cache, key)
    assert caught.value.args == (key,)
    assert caught.value.args[0] is key


def test_subscript_assignment_sets_the_value(cache):
    cache["c"] = 3
    cache["a"] = 4
    assert dict(cache.items()) == {"a": 4, "b": 2, "c": 3}


def test_del_removes_the_entry(cache):
    del cache["a"]
    assert list(cache) == ["b"]


def test_del_of_an_absent_key_raises_key_error_with_the_key(cache):
    with pytest.raises(KeyError) as caught:
        del cache["c"]
    assert caught.value.args == ("c",)
    assert len(cache) == 2


def test_in_finds_present_keys_only(cache):
    assert "a" in cache
    assert "c" not in cache


def test_iteration_yields_keys(cache):
    assert sorted(cache) == ["a", "b"]


def test_pop_removes_and_returns_the_value(cache):
    assert cache.pop("a") == 1
    assert "a" not in cache


def test_pop_of_an_absent_key_raises_key_error_with_the_key(cache):
    with pytest.raises(KeyError) as caught:
        cache.pop("c")
    assert caught.value.args == ("c",)


def test_pop_of_an_absent_key_returns_the_default(cache):
    assert cache.pop("c", None) is None
    assert cache.pop("c", MISSING) is MISSING


def test_pop_takes_the_default_by_name(cache):
    assert cache.pop("c", default=MISSING) is MISSING


def test_popitem_returns_each_entry_once(cache):
    assert sorted([cache.popitem(), cache.popitem()]) == [("a", 1), ("b", 2)]
    assert len(cache) == 0


def test_popitem_of_an_empty_cache_raises_key_error():
    with pytest.raises(KeyError):
        Moka(10).popitem()


def test_setdefault_keeps_a_present_value(cache):
    assert cache.setdefault("a", 9) == 1
    assert cache["a"] == 1


def test_setdefault_sets_an_absent_key(cache):
    assert cache.setdefault("c", 3) == 3
    assert cache["c"] == 3


def test_setdefault_without_a_default_sets_none(cache):
    assert cache.setdefault("c") is None
    assert cache.get("c", MISSING) is None


def test_setdefault_treats_a_stored_none_as_present(cache):
    cache["c"] = None
    assert cache.setdefault("c", 3) is None


@pytest.mark.parametrize("other", [{"b": 3, "c": 4}, [("b", 3), ("c", 4)], iter([("b", 3), ("c", 4)])])
def test_update_takes_mappings_and_pairs(cache, other):
    assert cache.update(other) is None
    assert dict(cache.items()) == {"a": 1, "b": 3, "c": 4}


def test_update_takes_a_cache(cache):
    other = Moka(10)
    other.update(cache)
    assert dict(other.items()) == {"a": 1, "b": 2}


def test_update_takes_the_cache_itself(cache):
    cache.update(cache)
    assert dict(cache.items()) == {"a": 1, "b": 2}


def test_update_takes_any_object_with_keys(cache):
    class Pairs:
        def keys(self):
            return ["b", "c"]

        def __getitem__(self, key):
            return key * 2

    cache.update(Pairs())
    assert dict(cache.items()) == {"a": 1, "b": "bb", "c": "cc"}


def test_update_takes_keyword_arguments(cache):
    cache.update({"b": 3}, c=4, self=5, other=6)
    assert dict(cache.items()) == {"a": 1, "b": 3, "c": 4, "self": 5, "other": 6}


def test_update_without_arguments_changes_nothing(cache):
    cache.update()
    assert dict(cache.items()) == {"a": 1, "b": 2}


def test_update_that_fails_keeps_the_entries_already_set(cache):
    def pairs():
        yield "a", 10
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.update(pairs())
    assert cache["a"] == 10


def test_views_are_instances_of_the_abstract_views(cache):
    assert isinstance(cache.keys(), KeysView)
    assert isinstance(cache.values(), ValuesView)
    assert isinstance(cache.items(), ItemsView)


def test_views_have_their_contents(cache):
    assert sorted(cache.keys()) == ["a", "b"]
    assert sorted(cache.values()) == [1, 2]
    assert sorted(cache.items()) == [("a", 1), ("b", 2)]


def test_views_are_live(cache):
    keys, values, items = cache.keys(), cache.values(), cache.items()
    cache["c"] = 3
    del cache["a"]
    assert (sorted(keys), sorted(values), sorted(items)) == (["b", "c"], [2, 3], [("b", 2), ("c", 3)])
    assert len(keys) == len(values) == len(items) == 2


def test_views_can_be_iterated_again(cache):
    items = cache.items()
    assert list(items) == list(items)


def test_views_support_in(cache):
    assert "a" in cache.keys() and "c" not in cache.keys()
    assert 1 in cache.values() and 3 not in cache.values()
    assert ("a", 1) in cache.items() and ("a", 2) not in cache.items() and ("c", 1) not in cache.items()


@pytest.mark.parametrize("thing", ["a", 1, None, ("a",), ("a", 1, 2), []])
def test_object_that_is_not_a_pair_is_not_in_items(cache, thing):
    cache.clear()
    try:
        assert thing not in cache.items()
    except (TypeError, ValueError):
        pass  # `ItemsView` raises, too: it unpacks the pair first.


def test_keys_and_items_are_sets(cache):
    assert cache.keys() & {"a", "x"} == {"a"}
    assert cache.keys() | {"x"} == {"a", "b", "x"}
    assert cache.keys() - {"a"} == {"b"}
    assert cache.items() & {("a", 1)} == {("a", 1)}
    assert cache.keys() == {"a", "b"}
    assert cache.keys().isdisjoint({"x"})


def test_views_have_a_useful_repr(cache):
    for view in (cache.keys(), cache.values(), cache.items()):
        assert isinstance(repr(view), str)


def test_views_keep_the_cache_alive():
    assert list((lambda: _filled())().items()) == [("a", 1)]
    assert list(iter(_filled())) == ["a"]


def _filled():
    cache = Moka(10)
    cache["a"] = 1
    return cache


def test_dict_accepts_a_cache(cache):
    assert dict(cache) == {"a": 1, "b": 2}
    assert {**cache} == {"a": 1, "b": 2}


def test_call_accepts_a_cache_as_keyword_arguments(cache):
    assert (lambda a, b: (a, b))(**cache) == (1, 2)


def test_match_statement_accepts_a_cache(cache):
    match cache:
        case {"a": one, "b": two}:
            assert (one, two) == (1, 2)
        case _:
            pytest.fail("not matched as a mapping")


def test_decorators_that_take_a_mapping_accept_a_cache():
    def memoize(cache):
        def decorate(function):
            def wrapper(*args):
                try:
                    return cache[args]
                except KeyError:
                    return cache.setdefault(args, function(*args))

            return wrapper

        return decorate

    calls = []

    @memoize(Moka(10))
    def add(x, y):
        calls.append((x, y))
        return x + y

    assert [add(1, 2), add(1, 2), add(2, 1)] == [3, 3, 3]
    assert calls == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    "leave",
    [
        lambda cache: cache.remove("a"),
        lambda cache: cache.pop("a"),
        lambda cache: cache.popitem(),
        lambda cache: cache.__delitem__("a"),
        lambda cache: cache.clear(),
    ],
    ids=["remove", "pop", "popitem", "del", "clear"],
)
def test_cause_of_a_requested_removal_is_explicit(leave):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache["a"] = 1
    leave(cache)
    assert events == [("a", 1, "explicit")]


# The victim of a full LRU cache shows which calls count as an access.
LOOKS = {
    "in": lambda cache: "a" in cache,
    "iter": list,
    "keys": lambda cache: list(cache.keys()),
    "values": lambda cache: list(cache.values()),
    "items": lambda cache: list(cache.items()),
    "in keys": lambda cache: "a" in cache.keys(),
    "in values": lambda cache: 1 in cache.values(),
    "in items": lambda cache: ("a", 1) in cache.items(),
    "len": len,
    "count": lambda cache: cache.count(),
    "bool": bool,
    "repr": repr,
    "expires_in": lambda cache: cache.expires_in("a"),
    "run_pending_tasks": lambda cache: cache.run_pending_tasks(),
}
ACCESSES = {
    "get": lambda cache: cache.get("a"),
    "subscript": lambda cache: cache["a"],
    "get_with": lambda cache: cache.get_with("a", list),
    "setdefault": lambda cache: cache.setdefault("a", 5),
    "set": lambda cache: cache.set("a", 1),
}


def survivors(touch):
    cache = Moka(2, policy="lru")
    cache["a"] = 1
    cache["b"] = 2
    touch(cache)
    cache["c"] = 3
    return sorted(cache)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_calls_that_only_look_do_not_count_as_an_access(look):
    assert survivors(look) == ["b", "c"]


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_calls_that_use_an_entry_count_as_an_access(access):
    assert survivors(access) == ["a", "c"]


@pytest.mark.parametrize("copy", [dict, lambda cache: {**cache}], ids=["dict", "display"])
def test_copy_by_keys_can_raise_at_an_expired_entry_but_a_copy_by_items_cannot(copy):
    class Slow(Moka):
        def __getitem__(self, key):
            clock.advance(1)
            return super().__getitem__(key)

    with ManualClock() as clock:
        cache = Slow(10, ttl=1)
    cache.update(a=1, b=2)
    assert dict(cache.items()) == {"a": 1, "b": 2}
    with pytest.raises(KeyError):
        copy(cache)
    assert dict(cache.items()) == {}
