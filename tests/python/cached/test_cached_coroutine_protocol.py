"""The coroutine protocol of a cached call: send, throw and close; and the references that the call holds."""

import asyncio
import contextlib
import functools
import gc
import sys
import threading
import warnings
import weakref

import pytest
from cached_helpers import async_identity, both_wait_modes, finish, pause, run_async
from helpers import Value, collect, count_alive, run_script, run_threads

from moka_py import cached

# The coroutine protocol.


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

    assert all(it is value for it in run_async(main))
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

    run_async(main)
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

    run_async(main)


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
    call = async_identity("first")
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
                pass  # Another thread runs the call.
            except StopIteration as stopped:
                seen.append(stopped.value)
            except RuntimeError:
                return

    for x in range(50):
        call, seen = function(x), []
        run_threads(*(functools.partial(resume, call, seen) for _ in range(4)))
        assert sorted(seen, key=str) == sorted([*range(50), "end"], key=str)


# References.


def test_call_that_is_never_awaited_warns():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async_identity(1)
        async_identity(2).close()
        finish(async_identity(3))
        collect()
    assert [(it.category, str(it.message)) for it in warned] == [
        (RuntimeWarning, "coroutine 'async_identity' was never awaited")
    ]


def test_never_awaited_warning_as_an_error_goes_to_the_unraisable_hook(monkeypatch):
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: errors.append(report.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async_identity(1)
        collect()
    assert [type(error) for error in errors] == [RuntimeWarning]


def test_finished_call_holds_no_references():
    @cached(maxsize=0)
    async def function(x, *, y):
        return None

    values = [Value(), Value()]
    watched = [weakref.ref(value) for value in values]
    call = function(values[0], y=values[1])
    del values
    assert count_alive(watched) == 2
    finish(call)
    collect()
    assert count_alive(watched) == 0


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_cycle_through_a_call_is_collected():
    @cached
    async def function(x):
        await pause()

    class Holder:
        pass

    def cyclic_call(steps):
        holder = Holder()
        holder.call = function(holder)
        for _ in range(steps):
            holder.call.send(None)
        return weakref.ref(holder), weakref.ref(holder.call)

    watched = [*cyclic_call(0), *cyclic_call(1)]
    collect()
    assert count_alive(watched) == 0


def test_collector_tracks_calls():
    argument = Value()
    call = async_identity(argument)
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
            async_identity(n).close()
        stop.set()

    def hammer():
        while not stop.is_set():
            gc.collect()

    run_threads(drop, hammer)


def stop_with_42(*args):
    raise StopIteration(42)


@both_wait_modes
@pytest.mark.parametrize("where", ["hash", "eq", "key function", "weigher", "ttl"])
def test_stop_iteration_of_user_code_is_not_taken_for_a_result(where, wait):
    # A StopIteration would look like the result of the coroutine, although the function has not run.
    class Argument:
        __hash__ = stop_with_42 if where == "hash" else lambda self: 1
        __eq__ = stop_with_42 if where == "eq" else object.__eq__

    option = {"key function": "key", "weigher": "weigher", "ttl": "ttl"}.get(where)

    @cached(wait_concurrent=wait, **({option: stop_with_42} if option else {}))
    async def function(x):
        return "a result"

    async def main():
        if where == "eq":
            await function(Argument())
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as raised:
            await function(Argument())
        assert isinstance(raised.value.__cause__, StopIteration) and raised.value.__cause__.value == 42

    run_async(main)
