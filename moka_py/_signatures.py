"""What `cached` returns, as type checkers other than mypy see it. It exists for them alone.

`CachedFunction` and `CachedMethod` are the names for programs; what is here fits both. mypy compares methods as an
instance has them, also where one overrides another, and where a class is compared with a protocol. Pyright does so in
member access alone. Elsewhere it compares the functions themselves, `self` among their parameters. So what it sees
leaves them open there, at the price that it does not compare the parameters:

- `F_co` is the function's type or `Any`, so a cached method may override another of the same result.
- `__call__` is a descriptor. A call applies it, so arguments are checked. A comparison with a protocol or with another
  callable type does not, and finds any arguments.
"""

# mypy: disable-error-code="empty-body, misc, no-overload-impl, override"

from __future__ import annotations

from collections.abc import Callable
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
    """Becomes a call of the function where it is called."""

    def __call__(self, *args: Any, **kwargs: Any) -> R_co: ...
    def __get__(self: _Calls[Callable[P, Any] | Any, R], instance: Any, owner: Any = None, /) -> _Call[P, R]: ...


class _BoundCalls(Protocol[P, Instance_co, Owner_co, R_co]):
    """Becomes a call of a class method, of a function of a class, of a method or of a static method, in this order."""

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


class Kept(CachedFunction[..., R_co], Generic[F_co, R_co]):  # noqa: UP046
    """A cached function."""

    __call__: _Calls[F_co, R_co]

    def __get__(
        self: Kept[Callable[P, Any] | Any, R], instance: Instance, owner: type[Owner], /
    ) -> _Bound[P, Instance, Owner, R]: ...
    @property
    def __wrapped__(self: Kept[Callable[P, Any] | Any, R]) -> Callable[P, R]: ...
    def cache_invalidate(self: Kept[Callable[P, Any] | Any, R], *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def cache_contains(self: Kept[Callable[P, Any] | Any, R], *args: P.args, **kwargs: P.kwargs) -> bool: ...
