"""`stats()` of a cached function's cache: its counts are those of `cache_info`, and runs count as loads."""

import asyncio
import gc
import inspect
import time

import pytest
from cached_helpers import both_wait_modes, run_ready_tasks
from helpers import MAX_CLOCK_SKEW, Background, Gate, run_threads

from moka_py import Moka, cached


def check_agreement(function):
    info, stats = function.cache_info(), function.cache.stats()
    assert (info.hits, info.misses) == (stats.hits, stats.misses)
    return stats


def call_all(function, calls):
    """Call a function, or await a coroutine function, with each tuple of arguments."""
    if not inspect.iscoroutinefunction(function):
        return [function(*args) for args in calls]

    async def main():
        return [await function(*args) for args in calls]

    return asyncio.run(main())


def sync(*args):
    return args


async def later(*args):
    await asyncio.sleep(0)
    return args


either = pytest.mark.parametrize("function", [sync, later])

WAYS = {
    "plain": {},
    "lru": {"policy": "lru"},
    "typed": {"typed": True},
    "own key": {"key": lambda *args: args},
    "shared": {"wait_concurrent": True},
    "weigher": {"weigher": lambda key, value: 1},
    "ttl": {"ttl": 1000},
    "ttl function": {"ttl": lambda key, value: 1000},
}


@either
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_stats_count_each_call_once(function, options):
    function = cached(**options)(function)
    calls = [(), (1,), ("a",), (1, 2), ((1, 2),), (1.5,)]
    call_all(function, calls + calls + calls)
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (12, 6, 6, 0)
    assert (stats.inserts, stats.removals, stats.count) == (6, 0, 6)
    assert stats.load_seconds > 0
    function.cache_invalidate(1)
    assert function.cache.stats().removals == 1


@both_wait_modes
@either
def test_stats_count_calls_whose_results_are_not_kept(function, wait):
    function = cached(maxsize=0, wait_concurrent=wait)(function)
    call_all(function, [(1,), (1,)])
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads, stats.count) == (0, 2, 2, 0)


def test_results_dropped_with_their_instance_are_removals():
    class Some:
        @cached(weak_self=True)
        def method(self, x):
            return x

    one = Some()
    for x in (1, 1, 2):
        one.method(x)
    stats = check_agreement(Some.method)
    assert (stats.hits, stats.misses, stats.loads, stats.inserts, stats.count) == (1, 2, 2, 2, 2)
    del one
    gc.collect()
    stats = check_agreement(Some.method)
    assert (stats.removals, stats.count, stats.inserts) == (2, 0, 2)


@both_wait_modes
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_runs_that_raise_are_failed_loads(wait, is_async):
    def fail(x):
        time.sleep(0.01)
        raise ZeroDivisionError

    async def fail_later(x):
        fail(x)

    function = cached(wait_concurrent=wait)(fail_later if is_async else fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call_all(function, [(1,)])
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures, stats.inserts) == (0, 2, 2, 2, 0)
    assert stats.load_seconds >= 0.02 - MAX_CLOCK_SKEW


@both_wait_modes
def test_call_with_wrong_arguments_is_a_failed_load(wait):
    @cached(wait_concurrent=wait)
    def function(x):
        return x

    @cached(wait_concurrent=wait)
    async def coroutine(x):
        return x

    for each in (function, coroutine):
        with pytest.raises(TypeError):
            call_all(each, [(1, 2)])
        stats = check_agreement(each)
        assert (stats.misses, stats.loads, stats.load_failures) == (1, 1, 1)


def test_cache_clear_and_reset_stats_zero_the_counts():
    function = cached(sync)
    call_all(function, [(1,), (1,), (2,)])
    function.cache.reset_stats()
    assert check_agreement(function) == (0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0.0, 2, 2, 0)
    call_all(function, [(1,), (3,)])
    function.cache_clear()
    assert check_agreement(function) == Moka(1).stats()


def test_call_that_shares_a_run_is_a_hit():
    gate = Gate()

    @cached(wait_concurrent=True)
    def function(x):
        gate.stop_here()
        return "value"

    with Background(lambda: function(1)) as leader:
        gate.wait_until_reached()
        waiters = [Background(lambda: function(1)) for _ in range(4)]
        for waiter in waiters:
            waiter.__enter__()
        time.sleep(0.05)
        gate.open()
        for waiter in waiters:
            waiter.__exit__(None, None, None)
    assert [thread.result for thread in (leader, *waiters)] == ["value"] * 5
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads) == (4, 1, 1)


def test_call_that_shares_the_run_of_a_coroutine_function_is_a_hit():
    runs = []

    @cached(wait_concurrent=True)
    async def function(x):
        runs.append(x)
        await run_ready_tasks()

    async def main():
        await asyncio.gather(*(function(1) for _ in range(5)))

    asyncio.run(main())
    assert runs == [1]
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads) == (4, 1, 1)


@both_wait_modes
def test_cancelled_run_is_a_failed_load(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(function(1))
        await run_ready_tasks()
        assert function.cache.stats().loads == 0
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    stats = check_agreement(function)
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (0, 1, 1, 1)


class Pause:
    def __await__(self):
        yield "paused"


@pytest.mark.parametrize("end", ["close", "throw", "drop"])
def test_coroutine_that_is_closed_early_is_a_failed_load(end):
    @cached
    async def function(x):
        await Pause()

    coroutine = function(1)
    assert coroutine.send(None) == "paused"
    assert (function.cache.stats().misses, function.cache.stats().loads) == (1, 0)
    if end == "close":
        coroutine.close()
    elif end == "throw":
        with pytest.raises(ZeroDivisionError):
            coroutine.throw(ZeroDivisionError())
    del coroutine
    gc.collect()
    stats = check_agreement(function)
    assert (stats.misses, stats.loads, stats.load_failures) == (1, 1, 1)


def test_coroutine_that_never_ran_is_not_a_load():
    function = cached(later)
    function(1).close()
    with pytest.raises(ZeroDivisionError):
        function(1).throw(ZeroDivisionError())
    assert check_agreement(function) == Moka(1).stats()


def test_nested_run_is_counted():
    @cached(maxsize=None)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    fibonacci(60)
    stats = check_agreement(fibonacci)
    assert (stats.hits, stats.misses, stats.loads, stats.inserts) == (58, 61, 61, 61)


def test_stats_of_cached_calls_by_many_threads_add_up(fast_switches):
    function = cached(maxsize=None)(sync)

    def work():
        for number in range(2000):
            function(number % 100)

    run_threads(*[work] * 8)
    stats = check_agreement(function)
    assert stats.hits + stats.misses == 16_000
    assert stats.misses == stats.loads == stats.inserts + stats.replacements
