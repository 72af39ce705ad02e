"""`cached(weak_self=True)`: methods that do not keep their instances alive."""

import asyncio
import functools
import inspect
import sys
import weakref

import pytest
from cached_helpers import both_wait_modes, class_with_method
from helpers import collect, count_alive

from moka_py import cached


@both_wait_modes
def test_results_are_removed_with_their_instance(wait):
    kind = class_with_method(wait_concurrent=wait)
    one, two = kind(), kind()
    results = [one.method(1), one.method(2), two.method(1)]
    assert [one.method(1), one.method(2), two.method(1)] == results
    assert kind.method.cache_info() == (3, 3, 128, 3)
    watched = weakref.ref(one)
    del one
    collect()
    assert watched() is None
    assert kind.method.cache_info().currsize == 1
    assert two.method(1) is results[2]


def test_result_is_removed_before_the_deletion_returns():
    kind = class_with_method()
    one = kind()
    one.method(1)
    del one
    assert kind.method.cache_info().currsize == 0


def test_without_weak_self_the_cache_keeps_the_instance():
    class Kept:
        @cached
        def method(self):
            return 1

    one = Kept()
    one.method()
    watched = weakref.ref(one)
    del one
    collect()
    assert watched() is not None


def test_instance_in_a_cycle_is_collected_with_its_results():
    kind = class_with_method()
    one = kind()
    one.itself = one
    one.method(1)
    watched = weakref.ref(one)
    del one
    collect()
    assert watched() is None
    assert kind.method.cache_info().currsize == 0


def test_equal_instances_have_different_keys():
    class Equal:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

        @cached(weak_self=True)
        def method(self):
            return object()

    one, two = Equal(), Equal()
    assert one.method() is not two.method()
    assert one.method() is one.method()


def test_instances_need_not_be_hashable():
    class Plain(list):
        @cached(weak_self=True)
        def method(self, x):
            return object()

    one = Plain()
    assert one.method(1) is one.method(1)


def test_arguments_are_compared_as_without_weak_self():
    kind = class_with_method(typed=True)
    one = kind()
    calls = [lambda: one.method(1), lambda: one.method(1.0), lambda: one.method(x=1), lambda: one.method(1, x=1)]
    results = [call() for call in calls]
    assert [call() for call in calls] == results
    assert len(set(results)) == 4
    assert one.method() is one.method()


def test_custom_keys_are_separate_for_each_instance():
    class Keyed:
        @cached(weak_self=True, key=lambda self, text: text.lower())
        def method(self, text):
            return object()

    one, two = Keyed(), Keyed()
    assert one.method("A") is one.method("a")
    assert one.method("a") is not two.method("a")
    del one
    assert Keyed.method.cache_info().currsize == 1


def test_invalidate_and_contains_take_the_instance():
    kind = class_with_method()
    one = kind()
    one.method(1)
    assert kind.method.cache_contains(one, 1)
    assert not kind.method.cache_contains(kind(), 1)
    assert kind.method.cache_invalidate(one, 1)
    assert not kind.method.cache_contains(one, 1)


@both_wait_modes
def test_results_of_coroutine_methods_are_removed_with_their_instance(wait):
    class Later:
        @cached(weak_self=True, wait_concurrent=wait)
        async def method(self, x):
            await asyncio.sleep(0)
            return object()

    async def main():
        one = Later()
        assert await one.method(1) is await one.method(1)
        results = await asyncio.gather(*(one.method(2) for _ in range(10)))
        assert len(set(results)) == (1 if wait else 10)
        assert Later.method.cache_info().currsize == 2

    asyncio.run(main())
    collect()
    assert Later.method.cache_info().currsize == 0


def test_pending_call_keeps_the_instance_until_its_result_is_stored():
    class Later:
        @cached(weak_self=True)
        async def method(self):
            await asyncio.sleep(0)
            return object()

    async def main():
        watched = []
        task = asyncio.create_task((lambda one: watched.append(weakref.ref(one)) or one.method())(Later()))
        await task
        del task
        collect()
        assert count_alive(watched) == 0
        assert Later.method.cache_info() == (0, 1, 128, 0)

    asyncio.run(main())


def test_first_argument_of_class_methods_and_functions_is_the_instance():
    class Kind:
        @classmethod
        @cached(weak_self=True)
        def method(cls, x):
            return object()

    assert Kind.method(1) is Kind.method(1)


def test_instance_without_weak_references_raises_type_error():
    class Slotted:
        __slots__ = ()

        @cached(weak_self=True)
        def method(self):
            return 1

    with pytest.raises(
        TypeError, match="weak_self needs an instance that can be weakly referenced, got Slotted"
    ) as caught:
        Slotted().method()
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert Slotted.method.cache_info()[:2] == (0, 0)


def test_call_without_an_instance_raises_type_error():
    kind = class_with_method()
    for call in (kind.method, functools.partial(kind.method, self=kind())):
        with pytest.raises(TypeError, match="weak_self needs the instance as the first positional argument"):
            call()


@pytest.mark.parametrize("wrong", [None, 1, "yes"], ids=repr)
def test_weak_self_must_be_a_bool(wrong):
    with pytest.raises(TypeError, match=f"weak_self must be a bool, got {type(wrong).__name__}"):
        cached(weak_self=wrong)


def test_result_that_refers_to_the_instance_keeps_it_alive():
    class Itself:
        @cached(weak_self=True)
        def method(self):
            return self

    one = Itself()
    one.method()
    watched = weakref.ref(one)
    del one
    collect()
    assert watched() is not None
    Itself.method.cache_clear()
    collect()
    assert watched() is None


def test_instance_forgets_its_removed_entries():
    kind = class_with_method(maxsize=10)
    one = kind()
    for x in range(5000):
        one.method(x)
    assert kind.method.cache_info().currsize == 10
    owner = next(iter(kind.method.cache))[0]
    assert sys.getsizeof(owner) <= 1000
    del owner, one
    collect()
    assert kind.method.cache_info().currsize == 0


def test_signature_and_attributes_are_those_of_the_method():
    class Documented:
        @cached(weak_self=True)
        def method(self, x: int) -> str:
            "What it does."
            return str(x)

    assert str(inspect.signature(Documented.method)) == "(self, x: int) -> str"
    assert str(inspect.signature(Documented().method)) == "(x: int) -> str"
    assert Documented.method.__doc__ == "What it does."
