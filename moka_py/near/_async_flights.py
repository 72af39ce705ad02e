"""Operations that several coroutines of one event loop share.

How it works: each operation is a `Flight`, a task of its own, which is registered under its event loop, tier and key. A
later call joins it, in the same way as calls of a cached coroutine function do. A flight begins with a run, which each
removal of the key supersedes. No call joins a flight whose run is superseded.

Invariants:
- `weak`: only waiters refer to a flight, so a loop that is closed with flights under way leaves nothing behind.
- `one-loop`: coroutines of different loops, and threads, do not wait for each other's flights.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from moka_py._flight import Flight
from moka_py.near._loading import own_key_message
from moka_py.near._options import TierKey
from moka_py.near._tier import Tier

if TYPE_CHECKING:
    # The work of a flight: that of `get`, that of `get_with`, or the part of it that runs the initializer.
    type _Kind = Literal["fetch", "load", "computation"]


class FlightKey(NamedTuple):
    """What calls that may share a flight have in common."""

    loop: int
    """The id of the event loop. A flight refers to its loop, so while the flight lives no other loop has the id."""
    tier: Tier
    kind: _Kind
    key: TierKey

    def own_key_error(self) -> str:
        """Return the message for a call that would wait for itself."""
        return own_key_message(self.key)


_flights: weakref.WeakValueDictionary[FlightKey, Flight] = weakref.WeakValueDictionary()


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of the caller.

    Raises:
        RuntimeError: None is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "AsyncNearCache needs an asyncio event loop, and none is running here; without asyncio, use NearCache"
        ) from None


async def fly(
    tier: Tier, kind: _Kind, key: TierKey, operation: Callable[[], Coroutine[Any, Any, Any]], *, is_shared: bool
) -> Any:
    """Carry out an operation as a task of its own, and return its result.

    If the last call that waits for it is cancelled, the task is cancelled, and the call waits for its end.

    Args:
        tier: The tier.
        kind: What the operation does.
        key: The key.
        operation: A coroutine function.
        is_shared: Whether to join the same operation of another call in this event loop, if no removal of the key has
            come since it began; and whether later calls may join.
    """
    loop = running_loop()
    name = FlightKey(id(loop), tier, kind, key)
    flight = _flights.get(name) if is_shared else None
    is_leader = flight is None or not flight.is_open(cast(Any, name))
    if flight is None or is_leader:
        flight = Flight(operation(), loop, tier.begin_run(key))
        flight.set_name(f"moka_py near {kind} {key!r}")
        if is_shared:
            _flights[name] = flight
    try:
        return await flight.join(cast(Any, name), is_leader)
    finally:
        # The traceback of a failure refers to this frame, and the flight to the failure.
        del flight
