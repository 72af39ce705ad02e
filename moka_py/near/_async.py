"""`AsyncNearCache`: the near cache of programs with asyncio.

How it works: a hit is a native look-up, and does not suspend the coroutine. Else an operation goes step by step
(`_operations.py`), and `_async_driver.py` carries out its steps with the client of the running event loop. Operations
that coroutines of one event loop may share, and those that may have to free a lease, are tasks (`_async_flights.py`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from moka_py.near import _cached
from moka_py.near._async_clients import LoopClients, end_clients
from moka_py.near._async_driver import AsyncDriver
from moka_py.near._async_flights import fly, running_loop
from moka_py.near._base import NearCacheBase, V, iterate
from moka_py.near._client import AsyncClient, server_of
from moka_py.near._loading import StoppedError, load, refuse_own_key
from moka_py.near._operations import Steps
from moka_py.near._options import BUILTIN_KEYS, Default, Duration, Key, TierKey, make_options, milliseconds, tier_key
from moka_py.near._serializers import Serializer
from moka_py.near._tier import ABSENT, MISSING

if TYPE_CHECKING:
    from moka_py.near._cached import AsyncNearCachedFunction


class AsyncNearCache(NearCacheBase[V]):
    """A cache for asyncio, in front of Redis or Valkey. This process keeps values while the server reports no change.

    It keeps what `NearCache` keeps, and shares local entries and the listener with near caches of the same server,
    database and namespace, those of both classes. The methods are coroutine functions. A hit does not suspend its
    caller.

    Coroutines of one event loop that ask for a key at the same time share a request or a computation, if the local tier
    is coherent. Those of different event loops do not. If a caller is cancelled, the others go on. If the last one is,
    the computation is cancelled.

    The client serves the event loop that first uses the near cache. For each further event loop, also in the child of
    a fork, a client with the same settings is made. It is closed with the near cache, or at the end of its event loop.

    Args:
        client: A `redis.asyncio.Redis` (5.1 or later) or `valkey.asyncio.Valkey` (6 or later). It has no cache of its
            own, and is no client of a cluster or of Sentinel.
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
        self: AsyncNearCache[bytes],
        client: AsyncClient,
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
        client: AsyncClient,
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
        client: AsyncClient,
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
        server = server_of(client, is_async=True)
        self._clients = LoopClients(client)
        self._probe_client: Any = server.make_sync_client()
        self._set_up(server, self._probe_client, namespace, options)
        self._driver = AsyncDriver(self._tier, self._clients)
        # After `_set_up`: if that raises, there is nothing to end.
        finalizer = weakref.finalize(self, end_clients, self._clients, self._probe_client)
        finalizer.atexit = False

    # --- Reading ---

    @overload
    def get_local(self, key: Key, default: None = None) -> V | None: ...
    @overload
    def get_local(self, key: Key, default: V) -> V: ...
    @overload
    def get_local[D](self, key: Key, default: D) -> V | D: ...
    def get_local(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key from this process, without asking the server. It does not suspend.

        Args:
            key: The key.
            default: The result if there is no local entry that may answer, or if the key is known to have no value.

        Returns:
            The value, or default.

        Raises:
            TypeError: If the key is neither a str, bytes nor int.
            ValueError: If the near cache is closed.
        """
        value = self._look_up(key, MISSING, ABSENT)
        if value is MISSING:
            name = tier_key(key)
            self._tier.begin_call()
            if type(key) not in BUILTIN_KEYS:
                # The native look-up does not know the key of a subclass.
                value = self._look_up(name, MISSING, ABSENT)
        return default if value is ABSENT or value is MISSING else value

    @overload  # type: ignore[override]  # a coroutine function here
    async def get(self, key: Key, default: None = None, *, fresh: bool = False) -> V | None: ...
    @overload
    async def get(self, key: Key, default: V, *, fresh: bool = False) -> V: ...
    @overload
    async def get[D](self, key: Key, default: D, *, fresh: bool = False) -> V | D: ...
    async def get(self, key: Key, default: Any = None, *, fresh: bool = False) -> Any:
        """Return the value of a key, from this process or from the server.

        Args:
            key: A str, bytes or int. It is what it is on the server: 1, "1" and b"1" are one key.
            default: The result if the key has no value.
            fresh: Whether to ask the server in any case.

        Returns:
            The value, or default.

        Raises:
            TypeError: If the key is of another type.
            ValueError: If the near cache is closed.
            Exception: The error of the client, unless `on_error="miss"`.
        """
        if not fresh:
            value = self._look_up(key, MISSING, ABSENT)
            if value is not MISSING:
                return default if value is ABSENT else value
        self._check_open()
        name = tier_key(key)
        self._tier.begin_call()
        # The native look-up does not know the key of a subclass.
        value = MISSING if fresh or type(key) in BUILTIN_KEYS else self._tier.look_up(name)
        try:
            if value is MISSING:
                value = await self._fetch(name, fresh)
        except self._errors:
            value = MISSING if fresh else self._operations.stale(name)
            if value is MISSING:
                if self._options.on_error == "miss":
                    return default
                raise
        return default if value is ABSENT else self._copy(value)

    async def _fetch(self, key: TierKey, fresh: bool) -> Any:
        """Return the value of a key from the server, or `ABSENT`."""
        tier = self._tier
        if not fresh and tier.is_coherent:
            return await fly(
                tier,
                "fetch",
                key,
                lambda: self._driver.perform(self._operations.fetch(key, is_kept=True)),
                is_shared=True,
            )
        value = await self._driver.perform(self._operations.fetch(key, is_kept=False))
        if fresh:
            # No later call returns an older value than this one.
            tier.discard(key)
        return value

    async def get_many(self, keys: Iterable[Key], *, fresh: bool = False) -> dict[Key, V]:
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
                found |= await self._driver.perform(self._operations.fetch_many(missing, is_kept=is_kept))
            except self._errors:
                found |= self._stale_many(missing, fresh)
                if self._options.on_error == "raise" and any(name not in found for name in missing):
                    raise
            else:
                if fresh:
                    for name in missing:
                        self._tier.discard(name)
        return self._values_of(names, found)

    async def contains(self, key: Key) -> bool:
        """Return whether a key has a value, as `get` would find it.

        Raises:
            TypeError: If the key is neither a str, bytes nor int.
            Exception: The error of the client.
        """
        self._check_open()
        name = tier_key(key)
        self._tier.begin_call()
        value = self._tier.look_up(name)
        return (await self._fetch(name, False) if value is MISSING else value) is not ABSENT

    # --- Writing ---

    async def set(self, key: Key, value: V, ttl: Duration | Default | None = Default.TTL) -> None:
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
        await self._write([name], self._operations.store([(name, payload)], lifetime))

    async def set_many(
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
            await self._write([name for name, _ in payloads], self._operations.store(payloads, lifetime))

    async def add(self, key: Key, value: V, ttl: Duration | Default | None = Default.TTL) -> bool:
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
        return await self._write([name], self._operations.add(name, payload, lifetime))

    async def touch(self, key: Key, ttl: Duration | Default | None = Default.TTL) -> bool:
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
        return await self._write([name], self._operations.touch(name, lifetime))

    async def remove(self, key: Key) -> bool:
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
        return bool(await self._write([name], self._operations.remove([name])))

    async def remove_many(self, keys: Iterable[Key]) -> int:
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
        return await self._write(names, self._operations.remove(names)) if names else 0

    async def clear(self) -> None:
        """Delete all keys of the namespace on the server, and then the local entries.

        It is not atomic: keys that other programs write meanwhile may stay.

        Raises:
            Exception: The error of the client. Some of the keys may be deleted.
        """
        self._check_open()
        self._tier.begin_call()
        try:
            await self._driver.perform(self._operations.clear())
        finally:
            self._tier.clear()

    async def _write[T](self, keys: list[TierKey], steps: Steps[T]) -> T:
        """Perform a write, and remove the local entries, also if it fails: the server may have executed it."""
        self._tier.begin_call(4)
        try:
            return await self._driver.perform(steps)
        finally:
            for key in keys:
                self._tier.discard(key)

    # --- Loading ---

    async def get_with(  # type: ignore[override]  # a coroutine function here
        self,
        key: Key,
        initializer: Callable[[], Awaitable[V]],  # type: ignore[override]
        ttl: Duration | Default | None = Default.TTL,
        *,
        across: bool = True,
        lease: Duration = 30.0,
        fresh: bool = False,
    ) -> V:
        """Return the value of a key; if it has none, compute it by `await initializer()` and store it on the server.

        The result is what the serializer makes of the stored payload. If a key is set or removed during the
        computation, the result is returned but not stored.

        Args:
            key: The key.
            initializer: A coroutine function without parameters, or another function that returns an awaitable. It is
                called if the key has no value, in a task of its own, with the context of the first caller.
            ttl: How long a new value lives, as in `set`.
            across: Whether processes and event loops compute a key only once. A token is then in the place of the value
                until it is there, and the others wait. It saves work, and does not exclude that two compute.
            lease: How long the token lives, and other calls wait for its value at most: seconds or a `timedelta`.
            fresh: Whether to ask the server in any case, and to join no computation that began before the call.

        Returns:
            The value.

        Raises:
            TypeError: If an argument is of a wrong type, or the initializer does not return an awaitable.
            ValueError: If a duration is not positive.
            RuntimeError: If the initializer, or a task that it has started, asks for the key of the initializer.
            Exception: The error of the initializer or of the serializer. An error of the client does not leave the
                call: the initializer runs, and its result is not stored.
        """
        if not fresh:
            value: V = self._look_up(key, MISSING)
            if value is not MISSING:
                return value
        self._check_open()
        name, lifetime, lease_time = tier_key(key), self._lifetime(ttl), milliseconds("lease", lease)
        if type(key) not in BUILTIN_KEYS and not fresh:
            # The native look-up does not know the key of a subclass.
            value = self._look_up(name, MISSING)
            if value is not MISSING:
                return value
        if not callable(initializer):
            raise TypeError(f"initializer must be callable, got {type(initializer).__name__}")
        self._tier.begin_call()
        return await self._load(name, initializer, lifetime, across=bool(across), lease=lease_time, fresh=bool(fresh))

    # In a method of its own, since the variables of an inner function would cost each hit 150 ns.
    async def _load(
        self,
        key: TierKey,
        initializer: Callable[[], Awaitable[V]],
        ttl: int | None,
        *,
        across: bool,
        lease: int,
        fresh: bool,
    ) -> V:
        """Return the value of a key that the local tier does not have, from the server or by the initializer."""
        tier = self._tier
        refuse_own_key(tier, key)

        def perform_load() -> Coroutine[Any, Any, Any]:
            return self._driver.perform(
                load(self._operations, key, initializer, ttl, across=across, lease=lease, fresh=fresh)
            )

        try:
            # As a task, a load that is cancelled can free its lease.
            value = await fly(tier, "load", key, perform_load, is_shared=not fresh and tier.is_coherent)
        except StoppedError as error:
            # Python makes a RuntimeError of it, as of each StopIteration that leaves a coroutine.
            raise error.args[0] from None
        if fresh:
            # No later call returns an older value than this one.
            tier.discard(key)
        return cast(V, self._copy(value))

    def cached[**P, R](
        self, *, key: Callable[..., Key], ttl: Duration | Default | None = Default.TTL
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncNearCachedFunction[P, R]]:
        """Keep the results of a coroutine function in this near cache, as `get_with` does.

        Args:
            key: A function of the call's arguments that returns the key of its result. Functions with one near cache
                need different keys.
            ttl: How long a result lives, as in `set`.

        Returns:
            A decorator. The coroutine function that it makes has the attributes `cache`, `cache_key`, `cache_contains`
            and `cache_invalidate`, which take the arguments of a call, and `__wrapped__`. `cache_contains` and
            `cache_invalidate` are coroutine functions.

        Raises:
            TypeError: If key is not callable, or the ttl is of a wrong type; by the decorator, if it is given a
                function that is no coroutine function: use `NearCache.cached`.
            ValueError: If the ttl is not positive.
        """
        self._check_open()
        self._lifetime(ttl)
        return _cached.async_decorator(self, key, ttl)

    # --- The near cache itself ---

    async def clear_local(self) -> None:
        """Remove the local entries of the namespace in this process. The server is not asked."""
        self._check_open()
        self._tier.clear()

    async def close(self) -> None:
        """End the use of the near cache. The client stays open, those for further event loops are closed.

        With the last near cache of a namespace the listener ends. Calls that are under way end normally. Each later
        call raises ValueError, apart from `stats` and `close`.
        """
        running_loop()
        if self._close():
            try:
                await self._clients.close()
            finally:
                await asyncio.to_thread(self._end_listening)

    def _end_listening(self) -> None:
        """End the use of the tier. It may wait for the end of the listener."""
        self._detach()
        self._probe_client.connection_pool.disconnect()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
