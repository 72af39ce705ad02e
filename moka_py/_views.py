"""What `Moka.values()` and `Moka.items()` return: views whose iteration and `in` are no accesses.

The views of `collections.abc` would look up each key with `cache[key]`, which refreshes its idle time, and
raise `KeyError` where an entry leaves meanwhile. `Moka.keys()` needs nothing of its own: `KeysView` uses `in` and
the iterator of the cache, and neither is an access.
"""

from collections import abc
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from moka_py import Moka

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ABSENT = object()


def rest() -> None:
    """Nothing: at its call the interpreter looks whether other threads wait, or a signal."""


class ValuesView(abc.ValuesView[V]):
    """The values of a cache, as they are when it is asked."""

    __slots__ = ()
    _mapping: "Moka[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return self._mapping._values_iter()

    def __contains__(self, value: object) -> bool:
        return any(held is value or held == value for held in self)


class ItemsView(abc.ItemsView[K, V]):
    """The pairs of a cache, as they are when it is asked."""

    __slots__ = ()
    _mapping: "Moka[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._items_iter()

    def __contains__(self, item: object) -> bool:
        # As for `dict`: what is no pair is not in it.
        if not (isinstance(item, tuple) and len(item) == 2):
            return False
        key, value = item
        held = self._mapping._peek(key, _ABSENT)
        return held is not _ABSENT and (held is value or held == value)
