"""`cached` on plain functions: decorated objects, attributes, errors.

Threads are in test_cached_threads.py, coroutine functions in test_cached_async.py.
"""

import copy
import datetime
import functools
import gc
import inspect
import pickle
import re
import weakref

import pytest
from cached_helpers import both_wait_modes, recording_function

from moka_py import Moka, cached

# Decorated objects.


def test_decorator_without_parentheses_caches():
    runs = []

    @cached
    def double(x):
        runs.append(x)
        return 2 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    assert runs == [1, 2]
    assert double.cache_info().maxsize == 128


def test_cached_takes_a_function_and_options_in_one_call():
    double = cached(lambda x: 2 * x, typed=True, ttl=60)
    assert double(2) == 4
    assert double.cache_parameters()["typed"] is True
    assert double.cache.ttl == 60.0


def test_each_function_of_one_decorator_has_its_own_cache():
    decorator = cached(maxsize=4)
    f, g = decorator(lambda x: ("f", x)), decorator(lambda x: ("g", x))
    assert (f(1), g(1)) == (("f", 1), ("g", 1))
    assert f.cache is not g.cache


@both_wait_modes
def test_cached_function_has_the_metadata_of_the_function(wait):
    def area(width: int, /, height: int = 1, *, unit: str = "m") -> str:
        """The area."""
        return f"{width * height} {unit}"

    area.author = "an author"
    wrapper = cached(wait_concurrent=wait)(area)
    assert wrapper.__wrapped__ is area
    assert (wrapper.__name__, wrapper.__doc__, wrapper.__module__) == ("area", "The area.", __name__)
    assert wrapper.__qualname__ == area.__qualname__
    assert wrapper.__annotations__ == area.__annotations__
    assert inspect.signature(wrapper) == inspect.signature(area)
    assert wrapper.author == "an author"
    assert wrapper(2, 3, unit="km") == "6 km"


def test_cached_function_over_another_has_its_own_cache():
    inner = cached(maxsize=1)(lambda x: object())
    outer = cached(maxsize=2)(inner)
    assert outer.cache is not inner.cache
    assert outer(1) is outer(1) is inner(1)
    assert outer.cache_info() == (1, 1, 2, 1)


@both_wait_modes
def test_methods_static_methods_and_class_methods_can_be_cached(wait):
    class Place:
        def __init__(self, number):
            self.number = number

        @cached(wait_concurrent=wait)
        def plus(self, x):
            """Adds."""
            return [self.number + x]

        @staticmethod
        @cached(wait_concurrent=wait)
        def static(x):
            return [x]

        @classmethod
        @cached(wait_concurrent=wait)
        def of_class(cls, x):
            return [cls, x]

        @property
        @cached(wait_concurrent=wait)
        def twice(self):
            return [self.number * 2]

    one, two = Place(1), Place(2)
    assert one.plus(1) == [2] and two.plus(1) == [3]
    assert one.plus(1) is one.plus(1) is Place.plus(one, 1)
    assert one.plus(1) is not two.plus(1)
    assert one.plus.__doc__ == "Adds."
    assert one.plus.cache_info() == Place.plus.cache_info()
    assert Place.static(1) is one.static(1) and one.static(1) == [1]
    assert Place.of_class(1) is one.of_class(1) and one.of_class(1) == [Place, 1]
    assert one.twice is one.twice and two.twice == [4]


def test_builtins_partials_classes_and_callable_objects_can_be_cached():
    class Adder:
        def __call__(self, x):
            return [x + 1]

    adder = cached(Adder())
    assert adder(1) is adder(1) and adder(1) == [2]
    assert cached(max)(1, 5, 3) == 5
    partial = cached(functools.partial(lambda x, y: [x, y], 1))
    assert partial(2) is partial(2) and partial(2) == [1, 2]
    number = cached(complex)
    assert number(1, 2) is number(1, 2) and number(1, 2) == 1 + 2j


@cached
def by_name(x):
    return x


def test_pickle_and_copy_return_the_same_function():
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert copy.copy(by_name) is by_name
    assert copy.deepcopy(by_name) is by_name
    assert weakref.ref(by_name)() is by_name


# Attributes.


@both_wait_modes
def test_cache_clear_resets_the_counts_of_cache_info(wait):
    function, runs = recording_function(maxsize=8, wait_concurrent=wait)
    assert function.cache_info() == (0, 0, 8, 0)
    for x in (1, 1, 2, 1):
        function(x)
    info = function.cache_info()
    assert (info.hits, info.misses, info.maxsize, info.currsize) == (2, 2, 8, 2)
    assert function.cache_info() == info
    assert repr(info) == "CacheInfo(hits=2, misses=2, maxsize=8, currsize=2)"
    function.cache_clear()
    assert function.cache_info() == (0, 0, 8, 0)
    function(1)
    assert function.cache_info() == (0, 1, 8, 1)
    assert len(runs) == 3


def test_cache_parameters_are_a_copy_of_the_options():
    ttl = datetime.timedelta(seconds=5)
    expected = {
        "maxsize": 3,
        "typed": True,
        "ttl": ttl,
        "tti": 2,
        "wait_concurrent": True,
        "weak_self": False,
        "policy": "lru",
        "weigher": lambda key, value: 1,
        "key": None,
        "errors": None,
        "error_ttl": None,
        "long_lived": False,
        "refresh": None,
        "executor": None,
    }
    function, _ = recording_function(**expected)
    assert function.cache_parameters() == expected
    function.cache_parameters()["maxsize"] = 4
    assert function.cache_parameters() == expected


def test_cache_parameters_have_each_option():
    def key(*args):
        return args

    parameters = recording_function(key=key, weak_self=True)[0].cache_parameters()
    assert list(parameters) == list(inspect.signature(cached).parameters)
    assert parameters["key"] is key and parameters["weak_self"] is True
    assert recording_function()[0].cache_parameters()["maxsize"] == 128


def test_all_instances_share_the_cache_of_a_method():
    class Service:
        @cached(maxsize=2, policy="lru")
        def method(self):
            return object()

    one, other, third = Service(), Service(), Service()
    kept = [one.method(), other.method(), third.method()]
    assert Service.method.cache_info().currsize == 2
    assert other.method() is kept[1] and one.method() is not kept[0]


DESCRIPTORS = [
    classmethod,
    staticmethod,
    property,
    functools.partialmethod,
    functools.cached_property,
    functools.singledispatchmethod,
]


@pytest.mark.parametrize("kind", DESCRIPTORS)
@pytest.mark.parametrize("decorate", [cached, cached(), cached(maxsize=3), cached(wait_concurrent=True)])
def test_cached_above_a_method_decorator_raises_an_error_with_the_right_order(kind, decorate):
    name = kind.__name__
    text = f"^@cached must be below @{name}, directly above the function, got {name}$"
    for function in (lambda self: 1, unused_coroutine):
        with pytest.raises(TypeError, match=text):
            decorate(kind(function))


async def unused_coroutine(self):
    return 1


@pytest.mark.parametrize("options", [{}, {"wait_concurrent": True}, {"weak_self": True}])
def test_typed_with_key_is_refused(options):
    text = f"typed must be False if key makes the keys, got typed=True and key={len!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        cached(typed=True, key=len, **options)
    with pytest.raises(ValueError, match="typed must be False"):
        cached(lambda x: x, True, key=len, **options)


def test_cache_attribute_is_the_underlying_moka():
    function, runs = recording_function(maxsize=7, policy="lru")
    assert isinstance(function.cache, Moka)
    assert (function.cache.capacity, function.cache.policy) == (7, "lru")
    function("x")
    function.cache.remove("x")
    function("x")
    assert len(runs) == 2


def test_cache_clear_releases_values():
    class Value:
        pass

    function = cached(lambda x: Value())
    gone = weakref.ref(function(1))
    assert gone() is not None
    function.cache_clear()
    function.cache.run_pending_tasks()
    assert gone() is None


@both_wait_modes
def test_cycle_through_the_cache_is_collected(wait):
    class Owner:
        def __init__(self):
            self.own = cached(wait_concurrent=wait)(lambda x: self)
            self.own(1)

    gone = weakref.ref(Owner())
    gc.collect()
    assert gone() is None


# Errors.


@both_wait_modes
def test_exception_is_raised_unchanged_and_not_cached(wait):
    errors = [KeyError("a"), StopIteration(), KeyboardInterrupt()]
    left = list(errors)

    @cached(wait_concurrent=wait)
    def function(x):
        if left:
            raise left.pop(0)
        return "fine"

    for error in errors:
        with pytest.raises(type(error)) as caught:
            function(1)
        assert caught.value is error
        assert error.__context__ is None and error.__cause__ is None
    assert function(1) == "fine"
    assert function.cache_info() == (0, 4, 128, 1)


WRONG = [
    ({"maxsize": 1.5}, TypeError, "maxsize must be an int, None or the function to cache, got float"),
    ({"maxsize": "8"}, TypeError, "maxsize must be an int, None or the function to cache, got str"),
    ({"typed": 5.0}, TypeError, "typed must be a bool, got float"),
    ({"wait_concurrent": None}, TypeError, "wait_concurrent must be a bool, got NoneType"),
    ({"ttl": "1"}, TypeError, "ttl must be a number of seconds, a timedelta or a function, got str"),
    ({"tti": []}, TypeError, "tti must be a number of seconds or a timedelta, got list"),
    ({"ttl": 0}, ValueError, "ttl must be positive and finite, got 0"),
    ({"tti": -1}, ValueError, "tti must be positive and finite, got -1"),
    ({"ttl": float("nan")}, ValueError, "ttl must be positive and finite, got nan"),
    ({"ttl": float("inf"), "maxsize": 0}, ValueError, "ttl must be positive and finite, got inf"),
    ({"policy": "fifo"}, ValueError, "policy must be"),
    ({"policy": 1}, TypeError, "policy must be"),
    ({"weigher": 3}, TypeError, "weigher must be callable, got int"),
    ({"weigher": 3, "maxsize": 0}, TypeError, "weigher must be callable, got int"),
    ({"size": 3}, TypeError, "size"),
]


@pytest.mark.parametrize(("options", "kind", "text"), WRONG, ids=[str(options) for options, _, _ in WRONG])
def test_wrong_option_raises_at_decoration(options, kind, text):
    with pytest.raises(kind, match=text):
        cached(**options)
    if "maxsize" not in options:
        with pytest.raises(kind, match=text):
            cached(lambda: None, **options)


def test_function_that_cannot_be_cached_raises_at_decoration():
    def generator():
        yield 1

    async def async_generator():
        yield 1

    class Generator:
        def __call__(self):
            yield 1

    for function in (generator, async_generator, functools.partial(generator), Generator()):
        for decorate in (cached, cached(), cached(maxsize=0, wait_concurrent=True)):
            with pytest.raises(TypeError, match="generator"):
                decorate(function)
    with pytest.raises(TypeError, match="callable, got int"):
        cached()(3)
    with pytest.raises(TypeError, match="got classmethod"):
        cached(classmethod(lambda cls: cls))
