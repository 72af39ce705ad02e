"""Runs of cached coroutine functions that several callers share (`wait_concurrent`).

How it works: a call that misses begins a `Flight`, a task of its own, and registers it under its event loop and key. A
later call of the same key joins the flight: it waits for the task, and returns its result or raises a copy of its
exception.

Invariants:
- `weak`: only waiters refer to a flight, so a loop that is closed with runs in flight leaves nothing behind.
- `later-write-wins`: no call joins a flight whose key was written to since it began.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from moka_py._exceptions import copy_exception
from moka_py._moka_py import _CachedRun, _CachedState, _CallKey


async def await_once(awaitable: Awaitable[Any]) -> Any:
    """Return the result of an awaitable that is not a coroutine. The native call needs an exact coroutine."""
    return await awaitable


class Flight(asyncio.Task[Any]):
    """The one run of a key in one event loop. It is a task of its own, so it outlives the waiter that began it."""

    def __init__(self, computation: Any, loop: asyncio.AbstractEventLoop, key: _CallKey, run: _CachedRun) -> None:
        # Not by the loop's task factory: an eager one would run the function before other calls can find the flight.
        super().__init__(computation, loop=loop)
        self._key = key
        self._run = run
        self._waiters = 0
        self._is_cancelled = False
        self._waits_for: Flight | None = None
        self._failure: BaseException | None = None
        self.add_done_callback(Flight._save_failure)

    def _save_failure(self) -> None:
        """Copy the exception before the leader raises it, if other waiters need copies."""
        # Reading the exception also keeps asyncio from reporting an exception that no waiter is left to see.
        error = None if self.cancelled() else self.exception()
        if error is not None and self._waiters > 1:
            self._failure = copy_exception(error)

    def is_open(self) -> bool:
        """Return whether a new call may join."""
        return not (self._is_cancelled or self.done() or self._run.is_superseded())

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the flight. From now on no call may join."""
        self._is_cancelled = True
        return super().cancel(msg)

    async def join(self, is_leader: bool) -> Any:
        """Return the result of the flight.

        If the last waiter is cancelled, it cancels the flight and waits for its end.

        Args:
            is_leader: Whether the caller began the flight. The leader raises the exception of the flight itself, and
                other waiters raise copies.

        Raises:
            RuntimeError: The caller is the flight, or the flight waits for it.
        """
        caller = asyncio.current_task()
        flight: Flight | None = self
        while flight is not None:
            if flight is caller:
                raise RuntimeError(self._key.own_key_error())
            flight = flight._waits_for
        if isinstance(caller, Flight):
            caller._waits_for = self
        self._waiters += 1
        later_cancellation = None
        try:
            await asyncio.wait((self,))
        except asyncio.CancelledError as error:
            if self._waiters > 1 or self._is_cancelled or self.done():
                raise
            self.cancel(*error.args)
            later_cancellation = await self._wait_for_end(error.args)
        finally:
            self._waiters -= 1
            if isinstance(caller, Flight):
                caller._waits_for = None
        try:
            if self._failure is not None and not is_leader:
                raise copy_exception(self._failure)
            value = await self
            if later_cancellation is not None:
                raise later_cancellation
            return value
        finally:
            # The traceback of a failure refers to this frame, and the flight to the failure.
            del self, caller, flight, later_cancellation

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


def make_share(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the coroutine function that a call of `function` runs after a miss."""
    # A flight refers to its loop, so while the flight is here no other loop has the id.
    flights: weakref.WeakValueDictionary[tuple[int, _CallKey], Flight] = weakref.WeakValueDictionary()

    async def compute(
        state: _CachedState, key: _CallKey, run: _CachedRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        began = state._begin_load()
        try:
            value = await function(*args, **kwargs)
        except BaseException:
            state._end_load(began, True)
            raise
        state._end_load(began, False)
        state._keep_result(key, value, run)
        return value

    async def share(state: _CachedState, key: _CallKey, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call that missed, computed once for all that await it in this event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "wait_concurrent=True of a coroutine function needs an asyncio event loop, and none is running here; "
                "under another library, such as trio, use wait_concurrent=False"
            ) from None
        loop_and_key = (id(loop), key)
        flight = flights.get(loop_and_key)
        is_leader = flight is None or not flight.is_open()
        if flight is None or is_leader:
            run = state._begin_run(key)
            if isinstance(run, tuple):
                state._record_hit()
                return run[0]
            flight = Flight(compute(state, key, run, args, kwargs), loop, key, run)
            del run
            try:
                flights[loop_and_key] = flight
            except BaseException:  # of an `__eq__`
                flight.cancel()
                raise
            state._record_miss()
        try:
            value = await flight.join(is_leader)
        finally:
            del flight
        if not is_leader:
            state._record_hit()
        return value

    return share
