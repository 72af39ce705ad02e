"""The capacity can be changed: exact on return, in bounded steps, in the order of the policy."""

import ctypes
import functools
import random
import signal
import statistics
import sys
import weakref

import pytest
from helpers import Events, Value, contents, run_threads
from traces import accesses, hits_of

from moka_py import Moka
from moka_py.testing import ManualClock

POLICIES = ["tiny_lfu", "lru"]
both_policies = pytest.mark.parametrize("policy", POLICIES)

# One step of a resize removes this many entries at most.
MAX_PER_STEP = 256


def filled(count, events=None, **options):
    cache = Moka(count, eviction_listener=events, **options)
    cache.update((number, number) for number in range(count))
    return cache


@both_policies
@pytest.mark.parametrize("capacity", [0, 1, 7, 500, 4_999])
def test_cache_fits_the_new_capacity_on_return(policy, capacity):
    events = Events()
    cache = filled(5_000, events, policy=policy)
    assert cache.resize(capacity) is None
    assert (cache.capacity, cache.count(), cache.weighted_size(), len(cache)) == (capacity,) * 4
    assert events.causes() == ["size"] * (5_000 - capacity)
    assert set(events.keys()) | set(cache) == set(range(5_000))
    assert cache.stats().evictions == 5_000 - capacity


def test_least_recently_used_entries_are_evicted_in_their_order(events):
    cache = filled(10, events, policy="lru")
    for number in (0, 4, 2):
        cache.get(number)
    cache.resize(5)
    assert events == [(number, number, "size") for number in (1, 3, 5, 6, 7)]
    assert set(cache) == {0, 2, 4, 8, 9}


def test_tiny_lfu_keeps_frequent_entries():
    cache = filled(1_000)
    for _ in range(6):
        cache.get_many(range(400, 500))
    cache.resize(200)
    assert sum(number in cache for number in range(400, 500)) >= 95


@both_policies
def test_weights_count(policy, events):
    cache = Moka(100, eviction_listener=events, policy=policy, weigher=lambda key, value: value)
    cache.update(dict.fromkeys(range(10), 10))
    cache.resize(35)
    assert (cache.weighted_size(), cache.count(), len(events)) == (30, 3, 7)
    cache.resize(100)
    cache.set("heavy", 70)
    assert (cache.weighted_size(), cache.count()) == (100, 4)


@both_policies
def test_larger_capacity_makes_room(policy, events):
    cache = filled(100, events, policy=policy)
    cache.resize(10_000)
    cache.update((number, number) for number in range(10_000))
    assert (cache.count(), events.causes()) == (10_000, ["replaced"] * 100)
    cache.set("new", 1)
    assert (cache.count(), events.causes()[100:]) == (10_000, ["size"])


@both_policies
def test_resize_to_zero_empties_the_cache_and_keeps_nothing(policy, events):
    cache = Moka(3_000, eviction_listener=events, policy=policy, weigher=lambda key, value: value % 2)
    cache.update((number, number) for number in range(3_000))
    cache.resize(0)
    assert (cache.count(), contents(cache), sorted(events.keys())) == (0, {}, list(range(3_000)))
    assert set(events.causes()) == {"size"}
    events.clear()
    for value in (0, 1):
        cache.set("a", value)
        assert cache.get_with("b", lambda value=value: value) == value
        assert cache.setdefault("c", value) == value
    assert (cache.count(), events.causes()) == (0, ["size"] * 6)
    cache.resize(10)
    cache.update(a=0, b=1)
    assert contents(cache) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("capacity", "kind", "text"),
    [
        (-1, ValueError, "capacity must be at least 0, got -1"),
        (-1, OverflowError, "capacity must be at least 0, got -1"),
        (2**64, ValueError, "capacity must be at most 2\\*\\*64 - 1, got 18446744073709551616"),
        ("5", TypeError, "capacity must be an int, got str"),
        (5.0, TypeError, "capacity must be an int, got float"),
        (None, TypeError, "capacity must be an int, got NoneType"),
    ],
)
def test_errors_are_those_of_the_constructor_and_change_nothing(capacity, kind, text):
    cache = filled(10)
    for call in (Moka, cache.resize):
        with pytest.raises(kind, match=text):
            call(capacity)
    assert (cache.capacity, cache.count()) == (10, 10)


def test_capacity_is_an_argument_by_place_or_by_name():
    cache = Moka(10)
    cache.resize(capacity=2**64 - 1)
    assert cache.capacity == 2**64 - 1
    for wrong in (cache.resize, lambda: cache.resize(1, 2)):
        with pytest.raises(TypeError):
            wrong()


def test_due_entries_are_reported_as_expired(events):
    clock = ManualClock()
    with clock:
        cache = Moka(100, eviction_listener=events, policy="lru")
    for number in range(20):
        cache.set(number, number, ttl=1 if number % 2 else None)
    clock.advance(1)
    cache.resize(5)
    assert cache.count() == 5
    assert all((cause == "expired") == (key % 2) for key, _, cause in events)
    assert len(events) == 15


def test_repr_shows_the_new_capacity():
    cache = Moka(10)
    cache.resize(20)
    assert " capacity=20 " in repr(cache)


def test_removed_values_are_released():
    cache, references = Moka(1_000), []
    for number in range(1_000):
        value = Value()
        references.append(weakref.ref(value))
        cache.set(number, value)
    del value
    cache.resize(10)
    cache.run_pending_tasks()
    assert sum(reference() is not None for reference in references) == 10


# Listeners and signals.


@both_policies
def test_listener_may_use_the_cache_and_is_called_between_steps(policy):
    sizes = []

    def listener(key, value, cause):
        sizes.append(cache.count())
        cache.get(key)

    cache = filled(2_000, listener, policy=policy)
    cache.resize(100)
    assert (cache.count(), len(sizes)) == (100, 1_900)
    assert sizes[0] >= 2_000 - MAX_PER_STEP, "the first removals are reported when few entries are removed"


@pytest.mark.parametrize(("inner", "left"), [(300, 300), (50, 50), (5_000, None), (0, 0)])
def test_resize_inside_a_listener_wins(inner, left):
    reported = []

    def listener(key, value, cause):
        reported.append(key)
        if len(reported) == 10:
            cache.resize(inner)

    cache = filled(1_000, listener)
    cache.resize(100)
    assert cache.capacity == inner
    assert cache.count() == (left if left is not None else 1_000 - len(reported))
    assert len(set(reported)) == len(reported) == 1_000 - cache.count()


def test_listener_that_sets_evicted_entries_again_does_not_keep_the_resize_busy():
    again = []

    def listener(key, value, cause):
        if not again or again[-1] is None:
            again.append(key)
            cache.set(("again", key), value)
            again.append(None)

    cache = Moka(3_000, eviction_listener=listener, policy="lru")
    cache.update((number, number) for number in range(3_000))
    cache.resize(100)
    assert cache.count() == 100


def test_errors_of_the_listener_do_not_end_the_resize(unraisable):
    def listener(key, value, cause):
        raise ValueError(key)

    cache = filled(600, listener)
    cache.resize(10)
    assert (cache.count(), len(unraisable)) == (10, 590)


@pytest.mark.skipif(sys.platform == "win32", reason="the signal is one of POSIX")
def test_interrupted_resize_is_completed_before_it_raises():
    """The listener is a C function, so the handler runs between two steps of the resize, and not in the listener."""

    class Interrupt(BaseException):
        pass

    def handler(_number, _frame):
        raise Interrupt

    raise_signal = getattr(ctypes.CDLL(None), "raise")
    raise_signal.argtypes = [ctypes.c_int, ctypes.py_object, ctypes.py_object]
    cache = Moka(5_000, eviction_listener=raise_signal, policy="lru")
    cache.set(int(signal.SIGUSR1), None)
    # These are no numbers of signals.
    cache.update((number, None) for number in range(10_000, 14_999))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Interrupt):
            cache.resize(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (cache.capacity, cache.count()) == (10, 10)


# Threads.


@both_policies
@pytest.mark.parametrize("first", [100, 5_000])
def test_writes_beside_resizes_keep_the_bound(policy, first):
    final = first // 3
    cache = Moka(first, policy=policy)

    def write(seed):
        dice = random.Random(seed)
        for _ in range(5_000):
            cache.set(dice.randrange(2 * first), seed)

    def resize():
        dice = random.Random(first)
        for _ in range(50):
            cache.resize(dice.randrange(2 * first))
        cache.resize(final)

    run_threads(*(functools.partial(write, seed) for seed in range(4)), resize)
    assert cache.capacity == final
    assert cache.weighted_size() == cache.count() == len(list(cache)) <= final


def test_last_of_resizes_in_threads_wins_exactly():
    for _ in range(20):
        cache = filled(3_000)
        run_threads(*(functools.partial(cache.resize, capacity) for capacity in (50, 700, 1_500)))
        assert cache.capacity in (50, 700, 1_500)
        assert cache.count() == cache.weighted_size() <= cache.capacity


# Growing.


@both_policies
@pytest.mark.parametrize("name", ["orm-busy", "web12"])
def test_resized_cache_has_the_hits_of_one_that_was_made_so(name, policy):
    """After some accesses the window and the sketch fit the new size.

    Where the cache has shards, single ratios differ by up to five points. So the median of several differences counts,
    each with random keys in place of those of the trace.
    """
    numbers = accesses(name)[:400_000]
    half = len(numbers) // 2

    def difference(first, seed):
        dice = random.Random(seed)
        keys = {number: dice.getrandbits(60) for number in sorted(set(numbers))}
        before, after = ([keys[number] for number in part] for part in (numbers[:half], numbers[half:]))
        resized, made = Moka(first, policy=policy), Moka(500, policy=policy)
        hits_of(resized, before)
        resized.resize(500)
        for cache in (resized, made):
            hits_of(cache, before)
        return 100 * (hits_of(resized, after) - hits_of(made, after)) / len(after)

    for first in (100, 5_000):
        differences = [difference(first, seed) for seed in range(3)]
        if abs(statistics.median(differences)) > 2.0:
            differences += [difference(first, seed) for seed in range(3, 11)]
        assert abs(statistics.median(differences)) <= 3.0, (first, differences)
