"""Readies stubs for griffe, which shows no function that has overloads alone, as they have in a stub.

Each such function gets an implementation after its overloads, with the docstring that the first of them has. The site
shows the overloads' signatures and that docstring, and not the implementation's own signature.
"""

import ast
from collections.abc import Iterator


def is_overload(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list
    )


def implementation(first: ast.FunctionDef) -> ast.FunctionDef:
    """A function named like an overload, with its docstring."""
    (made,) = ast.parse(f"def {first.name}(*args, **kwargs): ...").body
    assert isinstance(made, ast.FunctionDef)
    if ast.get_docstring(first) is not None:
        made.body = first.body[:1]
    return made


def completed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, with an implementation after each group of overloads that lacks one."""
    first: ast.FunctionDef | None = None
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            node.body = list(completed(node.body))
        yield node
        if isinstance(node, ast.FunctionDef) and is_overload(node):
            first = first or node
            if not (isinstance(following, ast.FunctionDef) and following.name == node.name):
                yield implementation(first)
                first = None
        else:
            first = None


def with_implementations(text: str) -> str:
    """The text of a stub, completed. Comments go, since griffe reads none."""
    tree = ast.parse(text)
    tree.body = list(completed(tree.body))
    return ast.unparse(ast.fix_missing_locations(tree))
