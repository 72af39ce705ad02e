"""The eviction listener is called once for each removal, after the fact, with no lock held."""

import sys
import threading
import time

import pytest
from helpers import (
    IMMEDIATELY_DUE,
    MAINTENANCE_DELAY,
    MISSING,
    Background,
    CallbackKey,
    Events,
    Key,
    contents,
    run_threads,
)

from moka_py import Moka


@pytest.fixture
def cache(events):
    return Moka(10, eviction_listener=events)


def test_replacing_reports_the_old_value(cache, events):
    cache.set("a", 1)
    cache.set("a", 2)
    cache["a"] = 3
    cache.update(a=4)
    assert events == [("a", 1, "replaced"), ("a", 2, "replaced"), ("a", 3, "replaced")]


def test_replacing_by_the_same_object_is_reported(cache, events):
    cache.set("a", 1)
    cache.set("a", 1)
    assert events == [("a", 1, "replaced")]


def test_entry_that_expires_before_a_load_is_reported_before_the_load(cache, events):
    """The deadline passes between the look-up and the load, during a comparison with an in-flight key."""
    asking = CallbackKey("b", 1)

    def waits():
        while cache.expires_in("due") is not None:
            time.sleep(MAINTENANCE_DELAY)
        time.sleep(MAINTENANCE_DELAY)

    def outer():
        cache.set("due", 1, ttl=0.1)
        asking.on_eq = waits
        return cache.get_with(asking, lambda: list(events))

    assert cache.get_with(Key("a", 1), outer) == [("due", 1, "expired")]


def test_clear_reports_each_entry(cache, events):
    cache.update({number: -number for number in range(10)})
    cache.clear()
    assert sorted(events) == [(number, -number, "explicit") for number in range(10)]


def test_clear_of_a_large_cache_reports_each_entry_once():
    events = Events()
    cache = Moka(20_000, eviction_listener=events)
    cache.update({number: -number for number in range(20_000)})
    cache.clear()
    assert sorted(events) == [(number, -number, "explicit") for number in range(20_000)]


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.get("x"),
        lambda cache: cache.remove("x"),
        lambda cache: cache.pop("x", None),
        lambda cache: cache.set("x", 1),
        lambda cache: cache.setdefault("x", 1),
        lambda cache: cache.get_with("x", list),
        lambda cache: cache.setdefault("a", 5),
        lambda cache: cache.get_with("a", list),
        lambda cache: cache.run_pending_tasks(),
        lambda cache: list(cache.items()),
    ],
)
def test_calls_that_remove_nothing_report_nothing(cache, events, call):
    cache.set("a", 1)
    call(cache)
    assert events == []


def test_destruction_of_the_cache_reports_nothing(events):
    cache = Moka(10, eviction_listener=events)
    cache.set("a", 1)
    del cache
    assert events == []


def test_listener_gets_the_same_key_and_value_objects(cache, events):
    key, value = Key("a"), object()
    cache.set(key, value)
    cache.remove(Key("a"))
    assert events[0][0] is key
    assert events[0][1] is value


def test_replacing_reports_the_key_that_was_stored_first(cache, events):
    first, second = Key("a"), Key("a")
    cache.set(first, 1)
    cache.set(second, 2)
    assert events[0][0] is first
    assert next(iter(cache)) is first


def test_cause_is_a_plain_str(cache, events):
    cache.set("a", 1)
    cache.remove("a")
    assert type(events[0][2]) is str


def test_listener_gets_positional_arguments_only(events):
    def listener(key, value, cause, /):
        events(key, value, cause)

    cache = Moka(10, eviction_listener=listener)
    cache.set("a", 1)
    cache.clear()
    assert events == [("a", 1, "explicit")]


def test_listener_runs_on_the_calling_thread():
    threads = []
    cache = Moka(1, eviction_listener=lambda *_: threads.append(threading.get_ident()))
    cache.set("a", 1)
    cache.set("b", 1)
    cache.clear()
    assert threads == [threading.get_ident()] * 2


def test_listener_is_called_before_the_call_returns(cache, events):
    cache.set("a", 1)
    assert cache.remove("a") == 1
    assert len(events) == 1


@pytest.mark.parametrize("cause", ["replaced", "explicit", "size", "expired", "cleared"])
def test_listener_sees_the_cache_after_the_removal(cause):
    seen = []
    cache = Moka(2, eviction_listener=lambda *_: seen.append((cache.get("a", MISSING), len(cache))), policy="lru")
    cache.set("a", 1, ttl=IMMEDIATELY_DUE if cause == "expired" else None)
    if cause == "replaced":
        cache.set("a", 2)
        assert seen == [(2, 1)]
    else:
        {
            "explicit": lambda: cache.remove("a"),
            "cleared": cache.clear,
            "size": lambda: cache.update(b=2, c=3),
            "expired": lambda: (time.sleep(MAINTENANCE_DELAY), cache.get("other")),
        }[cause]()
        assert seen == [(MISSING, 2 if cause == "size" else 0)]


# Law 1: no Python under a lock, so the listener may use the cache freely.
@pytest.mark.parametrize("cause", ["replaced", "explicit", "size", "expired", "cleared"])
def test_listener_can_use_the_cache(cause):
    used = []

    def use(key, value, cause):
        if key == "a" and not used:
            cache.set("by listener", 1)
            cache.get("a"), cache.get_with("x", list), "a" in cache, cache.remove("x")
            list(cache.items()), len(cache), cache.run_pending_tasks(), cache.setdefault("y", 1), cache.pop("y")
            used.append("by listener" in cache)

    cache = Moka(3, eviction_listener=use, policy="lru")
    cache.set("a", 1, ttl=IMMEDIATELY_DUE if cause == "expired" else None)
    {
        "replaced": lambda: cache.set("a", 2),
        "explicit": lambda: cache.remove("a"),
        "cleared": cache.clear,
        "size": lambda: cache.update(b=2, c=3, d=4),
        "expired": lambda: (time.sleep(MAINTENANCE_DELAY), cache.get("other")),
    }[cause]()
    assert used == [True]
    assert "by listener" in cache


def test_listener_can_clear_the_cache():
    events = Events()

    def listener(key, value, cause):
        events(key, value, cause)
        cache.clear()

    cache = Moka(10, eviction_listener=listener)
    cache.update({number: number for number in range(10)})
    cache.remove(0)
    assert len(cache) == 0
    assert sorted(events.keys()) == list(range(10))


def test_listener_can_put_back_the_removed_entry():
    cache = Moka(10, eviction_listener=lambda key, value, cause: cause == "explicit" and cache.set(key, value))
    cache.set("a", 1)
    assert cache.remove("a") == 1
    assert cache.get("a") == 1


def test_listener_that_always_puts_back_the_evicted_entry_terminates(unraisable):
    calls = []

    def listener(key, value, cause):
        calls.append(key)
        if cause == "size" and len(calls) < 5000:
            cache.set(key, value)

    cache = Moka(2, eviction_listener=listener)
    for number in range(10):
        cache.set(number, number)
    assert len(cache) == 2
    assert all(isinstance(error, RecursionError) for error in unraisable)


def test_listener_can_use_another_cache():
    second = Moka(100)
    first = Moka(2, eviction_listener=lambda key, value, cause: second.set(key, value))
    for number in range(10):
        first.set(number, number)
    assert contents(first) | contents(second) == {number: number for number in range(10)}


def test_listeners_of_two_caches_can_use_each_other():
    first = Moka(2, eviction_listener=lambda key, value, cause: second.remove(key))
    second = Moka(2, eviction_listener=lambda key, value, cause: first.remove(key))
    for number in range(100):
        first.set(number, number)
        second.set(number, number)
    assert len(first) <= 2 and len(second) <= 2


# Law 9: an exception of the listener goes to `sys.unraisablehook`.
class Unusual(BaseException):
    pass


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), Unusual()])
def test_exception_of_the_listener_goes_to_the_hook(error, unraisable):
    def listener(key, value, cause):
        raise error

    cache = Moka(1, eviction_listener=listener)
    cache.set("a", 1)
    cache.set("a", 2)
    cache.set("b", 3)
    assert cache.get("b") == 3
    assert cache.remove("b") == 3
    cache.set("c", 4, ttl=IMMEDIATELY_DUE)
    assert cache.get("c") is None
    cache.set("d", 5)
    cache.clear()
    assert len(unraisable) == 5
    assert all(caught is error for caught in unraisable)


def test_exception_of_the_listener_does_not_stop_later_reports(unraisable):
    notified = []

    def listener(key, value, cause):
        notified.append(key)
        raise ZeroDivisionError

    cache = Moka(100, eviction_listener=listener)
    cache.update({number: number for number in range(100)})
    cache.clear()
    assert sorted(notified) == list(range(100))
    assert len(unraisable) == 100


def test_listener_with_too_few_arguments_goes_to_the_hook(unraisable):
    cache = Moka(1, eviction_listener=lambda key: None)
    cache.set("a", 1)
    assert cache.remove("a") == 1
    assert [type(error) for error in unraisable] == [TypeError]


def test_unraisable_hook_that_raises_does_no_harm(monkeypatch):
    def hook(report):
        raise ValueError

    monkeypatch.setattr(sys, "unraisablehook", hook)
    cache = Moka(1, eviction_listener=lambda *_: 1 / 0)
    cache.set("a", 1)
    assert cache.remove("a") == 1


def test_error_of_the_call_survives_an_error_of_the_listener(unraisable):
    class Raising(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            raise ZeroDivisionError("of the key")

    cache = Moka(10, eviction_listener=lambda *_: 1 / [])
    cache.set("due", 1, ttl=IMMEDIATELY_DUE)
    cache.set(Raising("a", 1), 1)
    with pytest.raises(ZeroDivisionError, match="of the key"):
        cache.get(Raising("b", 1))
    cache.run_pending_tasks()
    assert [type(error) for error in unraisable] == [TypeError]


# Law 9: each removal is reported once, whatever the threads do.
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
@pytest.mark.parametrize("capacity", [50, 3000])
def test_each_removal_is_reported_once_among_threads(policy, capacity, fast_switches):
    events = Events()
    cache = Moka(capacity, eviction_listener=events, policy=policy)

    def work(thread):
        for number in range(5000):
            key = number * 7 % 4000
            cache.set(key, (thread, number), ttl=IMMEDIATELY_DUE if number % 10 == 0 else None)
            if number % 3 == 0:
                cache.remove(number * 11 % 4000)
            if number % 1000 == 0:
                cache.clear()

    run_threads(*(lambda thread=thread: work(thread) for thread in range(4)))
    cache.run_pending_tasks()
    left = [value for _, value, _ in events]
    there = list(cache.values())
    assert len(set(left)) == len(left)
    assert sorted(left + there) == [(thread, number) for thread in range(4) for number in range(5000)]


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_four_threads_with_a_listener_terminate(policy):
    events = Events()
    cache = Moka(1000, eviction_listener=events, policy=policy)

    def write(thread):
        for number in range(50_000):
            cache.set((thread, number), number)

    run_threads(*(lambda thread=thread: write(thread) for thread in range(4)))
    assert len(events) + len(cache) == 200_000
    assert len(cache) == 1000
    assert len(set(events.keys())) == len(events)


def test_slow_listener_of_one_thread_blocks_no_other_thread():
    inside, go_on = threading.Event(), threading.Event()

    def listener(key, value, cause):
        if key == "slow":
            inside.set()
            assert go_on.wait(60)

    cache = Moka(100, eviction_listener=listener)
    cache.set("slow", 1)
    with Background(lambda: cache.remove("slow")):
        assert inside.wait(60)
        for number in range(1000):
            cache.set(number, number)
        cache.clear()
        go_on.set()
