"""The result of `NearCache.stats`."""

from __future__ import annotations

import threading
from typing import NamedTuple

from moka_py._stats import Stats


class NearStats(NamedTuple):
    """The counts of a near cache since its tier was made. All near caches of a namespace in a process share them."""

    local: Stats
    remote_hits: int
    remote_misses: int
    remote_errors: int
    invalidations: int
    flushes: int
    reconnects: int
    superseded_fills: int
    lease_waits: int
    lease_takeovers: int
    decode_errors: int
    stale_values: int
    seconds_incoherent: float


NearStats.local.__doc__ = """The statistics of the local tier. Its hits and misses are counted while it is coherent, and
a key that is known to be absent counts as a hit."""
NearStats.remote_hits.__doc__ = "Keys that the server was asked for, and that had a value there."
NearStats.remote_misses.__doc__ = "Keys that the server was asked for, and that had no value there, or a broken one."
NearStats.remote_errors.__doc__ = "Requests that failed, by an error of the client or of the server."
NearStats.invalidations.__doc__ = "Keys that the server reported as changed, also those that this process changed."
NearStats.flushes.__doc__ = "Reports of the server that all keys were removed."
NearStats.reconnects.__doc__ = "Connections that the listener made after its first one."
NearStats.superseded_fills.__doc__ = """Values from the server that were returned but not kept, since the key changed on
their way."""
NearStats.lease_waits.__doc__ = "Calls of `get_with` that waited for the lease of another one."
NearStats.lease_takeovers.__doc__ = "Calls of `get_with` that got a lease after they had waited for another one's."
NearStats.decode_errors.__doc__ = "Payloads with an unknown header or broken data. Each counts as a remote miss, too."
NearStats.stale_values.__doc__ = "Local values that were returned because the client raised (`stale_if_error`)."
NearStats.seconds_incoherent.__doc__ = "Seconds since the first call in which the local tier could not answer."


class Counters:
    """The counts of one tier. Threads add to them in parallel."""

    NAMES = (
        "remote_hits",
        "remote_misses",
        "remote_errors",
        "invalidations",
        "flushes",
        "reconnects",
        "superseded_fills",
        "lease_waits",
        "lease_takeovers",
        "decode_errors",
        "stale_values",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: dict[str, int] = dict.fromkeys(self.NAMES, 0)

    def add(self, name: str, number: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            self._counts[name] += number

    def read(self) -> dict[str, int]:
        """Return all counts."""
        with self._lock:
            return self._counts.copy()
