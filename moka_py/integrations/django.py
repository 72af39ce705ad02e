"""Cache backends for Django: `MokaCache`, and `NearCache` in front of Redis or Valkey.

How it works: Django makes a backend for each thread and each async context, and calls `close()` on each after a
request. So the state is in a table of this module. The backends of one `LOCATION` share a `Moka`, whose keys are those
that Django makes of the prefix, the version and the key. The backends of one server, database and prefix share a near
cache in the same way.

Invariants:
- `isolated`: the cache holds pickled bytes, and each read unpickles them. So no caller sees another one's changes of a
  value. With `SHARE_VALUES` the cache holds the values themselves.
- `atomic`: `add` and `incr` are one `set_with`, which runs again if another thread changed the value meanwhile.
- `never waits in a loop`: of the methods only `get_or_set` waits for other threads. The async methods do not call it,
  so they run in the event loop without a thread.
- `own writes`: a write of `NearCache` is Django's own command. When it has returned or raised, the local entry is
  removed before the method returns. So no later call in this process returns an older value.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from moka_py import Moka
from moka_py.integrations._store import LONGEST_SECONDS, MISSING, add

if TYPE_CHECKING:
    from moka_py import near

# Of these the backend ignores `CULL_FREQUENCY`: one entry at a time leaves a full cache.
_OPTIONS = ("MAX_ENTRIES", "CULL_FREQUENCY", "POLICY", "SHARE_VALUES")


class _StoreOptions(NamedTuple):
    """The options of the cache of a LOCATION."""

    max_entries: int
    policy: Any
    share_values: bool


class _Store:
    """Has the cache of a LOCATION. A new cache takes its place when a test overrides CACHES."""

    def __init__(self, options: _StoreOptions) -> None:
        self._options = options
        self.moka = self._make()

    def renew(self) -> None:
        """Empty the cache, and put a new one in its place."""
        old, self.moka = self.moka, self._make()
        old.clear()

    def _make(self) -> Moka[str, Any]:
        return Moka(self._options.max_entries, policy=self._options.policy, long_lived=True)


# The options in use, by LOCATION.
_options_in_use: dict[str, _StoreOptions] = {}
# By LOCATION and options. A module may hold a backend that was made before a test, so they stay.
_stores: dict[tuple[str, _StoreOptions], _Store] = {}


def _store_of(location: str, max_entries: int, policy: Any, share_values: Any) -> _Store:
    """Return the store of a LOCATION. The first call makes it."""
    where = f"the cache with LOCATION {location!r}"
    if max_entries < 0:
        raise ImproperlyConfigured(f"MAX_ENTRIES of {where} must be at least 0, got {max_entries}")
    if policy not in ("tiny_lfu", "lru"):
        raise ImproperlyConfigured(f"POLICY of {where} must be 'tiny_lfu' or 'lru', got {policy!r}")
    if not isinstance(share_values, bool):
        raise ImproperlyConfigured(f"SHARE_VALUES of {where} must be a bool, got {share_values!r}")
    options = _StoreOptions(max_entries, policy, share_values)
    store = _stores.get((location, options))
    if store is None:
        # If two threads make a store, one of the stores is dropped.
        store = _stores.setdefault((location, options), _Store(options))
    in_use = _options_in_use.setdefault(location, options)
    for name, here, there in zip(_StoreOptions._fields, options, in_use, strict=True):
        if here != there:
            raise ImproperlyConfigured(
                f"{name.upper()} of {where} must be the same in all aliases, got {there!r} and {here!r}"
            )
    return store


class _Near(NamedTuple):
    """A near cache, its client, and the options that it was made with."""

    options: dict[str, Any]
    near: near.NearCache[bytes]
    client: Any

    def close(self) -> None:
        self.near.close()
        self.client.connection_pool.disconnect()


# By server, database and prefix.
_nears: dict[tuple[str, Any, str], _Near] = {}


def _forget_options(*, setting: str, **_others: Any) -> None:
    """Empty the caches when a test overrides CACHES, since the options may be others now."""
    if setting == "CACHES":
        _options_in_use.clear()
        for store in list(_stores.values()):
            store.renew()
        nears = list(_nears.values())
        _nears.clear()
        for of_server in nears:
            of_server.close()


setting_changed.connect(_forget_options)


def _same(value: Any) -> Any:
    return value


def _pickler(protocol: int) -> Callable[[Any], Any]:
    return lambda value: pickle.dumps(value, protocol)


class MokaCache(BaseCache):
    """A thread-safe cache in the memory of the process, with the interface of Django's `LocMemCache`.

    `LOCATION` is the name of the cache: aliases with the same name share the entries. `OPTIONS` are `MAX_ENTRIES`
    (default 300), `POLICY` ("tiny_lfu" or "lru") and `SHARE_VALUES`. If that is True, values are not copied: each `get`
    returns the object that was set, and the program must not change it.
    """

    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS", {})
        if unknown := sorted(set(options).difference(_OPTIONS)):
            raise ImproperlyConfigured(f"OPTIONS of a MokaCache must be of {', '.join(_OPTIONS)}, got {unknown[0]}")
        if not isinstance(name, str):
            raise ImproperlyConfigured(f"LOCATION of a MokaCache must be a str, got {name!r}")
        policy, share_values = options.get("POLICY", "tiny_lfu"), options.get("SHARE_VALUES", False)
        self._store = _store_of(name, self._max_entries, policy, share_values)
        self._dumps = _same if share_values else _pickler(self.pickle_protocol)
        self._loads = _same if share_values else pickle.loads

    @property
    def moka(self) -> Moka[str, Any]:
        """The `Moka` of this LOCATION, for statistics. Its keys are those of `make_key`."""
        return self._store.moka

    def _ttl(self, timeout: float | None) -> float | None:
        """Return how many seconds an entry lives: 0 or less if it expires at once, None if it has no deadline."""
        if timeout == DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        try:
            return min(timeout, LONGEST_SECONDS)
        except TypeError:
            raise TypeError(f"timeout must be a number of seconds or None, got {timeout!r}") from None

    def add(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version=version)
        ttl, stored = self._ttl(timeout), self._dumps(value)
        if ttl is not None and ttl <= 0:
            return name not in self._store.moka
        return add(self._store.moka, name, stored, ttl)

    def get(self, key: Any, default: Any | None = None, version: int | None = None) -> Any:
        stored = self._store.moka.get(self.make_and_validate_key(key, version=version), MISSING)
        return default if stored is MISSING else self._loads(stored)

    def set(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        name = self.make_and_validate_key(key, version=version)
        ttl, stored = self._ttl(timeout), self._dumps(value)
        if ttl is not None and ttl <= 0:
            self._store.moka.remove(name)
        else:
            self._store.moka.set(name, stored, ttl)

    def touch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version=version)
        ttl = self._ttl(timeout)
        if ttl is not None and ttl <= 0:
            return self._store.moka.remove(name, MISSING) is not MISSING
        # Without a duration the entry would keep its deadline.
        return self._store.moka.touch(name, LONGEST_SECONDS if ttl is None else ttl)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self._store.moka.remove(self.make_and_validate_key(key, version=version), MISSING) is not MISSING

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.make_and_validate_key(key, version=version) in self._store.moka

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        name = self.make_and_validate_key(key, version=version)

        def add_delta(stored: Any) -> Any:
            if stored is MISSING:
                raise ValueError(f"Key {name!r} not found")
            return self._dumps(self._loads(stored) + delta)

        value: int = self._loads(self._store.moka.set_with(name, add_delta, MISSING))
        return value

    def get_or_set(
        self, key: Any, default: Any | None, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any | None:
        """Return the value of a key, or set it. Threads that miss a key at the same time share one call of default."""
        ttl = self._ttl(timeout)
        if not callable(default) or (ttl is not None and ttl <= 0):
            return super().get_or_set(key, default, timeout, version)
        name = self.make_and_validate_key(key, version=version)
        return self._loads(self._store.moka.get_with(name, lambda: self._dumps(default()), ttl))

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        names = {key: self.make_and_validate_key(key, version=version) for key in keys}
        stored = self._store.moka.get_many(names.values())
        return {key: self._loads(stored[name]) for key, name in names.items() if name in stored}

    def set_many(
        self, data: dict[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        stored = {self.make_and_validate_key(key, version=version): self._dumps(value) for key, value in data.items()}
        ttl = self._ttl(timeout)
        if ttl is not None and ttl <= 0:
            self._store.moka.remove_many(stored)
        else:
            self._store.moka.set_many(stored, ttl)
        return []

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self._store.moka.remove_many([self.make_and_validate_key(key, version=version) for key in keys])

    def clear(self) -> None:
        """Remove the entries of all aliases with this LOCATION."""
        self._store.moka.clear()

    # Django calls it after each request, when other threads go on.
    def close(self, **_keywords: Any) -> None:
        """Do nothing."""

    # Django's own run the methods above in a thread, which takes much longer than the methods do.

    async def aadd(
        self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return self.add(key, value, timeout, version)

    async def aget(self, key: Any, default: Any | None = None, version: int | None = None) -> Any:
        return self.get(key, default, version)

    async def aset(
        self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        self.set(key, value, timeout, version)

    async def atouch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.touch(key, timeout, version)

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return self.delete(key, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return self.has_key(key, version)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.incr(key, delta, version)

    async def aget_or_set(
        self, key: Any, default: Any | None, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any | None:
        """Return the value of a key, or set it. It does not wait for threads that compute the same key."""
        return super().get_or_set(key, default, timeout, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    async def aset_many(
        self, data: dict[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        return self.set_many(data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.delete_many(keys, version)

    async def aclear(self) -> None:
        self.clear()

    async def aclose(self, **_keywords: Any) -> None:
        """Do nothing."""


# The options of `NearCache`, and the arguments of `moka_py.near.NearCache` that they are. The others are Django's.
_NEAR_OPTIONS = {
    "MAX_ENTRIES": "capacity",
    "MAX_STALENESS": "max_staleness",
    "LOCAL_TIMEOUT": "local_ttl",
    "POLICY": "policy",
}


class NearCache(RedisCache):
    """Django's `RedisCache`, whose values this process keeps as long as the server reports no change of them.

    Keys and payloads on the server are those of `RedisCache`, so processes with either backend can share a server.
    `LOCATION` is one server. `KEY_PREFIX` must be given: the server reports the changes of keys that begin with it.

    `OPTIONS` are those of `RedisCache`, and `MAX_ENTRIES` (the local ones, default 10,000), `MAX_STALENESS` (in
    seconds, default 1.0), `LOCAL_TIMEOUT`, `POLICY` and `PREFIX`. With a `KEY_FUNCTION` `PREFIX` must be given: each
    key that the function makes begins with it and a colon.
    """

    # Set by `RedisCache`.
    _class: Callable[..., Any]
    _options: dict[str, Any]
    _servers: list[str]

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        options = dict(params.get("OPTIONS", {}))
        self._near_options = {name: options.pop(name) for name in _NEAR_OPTIONS if name in options}
        prefix = options.pop("PREFIX", None)
        # Those of `RedisCache` are in small letters.
        if unknown := sorted(name for name in options if name.isupper()):
            raise ImproperlyConfigured(
                f"OPTIONS of a NearCache must be of {', '.join(_NEAR_OPTIONS)}, PREFIX and those of RedisCache, "
                f"got {unknown[0]}"
            )
        super().__init__(server, {**params, "OPTIONS": options})
        if len(self._servers or ()) != 1:
            raise ImproperlyConfigured(f"LOCATION of a NearCache must be one server, got {server!r}")
        if self.key_func is default_key_func:
            if prefix not in (None, self.key_prefix):
                raise ImproperlyConfigured(
                    f"PREFIX of a NearCache without a KEY_FUNCTION must be its KEY_PREFIX, got {prefix!r}"
                )
            prefix = self.key_prefix
        elif prefix is None:
            raise ImproperlyConfigured("a NearCache with a KEY_FUNCTION needs PREFIX in its OPTIONS")
        if not isinstance(prefix, str) or not prefix or ":" in prefix:
            raise ImproperlyConfigured(f'the prefix of a NearCache must be a non-empty str without ":", got {prefix!r}')
        self._prefix = prefix
        self._tracked = f"{prefix}:"
        self._near = self._shared_near()

    def _shared_near(self) -> near.NearCache[bytes]:
        """Return the near cache of the server and the prefix. The first call makes it."""
        from moka_py import near

        where = (self._servers[0], self._options.get("db"), self._prefix)
        of_cache = f"the NearCache with the prefix {self._prefix!r}"
        found = _nears.get(where)
        if found is None or found.near._is_closed:
            arguments = {_NEAR_OPTIONS[name]: value for name, value in self._near_options.items()}
            # In Django `max_connections` bounds a thread, since each has a pool. The threads share the pool made here.
            redis_options = {name: value for name, value in self._options.items() if name != "max_connections"}
            try:
                client = self._class(self._servers, **redis_options).get_client(write=True)
                made = near.NearCache[bytes](client, self._prefix, ttl=None, serializer="raw", **arguments)
            except (TypeError, ValueError) as error:
                raise ImproperlyConfigured(f"{of_cache}: {error}") from error
            # If two threads make one, both have the same local entries.
            found = _nears[where] = _Near(self._near_options, made, client)
        if found.options != self._near_options:
            raise ImproperlyConfigured(
                f"OPTIONS of {of_cache} must be the same in all aliases, got {found.options} and {self._near_options}"
            )
        return found.near

    @property
    def near(self) -> near.NearCache[bytes]:
        """The near cache of this server and prefix, for statistics. Its values are payloads of Django."""
        if self._near._is_closed:
            # A test has overridden CACHES, and the program holds a backend that was made before.
            self._near = self._shared_near()
        return self._near

    def _local(self, made: str) -> str:
        """Return the key of the near cache, which is the key on the server without the prefix."""
        if not made.startswith(self._tracked):
            raise ImproperlyConfigured(f"KEY_FUNCTION must make keys that begin with {self._tracked!r}, got {made!r}")
        return made[len(self._tracked) :]

    @contextmanager
    def _writing(self, keys: Iterable[Any], version: int | None) -> Iterator[None]:
        """Remove the local entries of the keys at the end, also after an error: the server may have done the write."""
        names = [self._local(self.make_key(key, version=version)) for key in keys]
        try:
            yield
        finally:
            for name in names:
                self.near._tier.discard(name)

    def _loads(self, payload: bytes) -> Any:
        client: Any = self._cache
        return client._serializer.loads(payload)

    def get(self, key: Any, default: Any | None = None, version: int | None = None) -> Any:
        payload = self.near.get(self._local(self.make_and_validate_key(key, version=version)), MISSING)
        return default if payload is MISSING else self._loads(payload)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        names = {key: self._local(self.make_and_validate_key(key, version=version)) for key in keys}
        payloads = self.near.get_many(names.values())
        return {key: self._loads(payloads[name]) for key, name in names.items() if name in payloads}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.near.contains(self._local(self.make_and_validate_key(key, version=version)))

    def add(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        with self._writing([key], version):
            return super().add(key, value, timeout, version)

    def set(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        with self._writing([key], version):
            super().set(key, value, timeout, version)

    def touch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        with self._writing([key], version):
            return super().touch(key, timeout, version)

    def delete(self, key: Any, version: int | None = None) -> bool:
        with self._writing([key], version):
            return super().delete(key, version)

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        with self._writing([key], version):
            return super().incr(key, delta, version)

    def set_many(
        self, data: dict[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        with self._writing(data, version):
            return super().set_many(data, timeout, version)

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        keys = list(keys)
        with self._writing(keys, version):
            super().delete_many(keys, version)

    def clear(self) -> Any:
        """Remove everything from the database of the server, as `RedisCache` does."""
        try:
            return super().clear()
        finally:
            # Also the keys of other prefixes are gone.
            address = self.near._tier.server.address
            for other in list(_nears.values()):
                if other.near._tier.server.address == address:
                    other.near._tier.clear()
