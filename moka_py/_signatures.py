"""The type that `cached` returns for type checkers other than mypy. Nothing here runs.

Programs name `CachedFunction` and `CachedMethod`; the types here are subtypes of both. mypy compares methods as an
instance has them, also for overrides, and when a class is compared with a protocol. Pyright does so only for member
access. Elsewhere it compares the functions themselves, with `self` among their parameters. So the types here leave the
parameters open there. The price is that pyright does not compare the parameters of overrides.

- `F_co` is the function's type or `Any`, so a cached method may override another one with the same result.
- `__call__` is a descriptor. A call goes through it, so the arguments of calls are checked. A comparison with a
  protocol or with another callable type does not, and finds that any arguments are accepted.
"""

# mypy: disable-error-code="empty-body, misc, no-overload-impl, override"

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from moka_py._cached import CachedFunction, CachedMethod

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
Instance = TypeVar("Instance")
Owner = TypeVar("Owner")
Instance_co = TypeVar("Instance_co", covariant=True)
Owner_co = TypeVar("Owner_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
F_co = TypeVar("F_co", covariant=True)


class _Call(Protocol[P, R_co]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class _Calls(Protocol[F_co, R_co]):
    """The `__call__` of a cached function: as an attribute it is a call with the function's parameters."""

    def __call__(self, *args: Any, **kwargs: Any) -> R_co: ...
    def __get__(self: _Calls[Callable[P, Any] | Any, R], instance: Any, owner: Any = None, /) -> _Call[P, R]: ...


class _BoundCalls(Protocol[P, Instance_co, Owner_co, R_co]):
    """The `__call__` of a cached function of a class: as an attribute it is a call with the parameters that remain.

    The overloads are, in this order: a class method, a function that the class has, a method, and a static method.
    """

    @overload
    def __call__(self: _BoundCalls[Concatenate[type[T], Q], Any, T, R], *args: Q.args, **kwargs: Q.kwargs) -> R: ...
    @overload
    def __call__(self: _BoundCalls[Q, None, Any, R], *args: Q.args, **kwargs: Q.kwargs) -> R: ...
    @overload
    def __call__(self: _BoundCalls[Concatenate[T, Q], T, Any, R], *args: Q.args, **kwargs: Q.kwargs) -> R: ...
    @overload
    def __call__(self: _BoundCalls[Q, Any, Any, R], *args: Q.args, **kwargs: Q.kwargs) -> R: ...
    @overload
    def __get__(
        self: _BoundCalls[Concatenate[type[T], Q], Any, T, R], instance: Any, owner: Any = None, /
    ) -> _Call[Q, R]: ...
    @overload
    def __get__(self: _BoundCalls[Q, None, Any, R], instance: Any, owner: Any = None, /) -> _Call[Q, R]: ...
    @overload
    def __get__(
        self: _BoundCalls[Concatenate[T, Q], T, Any, R], instance: Any, owner: Any = None, /
    ) -> _Call[Q, R]: ...
    @overload
    def __get__(self: _BoundCalls[Q, Any, Any, R], instance: Any, owner: Any = None, /) -> _Call[Q, R]: ...


if TYPE_CHECKING:

    class _Bound(CachedMethod[..., R_co], CachedFunction[..., R_co], Generic[P, Instance_co, Owner_co, R_co]):  # noqa: UP046
        """A cached function of a class, as an instance or the class has it."""

        __call__: _BoundCalls[P, Instance_co, Owner_co, R_co]

        @property
        def __wrapped__(self) -> Callable[P, R_co]: ...
        def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def cache_refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def cache_set(
            self: _Bound[Q, Any, Any, Coroutine[Any, Any, R]], value: R, /, *args: Q.args, **kwargs: Q.kwargs
        ) -> None: ...
        @overload
        def cache_set(self: _Bound[Q, Any, Any, R], value: R, /, *args: Q.args, **kwargs: Q.kwargs) -> None: ...


class TypedCachedFunction(CachedFunction[..., R_co], Generic[F_co, R_co]):  # noqa: UP046
    """A cached function, as `cached` returns it."""

    __call__: _Calls[F_co, R_co]

    def __get__(
        self: TypedCachedFunction[Callable[P, Any] | Any, R], instance: Instance, owner: type[Owner], /
    ) -> _Bound[P, Instance, Owner, R]: ...
    @property
    def __wrapped__(self: TypedCachedFunction[Callable[P, Any] | Any, R]) -> Callable[P, R]: ...
    def cache_invalidate(
        self: TypedCachedFunction[Callable[P, Any] | Any, R], *args: P.args, **kwargs: P.kwargs
    ) -> bool: ...
    def cache_contains(
        self: TypedCachedFunction[Callable[P, Any] | Any, R], *args: P.args, **kwargs: P.kwargs
    ) -> bool: ...
    def cache_refresh(self: TypedCachedFunction[Callable[P, Any] | Any, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def cache_set(
        self: TypedCachedFunction[Callable[P, Any] | Any, Coroutine[Any, Any, R]],
        value: R,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    @overload
    def cache_set(
        self: TypedCachedFunction[Callable[P, Any] | Any, R], value: R, /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
