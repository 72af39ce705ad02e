"""Prepares stubs for griffe, which does not show a function that has only overloads.

Functions in stubs have only overloads. Each gets an implementation after its overloads, with the docstring of the first
one. The site shows the overloads' signatures and that docstring, and not the signature of the implementation.
"""

import ast
from collections.abc import Iterator


def is_overload(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list
    )


def implementation(first: ast.FunctionDef) -> ast.FunctionDef:
    """Return a function with the name and the docstring of an overload."""
    (function,) = ast.parse(f"def {first.name}(*args, **kwargs): ...").body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(first) is not None:
        function.body = first.body[:1]
    return function


def with_each_implementation(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements, with an implementation after each group of overloads that lacks one."""
    first: ast.FunctionDef | None = None
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            node.body = list(with_each_implementation(node.body))
        yield node
        if isinstance(node, ast.FunctionDef) and is_overload(node):
            first = first or node
            if not (isinstance(following, ast.FunctionDef) and following.name == node.name):
                yield implementation(first)
                first = None
        else:
            first = None


def with_implementations(text: str) -> str:
    """Return the text of a stub with implementations, and without comments, which griffe does not read."""
    tree = ast.parse(text)
    tree.body = list(with_each_implementation(tree.body))
    return ast.unparse(ast.fix_missing_locations(tree))
