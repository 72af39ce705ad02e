"""The owners of a method cached with `weak_self`: each stands for an instance in the keys, for as long as that lives.

How it works: a registry maps an instance's address to its `_Owner`, which has a weak reference to the instance. The
callback of that reference removes the owner and its entries. A look-up asks the owner whether it is of that very
instance, since an address can be used anew.

The callback alone is not enough. CPython 3.13.15 and later clear the weak references to garbage twice: before they run
the finalizers, with callbacks, and again afterwards, without. So no callback comes for an owner that a finalizer's call
makes. Therefore owners that are made during a collection are looked at when it has ended.

Invariants:
- `removed`: an owner whose instance is gone has no entries, at the latest when the collection that freed it ends.
- `own`: a callback removes the entries of its own owner. If two threads make two owners for one instance, both are
  removed with it, and the one that is not in the registry costs a miss.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from moka_py._moka_py import Moka, _Owner, _OwnerRegistry

_is_collecting = False
"""Whether a collection is under way, in any thread."""
_doubtful: list[Callable[[], None]] = []
"""A check for each owner that was made during the collection."""


def _watch(phase: str, _info: Any) -> None:
    global _is_collecting
    if phase == "start":
        _is_collecting = True
        return
    while _doubtful:
        _doubtful.pop()()
    _is_collecting = False


def adopter(cache: Moka[Any, Any], owners: _OwnerRegistry) -> Callable[[object], _Owner]:
    """Return the function that makes the owner of an instance, for a cached method with this registry."""
    if _watch not in gc.callbacks:
        gc.callbacks.append(_watch)

    def make_owner(instance: object) -> _Owner:
        """Return the owner of an instance, which is in the registry for as long as the instance lives."""
        place = id(instance)
        # Owners hold the callbacks, and the registry and the keys hold owners. So a callback refers weakly to these: a
        # function that is dropped needs no collector. A revived registry needs new ones, so they are made each time.
        weak_owners, weak_cache = weakref.ref(owners), weakref.ref(cache)

        def gone(_reference: Any) -> None:
            owner, owners, cache = weak_owner(), weak_owners(), weak_cache()
            if owner is None:
                return
            if owners is not None:
                owners._remove(place, owner)
            if cache is not None:
                owner._forget(cache)

        try:
            reference = weakref.ref(instance, gone)
        except TypeError:
            kind = type(instance).__name__
            raise TypeError(f"weak_self needs an instance that can be weakly referenced, got {kind}") from None
        owner = _Owner(reference)
        weak_owner = weakref.ref(owner)
        if _is_collecting:
            _doubtful.append(lambda: gone(reference) if reference() is None else None)
        present = owners._get_or_insert(place, owner)
        if present is owner or present._is_of(instance):
            return present
        # That one is of an instance which had the address before, and whose reference was cleared without a callback.
        owners._replace(place, owner)
        present._forget(cache)
        if not _is_collecting:
            sweep()
        return owner

    def sweep() -> None:
        """Remove what other such instances left.

        A finalizer may revive a registry that was garbage, whose references were all cleared without callbacks.
        """
        for place, owner in owners._items():
            if owner._is_gone() and owners._remove(place, owner):
                owner._forget(cache)

    return make_owner
