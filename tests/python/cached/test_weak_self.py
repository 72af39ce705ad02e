"""`cached(weak_self=True)`: methods that do not keep their instances alive."""

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import sys
import types
import weakref

import pytest
from cached_helpers import both_wait_modes
from helpers import collect, count_alive, run_threads

from moka_py import cached


def made(**options):
    """Return a class with a cached method, which returns a new object per run."""

    class Made:
        @cached(weak_self=True, **options)
        def method(self, *args, **kwargs):
            return object()

    return Made


@both_wait_modes
def test_results_are_removed_with_their_instance(wait):
    kind = made(wait_concurrent=wait)
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
    kind = made()
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
    kind = made()
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
    kind = made(typed=True)
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
    kind = made()
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
    kind = made()
    for call in (kind.method, functools.partial(kind.method, self=kind())):
        with pytest.raises(TypeError, match="weak_self needs the instance as the first positional argument"):
            call()


@pytest.mark.parametrize("wrong", [None, 1, "yes"], ids=repr)
def test_weak_self_must_be_a_bool(wrong):
    with pytest.raises(TypeError, match=f"weak_self must be a bool, got {type(wrong).__name__}"):
        cached(weak_self=wrong)


def test_method_can_be_used_in_del_of_its_instance():
    results = []

    class Last:
        @cached(weak_self=True)
        def method(self):
            return object()

        def __del__(self):
            results.append(self.method())

    one = Last()
    result = one.method()
    del one
    assert results == [result]
    assert Last.method.cache_info().currsize == 0
    in_cycle = Last()
    in_cycle.itself = in_cycle
    in_cycle.method()
    del in_cycle
    collect()
    assert len(results) == 2
    assert Last.method.cache_info().currsize == 0


def in_cycle(one):
    """Return the instance after it was put into a cycle with itself."""
    one.itself = one
    return one


def test_method_can_be_used_first_in_del_of_its_instance():
    class Last:
        @cached(weak_self=True)
        def method(self):
            return object()

        def __del__(self):
            results.append((self.method(), self.method()))

    results = []
    Last()
    assert Last.method.cache_info() == (1, 1, 128, 0)
    in_cycle(Last())
    collect()
    assert Last.method.cache_info() == (2, 2, 128, 0)
    assert all(one is other for one, other in results)


def test_method_can_be_used_first_in_del_of_another_garbage_object():
    kind = made()

    class Other:
        def __init__(self, one):
            self.one = one
            one.other = self

        def __del__(self):
            results.append(self.one.method(1))
            self.one.method(1)

    results = []
    for _ in range(10):
        Other(kind())
    collect()
    assert len(set(results)) == 10
    assert kind.method.cache_info() == (10, 10, 128, 0)


@pytest.mark.parametrize("is_used_before", [False, True])
def test_instance_revived_by_its_del_keeps_results_until_it_dies(is_used_before):
    class Undead:
        @cached(weak_self=True)
        def method(self):
            return object()

        def __del__(self):
            revived.append((self, self.method()))

    revived = []
    for start in (Undead, lambda: in_cycle(Undead())):
        one = start()
        if is_used_before:
            one.method()
        del one
        collect()
        one, result = revived.pop()
        assert one.method() is result
        assert Undead.method.cache_info().currsize == 1
        one.itself = None
        del one
        assert Undead.method.cache_info().currsize == 0


def test_dead_instances_leave_no_results_although_one_revived_their_class():
    def scope():
        class Undead:
            is_kept = False

            @cached(weak_self=True)
            def method(self):
                return object()

            def __del__(self):
                if self.is_kept:
                    revived.append(self)

        ones = [in_cycle(Undead()) for _ in range(3)]
        ones[1].is_kept = True
        for one in ones:
            one.method()

    revived = []
    scope()
    collect()
    one = revived.pop()
    kind = type(one)
    assert one.method() is one.method()
    assert kind.method.cache_info().currsize == 1
    one.itself = None
    del one
    assert kind.method.cache_info().currsize == 0


def test_methods_of_subclasses_and_slotted_classes_work_in_del():
    class Slotted:
        __slots__ = ("__weakref__", "itself")

        @cached(weak_self=True)
        def first(self):
            return object()

        @cached(weak_self=True, key=lambda self, x: x)
        def second(self, x):
            return object()

        @cached(weak_self=True, wait_concurrent=True)
        def third(self):
            return object()

        def __del__(self):
            for _ in range(2):
                self.first(), self.second(1), self.second(2), self.third()

    class Derived(Slotted):
        __slots__ = ()

    class WithDict(Derived):
        pass

    for kind in (Slotted, Derived, WithDict):
        in_cycle(kind())
        used = in_cycle(kind())
        used.first(), used.third()
        del used
        kind()
    collect()
    for method in (Slotted.first, Slotted.second, Slotted.third):
        assert method.cache_info().currsize == 0
        assert method.cache_info().misses >= 9


def test_instance_at_the_address_of_a_dead_one_does_not_get_its_results():
    class Numbered:
        numbers = itertools.count()

        def __init__(self):
            self.number = next(self.numbers)

        @cached(weak_self=True, maxsize=None)
        def method(self):
            return self.number

        def __del__(self):
            wrong.append(self.method() != self.number)
            others = [Quiet() for _ in range(3)]
            wrong.extend(other.method() != other.number for other in others)

    class Quiet(Numbered):
        def __del__(self):
            pass

    wrong, places = [], set()
    for number in range(600):
        one = in_cycle(Numbered())
        places.add(id(one))
        if number % 50 == 0:
            gc.collect()
    del one
    collect()
    assert len(places) < 600 and not any(wrong) and len(wrong) == 2400
    assert Numbered.method.cache_info().currsize == 0


def test_run_that_ends_after_its_instance_died_stores_nothing():
    @types.coroutine
    def pause():
        yield

    class Later:
        @cached(weak_self=True)
        async def method(self):
            await pause()
            return object()

        def __del__(self):
            with contextlib.suppress(StopIteration, RuntimeError):
                self.call.send(None)

    one = Later()
    one.call = one.method()
    one.call.send(None)
    del one
    collect()
    assert Later.method.cache_info()[1:] == (1, 128, 0)


def test_first_use_during_a_collection_leaks_no_owners():
    kind = made()
    survivors = [kind()]

    class Other:
        def __del__(self):
            survivors[0].method(1)

    in_cycle(Other())
    collect()
    assert kind.method.cache_info().currsize == 1
    watched = weakref.ref(next(iter(kind.method.cache))[0])
    survivors.clear()
    assert kind.method.cache_info().currsize == 0
    collect()
    assert watched() is None


def test_dropped_function_drops_its_results_immediately():
    kind = made()
    one = kind()
    one.method(1)
    watched = weakref.ref(kind.method.cache)
    gc.disable()
    try:
        del kind.method
        assert watched() is None
    finally:
        gc.enable()


@both_wait_modes
def test_threads_can_use_instances_that_the_collector_frees_in_another(wait):
    class Shared:
        @cached(weak_self=True, wait_concurrent=wait, maxsize=None)
        def method(self, x):
            return id(self), x

        def __del__(self):
            assert self.method(0) == (id(self), 0)

    latest = [lambda: None]

    def make():
        for number in range(300):
            one = in_cycle(Shared())
            latest[0] = weakref.ref(one)
            assert one.method(number % 3) == (id(one), number % 3)
            del one
            if number % 20 == 0:
                gc.collect()

    def use():
        for number in range(3000):
            one = latest[0]()
            if one is not None:
                assert one.method(number % 3) == (id(one), number % 3)
            del one

    run_threads(make, use, use)
    latest[0] = None
    collect()
    assert Shared.method.cache_info().currsize == 0


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
    kind = made(maxsize=10)
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


def test_function_and_instances_can_be_dropped_in_any_order():
    kind = made()
    one = kind()
    one.method(1)
    watched = weakref.ref(kind.method.cache)
    del kind.method
    collect()
    assert watched() is None
    del one


@both_wait_modes
def test_threads_can_make_and_drop_instances_concurrently(wait):
    kind = made(maxsize=64, wait_concurrent=wait)
    shared = kind()

    def work():
        for x in range(400):
            one = kind()
            one.method(x % 3)
            assert one.method(1) is one.method(1)
            shared.method(x % 5)

    def hammer():
        for _ in range(20):
            gc.collect()

    run_threads(*[work] * 4, hammer)
    collect()
    assert kind.method.cache_info().currsize <= 5
    shared = None
    collect()
    assert kind.method.cache_info().currsize == 0
