"""`cached(weak_self=True)`: instances that die in cycles, in threads or during calls, or that `__del__` revives."""

import contextlib
import gc
import itertools
import types
import weakref

import pytest
from cached_helpers import both_wait_modes, class_with_method
from helpers import collect, run_threads

from moka_py import cached


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
    kind = class_with_method()

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


def test_instance_made_during_a_collection_does_not_get_the_results_of_one_that_it_freed():
    count = 100

    class Numbered:
        numbers = itertools.count()

        def __init__(self):
            self.number = next(self.numbers)
            self.late = None

        @cached(weak_self=True, maxsize=None)
        def method(self):
            return self.number

        def __del__(self):
            if self.number < count:
                addresses.add(id(self))
                self.method()
                # It dies when the collector clears this instance. By then the collector has freed others.
                self.late = Late()

    class Late:
        def __del__(self):
            one = Numbered()
            made.append((one, id(one) in addresses, one.method()))

    # It is chance whether the allocator gives one of them the address of an instance that was freed.
    for _ in range(20):
        addresses, made = set(), []
        Numbered.numbers = itertools.count()
        # The collector must not run before all of them are there.
        gc.disable()
        try:
            for _ in range(count):
                in_cycle(Numbered())
            gc.collect()
        finally:
            gc.enable()
        assert len(made) == count
        assert [result for _, _, result in made] == [one.number for one, _, _ in made]
        if any(is_reused for _, is_reused, _ in made):
            break
    else:
        pytest.fail("no instance has the address of another one")


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
    kind = class_with_method()
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
    kind = class_with_method()
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


def test_function_and_instances_can_be_dropped_in_any_order():
    kind = class_with_method()
    one = kind()
    one.method(1)
    watched = weakref.ref(kind.method.cache)
    del kind.method
    collect()
    assert watched() is None
    del one


@both_wait_modes
def test_threads_can_make_and_drop_instances_concurrently(wait):
    kind = class_with_method(maxsize=64, wait_concurrent=wait)
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
