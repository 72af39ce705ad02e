"""A backend for Flask-Caching: `MokaCache`, by its dotted path.

Invariants:
- `isolated`: the cache holds what the serializer returns, bytes by default. So no caller sees another one's changes of
  a value. `SharedValues` is a serializer that returns the value itself.
- `atomic`: `add`, `inc` and `dec` are one `set_with`, which runs again if another thread changed the value meanwhile.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from cachelib.serializers import BaseSerializer, SimpleSerializer
from flask import Flask
from flask_caching.backends.base import BaseCache

from moka_py import Moka
from moka_py.integrations._store import LONGEST_SECONDS, MISSING, add


class SharedValues(BaseSerializer):
    """A serializer that keeps values as they are, for `CACHE_SERIALIZER`.

    Each `get` returns the object that was set. The program must not change it.
    """

    def dumps(self, value: Any, protocol: int = 0) -> Any:
        return value

    def loads(self, bvalue: Any) -> Any:
        return bvalue


class _NotSerialized(Exception):
    """The serializer cannot store a value."""


class MokaCache(BaseCache):
    """A thread-safe cache in the memory of the process, with the interface of Flask-Caching's `SimpleCache`.

    Args:
        threshold: The most entries, which is `CACHE_THRESHOLD`; 0 means 500. A full cache removes one entry for each
            new one.
        default_timeout: Seconds that an entry lives if its `set` does not say, or 0 for no deadline.
        ignore_delete_many_errors: As of `SimpleCache`. No removal fails.
        policy: Which entry leaves a full cache: "tiny_lfu" or "lru", as of `Moka`.
    """

    serializer: BaseSerializer = SimpleSerializer()

    def __init__(
        self,
        threshold: int = 500,
        default_timeout: int = 300,
        ignore_delete_many_errors: bool = False,
        policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._cache: Moka[str, Any] = Moka(threshold or 500, policy=policy)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> MokaCache:
        return cls(*args, **{"threshold": config["CACHE_THRESHOLD"], **kwargs})

    @property
    def moka(self) -> Moka[str, Any]:
        """The `Moka`, for statistics."""
        return self._cache

    def _ttl(self, timeout: int | timedelta | None) -> int | None:
        """Return how many seconds an entry lives: below 0 if it expires at once, None if it has no deadline."""
        seconds = self._normalize_timeout(timeout)
        return min(seconds, LONGEST_SECONDS) if seconds else None

    def get(self, key: str) -> Any:
        stored = self._cache.get(key, MISSING)
        return None if stored is MISSING else self.serializer.loads(stored)

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool | None:
        ttl, stored = self._ttl(timeout), self.serializer.dumps(value)
        if stored is None and value is not None:
            # cachelib's serializers have logged why.
            return False
        if ttl is not None and ttl < 0:
            self._cache.remove(key)
        else:
            self._cache.set(key, stored, ttl)
        return True

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        ttl, stored = self._ttl(timeout), self.serializer.dumps(value)
        if stored is None and value is not None:
            return False
        if ttl is not None and ttl < 0:
            return key not in self._cache
        return add(self._cache, key, stored, ttl)

    def delete(self, key: str) -> bool:
        return self._cache.remove(key, MISSING) is not MISSING

    def has(self, key: str) -> bool:
        return key in self._cache

    def clear(self) -> bool:
        self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        ttl = self._ttl(None)
        if ttl is not None and ttl < 0:
            return super().inc(key, delta)

        def add_delta(stored: Any) -> Any:
            value = 0 if stored is MISSING else self.serializer.loads(stored) or 0
            serialized = self.serializer.dumps(value + delta)
            if serialized is None:
                raise _NotSerialized
            return serialized

        # As in `SimpleCache`, the timeout begins anew. Without a duration the entry would keep its deadline.
        try:
            stored = self._cache.set_with(key, add_delta, MISSING, LONGEST_SECONDS if ttl is None else ttl)
        except _NotSerialized:
            return None
        value: int = self.serializer.loads(stored)
        return value

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self.inc(key, -delta)
