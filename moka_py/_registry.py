"""The cached functions that are alive, for programs that clear them all.

How it works: a dict holds a weak reference to each cached function, in the order in which they were made. The callback
of a reference removes it. A reader copies the dict first.

Invariants:
- `unlocked`: each operation on the dict is one call that CPython makes atomic on every build. A lock would not do: the
  collector may run a callback in the thread that holds it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moka_py._cached import CachedFunction

_functions: dict[weakref.ref[Any], None] = {}


def register(function: Any) -> None:
    """Add a cached function for as long as it lives."""
    _functions[weakref.ref(function, _functions.pop)] = None


def cached_functions(package: str | None = None) -> list[CachedFunction[..., Any]]:
    """Return the cached functions that are alive, those made first at the beginning.

    Functions are not kept alive for this. Other threads may make functions meanwhile, which are in the list or not.

    Args:
        package: The name of a module or package, such as `"shop"`. Then the list has only functions whose `__module__`
            is that module, or is inside that package. None means all.

    Returns:
        A new list.

    Raises:
        TypeError: If package is neither a str nor None.
    """
    if package is not None and not isinstance(package, str):
        raise TypeError(f"package must be a str or None, got {type(package).__name__}")
    alive = [function for function in [reference() for reference in _functions.copy()] if function is not None]
    if package is None:
        return alive
    inside = f"{package}."
    return [function for function in alive if f"{function.__module__}.".startswith(inside)]
