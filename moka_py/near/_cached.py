"""Functions whose results are in a near cache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from moka_py._cached import _runs as runs
from moka_py.near._options import Default, Duration, Key

if TYPE_CHECKING:
    from moka_py.near._async import AsyncNearCache
    from moka_py.near._sync import NearCache

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class NearCachedFunction(Protocol[P, R_co]):
    """A function whose results are in a near cache. It is called as before."""

    cache: NearCache[Any]
    """The near cache of the results."""
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, which does not use the near cache."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of these arguments, from the near cache or by running the function."""
        ...

    def __get__(self, instance: Any, owner: type[Any] | None = None, /) -> Any: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of these arguments in the near cache."""
        ...

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether there is a result of these arguments."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of these arguments. The result of a run that is under way is not stored.

        Returns:
            Whether the server had the key.
        """
        ...


class AsyncNearCachedFunction(Protocol[P, R_co]):
    """A coroutine function whose results are in a near cache. It is called as before."""

    cache: AsyncNearCache[Any]
    """The near cache of the results."""
    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The function itself, which does not use the near cache."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of these arguments, from the near cache or by running the function."""
        ...

    def __get__(self, instance: Any, owner: type[Any] | None = None, /) -> Any: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of these arguments in the near cache."""
        ...

    async def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether there is a result of these arguments."""
        ...

    async def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of these arguments. The result of a run that is under way is not stored.

        Returns:
            Whether the server had the key.
        """
        ...


def check_arguments(key: Any, function: Any, *, is_async: bool) -> None:
    """Check what `cached` was given, and what its decorator was given."""
    if not callable(key):
        raise TypeError(f"key must be callable, got {type(key).__name__}")
    if isinstance(function, staticmethod | classmethod | property) or not callable(function):
        raise TypeError(f"cached needs a function, directly below it, got {type(function).__name__}")
    if runs(function, inspect.isgeneratorfunction) or runs(function, inspect.isasyncgenfunction):
        raise TypeError("cached cannot keep what a generator function returns, since it serves only once")
    if runs(function, inspect.iscoroutinefunction) is not is_async:
        kind, other = ("a coroutine function", "NearCache") if is_async else ("a function", "AsyncNearCache")
        raise TypeError(f"cached needs {kind}, got {function!r}: use {other}.cached")


def decorator(
    cache: NearCache[Any], key: Callable[..., Key], ttl: Duration | Default | None
) -> Callable[[Callable[P, R]], NearCachedFunction[P, R]]:
    """Return the decorator that `NearCache.cached` returns."""
    if not callable(key):
        raise TypeError(f"key must be callable, got {type(key).__name__}")

    def decorate(function: Callable[P, R]) -> NearCachedFunction[P, R]:
        check_arguments(key, function, is_async=False)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return cache.get_with(key(*args, **kwargs), functools.partial(function, *args, **kwargs), ttl)

        def cache_contains(*args: P.args, **kwargs: P.kwargs) -> bool:
            return cache.contains(key(*args, **kwargs))

        def cache_invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
            return cache.remove(key(*args, **kwargs))

        wrapper = cast(Any, call)
        wrapper.cache = cache
        wrapper.cache_key = key
        wrapper.cache_contains = cache_contains
        wrapper.cache_invalidate = cache_invalidate
        return cast("NearCachedFunction[P, R]", wrapper)

    return decorate


def async_decorator(
    cache: AsyncNearCache[Any], key: Callable[..., Key], ttl: Duration | Default | None
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncNearCachedFunction[P, R]]:
    """Return the decorator that `AsyncNearCache.cached` returns."""
    if not callable(key):
        raise TypeError(f"key must be callable, got {type(key).__name__}")

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> AsyncNearCachedFunction[P, R]:
        check_arguments(key, function, is_async=True)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await cache.get_with(key(*args, **kwargs), functools.partial(function, *args, **kwargs), ttl)

        async def cache_contains(*args: P.args, **kwargs: P.kwargs) -> bool:
            return await cache.contains(key(*args, **kwargs))

        async def cache_invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
            return await cache.remove(key(*args, **kwargs))

        wrapper = cast(Any, call)
        wrapper.cache = cache
        wrapper.cache_key = key
        wrapper.cache_contains = cache_contains
        wrapper.cache_invalidate = cache_invalidate
        return cast("AsyncNearCachedFunction[P, R]", wrapper)

    return decorate
