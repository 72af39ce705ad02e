"""`aget_with`: hits, results, wrong arguments, and `get_with` of a coroutine."""

import asyncio
import gc
import inspect
import types
import warnings
import weakref

import pytest
from cached_helpers import GatedInitializer, finish, pause, run_async, run_ready_tasks
from helpers import CallbackKey, Value, run_script

from moka_py import Moka, cached
from moka_py.testing import ManualClock


async def value():
    return "value"


async def unexpected():
    raise AssertionError("the key has a value")


class Awaitable:
    """An awaitable that is not a coroutine."""

    def __init__(self, result):
        self.result = result

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.result


# Hits and results.


def test_hit_does_not_suspend():
    cache = Moka(10)
    cache.set("key", 1)
    assert finish(cache.aget_with("key", unexpected)) == 1
    assert cache.stats().hits == 1


def test_hit_of_a_key_with_a_hash_and_eq_of_its_own_does_not_suspend():
    cache = Moka(10)
    cache.set(CallbackKey("key"), 1)
    assert finish(cache.aget_with(CallbackKey("key"), unexpected)) == 1


def test_miss_computes_the_value_and_keeps_it():
    cache = Moka(10)

    async def main():
        assert await cache.aget_with("key", value) == "value"
        assert cache["key"] == "value"
        assert await cache.aget_with("key", unexpected) == "value"

    run_async(main)


def test_nothing_runs_before_it_is_awaited():
    cache = Moka(10)
    runs = []

    async def main():
        call = cache.aget_with("key", lambda: runs.append("ran") or value())
        await run_ready_tasks()
        assert runs == [] and cache.stats().misses == 0
        assert await call == "value"
        assert runs == ["ran"] and cache.stats().misses == 1

    run_async(main)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Awaitable("value"),
        lambda: asyncio.ensure_future(value()),
        lambda: Moka(10).aget_with("inner", value),
        types.coroutine(lambda: (yield from asyncio.sleep(0, "value").__await__())),
    ],
    ids=["object", "task", "coroutine of a cache", "generator"],
)
def test_initializer_may_return_any_awaitable(make):
    async def main():
        assert await Moka(10).aget_with("key", make) == "value"

    run_async(main)


def test_arguments_may_be_named():
    cache = Moka(10)

    async def main():
        assert await cache.aget_with(initializer=value, key="key", tti=5, ttl=9) == "value"
        assert 0 < cache.expires_in("key") <= 5

    run_async(main)


def test_ttl_and_tti_are_those_of_the_new_entry():
    clock = ManualClock()

    async def main():
        with clock:
            cache = Moka(10, ttl=100)
        await cache.aget_with("ttl", value, 10)
        await cache.aget_with("tti", value, None, 20)
        await cache.aget_with("hit", value)
        await cache.aget_with("hit", value, ttl=1)
        assert [cache.expires_in(key) for key in ("ttl", "tti", "hit")] == [10, 20, 100]
        clock.advance(10)
        assert set(cache) == {"tti", "hit"}

    run_async(main)


def test_subclass_may_override_other_methods():
    class Refusing(Moka):
        def get(self, *_):
            raise AssertionError("not called")

        peek = get_with = set = __getitem__ = __setitem__ = get

    cache = Refusing(10)

    async def main():
        assert await cache.aget_with("key", value) == await cache.aget_with("key", unexpected) == "value"

    run_async(main)


def test_coroutine_has_the_name_of_the_method():
    call = Moka(10).aget_with("key", value)
    assert (call.__name__, call.__qualname__) == ("aget_with", "Moka.aget_with")
    assert inspect.isawaitable(call) and asyncio.iscoroutine(call)
    assert inspect.getcoroutinestate(call) == "CORO_CREATED"
    assert "Moka.aget_with" in repr(call)
    assert call.cr_code.co_name == "aget_with"
    call.close()
    assert (call.__name__, call.__qualname__, call.cr_frame) == ("aget_with", "Moka.aget_with", None)


def test_coroutine_that_is_never_awaited_warns():
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Moka.aget_with' was never awaited"):
        Moka(10).aget_with("key", value)
        gc.collect()


# The collector.


def test_cycle_through_a_load_is_collected():
    class Holder(Value):
        pass

    async def main():
        gate = GatedInitializer()
        tasks = await gate.waiters(2, key := Holder())
        gate.open.set()
        await asyncio.gather(*tasks)
        key.held = [gate.cache, tasks]
        return weakref.ref(key)

    reference = run_async(main)
    gc.collect()
    assert reference() is None


def test_call_that_holds_its_cache_is_collected():
    cache = Moka(10)
    holder = Value()

    class Initializer:
        def __init__(self):
            self.held = []

        def __call__(self):
            raise AssertionError("never awaited")

    initializer = Initializer()
    call = cache.aget_with(holder, initializer)
    initializer.held.append(call)
    reference = weakref.ref(holder)
    del cache, call, holder, initializer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
    assert reference() is None


# Wrong arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"aget_with\(\) missing 2 required positional arguments: 'key' and 'initializer'"),
        (("key",), r"missing 1 required positional argument: 'initializer'"),
        (("key", 5), "initializer must be callable, got int"),
        (("key", value, "5"), "ttl must be .*, got str"),
        (("key", value, None, "5"), "tti must be .*, got str"),
        (("key", value, None, None, 5), "takes from 2 to 4 positional arguments but 5 were given"),
    ],
)
def test_wrong_argument_is_a_type_error_of_the_call(arguments, message):
    with pytest.raises(TypeError, match=message):
        Moka(10).aget_with(*arguments)


def test_wrong_duration_is_a_value_error_of_the_call():
    for name in ("ttl", "tti"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            Moka(10).aget_with("key", value, **{name: 0})


def test_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'default'"):
        Moka(10).aget_with("key", value, default=1)


@pytest.mark.parametrize("result", [5, None, "text", [], (each for each in [])])
def test_initializer_that_returns_no_awaitable_is_a_type_error_of_all_waiters(result):
    cache = Moka(10)

    async def main():
        calls = [cache.aget_with("key", lambda: result) for _ in range(3)]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert type(outcome) is TypeError
            assert str(outcome) == f"initializer must return an awaitable, got {type(result).__name__}"
        assert cache.count() == 0

    run_async(main)
    assert cache.stats().load_failures == 1


# `get_with` of a coroutine.


async_function = cached(value)


@pytest.mark.parametrize(
    "make", [value, async_function, lambda: Moka(10).aget_with("key", value)], ids=["exact", "cached", "aget_with"]
)
def test_get_with_refuses_a_coroutine_and_closes_it(make):
    made = []

    def initializer():
        made.append(make())
        return made[0]

    cache = Moka(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=r"initializer must return a value, got a coroutine.*aget_with"):
            cache.get_with("key", initializer)
        assert inspect.getcoroutinestate(made.pop()) == "CORO_CLOSED"
        gc.collect()
    assert cache.count() == 0
    assert cache.stats().load_failures == 1


def test_get_with_keeps_other_awaitables():
    cache = Moka(10)
    awaitable = Awaitable(1)
    assert cache.get_with("key", lambda: awaitable) is cache["key"] is awaitable


def test_error_of_a_coroutine_that_refuses_to_be_closed_leaves_get_with():
    async def stubborn():
        try:
            await pause()
        except GeneratorExit:
            await pause()

    call = stubborn()
    call.send(None)
    with pytest.raises(RuntimeError, match="coroutine ignored GeneratorExit"):
        Moka(10).get_with("key", lambda: call)
    # It has ended its refusal, so that its destructor does not complain.
    with pytest.raises(StopIteration):
        call.send(None)


def test_asyncio_is_imported_by_the_first_call_alone():
    run_script(
        """
        import sys
        from moka_py import Moka
        cache = Moka(10)
        assert "asyncio" not in sys.modules
        cache.set("key", 1)
        try:
            cache.aget_with("key", lambda: None).send(None)
        except StopIteration as stop:
            assert stop.value == 1
        """
    )
