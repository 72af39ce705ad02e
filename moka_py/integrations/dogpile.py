"""Backends for dogpile.cache: `MokaBackend`, `MokaPickleBackend`, and `MokaProxy`, a tier in front of any backend.

How the proxy works: a read fills the `Moka` by `get_with`. A write changes the proxied backend first, and then removes
the key from the `Moka`. So a value that was read before a write is not kept after it: the removal supersedes the read
that is in flight.

Invariants:
- `later write wins`: a fill of `get_multi` is not one flight, so it also looks whether a write ended since it began. A
  write replaces `_last_write` before it removes its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dogpile.cache.api import NO_VALUE, BackendFormatted, BackendSetType, CacheBackend, DefaultSerialization
from dogpile.cache.proxy import ProxyBackend

from moka_py import Moka

_MOKA_ARGUMENTS = ("ttl", "tti", "policy", "weigher", "eviction_listener", "long_lived")


class MokaBackend(CacheBackend):
    """A backend that keeps values in a `Moka` by reference. Its name for `configure` is "moka_py".

    Args:
        arguments: Either `cache`, a `Moka`, or `capacity` and optionally more arguments of `Moka`. Others are ignored,
            as by the backends of dogpile.cache.

    Raises:
        ValueError: If there is neither `cache` nor `capacity`, or both, and for a value that `Moka` refuses.
        TypeError: If `cache` is not a `Moka`, and for a value that `Moka` refuses.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        if ("cache" in arguments) is ("capacity" in arguments):
            raise ValueError(f"arguments must have either 'cache' or 'capacity', got {sorted(arguments)}")
        if "cache" in arguments:
            self.cache: Moka[str, Any] = _checked(arguments["cache"])
        else:
            given = {name: arguments[name] for name in _MOKA_ARGUMENTS if name in arguments}
            self.cache = Moka(arguments["capacity"], **given)

    def get(self, key: str) -> BackendFormatted:
        found: BackendFormatted = self.cache.get(key, NO_VALUE)
        return found

    def get_multi(self, keys: Iterable[str]) -> Sequence[BackendFormatted]:
        keys = list(keys)
        found: dict[str, BackendFormatted] = self.cache.get_many(keys)
        return [found.get(key, NO_VALUE) for key in keys]

    def set(self, key: str, value: BackendSetType) -> None:
        self.cache.set(key, value)

    def set_multi(self, mapping: Mapping[str, BackendSetType]) -> None:
        self.cache.set_many(mapping)

    def delete(self, key: str) -> None:
        self.cache.remove(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        self.cache.remove_many(keys)


class MokaPickleBackend(DefaultSerialization, MokaBackend):
    """A `MokaBackend` whose values are pickled, so that each `get` returns a copy. Its name is "moka_py_pickle"."""


class MokaProxy(ProxyBackend):
    """A proxy that keeps what the proxied backend returns in a `Moka`, for `wrap` of a region.

    A read of a key that the cache has does not reach the backend. A write goes to the backend, and removes its key from
    the cache. Writes of other processes are not seen, so give the cache a ttl, which bounds how old a value is.

    Args:
        cache: The `Moka`. Other regions must not use it.

    Raises:
        TypeError: If cache is not a `Moka`.
    """

    def __init__(self, cache: Moka[str, Any]) -> None:
        self.cache = _checked(cache)
        self._last_write = object()

    def get(self, key: str) -> Any:
        return self._read(key, self.proxied.get)

    def get_serialized(self, key: str) -> Any:
        return self._read(key, self.proxied.get_serialized)

    def get_multi(self, keys: Iterable[str]) -> Sequence[BackendFormatted]:
        return self._read_many(keys, self.proxied.get_multi)

    def get_serialized_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        return self._read_many(keys, self.proxied.get_serialized_multi)

    def set(self, key: str, value: BackendSetType) -> None:
        self._write([key], self.proxied.set, key, value)

    def set_serialized(self, key: str, value: bytes) -> None:
        self._write([key], self.proxied.set_serialized, key, value)

    def set_multi(self, mapping: Mapping[str, BackendSetType]) -> None:
        self._write(mapping, self.proxied.set_multi, mapping)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        self._write(mapping, self.proxied.set_serialized_multi, mapping)

    def delete(self, key: str) -> None:
        self._write([key], self.proxied.delete, key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self._write(keys, self.proxied.delete_multi, keys)

    def _read(self, key: str, fetch: Callable[[str], Any]) -> Any:
        """Return the value of a key. Threads that miss it at the same time share one fetch."""

        def load() -> Any:
            value = fetch(key)
            if value is NO_VALUE:
                raise _NotStored
            return value

        try:
            return self.cache.get_with(key, load)
        except _NotStored:
            return NO_VALUE

    def _read_many(self, keys: Iterable[str], fetch: Callable[[Sequence[str]], Sequence[Any]]) -> list[Any]:
        keys = list(keys)
        found = self.cache.get_many(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            last_write = self._last_write
            for key, value in zip(missing, fetch(missing), strict=True):
                if value is not NO_VALUE:
                    found[key] = value
                    self._keep(key, value, last_write)
        return [found.get(key, NO_VALUE) for key in keys]

    def _keep(self, key: str, value: Any, last_write: object) -> None:
        """Store a value that was read, unless a write ended since."""

        def load() -> Any:
            if self._last_write is not last_write:
                raise _NotStored
            return value

        # If another thread reads the key at this time, this call waits for it. Its error is not one of this read.
        with suppress(Exception):
            self.cache.get_with(key, load)

    def _write(self, keys: Iterable[str], write: Callable[..., None], *args: Any) -> None:
        try:
            write(*args)
        finally:
            # Also after an error: the backend may have executed the write.
            self._last_write = object()
            self.cache.remove_many(keys)


class _NotStored(Exception):
    """A load has nothing to store."""


def _checked(cache: Any) -> Moka[str, Any]:
    if not isinstance(cache, Moka):
        raise TypeError(f"cache must be a Moka, got {type(cache).__name__}")
    return cache
