"""`cached` keeps a function's results in a `Moka`, as `functools.lru_cache` keeps them in a dict.

How it works: a function becomes a native callable, which looks its arguments up where they lie. A coroutine function's
returns an awaitable, which does so when it is awaited, and runs the function's coroutine after a miss.
`wait_concurrent` lets calls of one key share one run: threads through `Moka.get_with`, coroutines through a `Flight`.
`weak_self` puts an `_Owner` in the instance's place in the keys.

Invariants:
- `finished`: the cache holds results, never tasks, coroutines or failures.
- `fresh`: what began before a write to its key is not kept after it: a `set`, a removal, an invalidation, a clear.
- `unlocked`: no lock is held while the function, a weigher, or an `__eq__` or `__hash__` runs.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Hashable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
    runtime_checkable,
)

from moka_py._moka_py import Moka, _cached_function, _CachedFunction, _Memo, _OwnerRegistry

if TYPE_CHECKING:
    from datetime import timedelta

    from moka_py._signatures import Kept

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


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


@runtime_checkable
class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept: called as before, with the cache as attributes. It works with `isinstance`."""

    cache: Moka[Any, Any]
    """The cache of the results. Its keys are opaque."""
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, which neither asks nor fills the cache."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of these arguments, from the cache or by running the function."""
        ...

    # A class method is bound to its class and a method to its instance; else it is a static method, or none.
    @overload
    def __get__(  # type: ignore[misc]
        self: Callable[Concatenate[type[T], Q], S], instance: T | None, owner: type[T], /
    ) -> CachedMethod[Q, S]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(self: Callable[Concatenate[T, Q], S], instance: T, owner: Any = None, /) -> CachedMethod[Q, S]: ...
    @overload
    def __get__(self, instance: object, owner: Any = None, /) -> CachedFunction[P, R_co]: ...
    def cache_info(self) -> CacheInfo:
        """Return the hits and misses since the function was made or last cleared, and how full the cache is."""
        ...

    def cache_clear(self) -> None:
        """Forget all results and counts. The result of a run under way is not kept."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """Return what `cached` was given, in a new dict with each of its options by name."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of these arguments; say whether there was one. A run under way is not kept."""
        ...

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Say whether there is a result of these arguments. It is no access."""
        ...


# So that `isinstance` knows it by its type, and not by each of its members.
CachedFunction.register(_CachedFunction)


class _BoundKind(type(Protocol)):  # type: ignore[misc]
    """Lets `isinstance` know a bound method, whose type says nothing of what it binds."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, types.MethodType) and isinstance(instance.__func__, CachedFunction)


@runtime_checkable
class CachedMethod(Protocol[P, R_co], metaclass=_BoundKind):
    """A cached function of a class, as an instance has it. The attributes are the function's, and take the instance.
    It works with `isinstance`."""

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
    def cache_invalidate(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of these arguments of the instance; say whether there was one."""
        ...

    def cache_contains(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Say whether there is a result of these arguments of the instance. It is no access."""
        ...


# mypy takes it for true.
MYPY = False
if TYPE_CHECKING:
    if MYPY:
        type _Result[**P, R] = CachedFunction[P, R]
    else:
        type _Result[**P, R] = Kept[Callable[P, Any] | Any, R]


def _refuse_descriptor(thing: Any) -> None:
    """Raises where `cached` is above something that makes a method, a property or the like of a function."""
    kind = type(thing)
    if isinstance(thing, staticmethod) or (hasattr(kind, "__get__") and not callable(thing)):
        name = kind.__name__
        raise TypeError(f"@cached must be below @{name}, directly above the function, got {name}")


def _is(function: Any, test: Callable[[Any], bool]) -> bool:
    """Whether the test holds for what a call of the function runs."""
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(type(function).__call__)


def _is_defined_in(frame: types.FrameType | None, function: Any) -> bool:
    """Whether the function was just defined in this frame, which is of the body of a module, or of a class in one.

    A program has as many such functions as its text names, so they may live as long as it does.
    """
    import inspect

    if frame is None:
        return False
    body = frame.f_code
    return (
        isinstance(function, types.FunctionType)
        and not body.co_flags & inspect.CO_OPTIMIZED
        and not function.__code__.co_flags & inspect.CO_NESTED
        and function.__name__ != "<lambda>"
        and any(part is function.__code__ for part in body.co_consts)
        and frame.f_locals.get(function.__name__) is not function
    )


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
) -> Callable[[Callable[P, R]], _Result[P, R]]: ...
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
) -> _Result[P, R]: ...
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
    - `typed`: whether equal arguments of different types are different calls: False unless given, so `f(1, 2)` and
      `f(1.0, 2)` are one. `f(1)` and `f(1.0)` are two in any case, as with `lru_cache`.
    - `ttl`, `tti`: how long a result lives after it was computed, and after its last use: seconds or a `timedelta`.
    - `wait_concurrent`: whether calls of one key share one run, its result or its exception, of which those that
      waited raise copies. Threads wait for each other. Coroutines wait for those of their event loop, which must be
      asyncio's; the run sees the context variables of its first caller, and is cancelled when its last waiter is. A run
      that calls itself with its own arguments raises RuntimeError, and so does a circle of runs (in coroutines: of such
      as await each other directly; in threads: of such as wait in this cache or another one). A run that waits for a
      thread in another way, such as for the result of an executor, is not seen, and such a circle waits for ever.
    - `weak_self`: for a method: whether its instances live only as long as they are used elsewhere. The results of an
      instance leave with it, and two instances are never the same call, even if they are equal. The instance is the
      first positional argument, and must be one that can be weakly referenced. A result or another argument that
      refers to the instance keeps it alive nevertheless, until the entry leaves.
    - `policy`: `"tiny_lfu"` or `"lru"`, what leaves when the cache is full.
    - `weigher`: a function of a key, which is opaque, and a result, that returns what it counts toward `maxsize`.
    - `key`: a function of the call's arguments that returns its key, in place of the arguments themselves. With
      `weak_self` the key is the instance's own. It excludes `typed`.

    Arguments must be hashable, and count as they are passed: `f(1)` and `f(x=1)` are two entries. All instances of a
    class share the cache of a method. `@classmethod`, `@staticmethod` and `@property` go above `@cached`.

    Exceptions and cancellations are not kept, and neither is the result of a run that began before `cache_invalidate`,
    `cache_clear`, or a write to its key in `cache`. The result has `cache_info`, `cache_clear`, `cache_parameters`,
    `cache` (the `Moka`), `__wrapped__`, and, for a call with the arguments given, `cache_invalidate` and
    `cache_contains`, as attributes.
    """
    _refuse_descriptor(maxsize)
    function, maxsize = (maxsize, 128) if callable(maxsize) else (None, maxsize)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, None or the function to cache, got {type(maxsize).__name__}")
    for name, flag in (("typed", typed), ("wait_concurrent", wait_concurrent), ("weak_self", weak_self)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable or None, got {type(key).__name__}")
    if typed and key is not None:
        raise ValueError(f"typed must be False if key makes the keys, got typed=True and key={key!r}")
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
        "weak_self": weak_self,
        "policy": policy,
        "weigher": weigher,
        "key": key,
    }

    def decorate(function: Callable[..., Any]) -> Any:
        # Not with the package: many programs need neither this nor asyncio, which take longer to import than all else.
        import inspect

        _refuse_descriptor(function)
        if not callable(function):
            raise TypeError(f"cached needs a callable, got {type(function).__name__}")
        if _is(function, inspect.isgeneratorfunction) or _is(function, inspect.isasyncgenfunction):
            raise TypeError("cached cannot keep what a generator function returns, since it serves only once")
        # Without capacity nothing is kept, not even what weighs nothing.
        cache: Moka[Any, Any] = Moka(capacity, ttl=ttl, tti=tti, policy=policy, weigher=weigher if capacity else None)
        is_async = _is(function, inspect.iscoroutinefunction)
        if is_async:
            from moka_py import _flight
        if weak_self:
            from moka_py import _owners

            owners = _OwnerRegistry()

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
            make_owner=_owners.adopter(cache, owners) if weak_self else None,
            awaited=_flight.awaited if is_async else None,
            share=_flight.sharer(function) if is_async else None,
        )
        frame = sys._getframe().f_back
        if frame is not None and frame.f_code is cached.__code__:
            frame = frame.f_back
        wrapper: Any = _cached_function(memo, _is_defined_in(frame, function))
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
