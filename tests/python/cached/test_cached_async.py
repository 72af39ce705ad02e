"""`cached` on coroutine functions: failures, recursion, event loops.

Shared runs are in test_cached_async_single_flight.py, behaviour that plain functions share in test_cached.py.
"""

import asyncio
import functools
import gc
import inspect
import itertools
import sys
import threading
import weakref

import pytest
from cached_helpers import GatedFunction, both_wait_modes, run_async, run_ready_tasks
from helpers import assert_copies_of_exception

from moka_py import cached

# Decorated objects.


@both_wait_modes
def test_cached_coroutine_function_is_a_coroutine_function(wait):
    async def double(x: int) -> int:
        """Doubles."""
        return 2 * x

    class Doubler:
        async def __call__(self, x):
            return 2 * x

        @cached(wait_concurrent=wait)
        async def method(self, x):
            return 2 * x

    for function in (double, functools.partial(double), Doubler(), functools.partial(Doubler()), Doubler().method):
        wrapper = cached(wait_concurrent=wait)(function)
        assert inspect.iscoroutinefunction(wrapper)
        assert asyncio.run(wrapper(2)) == 4
        assert asyncio.run(wrapper(2)) == 4
        assert wrapper.cache_info() == (1, 1, 128, 1)
    assert inspect.iscoroutinefunction(Doubler.method)
    wrapper = cached(wait_concurrent=wait)(double)
    assert (wrapper.__name__, wrapper.__doc__, wrapper.__wrapped__) == ("double", "Doubles.", double)
    assert inspect.signature(wrapper) == inspect.signature(double)


@both_wait_modes
def test_coroutine_function_decorated_without_parentheses_caches(wait):
    runs = []

    async def function(*args, **kwargs):
        runs.append((args, kwargs))
        return args[0]

    function = cached(function) if not wait else cached(function, wait_concurrent=True)

    async def main():
        for value in (None, 0, "x", (1, 2)):
            for _ in range(2):
                assert await function(value) is value
                assert await function(value, k=value) is value

    run_async(main)
    assert len(runs) == 8
    assert function.cache_info() == (8, 8, 128, 8)


@both_wait_modes
def test_asyncio_wrappers_accept_the_call(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        return [x]

    async def main():
        value = await asyncio.create_task(function(1))
        assert await asyncio.gather(function(1), function(1)) == [value, value]
        assert await asyncio.wait_for(function(1), 10) is value
        assert await asyncio.shield(function(1)) is value
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(function(x)) for x in (1, 2, 2)]
        assert [task.result() for task in tasks] == [[1], [2], [2]]
        async with asyncio.timeout(10):
            assert await function(1) is value

    run_async(main)


def test_nothing_runs_before_the_call_is_awaited():
    runs = []

    @cached(wait_concurrent=True)
    async def function(x):
        runs.append(x)

    async def main():
        call = function(1)
        await run_ready_tasks()
        assert runs == []
        call.close()

    run_async(main)
    assert function.cache_info() == (0, 0, 128, 0)


@both_wait_modes
@pytest.mark.parametrize("maxsize", [0, -3])
def test_coroutine_function_with_maxsize_of_zero_keeps_no_result(maxsize, wait):
    @cached(maxsize=maxsize, wait_concurrent=wait, weigher=lambda key, value: 0)
    async def function(x):
        return object()

    async def main():
        assert await function(1) is not await function(1)

    run_async(main)
    assert function.cache_info() == (0, 2, 0, 0)


def test_maxsize_of_zero_accepts_unhashable_arguments():
    @cached(maxsize=0)
    async def function(x):
        return x

    assert asyncio.run(function([1])) == [1]


# Failures.


@both_wait_modes
def test_exception_is_raised_unchanged_and_not_cached(wait):
    error = KeyError("a")
    left = [error]

    @cached(wait_concurrent=wait)
    async def function(x):
        if left:
            raise left.pop()
        return "fine"

    async def main():
        with pytest.raises(KeyError) as caught:
            await function(1)
        assert caught.value is error
        assert error.__context__ is None and error.__cause__ is None
        assert await function(1) == "fine"

    run_async(main)
    assert function.cache_info() == (0, 2, 128, 1)


@both_wait_modes
def test_unhashable_argument_is_a_type_error(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        raise AssertionError("runs")

    async def main():
        with pytest.raises(TypeError, match="unhashable type"):
            await function([])

    run_async(main)
    assert function.cache_info() == (0, 0, 128, 0)


@both_wait_modes
def test_error_of_the_weigher_is_raised_from_a_coroutine(wait):
    error = LookupError("no scales")

    def weigh(key, value):
        raise error

    @cached(weigher=weigh, wait_concurrent=wait)
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
    assert function.cache_info().currsize == 0


@both_wait_modes
def test_exception_leaves_no_reference_cycle(wait):
    class Failure(Exception):
        pass

    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        raise Failure

    async def main():
        try:
            await function(1)
        except Failure as error:
            return weakref.ref(error)

    async def watched():
        gc.disable()
        try:
            gone = await main()
            await run_ready_tasks()
            assert gone() is None
        finally:
            gc.enable()

    run_async(watched)


@both_wait_modes
def test_cancellation_is_not_cached(wait):
    async def main():
        gate = GatedFunction(wait_concurrent=wait)
        (task,) = await gate.waiters(1)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough" if sys.version_info >= (3, 11) else None):
            await task
        assert gate.cancelled == 1
        assert gate.cached.cache_info().currsize == 0
        gate.open.set()
        assert await gate.cached(1) is await gate.cached(1)
        assert gate.started == 2

    run_async(main)


# Recursion.


@both_wait_modes
def test_function_can_call_itself_with_other_arguments(wait):
    @cached(maxsize=None, wait_concurrent=wait)
    async def fibonacci(n):
        if n < 2:
            return n
        if wait:
            return sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))
        return await fibonacci(n - 1) + await fibonacci(n - 2)

    async def main():
        return await fibonacci(60)

    assert run_async(main) == 1548008755920
    assert fibonacci.cache_info() == (58, 61, None, 61)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_coroutines_that_wait_for_each_other_raise(length):
    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        return await function((x + 1) % length)

    async def main():
        with pytest.raises(RuntimeError, match=r"very key, .*: it would wait for itself"):
            await function(0)
        outcomes = await asyncio.gather(*map(function, range(length)), return_exceptions=True)
        assert all(isinstance(outcome, RuntimeError) for outcome in outcomes)

    run_async(main)


def test_two_functions_that_wait_for_each_other_raise():
    @cached(wait_concurrent=True)
    async def f(x):
        return await g(x)

    @cached(wait_concurrent=True)
    async def g(x):
        return await f(x)

    async def main():
        with pytest.raises(RuntimeError, match=r"very key, .*: it would wait for itself"):
            await f(0)

    run_async(main)


def test_background_call_with_the_same_key_is_not_a_deadlock():
    calls = []

    @cached(wait_concurrent=True)
    async def function(x):
        if not calls:
            calls.append(asyncio.create_task(function(x)))
        await asyncio.sleep(0)
        return object()

    async def main():
        assert await function(1) is await calls[0]

    run_async(main)


def test_eager_tasks_share_a_run():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        gate = GatedFunction()
        tasks = await gate.waiters(10)
        gate.open.set()
        assert len(set(await asyncio.gather(*tasks))) == 1
        assert gate.started == 1

        @cached(wait_concurrent=True)
        async def itself(x):
            return await itself(x)

        with pytest.raises(RuntimeError, match=r"very key, .*: it would wait for itself"):
            await itself(1)

    run_async(main)


# Event loops.


@both_wait_modes
def test_result_is_a_hit_in_later_event_loops(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        return object()

    assert asyncio.run(function(1)) is asyncio.run(function(1))


def test_concurrent_event_loops_do_not_share_a_run():
    threads = 4
    barrier = threading.Barrier(threads)
    loops, outcomes = [], []

    @cached(wait_concurrent=True)
    async def function(x):
        loops.append(asyncio.get_running_loop())
        barrier.wait(30)
        await asyncio.sleep(0.01)
        return asyncio.get_running_loop()

    async def main():
        values = await asyncio.gather(*(function(1) for _ in range(100)))
        assert set(values) == {asyncio.get_running_loop()}
        outcomes.append("fine")

    workers = [threading.Thread(target=run_async, args=(main,), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a call hangs"
    assert outcomes == ["fine"] * threads
    assert len(set(loops)) == len(loops) == threads
    assert function.cache_info() == (396, 4, 128, 1)


def test_event_loops_in_threads_work_under_load():
    runs = itertools.count()

    @cached(maxsize=16, wait_concurrent=True)
    async def function(x):
        next(runs)
        await asyncio.sleep(0)
        if x % 7 == 0:
            raise LookupError(x)
        return x

    outcomes = []

    async def call(x):
        try:
            return await asyncio.wait_for(function(x), 0.0005 if x % 5 == 0 else 30)
        except (TimeoutError, LookupError):
            return x

    async def main():
        for start in range(30):
            numbers = [(start + step) % 40 for step in range(40)] * 2
            assert await asyncio.gather(*map(call, numbers)) == numbers
            if start % 10 == 0:
                function.cache_clear()
        outcomes.append("fine")

    workers = [threading.Thread(target=asyncio.run, args=(main(),), daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a call hangs"
    assert outcomes == ["fine"] * 4


def test_event_loop_closed_during_a_run_leaves_nothing_behind(monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)

    class Argument:
        pass

    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"
    argument = Argument()
    tasks = [loop.create_task(function(argument)) for _ in range(3)]
    loop.run_until_complete(run_ready_tasks())
    loop.close()
    references = [weakref.ref(thing) for thing in (argument, loop, *tasks)]
    del argument, loop, tasks
    for _ in range(3):
        gc.collect()
    assert [reference() for reference in references] == [None] * 5
    assert reports == []


def test_new_event_loop_computes_after_one_was_closed_during_a_run():
    waits = [True]

    @cached(wait_concurrent=True)
    async def function(x):
        if waits:
            await asyncio.get_running_loop().create_future()
        return "fine"

    loops = [asyncio.new_event_loop() for _ in range(3)]
    tasks = []
    for loop in loops:
        loop.set_exception_handler(lambda loop, context: None)
        tasks.append(loop.create_task(function(1)))
        loop.run_until_complete(run_ready_tasks())
        loop.close()
    waits.clear()
    # The tasks of the closed event loops never end, and must not block the new call.
    assert asyncio.run(function(1)) == "fine"
    assert not any(task.done() for task in tasks)


def test_event_loop_that_pauses_continues_its_run():
    loop = asyncio.new_event_loop()
    try:
        gate = GatedFunction()
        first = loop.create_task(gate.cached(1))
        loop.run_until_complete(run_ready_tasks())
        second = loop.create_task(gate.cached(1))
        loop.run_until_complete(run_ready_tasks())
        gate.open.set()
        assert loop.run_until_complete(first) is loop.run_until_complete(second)
        assert gate.started == 1
    finally:
        loop.close()


def test_asyncio_run_waits_for_the_cleanup_of_a_cancelled_run():
    cleaned = []

    @cached(wait_concurrent=True)
    async def function(x):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(x)

    async def main():
        tasks = [asyncio.create_task(function(x % 5)) for x in range(20)]
        await run_ready_tasks()
        return len(tasks)

    for _ in range(5):
        cleaned.clear()
        asyncio.run(main())
        assert sorted(cleaned) == [0, 1, 2, 3, 4]


def test_cache_holds_results_and_never_tasks():
    async def main():
        gate = GatedFunction()
        tasks = await gate.waiters(5)
        assert gate.cached.cache.count() == 0
        gate.open.set()
        await asyncio.gather(*tasks)
        assert type(gate.cached.cache.get(1)) is object

    run_async(main)
