"""A later write ends a kept error, and the end of its instance does. A failure displaces no result."""

import gc
import weakref

import pytest
from cached_helpers import (
    KINDS,
    MINUTE,
    both_wait_modes,
    call,
    error_of,
    every_kind,
    failing,
    made_function,
    run_async,
    run_ready_tasks,
)
from helpers import Background, Gate, Key, Value, collect

from moka_py import cached
from moka_py.testing import ManualClock

# --- Which calls end a kept error ---


REMOVALS = {
    "cache_invalidate": lambda function: function.cache_invalidate(1),
    "cache_clear": lambda function: function.cache_clear(),
    "clear": lambda function: function.cache.clear(),
    "remove": lambda function: function.cache.remove(1),
    "pop": lambda function: function.cache.pop(1, None),
    "remove_many": lambda function: function.cache.remove_many([1]),
    "remove_if": lambda function: function.cache.remove_if(lambda key, value: False),
}
SETS = {
    "cache_set": lambda function: function.cache_set("written", 1),
    "set": lambda function: function.cache.set(1, "written"),
    "setitem": lambda function: function.cache.__setitem__(1, "written"),
    "setdefault": lambda function: function.cache.setdefault(1, "written"),
    "set_with": lambda function: function.cache.set_with(1, lambda old: "written"),
    "set_many": lambda function: function.cache.set_many({1: "written"}),
}


@every_kind
@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_removal_ends_a_kept_error(removal, kind):
    failures = [LookupError()]
    function, runs = failing(kind, failures)
    error_of(function, 1)
    removal(function)
    failures.clear()
    assert call(function, 1) == "result" and len(runs) == 2


@every_kind
@pytest.mark.parametrize("write", SETS.values(), ids=SETS)
def test_set_ends_a_kept_error_for_good(write, kind):
    with ManualClock() as clock:
        failures = [LookupError()]
        function, runs = failing(kind, failures, ttl=1)
        error_of(function, 1)
        write(function)
        failures.clear()
        assert call(function, 1) == "written"
        # The error is still gone when the value has expired.
        clock.advance(2)
        assert call(function, 1) == "result" and len(runs) == 2


@every_kind
def test_invalidation_finds_no_result_and_leaves_other_errors(kind):
    function, runs = failing(kind, [LookupError()])
    error_of(function, 1)
    error_of(function, 2)
    assert function.cache_invalidate(1) is False
    assert isinstance(error_of(function, 2), LookupError) and len(runs) == 2


@every_kind
def test_invalidation_releases_the_error_promptly(kind):
    value = Value()
    alive = weakref.ref(value)
    failures = [LookupError(value)]
    function, _ = failing(kind, failures)
    error_of(function, 1)
    del value
    failures.clear()
    gc.collect()
    assert alive() is not None
    function.cache_invalidate(1)
    function.cache.run_pending_tasks()
    assert alive() is None


@pytest.mark.parametrize("release", ["run_pending_tasks", "clear", "resize"])
def test_cache_releases_errors_that_are_past_their_time_or_removed(release):
    with ManualClock() as clock:
        value = Value()
        alive = weakref.ref(value)
        failures = [LookupError(value)]
        function, _ = failing(KINDS["function"], failures)
        error_of(function, 1)
        del value
        failures.clear()
        match release:
            case "run_pending_tasks":
                clock.advance(61)
            case "clear":
                function.cache.clear()
            case "resize":
                function.cache.resize(0)
        function.cache.run_pending_tasks()
        gc.collect()
        assert alive() is None


@every_kind
def test_resize_bounds_the_errors_too(kind):
    failures = [LookupError()]
    function, runs = failing(kind, failures, maxsize=10)
    for x in range(10):
        error_of(function, x)
    function.cache.resize(2)
    failures.clear()
    assert sum(error_of(function, x) is not None for x in range(10)) == 2
    function.cache.resize(0)
    assert [error_of(function, x) for x in range(10)] == [None] * 10
    failures.append(LookupError())
    function.cache.resize(10)
    runs.clear()
    for _ in range(2):
        for x in range(10, 20):
            error_of(function, x)
    assert len(runs) == 10


@pytest.mark.parametrize("by", ["function", "cache"])
def test_manual_clock_that_is_given_the_function_or_its_cache_moves_its_errors(by):
    failures = [LookupError()]
    function, runs = failing(KINDS["function"], failures)
    error_of(function, 1)
    failures.clear()
    with ManualClock(caches=[function if by == "function" else function.cache]) as clock:
        clock.advance(59)
        assert isinstance(error_of(function, 1), LookupError)
        clock.advance(2)
        assert call(function, 1) == "result" and len(runs) == 2


def made_class(wait, is_async, **options):
    class Thing:
        if is_async:

            @cached(weak_self=True, wait_concurrent=wait, **MINUTE, **options)
            async def method(self, x):
                runs.append(x)
                raise LookupError(values[0])

        else:

            @cached(weak_self=True, wait_concurrent=wait, **MINUTE, **options)
            def method(self, x):
                runs.append(x)
                raise LookupError(values[0])

    runs, values = [], [Value()]
    return Thing, runs, values


@both_wait_modes
@pytest.mark.parametrize("is_async", [False, True], ids=["method", "coroutine method"])
@pytest.mark.parametrize("options", [{}, {"typed": True}, {"key": lambda self, x: x}], ids=["plain", "typed", "key"])
def test_end_of_a_weak_self_instance_ends_its_errors(options, is_async, wait):
    Thing, runs, values = made_class(wait, is_async, **options)
    one, other = Thing(), Thing()
    alive, dies = weakref.ref(values[0]), weakref.ref(one)
    error_of(one.method, 1)
    error_of(one.method, 1)
    values[0] = None
    error_of(other.method, 1)
    gc.collect()
    # The error does not keep the instance alive, which is in a frame of the failed run.
    assert len(runs) == 2 and alive() is not None
    del one
    gc.collect()
    Thing.method.cache.run_pending_tasks()
    assert dies() is None and alive() is None
    assert isinstance(error_of(other.method, 1), LookupError) and len(runs) == 2


@both_wait_modes
def test_run_that_fails_after_its_instance_died_keeps_nothing(wait):
    value = Value()
    alive = weakref.ref(value)

    class Thing:
        @cached(weak_self=True, wait_concurrent=wait, **MINUTE)
        async def method(self, x):
            del self
            await pause()
            raise LookupError(values.pop())

    async def pause():
        things.clear()
        gc.collect()

    things, values = [Thing()], [value]
    del value

    async def main():
        call = things[0].method(1)
        with pytest.raises(LookupError):
            await call
        del call

    run_async(main)
    collect()
    Thing.method.cache.run_pending_tasks()
    gc.collect()
    assert alive() is None


@both_wait_modes
def test_invalidation_of_a_weak_self_method_takes_the_instance(wait):
    Thing, runs, _ = made_class(wait, False)
    one, other = Thing(), Thing()
    for thing in (one, other):
        error_of(thing.method, 1)
    one.method.cache_invalidate(one, 1)
    error_of(other.method, 1)
    assert len(runs) == 2
    error_of(one.method, 1)
    assert len(runs) == 3


def test_instance_forgets_errors_that_have_expired():
    with ManualClock() as clock:
        Thing, runs, _ = made_class(False, False, key=lambda self, x: x)
        one = Thing()
        for x in range(1000):
            error_of(one.method, x)
            clock.advance(10)
        assert len(runs) == 1000
        assert isinstance(error_of(one.method, 999), LookupError) and len(runs) == 1000


# --- A later write wins, and a failure never displaces a result ---


@every_kind
@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_removal_during_a_run_keeps_its_error_out(removal, kind):
    during = [removal]

    def run(x):
        if during:
            during.pop()(function)
            raise LookupError
        return "result"

    function = made_function(kind, run, **MINUTE)
    assert isinstance(error_of(function, 1), LookupError)
    assert call(function, 1) == "result"


@every_kind
@pytest.mark.parametrize("write", SETS.values(), ids=SETS)
def test_set_during_a_run_wins_over_its_error(write, kind):
    with ManualClock() as clock:
        during = [write]

        def run(x):
            if during:
                during.pop()(function)
                raise LookupError
            return "result"

        function = made_function(kind, run, ttl=1, **MINUTE)
        assert isinstance(error_of(function, 1), LookupError)
        assert call(function, 1) == "written"
        clock.advance(2)
        assert call(function, 1) == "result"


@both_wait_modes
def test_invalidation_by_another_thread_keeps_the_error_out(wait):
    gate, failures = Gate(), [LookupError()]

    @cached(wait_concurrent=wait, **MINUTE)
    def function(x):
        gate.stop_here()
        if failures:
            raise failures.pop()
        return "result"

    with Background(lambda: error_of(function, 1)) as failed:
        gate.wait_until_reached()
        function.cache_invalidate(1)
        gate.open()
    assert isinstance(failed.result, LookupError)
    assert function(1) == "result"


@pytest.mark.parametrize("ends_first", ["failure", "success"])
def test_failure_and_success_of_concurrent_runs_leave_the_result_alone(ends_first):
    with ManualClock() as clock:
        gates = {"failure": Gate(), "success": Gate()}
        turns = ["failure", "success"]

        @cached(ttl=1, **MINUTE)
        def function(x):
            turn = turns.pop(0) if turns else None
            if turn is not None:
                gates[turn].stop_here()
            if turn == "failure":
                raise LookupError
            return turn or "later"

        def outcome():
            return error_of(function, 1)

        with Background(outcome) as one:
            gates["failure"].wait_until_reached()
            with Background(outcome) as other:
                gates["success"].wait_until_reached()
                ends_last = one if ends_first == "success" else other
                gates[ends_first].open()
                (other if ends_last is one else one).join()
                for gate in gates.values():
                    gate.open()
        assert isinstance(one.result, LookupError) and other.result is None
        assert function(1) == "success"
        clock.advance(2)
        assert function(1) == "later"


def test_result_of_get_with_is_found_before_the_error():
    function, _ = failing(KINDS["function"], [LookupError()])
    error_of(function, 1)
    assert function.cache.get_with(1, lambda: "loaded") == "loaded"
    assert function(1) == "loaded"


@every_kind
def test_bulk_load_keeps_a_value_for_a_key_whose_error_is_kept(kind):
    """It does not take the failed run for one that is in flight."""
    failures = [LookupError()]
    function, runs = failing(kind, failures)
    error_of(function, 1)
    assert function.cache.get_many_with([2], lambda missing: {1: "one", 2: "two"}) == {1: "one", 2: "two"}
    assert call(function, 1) == "one"
    function.cache.remove(1)
    failures.clear()
    assert call(function, 1) == "result" and len(runs) == 2


@both_wait_modes
def test_write_to_another_key_ends_no_error(wait):
    function, runs = failing(KINDS["shared function" if wait else "function"], [LookupError()])
    one, other = Key("one", 1), Key("other", 2)
    error_of(function, one)
    function.cache.set(other, "value")
    function.cache.remove(other)
    assert isinstance(error_of(function, one), LookupError) and len(runs) == 1


class Executor:
    """An executor that runs each job before `submit` returns."""

    def submit(self, job):
        job()


REFRESHES = {"by the call": {}, "by an executor": {"executor": Executor()}}
every_refresh = pytest.mark.parametrize("options", REFRESHES.values(), ids=REFRESHES)


@both_wait_modes
@every_refresh
def test_failure_of_a_refresh_ahead_displaces_no_value_and_is_not_kept(options, wait, unraisable):
    with ManualClock() as clock:
        failures = []
        function, runs = failing(
            KINDS["shared function" if wait else "function"], failures, refresh=1, ttl=10, error_ttl=100, **options
        )
        function(1)
        clock.advance(2)
        failures.append(LookupError())
        assert function(1) == "result" and len(runs) == 2 and unraisable == failures
        assert function(1) == "result"
        # The value leaves at its deadline, and no error has come in its place.
        clock.advance(9)
        failures.clear()
        assert function(1) == "result" and len(runs) == 3


@both_wait_modes
def test_failure_of_the_refresh_of_a_coroutine_displaces_no_value_and_is_not_kept(wait, unraisable):
    with ManualClock() as clock:
        failures, runs = [], []

        @cached(wait_concurrent=wait, refresh=1, ttl=10, errors=LookupError, error_ttl=100)
        async def function(x):
            runs.append(x)
            if failures:
                raise failures[0]
            return "result"

        async def main():
            await function(1)
            clock.advance(2)
            failures.append(LookupError())
            assert await function(1) == "result"
            await run_ready_tasks()
            assert len(runs) == 2 and unraisable == failures
            assert await function(1) == "result"
            clock.advance(9)
            failures.clear()
            assert await function(1) == "result" and len(runs) == 3

        run_async(main)


@both_wait_modes
def test_failure_of_a_refresh_that_ends_after_the_deadline_is_not_kept(wait):
    with ManualClock() as clock:
        during = []

        @cached(wait_concurrent=wait, refresh=1, ttl=10, errors=LookupError, error_ttl=100)
        def function(x):
            if during:
                clock.advance(during.pop())
                raise LookupError
            return "result"

        function(1)
        clock.advance(2)
        during.append(20)
        assert isinstance(error_of(function, 1), LookupError)
        assert function(1) == "result"


@every_refresh
def test_refresh_that_succeeds_ends_the_error_of_a_run_beside_it(options):
    with ManualClock() as clock:
        turns = []

        @cached(refresh=100, ttl=1000, errors=LookupError, error_ttl=100_000, **options)
        def function(x):
            turn = turns.pop() if turns else None
            if turn == "refresh":
                # The value is past its deadline, so this call runs the function.
                clock.advance(2000)
                assert isinstance(error_of(function, 1), LookupError)
            if turn == "beside":
                raise LookupError
            return turn or "result"

        function(1)
        clock.advance(200)
        turns[:] = ["beside", "refresh"]
        function(1)
        assert turns == [] and function(1) == "refresh"
        clock.advance(2000)
        assert function(1) == "result"
