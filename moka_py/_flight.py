"""The computations of cached coroutine functions, and who waits for them.

Invariants:
- `weak`: only waiters hold a flight, so a loop that is closed with work in flight leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from moka_py._moka_py import _Made, _Memo, _Run
from moka_py._raised import copied


async def awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Flight(asyncio.Task[Any]):
    """The one computation of a key in one event loop. It is a task of its own, so no waiter's end is its end."""

    def __init__(self, computation: Any, loop: asyncio.AbstractEventLoop, made: _Made, run: _Run) -> None:
        # Not by the loop's task factory: an eager one would run the function before others can find the flight.
        super().__init__(computation, loop=loop)
        self._made = made
        self._run = run
        self._waiters = 0
        self._is_cancelled = False
        self._waits_for: Flight | None = None
        self._failure: BaseException | None = None
        self.add_done_callback(Flight._keep_failure)

    def _keep_failure(self) -> None:
        """Copy a failure for those of several waiters that did not begin the flight, before the first raises it.

        Of one exception for all of them the traceback would gather their frames.
        """
        # To ask for the exception is also what keeps asyncio from reporting one that no waiter is left to see.
        error = None if self.cancelled() else self.exception()
        if error is not None and self._waiters > 1:
            self._failure = copied(error)

    def is_open(self) -> bool:
        """Return whether a new call may join: the key was not written to since the flight began."""
        return not (self._is_cancelled or self.done() or self._run.is_superseded())

    def cancel(self, msg: Any = None) -> bool:
        self._is_cancelled = True
        return super().cancel(msg)

    async def join(self, leads: bool) -> Any:
        """Return the result of the flight, which the caller began if it leads.

        Cancelling the last waiter cancels the flight, whose end is then awaited.
        """
        caller = asyncio.current_task()
        flight: Flight | None = self
        while flight is not None:
            if flight is caller:
                raise RuntimeError(self._made.own_key_error())
            flight = flight._waits_for
        if isinstance(caller, Flight):
            caller._waits_for = self
        self._waiters += 1
        late = None
        try:
            await asyncio.wait((self,))
        except asyncio.CancelledError as error:
            if self._waiters > 1 or self._is_cancelled or self.done():
                raise
            self.cancel(*error.args)
            late = await self._end(error.args)
        finally:
            self._waiters -= 1
            if isinstance(caller, Flight):
                caller._waits_for = None
        try:
            if self._failure is not None and not leads:
                raise copied(self._failure)
            value = await self
            if late is not None:
                raise late
            return value
        finally:
            # The traceback of a failure holds this frame, and the flight holds the failure.
            del self, caller, flight, late

    async def _end(self, reason: tuple[Any, ...]) -> asyncio.CancelledError | None:
        """Wait until the cancelled flight has ended. Return a later cancellation of the waiter, if there was one.

        A later cancellation would tear off the cleanup of the function. anyio repeats one until its scope is left, with
        the same words. It does not see that the function shields its cleanup: the function runs in another task.
        """
        late = None
        while not self.done():
            try:
                await asyncio.wait((self,))
            except asyncio.CancelledError as error:
                if not reason or error.args != reason:
                    late = error
        return late


def sharer(function: Callable[..., Any]) -> Callable[..., Any]:
    # A flight holds its loop, so while it is here no other loop has that id.
    flights: weakref.WeakValueDictionary[tuple[int, _Made], Flight] = weakref.WeakValueDictionary()

    async def compute(memo: _Memo, made: _Made, run: _Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = memo._begin_load()
        try:
            value = await function(*args, **kwargs)
        except BaseException:
            memo._end_load(began, True)
            raise
        memo._end_load(began, False)
        memo._keep(made, value, run)
        return value

    async def share(memo: _Memo, made: _Made, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call that was not found, computed once for all that await it in this event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "wait_concurrent=True of a coroutine function needs an asyncio event loop, and none is running here; "
                "under another library, such as trio, use wait_concurrent=False"
            ) from None
        place = (id(loop), made)
        flight = flights.get(place)
        leads = flight is None or not flight.is_open()
        if flight is None or leads:
            run = memo._begin(made)
            if isinstance(run, tuple):
                memo._hit()
                return run[0]
            flight = Flight(compute(memo, made, run, args, kwargs), loop, made, run)
            del run
            try:
                flights[place] = flight
            except BaseException:  # of an `__eq__`
                flight.cancel()
                raise
            memo._miss()
        try:
            value = await flight.join(leads)
        finally:
            del flight
        if not leads:
            memo._hit()
        return value

    return share
