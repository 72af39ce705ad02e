"""Flights: computations that several coroutines of one event loop share, each as a task.

`_flight_table.py` begins them, and finds the flight of a key.

Invariants:
- `weak`: only waiters and the event loop refer to a flight, so a loop that is closed with flights under way leaves
  nothing behind.
- `later-write-wins`: no call joins a flight whose key was written to since it began.
- `last-waiter`: a flight is cancelled when its last waiter is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from moka_py._exceptions import copy_exception
from moka_py._moka_py import _CachedRun, _CallKey

_HELD_SECONDS = 100 * 365 * 86400.0
"""The time of a timer that never fires."""
ABSENT = object()
"""The result of a flight for a key that the flight has no value of."""


async def await_once(awaitable: Awaitable[Any]) -> Any:
    """Return the result of an awaitable that is not a coroutine. The native call needs an exact coroutine."""
    return await awaitable


class Flight(asyncio.Task[Any]):
    """The one computation of a key in one event loop. It is a task, so it outlives the waiter that began it."""

    def __init__(self, computation: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, runs: Any) -> None:
        """Make the task.

        Args:
            computation: The coroutine that it runs.
            loop: The running event loop.
            runs: The run of the key.
        """
        # Not by the loop's task factory: an eager one would compute before other calls can find the flight.
        super().__init__(computation, loop=loop)
        self._runs = runs
        self._waiters = 0
        self._waits_for: Flight | None = None
        self._failure: BaseException | None = None
        self.add_done_callback(Flight._save_failure)

    def _save_failure(self) -> None:
        """Copy the exception before the leader raises it, if other waiters need copies."""
        # Reading the exception also keeps asyncio from reporting an exception that no waiter is left to see.
        error = None if self.cancelled() else self.exception()
        if error is not None and self._waiters > 1:
            self._failure = copy_exception(error)

    def is_open(self, key: _CallKey) -> bool:
        """Return whether a new call may join, for a key of this flight.

        It may not once the flight is cancelled. A timeout inside the function, which cancels the task too, takes that
        back when the function goes on.
        """
        return not (self.cancelling() or self.done() or self._run_of(key).is_superseded())

    def _run_of(self, _key: _CallKey) -> _CachedRun:
        run: _CachedRun = self._runs
        return run

    def refuse_circle(self, key: _CallKey) -> None:
        """Raise RuntimeError if the caller is the flight, or the flight waits for it.

        Args:
            key: The key of this flight that the caller asks for.
        """
        caller = asyncio.current_task()
        flight: Flight | None = self
        while flight is not None:
            if flight is caller:
                raise RuntimeError(key.own_key_error())
            flight = flight._waits_for

    async def join(self, key: _CallKey, is_leader: bool) -> Any:
        """Wait for the flight, and return its value of a key, or `ABSENT` if it has none.

        Args:
            key: The key.
            is_leader: Whether the caller began the flight, as in `value_of`.

        Raises:
            RuntimeError: The caller is the flight, or the flight waits for it.
        """
        try:
            self.refuse_circle(key)
            await self.wait()
            return self.value_of(key, is_leader)
        finally:
            # The traceback of a failure refers to this frame, and the flight to the failure.
            del self

    async def wait(self) -> None:
        """Wait until the flight has ended.

        If the last waiter is cancelled, it cancels the flight and waits for its end. If the flight then ends in
        another way than by a cancellation, this returns, so that the waiter gets the result.
        """
        caller = asyncio.current_task()
        if isinstance(caller, Flight):
            caller._waits_for = self
        self._waiters += 1
        try:
            await asyncio.wait((self,))
        except asyncio.CancelledError as error:
            if self._waiters > 1 or self.cancelling() or self.done():
                raise
            self.cancel(*error.args)
            later_cancellation = await self._wait_for_end(error.args)
            if later_cancellation is not None:
                raise later_cancellation from None
            if self.cancelled():
                raise
        finally:
            self._waiters -= 1
            if isinstance(caller, Flight):
                caller._waits_for = None

    async def _wait_for_end(self, reason: tuple[Any, ...]) -> asyncio.CancelledError | None:
        """Wait until the cancelled flight has ended, so that a later cancellation does not cut off its cleanup.

        anyio repeats a cancellation until its scope is left, with the same arguments. It cannot see that the function
        shields its cleanup, because the function runs in another task. So repetitions are ignored.

        Args:
            reason: The arguments of the cancellation that ended the flight.

        Returns:
            The last cancellation of the waiter for another reason, or None.
        """
        later_cancellation = None
        while not self.done():
            try:
                await asyncio.wait((self,))
            except asyncio.CancelledError as error:
                if not reason or error.args != reason:
                    later_cancellation = error
        return later_cancellation

    def value_of(self, key: _CallKey, is_leader: bool) -> Any:
        """Return the value that the flight, which has ended, has of a key, or `ABSENT` if it has none.

        Args:
            key: The key.
            is_leader: Whether the caller began the flight. The leader raises the exception of the flight itself, and
                other waiters raise copies.
        """
        try:
            if self._failure is not None and not is_leader:
                raise copy_exception(self._failure)
            return self._answer(key, self.result())
        finally:
            del self  # as in `join`

    def _answer(self, _key: _CallKey, result: Any) -> Any:
        return result

    def hold(self) -> None:
        """Count the caller as a waiter, which will call `release` or `release_all`."""
        self._waiters += 1

    def release(self) -> None:
        """End a `hold`. The caller waits for the flight now."""
        self._waiters -= 1


class BulkFlight(Flight):
    """The one computation of several keys. Its `runs` are a dict by key.

    Its result is a dict of values, by the keys as the user has them.
    """

    def _run_of(self, key: _CallKey) -> _CachedRun:
        run: _CachedRun = self._runs[key]
        return run

    def _answer(self, key: _CallKey, result: dict[Any, Any]) -> Any:
        return result.get(key.key, ABSENT)


class RefreshFlight(Flight):
    """The one computation of a key whose value is refreshed. Its `runs` are its claim.

    It needs no waiter. The event loop refers to it by a timer until it has ended, or the loop is closed.
    """

    def __init__(self, computation: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, claim: Any) -> None:
        super().__init__(computation, loop=loop, runs=claim)
        # No caller waits for it, so asyncio need not warn if it is dropped with a closed event loop.
        self._log_destroy_pending = False
        self.hold()
        timer = loop.call_later(_HELD_SECONDS, self.done)
        self.add_done_callback(lambda _: timer.cancel())


async def release_all(flights: Iterable[Flight], error: BaseException) -> None:
    """End holds whose caller gives up. Cancel the flights that lose their last waiter, and wait for their end.

    Args:
        flights: The flights, each with a `hold` of the caller.
        error: What made the caller give up. If it is closed, it can neither wait nor use the event loop.
    """
    reason = error.args if isinstance(error, asyncio.CancelledError) else ()
    unused = []
    for flight in flights:
        flight.release()
        is_unused = not flight._waiters and not flight.cancelling() and not flight.done()
        if is_unused and not isinstance(error, GeneratorExit):
            flight.cancel(*reason)
            unused.append(flight)
    later_cancellation = None
    for flight in unused:
        later_cancellation = await flight._wait_for_end(reason) or later_cancellation
    if later_cancellation is not None:
        raise later_cancellation
