"""Caches and functions that live as long as the program (`long_lived`). Only CPython 3.13t makes them immortal."""

import gc
import sys
import weakref

import pytest
from helpers import FREE_THREADED, Value, collect, count_alive, run_in_thread, run_script, run_threads, watched_values

from moka_py import Moka, cached

IS_IMMORTAL = FREE_THREADED and sys.version_info < (3, 14)
IMMORTAL_COUNT = 2**31
"""An immortal object has at least such a reference count."""


class Sub(Moka):
    pass


class WithInit(Moka):
    def __init__(self, name):
        super().__init__(10, long_lived=True)
        self.name = name


def look(x):
    return Value()


async def look_later(x):
    return Value()


MAKERS = {
    "cache": lambda: Moka(10, long_lived=True),
    "with all options": lambda: Moka(10, 5, 5, None, "lru", lambda key, value: 1, True),
    "alias": lambda: Moka[int, str](10, long_lived=True),
    "subclass": lambda: Sub(10, long_lived=True),
    "subclass with an __init__": lambda: WithInit("name"),
    "function": lambda: cached(look, long_lived=True),
    "function's cache": lambda: cached(long_lived=True)(look).cache,
    "coroutine function": lambda: cached(look_later, long_lived=True),
    "lambda": lambda: cached(lambda x: x, long_lived=True),
}
ORDINARY = {
    "cache": lambda: Moka(10),
    "cache that says so": lambda: Moka(10, long_lived=False),
    "function": lambda: cached(look),
    "function that says so": lambda: cached(look, long_lived=False),
    "cache of a function": lambda: cached(look).cache,
}


def is_immortal(thing):
    return sys.getrefcount(thing) >= IMMORTAL_COUNT


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_long_lived_object_is_immortal_on_free_threaded_3_13_alone(make):
    assert is_immortal(make()) is IS_IMMORTAL


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_other_object_is_not_immortal(make):
    assert not is_immortal(make())


@pytest.mark.skipif(IS_IMMORTAL, reason="immortal objects are never freed")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_long_lived_object_is_freed_where_it_is_not_immortal(make):
    things = [make() for _ in range(10)]
    references = [weakref.ref(thing) for thing in things]
    things.clear()
    collect()
    assert count_alive(references) == 0


@pytest.mark.skipif(FREE_THREADED, reason="the free-threaded build has deferred or no reference counts")
def test_long_lived_cache_is_freed_without_the_collector_on_the_build_with_the_gil():
    gc.disable()
    try:
        cache = Moka(10, long_lived=True)
        values, alive = watched_values(3)
        for number, value in enumerate(values):
            cache.set(number, value)
        before = sys.getrefcount(cache)
        more = [cache] * 10
        assert sys.getrefcount(cache) == before + len(more)
        more.clear(), values.clear()
        reference = weakref.ref(cache)
        del cache, value
        assert reference() is None and count_alive(alive) == 0
    finally:
        gc.enable()


def test_definition_that_is_not_to_be_long_lived_is_not():
    out = run_script(
        """
        import sys, sysconfig
        from moka_py import cached

        @cached
        def by_default(x):
            return x

        @cached(long_lived=False)
        def ordinary(x):
            return x

        @cached(long_lived=True)
        def asked(x):
            return x

        things = (by_default, by_default.cache, ordinary, ordinary.cache, asked, asked.cache)
        print(*[sys.getrefcount(thing) >= 2**31 for thing in things])
        """
    )
    expected = [True, False, False, False, True, True] if IS_IMMORTAL else [False] * 6
    assert out.split() == [str(each) for each in expected]


def test_clear_releases_what_a_long_lived_cache_holds():
    cache = Moka(100, long_lived=True)
    values, alive = watched_values(50)
    for value in values:
        cache.set(value, [value])
    del value
    values.clear()
    collect()
    assert count_alive(alive) == 50
    cache.clear()
    assert count_alive(alive) == 0
    cache.set("a", 1)
    assert cache.get("a") == 1


def test_cache_clear_releases_the_results_of_a_long_lived_function():
    function = cached(maxsize=100, long_lived=True)(look)
    alive = [weakref.ref(function(number)) for number in range(50)]
    collect()
    assert count_alive(alive) == 50
    function.cache_clear()
    assert count_alive(alive) == 0


def test_collector_leaves_what_a_long_lived_cache_holds():
    cache = Moka(100, long_lived=True)
    for number in range(50):
        value = Value()
        value.held = [value]
        cache.set(number, value)
    alive = weakref.ref(value)
    del value
    collect()
    assert len(cache) == 50 and all(value.held == [value] for value in cache.values())
    cache.clear()
    collect()
    assert alive() is None


def test_init_of_an_ordinary_cache_does_not_make_it_long_lived():
    cache = Moka(10)
    cache.__init__(10, long_lived=True)
    assert not is_immortal(cache)


def test_threads_use_a_long_lived_cache_of_another_thread_that_has_ended():
    cache = run_in_thread(lambda: Moka(50, long_lived=True))
    assert is_immortal(cache) is IS_IMMORTAL

    def use():
        for number in range(3000):
            cache.set(number % 70, [number])
            cache.get(number % 70)
            held = [cache] * 3
            assert held[0] is cache
        return weakref.ref(cache)() is cache

    assert run_threads(use, use, use, gc.collect)[:3] == [True] * 3
    assert len(cache) <= 50


@pytest.mark.parametrize("option", ["function", "decorator"])
@pytest.mark.parametrize("value", [0, 1, "yes", object()], ids=lambda value: type(value).__name__)
def test_option_of_a_cached_function_is_a_bool_or_none(option, value):
    with pytest.raises(TypeError, match=f"^long_lived must be a bool or None, got {type(value).__name__}$"):
        cached(look, long_lived=value) if option == "function" else cached(long_lived=value)


def test_instance_that_other_threads_have_becomes_long_lived():
    """A subclass may hand itself to other threads before it calls the `__init__` of its base."""
    run_script(
        """
        import threading
        from moka_py import Moka

        shared, ended = [None], threading.Event()

        class Published(Moka):
            def __init__(self):
                shared[0] = self
                super().__init__(10, long_lived=True)
                self.set("a", 1)

        def use():
            while not ended.is_set():
                cache = shared[0]
                if cache is not None:
                    held = [cache] * 3
                    cache.get("a")
                    del held, cache

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(2000):
            cache = Published()
            assert cache.get("a") == 1
        ended.set()
        for thread in threads: thread.join()
        """
    )


def test_program_with_long_lived_caches_ends():
    out = run_script(
        """
        import threading
        from moka_py import Moka, cached

        class Value:
            def __init__(self, held): self.held = held

        removed = []
        cache = Moka(20, eviction_listener=lambda *event: removed.append(event), long_lived=True)
        cache.set("itself", cache)

        @cached(maxsize=5, wait_concurrent=True, long_lived=True)
        def function(x):
            return Value(function)

        def use():
            for number in range(100):
                cache.set(number, Value(cache))
                cache.get_with(number, lambda: 1)
                function(number % 9)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print("end")
        """
    )
    assert out == "end\n"
