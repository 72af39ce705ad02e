"""`remove_if`: the entries that its predicate sees, the calls that it may make, and the entries that it removes."""

import gc
import itertools
import weakref

import pytest
from helpers import (
    FREE_THREADED,
    IMMEDIATELY_DUE,
    MAX_UNRELEASED_PER_THREAD,
    Background,
    Events,
    Gate,
    Key,
    contents,
    count_alive,
    run_threads,
    watched_values,
)

from moka_py import Moka


@pytest.fixture
def cache(events):
    cache = Moka(10, policy="lru", eviction_listener=events)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    return cache


def test_remove_if_removes_the_entries_that_the_predicate_picks(cache, events):
    asked = []

    def is_odd(key, value):
        asked.append((key, value))
        return value % 2

    assert cache.remove_if(is_odd) == 2
    assert sorted(asked) == [("a", 1), ("b", 2), ("c", 3)]
    assert contents(cache) == {"b": 2}
    assert sorted(events) == [("a", 1, "explicit"), ("c", 3, "explicit")]
    assert cache.remove_if(predicate=lambda key, value: False) == 0


def test_remove_if_of_an_empty_cache_never_calls_the_predicate():
    assert Moka(10).remove_if(pytest.fail) == 0


@pytest.mark.parametrize("size", [1, 300, 20_000])
def test_remove_if_calls_the_predicate_once_per_entry(size):
    cache, asked = Moka(size), []
    cache.set_many((number, -number) for number in range(size))
    assert cache.remove_if(lambda key, value: asked.append(key) or key % 3 == 0) == (size + 2) // 3
    assert sorted(asked) == list(range(size))
    assert sorted(cache) == [number for number in range(size) if number % 3]
    assert len(cache) == size - (size + 2) // 3 == cache.weighted_size()


@pytest.mark.parametrize(("answer", "is_true"), [([], False), ([0], True), ("", False), (None, False), (0.5, True)])
def test_result_of_the_predicate_is_converted_by_its_truth_value(cache, answer, is_true):
    assert cache.remove_if(lambda key, value: answer) == (3 if is_true else 0)


class NeitherTrueNorFalse:
    def __bool__(self):
        raise ZeroDivisionError("mine")


@pytest.mark.parametrize("way", ["raises", "answer raises"])
def test_error_of_the_predicate_is_raised_and_removed_entries_stay_removed(cache, events, way):
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


def test_remove_if_does_not_count_as_an_access(clock):
    cache = Moka(3, policy="lru", tti=1000)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    clock.advance(100)
    cache.remove_if(lambda key, value: False)
    assert cache.expires_in("a") == 900
    cache.set("d", 4)
    assert sorted(cache) == ["b", "c", "d"]


def test_remove_if_skips_expired_entries(cache):
    cache.set("due", 4, ttl=IMMEDIATELY_DUE)
    asked = []
    cache.remove_if(lambda key, value: asked.append(key))
    assert sorted(asked) == ["a", "b", "c"]


def test_entry_that_expires_during_the_predicate_has_the_cause_expired(events, clock):
    cache = Moka(10, eviction_listener=events)
    cache.set("due", 1, ttl=1)

    def passes_the_deadline(key, value):
        clock.advance(1)
        return True

    assert cache.remove_if(passes_the_deadline) == 0
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
def test_entry_that_changed_after_the_predicate_saw_it_stays(act, remains, make):
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


def test_replacement_by_an_equal_value_counts_as_a_change():
    cache = Moka(10)
    first, second = [1], [1]
    cache.set("a", first)
    assert cache.remove_if(lambda key, value: cache.set(key, second) or value is first) == 0
    assert cache.get("a") is second


def test_replacement_by_the_same_value_does_not_count_as_a_change():
    cache, value = Moka(10), object()
    cache.set("a", value)
    assert cache.remove_if(lambda key, held: cache.set(key, held) or True) == 1
    assert len(cache) == 0


def test_predicate_can_make_any_call_on_the_cache(cache):
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
def test_remove_if_terminates_when_the_predicate_always_adds(capacity):
    cache, fresh = Moka(capacity), itertools.count()
    cache.set_many((next(fresh), 0) for _ in range(10))

    def adds(key, value):
        for _ in range(5):
            cache.set(next(fresh), 0)
        return True

    cache.remove_if(adds)
    assert len(cache) == len(list(cache)) <= capacity


def test_listener_can_use_the_cache_during_remove_if():
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


def test_remove_if_neither_hashes_nor_compares_keys():
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


def test_remove_if_releases_values_as_promptly_as_remove():
    cache = Moka(1000)
    values, references = watched_values(500)
    cache.set_many(enumerate(values))
    del values
    assert cache.remove_if(lambda key, value: key % 2) == 250
    assert count_alive(references) <= 250 + MAX_UNRELEASED_PER_THREAD
    cache.run_pending_tasks()
    assert count_alive(references) == 250
    assert cache.remove_many(range(500)) == 250
    cache.run_pending_tasks()
    assert count_alive(references) == 0


def test_cache_does_not_keep_the_predicate():
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


@pytest.mark.parametrize("wrong", [1, None, "text", object()], ids=["int", "None", "str", "object"])
def test_predicate_that_is_not_callable_is_refused(cache, wrong):
    with pytest.raises(TypeError, match=f"^predicate must be callable, got {type(wrong).__name__}$"):
        cache.remove_if(wrong)
    assert len(cache) == 3


# Threads.
def test_only_one_of_many_threads_removes_each_entry(fast_switches):
    events = Events()
    cache = Moka(20_000, eviction_listener=events)
    rounds, fill = 10, 1000
    for number in range(rounds):
        cache.set_many(((number, key), key) for key in range(fill))
        removed = run_threads(*[lambda: cache.remove_if(lambda key, value: True)] * 4)
        assert sum(removed) == fill
        assert len(cache) == 0
    assert len(events) == len(set(events.keys())) == rounds * fill


def test_remove_if_beside_writers_removes_only_values_that_the_predicate_saw(fast_switches):
    """The predicate picks odd values, so even values can be removed by a replacement only."""
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
