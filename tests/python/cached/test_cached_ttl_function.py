"""A cached function may have a function of key and result as its ttl, in all modes."""

import asyncio
import gc
import weakref
from datetime import timedelta

import pytest
from cached_helpers import both_wait_modes, run_async
from helpers import assert_copies_of_exception

from moka_py import cached

both_kinds = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def make(is_async, ttl, **options):
    """Return a cached function that returns its argument, a function that calls it, and the list of its runs."""
    runs = []

    if is_async:

        @cached(ttl=ttl, **options)
        async def function(x):
            runs.append(x)
            return x

    else:

        @cached(ttl=ttl, **options)
        def function(x):
            runs.append(x)
            return x

    async def awaited(x):
        return await function(x)

    def call(x):
        return run_async(lambda: awaited(x)) if is_async else function(x)

    return function, call, runs


@both_kinds
@both_wait_modes
def test_result_decides_how_long_it_is_kept(clock, wait, is_async):
    function, call, runs = make(is_async, lambda key, value: value, wait_concurrent=wait)
    for x in (3, timedelta(seconds=5), None):
        assert call(x) == call(x) == x
    assert len(runs) == 3
    clock.advance(3)
    assert not function.cache_contains(3) and function.cache_contains(timedelta(seconds=5))
    clock.advance(2)
    assert not function.cache_contains(timedelta(seconds=5)) and function.cache_contains(None)
    call(3)
    assert len(runs) == 4


@both_kinds
@both_wait_modes
def test_result_that_is_not_kept_is_returned_and_computed_anew(wait, is_async):
    function, call, runs = make(is_async, lambda key, value: value, wait_concurrent=wait)
    assert [call(x) for x in (0, 0, -1, -1)] == [0, 0, -1, -1]
    assert (runs, len(function.cache)) == ([0, 0, -1, -1], 0)
    stats = function.cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (0, 4, 4, 0)
    assert (stats.inserts, stats.expirations) == (4, 4)


@both_kinds
@both_wait_modes
def test_function_is_called_once_a_run_with_the_key_of_the_cache(wait, is_async):
    calls = []
    function, call, _ = make(
        is_async, lambda key, value: calls.append((key, value)), wait_concurrent=wait, key=lambda x: ("own", x)
    )
    for _ in range(3):
        assert call(7) == 7
    assert calls == [(("own", 7), 7)]


@both_wait_modes
def test_error_of_the_function_leaves_the_call_and_nothing_is_stored(wait):
    error = LookupError("no ttl")

    def ttl(key, value):
        raise error

    function, _, runs = make(False, ttl, wait_concurrent=wait)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            function(1)
        assert caught.value is error
    assert len(runs) == 2 and len(function.cache) == 0


@both_wait_modes
def test_error_of_the_function_leaves_each_coroutine(wait):
    error = LookupError("no ttl")

    def ttl(key, value):
        raise error

    @cached(ttl=ttl, wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)

    async def main():
        outcomes = await asyncio.gather(function(1), function(1), return_exceptions=True)
        assert outcomes[0] is error
        if wait:
            assert_copies_of_exception(error, outcomes[1:])
        else:
            assert outcomes[1] is error

    run_async(main)
    assert len(function.cache) == 0


@both_kinds
@both_wait_modes
@pytest.mark.parametrize("result", ["1", float("nan"), 1e11], ids=repr)
def test_wrong_result_is_an_error_that_names_ttl(wait, is_async, result):
    function, call, _ = make(is_async, lambda key, value: result, wait_concurrent=wait)
    with pytest.raises((TypeError, ValueError), match=r"^ttl must return"):
        call(1)
    assert len(function.cache) == 0


def test_waiting_coroutines_get_a_result_that_is_not_kept():
    runs = []

    @cached(ttl=lambda key, value: 0, wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        runs.append(object())
        return runs[-1]

    async def main():
        return await asyncio.gather(*(function(1) for _ in range(10)))

    assert run_async(main) == runs * 10 and len(runs) == 1


@both_kinds
def test_cache_set_asks_the_function(clock, is_async):
    function, call, runs = make(is_async, lambda key, value: value)
    function.cache_set(4, "x")
    assert function.cache.expires_in("x") == 4
    function.cache_set(0, "x")
    assert not function.cache_contains("x")
    with pytest.raises(TypeError, match=r"^ttl must return"):
        function.cache_set("wrong", "x")
    assert runs == [] and len(function.cache) == 0


def test_write_that_is_not_kept_keeps_the_result_of_a_run_out():
    @cached(ttl=lambda key, value: value)
    def function(x):
        function.cache_set(0, x)
        return 60

    assert function(1) == 60
    assert len(function.cache) == 0


def test_results_of_weakly_held_instances_can_be_not_kept():
    class Some:
        @cached(weak_self=True, ttl=lambda key, value: value)
        def method(self, x):
            return x

    one = Some()
    for x in [*range(-50, 0), 60]:
        assert one.method(x) == x
    assert len(Some.method.cache) == 1
    watch = weakref.ref(one)
    del one
    gc.collect()
    assert watch() is None and len(Some.method.cache) == 0


def test_function_is_not_called_where_nothing_is_stored():
    calls = []
    function, call, _ = make(False, lambda key, value: calls.append(key), maxsize=0)
    assert call(1) == 1 and calls == []


def test_parameters_and_cache_have_the_function():
    def ttl(key, value):
        return 5

    function, _, _ = make(False, ttl)
    assert function.cache_parameters()["ttl"] is ttl and function.cache.ttl is ttl
