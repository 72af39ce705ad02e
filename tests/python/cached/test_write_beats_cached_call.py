"""A later write wins: a result whose run began before a write to its key is not stored (law 13)."""

import asyncio
import threading

import pytest
from cached_helpers import both_wait_modes, run_async, run_ready_tasks
from helpers import Background, Gate

from moka_py import Moka, cached

OPTIONS = {
    "plain": {},
    "shared": {"wait_concurrent": True},
    "key": {"key": lambda x: ("own", x)},
    "shared key": {"key": lambda x: ("own", x), "wait_concurrent": True},
    "typed": {"typed": True},
    "shared typed": {"typed": True, "wait_concurrent": True},
    "ttl": {"ttl": 1000, "policy": "lru"},
    "weighed": {"weigher": lambda key, value: 1},
    "large": {"maxsize": None},
}

WRITES = {
    "cache_invalidate": lambda f, key: f.cache_invalidate(1),
    "cache_clear": lambda f, key: f.cache_clear(),
    "clear": lambda f, key: f.cache.clear(),
    "remove": lambda f, key: f.cache.remove(key),
    "pop": lambda f, key: f.cache.pop(key, None),
    "remove_many": lambda f, key: f.cache.remove_many([key]),
    "remove_if": lambda f, key: f.cache.remove_if(lambda key, value: True),
    "remove_if that is asked of nothing": lambda f, key: f.cache.remove_if(lambda key, value: False),
    "set and del": lambda f, key: (f.cache.set(key, "set"), f.cache.__delitem__(key)),
    "set and popitem": lambda f, key: (f.cache.set(key, "set"), f.cache.popitem()),
}

SETS = {
    "set": lambda f, key: f.cache.set(key, "set"),
    "cache_set": lambda f, key: f.cache_set("set", 1),
    "set for a while": lambda f, key: f.cache.set(key, "set", ttl=1000),
    "setitem": lambda f, key: f.cache.__setitem__(key, "set"),
    "setdefault": lambda f, key: f.cache.setdefault(key, "set"),
    "set_with": lambda f, key: f.cache.set_with(key, str, "set"),
    "set_many": lambda f, key: f.cache.set_many({key: "set"}),
    "update": lambda f, key: f.cache.update({key: "set"}),
    "set twice": lambda f, key: (f.cache.set(key, "older"), f.cache.set(key, "set")),
}

all_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def writes(kinds):
    return pytest.mark.parametrize("write", kinds.values(), ids=kinds)


class Source:
    """The source that a function reads, and an action that its run takes after the read."""

    def __init__(self):
        self.value = "old"
        self.runs = 0
        self.then = lambda: None

    def read(self, x):
        self.runs += 1
        value = self.value
        then, self.then = self.then, lambda: None
        then()
        return value


def key_of(function):
    """Return the key of the only stored call, and clear the cache."""
    (key,) = function.cache
    function.cache_clear()
    return key


def sync_case(options, write):
    source = Source()
    function = cached(**options)(source.read)
    function(1)
    key = key_of(function)

    def change():
        source.value = "new"
        write(function, key)

    source.then = change
    assert function(1) == "old"
    return source, function


@all_options
@writes(WRITES)
def test_removal_during_a_run_keeps_its_result_out(options, write):
    source, function = sync_case(options, write)
    assert len(function.cache) == 0
    assert function(1) == "new"
    runs = source.runs
    assert function(1) == "new" and source.runs == runs


@all_options
@writes(SETS)
def test_set_during_a_run_wins_over_its_result(options, write):
    source, function = sync_case(options, write)
    runs = source.runs
    assert function(1) == "set" and source.runs == runs


def async_case(options, write, check):
    async def main():
        source, opened, started = Source(), asyncio.Event(), asyncio.Event()

        @cached(**options)
        async def function(x):
            value = source.read(x)
            started.set()
            await opened.wait()
            return value

        opened.set()
        await function(1)
        key = key_of(function)
        opened.clear(), started.clear()
        early = asyncio.create_task(function(1))
        await started.wait()
        source.value = "new"
        write(function, key)
        late = asyncio.create_task(function(1))
        await run_ready_tasks()
        opened.set()
        assert await early == "old"
        await check(source, function, await late)

    run_async(main)


@all_options
@writes(WRITES)
def test_removal_during_the_run_of_a_coroutine_keeps_its_result_out(options, write):
    async def check(source, function, late):
        assert late == "new"
        runs = source.runs
        assert await function(1) == "new" and source.runs == runs

    async_case(options, write, check)


@all_options
@writes(SETS)
def test_set_during_the_run_of_a_coroutine_wins_over_its_result(options, write):
    async def check(source, function, late):
        assert late == "set"
        runs = source.runs
        assert await function(1) == "set" and source.runs == runs

    async_case(options, write, check)


def method(options, is_async=False):
    """Return the source of a `weak_self` method, the bound method, and its instance."""
    source = Source()

    class Thing:
        @cached(weak_self=True, **options)
        def look(self, x):
            return source.read(x)

        @cached(weak_self=True, **options)
        async def look_later(self, x):
            await asyncio.sleep(0)
            value = source.read(x)
            await asyncio.sleep(0)
            return value

    thing = Thing()
    look = thing.look_later if is_async else thing.look
    return source, look, thing


INSTANCE_WRITES = {
    "cache_invalidate": lambda look, thing: look.cache_invalidate(thing, 1),
    "cache_clear": lambda look, thing: look.cache_clear(),
    "clear": lambda look, thing: look.cache.clear(),
    "remove_if": lambda look, thing: look.cache.remove_if(lambda key, value: False),
}


@both_wait_modes
@writes(INSTANCE_WRITES)
def test_removal_during_the_first_run_of_a_weak_self_method_keeps_its_result_out(write, wait):
    source, look, thing = method({"wait_concurrent": wait})

    def change():
        source.value = "new"
        write(look, thing)

    source.then = change
    assert look(1) == "old"
    assert look(1) == "new" == look(1)
    assert source.runs == 2


@both_wait_modes
@writes(INSTANCE_WRITES)
def test_removal_during_a_later_run_of_a_weak_self_method_keeps_its_result_out(write, wait):
    source, look, thing = method({"wait_concurrent": wait}, is_async=True)

    def change():
        source.value = "new"
        write(look, thing)

    async def main():
        source.then = change
        assert await look(1) == "old"
        assert await look(1) == "new" == await look(1)
        assert source.runs == 2

    run_async(main)


@both_wait_modes
def test_cache_set_during_a_run_of_a_weak_self_method_wins_over_its_result(wait):
    source, look, thing = method({"wait_concurrent": wait})
    source.then = lambda: look.cache_set("set", thing, 1)
    assert look(1) == "old"
    assert look(1) == "set" and source.runs == 1


@both_wait_modes
def test_cache_set_during_a_run_of_a_weak_self_coroutine_method_wins_over_its_result(wait):
    source, look, thing = method({"wait_concurrent": wait}, is_async=True)

    async def main():
        source.then = lambda: look.cache_set("set", thing, 1)
        assert await look(1) == "old"
        assert await look(1) == "set" and source.runs == 1

    run_async(main)


@both_wait_modes
def test_cache_set_by_another_thread_wins_over_a_run(wait):
    source, gate = Source(), Gate()
    function = cached(wait_concurrent=wait)(source.read)
    source.then = gate.stop_here
    with Background(lambda: function(1)) as run:
        gate.wait_until_reached()
        function.cache_set("set", 1)
        gate.open()
    assert run.result == "old"
    assert function(1) == "set" and source.runs == 1


@both_wait_modes
def test_invalidation_by_another_thread_keeps_the_result_out(wait):
    source, inside, go_on = Source(), threading.Event(), threading.Event()

    @cached(wait_concurrent=wait)
    def function(x):
        value = source.read(x)
        if value == "old":
            inside.set()
            assert go_on.wait(60)
        return value

    got = []
    early = threading.Thread(target=lambda: got.append(function(1)), daemon=True)
    early.start()
    assert inside.wait(60)
    source.value = "new"
    assert not function.cache_invalidate(1)
    assert function(1) == "new"
    go_on.set()
    early.join(60)
    assert got == ["old"]
    assert function(1) == "new" and source.runs == 2


def test_write_to_another_key_keeps_no_result_out():
    source = Source()
    function = cached(maxsize=100)(source.read)
    source.then = lambda: (function.cache_invalidate(2), function.cache.set("other", 1), function(3))
    function(1)
    assert source.runs == 2
    assert function.cache_contains(1) and function.cache_contains(3)


def test_eviction_and_expiry_keep_no_result_out():
    source = Source()
    function = cached(maxsize=1, ttl=1000)(source.read)
    source.then = lambda: [function(number) for number in range(2, 9)]
    function(1)
    assert function.cache_contains(1)


def test_failed_run_leaves_no_registration():
    """A run that stayed registered would make every later `set` look for it."""
    source = Source()
    function = cached()(source.read)

    class Failed(Exception):
        pass

    def fail():
        raise Failed

    source.then = fail
    with pytest.raises(Failed):
        function(1)
    source.then = lambda: source.__setattr__("value", "new")
    assert function(1) == "old" == function(1)


class CollidingNumber:
    """A key with a constant hash and a user-defined `__eq__`."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return isinstance(other, CollidingNumber) and self.number == other.number


@both_wait_modes
def test_removal_of_one_key_keeps_no_result_of_equal_hash_out(wait):
    source = Source()
    function = cached(wait_concurrent=wait)(source.read)
    source.then = lambda: function(CollidingNumber(2))
    function(CollidingNumber(1))
    assert function.cache_contains(CollidingNumber(1)) and function.cache_contains(CollidingNumber(2))

    def change():
        source.value = "new"
        function.cache_invalidate(CollidingNumber(3))

    source.then = change
    assert function(CollidingNumber(3)) == "old"
    assert function(CollidingNumber(3)) == "new" == function(CollidingNumber(3))


def test_recursion_with_the_same_arguments_runs_as_in_lru_cache():
    depths = []

    @cached()
    def function(x):
        depths.append(len(depths))
        return "inner" if len(depths) == 5 else function(x)

    assert function(1) == "inner" == function(1)
    assert len(depths) == 5


def test_runs_of_one_key_proceed_concurrently():
    barrier = threading.Barrier(3)

    @cached()
    def function(x):
        barrier.wait(60)
        return object()

    got = []
    threads = [threading.Thread(target=lambda: got.append(function(1)), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(got)) == 3 and function(1) in got


def test_coroutine_that_is_never_finished_leaves_no_registration():
    runs = []

    @cached()
    async def function(x):
        runs.append(x)
        await asyncio.sleep(0)
        return len(runs)

    for _ in range(3):
        call = function(1)
        call.send(None)
        call.close()
    call = function(1)
    call.send(None)
    del call
    assert asyncio.run(function(1)) == 5 == asyncio.run(function(1))


@both_wait_modes
def test_result_from_before_a_removal_does_not_overwrite_a_later_one(wait):
    """The run from before the removal ends last."""

    async def main():
        source, gates = Source(), [asyncio.Event(), asyncio.Event()]

        @cached(wait_concurrent=wait)
        async def function(x):
            value = source.read(x)
            await gates[source.runs - 1].wait()
            return value

        early = asyncio.create_task(function(1))
        await run_ready_tasks()
        source.value = "new"
        function.cache_invalidate(1)
        late = asyncio.create_task(function(1))
        await run_ready_tasks()
        gates[1].set()
        assert await late == "new"
        gates[0].set()
        assert await early == "old"
        assert await function(1) == "new" and source.runs == 2

    run_async(main)


def test_get_with_and_a_cached_function_on_one_cache_do_not_wait_for_each_other():
    source = Source()
    function = cached()(source.read)
    assert isinstance(function.cache, Moka)
    source.then = lambda: function.cache.get_with(1, lambda: "loaded")
    assert function(1) == "old" == function(1)
