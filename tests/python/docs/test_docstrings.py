"""The text that `help()` shows is the text of the stub, which editors and type checkers show."""

import ast
import inspect
import re
from pathlib import Path
from types import MethodDescriptorType, WrapperDescriptorType

import pytest

import moka_py
from moka_py import _moka_py, testing

STUB = ast.parse((Path(moka_py.__file__).parent / "_moka_py.pyi").read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
# Of the methods of Moka by which the interpreter asks, such as `__len__`, `help()` shows a text of CPython.
PUBLIC = sorted(name for name in vars(_moka_py.Moka) if not name.startswith("_"))


def stub_docs(class_name):
    """The docstring of each method and property of a class in the stub. Of overloads the first one has it."""
    docs = {}
    for node in CLASSES[class_name].body:
        if isinstance(node, ast.FunctionDef):
            docs.setdefault(node.name, ast.get_docstring(node))
    return docs


def test_class_has_the_docstring_of_the_stub():
    assert inspect.getdoc(_moka_py.Moka) == ast.get_docstring(CLASSES["Moka"])
    assert inspect.getdoc(testing.ManualClock) == ast.get_docstring(CLASSES["ManualClock"])
    assert inspect.getdoc(testing.ManualClock.advance) == stub_docs("ManualClock")["advance"]


@pytest.mark.parametrize("name", PUBLIC)
def test_method_has_the_docstring_of_the_stub(name):
    assert inspect.getdoc(getattr(_moka_py.Moka, name)) == stub_docs("Moka")[name] is not None


def test_stub_has_a_docstring_of_each_method():
    private = {"__new__", "__init__", "_items_iter", "_values_iter", "_counts"}
    assert {name for name, doc in stub_docs("Moka").items() if doc is None} == private


def test_docstrings_that_help_does_not_show_are_those_of_slots():
    for name, doc in stub_docs("Moka").items():
        member = inspect.getattr_static(_moka_py.Moka, name)
        if doc is not None and inspect.getdoc(getattr(_moka_py.Moka, name)) != doc:
            is_slot = isinstance(member, WrapperDescriptorType | MethodDescriptorType)
            assert name.startswith("__") and is_slot, name


@pytest.mark.parametrize("name", [name for name, doc in stub_docs("Moka").items() if doc])
def test_docstring_has_the_common_form(name):
    doc = stub_docs("Moka")[name]
    first, *rest = doc.split("\n")
    assert re.match(r"[A-Z].*[.:]$", first), first
    sections = [line for line in rest if re.fullmatch(r"(Args|Returns|Raises):", line)]
    assert sections == sorted(sections, key=["Args:", "Returns:", "Raises:"].index)
    # Each parameter is described, and nothing else.
    if "Args:" in sections:
        described = re.search(r"^Args:\n((?:    .*\n?)+)", doc, re.MULTILINE)[1]
        overloads = [node for node in CLASSES["Moka"].body if getattr(node, "name", None) == name]
        parameters = {arg.arg for node in overloads for arg in node.args.posonlyargs + node.args.args} - {"self"}
        parameters |= {f"**{node.args.kwarg.arg}" for node in overloads if node.args.kwarg}
        assert set(re.findall(r"^    (\S+):", described, re.MULTILINE)) == parameters


@pytest.mark.parametrize("name", moka_py.__all__)
def test_each_public_name_that_can_have_a_docstring_has_one(name):
    value = getattr(moka_py, name)
    assert isinstance(value, str) or inspect.getdoc(value)
