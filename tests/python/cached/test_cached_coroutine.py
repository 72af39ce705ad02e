"""The call of a cached coroutine function before, while and after it is awaited: a coroutine of its own kind."""

import asyncio
import collections.abc
import contextlib
import copy
import functools
import gc
import inspect
import io
import pickle
import sys
import threading
import types
import warnings
import weakref

import pytest
from cached_helpers import WAIT, run
from helpers import Value, alive, collect, run_script, run_threads

from moka_py import cached


@types.coroutine
def pause(value=None):
    """Yields a value, and returns what is sent."""
    return (yield value)


@cached
async def by_name(x):
    return x


def finish(call):
    """What a call returns that waits for nothing."""
    with pytest.raises(StopIteration) as stopped:
        call.send(None)
    return stopped.value.value


# What it is taken for


@WAIT
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

    run(main)


@WAIT
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

    run(main)
    assert asyncio.run(function(1)) == 1


def test_call_can_be_awaited_from_an_await_method():
    class Later:
        def __await__(self):
            return (yield from by_name("later").__await__())

    async def main():
        return await Later(), await Later()

    assert run(main) == ("later", "later")


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


def told(call):
    """What can be asked of a coroutine."""
    state = inspect.getcoroutinestate(call)
    assert call.cr_state == state if hasattr(call, "cr_state") else True
    return state, (call.cr_running, call.cr_suspended), call.cr_frame is None, call.cr_origin, call.cr_code


@pytest.mark.parametrize("decorator", [lambda it: it, cached], ids=["bare", "cached"])
def test_inspect_reports_the_state_of_a_call_as_of_a_coroutine(decorator):
    during = []

    async def function(x):
        during.append(told(calls[-1]))
        return await pause(x)

    def end(call):
        with pytest.raises(StopIteration):
            call.send(None)

    code, calls = function.__code__, []
    function = decorator(function)
    for ending in (end, lambda call: call.close()):
        calls.append(function(len(calls)))
        assert told(calls[-1]) == ("CORO_CREATED", (False, False), False, None, code)
        calls[-1].send(None)
        assert during.pop() == ("CORO_RUNNING", (True, False), False, None, code)
        assert told(calls[-1]) == ("CORO_SUSPENDED", (False, True), False, None, code)
        assert inspect.getcoroutinelocals(calls[-1])["x"] == len(calls) - 1
        ending(calls[-1])
        assert told(calls[-1]) == ("CORO_CLOSED", (False, False), True, None, code)
        assert inspect.getcoroutinelocals(calls[-1]) == {}
        assert calls[-1].cr_await is None
    fresh = function(5)
    fresh.close()
    assert told(fresh) == ("CORO_CLOSED", (False, False), True, None, code)


def test_inspect_reports_the_state_of_a_hit_and_of_a_call_during_its_lookup():
    during = []

    def make_key(x):
        during.extend(told(call)[:3] for call in calls)
        return x

    @cached(key=make_key)
    async def function(x):
        return x

    calls = []
    assert run(lambda: function(1)) == 1
    calls.append(function(1))
    with pytest.raises(StopIteration, match="1"):
        calls[0].send(None)
    assert during == [("CORO_RUNNING", (True, False), False)]
    assert told(calls[0])[:3] == ("CORO_CLOSED", (False, False), True)


class Awaited:
    async def __call__(self, x):
        return x


CALLABLES = {
    "partial": (functools.partial(by_name, "later"), by_name.__wrapped__.__code__),
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

    run(main)


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

    run(main)


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

    run(main)


def test_pickle_and_copy_return_the_same_coroutine_function():
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert copy.copy(by_name) is by_name
    assert copy.deepcopy(by_name) is by_name


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

    run(main)
    assert function.cache_info()[:2] == (1, 2)


@WAIT
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

    run(main)


# Its protocol


def test_send_throw_and_close_reach_the_function():
    steps = []

    @cached
    async def function(x):
        steps.append(await pause("first"))
        try:
            await pause("second")
        except KeyError as error:
            steps.append(error)
        try:
            await pause("third")
        finally:
            steps.append("closed")

    call = function(1)
    assert call.send(None) == "first"
    assert call.send("sent") == "second"
    error = KeyError("thrown")
    assert call.throw(error) == "third"
    assert call.close() is None
    assert steps == ["sent", error, "closed"]
    assert not function.cache_contains(1)


def test_value_returned_after_a_throw_is_cached():
    @cached
    async def function(x):
        try:
            await pause()
        except KeyError:
            return (x,)

    call = function(1)
    call.send(None)
    with pytest.raises(StopIteration) as stopped:
        call.throw(KeyError)
    assert stopped.value.value == (1,)
    assert finish(function(1)) is stopped.value.value


@pytest.mark.parametrize("value", [(1, 2), (), StopIteration(3), KeyError("x"), None], ids=repr)
def test_any_value_is_returned_unchanged(value):
    @cached
    async def function():
        return value

    async def main():
        return await function(), await function()

    assert all(it is value for it in run(main))
    assert finish(function()) is value


def test_call_can_be_awaited_only_once():
    @cached
    async def function(x):
        return x

    async def main():
        for _ in range(2):
            call = function(1)
            await call
            with pytest.raises(RuntimeError, match="already awaited"):
                await call
            with pytest.raises(RuntimeError, match="already awaited"):
                call.throw(KeyError)
            assert call.close() is None
        failed = function([])
        with pytest.raises(TypeError):
            await failed
        with pytest.raises(RuntimeError, match="already awaited"):
            await failed

    run(main)
    assert function.cache_info()[:2] == (1, 1)


def test_second_await_of_a_suspended_call_is_refused():
    async def main():
        opened = asyncio.Event()

        @cached
        async def function():
            await opened.wait()
            return 7

        call = function()

        async def wait():
            return await call

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="awaited already"):
            await call
        opened.set()
        assert await task == 7

    run(main)


def test_running_call_cannot_be_resumed():
    calls = []

    @cached
    async def function(x):
        for enter in (
            calls[0].close,
            functools.partial(calls[0].send, None),
            functools.partial(calls[0].throw, KeyError),
        ):
            with pytest.raises(ValueError, match="already executing"):
                enter()
        assert calls[0].cr_running
        return x

    calls.append(function(1))
    assert finish(calls[0]) == 1


def test_first_value_sent_must_be_none():
    call = by_name("first")
    with pytest.raises(TypeError, match="just-started"):
        call.send(1)
    assert finish(call) == "first"


def test_throw_before_the_first_step_ends_the_call():
    ran = []

    @cached
    async def function():
        ran.append(1)

    call = function()
    with pytest.raises(KeyError):
        call.throw(KeyError("early"))
    with pytest.raises(RuntimeError, match="already awaited"):
        call.send(None)
    assert ran == []
    assert function.cache_info()[:2] == (0, 0)


@pytest.mark.parametrize("arguments", [(), (1,), (int,), (KeyError, 1, 2, 3, 4)], ids=repr)
def test_throw_of_an_object_that_is_not_an_exception_is_a_type_error(arguments):
    @cached
    async def function():
        await pause()

    call = function()
    call.send(None)
    with pytest.raises(TypeError):
        call.throw(*arguments)
    call.close()


def test_function_that_ignores_close_can_be_closed_again():
    @cached
    async def function():
        with contextlib.suppress(GeneratorExit):
            await pause()
        await pause()

    call = function()
    call.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        call.close()
    assert call.close() is None


def test_error_during_close_is_raised():
    @cached
    async def function():
        try:
            await pause()
        finally:
            raise KeyError("on close")

    call = function()
    call.send(None)
    with pytest.raises(KeyError, match="on close"):
        call.close()
    assert call.close() is None


def test_threads_can_take_turns_resuming_a_call():
    @cached
    async def function(x):
        for step in range(50):
            await pause(step)
        return "end"

    def resume(call, seen):
        while True:
            try:
                seen.append(call.send(None))
            except ValueError:
                pass  # another has the turn
            except StopIteration as stopped:
                seen.append(stopped.value)
            except RuntimeError:
                return

    for x in range(50):
        call, seen = function(x), []
        run_threads(*(functools.partial(resume, call, seen) for _ in range(4)))
        assert sorted(seen, key=str) == sorted([*range(50), "end"], key=str)


# What it holds


def test_call_that_is_never_awaited_warns():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        by_name(1)
        by_name(2).close()
        finish(by_name(3))
        collect()
    assert [(it.category, str(it.message)) for it in warned] == [
        (RuntimeWarning, "coroutine 'by_name' was never awaited")
    ]


def test_never_awaited_warning_as_an_error_goes_to_the_unraisable_hook(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told_of: told.append(told_of.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_name(1)
        collect()
    assert [type(error) for error in told] == [RuntimeWarning]


def test_finished_call_holds_no_references():
    @cached(maxsize=0)
    async def function(x, *, y):
        return None

    values = [Value(), Value()]
    watched = [weakref.ref(value) for value in values]
    call = function(values[0], y=values[1])
    del values
    assert alive(watched) == 2
    finish(call)
    collect()
    assert alive(watched) == 0


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_cycle_through_a_call_is_collected():
    @cached
    async def function(x):
        await pause()

    class Holder:
        pass

    def circle(steps):
        holder = Holder()
        holder.call = function(holder)
        for _ in range(steps):
            holder.call.send(None)
        return weakref.ref(holder), weakref.ref(holder.call)

    watched = [*circle(0), *circle(1)]
    collect()
    assert alive(watched) == 0


def test_collector_tracks_calls():
    argument = Value()
    call = by_name(argument)
    assert argument in gc.get_referents(call)
    call.close()
    assert argument not in gc.get_referents(call)


def test_threads_with_their_own_event_loops_can_share_a_function():
    @cached(maxsize=50)
    async def function(x):
        await asyncio.sleep(0)
        return -x

    async def work(seed):
        for n in range(300):
            x = (n * seed) % 80
            assert await function(x) == -x

    def target(seed):
        asyncio.run(work(seed))

    run_threads(*(functools.partial(target, seed) for seed in (3, 7, 11, 13)))
    hits, misses, _, size = function.cache_info()
    assert hits + misses == 4 * 300
    assert size <= 50


def test_interpreter_exits_with_calls_in_every_state():
    run_script(
        """
        import asyncio, sys
        from moka_py import cached

        @cached
        async def function(x):
            await asyncio.sleep(x)

        fresh = function(1)
        paused = function(0)
        paused.send(None)
        ended = function(2)
        ended.close()
        keep = sys.modules["keep"] = [fresh, paused, ended]
        """
    )


def test_threads_can_drop_unawaited_calls_beside_the_collector():
    stop = threading.Event()

    def drop():
        for n in range(2000):
            by_name(n).close()
        stop.set()

    def hammer():
        while not stop.is_set():
            gc.collect()

    run_threads(drop, hammer)


def stop_with_42(*args):
    raise StopIteration(42)


@WAIT
@pytest.mark.parametrize("where", ["hash", "eq", "key function", "weigher"])
def test_stop_iteration_of_user_code_is_not_taken_for_a_result(where, wait):
    # Who awaits took it for the value that a coroutine returns, and the function had not run.
    class Argument:
        __hash__ = stop_with_42 if where == "hash" else lambda self: 1
        __eq__ = stop_with_42 if where == "eq" else object.__eq__

    option = {"key function": "key", "weigher": "weigher"}.get(where)

    @cached(wait_concurrent=wait, **({option: stop_with_42} if option else {}))
    async def function(x):
        return "a result"

    async def main():
        if where == "eq":
            await function(Argument())
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as raised:
            await function(Argument())
        assert isinstance(raised.value.__cause__, StopIteration) and raised.value.__cause__.value == 42

    run(main)
