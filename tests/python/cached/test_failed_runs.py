"""A run that failed is no longer in flight: a load of many keys may then store a value that it was not asked for."""

import asyncio

import pytest
from cached_helpers import KINDS, MINUTE, NotCopied, call, error_of, every_kind, made_function, pause
from helpers import Key

from moka_py import cached


def is_in_flight(function, key):
    """Return whether a run of a key is in flight in the cache of a function. If none is, it stores a value there."""
    asked = object()
    function.cache.get_many_with([asked], lambda missing: {asked: "asked", key: "not asked"})
    return key not in function.cache


class OwnBaseError(BaseException):
    """An exception that is no Exception."""


FAILURES = {
    "no errors are kept": ({}, LookupError),
    "the error is kept": (MINUTE, LookupError),
    "the type is not kept": (MINUTE, ValueError),
    "the error is not copied": (MINUTE, NotCopied),
    "no Exception": ({}, OwnBaseError),
    "no Exception beside kept errors": (MINUTE, OwnBaseError),
}

with_and_without_kept_errors = pytest.mark.parametrize(
    "options", [{}, MINUTE], ids=["no errors are kept", "errors are kept"]
)
every_failure = pytest.mark.parametrize(("options", "failure_type"), FAILURES.values(), ids=FAILURES)


@every_kind
@every_failure
def test_run_that_failed_is_no_longer_in_flight(options, failure_type, kind):
    failure, in_run = failure_type(), []

    def run(x):
        in_run.append(is_in_flight(function, x))
        raise failure

    function = made_function(kind, run, key=lambda x: x, **options)
    for x in range(2):
        assert error_of(function, x) is failure
        assert not is_in_flight(function, x)
    assert in_run == [True, True]


@every_kind
@with_and_without_kept_errors
def test_run_that_failed_after_a_write_is_no_longer_in_flight(options, kind):
    def run(x):
        function.cache.remove(x)
        raise LookupError

    function = made_function(kind, run, key=lambda x: x, **options)
    assert isinstance(error_of(function, 1), LookupError)
    assert not is_in_flight(function, 1)


@every_kind
@with_and_without_kept_errors
def test_run_that_succeeded_is_no_longer_in_flight(options, kind):
    function = made_function(kind, str, key=lambda x: x, **options)
    assert call(function, 1) == "1"
    function.cache.remove(1)
    assert not is_in_flight(function, 1)


@every_kind
@with_and_without_kept_errors
@pytest.mark.parametrize("callback", ["weigher", "ttl"])
def test_run_whose_result_a_callback_refused_is_no_longer_in_flight(callback, options, kind):
    refusals = [LookupError()]

    def refuse_once(key, value):
        if refusals:
            raise refusals.pop()
        return 1

    function = made_function(kind, str, key=lambda x: x, **{callback: refuse_once}, **options)
    assert isinstance(error_of(function, 1), LookupError)
    assert not is_in_flight(function, 1)


@every_kind
def test_run_whose_key_could_not_be_compared_is_no_longer_in_flight(kind):
    class OtherKey(Key):
        def __eq__(self, other):
            if is_hostile:
                raise LookupError
            return self is other

        __hash__ = Key.__hash__

    def run(key):
        nonlocal is_hostile
        function.cache.set(other, "other")
        is_hostile = True

    is_hostile = False
    key, other = OtherKey("key", 1), OtherKey("other", 1)
    function = made_function(kind, run, key=lambda key: key)
    assert isinstance(error_of(function, key), LookupError)
    is_hostile = False
    assert not is_in_flight(function, key)


@every_kind
@every_failure
def test_cache_refresh_that_failed_is_no_longer_in_flight(options, failure_type, kind):
    def run(x):
        raise failure_type

    function = made_function(kind, run, key=lambda x: x, **options)
    with pytest.raises(failure_type):
        call(function.cache_refresh, 1)
    assert not is_in_flight(function, 1)


@pytest.mark.parametrize("end", ["throw", "close", "drop"])
@with_and_without_kept_errors
def test_coroutine_that_ends_early_is_no_longer_in_flight(options, end):
    @cached(key=lambda x: x, **options)
    async def function(x):
        await pause()

    coroutine = function(1)
    coroutine.send(None)
    assert is_in_flight(function, 1)
    match end:
        case "throw":
            with pytest.raises(OwnBaseError):
                coroutine.throw(OwnBaseError())
        case "close":
            coroutine.close()
        case "drop":
            del coroutine
    assert not is_in_flight(function, 1)


@pytest.mark.parametrize("kind", [KINDS["coroutine"], KINDS["shared coroutine"]], ids=["alone", "shared"])
@with_and_without_kept_errors
def test_run_that_was_cancelled_is_no_longer_in_flight(options, kind):
    @cached(key=lambda x: x, wait_concurrent=kind.is_shared, **options)
    async def function(x):
        started.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(function(1))
        await asyncio.wait_for(started.wait(), 60)
        assert is_in_flight(function, 1)
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
        assert not is_in_flight(function, 1)

    started = asyncio.Event()
    asyncio.run(main())
