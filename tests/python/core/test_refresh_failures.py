"""A `refresh` that fails or is interrupted keeps the old value."""

import pytest
from refresh_helpers import (
    NANOSECOND,
    REFRESH,
    Caller,
    Counter,
    FailingAfterFirst,
    ManualExecutor,
    RefusingExecutor,
    counts,
    every_kind_of_call,
)


@every_kind_of_call
def test_without_a_ttl_the_old_value_stays_until_a_refresh_succeeds(kind, clock, unraisable):
    load = FailingAfterFirst(ValueError("no"))
    caller = Caller(kind, load)
    caller.call()
    for _ in range(5):
        clock.advance(1000 * REFRESH)
        assert caller.call() == 1
    assert (load.calls, len(unraisable)) == (6, 5)


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


@every_kind_of_call
def test_failure_of_the_ttl_function_is_a_failure_of_the_refresh(kind, clock, unraisable):
    caller = Caller(kind, Counter(), ttl=lambda key, value: "soon" if value == 2 else None)
    caller.call()
    clock.advance(REFRESH + 1)
    assert caller.call() == 1
    assert [type(error) for error in unraisable] == [TypeError]
    assert caller.cache.stats().load_failures == 1
