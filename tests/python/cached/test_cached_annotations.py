"""Libraries read the annotations of a cached function as they do with `functools.wraps`."""

import functools
import inspect
import sys
import typing

import pytest

from moka_py import cached

LAZY = sys.version_info >= (3, 14)
lazy = pytest.mark.skipif(not LAZY, reason="before CPython 3.14 annotations are evaluated eagerly")


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def plain(a: int, b: "list[str]", *, c: float = 1.0) -> bytes:
    """What it does."""
    return b""


async def later(a: int) -> "str":
    return ""


def generic[T](a: T, b: list[T]) -> T:
    return a


class Callable:
    field: int

    def __call__(self, a: int) -> str:
        return ""

    def method(self, a: int) -> str:
        return ""


class Bare:
    pass


def bare(a, b=1):
    return a


WRAPPED = {
    "function": plain,
    "coroutine function": later,
    "generic function": generic,
    "function without annotations": bare,
    "lambda": lambda a: a,
    "partial": functools.partial(plain, 1),
    "class": Callable,
    "class without annotations": Bare,
    "instance": Callable(),
    "bound method": Callable().method,
    "builtin": len,
    "other cached function": cached(plain),
}

QUESTIONS = {
    "annotations": lambda it: it.__annotations__,
    "type parameters": lambda it: it.__type_params__,
    "signature": inspect.signature,
    "evaluated signature": lambda it: inspect.signature(it, eval_str=True),
    "type hints": typing.get_type_hints,
    "hints with extras": lambda it: typing.get_type_hints(it, include_extras=True),
    "inspect": inspect.get_annotations,
    "inspect evaluated": lambda it: inspect.get_annotations(it, eval_str=True),
}
if LAZY:
    import annotationlib

    QUESTIONS["annotate"] = lambda it: it.__annotate__
    for form in (annotationlib.Format.VALUE, annotationlib.Format.FORWARDREF, annotationlib.Format.STRING):
        QUESTIONS[f"annotationlib {form.name}"] = lambda it, form=form: annotationlib.get_annotations(it, format=form)
        QUESTIONS[f"inspect {form.name}"] = lambda it, form=form: inspect.signature(it, annotation_format=form)


def answer(question, it):
    try:
        return question(it)
    except (NameError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("function", WRAPPED.values(), ids=WRAPPED)
def test_types_look_as_on_a_function_of_functools_wraps(function, question):
    assert answer(question, cached(function)) == answer(question, wrapped(function))


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("decorator", [cached, cached(weak_self=True)], ids=["strong", "weak_self"])
@pytest.mark.parametrize("method", [plain, later, bare], ids=lambda it: it.__name__)
def test_types_of_a_bound_method_are_those_of_the_method(method, decorator, question):
    ours = type("Ours", (), {"method": decorator(method)})
    theirs = type("Theirs", (), {"method": wrapped(method)})
    assert answer(question, ours().method) == answer(question, theirs().method)
    assert answer(question, ours.method) == answer(question, theirs.method)


def test_functools_wraps_copies_the_types_of_a_cached_function():
    outer = functools.wraps(cached(plain))(lambda *args: None)
    assert outer.__annotations__ == plain.__annotations__
    assert typing.get_type_hints(outer) == typing.get_type_hints(plain)


def test_annotations_can_be_changed_replaced_and_deleted():
    function = cached(functools.partial(plain, 1))
    function.__annotations__["a"] = int
    assert function.__annotations__ == {"a": int}
    function = cached(bare)
    function.__annotations__ = {"b": str}
    assert function.__annotations__ == {"b": str} and bare.__annotations__ == {}
    del function.__annotations__
    assert function.__annotations__ == {}


def test_missing_attributes_raise_attribute_error():
    function = cached(bare)
    for name in ("annotations", "__annotation__", "__defaults__"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(function, name)


def test_class_of_cached_functions_has_no_annotations_of_a_function():
    kind = type(cached(bare))
    assert inspect.get_annotations(kind) == {}
    assert typing.get_type_hints(kind) == {}
    function = cached(functools.partial(plain, 1))
    function.__annotations__["a"] = int
    assert cached(functools.partial(plain, 1)).__annotations__ == {} == inspect.get_annotations(kind)


@lazy
def test_forward_reference_is_resolved_lazily():
    space = {"cached": cached, "wrapped": wrapped}
    exec("@cached\ndef ours(a: Later) -> Later: ...\n@wrapped\ndef theirs(a: Later) -> Later: ...", space)
    ours, theirs = space["ours"], space["theirs"]
    for ask in (lambda it: it.__annotations__, typing.get_type_hints, inspect.get_annotations):
        for function in (ours, theirs):
            with pytest.raises(NameError, match="Later"):
                ask(function)
    forward = annotationlib.get_annotations(ours, format=annotationlib.Format.FORWARDREF)
    assert forward["a"].__forward_arg__ == "Later"
    assert annotationlib.get_annotations(ours, format=annotationlib.Format.STRING) == {"a": "Later", "return": "Later"}
    space["Later"] = bytes
    for function in (ours, theirs):
        assert function.__annotations__ == {"a": bytes, "return": bytes}
        assert typing.get_type_hints(function) == {"a": bytes, "return": bytes}


@lazy
def test_attribute_error_of_an_annotation_is_raised():
    space = {"cached": cached, "math": __import__("math")}
    exec("@cached\ndef function(a: math.missing): ...", space)
    with pytest.raises(AttributeError, match="missing"):
        _ = space["function"].__annotations__


@lazy
def test_replaced_annotate_function_computes_the_annotations():
    function = cached(plain)
    function.__annotate__ = lambda form: {"a": str}
    assert function.__annotations__ == {"a": str}
    assert annotationlib.get_annotations(function) == {"a": str}
    function.__annotate__ = None
    assert function.__annotations__ == {}
    assert plain.__annotations__["a"] is int


def test_single_dispatch_registers_by_the_annotation():
    @functools.singledispatch
    def kind(value):
        return "other"

    @kind.register
    @cached
    def _(value: int):
        return "int"

    assert (kind(1), kind("")) == ("int", "other")


def test_cached_function_over_a_pydantic_function_validates():
    pydantic = pytest.importorskip("pydantic")

    @cached
    @pydantic.validate_call
    def function(a: int) -> int:
        return a

    assert function("1") == 1
    assert function.__annotations__ == {"a": int, "return": int}
