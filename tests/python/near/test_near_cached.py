"""Functions whose results are in a near cache."""

import inspect

import pytest
from near.near_caches import payload, settle

from moka_py.near import NearCache


@pytest.fixture
def near_class():
    """Return the class for functions. Cached coroutine functions are tested in test_async_calls.py."""
    return NearCache


@pytest.fixture
def cache(client, near, namespace):
    return near(client, namespace)


@pytest.fixture
def runs():
    return []


@pytest.fixture
def square(cache, runs):
    @cache.cached(key=lambda number, power=2: f"{number}^{power}")
    def square(number: int, power: int = 2) -> list[int]:
        """Return a power in a list."""
        runs.append(number)
        return [number**power]

    return square


def test_a_result_is_computed_once_and_kept_on_the_server(square, runs, client, namespace):
    assert square(3) == square(3) == square(number=3) == [9]
    assert square(3, power=3) == square(3, 3) == [27]
    assert runs == [3, 3]
    assert client.get(f"{namespace}:3^2") == payload("[9]")
    assert 0 < client.pttl(f"{namespace}:3^2") <= 300_000


def test_a_hit_is_local(square, cache, client, namespace):
    square(3)
    settle(cache, client, namespace)
    assert square(3) is square(3)


def test_the_function_keeps_its_name_and_signature(square):
    assert (square.__name__, square.__doc__) == ("square", "Return a power in a list.")
    assert str(inspect.signature(square)) == "(number: int, power: int = 2) -> list[int]"
    assert square.__wrapped__(4) == [16]


def test_the_attributes_take_the_arguments_of_a_call(square, cache, runs):
    assert square.cache is cache
    assert square.cache_key(3, power=4) == "3^4"
    assert not square.cache_contains(3)
    assert not square.cache_invalidate(3)
    square(3)
    assert square.cache_contains(3)
    assert square.cache_invalidate(number=3)
    assert not square.cache_contains(3)
    assert square(3) == [9]
    assert runs == [3, 3]


def test_a_result_has_the_ttl_of_the_decorator(cache, client, namespace):
    @cache.cached(key=str, ttl=5)
    def short(number):
        return number

    @cache.cached(key=lambda number: -number, ttl=None)
    def endless(number):
        return number

    assert (short(1), endless(1)) == (1, 1)
    assert 0 < client.pttl(f"{namespace}:1") <= 5_000
    assert client.pttl(f"{namespace}:-1") == -1


def test_an_exception_is_not_kept(cache, runs):
    @cache.cached(key=str)
    def fail(number):
        runs.append(number)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail(1)
    assert runs == [1, 1]
    assert not fail.cache_contains(1)


def test_none_is_a_result(cache, runs):
    @cache.cached(key=str)
    def nothing(number):
        runs.append(number)

    assert nothing(1) is nothing(1) is None
    assert runs == [1]


def test_a_method_gets_its_instance(cache):
    class Shop:
        def __init__(self, name):
            self.name = name

        @cache.cached(key=lambda self, product: f"{self.name}:{product}")
        def price(self, product):
            return f"{product} of {self.name}"

        @staticmethod
        @cache.cached(key=lambda product: product)
        def kind(product):
            return f"kind of {product}"

    assert Shop("a").price("x") == Shop("a").price("x") == "x of a"
    assert Shop("b").price("x") == "x of b"
    assert Shop.kind("x") == Shop("a").kind("x") == "kind of x"


@pytest.mark.parametrize("key", [None, 1.5, True, ("a",)])
def test_the_key_function_must_return_a_key(cache, key):
    @cache.cached(key=lambda: key)
    def function():
        return 1

    with pytest.raises(TypeError, match="key must be a str, bytes or int"):
        function()


def test_a_recursive_function_may_use_other_keys(cache):
    @cache.cached(key=str)
    def factorial(number):
        return number * factorial(number - 1) if number else 1

    assert factorial(10) == 3_628_800
    assert factorial.cache_contains(5)


def test_wrong_uses_are_refused(cache):
    async def coroutine():
        return 1

    def generator():
        yield 1

    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'key'"):
        cache.cached()
    with pytest.raises(TypeError, match="key must be callable, got str"):
        cache.cached(key="k")
    for wrong in (staticmethod(len), property(len), 1):
        with pytest.raises(TypeError, match="cached needs a function, directly below it"):
            cache.cached(key=str)(wrong)
    with pytest.raises(TypeError, match=r"cached needs a function, got .*: use AsyncNearCache\.cached"):
        cache.cached(key=str)(coroutine)
    with pytest.raises(TypeError, match="a generator function"):
        cache.cached(key=str)(generator)


def test_after_close_a_cached_function_raises(client, namespace):
    with NearCache(client, namespace, ttl=1) as cache:
        function = cache.cached(key=str)(lambda number: number)
        assert function(1) == 1
    with pytest.raises(ValueError, match="the near cache is closed"):
        function(1)
