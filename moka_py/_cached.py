"""`cached` keeps a function's results in a `Moka`, as `functools.lru_cache` keeps them in a dict.

How it works: a function becomes a native callable, which looks its arguments up where they lie. A coroutine function's
returns an awaitable, which does so when it is awaited, and runs the function's coroutine after a miss.
`wait_concurrent` lets calls of one key share one run: threads through `Moka.get_with`, coroutines through a `_Flight`.
`weak_self` puts an `_Owner` in the instance's place in the keys.

Invariants:
- `finished`: the cache holds results, never tasks, coroutines or failures.
- `fresh`: what began before a `cache_clear` is not kept after it.
- `weak`: only waiters hold a flight, so a loop that is closed with work in flight leaves nothing behind.
- `unlocked`: no lock is held while the function, a weigher, or an `__eq__` or `__hash__` runs.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, overload

from moka_py._moka_py import Moka, _cached_function, _Made, _Memo, _Owner

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class CacheInfo(NamedTuple):
    """How a cached function fared since it was made or last cleared.

    `misses` are the calls that ran the function, `hits` those that got a value without running it; a call that shares
    the exception of another is neither. `currsize` is the total weight, in the unit of `maxsize`. The `stats()` of the
    function's `cache` say more; hits and misses are the same counts.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept: called as before, with the cache as attributes."""

    cache: Moka[Any, Any]
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], S], instance: object, owner: Any = None, /
    ) -> CachedMethod[Q, S]: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...


class CachedMethod(Protocol[P, R_co]):
    """A cached function of a class, as an instance has it. The attributes are the function's, and take the instance."""

    cache: Moka[Any, Any]
    __name__: str
    __qualname__: str

    @property
    def __self__(self) -> Any: ...
    @property
    def __func__(self) -> CachedFunction[..., R_co]: ...
    @property
    def __wrapped__(self) -> Callable[..., R_co]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_invalidate(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def cache_contains(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class _Flight(asyncio.Task[Any]):
    """The one computation of a key in one event loop. It is a task of its own, so no waiter's end is its end."""

    def __init__(self, computation: Any, loop: asyncio.AbstractEventLoop, era: int) -> None:
        # Not by the loop's task factory: an eager one would run the function before others can find the flight.
        super().__init__(computation, loop=loop)
        self._era = era
        self._waiters = 0
        self._is_cancelled = False
        self._waits_for: _Flight | None = None
        # Where no waiter is left to see a failure, nobody misses it.
        self.add_done_callback(lambda flight: flight.cancelled() or flight.exception())

    def is_open(self, era: int) -> bool:
        return self._era == era and not self._is_cancelled and not self.done()

    def cancel(self, msg: Any = None) -> bool:
        self._is_cancelled = True
        return super().cancel(msg)

    async def join(self) -> Any:
        """The result of the flight. Cancelling the last waiter cancels the flight, whose end is then awaited."""
        caller = asyncio.current_task()
        flight: _Flight | None = self
        while flight is not None:
            if flight is caller:
                raise RuntimeError("the computation of a key waits for its own result")
            flight = flight._waits_for
        if isinstance(caller, _Flight):
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
            if isinstance(caller, _Flight):
                caller._waits_for = None
        try:
            return await self
        finally:
            # The traceback of a failure holds this frame, and the flight holds the failure.
            del self, caller


def _sharer(function: Callable[..., Any]) -> Callable[..., Any]:
    # A flight holds its loop, so while it is here no other loop has that id.
    flights: weakref.WeakValueDictionary[tuple[int, _Made], _Flight] = weakref.WeakValueDictionary()

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
            flight = _Flight(compute(memo, made, era, args, kwargs), loop, era)
            try:
                flights[place] = flight
            except BaseException:  # of an `__eq__`
                flight.cancel()
                raise
            memo._miss()
        try:
            value = await flight.join()
        finally:
            del flight
        if not leads:
            memo._hit()
        return value

    return share


def _adopter(cache: Moka[Any, Any], owners: dict[int, _Owner]) -> Callable[[object], _Owner]:
    def adopt(instance: object) -> _Owner:
        """The owner of an instance, which is among the owners for as long as the instance lives."""
        place = id(instance)

        def gone(_reference: Any) -> None:
            # By then no other object has that address: the instance is freed after this.
            owner = owners.pop(place, None)
            if owner is not None:
                owner._forget(cache)

        try:
            reference = weakref.ref(instance, gone)
        except TypeError:
            kind = type(instance).__name__
            raise TypeError(f"weak_self needs an instance that can be weakly referenced, got {kind}") from None
        return owners.setdefault(place, _Owner(reference))

    return adopt


def _is(function: Any, test: Callable[[Any], bool]) -> bool:
    """Whether the test holds for what a call of the function runs."""
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(type(function).__call__)


@overload
def cached(
    maxsize: int | None = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...
@overload
def cached[**P, R](
    maxsize: Callable[P, R],
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
) -> CachedFunction[P, R]: ...
def cached(
    maxsize: Any = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
) -> Any:
    """Keeps the results of a function or coroutine function, like `functools.lru_cache`; also as plain `@cached`.

    - `maxsize`: how many results, or how much weight. None is without bound; 0 or less keeps nothing.
    - `typed`: whether arguments of different types, such as 1 and 1.0, are different calls.
    - `ttl`, `tti`: how long a result lives after it was computed, and after its last use: seconds or a `timedelta`.
    - `wait_concurrent`: whether calls of one key share one run, its result or its exception. Threads wait for each
      other. Coroutines wait for those of their event loop, which must be asyncio's; the run sees the context variables
      of its first caller, and is cancelled when its last waiter is. A run that calls itself with its own arguments
      raises RuntimeError, and so does a circle of runs (in coroutines: of such as await each other directly).
    - `weak_self`: for a method: whether its instances live only as long as they are used elsewhere. The results of an
      instance leave with it, and two instances are never the same call, even if they are equal. The instance is the
      first positional argument, and must be one that can be weakly referenced. A result or another argument that
      refers to the instance keeps it alive nevertheless, until the entry leaves.
    - `policy`: `"tiny_lfu"` or `"lru"`, what leaves when the cache is full.
    - `weigher`: a function of a key, which is opaque, and a result, that returns what it counts toward `maxsize`.
    - `key`: a function of the call's arguments that returns its key, in place of the arguments themselves. With
      `weak_self` the key is the instance's own.

    Arguments must be hashable. Exceptions and cancellations are not kept, and neither is what began before a
    `cache_clear`. The result has `cache_info`, `cache_clear`, `cache_parameters`, `cache` (the `Moka`), `__wrapped__`,
    and, for a call with the arguments given, `cache_invalidate` and `cache_contains`, as attributes.
    """
    function, maxsize = (maxsize, 128) if callable(maxsize) else (None, maxsize)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, None or the function to cache, got {type(maxsize).__name__}")
    for name, flag in (("typed", typed), ("wait_concurrent", wait_concurrent), ("weak_self", weak_self)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable or None, got {type(key).__name__}")
    maxsize = maxsize if maxsize is None else max(maxsize, 0)
    capacity = sys.maxsize if maxsize is None else min(maxsize, sys.maxsize)
    # Complains of a wrong argument here already, before there is a function.
    Moka(capacity, ttl=ttl, tti=tti, policy=policy, weigher=weigher)
    parameters = {
        "maxsize": maxsize,
        "typed": typed,
        "ttl": ttl,
        "tti": tti,
        "wait_concurrent": wait_concurrent,
        "policy": policy,
    }

    def decorate(function: Callable[..., Any]) -> Any:
        if not callable(function):
            raise TypeError(f"cached needs a callable, got {type(function).__name__}")
        if _is(function, inspect.isgeneratorfunction) or _is(function, inspect.isasyncgenfunction):
            raise TypeError("cached cannot keep what a generator function returns, since it serves only once")
        # Without capacity nothing is kept, not even what weighs nothing.
        cache: Moka[Any, Any] = Moka(capacity, ttl=ttl, tti=tti, policy=policy, weigher=weigher if capacity else None)
        owners: dict[int, _Owner] = {}
        is_async = _is(function, inspect.iscoroutinefunction)

        def info(hits: int, misses: int, currsize: int) -> CacheInfo:
            return CacheInfo(hits, misses, maxsize, currsize)

        memo = _Memo(
            function,
            cache,
            info,
            typed=typed,
            shared=wait_concurrent,
            make_key=key,
            owners=owners if weak_self else None,
            adopt=_adopter(cache, owners) if weak_self else None,
            awaited=_awaited if is_async else None,
            share=_sharer(function) if is_async else None,
        )
        # As CPython 3.13t has it with its own functions: those inside others come and go.
        is_at_top = isinstance(function, types.FunctionType) and not function.__code__.co_flags & inspect.CO_NESTED
        wrapper: Any = _cached_function(memo, is_at_top)
        functools.update_wrapper(wrapper, function)
        if is_async:
            inspect.markcoroutinefunction(wrapper)
        wrapper.cache = cache
        wrapper.cache_info = memo.cache_info
        wrapper.cache_clear = memo.cache_clear
        wrapper.cache_parameters = parameters.copy
        wrapper.cache_invalidate = memo.cache_invalidate
        wrapper.cache_contains = memo.cache_contains
        return wrapper

    return decorate if function is None else decorate(function)
