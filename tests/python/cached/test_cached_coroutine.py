"""The call of a cached coroutine function, seen as a coroutine object before, during and after it is awaited."""

import asyncio
import collections.abc
import copy
import functools
import inspect
import io
import pickle

import pytest
from cached_helpers import async_identity, both_wait_modes, pause, run_async

from moka_py import cached


@both_wait_modes
def test_hits_and_misses_are_coroutines(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        return x

    async def main():
        for _ in range(2):
            call = function(1)
            assert isinstance(call, collections.abc.Coroutine)
            assert inspect.isawaitable(call)
            assert asyncio.iscoroutine(call)
            assert await call == 1

    run_async(main)


@both_wait_modes
def test_hits_and_misses_are_run_as_tasks_are(wait):
    @cached(wait_concurrent=wait)
    async def function(x):
        await asyncio.sleep(0)
        return x

    async def main():
        for x in (1, 1, 2):
            assert await asyncio.create_task(function(x), name="one") == x
            assert await asyncio.gather(function(x), function(x)) == [x, x]
            assert await asyncio.wait_for(function(x), 30) == x
            assert await asyncio.shield(function(x)) == x
            assert await asyncio.ensure_future(function(x)) == x
            async with asyncio.TaskGroup() as group:
                task = group.create_task(function(x))
            assert task.result() == x
            async with asyncio.timeout(30):
                assert await function(x) == x

    run_async(main)
    assert asyncio.run(function(1)) == 1


def test_call_can_be_awaited_from_an_await_method():
    class Later:
        def __await__(self):
            return (yield from async_identity("later").__await__())

    async def main():
        return await Later(), await Later()

    assert run_async(main) == ("later", "later")


def test_call_shows_its_name_and_the_point_where_it_waits():
    @cached
    async def function(x):
        return await pause(x)

    call = function("outside")
    assert (call.__name__, call.__qualname__) == (function.__name__, function.__qualname__)
    assert function.__qualname__ in repr(call)
    assert call.cr_await is None
    assert call.cr_frame.f_code is call.cr_code is function.__wrapped__.__code__
    assert (call.cr_running, call.cr_suspended) == (False, False)
    assert call.send(None) == "outside"
    assert (call.cr_running, call.cr_suspended) == (False, True)
    assert call.cr_await.gi_code is pause.__code__
    assert call.cr_frame.f_code is call.cr_code is function.__wrapped__.__code__
    call.close()
    assert (call.cr_running, call.cr_suspended, call.cr_frame) == (False, False, None)


def observed_state(call):
    """Return all that can be observed of a coroutine's state."""
    state = inspect.getcoroutinestate(call)
    assert call.cr_state == state if hasattr(call, "cr_state") else True
    return state, (call.cr_running, call.cr_suspended), call.cr_frame is None, call.cr_origin, call.cr_code


@pytest.mark.parametrize("decorator", [lambda it: it, cached], ids=["bare", "cached"])
def test_inspect_reports_the_state_of_a_call_as_of_a_coroutine(decorator):
    during = []

    async def function(x):
        during.append(observed_state(calls[-1]))
        return await pause(x)

    def end(call):
        with pytest.raises(StopIteration):
            call.send(None)

    code, calls = function.__code__, []
    function = decorator(function)
    for ending in (end, lambda call: call.close()):
        calls.append(function(len(calls)))
        assert observed_state(calls[-1]) == ("CORO_CREATED", (False, False), False, None, code)
        calls[-1].send(None)
        assert during.pop() == ("CORO_RUNNING", (True, False), False, None, code)
        assert observed_state(calls[-1]) == ("CORO_SUSPENDED", (False, True), False, None, code)
        assert inspect.getcoroutinelocals(calls[-1])["x"] == len(calls) - 1
        ending(calls[-1])
        assert observed_state(calls[-1]) == ("CORO_CLOSED", (False, False), True, None, code)
        assert inspect.getcoroutinelocals(calls[-1]) == {}
        assert calls[-1].cr_await is None
    fresh = function(5)
    fresh.close()
    assert observed_state(fresh) == ("CORO_CLOSED", (False, False), True, None, code)


def test_inspect_reports_the_state_of_a_hit_and_of_a_call_during_its_lookup():
    during = []

    def make_key(x):
        during.extend(observed_state(call)[:3] for call in calls)
        return x

    @cached(key=make_key)
    async def function(x):
        return x

    calls = []
    assert run_async(lambda: function(1)) == 1
    calls.append(function(1))
    with pytest.raises(StopIteration, match="1"):
        calls[0].send(None)
    assert during == [("CORO_RUNNING", (True, False), False)]
    assert observed_state(calls[0])[:3] == ("CORO_CLOSED", (False, False), True)


class Awaited:
    async def __call__(self, x):
        return x


CALLABLES = {
    "partial": (functools.partial(async_identity, "later"), async_identity.__wrapped__.__code__),
    "callable object": (Awaited(), Awaited.__call__.__code__),
    "bound method": (Awaited().__call__, Awaited.__call__.__code__),
}


@pytest.mark.parametrize(("function", "code"), CALLABLES.values(), ids=CALLABLES)
def test_code_of_a_call_is_that_of_the_wrapped_function(function, code):
    call = cached(function)(*() if isinstance(function, functools.partial) else (1,))
    assert call.cr_frame.f_code is call.cr_code is code
    assert inspect.getcoroutinestate(call) == "CORO_CREATED"
    call.close()


def test_call_of_a_callable_without_code_has_a_frame():
    class Odd:
        __call__ = len

    call = cached(inspect.markcoroutinefunction(Odd()))(())
    assert inspect.getcoroutinestate(call) == "CORO_CREATED"
    assert call.cr_frame.f_code == call.cr_code
    call.close()


def test_task_that_has_not_begun_has_a_stack():
    @cached
    async def function():
        return 1

    async def main():
        task = asyncio.create_task(function())
        assert [frame.f_code for frame in task.get_stack()] == [function.__wrapped__.__code__]
        file = io.StringIO()
        task.print_stack(file=file)
        assert "function" in file.getvalue() and __file__ in file.getvalue()
        assert __file__ in repr(task)
        assert await task == 1
        assert task.get_stack() == []

    run_async(main)


@pytest.mark.parametrize("decorator", [lambda it: it, cached], ids=["bare", "cached"])
@pytest.mark.skipif(not hasattr(asyncio, "capture_call_graph"), reason="since CPython 3.14")
def test_call_graph_shows_each_function_once(decorator):
    @decorator
    async def inner(x):
        await asyncio.sleep(60)

    @decorator
    async def outer(x):
        await inner(x)

    async def main():
        task = asyncio.create_task(outer(1))
        await asyncio.sleep(0)
        names = [entry.frame.f_code.co_name for entry in asyncio.capture_call_graph(task).call_stack]
        assert [name for name in names if name != "sleep"] == ["inner", "outer"]
        assert "outer" in asyncio.format_call_graph(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(main)


def test_stack_of_a_task_shows_the_function():
    @cached
    async def function():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(function())
        await asyncio.sleep(0)
        assert [frame.f_code for frame in task.get_stack()] == [function.__wrapped__.__code__]
        assert function.__qualname__ in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(main)


def test_pickle_and_copy_return_the_same_coroutine_function():
    assert pickle.loads(pickle.dumps(async_identity)) is async_identity
    assert copy.copy(async_identity) is async_identity
    assert copy.deepcopy(async_identity) is async_identity


def test_function_can_return_another_awaitable():
    class Ready:
        def __await__(self):
            return (yield from asyncio.sleep(0, "ready").__await__())

    @cached
    @inspect.markcoroutinefunction
    def function(x):
        return Ready() if x else 7

    async def main():
        assert [await function(1), await function(1)] == ["ready", "ready"]
        with pytest.raises(TypeError, match="int"):
            await function(0)

    run_async(main)
    assert function.cache_info()[:2] == (1, 2)


@both_wait_modes
def test_call_keeps_the_arguments_it_was_made_with(wait):
    @cached(wait_concurrent=wait, maxsize=None)
    async def function(*args, **kwargs):
        return args, kwargs

    async def main():
        for count in (0, 1, 3, 4, 5, 9, 40):
            args = tuple(range(count))
            for kwargs in ({}, {"a": 1}, {f"name{n}": n for n in range(count)}):
                for _ in range(2):
                    assert await function(*args, **kwargs) == (args, kwargs)

    run_async(main)
