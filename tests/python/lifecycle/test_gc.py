"""The collector visits all references of a cache (law 12): cycles are collected, and live caches stay unchanged."""

import gc
import weakref

import pytest
from helpers import IMMEDIATELY_DUE, BackgroundCollector, Key, Value, collect, run_threads

from moka_py import Moka


class Linked(Key):
    """A key that can hold a reference."""

    __hash__, __eq__ = Key.__hash__, Key.__eq__


class Listener:
    cache = None

    def __call__(self, *event):
        pass

    def heard(self, *event):
        pass


class Sub(Moka):
    def heard(self, *event):
        pass


def through_a_value():
    cache = Moka(10)
    cache.set("a", Value(cache))
    return cache


def as_its_own_value():
    cache = Moka(10)
    cache.set("a", cache)
    return cache


def as_its_own_key():
    cache = Moka(10)
    cache.set(cache, 1)
    return cache


def through_a_key():
    cache, key = Moka(10), Linked("a")
    key.cache = cache
    cache.set(key, 1)
    return cache


def through_a_replaced_key():
    cache, first, second = Moka(10), Linked("a"), Linked("a")
    first.cache = second.cache = cache
    cache.set(first, 1)
    cache.set(second, first)
    return cache


def through_the_listener():
    listener = Listener()
    listener.cache = Moka(10, eviction_listener=listener)
    return listener.cache


def through_a_bound_method_as_listener():
    listener = Listener()
    listener.cache = Moka(10, eviction_listener=listener.heard)
    return listener.cache


def through_a_closure_as_listener():
    cache = Moka(10, eviction_listener=lambda *event: cache.get("a"))
    cache.set("a", 1)
    return cache


def through_its_own_method_as_listener():
    # The listener must exist before the cache, so it holds the method through a list.
    methods = []
    cache = Moka(10, eviction_listener=lambda *event, methods=methods: methods)
    methods.append(cache.get)
    return cache


def through_the_weigher():
    cache = Moka(10, weigher=lambda key, value: len(cache) * 0 + 1)
    cache.set("a", 1)
    return cache


def through_a_bound_method_of_the_cache():
    cache = Moka(10)
    cache.set("get", cache.get)
    return cache


def through_an_attribute_of_a_subclass():
    cache = Sub(10)
    cache.me = cache
    return cache


def through_a_subclass_and_a_value():
    cache = Sub(10)
    cache.held = Value()
    cache.held.held = [cache]
    cache.set("a", cache.held)
    return cache


def through_two_caches():
    cache, other = Moka(10), Moka(10)
    cache.set("other", other)
    other.set("cache", cache)
    return cache


def through_views():
    cache = Moka(10)
    cache.update(keys=cache.keys(), values=cache.values(), items=cache.items())
    return cache


def through_iterators():
    cache = Moka(10)
    cache.set("a", 1)
    cache.update(iter=iter(cache), keys=iter(cache.keys()), values=iter(cache.values()), items=iter(cache.items()))
    return cache


def through_iterators_half_way():
    cache = Moka(10)
    cache.set("a", 1)
    for make in (iter, lambda cache: iter(cache.values()), lambda cache: iter(cache.items())):
        iterator = make(cache)
        next(iterator)
        cache.set(iterator, iterator)
    return cache


def through_a_computed_value():
    cache = Moka(10)
    cache.get_with("a", lambda: [cache])
    return cache


def through_a_failed_computation():
    cache = Moka(10)

    def fail():
        raise ValueError(cache)

    try:
        cache.get_with("a", fail)
    except ValueError as error:
        cache.set("error", error)
    return cache


def through_a_value_with_a_deadline():
    cache = Moka(10, ttl=1000, tti=1000)
    cache.set("a", Value(cache), ttl=100)
    return cache


def through_many_values():
    cache = Moka(5000)
    for number in range(5000):
        cache.set(number, [cache])
    return cache


SHAPES = {
    function.__name__.replace("_", " "): function
    for function in list(globals().values())
    if getattr(function, "__module__", None) == __name__ and getattr(function, "__name__", "").startswith("through")
} | {"as its own value": as_its_own_value, "as its own key": as_its_own_key}


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_cycle_is_collected(make):
    collect()
    cache = make()
    reference = weakref.ref(cache)
    collect()
    assert reference() is cache
    del cache
    collect()
    assert reference() is None


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_collection_leaves_a_live_cache_unchanged(make):
    cache = make()
    before = (list(cache), [id(value) for value in cache.values()])
    collect()
    assert (list(cache), [id(value) for value in cache.values()]) == before


def test_collector_visits_keys_values_and_callables():
    def listener(*event):
        pass

    def weigh(key, value):
        return 1

    cache, key, value = Moka(10, eviction_listener=listener, weigher=weigh), Key("a"), Value()
    cache.set(key, value)
    assert gc.is_tracked(cache)
    referents = gc.get_referents(cache)
    for thing in (listener, weigh, key, value):
        assert any(referent is thing for referent in referents)


def test_collector_visits_each_entry_once():
    cache = Moka(1000)
    values = [Value() for _ in range(1000)]
    for number, value in enumerate(values):
        cache.set(number, value)
    visited = [referent for referent in gc.get_referents(cache) if isinstance(referent, Value)]
    assert sorted(map(id, visited)) == sorted(map(id, values))


def test_finalizer_in_a_cycle_can_use_the_cache():
    used = []

    class Final:
        def __init__(self, cache):
            self.cache = cache

        def __del__(self):
            self.cache.set("by finalizer", 1)
            used.append((self.cache.get("by finalizer"), len(self.cache)))
            self.cache.clear()

    cache = Moka(10)
    cache.set("a", Final(cache))
    reference = weakref.ref(cache)
    del cache
    collect()
    assert used == [(1, 2)]
    assert reference() is None


def test_cache_revived_by_a_finalizer_works():
    saved = []

    class Saviour:
        def __init__(self, cache):
            self.cache = cache

        def __del__(self):
            saved.append(self.cache)

    cache = Moka(10)
    cache.set("a", Saviour(cache))
    cache.set("b", 2)
    del cache
    collect()
    (cache,) = saved
    assert cache.get("b") == 2
    cache.set("c", 3)
    assert cache.get("c") == 3


def test_callback_of_a_weak_reference_in_a_cycle_runs():
    called = []
    cache = Moka(10)
    cache.set("a", cache)
    reference = weakref.ref(cache, called.append)
    del cache
    collect()
    assert called == [reference]


def test_collected_entries_are_not_reported_to_the_listener():
    events = []
    cache = Moka(10, eviction_listener=lambda *event: events.append(event))
    cache.set("a", cache)
    del cache
    collect()
    assert events == []


def test_exception_of_a_computation_is_not_kept_alive():
    cache, references = Moka(10), []

    class Failure(Exception):
        pass

    def fail():
        error = Failure()
        references.append(weakref.ref(error))
        raise error

    try:
        cache.get_with("a", fail)
    except Failure:
        pass
    collect()
    assert references[0]() is None


def test_initializer_is_not_kept_alive():
    cache = Moka(10)

    def compute():
        return 1

    reference = weakref.ref(compute)
    cache.get_with("a", compute)
    del compute
    assert reference() is None


def test_collector_can_run_inside_each_callback():
    class Collecting(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            gc.collect()
            return super().__eq__(other)

    def collect_and_weigh(key, value):
        gc.collect()
        return 1

    cache = Moka(3, eviction_listener=lambda *event: gc.collect(), weigher=collect_and_weigh)
    for number in range(6):
        cache.set(Collecting(number, 1), [cache], ttl=IMMEDIATELY_DUE if number == 3 else None)
        cache.get(Collecting(number, 1))
        cache.get_with(Collecting(-number, 1), lambda: gc.collect())
    assert len(cache) == 3


def test_caches_in_cycles_are_collected_while_threads_make_more(fast_switches):
    references, collector = [], BackgroundCollector()

    def work():
        for number in range(500):
            cache = Moka(10, eviction_listener=lambda *event: None)
            cache.set("me", cache)
            references.append(weakref.ref(cache))
            if number % 10 == 0:
                collector.step()

    with collector:
        run_threads(work, work, work)
    collect()
    assert not any(reference() for reference in references)
