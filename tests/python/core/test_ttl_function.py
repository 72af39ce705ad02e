"""A ttl may be a function of key and value: it decides how long the entry lives."""

import datetime
import gc
import threading
import weakref
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
from helpers import Key, contents
from ttl_function_helpers import Recorder, each_call_with_ttl, each_insert, each_replacement

from moka_py import Moka
from moka_py.testing import ManualClock


# The results of the function.
@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        (5, 5),
        (0.5, 0.5),
        (True, 1),
        (timedelta(minutes=1), 60),
        (1e-12, 1e-9),
        (timedelta(days=360_000), 31_104_000_000),
    ],
)
@each_insert
def test_result_of_the_function_of_the_cache_is_the_ttl_of_the_entry(clock, insert, result, seconds):
    cache = Moka(10, ttl=lambda key, value: result)
    insert(cache, "a", 1)
    assert cache.expires_in("a") == pytest.approx(seconds)


@each_insert
def test_none_means_no_deadline(clock, insert):
    cache = Moka(10, ttl=lambda key, value: None)
    insert(cache, "a", 1)
    clock.advance(10**9)
    assert cache["a"] == 1 and cache.expires_in("a") is None and cache.next_deadline() is None


@each_call_with_ttl
def test_call_takes_a_function_for_its_own_entries(clock, call):
    cache = Moka(10)
    call(cache, "a", 5, lambda key, value: value)
    call(cache, "b", 5, lambda key, value: timedelta(seconds=value + 1))
    call(cache, "c", 5, lambda key, value: None)
    assert [cache.expires_in(key) for key in "abc"] == [5, 6, None]
    cache.set("a", 5)
    assert cache.expires_in("a") is None, "the next set does not inherit it"


def test_function_decides_for_each_pair_of_set_many(clock):
    cache = Moka(10)
    cache.set_many({"a": 1, "b": 2, "c": 0}, ttl=lambda key, value: value)
    assert [cache.expires_in(key) for key in "abc"] == [1, 2, None]
    assert contents(cache) == {"a": 1, "b": 2}


def test_value_decides_at_each_replacement(clock):
    cache = Moka(10, ttl=lambda key, value: value)
    for value in (5, 3, None, 7):
        cache["a"] = value
        assert cache.expires_in("a") == value


def test_tti_applies_beside_the_function(clock):
    cache = Moka(10, ttl=lambda key, value: value, tti=4)
    cache.update(a=10, b=2, c=None)
    assert [cache.expires_in(key) for key in "abc"] == [4, 2, 4]
    cache.set("d", 10, tti=1)
    assert cache.expires_in("d") == 1


def test_object_that_is_also_a_number_is_called(clock):
    # `MagicMock` has `__index__`, too.
    function = MagicMock(return_value=3)
    cache = Moka(10, ttl=function)
    cache["a"] = 1
    function.assert_called_once_with("a", 1)
    assert cache.expires_in("a") == 3


# When it is called.
@each_insert
def test_function_is_called_once_an_insert_with_key_and_value(insert):
    function = Recorder(60)
    insert(Moka(10, ttl=function), "a", 3)
    assert function.calls == [("a", 3)]


@each_replacement
def test_function_is_called_once_a_replacement(replace):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    replace(cache, "a", 3)
    replace(cache, "a", 4)
    assert function.calls == [("a", 3), ("a", 4)]


@each_call_with_ttl
def test_function_of_a_call_is_called_once(call):
    function = Recorder(60)
    call(Moka(10), "a", 3, function)
    assert function.calls == [("a", 3)]


def test_function_is_not_called_by_reads_and_removals():
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    cache.set("a", 3)
    del function.calls[:]
    cache.get("a"), cache["a"], "a" in cache, list(cache.items()), cache.peek("a"), cache.expires_in("a")
    cache.get_with("a", list), cache.get_with("a", list, ttl=function), cache.setdefault("a", 5), cache.touch("a")
    cache.get_many("ab"), cache.remove("a"), cache.get("a"), cache.clear(), cache.stats()
    assert function.calls == []


def test_set_with_calls_it_if_the_key_is_absent_and_else_keeps_the_deadlines(clock):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    assert cache.set_with("a", lambda value: (value or 0) + 1) == 1
    assert (function.calls, cache.expires_in("a")) == ([("a", 1)], 60)
    clock.advance(10)
    function.result = 5
    assert cache.set_with("a", lambda value: value + 1) == 2
    assert (function.calls, cache.expires_in("a")) == ([("a", 1)], 50)
    clock.advance(50)
    assert cache.set_with("a", lambda value: (value or 0) + 1) == 1
    assert (function.calls, cache.expires_in("a")) == ([("a", 1), ("a", 1)], 5)


def test_function_is_called_once_even_if_the_write_is_retried():
    function = Recorder(60)
    cache = Moka(100, ttl=function)

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
    assert [value for _, value in function.calls].count("last") == 1
    assert contents(cache) == {Key("a"): "last"}


def test_function_runs_on_the_calling_thread_after_the_weigher():
    calls = []
    cache = Moka(
        10,
        ttl=lambda key, value: calls.append(("ttl", threading.get_ident())),
        weigher=lambda key, value: calls.append(("weigher", threading.get_ident())) or 1,
    )
    mine = threading.get_ident()
    cache.set("a", 1)
    cache.get_with("b", list)
    assert calls == [("weigher", mine), ("ttl", mine)] * 2


# Law 7 and law 8.
def test_value_that_is_kept_can_be_got_after_its_set():
    cache = Moka(3, ttl=lambda key, value: value)
    for number in range(1, 200):
        cache.set(number, number)
        assert cache.get(number) == number
    cache.set(1, -1)
    assert cache.get(1) is None


@each_insert
def test_entry_expires_exactly_at_the_end_of_its_ttl(clock, insert, events):
    cache = Moka(10, ttl=lambda key, value: value, eviction_listener=events)
    insert(cache, "a", 3)
    clock.advance(2.999_999)
    assert cache.peek("a") == 3
    clock.advance(0.000_001)
    assert cache.peek("a") is None and "a" not in cache and cache.get("a") is None
    cache.run_pending_tasks()
    assert events == [("a", 3, "expired")]


# An own ttl only shortens.
@each_call_with_ttl
def test_own_ttl_of_an_entry_only_shortens_that_of_the_function(clock, call):
    cache = Moka(10, ttl=lambda key, value: value)
    for key, value, own, expected in [("a", 5, 3, 3), ("b", 5, 7, 5), ("c", None, 7, 7), ("d", 5, None, 5)]:
        call(cache, key, value, own)
        assert cache.expires_in(key) == expected


@each_call_with_ttl
def test_function_of_a_call_only_shortens_the_ttl_of_the_cache(clock, call):
    cache = Moka(10, ttl=5)
    for key, value, expected in [("a", 3, 3), ("b", 7, 5), ("c", None, 5)]:
        call(cache, key, value, lambda key, value: value)
        assert cache.expires_in(key) == expected


@each_call_with_ttl
def test_shorter_of_two_functions_counts_and_each_is_called_once(clock, call):
    for mine, others, expected in [(3, 5, 3), (5, 3, 3), (None, 4, 4), (4, None, 4), (None, None, None)]:
        of_cache, of_call = Recorder(mine), Recorder(others)
        cache = Moka(10, ttl=of_cache)
        call(cache, "a", 1, of_call)
        assert cache.expires_in("a") == expected
        assert of_cache.calls == of_call.calls == [("a", 1)]


def test_restart_of_deadlines_stays_within_the_ttl_that_the_entry_has(clock):
    function = Recorder(60)
    cache = Moka(10, ttl=function)
    cache["a"] = 1
    clock.advance(20)
    function.result = 500
    for own, expected in [(None, 60), (100, 60), (10, 10), (30, 10)]:
        assert cache.touch("a", ttl=own)
        assert cache.expires_in("a") == expected
    cache["a"] = 1
    assert cache.set_with("a", lambda value: value + 1, ttl=1000) == 2
    assert cache.expires_in("a") == 500
    assert len(function.calls) == 2
    cache.set_with("b", lambda value: 1, ttl=7)
    assert cache.expires_in("b") == 7


def test_touch_and_set_with_take_no_function():
    cache = Moka(10)
    cache["a"] = 1
    text = r"^ttl must be a number of seconds or a timedelta, got function$"
    with pytest.raises(TypeError, match=text):
        cache.touch("a", ttl=lambda key, value: 1)
    with pytest.raises(TypeError, match=text):
        cache.set_with("a", lambda value: 2, ttl=lambda key, value: 1)
    for call in (cache.touch, lambda key, **named: cache.set(key, 2, **named), lambda key, **named: Moka(10, **named)):
        with pytest.raises(TypeError, match=r"^tti must be a number of seconds or a timedelta, got function$"):
            call("a", tti=lambda key, value: 1)
    assert contents(cache) == {"a": 1}


# The attribute.
def test_ttl_returns_the_function():
    def function(key, value):
        return 5

    cache = Moka(10, ttl=function)
    assert cache.ttl is function and cache.tti is None
    assert Moka(10, ttl=5).ttl == 5.0 and Moka(10).ttl is None


def test_repr_names_the_type_of_the_function():
    cache = Moka(10, ttl=lambda key, value: 5, tti=3)
    assert "ttl=<function>" in repr(cache) and "tti=3" in repr(cache)


def test_subclass_hands_a_function_on():
    class Tokens(Moka):
        def __init__(self):
            super().__init__(10, ttl=self.seconds)

        def seconds(self, key, value):
            return value

    with ManualClock():
        tokens = Tokens()
        tokens["a"] = 5
        assert tokens.expires_in("a") == 5


# Law 12.
def test_cycle_through_the_function_is_collected():
    class Holder:
        def ttl(self, key, value):
            return 60

    holder = Holder()
    holder.cache = Moka(10, ttl=holder.ttl)
    holder.cache["a"] = holder
    watch = weakref.ref(holder)
    del holder
    gc.collect()
    assert watch() is None


def test_function_may_return_the_rest_of_a_token(clock):
    now = datetime.datetime(2030, 1, 1)
    cache = Moka(10, ttl=lambda key, token: token["expires"] - now)
    cache["a"] = {"expires": now + timedelta(hours=1)}
    cache["b"] = {"expires": now - timedelta(hours=1)}
    assert cache.expires_in("a") == 3600 and "b" not in cache
