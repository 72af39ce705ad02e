"""Cached functions of classes, overloads and callbacks that a type checker must accept. Checked, never run."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, assert_type, overload

from moka_py import cached
from moka_py._cached import CachedFunction, CachedMethod


class Service:
    @staticmethod
    @cached
    def s1(x: int) -> str:
        return ""

    @staticmethod
    @cached()
    def s2(x: int) -> str:
        return ""

    @staticmethod
    @cached(maxsize=1)
    async def s3(x: int) -> str:
        return ""

    @staticmethod
    @cached
    def s0() -> str:
        return ""

    @classmethod
    @cached
    def c1(cls, x: int) -> str:
        return ""

    @classmethod
    @cached()
    async def c2(cls, x: int) -> str:
        return ""

    @classmethod
    @cached(ttl=1)
    def c3(cls) -> str:
        return ""

    @property
    @cached
    def p1(self) -> str:
        return ""

    @property
    @cached(weak_self=True)
    def p2(self) -> int:
        return 1

    @cached
    def m1(self, x: int) -> str:
        return ""

    @cached()
    def m2(self, x: int, *, y: str = "") -> str:
        return ""

    @cached(weak_self=True)
    async def m3(self, x: int) -> str:
        return ""


s = Service()
assert_type(s.s1(1), str)
assert_type(s.s2(x=1), str)
assert_type(s.s0(), str)
assert_type(Service.s1(1), str)
assert_type(s.c1(1), str)
assert_type(Service.c1(1), str)
assert_type(s.c3(), str)
assert_type(Service.c3(), str)
assert_type(s.p1, str)
assert_type(s.p2, int)
assert_type(s.m1(1), str)
assert_type(s.m2(1, y=""), str)
assert_type(Service.m1(s, 1), str)


async def f() -> None:
    assert_type(await s.s3(1), str)
    assert_type(await Service.s3(1), str)
    assert_type(await s.c2(1), str)
    assert_type(await Service.c2(1), str)
    assert_type(await s.m3(1), str)


s.s1.cache_clear()
s.c1.cache_clear()
Service.c1.cache_clear()
assert_type(Service.s1.cache_invalidate(1), bool)
assert_type(s.s1.cache_contains(1), bool)


class Derived(Service):
    @staticmethod
    @cached
    def s1(x: int) -> str:
        return ""

    @classmethod
    @cached
    def c1(cls, x: int) -> str:
        return ""

    @property
    @cached
    def p1(self) -> str:
        return ""

    @cached
    def m1(self, x: int) -> str:
        return super().m1(x)

    @cached(maxsize=2)
    def m2(self, x: int, *, y: str = "") -> str:
        return super().m2(x)

    @cached(weak_self=True)
    async def m3(self, x: int) -> str:
        return await super().m3(x)


class AbsC(ABC):
    @cached
    @abstractmethod
    def m(self, x: int) -> str: ...


class Proto(Protocol):
    def m1(self, x: int) -> str: ...
    def m2(self, x: int, *, y: str = "") -> str: ...
    async def m3(self, x: int) -> str: ...


class ProtoS(Protocol):
    def s1(self, x: int) -> str: ...


class ProtoSS(Protocol):
    @staticmethod
    def s1(x: int) -> str: ...


class ProtoC(Protocol):
    @classmethod
    def c1(cls, x: int) -> str: ...
    def c3(self) -> str: ...


class ProtoP(Protocol):
    @property
    def p1(self) -> str: ...


p: Proto = Service()
p2: ProtoS = Service()
p3: ProtoC = Service()
p4: ProtoP = Service()
p5: ProtoSS = Service()
cb: Callable[[int], str] = s.m1
cb2: Callable[[int], str] = s.s1
cb3: Callable[[Service, int], str] = Service.m1
cb4: Callable[[int], Awaitable[str]] = s.m3


# Overloads.
@overload
def ov(x: int) -> int: ...
@overload
def ov(x: str) -> str: ...
@cached
def ov(x: int | str) -> int | str:
    return x


assert_type(ov(1), int)
assert_type(ov("1"), str)


@overload
def ov2(x: int) -> int: ...
@overload
def ov2(x: str) -> str: ...
def ov2(x: int | str) -> int | str:
    return x


cov2 = cached(ov2)


@cached
def gen2[T](x: T) -> list[T]:
    return [x]


assert_type(gen2(1), list[int])


@cached
def two(a: int, b: str) -> str:
    return ""


class H:
    attr = two


def generic_use(fn: Callable[[int], str]) -> None: ...


generic_use(s.m1)
generic_use(cached(lambda x: str(x)))

pub1: CachedFunction[[int, str], str] = two
pub2: CachedMethod[[int], str] = s.m1
pub3: CachedMethod[[int], str] = s.c1
pub4: CachedFunction[[int], str] = s.s1
pub5: CachedFunction[[Service, int], str] = Service.m1


def takes(f: CachedFunction[..., Any], m: CachedMethod[..., Any]) -> None:
    f.cache_clear()
    m.cache_clear()


takes(two, s.m1)
takes(Service.m1, s.m3)
assert_type(two.__wrapped__(1, ""), str)
assert_type(s.m1.__wrapped__(s, 1), str)
assert_type(s.m1.cache_info().hits, int)
assert_type(two.__name__, str)


def higher[**P, R](f: Callable[P, R]) -> Callable[P, R]:
    return f


assert_type(higher(two)(1, ""), str)
assert_type(higher(s.m1)(1), str)
h = functools.partial(two, 1)
assert_type(h(""), str)
assert_type(list(map(s.m1, [1])), list[str])
