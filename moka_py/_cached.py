"""`cached`: it keeps the results of a function in a `Moka`, as `functools.lru_cache` keeps them in a dict.

How it works: the function becomes a native callable, which looks its arguments up without making a tuple of them. A
coroutine function becomes one that returns a native awaitable, which looks up when it is first awaited, and runs the
function's coroutine after a miss. `wait_concurrent` lets concurrent calls of one key share one run: threads as in
`Moka.get_with`, coroutines through a `FlightTable`. `weak_self` puts an `_Owner` in place of the instance into the
keys.

Invariants:
- `finished`: the cache holds results, never tasks, coroutines or failures. Failures that are kept lie beside it.
- `later-write-wins`: a result is not stored if its key was written to since the run began: by a `set`, a removal, an
  invalidation or a clear.
- `unlocked`: no lock is held while the function, a weigher, or an `__eq__` or `__hash__` runs.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Coroutine, Hashable
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

from moka_py._cache_refresh import make_async_refresh, make_refresh
from moka_py._exceptions import is_cancellation
from moka_py._moka_py import Moka, _cached_function, _CachedFunction, _CachedState, _error_nanos, _OwnerRegistry
from moka_py._registry import register

if TYPE_CHECKING:
    from datetime import timedelta

    from moka_py._moka_py import _Executor
    from moka_py._signatures import TypedCachedFunction

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


class CacheInfo(NamedTuple):
    """The counts of a cached function since it was made or last cleared.

    `misses` counts the calls that ran the function. `hits` counts those that got a value, or a kept error, without
    running it, and those that ran it to compute the value anew (`refresh`). A call that raises the exception of another
    call's run is neither, and neither is `cache_refresh`. `currsize` is the total weight of the results, in the unit of
    `maxsize`. `resize` of the function's `cache` changes `maxsize`. `stats()` of that cache has the same hits and
    misses, and more counts.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


@runtime_checkable
class CachedFunction(Protocol[P, R_co]):
    """A cached function: it is called as before, and has the cache among its attributes. `isinstance` accepts it."""

    cache: Moka[Any, Any]
    """The cache of the results. With `key=` and without `weak_self`, its keys are what the key function returned.

    Else its keys are opaque.
    """
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, which does not use the cache."""
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
        """Remove all results and kept errors, and count anew. The results of runs under way are not stored."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """Return the options of `cached`, by name, in a new dict."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result or the kept error of these arguments. The result of a run of them under way is not stored.

        Returns:
            Whether there was a result. A kept error is none.
        """
        ...

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether there is a result of these arguments, other than a kept error. This is not an access."""
        ...

    def cache_refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function with these arguments now, store the result, and return it.

        Other calls get the old result meanwhile. This call never shares a run that began earlier, and later writes to
        the key win over its result, as over that of any run. It counts a load, and neither a hit nor a miss.

        Returns:
            The new result. For a coroutine function it is what awaiting the returned coroutine returns.

        Raises:
            BaseException: The exception of the function. Then the old result stays.
        """
        ...

    # The result of a coroutine function is what awaiting a call returns.
    @overload
    def cache_set(
        self: CachedFunction[Q, Coroutine[Any, Any, S]], value: S, /, *args: Q.args, **kwargs: Q.kwargs
    ) -> None: ...

    @overload
    def cache_set(self: CachedFunction[Q, S], value: S, /, *args: Q.args, **kwargs: Q.kwargs) -> None: ...
    def cache_set(self, value: Any, /, *args: Any, **kwargs: Any) -> None:
        """Store a result of these arguments. It replaces a result that they have. This does not count as an access.

        The result of a run of these arguments that is under way is not stored. With `maxsize=0` nothing is stored.

        Args:
            value: The result. For a coroutine function it is what awaiting a call returns.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.
        """
        ...


# So `isinstance` looks at the type, and not at each member of the protocol.
CachedFunction.register(_CachedFunction)


class _CachedMethodMeta(type(Protocol)):  # type: ignore[misc]
    """Lets `isinstance` accept bound methods of cached functions. Their type alone does not tell them from others."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, types.MethodType) and isinstance(instance.__func__, CachedFunction)


@runtime_checkable
class CachedMethod(Protocol[P, R_co], metaclass=_CachedMethodMeta):
    """A cached function of a class, bound to an instance. `isinstance` accepts it.

    The attributes are those of the function, so `cache_invalidate` and `cache_contains` take the instance first,
    and `cache_set` takes it after the value.
    """

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
        """Remove the result of these arguments for the instance.

        Returns:
            Whether there was a result.
        """
        ...

    def cache_contains(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether there is a result of these arguments for the instance. This does not count as an access."""
        ...

    def cache_refresh(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function with these arguments for the instance now, store the result, and return it."""
        ...

    @overload
    def cache_set(
        self: CachedMethod[Q, Coroutine[Any, Any, S]],
        value: S,
        instance: Any,
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> None: ...

    @overload
    def cache_set(self: CachedMethod[Q, S], value: S, instance: Any, /, *args: Q.args, **kwargs: Q.kwargs) -> None: ...
    def cache_set(self, value: Any, instance: Any, /, *args: Any, **kwargs: Any) -> None:
        """Store a result of these arguments for the instance. It replaces a result that they have."""
        ...


# mypy takes this name for true. It checks a cached function by the protocol, other checkers by `_signatures.py`.
MYPY = False
if TYPE_CHECKING:
    if MYPY:
        type _Result[**P, R] = CachedFunction[P, R]
    else:
        type _Result[**P, R] = TypedCachedFunction[Callable[P, Any] | Any, R]


def _refuse_descriptor(thing: Any) -> None:
    """Raise TypeError if `cached` is above a decorator that makes a descriptor, such as `property`."""
    kind = type(thing)
    if isinstance(thing, staticmethod) or (hasattr(kind, "__get__") and not callable(thing)):
        name = kind.__name__
        raise TypeError(f"@cached must be below @{name}, directly above the function, got {name}")


def _error_types(errors: Any, error_ttl: Any) -> tuple[type[Exception], ...] | None:
    """Return the option `errors` as a tuple, or None if no errors are kept."""
    if errors is None and error_ttl is None:
        return None
    if errors is None or error_ttl is None:
        raise ValueError(f"errors and error_ttl must be given together, got errors={errors!r}, error_ttl={error_ttl!r}")
    types = errors if isinstance(errors, tuple) else (errors,)
    if not types:
        raise ValueError("errors must have at least one type, got ()")
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"errors must be a subclass of Exception or a tuple of some, got {kind!r}")
        if is_cancellation(kind):
            raise ValueError(f"errors must not have a cancellation, which is never kept, got {kind!r}")
    return tuple(types)


def _runs(function: Any, test: Callable[[Any], bool]) -> bool:
    """Return whether the test holds for the function that a call of `function` runs, behind partials and `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(type(function).__call__)


def _is_defined_in(frame: types.FrameType | None, function: Any) -> bool:
    """Return whether the function was just defined in this frame, and the frame is of the body of a module or a class.

    A program has only as many such functions as its source text, so they may live as long as the program.
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
    ttl: float | timedelta | Callable[[Any, Any], float | timedelta | None] | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
    errors: type[Exception] | tuple[type[Exception], ...] | None = None,
    error_ttl: float | timedelta | None = None,
    long_lived: bool | None = None,
    refresh: float | timedelta | None = None,
    executor: _Executor | None = None,
) -> Callable[[Callable[P, R]], _Result[P, R]]: ...
@overload
def cached[**P, R](
    maxsize: Callable[P, R],
    typed: bool = False,
    *,
    ttl: float | timedelta | Callable[[Any, Any], float | timedelta | None] | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
    errors: type[Exception] | tuple[type[Exception], ...] | None = None,
    error_ttl: float | timedelta | None = None,
    long_lived: bool | None = None,
    refresh: float | timedelta | None = None,
    executor: _Executor | None = None,
) -> _Result[P, R]: ...
def cached(
    maxsize: Any = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | Callable[[Any, Any], float | timedelta | None] | None = None,
    tti: float | timedelta | None = None,
    wait_concurrent: bool = False,
    weak_self: bool = False,
    policy: Literal["tiny_lfu", "lru"] = "tiny_lfu",
    weigher: Callable[[Any, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
    errors: type[Exception] | tuple[type[Exception], ...] | None = None,
    error_ttl: float | timedelta | None = None,
    long_lived: bool | None = None,
    refresh: float | timedelta | None = None,
    executor: _Executor | None = None,
) -> Any:
    """Keep the results of a function or coroutine function, like `functools.lru_cache`. Works as plain `@cached`, too.

    Arguments must be hashable, and are told apart as they are passed: `f(1)` and `f(x=1)` are two entries. All
    instances of a class share the cache of a method. `@classmethod`, `@staticmethod` and `@property` go above
    `@cached`.

    Cancellations are not stored, and exceptions only with `errors`. Neither is the result of a run that began before
    `cache_set`, `cache_invalidate`, `cache_clear`, or a write to its key in `cache`.

    Args:
        maxsize: The number of results, or their total weight if there is a weigher. None means no bound; with 0 or less
            nothing is stored.
        typed: Whether equal arguments of different types are different calls. If False, `f(1, 2)` and `f(1.0, 2)` share
            a result. `f(1)` and `f(1.0)` never do, as with `lru_cache`.
        ttl: How long a result lives after it was computed: seconds or a `timedelta`, or a function of the key, as
            `cache` has it, and the result. It returns a duration, or None for no deadline. A result for which it
            returns zero or less is returned, and not stored. Its exception leaves the call, as that of the weigher.
        tti: How long a result lives after its last use: seconds or a `timedelta`.
        wait_concurrent: Whether concurrent calls of one key share one run, and its result or exception. Each waiter
            raises a copy of the exception. Threads wait for each other; coroutines wait for those of their event loop,
            which must be asyncio's. The run of a coroutine function sees the context variables of its first caller, and
            is cancelled when its last waiter is.
        weak_self: For a method: whether the cache does not keep instances alive. The results of an instance are removed
            when it dies, and two instances never share results, even if they are equal. The instance must be passed
            as the first positional argument, and it must be weakly referenceable. A result or another argument that
            refers to the instance keeps it alive until the entry is removed.
        policy: Which results are evicted when the cache is full: under `"tiny_lfu"` those that are used rarely, under
            `"lru"` those whose last use is longest ago.
        weigher: A function of the key, as `cache` has it, and the result. It returns the weight that counts toward
            `maxsize`.
        key: A function of the call's arguments that returns its key, in place of the arguments. The keys of `cache` are
            what it returned. With `weak_self` each instance has keys of its own, which are opaque.
        errors: A subclass of `Exception`, or a tuple of some. A failure of such a type is kept for `error_ttl`, without
            its traceback. Meanwhile calls of the key raise a copy and do not run the function, which counts as a hit.
            At most `maxsize` errors are kept, beside the results. Later writes to the key, `cache_invalidate` and
            `cache_clear` reach them. One that cannot be copied is not kept, nor is one beside a result.
        error_ttl: How long such a failure is kept: seconds or a `timedelta`.
        long_lived: Whether the function and its cache live as long as the program. On the free-threaded build the
            threads that use them then do not count references to them. On CPython 3.13t they are never freed, and
            `cache_clear` releases the results. None means True for a function that is decorated at its definition in
            the body of a module or class, and False for its cache and for other functions.
        refresh: After how long a result is computed anew, in seconds or as a `timedelta`, and less than `ttl`. A call
            that finds an older result returns it, and one new run of the function starts. Without an executor that call
            runs the function, and returns the new result. A failure keeps the old result, goes to `sys.unraisablehook`,
            and postpones the next attempt by a tenth of `refresh`.
        executor: Runs a function anew, by `executor.submit(job)` in this process, as a
            `concurrent.futures.ThreadPoolExecutor` does. Coroutine functions run in the caller's event loop instead.

    Returns:
        A callable with the attributes `cache_info`, `cache_clear`, `cache_parameters`, `cache` (the `Moka`),
        `__wrapped__`, `cache_invalidate`, `cache_contains` and `cache_refresh`, which take the arguments of a call, and
        `cache_set`, which takes a result and the arguments of a call.

    Raises:
        TypeError: An option is of the wrong type, `cached` is above a descriptor such as `@property`, or the function
            is a generator function.
        ValueError: An option has a wrong value, both `typed` and `key` are given, or only one of `errors` and
            `error_ttl` is.
        RuntimeError: Raised by a call, with `wait_concurrent`, if the wait would never end. Either the run calls the
            function with its own arguments, or runs wait for each other in a circle. The cache sees coroutines that
            await each other directly, and threads that wait in this cache or another one. A run that waits for a thread
            in another way, such as for the result of an executor, is not seen and waits for ever.
    """
    _refuse_descriptor(maxsize)
    function, maxsize = (maxsize, 128) if callable(maxsize) else (None, maxsize)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, None or the function to cache, got {type(maxsize).__name__}")
    for name, flag in (("typed", typed), ("wait_concurrent", wait_concurrent), ("weak_self", weak_self)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
    if long_lived is not None and not isinstance(long_lived, bool):
        raise TypeError(f"long_lived must be a bool or None, got {type(long_lived).__name__}")
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable or None, got {type(key).__name__}")
    if typed and key is not None:
        raise ValueError(f"typed must be False if key makes the keys, got typed=True and key={key!r}")
    error_types = _error_types(errors, error_ttl)
    error_nanos = 0 if error_types is None else _error_nanos(error_ttl)
    maxsize = maxsize if maxsize is None else max(maxsize, 0)
    capacity = sys.maxsize if maxsize is None else min(maxsize, sys.maxsize)
    # A wrong option raises here, before there is a function.
    Moka(capacity, ttl=ttl, tti=tti, policy=policy, weigher=weigher, refresh=refresh, executor=executor)
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
        "errors": errors,
        "error_ttl": error_ttl,
        "long_lived": long_lived,
        "refresh": refresh,
        "executor": executor,
    }

    def decorate(function: Callable[..., Any]) -> Any:
        # Imported here: it and asyncio take longer to import than all of moka_py, and many programs need neither.
        import inspect

        _refuse_descriptor(function)
        if not callable(function):
            raise TypeError(f"cached needs a callable, got {type(function).__name__}")
        if _runs(function, inspect.isgeneratorfunction) or _runs(function, inspect.isasyncgenfunction):
            raise TypeError("cached cannot keep what a generator function returns, since it serves only once")
        cache: Moka[Any, Any] = Moka(
            capacity,
            ttl=ttl,
            tti=tti,
            policy=policy,
            weigher=weigher,
            long_lived=long_lived is True,
            refresh=refresh,
            executor=executor,
        )
        if not capacity and weigher is not None:
            # A cache that is made with a capacity of 0 stores results of weight 0. One that is resized to 0 does not.
            cache.resize(0)
        is_async = _runs(function, inspect.iscoroutinefunction)
        if weak_self:
            from moka_py import _owners

            owners = _OwnerRegistry()

        def info(hits: int, misses: int, currsize: int) -> CacheInfo:
            current = cache.capacity
            return CacheInfo(hits, misses, maxsize if current == capacity else current, currsize)

        state = _CachedState(
            function,
            cache,
            info,
            typed=typed,
            shared=wait_concurrent,
            make_key=key,
            owners=owners if weak_self else None,
            make_owner=_owners.owner_factory(cache, owners) if weak_self else None,
            is_async=is_async,
            error_types=error_types,
            error_nanos=error_nanos,
        )
        frame = sys._getframe().f_back
        if frame is not None and frame.f_code is cached.__code__:
            frame = frame.f_back
        is_permanent = _is_defined_in(frame, function) if long_lived is None else long_lived
        wrapper: Any = _cached_function(state, is_permanent)
        functools.update_wrapper(wrapper, function)
        if is_async:
            inspect.markcoroutinefunction(wrapper)
        wrapper.cache = cache
        wrapper.cache_info = state.cache_info
        wrapper.cache_clear = state.cache_clear
        wrapper.cache_parameters = parameters.copy
        wrapper.cache_invalidate = state.cache_invalidate
        wrapper.cache_contains = state.cache_contains
        wrapper.cache_set = state.cache_set
        wrapper.cache_refresh = (make_async_refresh if is_async else make_refresh)(state, function)
        register(wrapper)
        return wrapper

    return decorate if function is None else decorate(function)
