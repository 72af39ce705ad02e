"""`f.cache_set` stores a result as if a call had computed it. test_write_beats_cached_call.py has runs in flight."""

import asyncio
import gc
import random
import weakref

import pytest
from cached_helpers import both_wait_modes, recording_function
from helpers import Value

from moka_py import cached

CALLS = {
    "no arguments": ((), {}),
    "int": ((1,), {}),
    "several": ((1, "a", (2.0,)), {}),
    "keywords": ((1,), {"y": 2, "z": 3}),
    "the parameter's own name": ((), {"value": 1, "self": 2, "args": 3}),
}
OPTIONS = {
    "plain": {},
    "typed": {"typed": True},
    "key": {"key": lambda *args, **kwargs: (args, tuple(kwargs.items()))},
    "ttl": {"ttl": 1000},
    "unbounded": {"maxsize": None},
}
all_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
all_calls = pytest.mark.parametrize(("args", "kwargs"), CALLS.values(), ids=CALLS)


@both_wait_modes
@all_options
@all_calls
def test_result_that_is_set_is_returned_without_a_run(args, kwargs, options, wait):
    function, runs = recording_function(wait_concurrent=wait, **options)
    result = object()
    assert function.cache_set(result, *args, **kwargs) is None
    assert function.cache_contains(*args, **kwargs)
    assert function(*args, **kwargs) is result
    assert runs == []


@both_wait_modes
@all_options
@all_calls
def test_result_that_is_set_replaces_one_that_was_computed(args, kwargs, options, wait):
    function, runs = recording_function(wait_concurrent=wait, **options)
    function(*args, **kwargs)
    function.cache_set("set", *args, **kwargs)
    assert function(*args, **kwargs) == "set" and len(runs) == len(function.cache) == 1


@both_wait_modes
@all_options
def test_result_of_a_coroutine_function_is_what_awaiting_a_call_returns(options, wait):
    @cached(wait_concurrent=wait, **options)
    async def function(x):
        raise AssertionError("the function ran")

    function.cache_set("set", 1)
    assert asyncio.run(function(1)) == "set"


def test_arguments_are_told_apart_as_in_a_call():
    function, runs = recording_function(typed=True)
    function.cache_set("int", 1)
    function.cache_set("float", 1.0)
    function.cache_set("keyword", x=1)
    assert (function(1), function(1.0), function(x=1), runs) == ("int", "float", "keyword", [])


def test_methods_take_the_instance_after_the_value():
    class Thing:
        @cached
        def method(self, x):
            raise AssertionError("the function ran")

        @classmethod
        @cached
        def of_class(cls, x):
            raise AssertionError("the function ran")

        @staticmethod
        @cached
        def static(x):
            raise AssertionError("the function ran")

    one, other = Thing(), Thing()
    one.method.cache_set("one", one, 1)
    Thing.method.cache_set("other", other, 1)
    Thing.of_class.cache_set("class", Thing, 1)
    one.static.cache_set("static", 1)
    assert [one.method(1), other.method(1)] == ["one", "other"]
    assert [Thing.of_class(1), Thing.static(1)] == ["class", "static"]


@both_wait_modes
@pytest.mark.parametrize("options", [{}, {"typed": True}, {"key": lambda self, x: x}], ids=["plain", "typed", "key"])
def test_result_of_a_weak_self_method_dies_with_its_instance(options, wait):
    class Thing:
        @cached(weak_self=True, wait_concurrent=wait, **options)
        def method(self, x):
            raise AssertionError("the function ran")

    one, other = Thing(), Thing()
    value = Value()
    alive = weakref.ref(value)
    one.method.cache_set(value, one, 1)
    other.method.cache_set("other", other, 1)
    assert one.method(1) is value and other.method(1) == "other"
    del value, one
    gc.collect()
    Thing.method.cache.run_pending_tasks()
    assert alive() is None and len(Thing.method.cache) == 1
    assert other.method(1) == "other"


def test_weak_self_needs_the_instance():
    class Thing:
        @cached(weak_self=True)
        def method(self):
            pass

    with pytest.raises(TypeError, match="weak_self needs the instance"):
        Thing.method.cache_set("value")
    with pytest.raises(TypeError, match="cache_set"):
        Thing.method.cache_set()


def test_set_is_neither_a_hit_nor_a_miss_but_an_insert():
    function, _ = recording_function()
    function.cache_set("set", 1)
    assert function.cache_info() == (0, 0, 128, 1)
    assert function.cache.stats().inserts == 1
    function(1)
    assert function.cache_info() == (1, 0, 128, 1)


def test_weigher_weighs_a_result_that_is_set():
    seen = []
    function = cached(maxsize=10, key=lambda x: ("own", x), weigher=lambda key, value: seen.append((key, value)) or 7)(
        len
    )
    function.cache_set("set", 1)
    assert seen == [(("own", 1), "set")] and function.cache_info().currsize == 7
    function.cache_set("set", 2)
    assert function.cache_info().currsize == 7


@both_wait_modes
def test_function_that_stores_nothing_ignores_a_set(wait):
    function, runs = recording_function(maxsize=0, wait_concurrent=wait)
    function.cache_set("set", 1)
    assert function(1) != "set" and len(runs) == 1 and len(function.cache) == 0


def test_arguments_that_cannot_be_hashed_raise_and_change_nothing():
    function, _ = recording_function()
    with pytest.raises(TypeError, match="unhashable"):
        function.cache_set("set", [])
    assert len(function.cache) == 0


@both_wait_modes
@pytest.mark.parametrize("seed", range(5))
def test_random_calls_agree_with_a_dict(seed, wait):
    dice, model, runs = random.Random(seed), {}, []

    @cached(maxsize=None, wait_concurrent=wait, key=lambda user, page: (user, page))
    def function(user, page):
        runs.append((user, page))
        return len(runs)

    for step in range(2000):
        user, page = call = dice.randrange(5), dice.randrange(5)
        match dice.randrange(7):
            case 0:
                function.cache_set(-step, *call)
                model[call] = -step
            case 1:
                assert function.cache_invalidate(*call) is (model.pop(call, None) is not None)
            case 2 if step % 5 == 0:
                group = [key for key in model if key[0] == user]
                assert function.cache.remove_if(lambda key, _value, user=user: key[0] == user) == len(group)
                for key in group:
                    del model[key]
            case 3:
                assert function.cache_contains(*call) is (call in model)
            case _:
                before = len(runs)
                result = function(user, page)
                assert len(runs) == before + (call not in model)
                assert result == model.setdefault(call, len(runs))
        assert dict(function.cache.items()) == model
