"""`Tier`: what all near caches of a namespace in a process share: the local entries, the listener, and the counts.

How it works: entries are in a `Moka`, behind a native `_LocalTier`, which answers only before a deadline. The listener
removes the entries of the keys that the server reports, and moves the deadline on. A request to the server is made
inside a flight or a fill, which is registered before the request is sent. So a removal of the key keeps its answer out,
and no later call joins it.

Invariants:
- `removed-first`: the listener moves the deadline only after it has removed the entries of all reports before it.
- `own-writes`: a write removes the local entry after the server has executed it, also if it fails.
- `renewed-locks`: the child of a fork has new locks, since another thread of the parent may have held the old ones.
- `reentrant-locks`: the collector may run a finalizer, and so a method of a near cache, on a thread that holds a lock.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from moka_py._moka_py import Moka, _Fill, _LocalTier
from moka_py.near._options import Options, TierKey
from moka_py.near._stats import Counters, NearStats

if TYPE_CHECKING:
    from moka_py.near._client import Server
    from moka_py.near._listener import Listener

Detach = Callable[[], object]

SECOND: Final = 1_000_000_000
"""Nanoseconds."""
SUSPEND_SECONDS = 0.05
"""If the clock that runs while the machine sleeps gains so much on the other one, the machine slept."""


def _suspended_seconds() -> float:
    """Return how long the machine has slept since it was started, up to a constant."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class _Marker:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT: Final[Any] = _Marker("<absent>")
"""The value of a key that the server does not have, as fetches return it and the local tier keeps it."""
MISSING: Final[Any] = _Marker("<missing>")
"""The result of a look-up in the local tier that finds no entry."""


def _weigher(weigher: Callable[[TierKey, Any], int] | None) -> Callable[[TierKey, Any], int] | None:
    """Return the weigher of the `Moka`. An absent key weighs 1."""
    if weigher is None:
        return None
    function = weigher
    return lambda key, value: 1 if value is ABSENT else function(key, value)


class Watch:
    """Calls a function when a key changes, or when it may have changed."""

    def __init__(self, tier: Tier, key: TierKey, notify: Callable[[], object]) -> None:
        self._tier = tier
        self._key = key
        self.notify = notify

    def close(self) -> None:
        """End the watch. A call that is under way may still come."""
        self._tier._remove_watch(self._key, self)


class Tier:
    """The local entries of a namespace in this process."""

    def __init__(self, server: Server, prefix: bytes, options: Options) -> None:
        self.server = server
        self.prefix = prefix
        self.options = options
        self.entries: Moka[TierKey, Any] = Moka(
            options.capacity,
            ttl=options.local_ttl,
            policy=options.policy,
            weigher=_weigher(options.weigher),
        )
        self.local = _LocalTier(self.entries, ABSENT)
        # They keep nothing. Threads that ask for a key at the same time share one flight in each of them.
        self.fetches: Moka[TierKey, Any] = Moka(0)
        """Requests of `get`. A call joins one only while the tier is coherent."""
        self.loads: Moka[TierKey, Any] = Moka(0)
        """Calls of `get_with`. A call joins one only while the tier is coherent."""
        self.computations: Moka[TierKey, Any] = Moka(0)
        """Runs of initializers that no lease protects."""
        self._runs = _LocalTier(self.computations, ABSENT)
        self.counters = Counters()
        self.supports_leases = True
        """False once the server has refused what a lease needs."""
        self._lock = threading.RLock()
        self._watches: dict[TierKey, list[Watch]] = {}
        self._clients: dict[int, Any] = {}
        self._warnings: list[str] = []
        self._has_warned: set[str] = set()
        self._listener: Listener | None = None
        self._started_at = 0
        self._incoherent_nanos = 0
        self._fails_until = 0.0
        self._failure = ""
        self._suspended = _suspended_seconds()

    # --- The local entries ---

    @property
    def is_coherent(self) -> bool:
        """Whether the local entries may answer now."""
        return self.local.is_live()

    def look_up(self, key: TierKey) -> Any:
        """Return the local entry of a key, `ABSENT` for one that is known to have none, or `MISSING`."""
        return self.local.look_up(key, MISSING)

    def begin_fill(self, key: TierKey) -> _Fill | None:
        """Begin a fill, before the server is asked. Returns None if the key has an entry."""
        return self.local.begin_fill(key)

    def finish_fill(self, fill: _Fill, value: object, lifetime: int | None) -> None:
        """Keep a value that came from the server, unless the key has changed since the fill began.

        Args:
            fill: What `begin_fill` returned.
            value: The value.
            lifetime: The milliseconds that the server's entry had left when the fill began, or None for no deadline.
        """
        if not fill.finish(value, None if lifetime is None else lifetime * 1_000_000):
            self.counters.add("superseded_fills")

    def begin_run(self, key: TierKey) -> _Fill:
        """Register a computation. A removal of the key from now on supersedes it."""
        run = self._runs.begin_fill(key)
        assert run is not None, "a cache with a capacity of 0 has no entries"
        return run

    def stale(self, key: TierKey) -> Any:
        """Return the local entry of a key for use after an error, or `MISSING`."""
        grace = self.options.stale_if_error
        live_until = self.local.live_until
        if grace is None or not live_until or self.local.now() >= live_until + grace * SECOND:
            return MISSING
        self.clear_after_suspend()
        return self.entries.peek(key, MISSING)

    def discard(self, key: TierKey) -> None:
        """Remove the entry of a key, and keep out all that was asked or computed for it until now."""
        self.entries.remove(key)
        self.fetches.remove(key)
        self.loads.remove(key)
        self.computations.remove(key)
        if self._watches:
            self._notify(key)

    def clear(self) -> None:
        """Remove all entries, and keep out all that was asked or computed until now."""
        for cache in (self.entries, self.fetches, self.loads, self.computations):
            cache.clear()
        with self._lock:
            watches = [watch for watches in self._watches.values() for watch in watches]
        for watch in watches:
            watch.notify()

    def clear_after_suspend(self) -> None:
        """Remove all entries if the machine slept. Their deadlines do not count that time."""
        suspended = _suspended_seconds()
        if suspended > self._suspended + SUSPEND_SECONDS:
            self.clear()
        self._suspended = max(self._suspended, suspended)

    # --- The deadline ---

    def extend(self, live_until: int) -> None:
        """Move the deadline of the local entries on. The listener calls it."""
        now = self.local.now()
        before = self.local.live_until
        if live_until > before:
            if now > before:
                self._incoherent_nanos += now - max(before, self._started_at)
            self.local.set_live_until(live_until)

    def stop_answering(self) -> None:
        """End the coherence of the tier now."""
        now = self.local.now()
        if self.local.live_until > now:
            self.local.set_live_until(now)

    def seconds_incoherent(self) -> float:
        """Return how long the local entries could not answer."""
        if not self._started_at:
            return 0.0
        since = max(self.local.live_until, self._started_at)
        return (self._incoherent_nanos + max(0, self.local.now() - since)) / SECOND

    # --- Watches ---

    def watch(self, key: TierKey, notify: Callable[[], object]) -> Watch:
        """Call a function, on any thread, whenever the key may have changed."""
        watch = Watch(self, key, notify)
        with self._lock:
            self._watches.setdefault(key, []).append(watch)
        return watch

    def _remove_watch(self, key: TierKey, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(key, [])
            if watch in watches:
                watches.remove(watch)
                if not watches:
                    del self._watches[key]

    def _notify(self, key: TierKey) -> None:
        with self._lock:
            watches = self._watches.get(key, []).copy()
        for watch in watches:
            watch.notify()

    # --- The server ---

    def check_server(self) -> None:
        """Raise the connection error of the client's package if the server has just failed."""
        if self._fails_until and time.monotonic() < self._fails_until:
            raise self.server.package.connection_error(
                f"the server was not asked, since it failed less than {self.options.heartbeat:g} s ago: {self._failure}"
            )

    def record_error(self, error: BaseException) -> None:
        """Count an error. After a connection error, no call asks the server for one heartbeat."""
        if isinstance(error, self.server.package.no_script_error):
            # The script is sent in full then.
            return
        self.counters.add("remote_errors")
        if self.server.package.is_server_failure(error):
            self._failure = f"{type(error).__name__}: {error}"
            self._fails_until = time.monotonic() + self.options.heartbeat

    def record_replies(self, replies: Sequence[Any]) -> None:
        """Count the errors among replies, and let calls ask the server again."""
        if self._fails_until:
            self._fails_until = 0.0
        for reply in replies:
            if isinstance(reply, Exception):
                self.record_error(reply)

    # --- Warnings ---

    def warn_later(self, reason: str, message: str) -> None:
        """Have the next call of a user warn, once for each reason. The listener's own thread is not the user's."""
        with self._lock:
            if reason not in self._has_warned:
                self._has_warned.add(reason)
                self._warnings.append(message)

    # --- The life of a tier ---

    def begin_call(self, stack_level: int = 3) -> None:
        """Start the listener if it does not run, and warn of what it has found.

        Args:
            stack_level: The number of frames from this one to that of the user.
        """
        listener = self._listener
        if listener is None or not listener.is_running():
            self._start()
        if self._warnings:
            with self._lock:
                messages, self._warnings = self._warnings, []
            for message in messages:
                warnings.warn(message, RuntimeWarning, stacklevel=stack_level)

    def _start(self) -> None:
        from moka_py.near._listener import Listener

        with self._lock:
            if (self._listener is None or not self._listener.is_running()) and self._clients:
                self._started_at = self._started_at or self.local.now()
                listener = Listener(self)
                # At the end of the interpreter no thread can be started. Then there is no local tier.
                with suppress(RuntimeError):
                    listener.start()
                    self._listener = listener

    def client(self) -> Any:
        """Return a synchronous client of one of the near caches that use the tier, or None."""
        with self._lock:
            return next(reversed(self._clients.values()), None)

    def stats(self) -> NearStats:
        """Return all counts."""
        return NearStats(
            local=self.entries.stats(), **self.counters.read(), seconds_incoherent=self.seconds_incoherent()
        )

    def _detach(self, handle: int) -> None:
        with _registry_lock:
            with self._lock:
                self._clients.pop(handle, None)
                if self._clients:
                    return
                listener, self._listener = self._listener, None
            key = (self.server.address, self.prefix)
            if _tiers.get(key) is self:
                del _tiers[key]
        if listener is not None:
            listener.stop()
        self.stop_answering()
        self.clear()

    def _after_fork(self) -> None:
        """Make the tier of the parent a new one, in the child of a fork (`renewed-locks`)."""
        self._lock = threading.RLock()
        self.counters = Counters()
        self._watches = {}
        self._fails_until = 0.0
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.abandon()
        self.local.set_live_until(0)
        self._started_at = self._incoherent_nanos = 0
        self.clear()
        self.entries.reset_stats()


_registry_lock = threading.RLock()
_handles = itertools.count()
_tiers: dict[tuple[tuple[Any, ...], bytes], Tier] = {}
"""The tiers in use, by their server and prefix."""


def attach(owner: object, client: object, server: Server, prefix: bytes, options: Options) -> tuple[Tier, Detach]:
    """Return the tier of a namespace, and what ends its use by `owner`.

    Args:
        owner: The near cache. Its end ends the use, too.
        client: The synchronous client by which the listener writes its probe.
        server: The server.
        prefix: The beginning of the server's keys.
        options: The options of the near cache.

    Raises:
        ValueError: A near cache of the same namespace has other options.
    """
    key = (server.address, prefix)
    with _registry_lock:
        tier = _tiers.get(key)
        if tier is None:
            tier = Tier(server, prefix, options)
        else:
            tier.options.check_equal(options)
        handle = next(_handles)
        with tier._lock:
            tier._clients[handle] = client
        _tiers[key] = tier
    # At the end of the interpreter all listeners are stopped together.
    finalizer = weakref.finalize(owner, tier._detach, handle)
    finalizer.atexit = False
    return tier, finalizer


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    for tier in list(_tiers.values()):
        tier._after_fork()


def _stop_all() -> None:
    """Stop all listeners, at the end of the interpreter."""
    with _registry_lock:
        listeners = [tier._listener for tier in _tiers.values()]
    for listener in listeners:
        if listener is not None:
            listener.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_stop_all)
