"""The views that `Moka.values()` and `Moka.items()` return. Their iteration and `in` do not count as accesses.

The views of `collections.abc` would look up each key with `cache[key]`. That counts as an access, restarts the tti of
the entry, and raises `KeyError` if the entry is removed during the iteration. `Moka.keys()` needs no view of its own:
`KeysView` uses `in` and the iterator of the cache, and neither counts as an access.
"""

from collections import abc
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from moka_py import Moka

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ABSENT = object()


def yield_to_interpreter() -> None:
    """Do nothing. At the call the interpreter lets other threads run and handles signals."""


class ValuesView(abc.ValuesView[V]):
    """A live view of the values of a cache."""

    __slots__ = ()
    _mapping: "Moka[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return self._mapping._values_iter()

    def __contains__(self, value: object) -> bool:
        return any(held is value or held == value for held in self)


class ItemsView(abc.ItemsView[K, V]):
    """A live view of the pairs of key and value of a cache."""

    __slots__ = ()
    _mapping: "Moka[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._items_iter()

    def __contains__(self, item: object) -> bool:
        # As for `dict`: an object that is not a pair is not in it.
        if not (isinstance(item, tuple) and len(item) == 2):
            return False
        key, value = item
        held = self._mapping.peek(key, _ABSENT)
        return held is not _ABSENT and (held is value or held == value)
