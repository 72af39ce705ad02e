"""The types that the package exports for cached functions, and libraries that inspect types."""

import abc
import dataclasses
import doctest
import enum
import functools
import inspect
import pydoc
import types
import typing
from unittest import mock

import pytest

import moka_py
from moka_py import CachedFunction, CachedMethod, CacheInfo, Moka, Stats, cached


@cached
def function(x: int) -> str:
    """What it does."""
    return str(x)


@cached
async def later(x):
    return x


class Thing:
    @cached
    def method(self, x):
        return x

    @cached(weak_self=True)
    async def later(self, x):
        return x

    def plain(self, x):
        return x

    kept = functools.lru_cache(plain)

    @staticmethod
    @cached
    def static(x):
        return x


FUNCTIONS = [function, later, Thing.method, Thing().static, cached(len), cached(functools.partial(int, "1"))]
METHODS = [Thing().method, Thing().later]
OTHERS = [function.__wrapped__, Thing().plain, Thing().kept, Thing.kept, len, [].append, int, 1, None, Moka(1), Thing]


def test_isinstance_recognizes_cached_functions_and_methods():
    assert [isinstance(it, CachedFunction) for it in FUNCTIONS] == [True] * len(FUNCTIONS)
    assert [isinstance(it, CachedMethod) for it in METHODS] == [True] * len(METHODS)
    assert not any(isinstance(it, CachedMethod) for it in FUNCTIONS + OTHERS)
    assert not any(isinstance(it, CachedFunction) for it in METHODS + OTHERS)
    assert isinstance(function.cache_info(), CacheInfo)
    assert isinstance(function.cache.stats(), Stats)


@pytest.mark.parametrize("kind", [CachedFunction, CachedMethod])
def test_types_can_be_subscripted_but_not_called(kind):
    assert typing.get_args(kind[[int], str]) == ((int,), str)
    assert typing.get_origin(kind[..., int]) is kind
    with pytest.raises(TypeError):
        kind()


def test_package_exports_its_types_and_help_shows_them():
    assert set(moka_py.__all__) == {
        *("VERSION", "CacheInfo", "CachedFunction", "CachedMethod", "Moka", "Stats", "cached", "cached_functions"),
    }
    text = pydoc.render_doc(moka_py, renderer=pydoc.plaintext)
    for name in ("CacheInfo", "CachedFunction", "CachedMethod", "Moka", "Stats"):
        assert f"class {name}(" in text
    assert "Remove the result of these arguments" in text


# Libraries that inspect functions.


def test_help_and_inspect_treat_a_cached_function_as_a_function():
    assert inspect.isroutine(function)
    text = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert "function(x: int) -> str" in text and "What it does." in text
    assert inspect.getsource(function).startswith("@cached\ndef function")
    kinds = {it.name: it.kind for it in inspect.classify_class_attrs(Thing)}
    assert (kinds["method"], kinds["static"]) == ("method", "static method")


def test_doctest_finds_the_examples_of_a_cached_function():
    module = types.ModuleType("module")
    exec("def made(x):\n  '''\n  >>> 1\n  1\n  '''", module.__dict__)
    module.made = cached(module.made)
    found = {it.name: len(it.examples) for it in doctest.DocTestFinder().find(module, "module")}
    assert found == {"module.made": 1}


def test_mock_can_patch_a_cached_function():
    double = mock.create_autospec(Thing)
    double.return_value.method.return_value = 5
    assert double().method(1) == 5
    with pytest.raises(AttributeError):
        _ = double().missing
    with mock.patch.object(Thing, "method", autospec=True) as patched:
        Thing().method(3)
    assert patched.call_count == 1 and Thing().method(4) == 4
    with mock.patch.object(function, "cache_clear") as patched:
        function.cache_clear()
    assert patched.call_count == 1


def test_methods_of_generated_classes_can_be_cached():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Data:
        a: int

        @cached
        def method(self, x):
            return self.a + x

    class Named(typing.NamedTuple):
        a: int

        @cached
        def method(self, x):
            return self.a + x

    class Choice(enum.Enum):
        A = 1

        @cached
        def method(self, x):
            return self.value + x

    class Base(abc.ABC):
        @cached
        @abc.abstractmethod
        def method(self, x): ...

    class Derived(Base):
        @cached
        def method(self, x):
            return 1 + x

    assert [one.method(2) for one in (Data(1), Named(1), Choice.A, Derived()) for _ in range(2)] == [3] * 8
    assert [it.name for it in dataclasses.fields(Data)] == ["a"] and list(Choice) == [Choice.A]
    with pytest.raises(TypeError, match="abstract"):
        Base()


def test_singledispatch_works_above_and_below_cached():
    over = cached(functools.singledispatch(lambda x: "other"))
    over.__wrapped__.register(int)(lambda x: "int")
    assert (over(1), over("")) == ("int", "other")

    class Dispatching:
        @functools.singledispatchmethod
        def kind(self, x):
            return "other"

        @kind.register
        @cached
        def _(self, x: int):
            return "int"

    assert (Dispatching().kind(1), Dispatching().kind("")) == ("int", "other")


def test_method_of_a_pydantic_model_can_be_cached():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=True, ignored_types=(CachedFunction,))

        a: int

        @cached
        def method(self, x: int) -> int:
            return self.a + x

        @cached(weak_self=True)
        def weak(self, x: int) -> int:
            return self.a + x

        @property
        @cached
        def double(self) -> int:
            return 2 * self.a

        @classmethod
        @cached
        def of_class(cls) -> str:
            return cls.__name__

    one = Model(a=1)
    assert [one.method(2), one.method(2), one.weak(2), one.weak(2), one.double, one.of_class()] == [
        3,
        3,
        3,
        3,
        2,
        "Model",
    ]
    assert list(Model.model_fields) == ["a"] and one.model_dump() == {"a": 1}
    assert one.method.cache_info() == (1, 1, 128, 1)


def test_method_of_an_attrs_class_can_be_cached():
    attrs = pytest.importorskip("attrs")

    @attrs.frozen
    class Data:
        a: int

        @cached
        def method(self, x):
            return self.a + x

        @cached(weak_self=True)
        def weak(self, x):
            return self.a + x

    assert (Data(1).method(2), Data(1).weak(2)) == (3, 3)
