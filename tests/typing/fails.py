"""Lines that a type checker must reject. If it accepts a line, the ignore comment is unused, which is an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from moka_py import Moka, cached, cached_functions
from moka_py.testing import ManualClock

cache: Moka[str, int] = Moka(100)


def two_arguments(key: str, value: int) -> None: ...


def other_key(key: bytes, value: int, cause: str) -> None: ...


Moka()  # type: ignore[call-arg]
Moka("100")  # type: ignore[arg-type]
Moka(100, ttl="1")  # type: ignore[arg-type]
Moka[str, int](100, ttl=other_key)  # type: ignore[arg-type]
Moka[str, int](100, ttl=lambda key: 1)  # type: ignore[arg-type,misc]
Moka[str, int](100, ttl=lambda key, value: key)  # type: ignore[arg-type,return-value]
Moka(100, policy="fifo")  # type: ignore[arg-type]
Moka(100, maxsize=1)  # type: ignore[call-arg]
Moka[str, int](100, eviction_listener=two_arguments)  # type: ignore[arg-type]
Moka[str, int](100, eviction_listener=other_key)  # type: ignore[arg-type]
Moka[str, int](100, weigher=lambda key, value: key)  # type: ignore[arg-type,return-value]
unhashable: Moka[list[int], int]  # type: ignore[type-var]

cache.resize("200")  # type: ignore[arg-type]
cache.resize()  # type: ignore[call-arg]
cache.capacity = 200  # type: ignore[misc]
cache.set(1, 1)  # type: ignore[arg-type]
cache.set("a", "b")  # type: ignore[arg-type]
cache.set("a", 1, ttl="1")  # type: ignore[arg-type]
cache.set("a", 1, ttl=lambda key, value: key)  # type: ignore[arg-type,return-value]
cache.set("a", 1, tti=lambda key, value: value)  # type: ignore[arg-type]
cache.touch("a", ttl=lambda key, value: value)  # type: ignore[arg-type]
cache.set_with("a", lambda value: 1, ttl=lambda key, value: value)  # type: ignore[call-overload]
cache.get(1)  # type: ignore[call-overload]
cache.get()  # type: ignore[call-overload]
cache.get_with("a", lambda: "b")  # type: ignore[arg-type,return-value]
cache.get_with("a", 1)  # type: ignore[arg-type]
cache.set_with("a", lambda value: value + 1)  # type: ignore[operator]
cache.set_with("a", 1)  # type: ignore[call-overload]
cache.touch("a", "1")  # type: ignore[arg-type]
cache[1]  # type: ignore[index]
cache["a"] = "b"  # type: ignore[assignment]
cache.setdefault("a")  # type: ignore[call-arg]
cache.update({1: 1})  # type: ignore[dict-item]
cache.get_many([1])  # type: ignore[list-item]
cache.get_many(1)  # type: ignore[arg-type]
cache.get_many_with("a", lambda: {"a": 1})  # type: ignore[arg-type,misc]
cache.get_many_with("a", lambda missing: [1])  # type: ignore[arg-type,return-value]
cache.get_many_with("a")  # type: ignore[call-arg]
cache.remove_many([1])  # type: ignore[list-item]
cache.set_many({1: 1})  # type: ignore[arg-type]
cache.set_many([("a", "b")])  # type: ignore[list-item]
cache.set_many(a=1)  # type: ignore[call-arg]
cache.set_many({"a": 1}, ttl="1")  # type: ignore[arg-type]
cache.remove_if(lambda key: True)  # type: ignore[arg-type,misc]
cache.remove_if("a")  # type: ignore[arg-type]
cache.hottest("a")  # type: ignore[arg-type]
ManualClock().advance("a")  # type: ignore[arg-type]
ManualClock(caches=[1])  # type: ignore[list-item]
cache.stats().no_such_count  # type: ignore[attr-defined]
cache.stats().hits = 1  # type: ignore[misc]
cache.capacity = 1  # type: ignore[misc]
cache.policy = "lru"  # type: ignore[misc]
cache.no_such_method()  # type: ignore[attr-defined]
narrow: int = cache.get("a")  # type: ignore[assignment]


@cached(maxsize=10)
def function(x: int) -> str:
    return str(x)


function("a")  # type: ignore[arg-type]
function()  # type: ignore[call-arg]
wrong: int = function(1)  # type: ignore[assignment]
cached(ttl="1")  # type: ignore[call-overload]
cached(ttl=lambda key: 1)  # type: ignore[arg-type,misc]
cached(policy="fifo")  # type: ignore[call-overload]
cached(weak_self=1)  # type: ignore[call-overload]
cached(key=1)  # type: ignore[call-overload]
function.cache_invalidate("a")  # type: ignore[arg-type]
function.cache_contains()  # type: ignore[call-arg]
function.cache_refresh("a")  # type: ignore[arg-type]
function.cache_refresh()  # type: ignore[call-arg]
cached(errors=KeyboardInterrupt, error_ttl=5)  # type: ignore[arg-type]
cached(errors=[KeyError], error_ttl=5)  # type: ignore[call-overload]
cached(errors=KeyError, error_ttl="5")  # type: ignore[call-overload]
function.cache_set("a")  # type: ignore[call-arg]
function.cache_set(1, 1)  # type: ignore[arg-type]
function.cache_set("a", "a")  # type: ignore[arg-type]
cached(long_lived=1)  # type: ignore[call-overload]
cached(refresh="5")  # type: ignore[call-overload]
cached(executor=len)  # type: ignore[call-overload]
cached_functions(1)  # type: ignore[arg-type]
Moka(100, long_lived="yes")  # type: ignore[arg-type]
Moka(100, refresh="5")  # type: ignore[arg-type]
Moka(100, executor=len)  # type: ignore[arg-type]
function.cache_info().no_such_count  # type: ignore[attr-defined]


class Service:
    @cached
    def method(self, x: int) -> str:
        return str(x)

    @cached(weak_self=True)
    async def later(self, x: int) -> str:
        return str(x)


Service().method("a")  # type: ignore[arg-type]
Service().method()  # type: ignore[call-arg]
Service.method(1)  # type: ignore[arg-type,call-arg]
Service().method.cache_invalidate(Service(), "a")  # type: ignore[arg-type]
Service().method.cache_refresh(Service(), "a")  # type: ignore[arg-type]
Service().method.cache_set("a", Service(), "a")  # type: ignore[arg-type]
Service().later.cache_set(1, Service(), 1)  # type: ignore[call-overload]


async def awaits() -> None:
    one: str = Service().later(1)  # type: ignore[assignment]
    two: int = await Service().later(1)  # type: ignore[assignment]
    three: int = await cache.aget_with("a", load)  # type: ignore[arg-type]
    await cache.aget_with("a", lambda: 1)  # type: ignore[arg-type,return-value]
    await cache.aget_many_with(["a"], load)  # type: ignore[arg-type]
    print(one, two, three)


async def load() -> str:
    return ""
