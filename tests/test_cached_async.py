"""`cached` on coroutine functions: single flight, cancellation, event loops. What it shares with plain functions is in
test_cached.py."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import itertools
import sys
import threading
import weakref

import pytest

from moka_py import cached

WAIT = pytest.mark.parametrize("wait", [False, True], ids=["alone", "shared"])


def run(main):
    """Runs a coroutine function in a fresh loop and fails if the loop's exception handler was told anything."""
    told = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        result = await asyncio.wait_for(main(), 60)
        gc.collect()  # what was never awaited or retrieved is told here
        await asyncio.sleep(0)
        return result

    result = asyncio.run(watched())
    assert told == []
    return result


async def settle():
    """Lets all that can go on without the clock go on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Gate:
    """A cached function whose runs wait until `open` is set; it counts what became of them."""

    def __init__(self, **options):
        self.open = asyncio.Event()
        self.started = self.cancelled = 0
        self.cached = cached(**{"wait_concurrent": True, **options})(self.function)

    async def function(self, x):
        self.started += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled += 1
            raise
        return object()

    async def waiters(self, count, x=1):
        tasks = [asyncio.create_task(self.cached(x)) for _ in range(count)]
        await settle()
        return tasks


# What it is put on


@WAIT
def test_result_is_a_coroutine_function(wait):
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


@WAIT
def test_bare_decorator_and_values(wait):
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

    run(main)
    assert len(runs) == 8
    assert function.cache_info() == (8, 8, 128, 8)


@WAIT
def test_wrappers_of_asyncio_take_the_call(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        return [x]

    async def main():
        value = await asyncio.create_task(function(1))
        assert await asyncio.gather(function(1), function(1)) == [value, value]
        assert await asyncio.wait_for(function(1), 10) is value
        assert await asyncio.shield(function(1)) is value
        if sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(function(x)) for x in (1, 2, 2)]
            assert [task.result() for task in tasks] == [[1], [2], [2]]
            async with asyncio.timeout(10):
                assert await function(1) is value

    run(main)


def test_nothing_runs_before_the_call_is_awaited():
    runs = []

    @cached(wait_concurrent=True)
    async def function(x):
        runs.append(x)

    async def main():
        call = function(1)
        await settle()
        assert runs == []
        call.close()

    run(main)
    assert function.cache_info() == (0, 0, 128, 0)


@WAIT
@pytest.mark.parametrize("maxsize", [0, -3])
def test_maxsize_of_zero_never_caches(maxsize, wait):
    @cached(maxsize=maxsize, wait_concurrent=wait, weigher=lambda key, value: 0)
    async def function(x):
        return object()

    async def main():
        assert await function(1) is not await function(1)

    run(main)
    assert function.cache_info() == (0, 2, 0, 0)


def test_maxsize_of_zero_takes_unhashable_arguments():
    @cached(maxsize=0)
    async def function(x):
        return x

    assert asyncio.run(function([1])) == [1]


# Failures


@WAIT
def test_exception_is_not_cached_and_comes_out_as_it_is(wait):
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

    run(main)
    assert function.cache_info() == (0, 2, 128, 1)


@WAIT
def test_unhashable_argument_is_a_type_error(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        raise AssertionError("runs")

    async def main():
        with pytest.raises(TypeError, match="unhashable type"):
            await function([])

    run(main)
    assert function.cache_info() == (0, 0, 128, 0)


@WAIT
def test_weigher_error_comes_out(wait):
    error = LookupError("no scales")

    def weigh(key, value):
        raise error

    @cached(weigher=weigh, wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)

    async def main():
        outcomes = await asyncio.gather(function(1), function(1), return_exceptions=True)
        assert outcomes == [error, error]

    run(main)
    assert function.cache_info().currsize == 0


@WAIT
def test_failure_leaves_no_cycle(wait):
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
            await settle()
            assert gone() is None
        finally:
            gc.enable()

    run(watched)


@WAIT
def test_cancellation_is_not_cached(wait):
    async def main():
        gate = Gate(wait_concurrent=wait)
        (task,) = await gate.waiters(1)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough" if sys.version_info >= (3, 11) else None):
            await task
        assert gate.cancelled == 1
        assert gate.cached.cache_info().currsize == 0
        gate.open.set()
        assert await gate.cached(1) is await gate.cached(1)
        assert gate.started == 2

    run(main)


# Single flight


def test_alone_each_call_runs():
    async def main():
        gate = Gate(wait_concurrent=False)
        tasks = await gate.waiters(3)
        assert gate.started == 3
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.cached.cache_info() == (0, 3, 128, 1)

    run(main)


@pytest.mark.parametrize("maxsize", [128, None, 0])
def test_stampede_runs_once(maxsize):
    async def main():
        gate = Gate(maxsize=maxsize)
        tasks = await gate.waiters(1000)
        other = await gate.waiters(1000, x=2)
        gate.open.set()
        values = await asyncio.gather(*tasks, *other)
        assert gate.started == 2
        assert len(set(values[:1000])) == len(set(values[1000:])) == 1
        assert gate.cached.cache_info()[:2] == (1998, 2)
        assert (await gate.cached(1) is values[0]) == (maxsize != 0)

    run(main)


def test_failure_is_shared_and_not_cached():
    error = LookupError("first")
    left = [error]

    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0.01)
        if left:
            raise left.pop()
        return "fine"

    async def main():
        outcomes = await asyncio.gather(*(function(1) for _ in range(1000)), return_exceptions=True)
        assert all(outcome is error for outcome in outcomes)
        assert error.__context__ is None and error.__cause__ is None
        assert await function(1) == "fine"

    run(main)
    assert function.cache_info() == (0, 2, 128, 1)


@pytest.mark.parametrize("kind", [KeyError, ZeroDivisionError])
def test_error_of_eq_beside_a_computation_comes_out(kind):
    fails = []

    class Argument:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if fails:
                raise kind("of the argument")
            return True

    async def main():
        gate = Gate()
        (task,) = await gate.waiters(1, Argument())
        fails.append(True)
        with pytest.raises(kind, match="of the argument"):
            await gate.cached(Argument())
        await settle()
        fails.clear()
        gate.open.set()
        assert await gate.cached(Argument()) is await task
        assert gate.started == 1
        assert gate.cached.cache_info().misses == 1

    run(main)


def test_a_cancellation_inside_the_function_is_its_own_affair():
    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def main():
        tasks = [asyncio.create_task(function(1)) for _ in range(3)]
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(asyncio.CancelledError):
            await function(1)

    run(main)
    assert function.cache_info() == (0, 2, 128, 0)


@pytest.mark.parametrize("spared", [0, 1, 2, 500, 999])
def test_cancelled_waiters_do_not_touch_the_others(spared):
    async def main():
        gate = Gate()
        tasks = await gate.waiters(1000)
        for number, task in enumerate(tasks):
            if number != spared:
                task.cancel()
        await settle()
        assert [task.done() for task in tasks] == [number != spared for number in range(1000)]
        gate.open.set()
        assert await tasks[spared] is await gate.cached(1)
        assert (gate.started, gate.cancelled) == (1, 0)

    run(main)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_last_cancelled_waiter_cancels_the_computation(order, together):
    async def main():
        gate = Gate()
        tasks = await gate.waiters(3)
        for number in order:
            assert gate.cancelled == 0
            tasks[number].cancel()
            if not together:
                with contextlib.suppress(asyncio.CancelledError):
                    await tasks[number]
        # The last waiter is over only when the computation is: its cleanup was awaited.
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert (gate.started, gate.cancelled) == (1, 1)
        gate.open.set()
        await gate.cached(1)
        assert gate.started == 2
        assert gate.cached.cache_info() == (0, 2, 128, 1)

    run(main)


def test_cancelled_before_it_began():
    async def main():
        gate = Gate()
        tasks = [asyncio.create_task(gate.cached(1)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.open.set()
        await gate.cached(1)

    run(main)


def test_call_during_the_cleanup_of_a_cancelled_computation_runs_anew():
    began, cleanup = [], []

    @cached(wait_concurrent=True)
    async def function(x):
        began.append(x)
        if len(began) > 1:
            return "second"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleanup.append(x)

    async def main():
        first = asyncio.create_task(function(1))
        await settle()
        first.cancel()
        await settle()
        assert not first.done()
        assert await function(1) == "second"
        assert cleanup == []
        with pytest.raises(asyncio.CancelledError):
            await first
        assert cleanup == [1]

    run(main)


def test_computation_that_survives_its_cancellation_gives_its_value():
    @cached(wait_concurrent=True)
    async def function(x):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "at last"

    async def main():
        task = asyncio.create_task(function(1))
        await settle()
        task.cancel()
        assert await task == "at last"

    run(main)


def test_exception_out_of_a_cancelled_computation_reaches_the_last_waiter():
    @cached(wait_concurrent=True)
    async def function(x):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    async def main():
        tasks = [asyncio.create_task(function(1)) for _ in range(2)]
        await settle()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[1], LookupError)

    run(main)


def test_timeout_of_one_waiter_leaves_the_other():
    async def main():
        gate = Gate()
        patient = asyncio.create_task(gate.cached(1))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.cached(1), 0.05)
        gate.open.set()
        await patient
        assert (gate.started, gate.cancelled) == (1, 0)
        # The only waiter: its timeout ends the computation.
        gate.open.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.cached(2), 0.05)
        assert (gate.started, gate.cancelled) == (2, 1)

    run(main)


def test_waiter_cancelled_as_the_computation_ends():
    async def main():
        for fails in (False, True):
            done = asyncio.Event()

            @cached(wait_concurrent=True)
            async def function(x, fails=fails, done=done):
                await done.wait()
                if fails:
                    raise LookupError("seen by nobody")
                return object()

            task = asyncio.create_task(function(1))
            await settle()
            done.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or not fails

    run(main)


def test_closed_waiter_leaves_the_others():
    async def main():
        gate = Gate()
        (task,) = await gate.waiters(1)
        call = gate.cached(1)
        call.send(None)
        call.close()
        await settle()
        gate.open.set()
        await task
        assert gate.started == 1

    run(main)


def test_contextvars_are_those_of_the_first_caller():
    name = contextvars.ContextVar("name", default="nobody")

    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        return name.get()

    async def call(caller):
        name.set(caller)
        return await function(1)

    async def main():
        assert await asyncio.gather(*(call(caller) for caller in ("first", "second"))) == ["first", "first"]

    run(main)


@WAIT
def test_clear_during_the_computation_is_not_overwritten(wait):
    async def main():
        gate = Gate(wait_concurrent=wait)
        (old,) = await gate.waiters(1)
        gate.cached.cache_clear()
        # Who calls after the clear gets nothing from before it.
        (new,) = await gate.waiters(1)
        assert gate.started == 2
        gate.open.set()
        assert await old is not await new
        assert await gate.cached(1) is await new

    run(main)


@WAIT
def test_clear_inside_the_computation(wait):
    runs = []

    @cached(wait_concurrent=wait)
    async def function(x):
        runs.append(x)
        await asyncio.sleep(0)
        if len(runs) == 1:
            function.cache_clear()
        return len(runs)

    async def main():
        assert [await function(1) for _ in range(3)] == [1, 2, 2]

    run(main)


# Recursion


@WAIT
def test_recursion_on_other_keys(wait):
    @cached(maxsize=None, wait_concurrent=wait)
    async def fibonacci(n):
        if n < 2:
            return n
        if wait:
            return sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))
        return await fibonacci(n - 1) + await fibonacci(n - 2)

    async def main():
        return await fibonacci(60)

    assert run(main) == 1548008755920
    assert fibonacci.cache_info() == (58, 61, None, 61)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_circle_of_keys_raises(length):
    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.sleep(0)
        return await function((x + 1) % length)

    async def main():
        with pytest.raises(RuntimeError, match="waits for its own result"):
            await function(0)
        outcomes = await asyncio.gather(*map(function, range(length)), return_exceptions=True)
        assert all(isinstance(outcome, RuntimeError) for outcome in outcomes)

    run(main)


def test_circle_through_two_functions_raises():
    @cached(wait_concurrent=True)
    async def f(x):
        return await g(x)

    @cached(wait_concurrent=True)
    async def g(x):
        return await f(x)

    async def main():
        with pytest.raises(RuntimeError, match="waits for its own result"):
            await f(0)

    run(main)


def test_background_call_of_the_own_key_is_no_circle():
    calls = []

    @cached(wait_concurrent=True)
    async def function(x):
        if not calls:
            calls.append(asyncio.create_task(function(x)))
        await asyncio.sleep(0)
        return object()

    async def main():
        assert await function(1) is await calls[0]

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_share_too():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        gate = Gate()
        tasks = await gate.waiters(10)
        gate.open.set()
        assert len(set(await asyncio.gather(*tasks))) == 1
        assert gate.started == 1

        @cached(wait_concurrent=True)
        async def itself(x):
            return await itself(x)

        with pytest.raises(RuntimeError, match="waits for its own result"):
            await itself(1)

    run(main)


# Event loops


@WAIT
def test_result_serves_later_loops(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        return object()

    assert asyncio.run(function(1)) is asyncio.run(function(1))


def test_each_loop_computes_for_itself():
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

    workers = [threading.Thread(target=run, args=(main,), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "a call hangs"
    assert outcomes == ["fine"] * threads
    assert len(set(loops)) == len(loops) == threads
    assert function.cache_info() == (396, 4, 128, 1)


def test_loops_in_threads_under_load():
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
        except (LookupError, asyncio.TimeoutError):
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


def test_loop_closed_midway_leaves_nothing_behind(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Argument:
        pass

    @cached(wait_concurrent=True)
    async def function(x):
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"
    argument = Argument()
    tasks = [loop.create_task(function(argument)) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    left = [weakref.ref(thing) for thing in (argument, loop, *tasks)]
    del argument, loop, tasks
    for _ in range(3):
        gc.collect()
    assert [ref() for ref in left] == [None] * 5
    assert told == []


def test_loop_after_one_closed_midway_computes():
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
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
    waits.clear()
    # Those tasks still hang here, each in its closed loop, and hinder nobody.
    assert asyncio.run(function(1)) == "fine"
    assert not any(task.done() for task in tasks)


def test_loop_that_pauses_goes_on_with_its_flight():
    loop = asyncio.new_event_loop()
    try:
        gate = Gate()
        first = loop.create_task(gate.cached(1))
        loop.run_until_complete(asyncio.sleep(0.01))
        second = loop.create_task(gate.cached(1))
        loop.run_until_complete(asyncio.sleep(0.01))
        gate.open.set()
        assert loop.run_until_complete(first) is loop.run_until_complete(second)
        assert gate.started == 1
    finally:
        loop.close()


def test_end_of_the_loop_lets_the_cleanup_end():
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
        await settle()
        return len(tasks)

    for _ in range(5):
        cleaned.clear()
        asyncio.run(main())
        assert sorted(cleaned) == [0, 1, 2, 3, 4]


def test_the_cache_holds_results_and_never_tasks():
    async def main():
        gate = Gate()
        tasks = await gate.waiters(5)
        assert gate.cached.cache.count() == 0
        gate.open.set()
        await asyncio.gather(*tasks)
        assert type(gate.cached.cache.get(1)) is object

    run(main)
