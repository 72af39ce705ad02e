"""`refresh` in threads: which call computes, executors and their jobs, and calls that join a refresh."""

import concurrent.futures
import threading
import time

import pytest
from helpers import MANY_THREADS, Background, Gate, collect, outcomes_of_threads, run_in_thread
from refresh_helpers import REFRESH, Caller, Counter, ManualExecutor, every_kind_of_call, every_kind_of_shared_call

from moka_py import Moka

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
def test_refresh_in_another_thread_than_the_set(kind, clock):
    caller = Caller(kind, Counter())
    assert run_in_thread(caller.call) == 1
    clock.advance(REFRESH + 1)
    assert run_in_thread(caller.call) == 2
