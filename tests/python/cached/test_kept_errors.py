"""`cached(errors=..., error_ttl=...)` keeps failures for a while, beside the results."""

import asyncio
import concurrent.futures
import sys
import weakref
from datetime import timedelta

import pytest
from cached_helpers import (
    KINDS,
    MINUTE,
    NotCopied,
    both_wait_modes,
    call,
    error_of,
    every_kind,
    failing,
    made_function,
    run_async,
    run_ready_tasks,
)
from helpers import FREE_THREADED, CallbackKey, Value, collect

from moka_py import cached
from moka_py.testing import ManualClock

# --- Which failures are kept, and how long ---


@every_kind
@pytest.mark.parametrize("error_ttl", [5, 5.0, timedelta(seconds=5)], ids=repr)
def test_failure_is_kept_for_its_time(error_ttl, kind):
    with ManualClock() as clock:
        failures = [LookupError("no such key", 1)]
        function, runs = failing(kind, failures, error_ttl=error_ttl)
        assert error_of(function, 1) is failures[0]
        failures.clear()
        clock.advance(4.9)
        kept = error_of(function, 1)
        assert type(kept) is LookupError and kept.args == ("no such key", 1) and len(runs) == 1
        # It is the time since the failure, not since the last call.
        clock.advance(0.2)
        assert call(function, 1) == "result" and len(runs) == 2


@every_kind
def test_failures_of_subclasses_are_kept_and_others_are_not(kind):
    failures = []
    function, runs = failing(kind, failures, errors=(LookupError, ConnectionError))
    kinds = [KeyError, LookupError, ConnectionResetError, ValueError, OSError]
    for x, error in enumerate(kinds):
        failures[:] = [error()]
        assert error_of(function, x) is failures[0]
    failures.clear()
    assert [type(error_of(function, x)) for x in range(5)] == [*kinds[:3], type(None), type(None)]
    assert len(runs) == 7


@every_kind
@pytest.mark.parametrize(
    "options",
    [{}, {"typed": True}, {"key": lambda x, y=0: (x, y)}, {"maxsize": None}, {"policy": "lru"}, {"ttl": 1}, {"tti": 1}],
    ids=["plain", "typed", "key", "unbounded", "lru", "ttl", "tti"],
)
def test_failures_are_kept_for_their_own_arguments(options, kind):
    function, runs = failing(kind, [LookupError()], **options)
    for _ in range(3):
        assert isinstance(error_of(function, 1), LookupError)
        assert isinstance(error_of(function, 1, y=2), LookupError)
    assert runs == [((1,), {}), ((1,), {"y": 2})]


@every_kind
def test_without_the_options_no_failure_is_kept(kind):
    runs = []

    def run(x):
        runs.append(x)
        raise LookupError

    function = made_function(kind, run)
    assert isinstance(error_of(function, 1), LookupError) and isinstance(error_of(function, 1), LookupError)
    assert runs == [1, 1]


@every_kind
@pytest.mark.parametrize("maxsize", [0, -1])
def test_function_that_stores_nothing_keeps_no_failure(maxsize, kind):
    function, runs = failing(kind, [LookupError()], maxsize=maxsize)
    error_of(function, 1)
    error_of(function, 1)
    assert len(runs) == 2


class Interrupt(BaseException):
    pass


@every_kind
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, Interrupt, asyncio.CancelledError, concurrent.futures.CancelledError]
)
def test_cancellations_and_interrupts_are_never_kept(error, kind):
    failures = [error()]
    function, _ = failing(kind, failures, errors=Exception)
    assert isinstance(error_of(function, 1), error)
    failures.clear()
    assert call(function, 1) == "result"


@both_wait_modes
def test_cancelled_call_keeps_nothing(wait):
    async def main():
        is_first = True

        @cached(wait_concurrent=wait, errors=Exception, error_ttl=60)
        async def function(x):
            if is_first:
                await asyncio.Event().wait()
            return "result"

        task = asyncio.create_task(function(1))
        await run_ready_tasks()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        is_first = False
        assert await function(1) == "result"

    run_async(main)


@every_kind
def test_error_of_the_weigher_is_not_kept(kind):
    weights = [1]

    def weigh(key, value):
        return weights[0] if weights else [].pop()

    function, runs = failing(kind, [], weigher=weigh)
    weights.clear()
    assert isinstance(error_of(function, 1), IndexError)
    weights.append(1)
    assert call(function, 1) == "result" and len(runs) == 2


@every_kind
def test_failure_that_cannot_be_copied_is_not_kept(kind):
    failures = [NotCopied("x")]
    function, runs = failing(kind, failures)
    assert error_of(function, 1) is failures[0]
    assert error_of(function, 1) is failures[0]
    failures.clear()
    assert call(function, 1) == "result" and len(runs) == 3


@every_kind
def test_group_with_a_member_that_cannot_be_copied_is_not_kept(kind):
    function, runs = failing(kind, [ExceptionGroup("group", [NotCopied()])], errors=ExceptionGroup)
    error_of(function, 1)
    error_of(function, 1)
    assert len(runs) == 2


# --- Statistics, and the bound ---


@every_kind
def test_kept_error_is_a_hit_and_no_load(kind):
    function, _ = failing(kind, [LookupError()])
    for _ in range(4):
        error_of(function, 1)
    assert function.cache_info()[:2] == (3, 1)
    stats = function.cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (3, 1, 1, 1)


@every_kind
def test_kept_errors_do_not_count_in_currsize(kind):
    function, _ = failing(kind, [LookupError()])
    for x in range(5):
        error_of(function, x)
    assert function.cache_info().currsize == len(function.cache) == function.cache.weighted_size() == 0
    assert list(function.cache) == [] and function.cache.stats().inserts == 0


@every_kind
@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
def test_kept_errors_are_bounded_by_maxsize_apart_from_the_results(policy, kind):
    failures = []
    function, runs = failing(kind, failures, maxsize=3, policy=policy)
    for x in range(3):
        call(function, x)
    failures.append(LookupError())
    for x in range(10, 20):
        error_of(function, x)
    assert len(runs) == 13
    # Results and errors do not evict each other.
    assert all(function.cache_contains(x) for x in range(3))
    failures.clear()
    assert sum(error_of(function, x) is not None for x in range(10, 20)) <= 3
    # An error is not the victim of its own insertion.
    failures.append(LookupError())
    function.cache_invalidate(10)
    error_of(function, 10)
    failures.clear()
    assert isinstance(error_of(function, 10), LookupError)


def test_each_kept_error_counts_as_one_beside_a_weigher():
    function, runs = failing(KINDS["function"], [LookupError()], maxsize=3, weigher=lambda key, value: 100)
    for _ in range(2):
        for x in range(3):
            error_of(function, x)
    assert len(runs) == 3


@every_kind
def test_contains_is_false_for_a_kept_error(kind):
    function, _ = failing(kind, [LookupError()])
    error_of(function, 1)
    assert not function.cache_contains(1)
    assert isinstance(error_of(function, 1), LookupError)


def test_errors_are_looked_for_after_a_miss_only():
    """The keys have one hash, so a look for an error compares them."""
    compared = []

    def ask(**options):
        failures = []

        @cached(**options)
        def function(x):
            if x.name == "error":
                raise LookupError
            return x

        result, error = CallbackKey("result", 1), CallbackKey("error", 1)
        function(result)
        assert isinstance(error_of(function, error), LookupError)
        compared.clear()
        other = CallbackKey("result", 1)
        other.on_eq = lambda: compared.append(1)
        assert function(other) is result and failures == []
        return len(compared)

    assert ask(**MINUTE) == ask() == 1


# --- The collector ---


@every_kind
def test_cycle_through_a_kept_error_is_collected(kind):
    class Holder:
        pass

    holder = Holder()
    failures = [LookupError(holder)]
    holder.function, _ = failing(kind, failures)
    error_of(holder.function, 1)
    alive = weakref.ref(holder)
    del holder
    failures.clear()
    collect()
    assert alive() is None


@pytest.mark.skipif(FREE_THREADED and sys.version_info < (3, 14), reason="classes are immortal on CPython 3.13t")
def test_cycle_through_the_types_is_collected():
    class Failure(LookupError):
        pass

    Failure.function = cached(lambda x: x, **{**MINUTE, "errors": Failure})
    Failure.function(1)
    alive = weakref.ref(Failure)
    del Failure
    collect()
    assert alive() is None


def test_function_that_is_dropped_releases_its_errors():
    value = Value()
    alive = weakref.ref(value)
    failures = [LookupError(value)]
    function, _ = failing(KINDS["function"], failures)
    error_of(function, 1)
    del value, function
    failures.clear()
    collect()
    assert alive() is None


# --- The options ---


def test_both_options_or_neither_must_be_given():
    for options in ({"errors": LookupError}, {"error_ttl": 5}, {"errors": (LookupError,), "error_ttl": None}):
        with pytest.raises(ValueError, match="errors and error_ttl must be given together"):
            cached(**options)
    assert cached(errors=None, error_ttl=None)(len)("abc") == 3


@pytest.mark.parametrize(
    "errors",
    [
        BaseException,
        (LookupError, KeyboardInterrupt),
        asyncio.CancelledError,
        [LookupError],
        "LookupError",
        LookupError(),
        (LookupError, 1),
        ((LookupError,),),
        int,
    ],
    ids=repr,
)
def test_types_must_be_subclasses_of_exception(errors):
    with pytest.raises(TypeError, match="errors must be a subclass of Exception or a tuple of some, got"):
        cached(errors=errors, error_ttl=5)


def test_types_must_not_be_empty_and_not_have_a_cancellation():
    with pytest.raises(ValueError, match="errors must have at least one type"):
        cached(errors=(), error_ttl=5)
    with pytest.raises(ValueError, match="errors must not have a cancellation"):
        cached(errors=(LookupError, concurrent.futures.CancelledError), error_ttl=5)


@pytest.mark.parametrize("error_ttl", [0, -1, float("nan"), float("inf"), timedelta(0), 1e12])
def test_error_ttl_must_be_positive_and_at_most_1000_years(error_ttl):
    with pytest.raises(ValueError, match="error_ttl must be"):
        cached(errors=LookupError, error_ttl=error_ttl)


@pytest.mark.parametrize("error_ttl", ["5", [5], lambda key, value: 5], ids=["str", "list", "function"])
def test_error_ttl_must_be_a_duration(error_ttl):
    with pytest.raises(TypeError, match="error_ttl must be a number of seconds or a timedelta"):
        cached(errors=LookupError, error_ttl=error_ttl)


def test_parameters_have_both_options():
    function = cached(errors=(LookupError,), error_ttl=5)(len)
    parameters = function.cache_parameters()
    assert parameters["errors"] == (LookupError,) and parameters["error_ttl"] == 5
    assert cached(len).cache_parameters()["errors"] is None
