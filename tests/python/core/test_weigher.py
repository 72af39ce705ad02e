"""The weigher decides how much of the capacity an entry uses."""

import threading

import pytest
from helpers import Events, Key, contents, observable_state

from moka_py import Moka


class Weigher:
    """A weigher that returns the value, and records its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, key, value):
        self.calls.append((key, value))
        return value


@pytest.fixture
def weigher():
    return Weigher()


@pytest.fixture
def cache(weigher, events):
    return Moka(10, weigher=weigher, eviction_listener=events, policy="lru")


def test_weighted_size_is_the_sum_of_the_weights(cache):
    cache.update(a=3, b=4)
    assert (cache.weighted_size(), cache.count()) == (7, 2)


def test_removal_frees_the_weight_of_the_entry(cache):
    cache.update(a=3, b=4)
    cache.remove("a")
    assert cache.weighted_size() == 4
    cache.clear()
    assert cache.weighted_size() == 0


def test_replacement_frees_the_weight_of_the_old_value(cache):
    cache.set("a", 9)
    cache.set("a", 2)
    assert cache.weighted_size() == 2


def test_insert_evicts_as_many_entries_as_it_needs(cache, events):
    cache.update(a=3, b=3, c=3)
    cache.set("d", 7)
    assert contents(cache) == {"c": 3, "d": 7}
    assert events == [("a", 3, "size"), ("b", 3, "size")]


def test_replacing_by_a_heavier_value_evicts_others(cache, events):
    cache.update(a=3, b=3, c=3)
    cache.set("a", 6)
    assert contents(cache) == {"c": 3, "a": 6}
    assert events == [("a", 3, "replaced"), ("b", 3, "size")]


def test_entry_as_heavy_as_the_capacity_evicts_all_others(cache):
    cache.update(a=3, b=3)
    cache.set("c", 10)
    assert contents(cache) == {"c": 10}


def test_entry_heavier_than_the_capacity_is_not_kept(cache, events):
    cache.update(a=3, b=3)
    cache.set("c", 11)
    assert contents(cache) == {"a": 3, "b": 3}
    assert events == [("c", 11, "size")]


def test_entry_heavier_than_the_capacity_removes_the_old_value(cache, events):
    cache.update(a=3, b=3)
    cache.set("a", 11)
    assert contents(cache) == {"b": 3}
    assert sorted(events, key=str) == [("a", 11, "size"), ("a", 3, "replaced")]
    assert cache.weighted_size() == 3


def test_computed_value_heavier_than_the_capacity_is_returned_and_not_kept(cache, events):
    assert cache.get_with("a", lambda: 11) == 11
    assert (contents(cache), events) == ({}, [("a", 11, "size")])


def test_entry_of_weight_zero_uses_no_capacity(cache, events):
    cache.set("heavy", 10)
    for number in range(1000):
        cache.set(number, 0)
    assert (cache.count(), cache.weighted_size(), events) == (1001, 10, [])


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_entry_of_weight_zero_fits_into_capacity_zero(policy):
    cache = Moka(0, weigher=lambda key, value: 0, policy=policy)
    for number in range(100):
        cache.set(number, number)
    assert cache.count() == 100
    assert cache.get(50) == 50


def test_weigher_gets_key_and_value(cache, weigher):
    cache.set("a", 3)
    assert weigher.calls == [("a", 3)]


@pytest.mark.parametrize(
    "insert",
    [
        lambda cache: cache.set("a", 3),
        lambda cache: cache.__setitem__("a", 3),
        lambda cache: cache.setdefault("a", 3),
        lambda cache: cache.update(a=3),
        lambda cache: cache.get_with("a", lambda: 3),
    ],
    ids=["set", "setitem", "setdefault", "update", "get_with"],
)
def test_weigher_is_called_once_per_insert(cache, weigher, insert):
    insert(cache)
    assert weigher.calls == [("a", 3)]
    assert cache.weighted_size() == 3


@pytest.mark.parametrize("replace", [Moka.set, Moka.__setitem__])
def test_weigher_is_called_once_per_replacement(cache, weigher, replace):
    cache.set("a", 3)
    replace(cache, "a", 4)
    assert weigher.calls == [("a", 3), ("a", 4)]


def test_weigher_is_not_called_by_reads(cache, weigher):
    cache.set("a", 3)
    del weigher.calls[:]
    cache.get("a"), cache["a"], "a" in cache, list(cache.items()), cache.weighted_size()
    cache.get_with("a", list), cache.setdefault("a", 5), cache.remove("a"), cache.get("a")
    assert weigher.calls == []


def test_weigher_is_called_once_even_if_the_write_is_retried():
    weighed = []
    cache = Moka(100, weigher=lambda key, value: weighed.append(value) or 1)

    class Moving(Key):
        moves = 3
        __hash__ = Key.__hash__

        def __eq__(self, other):
            if Moving.moves:
                Moving.moves -= 1
                cache.remove(stored)
                cache.set(stored, "moved")
            return super().__eq__(other)

    stored, asking = Moving("a"), Moving("a")
    cache.set(stored, "first")
    cache.set(asking, "last")
    assert weighed.count("last") == 1
    assert contents(cache) == {Key("a"): "last"}


def test_weigher_runs_on_the_calling_thread(cache):
    threads = []
    cache = Moka(10, weigher=lambda key, value: threads.append(threading.get_ident()) or 1)
    cache.set("a", 1)
    cache.get_with("b", list)
    assert threads == [threading.get_ident()] * 2


class Heavy(int):
    pass


@pytest.mark.parametrize(
    ("weight", "counts"),
    [(True, 1), (False, 0), (Heavy(3), 3), (2**32 - 1, 2**32 - 1), (2**32, 2**32 - 1), (2**100, 2**32 - 1)],
)
def test_ints_from_zero_on_are_valid_weights(weight, counts):
    cache = Moka(2**40, weigher=lambda key, value: weight)
    cache.set("a", 1)
    assert cache.weighted_size() == counts
    cache.set("b", 1)
    assert cache.weighted_size() == 2 * counts


def test_weight_beyond_the_limit_counts_as_the_limit():
    cache = Moka(2**32 - 1, weigher=lambda key, value: 2**64)
    cache.set("a", 1)
    assert cache.get("a") == 1


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (1.0, TypeError, "weigher must return an int, got float"),
        ("1", TypeError, "weigher must return an int, got str"),
        (None, TypeError, "weigher must return an int, got NoneType"),
        ([], TypeError, "weigher must return an int, got list"),
        (-1, ValueError, "weigher must return at least 0, got -1"),
        (-(2**70), ValueError, f"weigher must return at least 0, got -{2**70}"),
    ],
)
@pytest.mark.parametrize("key", ["present", "absent"])
def test_refused_weight_leaves_the_cache_unchanged(weight, error, text, key):
    events, weights = Events(), [1]
    cache = Moka(10, weigher=lambda key, value: weights[-1], eviction_listener=events)
    cache.set("present", 1)
    weights.append(weight)
    before = observable_state(cache)
    inserts = [lambda: cache.set(key, 2), lambda: cache.update({key: 2}), lambda: cache.__setitem__(key, 2)]
    if key == "absent":
        inserts += [lambda: cache.get_with(key, lambda: 2), lambda: cache.setdefault(key, 2)]
    for insert in inserts:
        with pytest.raises(error) as caught:
            insert()
        assert str(caught.value) == text
        assert (observable_state(cache), events) == (before, [])


# Law 10: the error is the user's, and the cache as before.
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), KeyboardInterrupt(), SystemExit(3)])
def test_error_of_the_weigher_is_raised_unchanged(error):
    events, fail = Events(), []

    def weigh(key, value):
        if fail:
            raise error
        return 1

    cache = Moka(10, weigher=weigh, eviction_listener=events)
    cache.set("a", 1)
    fail.append(True)
    before = observable_state(cache)
    for insert in (lambda: cache.set("a", 2), lambda: cache.set("b", 2), lambda: cache.get_with("b", list)):
        with pytest.raises(type(error)) as caught:
            insert()
        assert caught.value is error
        assert (observable_state(cache), events) == (before, [])
    fail.clear()
    cache.set("a", 3)
    assert cache.get("a") == 3


# Law 1: no Python under a lock.
def test_weigher_can_use_the_cache():
    def weigh(key, value):
        if key == "outer":
            assert cache.get("old") == 1
            cache.set("inner", 2)
            cache.remove("old")
            len(cache), list(cache.items()), cache.run_pending_tasks()
        return 1

    cache = Moka(10, weigher=weigh)
    cache.set("old", 1)
    cache.set("outer", 3)
    assert contents(cache) == {"inner": 2, "outer": 3}


@pytest.mark.parametrize("how", ["sets", "removes", "clears"])
def test_weigher_can_write_the_key_that_is_being_set(how):
    depth = []

    def weigh(key, value):
        if not depth:
            depth.append(True)
            {"sets": lambda: cache.set(key, "by weigher"), "removes": lambda: cache.remove(key)}.get(how, cache.clear)()
        return 1

    events = Events()
    cache = Moka(10, weigher=weigh, eviction_listener=events)
    depth.append(True)
    cache.set("a", "old")
    depth.clear()
    cache.set("a", "new")
    assert contents(cache) == {"a": "new"}
    assert events[0] == ("a", "old", "replaced" if how == "sets" else "explicit")
    assert cache.weighted_size() == 1
