"""A ttl function that raises, returns a wrong result, or uses the cache itself."""

import math
from datetime import timedelta

import pytest
from helpers import Events, Key, assert_copies_of_exception, contents, observable_state
from ttl_function_helpers import (
    CALLS_WITH_TTL,
    INSERTS,
    REPLACEMENTS,
    each_call_with_ttl,
    each_insert,
    each_replacement,
    outcomes_with_waiters,
)

from moka_py import Moka

WRONG_RESULTS = [
    (math.nan, ValueError, "ttl must return a number, got nan"),
    (math.inf, ValueError, "ttl must return at most 1,000 years (out of range), got inf"),
    (1e11, ValueError, "ttl must return at most 1,000 years (out of range), got 100000000000.0"),
    (10**400, ValueError, f"ttl must return at most 1,000 years (out of range), got {10**400}"),
    (
        timedelta(days=366 * 1001),
        ValueError,
        f"ttl must return at most 1,000 years (out of range), got {timedelta(days=366 * 1001)!r}",
    ),
    ("1", TypeError, "ttl must return a number of seconds, a timedelta or None, got str"),
    ([], TypeError, "ttl must return a number of seconds, a timedelta or None, got list"),
    (1j, TypeError, "ttl must return a number of seconds, a timedelta or None, got complex"),
    (len, TypeError, "ttl must return a number of seconds, a timedelta or None, got builtin_function_or_method"),
]


# Law 1: no Python under a lock.
def test_function_can_use_the_cache():
    def ttl(key, value):
        if key == "outer":
            assert cache.get("old") == 1
            cache.set("inner", 2)
            cache.remove("old")
            len(cache), list(cache.items()), cache.run_pending_tasks()
        return 60

    cache = Moka(10, ttl=ttl)
    cache.set("old", 1)
    cache.set("outer", 3)
    assert contents(cache) == {"inner": 2, "outer": 3}


@pytest.mark.parametrize("how", ["sets", "removes", "clears"])
def test_function_can_write_the_key_that_is_being_set(how):
    depth = [True]

    def ttl(key, value):
        if not depth:
            depth.append(True)
            {"sets": lambda: cache.set(key, "by ttl"), "removes": lambda: cache.remove(key)}.get(how, cache.clear)()
        return 60

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("a", "old")
    depth.clear()
    cache.set("a", "new")
    assert contents(cache) == {"a": "new"}
    assert events[0] == ("a", "old", "replaced" if how == "sets" else "explicit")


def test_endless_recursion_through_the_function_raises():
    cache = Moka(10, ttl=lambda key, value: cache.set(key, value))
    with pytest.raises(RecursionError):
        cache.set("a", 1)
    assert len(cache) == 0


# Law 10: the error is the user's, and the cache as before.
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyError("a"), KeyboardInterrupt(), SystemExit(3)])
@each_insert
def test_error_of_the_function_leaves_the_call_and_the_cache_as_before(insert, error):
    def ttl(key, value):
        if key != "present":
            raise error

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    with pytest.raises(type(error)) as caught:
        insert(cache, "absent", 2)
    assert caught.value is error
    assert (observable_state(cache), events) == (before, [])


@each_replacement
def test_error_at_a_replacement_keeps_the_old_value(replace):
    def ttl(key, value):
        return 60 / value

    events = Events()
    cache = Moka(10, ttl=ttl, eviction_listener=events)
    cache.set("a", 1)
    before = observable_state(cache)
    with pytest.raises(ZeroDivisionError):
        replace(cache, "a", 0)
    assert (observable_state(cache), events) == (before, [])


@each_call_with_ttl
def test_error_of_the_function_of_a_call_leaves_the_cache_as_before(call):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    for key in ("absent", Key("absent")):
        with pytest.raises(ZeroDivisionError):
            call(cache, key, 2, lambda key, value: 1 / 0)
        assert (observable_state(cache), events) == (before, [])


@pytest.mark.parametrize(("result", "error", "text"), WRONG_RESULTS, ids=[text for _, _, text in WRONG_RESULTS])
def test_wrong_result_is_an_error_that_names_ttl(result, error, text):
    events = Events()
    cache = Moka(10, ttl=lambda key, value: result if value == 2 else None, eviction_listener=events)
    cache.set("present", 1)
    before = observable_state(cache)
    attempts = [lambda insert=insert: insert(cache, "absent", 2) for insert in INSERTS.values()]
    attempts += [lambda replace=replace: replace(cache, "present", 2) for replace in REPLACEMENTS.values()]
    attempts += [
        lambda call=call: call(cache, "absent", 3, lambda key, value: result) for call in CALLS_WITH_TTL.values()
    ]
    for attempt in attempts:
        with pytest.raises(error) as caught:
            attempt()
        assert str(caught.value) == text
        assert (observable_state(cache), events) == (before, [])


@pytest.mark.parametrize("of_cache", [True, False], ids=["of the cache", "of the call"])
def test_waiters_of_get_with_get_the_error_of_the_function(of_cache):
    def ttl(key, value):
        raise LookupError("mine")

    cache = Moka(10, ttl=ttl if of_cache else None)
    (first, *others), runs = outcomes_with_waiters(cache, 1, ttl=None if of_cache else ttl)
    assert type(first) is LookupError
    assert_copies_of_exception(first, others)
    assert len(runs) == 1 and len(cache) == 0
