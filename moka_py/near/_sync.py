"""`NearCache`: the near cache of programs without asyncio.

How it works: a hit is native (`_NearLookup`). Else an operation goes step by step (`_operations.py`), and `_driver.py`
carries out its steps with the user's client. While the tier is coherent, threads that ask for one key share an
operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from moka_py.near import _cached
from moka_py.near._base import NearCacheBase, V, iterate
from moka_py.near._client import SyncClient, server_of
from moka_py.near._driver import Driver
from moka_py.near._loading import StoppedError, load
from moka_py.near._operations import Steps
from moka_py.near._options import (
    BUILTIN_KEYS,
    Default,
    Duration,
    Key,
    TierKey,
    make_options,
    milliseconds,
    tier_key,
)
from moka_py.near._serializers import Serializer
from moka_py.near._tier import ABSENT, MISSING

if TYPE_CHECKING:
    from moka_py.near._cached import NearCachedFunction


LEASE_MILLISECONDS = 30_000
"""The default of the argument `lease`."""


class NearCache(NearCacheBase[V]):
    """A cache in front of Redis or Valkey, whose values this process keeps as long as the server reports no change.

    A local value is never more stale than `max_staleness`, whatever breaks: a `get` that begins at time t reflects each
    write of that key which the server executed before t - `max_staleness`. After a write by this process has returned,
    no later call in this process returns an older value.

    All near caches of a process with the same server, database and namespace share their local entries and one
    listener: a thread with a connection of its own. The first call starts it.

    Args:
        client: A `redis.Redis` (5.1 or later) or `valkey.Valkey` (6 or later). It has no cache of its own, and is no
            client of a cluster or of Sentinel.
        namespace: A name without ":". The keys on the server are "<namespace>:<key>".
        ttl: How long a value lives on the server: seconds, a `timedelta`, or None for no deadline.
        capacity: The most local entries, or the most that they weigh together.
        local_ttl: How long a local entry lives at most. It never outlives that of the server.
        policy: Which local entry is evicted, as in `Moka`.
        weigher: Called as `weigher(key, value)`, as in `Moka`. The key is a `str`, or `bytes` that are not UTF-8.
        max_staleness: The bound in seconds, or as a `timedelta`. The heartbeat comes every quarter of it.
        serializer: "json"; "raw" for bytes as they stand on the server; an object with `name`, `dumps` and `loads`; or
            "pickle", which lets a program that can write to the server run code in this process.
        on_error: What `get` and `get_many` do when the client raises: "raise" or "miss".
        stale_if_error: How long after the tier was last coherent `get`, `get_many` and `get_with` may return a local
            value if the client raises: seconds, a `timedelta`, or None for never.
        copy: A function that is applied to each local value before a caller gets it, such as `copy.deepcopy`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a wrong value, or another near cache of the namespace has other options.
    """

    @overload
    def __init__(
        self: NearCache[bytes],
        client: SyncClient,
        namespace: str,
        *,
        ttl: Duration | None,
        capacity: int = 10_000,
        local_ttl: Duration | None = None,
        policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
        weigher: Callable[[TierKey, bytes], int] | None = None,
        max_staleness: Duration = 1.0,
        serializer: Literal["raw"],
        on_error: Literal["raise", "miss"] = "raise",
        stale_if_error: Duration | None = None,
        copy: Callable[[bytes], bytes] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        client: SyncClient,
        namespace: str,
        *,
        ttl: Duration | None,
        capacity: int = 10_000,
        local_ttl: Duration | None = None,
        policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
        weigher: Callable[[TierKey, V], int] | None = None,
        max_staleness: Duration = 1.0,
        serializer: Literal["json", "pickle"] | Serializer = "json",
        on_error: Literal["raise", "miss"] = "raise",
        stale_if_error: Duration | None = None,
        copy: Callable[[V], V] | None = None,
    ) -> None: ...
    def __init__(
        self,
        client: SyncClient,
        namespace: str,
        *,
        ttl: Duration | None,
        capacity: int = 10_000,
        local_ttl: Duration | None = None,
        policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
        weigher: Callable[[TierKey, Any], int] | None = None,
        max_staleness: Duration = 1.0,
        serializer: Literal["json", "raw", "pickle"] | Serializer = "json",
        on_error: Literal["raise", "miss"] = "raise",
        stale_if_error: Duration | None = None,
        copy: Callable[[Any], Any] | None = None,
    ) -> None:
        options = make_options(
            ttl=ttl,
            capacity=capacity,
            local_ttl=local_ttl,
            policy=policy,
            weigher=weigher,
            max_staleness=max_staleness,
            serializer=serializer,
            on_error=on_error,
            stale_if_error=stale_if_error,
            copy=copy,
        )
        server = server_of(client, is_async=False)
        self._set_up(server, client, namespace, options)
        self._driver = Driver(self._tier, client)

    # --- Reading ---

    def _get_slow(self, key: Key, default: Any, fresh: bool) -> Any:
        """Do what `get` does for a key that the local tier does not answer."""
        name = tier_key(key)
        self._tier.begin_call()
        # A native look-up does not know the key of a subclass.
        value = MISSING if fresh or type(key) in BUILTIN_KEYS else self._tier.look_up(name)
        try:
            if value is MISSING:
                value = self._fetch(name, fresh)
        except self._errors:
            value = MISSING if fresh else self._operations.stale(name)
            if value is MISSING:
                if self._options.on_error == "miss":
                    return default
                raise
        return default if value is ABSENT else self._copy(value)

    def _fetch(self, key: TierKey, fresh: bool) -> Any:
        """Return the value of a key from the server, or `ABSENT`."""
        tier = self._tier
        if not fresh and tier.is_coherent:
            return tier.fetches.get_with(key, lambda: self._driver.perform(self._operations.fetch(key, is_kept=True)))
        value = self._driver.perform(self._operations.fetch(key, is_kept=False))
        if fresh:
            # No later call returns an older value than this one.
            tier.discard(key)
        return value

    def get_many(self, keys: Iterable[Key], *, fresh: bool = False) -> dict[Key, V]:
        """Return the values of several keys. The server is asked once for all that the local tier does not have.

        Args:
            keys: The keys, an iterable.
            fresh: Whether to ask the server for all of them.

        Returns:
            A dict of the keys that have a value, in the order of `keys`.

        Raises:
            TypeError: If a key is neither a str, bytes nor int.
            Exception: The error of the client, unless `on_error="miss"`.
        """
        self._check_open()
        names = {key: tier_key(key) for key in iterate("keys", keys)}
        self._tier.begin_call()
        found, missing = self._split(names, fresh)
        if missing:
            is_kept = not fresh and self._tier.is_coherent
            try:
                found |= self._driver.perform(self._operations.fetch_many(missing, is_kept=is_kept))
            except self._errors:
                found |= self._stale_many(missing, fresh)
                if self._options.on_error == "raise" and any(name not in found for name in missing):
                    raise
            else:
                if fresh:
                    for name in missing:
                        self._tier.discard(name)
        return self._values_of(names, found)

    def contains(self, key: Key) -> bool:
        """Return whether a key has a value, as `get` would find it.

        Raises:
            TypeError: If the key is neither a str, bytes nor int.
            Exception: The error of the client.
        """
        self._check_open()
        name = tier_key(key)
        self._tier.begin_call()
        value = self._tier.look_up(name)
        return (self._fetch(name, False) if value is MISSING else value) is not ABSENT

    # --- Writing ---

    def set(self, key: Key, value: V, ttl: Duration | Default | None = Default.TTL) -> None:
        """Store a value on the server, in place of a value that the key has.

        The local entry is removed, and the next `get` asks the server.

        Args:
            key: The key.
            value: The value. If the serializer raises, nothing is written.
            ttl: How long the value lives: seconds, a `timedelta`, or None for no deadline. The default is the ttl of
                the near cache.

        Raises:
            TypeError: If the key or the ttl is of a wrong type.
            ValueError: If the ttl is not positive.
            Exception: The error of the client. The server may have executed the write all the same.
        """
        self._check_open()
        name, lifetime = tier_key(key), self._lifetime(ttl)
        payload = self._operations.codec.encode(value)
        self._write([name], self._operations.store([(name, payload)], lifetime))

    def set_many(
        self, entries: Mapping[Any, V] | Iterable[tuple[Key, V]], ttl: Duration | Default | None = Default.TTL
    ) -> None:
        """Store several values, each as `set` does, in few requests. Together they are not atomic.

        Args:
            entries: A mapping of keys to values, or an iterable of pairs. All are serialized before one is written.
            ttl: How long each value lives, as in `set`.

        Raises:
            TypeError: If a key or the ttl is of a wrong type, or entries is neither a mapping nor an iterable of pairs.
            ValueError: If the ttl is not positive.
            Exception: The error of the client. Some of the values may be written.
        """
        self._check_open()
        lifetime = self._lifetime(ttl)
        payloads = self._payloads(entries)
        if payloads:
            self._write([name for name, _ in payloads], self._operations.store(payloads, lifetime))

    def add(self, key: Key, value: V, ttl: Duration | Default | None = Default.TTL) -> bool:
        """Store a value if the key has none on the server, in one step.

        Args:
            key: The key.
            value: The value.
            ttl: How long the value lives, as in `set`.

        Returns:
            Whether the value is stored.

        Raises:
            TypeError: If the key or the ttl is of a wrong type.
            ValueError: If the ttl is not positive.
            Exception: The error of the client. The server may have executed the write all the same.
        """
        self._check_open()
        name, lifetime = tier_key(key), self._lifetime(ttl)
        payload = self._operations.codec.encode(value)
        return self._write([name], self._operations.add(name, payload, lifetime))

    def touch(self, key: Key, ttl: Duration | Default | None = Default.TTL) -> bool:
        """Give the value of a key a new lifetime on the server.

        Args:
            key: The key.
            ttl: How long the value lives from now on, as in `set`.

        Returns:
            Whether the key has a value.

        Raises:
            TypeError: If the key or the ttl is of a wrong type.
            ValueError: If the ttl is not positive.
            Exception: The error of the client. The server may have executed the write all the same.
        """
        self._check_open()
        name, lifetime = tier_key(key), self._lifetime(ttl)
        return self._write([name], self._operations.touch(name, lifetime))

    def remove(self, key: Key) -> bool:
        """Delete a key on the server and here.

        Args:
            key: The key.

        Returns:
            Whether the server had the key.

        Raises:
            TypeError: If the key is neither a str, bytes nor int.
            Exception: The error of the client. The server may have executed the write all the same.
        """
        self._check_open()
        name = tier_key(key)
        return bool(self._write([name], self._operations.remove([name])))

    def remove_many(self, keys: Iterable[Key]) -> int:
        """Delete several keys on the server and here.

        Args:
            keys: The keys, an iterable.

        Returns:
            How many of them the server had.

        Raises:
            TypeError: If a key is neither a str, bytes nor int.
            Exception: The error of the client. Some of the keys may be deleted.
        """
        self._check_open()
        names = list(dict.fromkeys(tier_key(key) for key in iterate("keys", keys)))
        return self._write(names, self._operations.remove(names)) if names else 0

    def clear(self) -> None:
        """Delete all keys of the namespace on the server, and then the local entries.

        It is not atomic: keys that other programs write meanwhile may stay.

        Raises:
            Exception: The error of the client. Some of the keys may be deleted.
        """
        self._check_open()
        self._tier.begin_call()
        try:
            self._driver.perform(self._operations.clear())
        finally:
            self._tier.clear()

    def _write[T](self, keys: list[TierKey], steps: Steps[T]) -> T:
        """Perform a write, and remove the local entries, also if it fails: the server may have executed it."""
        self._tier.begin_call(4)
        try:
            return self._driver.perform(steps)
        finally:
            for key in keys:
                self._tier.discard(key)

    # --- Loading ---

    def _get_with_slow(
        self,
        key: Key,
        initializer: Callable[[], V],
        ttl: Duration | Default | None = Default.TTL,
        *,
        across: bool = True,
        lease: Duration = 30.0,
        fresh: bool = False,
    ) -> V:
        """Do what `get_with` does for a call with more than two arguments."""
        self._check_open()
        name, lifetime, lease_time = tier_key(key), self._lifetime(ttl), milliseconds("lease", lease)
        value = MISSING if fresh else self._look_up(name, MISSING)
        if value is not MISSING:
            return cast(V, value)
        return self._load(name, initializer, lifetime, across=bool(across), lease=lease_time, fresh=bool(fresh))

    def _get_with_missed(self, key: Key, initializer: Callable[[], V]) -> V:
        """Do what `get_with` does for a call with two arguments whose key the native look-up has not found."""
        name = tier_key(key)
        if type(key) not in BUILTIN_KEYS:
            # The native look-up does not know the key of a subclass.
            value = self._look_up(name, MISSING)
            if value is not MISSING:
                return cast(V, value)
        return self._load(name, initializer, self._options.ttl, across=True, lease=LEASE_MILLISECONDS, fresh=False)

    def _load(
        self,
        key: TierKey,
        initializer: Callable[[], V],
        ttl: int | None,
        *,
        across: bool,
        lease: int,
        fresh: bool,
    ) -> V:
        """Return the value of a key that the local tier does not have, from the server or by the initializer."""
        tier = self._tier
        tier.begin_call(4)

        def perform_load() -> Any:
            return self._driver.perform(
                load(self._operations, key, initializer, ttl, across=across, lease=lease, fresh=fresh)
            )

        try:
            if fresh:
                value = perform_load()
                # No later call returns an older value than this one.
                tier.discard(key)
            else:
                value = tier.loads.get_with(key, perform_load) if tier.is_coherent else perform_load()
        except StoppedError as error:
            raise error.args[0] from None
        return cast(V, self._copy(value))

    def cached[**P, R](
        self, *, key: Callable[..., Key], ttl: Duration | Default | None = Default.TTL
    ) -> Callable[[Callable[P, R]], NearCachedFunction[P, R]]:
        """Keep the results of a function in this near cache, as `get_with` does.

        Args:
            key: A function of the call's arguments that returns the key of its result. Functions with one near cache
                need different keys.
            ttl: How long a result lives, as in `set`.

        Returns:
            A decorator. The function that it makes has the attributes `cache`, `cache_key`, `cache_contains` and
            `cache_invalidate`, which take the arguments of a call, and `__wrapped__`.

        Raises:
            TypeError: If key is not callable, or the ttl is of a wrong type; by the decorator, if it is given a
                coroutine function: use `AsyncNearCache.cached`.
            ValueError: If the ttl is not positive.
        """
        self._check_open()
        self._lifetime(ttl)
        return _cached.decorator(self, key, ttl)

    # --- The near cache itself ---

    def clear_local(self) -> None:
        """Remove the local entries of the namespace in this process. The server is not asked."""
        self._check_open()
        self._tier.clear()

    def close(self) -> None:
        """End the use of the near cache. The client stays open.

        With the last near cache of a namespace the listener ends. Calls that are under way end normally. Each later
        call raises ValueError, apart from `stats` and `close`.
        """
        self._end()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
