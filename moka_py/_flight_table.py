"""`FlightTable`: the flights of one cache, by event loop and key.

How it works: a call that misses begins a `Flight`, a task of its own, and registers it under its event loop and key. A
later call of the same key joins the flight: it waits for the task, and returns its result or raises a copy of its
exception. The calls are those of `aget_with` and of cached coroutine functions with `wait_concurrent`. A bulk load is
one flight that is registered under each of its keys.

A flight refers to its loop, so while the flight is in the table no other loop has the same id.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from moka_py._flight import ABSENT, BulkFlight, Flight, RefreshFlight, release_all
from moka_py._moka_py import (
    Moka,
    _CachedRun,
    _CachedState,
    _CallKey,
    _end_many,
    _keep_many,
    _look_up_many,
    _read_loaded,
    _RefreshClaim,
)


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
        call = _bound(state, function, args, kwargs)
        while True:
            flight = self._find(loop, key)
            is_leader = flight is None
            if flight is None:
                run = _CachedRun.begin(cache, key, state, ttl, tti)
                if isinstance(run, tuple):
                    if state is not None:
                        state._record_hit()
                    return run[0]
                flight = self._register(Flight(_compute(run, call), loop, run), loop, (key,))
                del run
                if state is not None:
                    state._record_miss()
            try:
                value = await flight.join(key, is_leader)
            finally:
                del flight
            if value is ABSENT:  # A bulk load had no answer for this key.
                value = Moka.peek(cache, key.key, ABSENT)
            if value is not ABSENT:
                break
        if state is not None and not is_leader:
            state._record_hit()
        return value

    async def aget_many_with(
        self,
        cache: Moka[Any, Any],
        keys: Iterable[Any],
        load: Callable[[list[Any]], Awaitable[Any]],
        ttl: Any,
        tti: Any,
    ) -> dict[Any, Any]:
        """Return the values of several keys. Those without a value are computed together, as `aget_many_with` says.

        Args:
            cache: The cache of this table.
            keys: The keys.
            load: Called with the list of keys to compute.
            ttl: The lifetime of a new entry, as in `Moka.set`.
            tti: Likewise.
        """
        values, missing = _look_up_many(cache, keys, ABSENT)
        if not missing:
            return values
        loop = _running_loop("aget_many_with")
        runs: dict[_CallKey, _CachedRun] = {}
        others: list[tuple[_CallKey, Flight]] = []
        bulk = flight = None
        loaded: dict[Any, Any] = {}
        for key in missing:
            flight = self._find(loop, key)
            if flight is not None:
                flight.refuse_circle(key)
                others.append((key, flight))
                continue
            run = _CachedRun.begin(cache, key, None, ttl, tti)
            if isinstance(run, tuple):
                values[key.key] = run[0]
            else:
                runs[key] = run
        # From now on these flights have a waiter, so none is cancelled while this call waits for its own load.
        for _, flight in others:
            flight.hold()
        try:
            if runs:
                computation = _compute_many(cache, runs, load, ttl, tti)
                bulk = self._register(BulkFlight(computation, loop, runs), loop, runs)
                await bulk.wait()
                loaded = bulk.result()
                for key in runs:
                    values[key.key] = loaded.get(key.key, ABSENT)
            while others:
                key, flight = others[0]
                flight.refuse_circle(key)
                del others[0]
                flight.release()
                await flight.wait()
                # A flight that was cancelled has no value, as one that does not answer the key.
                value = ABSENT if flight.cancelled() else flight.value_of(key, is_leader=False)
                values[key.key] = Moka.peek(cache, key.key, ABSENT) if value is ABSENT else value
        except BaseException as error:
            await release_all([flight for _, flight in others], error)
            raise
        finally:
            # The traceback of a failure refers to this frame, and the flight to the failure.
            bulk = flight = None
            others.clear()
        for key in missing:
            if values[key.key] is ABSENT:
                del values[key.key]
        # A key that had a value, or that another call computed, keeps that value.
        return values | {key: value for key, value in loaded.items() if key not in values}

    def refresh(
        self,
        claim: _RefreshClaim,
        stale: Any,
        state: _CachedState | None,
        key: _CallKey,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Coroutine[Any, Any, Any] | None:
        """Begin to compute a value anew.

        Args:
            claim: The right to do so.
            stale: The old value.
            state: As in `share`.
            key: The key.
            function: The cached function, or the initializer.
            args: The arguments of the function.
            kwargs: Its keyword arguments.

        Returns:
            None if a task computes, or if there is nothing to compute, since the key was written to. If the caller is
            not in a task of asyncio, a coroutine by which it computes itself, and that returns the new value, or the
            old one.
        """
        if not claim.begin():
            return None
        call = _bound(state, function, args, kwargs)
        if not _is_in_task():
            return _refresh_here(claim, stale, call, function)
        loop = asyncio.get_running_loop()
        flight = RefreshFlight(_refresh(claim, call, function), loop, claim)
        # Calls that share computations join it, if they find no value.
        self._register(flight, loop, (key,))
        return None

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


def _bound(
    state: _CachedState | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], Awaitable[Any]]:
    """Return a call of a cached function, or of the initializer of `aget_with`, which has no arguments."""
    if state is None:
        return functools.partial(_call_async, "initializer", function)
    return functools.partial(function, *args, **kwargs)


async def _compute(run: _CachedRun, call: Callable[[], Awaitable[Any]]) -> Any:
    """Compute the value of a key, and store it."""
    began = run.begin_load()
    try:
        value = await call()
    except BaseException as error:
        run.fail(began, error)
        raise
    run.complete(began, value)
    return value


async def _refresh(claim: _RefreshClaim, call: Callable[[], Awaitable[Any]], function: Any) -> Any:
    """Compute a value anew, and store it."""
    try:
        value = await call()
        claim.complete(value)
    except Exception as error:
        claim.fail()
        claim.report(error, function)
        raise
    except BaseException:
        claim.cancel()
        raise
    return value


async def _refresh_here(claim: _RefreshClaim, stale: Any, call: Callable[[], Awaitable[Any]], function: Any) -> Any:
    """Compute a value anew in the call that found it stale. After a failure return the old value, while it lives."""
    try:
        value = await call()
        claim.complete(value)
    except Exception as error:
        is_live = claim.is_value_live()
        claim.fail()
        if not is_live:
            raise
        claim.report(error, function)
        return stale
    except BaseException:
        claim.cancel()
        raise
    return value


def _is_in_task() -> bool:
    """Return whether the caller is in a task of asyncio. One of another library may run within asyncio's event loop."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def _compute_many(
    cache: Moka[Any, Any], runs: dict[_CallKey, _CachedRun], load: Callable[..., Awaitable[Any]], ttl: Any, tti: Any
) -> dict[Any, Any]:
    """Compute the values of several keys, and store them. Return all that `load` returned."""
    first = next(iter(runs.values()))
    began = first.begin_load()
    try:
        loaded = _read_loaded(await _call_async("load", load, [key.key for key in runs]))
    except BaseException as error:
        first.fail(began, error)
        _end_many(runs)
        raise
    first.end_load(began)
    _keep_many(cache, runs, loaded, ttl, tti)
    return loaded


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
