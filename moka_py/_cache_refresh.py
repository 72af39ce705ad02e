"""`cache_refresh` of a cached function: it runs the function now, and then stores the result as a `set` does.

How it works: it registers a run, which no call joins, whether or not there is a result. Other calls get the result that
there is until the new one replaces it. A write to the key during the run wins, as over any other run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moka_py._moka_py import _CachedState


class _Refresh:
    """One run of `cache_refresh`, from its begin to its end."""

    def __init__(self, state: _CachedState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._state = state
        # Without a run nothing is stored.
        self._run = state._begin_refresh(*args, **kwargs)
        self._start = state._begin_load()

    def fail(self, error: BaseException) -> None:
        """End the run, which raised. If there is no result, the error may be kept."""
        if self._run is None:
            self._state._end_load(self._start, True)
        else:
            self._run.fail(self._start, error)

    def succeed(self, value: Any) -> None:
        """End the run, and store its result."""
        if self._run is None:
            self._state._end_load(self._start, False)
        else:
            self._run.complete(self._start, value)


def make_refresh(state: _CachedState, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `cache_refresh` of a function."""

    def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Run the function now, store its result in place of the old one, and return it."""
        refresh = _Refresh(state, args, kwargs)
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            refresh.fail(error)
            raise
        refresh.succeed(value)
        return value

    return cache_refresh


def make_async_refresh(state: _CachedState, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `cache_refresh` of a coroutine function."""

    async def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Run the function now, store its result in place of the old one, and return it."""
        refresh = _Refresh(state, args, kwargs)
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            refresh.fail(error)
            raise
        refresh.succeed(value)
        return value

    return cache_refresh
