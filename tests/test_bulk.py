"""Calls for many keys: `get_many`, `set_many`, `remove_many`, `remove_if`."""

import gc
import itertools
import time
import weakref

import pytest
from helpers import (
    AT_ONCE,
    FREE_THREADED,
    MAY_WAIT,
    MOMENT,
    ActingKey,
    Background,
    Events,
    Gate,
    Key,
    alive,
    contents,
    run_threads,
    state,
    watched,
)

from moka_py import Moka


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def cache(events):
    cache = Moka(10, policy="lru", eviction_listener=events)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    return cache


class Unlisted:
    """Iterable, but not now."""

    def __iter__(self):
        raise ZeroDivisionError("mine")


# get_many.
def test_get_many_returns_those_found(cache):
    found = cache.get_many(["c", "x", "a"])
    assert type(found) is dict
    assert list(found.items()) == [("c", 3), ("a", 1)]
    assert cache.get_many([]) == {}


@pytest.mark.parametrize("make", [list, tuple, set, iter, dict.fromkeys, lambda keys: (key for key in keys)])
def test_keys_are_any_iterable(cache, make):
    assert cache.get_many(make(["a", "b"])) == {"a": 1, "b": 2}
    assert cache.remove_many(make(["a", "b"])) == 2


def test_get_many_takes_keys_of_any_kind():
    cache, keys = Moka(10), [1, "1", (1,), b"1", 1.5, Key("a", 1), Key("b", 1), None]
    cache.set_many((key, number) for number, key in enumerate(keys))
    assert cache.get_many([*keys, Key("c", 1)]) == {key: number for number, key in enumerate(keys)}


def test_get_many_finds_none_as_a_value(cache):
    cache.set("a", None)
    assert cache.get_many("ax") == {"a": None}


def test_keys_can_be_given_by_name(cache):
    assert cache.get_many(keys="ab") == {"a": 1, "b": 2}
    assert cache.remove_many(keys="ab") == 2


def test_each_of_get_many_counts_as_a_use():
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


def test_get_many_with_a_key_in_the_middle_that_raises():
    odd = ActingKey("odd", 1)
    odd.act = lambda: 1 / 0
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
def test_set_many_takes_what_update_takes(make):
    cache = Moka(10)
    cache.set("x", 0)
    assert cache.set_many(make()) is None
    assert contents(cache) == {"x": "xx", "y": "yy"}
    cache.clear()
    cache.set_many(entries=make())
    assert contents(cache) == {"x": "xx", "y": "yy"}


def test_set_many_from_a_cache_and_from_itself(cache, events):
    other = Moka(10)
    other.set_many(cache)
    assert contents(other) == contents(cache) == {"a": 1, "b": 2, "c": 3}
    cache.set_many(cache)
    assert contents(cache) == {"a": 1, "b": 2, "c": 3}
    assert events.causes() == ["replaced"] * 3
    assert other.stats()[:2] == cache.stats()[:2] == (0, 0)


@pytest.mark.parametrize("kind", ["ttl", "tti"])
def test_durations_of_set_many_are_those_of_each(cache, kind):
    cache.set_many({"a": 5, "d": 6}, **{kind: 1000})
    lives = [cache.expires_in(key) for key in "abd"]
    assert lives[1] is None
    assert 900 < lives[0] <= 1000
    assert 900 < lives[2] <= 1000
    cache.set_many([("a", 7)])
    assert cache.expires_in("a") is None


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "1", 1e300])
def test_durations_of_set_many_are_checked_first(cache, events, kind, wrong):
    before = state(cache)
    with pytest.raises((ValueError, TypeError), match=f"^{kind} "):
        cache.set_many((pytest.fail("asked before the durations were checked") for _ in "x"), **{kind: wrong})
    with pytest.raises((ValueError, TypeError), match=f"^{kind} "):
        cache.set_many(5, **{kind: wrong})
    assert (state(cache), events) == (before, [])


def test_set_many_asks_the_weigher_and_evicts(events):
    cache = Moka(10, policy="lru", eviction_listener=events, weigher=lambda key, value: value)
    cache.set_many([("a", 4), ("b", 4), ("c", 4), ("a", 1), ("d", 11)])
    assert contents(cache) == {"a": 1, "b": 4, "c": 4}
    assert events == [("a", 4, "size"), ("d", 11, "size")]


def test_set_many_that_fails_in_the_middle_keeps_what_was_set(events):
    def weigh(key, value):
        if value == 0:
            raise ZeroDivisionError("mine")
        return 1

    cache = Moka(10, eviction_listener=events, weigher=weigh)
    odd = ActingKey("odd", 1)
    cache.set_many({"a": 1, Key("odd", 1): 1})
    odd.act = lambda: 1 / 0

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
def test_what_is_no_pair_is_named(cache, pair, len):
    text = f"^entries must have pairs of a key and a value, got {len} things in its element 1$"
    with pytest.raises(ValueError, match=text):
        cache.set_many([("a", 1), pair])


def test_what_is_no_pair_because_it_is_not_iterable_is_named(cache):
    for call, name in ((cache.set_many, "entries"), (cache.update, "other")):
        text = f"^{name} must have pairs of a key and a value, got int in its element 1$"
        with pytest.raises(TypeError, match=text):
            call([("a", 1), 7])


def test_what_fails_as_a_pair_raises_its_own_error(cache):
    class Pair:
        def __iter__(self):
            raise TypeError("of its own")

    with pytest.raises(TypeError, match=r"^of its own$"):
        cache.set_many([Pair()])


# remove_many.
def test_remove_many_says_how_many_were_there(cache, events):
    assert cache.remove_many(["a", "x", "c", "a"]) == 2
    assert contents(cache) == {"b": 2}
    assert events == [("a", 1, "explicit"), ("c", 3, "explicit")]
    assert cache.remove_many([]) == 0


def test_remove_many_does_not_count_what_is_past_its_deadline(cache, events):
    cache.set("d", 4, ttl=AT_ONCE)
    assert cache.remove_many("ad") == 1
    assert sorted(events) == [("a", 1, "explicit"), ("d", 4, "expired")]


def test_remove_many_that_fails_in_the_middle_keeps_removed_what_was(cache, events):
    odd = ActingKey("odd", 1)
    cache.set(Key("odd", 1), 4)
    odd.act = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        cache.remove_many(["a", odd, "b"])
    with pytest.raises(TypeError, match="unhashable"):
        cache.remove_many(["b", [], "c"])
    assert contents(cache) == {"c": 3, Key("odd", 1): 4}
    assert events == [("a", 1, "explicit"), ("b", 2, "explicit")]


# Bad input.
@pytest.mark.parametrize("method", ["get_many", "remove_many"])
@pytest.mark.parametrize("wrong", [1, None, object(), len], ids=["int", "None", "object", "function"])
def test_keys_that_are_not_iterable(cache, method, wrong):
    with pytest.raises(TypeError, match=f"^keys must be an iterable, got {type(wrong).__name__}$"):
        getattr(cache, method)(wrong)


@pytest.mark.parametrize("method", ["get_many", "remove_many", "set_many"])
def test_error_of_the_iterable_comes_out(cache, method):
    with pytest.raises(ZeroDivisionError, match="mine"):
        getattr(cache, method)(Unlisted())


@pytest.mark.parametrize("wrong", [1, None, object()], ids=["int", "None", "object"])
def test_entries_that_are_not_iterable(cache, wrong):
    rule = f"must be a mapping or an iterable of pairs, got {type(wrong).__name__}$"
    with pytest.raises(TypeError, match=f"^entries {rule}"):
        cache.set_many(wrong)
    with pytest.raises(TypeError, match=f"^other {rule}"):
        cache.update(wrong)


@pytest.mark.parametrize("wrong", [1, None, "text", object()], ids=["int", "None", "str", "object"])
def test_predicate_that_cannot_be_called(cache, wrong):
    with pytest.raises(TypeError, match=f"^predicate must be callable, got {type(wrong).__name__}$"):
        cache.remove_if(wrong)
    assert len(cache) == 3


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


# remove_if.
def test_remove_if_takes_out_what_the_predicate_says(cache, events):
    asked = []

    def is_odd(key, value):
        asked.append((key, value))
        return value % 2

    assert cache.remove_if(is_odd) == 2
    assert sorted(asked) == [("a", 1), ("b", 2), ("c", 3)]
    assert contents(cache) == {"b": 2}
    assert sorted(events) == [("a", 1, "explicit"), ("c", 3, "explicit")]
    assert cache.remove_if(predicate=lambda key, value: False) == 0


def test_remove_if_of_an_empty_cache_asks_nothing():
    assert Moka(10).remove_if(pytest.fail) == 0


@pytest.mark.parametrize("size", [1, 300, 20_000])
def test_remove_if_asks_about_each_once(size):
    cache, asked = Moka(size), []
    cache.set_many((number, -number) for number in range(size))
    assert cache.remove_if(lambda key, value: asked.append(key) or key % 3 == 0) == (size + 2) // 3
    assert sorted(asked) == list(range(size))
    assert sorted(cache) == [number for number in range(size) if number % 3]
    assert len(cache) == size - (size + 2) // 3 == cache.weighted_size()


@pytest.mark.parametrize(("answer", "is_true"), [([], False), ([0], True), ("", False), (None, False), (0.5, True)])
def test_the_answer_is_as_true_as_python_has_it(cache, answer, is_true):
    assert cache.remove_if(lambda key, value: answer) == (3 if is_true else 0)


class NeitherTrueNorFalse:
    def __bool__(self):
        raise ZeroDivisionError("mine")


@pytest.mark.parametrize("way", ["raises", "answer raises"])
def test_error_of_the_predicate_comes_out_and_what_was_removed_stays_removed(cache, events, way):
    error, seen = ZeroDivisionError("mine"), []

    def predicate(key, value):
        seen.append((key, value, "explicit"))
        if len(seen) < 2:
            return True
        if way == "raises":
            raise error
        return NeitherTrueNorFalse()

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        cache.remove_if(predicate)
    assert caught.value is error or way != "raises"
    assert (len(cache), len(seen)) == (2, 2)
    assert events == seen[:1]


def test_remove_if_is_no_access():
    cache = Moka(3, policy="lru", tti=1000)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    time.sleep(0.01)
    before = cache.expires_in("a")
    cache.remove_if(lambda key, value: False)
    assert cache.expires_in("a") <= before
    cache.set("d", 4)
    assert sorted(cache) == ["b", "c", "d"]


def test_remove_if_is_not_asked_about_what_is_past_its_deadline(cache):
    cache.set("due", 4, ttl=AT_ONCE)
    asked = []
    cache.remove_if(lambda key, value: asked.append(key))
    assert sorted(asked) == ["a", "b", "c"]


def test_what_comes_due_under_the_predicate_is_expired_and_not_counted(events):
    cache = Moka(10, eviction_listener=events)
    cache.set("due", 1, ttl=1)

    def waits(key, value):
        while cache.expires_in(key):
            time.sleep(MOMENT)
        return True

    assert cache.remove_if(waits) == 0
    assert events == [("due", 1, "expired")]


MEANWHILE = {
    "replaced": (lambda cache, key: cache.set(key, "new"), {"a": "new"}),
    "removed": (lambda cache, key: cache.remove(key), {}),
    "removed and set": (lambda cache, key: (cache.remove(key), cache.set(key, "new")), {"a": "new"}),
    "removed, another in its place": (lambda cache, key: (cache.remove(key), cache.set("z", "new")), {"z": "new"}),
    "cleared": (lambda cache, key: cache.clear(), {}),
    "cleared and trimmed": (lambda cache, key: (cache.clear(), cache.run_pending_tasks()), {}),
}


@pytest.mark.parametrize(("act", "remains"), MEANWHILE.values(), ids=MEANWHILE)
@pytest.mark.parametrize("make", [str, lambda name: Key(name, 1)], ids=["str", "own"])
def test_what_changed_after_the_predicate_saw_it_stays(act, remains, make):
    events = Events()
    cache, stored = Moka(10, eviction_listener=events), make("a")
    cache.set(stored, "old")
    asked = []

    def predicate(key, value):
        asked.append((key, value))
        if value == "old":
            act(cache, key)
            return True
        return False

    assert cache.remove_if(predicate) == 0
    assert asked[0] == (stored, "old")
    assert contents(cache) == {(stored if key == "a" else key): value for key, value in remains.items()}
    assert [value for _, value, _ in events] == ["old"]


def test_equal_values_are_not_the_same():
    cache = Moka(10)
    first, second = [1], [1]
    cache.set("a", first)
    assert cache.remove_if(lambda key, value: cache.set(key, second) or value is first) == 0
    assert cache.get("a") is second


def test_the_same_value_set_again_is_the_same():
    cache, value = Moka(10), object()
    cache.set("a", value)
    assert cache.remove_if(lambda key, held: cache.set(key, held) or True) == 1
    assert len(cache) == 0


def test_the_predicate_may_use_the_cache_in_every_way(cache):
    def busy(key, value):
        cache.set(("seen", key), value)
        cache.get_with(("computed", key), lambda: value)
        cache.remove(("seen", key))
        cache.remove_if(lambda inner, _: isinstance(inner, tuple))
        cache.get_many([key])
        list(cache.items())
        cache.run_pending_tasks()
        gc.collect()
        return key != "b"

    assert cache.remove_if(busy) >= 2
    assert contents(cache) == {"b": 2}


@pytest.mark.time_limit(30)
@pytest.mark.parametrize("capacity", [10, 100_000])
def test_a_predicate_that_always_adds_comes_to_an_end(capacity):
    cache, fresh = Moka(capacity), itertools.count()
    cache.set_many((next(fresh), 0) for _ in range(10))

    def adds(key, value):
        for _ in range(5):
            cache.set(next(fresh), 0)
        return True

    cache.remove_if(adds)
    assert len(cache) == len(list(cache)) <= capacity


def test_listener_of_remove_if_may_use_the_cache():
    def listener(key, value, cause):
        if cause == "explicit" and value:
            cache.set(key, value - 1)

    cache = Moka(10, eviction_listener=listener)
    cache.set_many({"a": 3, "b": 0})
    rounds = 0
    while cache.remove_if(lambda key, value: True):
        rounds += 1
    assert rounds <= 4
    assert len(cache) == 0


def test_keys_are_neither_hashed_nor_compared_by_remove_if():
    asked = []

    class Watched(Key):
        def __hash__(self):
            asked.append("hash")
            return 1

        def __eq__(self, other):
            asked.append("eq")
            return super().__eq__(other)

    cache = Moka(10)
    cache.set_many({Watched("a"): 1, Watched("b"): 2})
    asked.clear()
    assert cache.remove_if(lambda key, value: value == 1) == 1
    assert asked == []


def test_no_lock_is_held_while_the_predicate_runs(cache):
    gate = Gate()

    def stands(key, value):
        gate.stop_here()
        return value == 1

    with Background(lambda: cache.remove_if(stands)) as removing:
        gate.wait_until_reached()
        cache.set("d", 4)
        assert cache.get("a") == 1
        assert cache.remove("b") == 2
        assert cache.get_with("e", lambda: 5) == 5
        assert cache.remove_if(lambda key, value: key == "c") == 1
        cache.run_pending_tasks()
        gate.open()
    assert removing.result == 1
    assert contents(cache) == {"d": 4, "e": 5}


def test_values_are_released_as_by_remove():
    cache = Moka(1000)
    values, references = watched(500)
    cache.set_many(enumerate(values))
    del values
    assert cache.remove_if(lambda key, value: key % 2) == 250
    assert alive(references) <= 250 + MAY_WAIT
    cache.run_pending_tasks()
    assert alive(references) == 250
    assert cache.remove_many(range(500)) == 250
    cache.run_pending_tasks()
    assert alive(references) == 0


def test_a_predicate_is_not_kept():
    cache = Moka(10)
    cache.set("a", 1)

    class Predicate:
        def __call__(self, key, value):
            return True

    predicate = Predicate()
    reference = weakref.ref(predicate)
    cache.remove_if(predicate)
    del predicate
    assert reference() is None


# Threads.
def test_each_entry_is_removed_by_one_of_many_threads(fast_switches):
    events = Events()
    cache = Moka(20_000, eviction_listener=events)
    rounds, fill = 10, 1000
    for number in range(rounds):
        cache.set_many(((number, key), key) for key in range(fill))
        removed = run_threads(*[lambda: cache.remove_if(lambda key, value: True)] * 4)
        assert sum(removed) == fill
        assert len(cache) == 0
    assert len(events) == len(set(events.keys())) == rounds * fill


def test_remove_if_beside_writers_removes_no_value_that_it_did_not_see(fast_switches):
    """Only odd values are to be removed, so each even one leaves because it is replaced."""
    events = Events()
    cache = Moka(1000, eviction_listener=events)
    rounds = 3000 if FREE_THREADED else 1500

    def write(thread):
        for number in range(rounds):
            cache.set((thread, number % 7), number)

    def sweep():
        return sum(cache.remove_if(lambda key, value: value % 2) for _ in range(200))

    *_, first, second = run_threads(*(lambda thread=thread: write(thread) for thread in range(3)), sweep, sweep)
    explicit = [value for _, value, cause in events if cause == "explicit"]
    assert len(explicit) == first + second
    assert all(value % 2 for value in explicit)
    assert len(events) + len(cache) == 3 * rounds


def test_bulk_calls_of_many_threads_add_up(fast_switches):
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
