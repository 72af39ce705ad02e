"""`refresh`: a value that was set long ago is computed anew, while calls still get the old one."""

import concurrent.futures
import threading
import time
import weakref
from datetime import timedelta

import pytest
from helpers import MANY_THREADS, Background, Events, Gate, Key, collect, outcomes_of_threads, run_in_thread

from moka_py import Moka, cached
from moka_py.testing import ManualClock

REFRESH = 10
NANOSECOND = 1e-9

every_kind_of_call = pytest.mark.parametrize("kind", ["get_with", "cached", "cached, shared"])
every_kind_of_shared_call = pytest.mark.parametrize("kind", ["get_with", "cached, shared"])


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


class Caller:
    """A cache, and calls with a loader of one kind. The key of a call is its argument."""

    def __init__(self, kind, load, maxsize=100, **options):
        options = {"refresh": REFRESH, **options}
        if kind == "get_with":
            self.cache = Moka(maxsize, **options)
            self.call = lambda key="a": self.cache.get_with(key, lambda: load(key))
        else:
            function = cached(maxsize, wait_concurrent=kind == "cached, shared", **options)(load)
            self.cache = function.cache
            self.call = lambda key="a": function(key)


class Counter:
    """A loader that returns 1, 2, 3 and so on."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key=None):
        self.calls += 1
        return self.calls


class FailingAfterFirst:
    """A loader that returns 1, and from then on raises the error that it has."""

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def __call__(self, key=None):
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return 1


class ManualExecutor:
    """An executor that runs its jobs when the test asks for it."""

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)

    def run(self):
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            assert job() is None
        return len(jobs)


class RefusingExecutor:
    def __init__(self, error):
        self.error = error

    def submit(self, job):
        raise self.error


def counts(cache):
    stats = cache.stats()
    return stats.hits, stats.misses, stats.loads, stats.load_failures, stats.refreshes


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


# --- Who computes ---


@every_kind_of_call
def test_with_an_executor_calls_get_the_old_value_until_the_job_is_done(kind, clock):
    load, executor = Counter(), ManualExecutor()
    caller = Caller(kind, load, executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    assert [caller.call() for _ in range(3)] == [1, 1, 1]
    assert (load.calls, executor.run()) == (1, 1)
    assert (caller.call(), load.calls) == (2, 2)
    assert executor.jobs == []


@every_kind_of_call
def test_a_thread_pool_serves_as_executor(kind, clock):
    gate = Gate()
    values = iter([lambda: 1, lambda: gate.stop_here() or 2])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        caller = Caller(kind, lambda key: next(values)(), executor=pool)
        caller.call()
        clock.advance(REFRESH + 1)
        assert caller.call() == 1
        gate.wait_until_reached()
        assert caller.call() == 1
        gate.open()
        pool.submit(int).result(60)
    assert caller.call() == 2


@every_kind_of_call
def test_without_an_executor_the_call_computes_and_all_others_get_the_old_value_at_once(kind, clock):
    gate = Gate()
    values = iter([lambda: 1, lambda: gate.stop_here() or 2])
    caller = Caller(kind, lambda key: next(values)())
    caller.call()
    clock.advance(REFRESH + 1)
    with Background(caller.call) as computing:
        gate.wait_until_reached()
        assert outcomes_of_threads(4, lambda _: caller.call()) == [1] * 4
        gate.open()
    assert computing.result == 2
    assert caller.call() == 2


@every_kind_of_call
def test_one_of_many_threads_computes(kind, clock, fast_switches):
    load = Counter()
    caller = Caller(kind, load)
    caller.call()
    for round_ in range(20):
        clock.advance(REFRESH + 1)
        results = outcomes_of_threads(6, lambda _: caller.call())
        assert set(results) <= {round_ + 1, round_ + 2}
        assert load.calls == round_ + 2


def test_a_thousand_callers_begin_one_refresh(clock):
    load, executor = Counter(), ManualExecutor()
    caller = Caller("get_with", load, executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    assert [caller.call() for _ in range(1000)] == [1] * 1000
    assert len(executor.jobs) == 1


@every_kind_of_call
def test_the_library_starts_no_thread(kind, clock):
    before = threading.enumerate()
    caller = Caller(kind, Counter())
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    assert threading.enumerate() == before


def test_initializer_that_asks_for_its_own_key_gets_the_old_value(clock):
    cache = Moka(10, refresh=REFRESH)
    cache["a"] = 1
    clock.advance(REFRESH + 1)
    assert cache.get_with("a", lambda: cache.get_with("a", pytest.fail) + 1) == 2
    assert cache["a"] == 2


def test_job_computes_once_however_often_it_is_called(clock):
    load, executor = Counter(), ManualExecutor()
    caller = Caller("get_with", load, executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    (job,) = executor.jobs
    assert (job(), job(), load.calls) == (None, None, 2)


@pytest.mark.parametrize("write", [lambda cache: cache.set("a", 9), lambda cache: cache.remove("a")])
def test_job_computes_nothing_if_its_key_was_written_to_before_it_began(write, clock):
    load, executor = Counter(), ManualExecutor()
    caller = Caller("get_with", load, executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    write(caller.cache)
    expected = dict(caller.cache)
    assert executor.run() == 1
    assert (load.calls, dict(caller.cache), caller.cache.stats().refreshes) == (1, expected, 0)


def test_dropped_job_leaves_the_refresh_to_the_next_call(clock, unraisable):
    load, executor = Counter(), ManualExecutor()
    caller = Caller("get_with", load, executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    executor.jobs.clear()
    collect()
    assert caller.call() == 1
    assert executor.run() == 1
    assert (caller.call(), unraisable, caller.cache.stats().load_failures) == (2, [], 0)


def test_cancelled_future_leaves_the_refresh_to_the_next_call(clock):
    gate, load = Gate(), Counter()
    futures = []

    class Pool(concurrent.futures.ThreadPoolExecutor):
        def submit(self, job):
            futures.append(super().submit(job))

    with Pool(1) as pool:
        caller = Caller("get_with", load, executor=pool)
        caller.call()
        clock.advance(REFRESH + 1)
        pool.submit(gate.stop_here)
        gate.wait_until_reached()
        assert caller.call() == 1
        assert futures[-1].cancel()
        gate.open()
    collect()
    with Pool(1) as caller_pool:
        pool.submit = caller_pool.submit
        assert caller.call() == 1
    assert (load.calls, caller.call(), caller.cache.stats().load_failures) == (2, 2, 0)


def test_pool_that_was_shut_down_refuses(clock, unraisable):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        caller = Caller("get_with", Counter(), executor=pool)
    caller.call()
    clock.advance(REFRESH + 1)
    assert (caller.call(), caller.cache.stats().load_failures) == (1, 1)
    assert [type(error) for error in unraisable] == [RuntimeError]


# --- ttl ---


@every_kind_of_shared_call
def test_call_joins_a_refresh_that_hangs_past_the_ttl(kind, clock):
    gate = Gate()
    values = iter([lambda: 1, lambda: gate.stop_here() or 2])
    caller = Caller(kind, lambda key: next(values)(), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    with Background(caller.call) as computing:
        gate.wait_until_reached()
        clock.advance(REFRESH)
        assert caller.cache.get("a") is None
        with Background(caller.call) as waiting:
            assert caller.cache.get("a") is None
            gate.open()
    assert (computing.result, waiting.result) == (2, 2)


def test_many_threads_join_a_refresh_that_hangs_past_the_ttl(clock):
    cache, many = Moka(10, ttl=2 * REFRESH, refresh=REFRESH), MANY_THREADS
    gate = Gate()

    def compute():
        gate.stop_here()
        while cache.stats().misses < many:
            time.sleep(0)
        return 2

    cache["a"] = 1
    clock.advance(REFRESH + 1)
    with Background(lambda: cache.get_with("a", compute)) as computing:
        gate.wait_until_reached()
        clock.advance(REFRESH)
        gate.open()
        assert set(outcomes_of_threads(many, lambda _: cache.get_with("a", pytest.fail))) == {2}
    assert computing.result == 2


@every_kind_of_shared_call
def test_a_failing_refresh_past_the_ttl_raises_in_the_calls_that_wait_for_it(kind, clock, unraisable):
    gate, error = Gate(), ValueError("no")

    def fail():
        gate.stop_here()
        raise error

    values = iter([lambda: 1, fail, lambda: 3])
    caller = Caller(kind, lambda key: next(values)(), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    with pytest.raises(ValueError, match="no") as caught, Background(caller.call):
        gate.wait_until_reached()
        clock.advance(REFRESH)
        gate.open()
    assert (caught.value, unraisable) == (error, [])
    assert caller.call() == 3


def test_separate_call_computes_for_itself_once_the_old_value_has_expired(clock):
    gate = Gate()
    values = iter([lambda: 1, lambda: gate.stop_here() or 2, lambda: 3])
    caller = Caller("cached", lambda key: next(values)(), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    with Background(caller.call) as computing:
        gate.wait_until_reached()
        clock.advance(REFRESH)
        assert caller.call() == 3
        gate.open()
    assert computing.result == 2


@every_kind_of_call
def test_without_a_ttl_the_old_value_stays_until_a_refresh_succeeds(kind, clock, unraisable):
    load = FailingAfterFirst(ValueError("no"))
    caller = Caller(kind, load)
    caller.call()
    for _ in range(5):
        clock.advance(1000 * REFRESH)
        assert caller.call() == 1
    assert (load.calls, len(unraisable)) == (6, 5)


# --- Options ---


@pytest.mark.parametrize("make", [lambda **options: Moka(10, **options), lambda **options: cached(**options)])
class TestOptions:
    @pytest.mark.parametrize("refresh, ttl", [(5, 5), (6, 5), (timedelta(seconds=5), 5.0)])
    def test_refresh_must_be_less_than_ttl(self, make, refresh, ttl):
        with pytest.raises(ValueError, match=r"refresh must be less than ttl, got refresh=[56] and ttl=5"):
            make(refresh=refresh, ttl=ttl)

    @pytest.mark.parametrize("refresh", [0, -1, float("nan"), float("inf"), 1e12])
    def test_refresh_must_be_a_duration(self, make, refresh):
        with pytest.raises(ValueError, match="refresh must be"):
            make(refresh=refresh)

    @pytest.mark.parametrize("refresh", ["1", [], lambda key, value: 1])
    def test_refresh_must_be_a_number_or_a_timedelta(self, make, refresh):
        with pytest.raises(TypeError, match="refresh must be a number of seconds or a timedelta, got"):
            make(refresh=refresh)

    @pytest.mark.parametrize("executor", [5, object(), type("Wrong", (), {"submit": 1})()])
    def test_executor_must_have_a_callable_submit(self, make, executor):
        with pytest.raises(TypeError, match="executor must have a callable submit, got"):
            make(refresh=5, executor=executor)

    def test_executor_needs_refresh(self, make):
        with pytest.raises(ValueError, match="executor must be None without refresh, got"):
            make(executor=ManualExecutor())

    def test_refresh_may_be_longer_than_tti_or_the_ttl_of_a_call(self, make):
        make(refresh=5, tti=1)


def test_cache_tells_its_refresh():
    assert Moka(10, refresh=timedelta(minutes=1)).refresh == 60.0
    assert Moka(10).refresh is None
    assert "refresh=1.5" in repr(Moka(10, refresh=1.5))


def test_cached_function_tells_its_refresh():
    executor = ManualExecutor()
    function = cached(refresh=5, executor=executor)(len)
    parameters = function.cache_parameters()
    assert (parameters["refresh"], parameters["executor"], function.cache.refresh) == (5, executor, 5.0)
    plain = cached(len).cache_parameters()
    assert (plain["refresh"], plain["executor"]) == (None, None)


# --- Failures ---


@every_kind_of_call
def test_failure_keeps_the_old_value_and_goes_to_the_hook(kind, clock, unraisable):
    error = ValueError("no")
    caller = Caller(kind, FailingAfterFirst(error), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 1
    assert unraisable == [error]
    assert counts(caller.cache) == (1, 1, 2, 1, 1)


@every_kind_of_call
def test_failure_in_a_job_keeps_the_old_value_and_goes_to_the_hook(kind, clock, unraisable):
    error, executor = ValueError("no"), ManualExecutor()
    caller = Caller(kind, FailingAfterFirst(error), executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    executor.run()
    assert (caller.call(), unraisable) == (1, [error])
    assert counts(caller.cache) == (2, 1, 2, 1, 1)


@every_kind_of_call
def test_failure_of_the_call_is_raised_if_the_old_value_has_expired_meanwhile(kind, clock, unraisable):
    error = ValueError("no")
    values = iter([lambda: 1, lambda: clock.advance(REFRESH) or raise_(error)])
    caller = Caller(kind, lambda key: next(values)(), ttl=2 * REFRESH)
    caller.call()
    clock.advance(REFRESH + 1)
    with pytest.raises(ValueError, match="no") as caught:
        caller.call()
    assert caught.value is error and unraisable == []
    assert caller.cache.stats().load_failures == 1


@every_kind_of_call
def test_next_attempt_comes_a_tenth_of_refresh_after_a_failure(kind, clock, unraisable):
    load = FailingAfterFirst(ValueError("no"))
    caller = Caller(kind, load)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    clock.advance(REFRESH / 10 - NANOSECOND)
    caller.call()
    assert load.calls == 2
    clock.advance(NANOSECOND)
    caller.call()
    assert load.calls == 3


@every_kind_of_call
def test_refusing_executor_counts_as_a_failure(kind, clock, unraisable):
    error = RuntimeError("full")
    load = Counter()
    caller = Caller(kind, load, executor=RefusingExecutor(error))
    caller.call()
    clock.advance(REFRESH + 1)
    assert [caller.call(), caller.call()] == [1, 1]
    assert (unraisable, load.calls) == ([error], 1)
    assert counts(caller.cache) == (2, 1, 2, 1, 1)
    clock.advance(REFRESH / 10)
    caller.call()
    assert unraisable == [error, error]


def test_executor_may_run_the_job_in_submit(clock):
    class Direct:
        def submit(self, job):
            job()

    caller = Caller("get_with", Counter(), executor=Direct())
    caller.call()
    clock.advance(REFRESH + 1)
    assert (caller.call(), caller.call()) == (1, 2)


@every_kind_of_call
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2)])
def test_interrupt_leaves_the_call_that_computes(kind, error, clock, unraisable):
    load = FailingAfterFirst(error)
    caller = Caller(kind, load)
    caller.call()
    clock.advance(REFRESH + 1)
    with pytest.raises(type(error)) as caught:
        caller.call()
    assert caught.value is error and unraisable == []
    assert caller.cache.peek("a") == 1
    with pytest.raises(type(error)):
        caller.call()
    assert load.calls == 3, "the next call tries again"


def test_interrupt_leaves_the_job(clock, unraisable):
    executor = ManualExecutor()
    caller = Caller("get_with", FailingAfterFirst(KeyboardInterrupt()), executor=executor)
    caller.call()
    clock.advance(REFRESH + 1)
    caller.call()
    with pytest.raises(KeyboardInterrupt):
        executor.run()
    assert unraisable == []
    caller.call()
    assert len(executor.jobs) == 1, "the next call tries again"


def test_interrupt_of_submit_leaves_the_call(clock, unraisable):
    caller = Caller("get_with", Counter(), executor=RefusingExecutor(KeyboardInterrupt()))
    caller.call()
    clock.advance(REFRESH + 1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            caller.call()
    assert (unraisable, caller.cache.stats().load_failures) == ([], 0)


@every_kind_of_call
def test_failure_of_the_weigher_is_a_failure_of_the_refresh(kind, clock, unraisable):
    caller = Caller(kind, Counter(), weigher=lambda key, value: 1 if value == 1 else -1)
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 1
    assert [str(error) for error in unraisable] == ["weigher must return at least 0, got -1"]
    assert counts(caller.cache) == (1, 1, 2, 1, 1)


def raise_(error):
    raise error


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


@every_kind_of_call
def test_failure_of_the_ttl_function_is_a_failure_of_the_refresh(kind, clock, unraisable):
    caller = Caller(kind, Counter(), ttl=lambda key, value: "soon" if value == 2 else None)
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 1
    assert [type(error) for error in unraisable] == [TypeError]
    assert caller.cache.stats().load_failures == 1


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


# --- Lifetimes of objects ---


def test_cycle_through_the_executor_and_its_jobs_is_collected(clock):
    executor = ManualExecutor()
    executor.cache = Moka(10, refresh=REFRESH, executor=executor)
    executor.cache["a"] = 1
    clock.advance(REFRESH + 1)
    executor.cache.get_with("a", lambda: 2)
    assert len(executor.jobs) == 1
    watched = weakref.ref(executor), weakref.ref(executor.cache)
    del executor
    collect()
    assert [reference() for reference in watched] == [None, None]


def test_job_keeps_its_cache_alive(clock):
    executor = ManualExecutor()
    cache = Moka(10, refresh=REFRESH, executor=executor)
    cache["a"] = 1
    clock.advance(REFRESH + 1)
    cache.get_with("a", lambda: 2)
    watched = weakref.ref(cache)
    del cache
    collect()
    assert watched()["a"] == 1
    executor.run()
    assert watched() is None or watched()["a"] == 2
    collect()
    assert watched() is None


def test_weak_self_instance_is_held_while_its_refresh_runs(clock):
    executor, calls = ManualExecutor(), []

    class Kept:
        @cached(weak_self=True, refresh=REFRESH, executor=executor)
        def method(self):
            calls.append(watched() is not None)
            return len(calls)

    instance = Kept()
    watched = weakref.ref(instance)
    instance.method()
    clock.advance(REFRESH + 1)
    instance.method()
    del instance
    collect()
    assert watched() is not None
    executor.run()
    collect()
    assert calls == [True, True]
    assert watched() is None
    assert len(Kept.method.cache) == 0, "the new result is removed with its instance"


def test_result_that_a_refresh_inserts_anew_is_removed_with_its_instance(clock):
    others = []

    class Kept:
        @cached(1, weak_self=True, refresh=REFRESH)
        def method(self):
            while others:
                others.pop().method()  # It evicts the entry that is refreshed.
            return 1

    instance = Kept()
    instance.method()
    clock.advance(REFRESH + 1)
    others.append(Kept())
    instance.method()
    assert len(Kept.method.cache) == 1
    del instance
    collect()
    assert len(Kept.method.cache) == 0


@every_kind_of_call
def test_refresh_in_another_thread_than_the_set(kind, clock):
    caller = Caller(kind, Counter())
    assert run_in_thread(caller.call) == 1
    clock.advance(REFRESH + 1)
    assert run_in_thread(caller.call) == 2
