"""`FlightTable`: the flights of one cache, by event loop and key.

How it works: a call that misses begins a `Flight`, a task of its own, and registers it under its event loop and key. A
later call of the same key joins the flight: it waits for the task, and returns its result or raises a copy of its
exception. The calls are those of `aget_with` and of cached coroutine functions with `wait_concurrent`.

A flight refers to its loop, so while the flight is in the table no other loop has the same id.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from moka_py._flight import Flight
from moka_py._moka_py import Moka, _CachedRun, _CachedState, _CallKey


class FlightTable:
    """The flights of one cache. The cache makes it when a coroutine first needs it."""

    def __init__(self) -> None:
        self._flights: weakref.WeakValueDictionary[tuple[int, _CallKey], Flight] = weakref.WeakValueDictionary()

    async def share(
        self,
        cache: Moka[Any, Any],
        state: _CachedState | None,
        key: _CallKey,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ttl: Any,
        tti: Any,
    ) -> Any:
        """Return the value of a key that was looked up and not found, computed once for all calls in this event loop.

        Args:
            cache: The cache of this table.
            state: That of the cached function, or None for `aget_with`, which has counted its miss.
            key: The key.
            function: The cached function, or the initializer.
            args: The arguments of the function.
            kwargs: Its keyword arguments.
            ttl: The lifetime of a new entry, as in `Moka.set`.
            tti: Likewise.
        """
        loop = _running_loop("aget_with" if state is None else "wait_concurrent=True of a coroutine function")
        if state is None:
            function = functools.partial(_call_async, "initializer", function)
        flight = self._find(loop, key)
        is_leader = flight is None
        if flight is None:
            run = _CachedRun.begin(cache, key, state, ttl, tti)
            if isinstance(run, tuple):
                if state is not None:
                    state._record_hit()
                return run[0]
            flight = self._register(Flight(_compute(run, function, args, kwargs), loop, run), loop, (key,))
            del run
            if state is not None:
                state._record_miss()
        try:
            value = await flight.join(key, is_leader)
        finally:
            del flight
        if state is not None and not is_leader:
            state._record_hit()
        return value

    def _find(self, loop: asyncio.AbstractEventLoop, key: _CallKey) -> Flight | None:
        """Return the flight of a key that a call in this loop may join."""
        flight = self._flights.get((id(loop), key))
        return flight if flight is not None and flight.is_open(key) else None

    def _register(self, flight: Flight, loop: asyncio.AbstractEventLoop, keys: Iterable[_CallKey]) -> Flight:
        """Let other calls find a flight under its keys."""
        try:
            for key in keys:
                self._flights[id(loop), key] = flight
        except BaseException:  # of an `__eq__`
            flight.cancel()
            raise
        return flight


async def _compute(
    run: _CachedRun, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Compute the value of a key, and store it."""
    began = run.begin_load()
    try:
        value = await function(*args, **kwargs)
    except BaseException:
        run.fail(began)
        raise
    run.complete(began, value)
    return value


def _call_async(name: str, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    """Call an argument that must return an awaitable."""
    awaitable: Any = function(*args)
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"{name} must return an awaitable, got {type(awaitable).__name__}")
    return awaitable


def _running_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the event loop of the caller.

    Args:
        what: What needs it, for the message.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"{what} needs an asyncio event loop, and none is running here; "
            "under another library, such as trio, use a cached function with wait_concurrent=False"
        ) from None
