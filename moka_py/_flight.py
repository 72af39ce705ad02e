"""The computations of cached coroutine functions, and who waits for them.

Invariants:
- `weak`: only waiters hold a flight, so a loop that is closed with work in flight leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from moka_py._moka_py import _Made, _Memo
from moka_py._raised import copied


async def awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Flight(asyncio.Task[Any]):
    """The one computation of a key in one event loop. It is a task of its own, so no waiter's end is its end."""

    def __init__(self, computation: Any, loop: asyncio.AbstractEventLoop, era: int) -> None:
        # Not by the loop's task factory: an eager one would run the function before others can find the flight.
        super().__init__(computation, loop=loop)
        self._era = era
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

    def is_open(self, era: int) -> bool:
        return self._era == era and not self._is_cancelled and not self.done()

    def cancel(self, msg: Any = None) -> bool:
        self._is_cancelled = True
        return super().cancel(msg)

    async def join(self, leads: bool) -> Any:
        """The result of the flight, which the caller began if it leads.

        Cancelling the last waiter cancels the flight, whose end is then awaited.
        """
        caller = asyncio.current_task()
        flight: Flight | None = self
        while flight is not None:
            if flight is caller:
                raise RuntimeError("the computation of a key waits for its own result")
            flight = flight._waits_for
        if isinstance(caller, Flight):
            caller._waits_for = self
        self._waiters += 1
        try:
            await asyncio.wait((self,))
        except asyncio.CancelledError as error:
            if self._waiters > 1 or not self.is_open(self._era):
                raise
            self.cancel(*error.args)
        finally:
            self._waiters -= 1
            if isinstance(caller, Flight):
                caller._waits_for = None
        try:
            if self._failure is not None and not leads:
                raise copied(self._failure)
            return await self
        finally:
            # The traceback of a failure holds this frame, and the flight holds the failure.
            del self, caller


def sharer(function: Callable[..., Any]) -> Callable[..., Any]:
    # A flight holds its loop, so while it is here no other loop has that id.
    flights: weakref.WeakValueDictionary[tuple[int, _Made], Flight] = weakref.WeakValueDictionary()

    async def compute(memo: _Memo, made: _Made, era: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = memo._begin_load()
        try:
            value = await function(*args, **kwargs)
        except BaseException:
            memo._end_load(began, True)
            raise
        memo._end_load(began, False)
        memo._keep(made, value, era)
        return value

    async def share(memo: _Memo, made: _Made, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call that was not found, computed once for all that await it in this event loop."""
        era = memo._era
        loop = asyncio.get_running_loop()
        place = (id(loop), made)
        flight = flights.get(place)
        leads = flight is None or not flight.is_open(era)
        if flight is None or leads:
            flight = Flight(compute(memo, made, era, args, kwargs), loop, era)
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
