"""Cached functions of classes: lines that a type checker must reject. An unused ignore comment is an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Protocol

from moka_py import cached


class Service:
    @staticmethod
    @cached
    def s1(x: int) -> str:
        return ""

    @classmethod
    @cached
    def c1(cls, x: int) -> str:
        return ""

    @cached
    def m1(self, x: int) -> str:
        return ""

    @cached()
    async def m3(self, x: int) -> str:
        return ""

    @property
    @cached
    def p1(self) -> str:
        return ""


s = Service()
s.s1("a")  # type: ignore[arg-type]
s.s1()  # type: ignore[call-arg]
s.s1(1, 2)  # type: ignore[call-arg]
s.c1("a")  # type: ignore[arg-type]
s.c1()  # type: ignore[call-arg]
Service.c1("a")  # type: ignore[arg-type]
Service.c1()  # type: ignore[call-arg]
Service.s1("a")  # type: ignore[arg-type]
s.m1("a")  # type: ignore[arg-type]
s.m1()  # type: ignore[call-arg]
s.m1(1, 2)  # type: ignore[call-arg]
Service.m1(1)  # type: ignore[arg-type,call-arg]
Service.m1(s, "a")  # type: ignore[arg-type]
x: int = s.s1(1)  # type: ignore[assignment]
x2: int = s.p1  # type: ignore[assignment]
s.m1.cache_invalidate(s, "a")  # type: ignore[arg-type]
Service.s1.cache_invalidate("a")  # type: ignore[arg-type]


class Other(Service):
    @cached
    def m1(self, x: int) -> int:  # type: ignore[override]
        return 1


class Wants(Protocol):
    def m1(self, x: int) -> int: ...


wants: Wants = Service()  # type: ignore[assignment]
s.m3(1).upper()  # type: ignore[attr-defined]
