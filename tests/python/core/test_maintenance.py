"""Any read or write of any key removes expired entries, in any shard, in bounded steps."""

import time

import pytest
from helpers import IMMEDIATELY_DUE, MAINTENANCE_DELAY, MISSING, Events, Key

from moka_py import Moka

# Large enough for several shards in the free-threaded build.
LARGE = 100_000

CALLS = {
    "get of a miss": lambda cache: cache.get("other"),
    "get of a hit": lambda cache: cache.get("live"),
    "subscript": lambda cache: cache["live"],
    "set of a new key": lambda cache: cache.set("new", 1),
    "set of a present key": lambda cache: cache.set("live", 2),
    "remove": lambda cache: cache.remove("other"),
    "pop": lambda cache: cache.pop("other", None),
    "get_with of a hit": lambda cache: cache.get_with("live", list),
    "get_with of a miss": lambda cache: cache.get_with("new", list),
    "setdefault": lambda cache: cache.setdefault("live", 1),
    "in": lambda cache: "other" in cache,
}
ONE_CALL_SETTLES = {
    "count": lambda cache: cache.count(),
    "len": len,
    "weighted_size": lambda cache: cache.weighted_size(),
    "iter": list,
    "items": lambda cache: list(cache.items()),
    "run_pending_tasks": lambda cache: cache.run_pending_tasks(),
    "clear": lambda cache: cache.clear(),
}


def due_entries(count, capacity=LARGE, **options):
    events = Events()
    cache = Moka(capacity, eviction_listener=events, **options)
    cache.set("live", 1)
    for number in range(count):
        cache.set(number, number, ttl=0.1)
    time.sleep(0.12)
    return cache, events


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("capacity", [10, LARGE])
def test_each_call_removes_a_single_expired_entry(call, capacity):
    events = Events()
    cache = Moka(capacity, eviction_listener=events)
    cache.set("live", 1)
    cache.set("due", 2, ttl=IMMEDIATELY_DUE)
    time.sleep(MAINTENANCE_DELAY)
    call(cache)
    assert ("due", 2, "expired") in events


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_repeated_calls_of_any_kind_remove_all_expired_entries(call):
    cache, events = due_entries(300)
    for _ in range(300):
        call(cache)
    expired = [event for event in events if event[2] == "expired"]
    assert sorted(expired) == [(number, number, "expired") for number in range(300)]


@pytest.mark.parametrize("call", ONE_CALL_SETTLES.values(), ids=ONE_CALL_SETTLES)
def test_calls_on_the_whole_cache_remove_all_expired_entries(call):
    cache, events = due_entries(3000)
    call(cache)
    expired = [event for event in events if event[2] == "expired"]
    assert sorted(expired) == [(number, number, "expired") for number in range(3000)]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_removes_a_bounded_number_of_entries(call):
    cache, events = due_entries(20_000)
    before = len(events)
    call(cache)
    assert len(events) - before < 5000


def test_expired_entries_are_removed_before_live_ones_are_evicted():
    events = Events()
    cache = Moka(4, eviction_listener=events, policy="lru")
    cache.set("oldest", 1)
    cache.set("due", 2, ttl=IMMEDIATELY_DUE)
    cache.set("b", 3)
    cache.set("c", 4)
    cache.set("d", 5)
    assert "oldest" in cache
    assert events == [("due", 2, "expired")]


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_entries_expire_whatever_the_order_of_their_deadlines(order):
    events = Events()
    cache = Moka(1000, eviction_listener=events)
    numbers = list(range(100))
    if order == "backwards":
        numbers.reverse()
    elif order == "shuffled":
        numbers = [(number * 37) % 100 for number in numbers]
    for number in numbers:
        cache.set(number, number, ttl=1000 if number % 2 else 0.01 + number / 10_000)
    time.sleep(0.05)
    assert sorted(cache) == list(range(1, 100, 2))
    assert sorted(events.keys()) == list(range(0, 100, 2))


def test_entry_that_was_read_is_reported_at_its_new_deadline():
    events = Events()
    cache = Moka(10, tti=0.05, eviction_listener=events)
    cache.set("a", 1)
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline and cache.get("a"):
        pass
    time.sleep(0.1)
    cache.get("other")
    assert events == [("a", 1, "expired")]


def test_replaced_and_removed_entries_do_not_expire_later():
    events = Events()
    cache = Moka(10, policy="lru", eviction_listener=events)
    cache.set("replaced", 1, ttl=0.01)
    cache.set("replaced", 2)
    cache.set("removed", 3, ttl=0.01)
    cache.remove("removed")
    cache.set("evicted", 4, ttl=0.01)
    for number in range(100):
        cache.set(number, number)
    del events[:]
    time.sleep(0.03)
    cache.run_pending_tasks()
    assert events == []


def test_reads_remove_nothing_before_the_first_deadline():
    cache, events = Moka(LARGE, ttl=1000), Events()
    for number in range(1000):
        cache.set(number, number)
    for number in range(1000):
        assert cache.get(number, MISSING) == number
    assert events == []


# Law 9: an entry is reported once, even if the call that removed it fails.
@pytest.mark.parametrize("name", ["get", "set", "remove", "get_with", "in"])
def test_entries_that_a_failing_call_removed_are_reported_once(name):
    class Raising(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            raise ZeroDivisionError

    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("due", 1, ttl=IMMEDIATELY_DUE)
    cache.set(Raising("a", 1), 2, ttl=1000)
    key = Raising("b", 1)
    call = {
        "get": lambda: cache.get(key),
        "set": lambda: cache.set(key, 1),
        "remove": lambda: cache.remove(key),
        "get_with": lambda: cache.get_with(key, list),
        "in": lambda: key in cache,
    }[name]
    with pytest.raises(ZeroDivisionError):
        call()
    cache.run_pending_tasks()
    assert events == [("due", 1, "expired")]
