"""`cached` keeps a function's results in a `Moka`, as `functools.lru_cache` keeps them in a dict.

How it works: the arguments of a call become a key. A hit is one `get`; a miss runs the function and sets its result.
`wait_concurrent` lets calls of one key share one run: threads through `Moka.get_with`, coroutines through a `_Flight`.

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
import itertools
import sys
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from moka_py._moka_py import Moka

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

# What `get` answers where there is nothing: None is a value like any other.
_ABSENT: Any = object()
# Parts the positional arguments of a key from the keyword arguments.
_KEYWORDS = object()


class CacheInfo(NamedTuple):
    """How a cached function fared since it was made or last cleared.

    `misses` are the calls that ran the function, `hits` those that got a value without running it; a call that shares
    the exception of another is neither. `currsize` is the total weight, in the unit of `maxsize`.
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
    def __wrapped__(self) -> Callable[..., R_co]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], S], instance: object, owner: Any = None, /
    ) -> CachedFunction[Q, S]: ...
    def cache_info(self) -> CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...


class _Key(tuple[Any, ...]):
    """The arguments of a call, after the hash of them all: each is hashed once, however often the key is."""

    __slots__ = ()

    def __hash__(self) -> int:
        return cast(int, self[0])


def _key(typed: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The key of a call. As in `lru_cache`, keyword order counts, and a lone exact int or str is its own key."""
    match args:
        case [only] if not kwargs and not typed and (type(only) is int or type(only) is str):
            return only
    parts = args
    if kwargs:
        parts += (_KEYWORDS, *kwargs.items())
    if typed:
        parts += (*map(type, args), *map(type, kwargs.values()))
    return _Key((hash(parts), *parts))


class _Counter:
    """Counts calls without a lock: the step of `itertools.count` is atomic on both builds of CPython."""

    def __init__(self) -> None:
        self._steps = itertools.count()
        self._base = 0
        self.add = self._steps.__next__

    def _total(self) -> int:
        # Only its text tells where a count stands: "count(5)".
        return int(repr(self._steps)[6:-1])

    def value(self) -> int:
        return self._total() - self._base

    def reset(self) -> None:
        self._base = self._total()


class _Memo:
    """What one cached function has besides its code: the cache, the counts, and the era, which `clear` ends."""

    def __init__(self, cache: Moka[Any, Any], maxsize: int | None) -> None:
        self.cache = cache
        self.hits = _Counter()
        self.misses = _Counter()
        self.era = object()
        self._maxsize = maxsize

    def keep(self, key: Any, value: Any, era: object) -> None:
        """Sets a value whose computation began in `era`, unless that has ended."""
        if era is not self.era:
            return
        self.cache.set(key, value)
        # A clear may have come in between and missed the value.
        if era is not self.era:
            self.cache.remove(key)

    def info(self) -> CacheInfo:
        return CacheInfo(self.hits.value(), self.misses.value(), self._maxsize, self.cache.weighted_size())

    def clear(self) -> None:
        # The era ends first, so that whoever still finds the old one sets before the cache is emptied.
        self.era = object()
        self.cache.clear()
        self.hits.reset()
        self.misses.reset()


_MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def _wrap(function: Callable[..., Any], make_key: _MakeKey, memo: _Memo) -> Callable[..., Any]:
    get, hit, miss = memo.cache.get, memo.hits.add, memo.misses.add

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        value = get(key, _ABSENT)
        if value is not _ABSENT:
            hit()
            return value
        miss()
        era = memo.era
        value = function(*args, **kwargs)
        memo.keep(key, value, era)
        return value

    return wrapper


def _wrap_shared(function: Callable[..., Any], make_key: _MakeKey, memo: _Memo) -> Callable[..., Any]:
    get, get_with, hit, miss = memo.cache.get, memo.cache.get_with, memo.hits.add, memo.misses.add

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        value = get(key, _ABSENT)
        if value is not _ABSENT:
            hit()
            return value
        leads = False

        def compute() -> Any:
            nonlocal leads
            leads = True
            miss()
            return function(*args, **kwargs)

        value = get_with(key, compute)
        if not leads:
            hit()
        return value

    return wrapper


def _wrap_async(function: Callable[..., Any], make_key: _MakeKey, memo: _Memo) -> Callable[..., Any]:
    get, hit, miss = memo.cache.get, memo.hits.add, memo.misses.add

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        value = get(key, _ABSENT)
        if value is not _ABSENT:
            hit()
            return value
        miss()
        era = memo.era
        value = await function(*args, **kwargs)
        memo.keep(key, value, era)
        return value

    return wrapper


class _Flight(asyncio.Task[Any]):
    """The one computation of a key in one event loop. It is a task of its own, so no waiter's end is its end."""

    def __init__(self, computation: Any, loop: asyncio.AbstractEventLoop, era: object) -> None:
        # Not by the loop's task factory: an eager one would run the function before others can find the flight.
        super().__init__(computation, loop=loop)
        self._era = era
        self._waiters = 0
        self._is_cancelled = False
        self._waits_for: _Flight | None = None
        # Where no waiter is left to see a failure, nobody misses it.
        self.add_done_callback(lambda flight: flight.cancelled() or flight.exception())

    def is_open(self, era: object) -> bool:
        return self._era is era and not self._is_cancelled and not self.done()

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


def _wrap_async_shared(function: Callable[..., Any], make_key: _MakeKey, memo: _Memo) -> Callable[..., Any]:
    get, hit, miss = memo.cache.get, memo.hits.add, memo.misses.add
    # A flight holds its loop, so while it is here no other loop has that id.
    flights: weakref.WeakValueDictionary[tuple[int, Any], _Flight] = weakref.WeakValueDictionary()

    async def compute(key: Any, era: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = await function(*args, **kwargs)
        memo.keep(key, value, era)
        return value

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        era = memo.era
        value = get(key, _ABSENT)
        if value is not _ABSENT:
            hit()
            return value
        loop = asyncio.get_running_loop()
        place = (id(loop), key)
        flight = flights.get(place)
        leads = flight is None or not flight.is_open(era)
        if flight is None or leads:
            flight = _Flight(compute(key, era, args, kwargs), loop, era)
            try:
                flights[place] = flight
            except BaseException:  # of an `__eq__`
                flight.cancel()
                raise
            miss()
        try:
            value = await flight.join()
        finally:
            del flight
        if not leads:
            hit()
        return value

    return wrapper


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
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...
@overload
def cached(
    maxsize: Callable[P, R],
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
) -> CachedFunction[P, R]: ...
def cached(
    maxsize: Any = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
) -> Any:
    """Keeps the results of a function or coroutine function, like `functools.lru_cache`; also as plain `@cached`.

    - `maxsize`: how many results, or how much weight. None is without bound; 0 or less keeps nothing.
    - `typed`: whether arguments of different types, such as 1 and 1.0, are different calls.
    - `ttl`, `tti`: how long a result lives after it was computed, and after its last use: seconds or a `timedelta`.
    - `wait_concurrent`: whether calls of one key share one run, its result or its exception. Threads wait for each
      other. Coroutines wait for those of their event loop, which must be asyncio's; the run sees the context variables
      of its first caller, and is cancelled when its last waiter is. A run that calls itself with its own arguments
      raises RuntimeError, and so does a circle of runs (in coroutines: of such as await each other directly).
    - `policy`: `"tiny_lfu"` or `"lru"`, what leaves when the cache is full.
    - `weigher`: a function of a key, which is opaque, and a result, that returns what it counts toward `maxsize`.

    Arguments must be hashable. Exceptions and cancellations are not kept, and neither is what began before a
    `cache_clear`. The result has `cache_info`, `cache_clear`, `cache_parameters`, `cache` (the `Moka`) and
    `__wrapped__`, as attributes.
    """
    function, maxsize = (maxsize, 128) if callable(maxsize) else (None, maxsize)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, None or the function to cache, got {type(maxsize).__name__}")
    for name, flag in (("typed", typed), ("wait_concurrent", wait_concurrent)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
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
        memo = _Memo(cache, maxsize)
        # Where nothing is shared either, calls need no key, so their arguments need not be hashable.
        make_key = functools.partial(_key, typed) if capacity or wait_concurrent else lambda args, kwargs: None
        if _is(function, inspect.iscoroutinefunction):
            wrap = _wrap_async_shared if wait_concurrent else _wrap_async
        else:
            wrap = _wrap_shared if wait_concurrent else _wrap
        wrapper: Any = functools.update_wrapper(wrap(function, make_key, memo), function)
        wrapper.cache = cache
        wrapper.cache_info = memo.info
        wrapper.cache_clear = memo.clear
        wrapper.cache_parameters = parameters.copy
        return wrapper

    return decorate if function is None else decorate(function)
