"""`refresh`: a value that was set long ago is computed anew, while calls still get the old one."""

from datetime import timedelta

import pytest
from helpers import Events, Key
from refresh_helpers import NANOSECOND, REFRESH, Caller, Counter, ManualExecutor, counts, every_kind_of_call

from moka_py import Moka, cached

# --- When a refresh begins ---


@every_kind_of_call
def test_call_computes_a_value_anew_that_was_set_more_than_refresh_ago(kind, clock):
    caller = Caller(kind, Counter())
    assert caller.call() == 1
    clock.advance(REFRESH)
    assert caller.call() == 1
    clock.advance(NANOSECOND)
    assert caller.call() == 2
    assert caller.call() == 2


@every_kind_of_call
def test_get_and_the_like_never_begin_a_refresh(kind, clock):
    load = Counter()
    caller = Caller(kind, load)
    caller.call()
    clock.advance(REFRESH * 2)
    cache = caller.cache
    assert (cache.get("a"), cache["a"], cache.peek("a"), cache.get_many(["a"]), cache.setdefault("a", 9)) == (
        1,
        1,
        1,
        {"a": 1},
        1,
    )
    assert load.calls == 1
    assert caller.call() == 2


@every_kind_of_call
@pytest.mark.parametrize("refresh", [0.5, timedelta(milliseconds=500)])
def test_refresh_is_in_seconds_or_a_timedelta(kind, refresh, clock):
    caller = Caller(kind, Counter(), refresh=refresh)
    caller.call()
    clock.advance(0.5 + NANOSECOND)
    assert caller.call() == 2


@every_kind_of_call
def test_value_that_was_set_by_hand_is_computed_anew_too(kind, clock):
    load = Counter()
    caller = Caller(kind, load)
    caller.cache["a"] = "by hand"
    clock.advance(REFRESH + 1)
    assert caller.call() == 1


@pytest.mark.parametrize("renew", [lambda cache: cache.touch("a", ttl=1000), lambda cache: cache.get("a")])
def test_use_or_touch_does_not_put_the_refresh_off(renew, clock):
    caller = Caller("get_with", Counter())
    caller.call()
    clock.advance(REFRESH)
    renew(caller.cache)
    clock.advance(NANOSECOND)
    assert caller.call() == 2


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.set("a", 9),
        lambda cache: cache.set_with("a", lambda _: 9),
        lambda cache: cache.set_with("a", lambda _: 9, ttl=1000),
        lambda cache: cache.update(a=9),
    ],
)
def test_every_write_starts_the_time_anew(write, clock):
    caller = Caller("get_with", Counter())
    caller.call()
    clock.advance(REFRESH)
    write(caller.cache)
    clock.advance(REFRESH)
    assert caller.call() == 9
    clock.advance(NANOSECOND)
    assert caller.call() == 2


@every_kind_of_call
def test_key_with_equality_of_its_own_is_refreshed(kind, clock):
    caller = Caller(kind, Counter())
    assert caller.call(Key("a")) == 1
    clock.advance(REFRESH + 1)
    assert caller.call(Key("a")) == 2
    assert caller.call(Key("a")) == 2
    assert len(caller.cache) == 1


def test_refresh_of_a_cached_call_with_several_arguments_and_keywords(clock):
    calls = []

    @cached(refresh=REFRESH)
    def function(*args, **kwargs):
        calls.append((args, kwargs))
        return len(calls)

    assert (function(1, 2, x=3), function()) == (1, 2)
    clock.advance(REFRESH + 1)
    assert (function(1, 2, x=3), function()) == (3, 4)
    assert calls == [((1, 2), {"x": 3}), ((), {})] * 2


# --- The noticing call ---


def test_refresh_uses_initializer_ttl_and_tti_of_the_call_that_noticed(clock):
    cache = Moka(10, refresh=REFRESH)
    cache.get_with("a", lambda: "first", ttl=50)
    clock.advance(REFRESH + 1)
    assert cache.get_with("a", lambda: "second", ttl=20, tti=15) == "second"
    assert cache.get_with("a", lambda: "third") == "second"
    assert cache.expires_in("a") == 15
    clock.advance(REFRESH + 1)
    assert cache.get_with("a", lambda: "third") == "third"
    assert cache.expires_in("a") is None


def test_executor_uses_initializer_ttl_and_tti_of_the_call_that_noticed(clock):
    executor = ManualExecutor()
    cache = Moka(10, refresh=REFRESH, executor=executor)
    cache.get_with("a", lambda: "first")
    clock.advance(REFRESH + 1)
    cache.get_with("a", lambda: "second", ttl=20, tti=15)
    cache.get_with("a", lambda: "third", ttl=1)
    assert executor.run() == 1
    assert (cache.peek("a"), cache.expires_in("a")) == ("second", 15)


# --- Success ---


@every_kind_of_call
def test_success_is_a_set_for_deadlines_and_listener(kind, clock):
    events = Events()
    if kind == "get_with":
        caller = Caller(kind, Counter(), ttl=2 * REFRESH, eviction_listener=events)
    else:
        caller = Caller(kind, Counter(), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    assert caller.cache.expires_in("a") == 2 * REFRESH
    assert caller.cache.stats().replacements == 1
    if kind == "get_with":
        assert events == [("a", 1, "replaced")]


@every_kind_of_call
def test_refresh_is_no_access(kind, clock):
    executor = ManualExecutor()
    caller = Caller(kind, Counter(), maxsize=2, policy="lru", executor=executor)
    caller.call("a")
    clock.advance(REFRESH + 1)
    caller.call("b")
    caller.call("a")
    caller.call("b")
    executor.run()
    caller.call("c")
    assert sorted(caller.cache) == ["b", "c"]


@every_kind_of_call
def test_calls_that_get_the_old_value_are_hits_and_a_refresh_counts_as_a_load(kind, clock):
    executor = ManualExecutor()
    caller = Caller(kind, Counter(), executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call(), caller.call(), caller.call()
    assert counts(caller.cache) == (3, 1, 1, 0, 0)
    executor.run()
    assert counts(caller.cache) == (3, 1, 2, 0, 1)


@every_kind_of_call
def test_call_that_computes_anew_is_a_hit(kind, clock):
    caller = Caller(kind, Counter())
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 2
    assert counts(caller.cache) == (1, 1, 2, 0, 1)
    assert caller.cache.stats().load_seconds > 0


def test_refreshes_stand_at_the_end_of_the_stats():
    stats = Moka(1).stats()
    assert stats._fields[-1] == "refreshes"
    assert stats[-1] == stats.refreshes == 0


def test_reset_of_the_stats_resets_refreshes(clock):
    caller = Caller("get_with", Counter())
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    assert caller.cache.stats().refreshes == 1
    caller.cache.reset_stats()
    assert caller.cache.stats().refreshes == 0


@every_kind_of_call
def test_new_value_that_the_ttl_function_does_not_keep_removes_the_old_one(kind, clock):
    caller = Caller(kind, Counter(), ttl=lambda key, value: 0 if value == 2 else 1000)
    assert caller.call() == 1
    clock.advance(REFRESH + 1)
    assert caller.call() == 2
    assert len(caller.cache) == 0
    stats = caller.cache.stats()
    assert (stats.inserts, stats.replacements, stats.expirations, stats.refreshes) == (1, 1, 1, 1)


# --- Law 13: a later write wins ---


@every_kind_of_call
@pytest.mark.parametrize(
    "write, after",
    [
        (lambda cache: cache.set("a", 9), {"a": 9}),
        (lambda cache: cache.set_with("a", lambda _: 9), {"a": 9}),
        (lambda cache: cache.remove("a"), {}),
        (lambda cache: cache.clear(), {}),
        (lambda cache: cache.remove_if(lambda key, value: True), {}),
        (lambda cache: cache.remove_if(lambda key, value: False), {"a": 1}),
    ],
)
def test_write_during_a_refresh_wins(kind, write, after, clock):
    values = iter([lambda: 1, lambda: (write(caller.cache), 2)[1]])
    caller = Caller(kind, lambda key: next(values)())
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 2
    assert dict(caller.cache.items()) == after


def test_refresh_kept_out_by_a_clear_of_others_is_tried_again(clock):
    values = iter([lambda: 1, lambda: caller.cache.remove_if(lambda key, value: False) or 2, lambda: 3])
    caller = Caller("get_with", lambda key: next(values)())
    caller.call()
    clock.advance(REFRESH + 1)
    assert (caller.call(), caller.cache["a"], caller.call(), caller.cache["a"]) == (2, 1, 3, 3)


def test_invalidation_during_a_refresh_keeps_its_result_out(clock):
    values = iter([lambda: 1, lambda: function.cache_invalidate("a") and 2])
    function = cached(refresh=REFRESH)(lambda key: next(values)())
    function("a")
    clock.advance(REFRESH + 1)
    assert function("a") == 2
    assert not function.cache_contains("a")
