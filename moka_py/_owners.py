"""The owners of a method cached with `weak_self`: an owner stands for an instance in the keys while the instance lives.

How it works: a registry maps the address of an instance to its `_Owner`, which has a weak reference to the instance.
When the instance dies, the callback of that reference removes the owner and its entries. An address can be reused, so a
look-up checks that the owner refers to that very instance.

The callback alone is not enough. CPython 3.13.15 and later clear the weak references to garbage twice: before the
finalizers run, with callbacks, and again afterwards, without. So an owner that a finalizer's call makes gets no
callback. Therefore owners that are made during a collection are checked when the collection has ended.

Invariants:
- `removed`: an owner whose instance is gone has no entries, at the latest when the collection that freed it ends.
- `own`: a callback removes the entries of its own owner. If two threads make two owners for one instance, both are
  removed with it. The owner that is not in the registry costs one miss.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from moka_py._moka_py import Moka, _Owner, _OwnerRegistry

_is_collecting = False
"""Whether a collection is under way, in any thread."""
_checks_after_collection: list[Callable[[], None]] = []
"""A check for each owner that was made during the collection."""


def _watch_collector(phase: str, _info: Any) -> None:
    """Run the checks when a collection ends, as one of `gc.callbacks`."""
    global _is_collecting
    if phase == "start":
        _is_collecting = True
        return
    while _checks_after_collection:
        _checks_after_collection.pop()()
    _is_collecting = False


def owner_factory(cache: Moka[Any, Any], owners: _OwnerRegistry) -> Callable[[object], _Owner]:
    """Return the function that makes the owner of an instance, for a cached method with this registry."""
    if _watch_collector not in gc.callbacks:
        gc.callbacks.append(_watch_collector)
    # Not a nested function. On CPython 3.13t a read of its variables takes a lock that all calls share, and a fork may
    # leave such a lock taken in the child.
    return partial(_make_owner, cache, owners)


def _make_owner(cache: Moka[Any, Any], owners: _OwnerRegistry, instance: object) -> _Owner:
    """Return the owner of an instance, registered for as long as the instance lives.

    Raises:
        TypeError: The instance cannot be weakly referenced.
    """
    address = id(instance)
    # Owners refer to the callbacks, and the registry and the keys refer to owners. So a callback refers weakly to
    # these: then a function that is dropped needs no collector. The references are made each time, because those to
    # a registry that a finalizer revived are cleared.
    weak_owners, weak_cache = weakref.ref(owners), weakref.ref(cache)

    def on_death(_reference: Any) -> None:
        owner, owners, cache = weak_owner(), weak_owners(), weak_cache()
        if owner is None:
            return
        if owners is not None:
            owners._remove(address, owner)
        if cache is not None:
            owner._remove_entries(cache)

    try:
        reference = weakref.ref(instance, on_death)
    except TypeError:
        kind = type(instance).__name__
        raise TypeError(f"weak_self needs an instance that can be weakly referenced, got {kind}") from None
    owner = _Owner(reference)
    weak_owner = weakref.ref(owner)
    if _is_collecting:
        _checks_after_collection.append(lambda: on_death(reference) if reference() is None else None)
    present = owners._get_or_insert(address, owner)
    if present is owner or present._is_of(instance):
        return present
    # The present owner is of an earlier instance at this address, whose reference was cleared without a callback.
    owners._replace(address, owner)
    present._remove_entries(cache)
    if not _is_collecting:
        _remove_dead_owners(cache, owners)
    return owner


def _remove_dead_owners(cache: Moka[Any, Any], owners: _OwnerRegistry) -> None:
    """Remove all owners whose instances died without a callback, and their entries.

    A finalizer may revive a registry that was garbage. Then all its references were cleared without callbacks.
    """
    for address, owner in owners._items():
        if owner._is_gone() and owners._remove(address, owner):
            owner._remove_entries(cache)
