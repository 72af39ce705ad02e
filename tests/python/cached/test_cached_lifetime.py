"""A cached function lives as long as it is referenced, or as long as the program if its definition is decorated."""

import functools
import sys
import weakref

import pytest
from helpers import FREE_THREADED, Value, collect, count_alive, run_in_thread, run_script

from moka_py import cached


def look(x):
    return Value()


async def look_later(x):
    return Value()


def by_helper(function):
    return cached(function)


class Plain:
    def look(self, x):
        return Value()


class Wrapping:
    def __init__(self, options):
        self.look = cached(**options)(look)


class WrappingItsMethod(Plain):
    def __init__(self):
        self.look = cached(maxsize=10)(self.look)


def of_nested_function():
    @cached
    def nested(x):
        return Value()

    return nested


MAKERS = {
    "module's function in __init__": lambda: Wrapping({"maxsize": 10}).look,
    "module's function, shared runs": lambda: Wrapping({"wait_concurrent": True}).look,
    "module's function by a helper": lambda: by_helper(look),
    "lambda": lambda: cached(lambda x: Value()),
    "nested function": of_nested_function,
    "bound method": lambda: cached(Plain().look),
    "method of an instance in its __init__": lambda: WrappingItsMethod().look,
    "partial": lambda: cached(functools.partial(look)),
    "builtin": lambda: cached(iter),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_functions_that_are_cached_repeatedly_leave_nothing_behind(make):
    # After the first thread starts, CPython 3.13t makes functions of modules and classes immortal.
    run_in_thread(lambda: None)
    functions, values = [], []
    for _ in range(20):
        function = make()
        functions.append(weakref.ref(function))
        for x in ("a", "b"):
            value = function(x)
            if isinstance(value, Value):
                values.append(weakref.ref(value))
    del function, value
    collect()
    assert count_alive(functions) == count_alive(values) == 0


def test_coroutine_functions_that_are_cached_repeatedly_leave_nothing_behind():
    run_in_thread(lambda: None)
    functions, values = [], []
    for _ in range(20):
        function = cached(maxsize=10)(look_later)
        with pytest.raises(StopIteration) as stopped:
            function(1).send(None)
        functions.append(weakref.ref(function))
        values.append(weakref.ref(stopped.value.value))
    del function, stopped
    collect()
    assert count_alive(functions) == count_alive(values) == 0


def test_module_that_caches_functions_in_a_loop_leaves_nothing_behind():
    out = run_script(
        """
        import gc, threading, weakref
        from moka_py import cached

        threading.Thread(target=int).start()

        class Value:
            pass

        def look(x):
            return Value()

        made = []
        for _ in range(50):
            function = cached(look)
            made += [weakref.ref(function), weakref.ref(function(1))]
            function = cached(maxsize=5)(lambda x: Value())
            made += [weakref.ref(function), weakref.ref(function(1))]
        del function
        gc.collect()
        print(sum(reference() is not None for reference in made))
        """
    )
    assert out == "0\n"


DEFINED = """
    import gc, sys, weakref
    from moka_py import cached

    class Value:
        pass

    @cached
    def alone(x):
        return Value()

    @cached(maxsize=5)
    def with_options(x):
        return Value()

    class Thing:
        @cached
        def method(self):
            return Value()

        class Inner:
            @cached
            def method(self):
                return Value()

    thing, inner = Thing(), Thing.Inner()
    results = [weakref.ref(result) for result in (alone(1), with_options(1), thing.method(), inner.method())]
    functions = (alone, with_options, Thing.method, Thing.Inner.method)
"""


def test_results_of_an_immortal_function_are_released():
    script = (
        DEFINED
        + """
    for function in functions:
        function.cache_clear()
        function.cache.run_pending_tasks()
    gc.collect()
    print(sum(result() is not None for result in results))
    """
    )
    assert run_script(script) == "0\n"


@pytest.mark.skipif(not FREE_THREADED or sys.version_info >= (3, 14), reason="only CPython 3.13t needs immortality")
def test_function_decorated_at_its_definition_is_immortal_on_free_threaded_3_13():
    # An immortal object has such a reference count.
    script = DEFINED + "    print(all(sys.getrefcount(function) >= 2**31 for function in functions))\n"
    assert run_script(script) == "True\n"
