"""Lines with near caches that a type checker must reject. If it accepts a line, the ignore comment is unused."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

from moka_py.near import AsyncNearCache, NearCache


class Client:
    connection_pool: Any

    def execute_command(self, *args: Any, **options: Any) -> Any: ...
    def pipeline(self, transaction: bool = True) -> Any: ...


client = Client()
cache: NearCache[int] = NearCache(client, "n", ttl=300)

NearCache(client, "n")  # type: ignore[call-overload]
NearCache(None, "n", ttl=1)  # type: ignore[call-overload]
NearCache(client, 1, ttl=1)  # type: ignore[call-overload]
NearCache(client, "n", ttl="1")  # type: ignore[call-overload]
NearCache(client, "n", ttl=1, serializer="yaml")  # type: ignore[call-overload]
NearCache(client, "n", ttl=1, on_error="ignore")  # type: ignore[call-overload]
cache.get(1.5)  # type: ignore[call-overload]
cache.get(None)  # type: ignore[call-overload]
cache.set("k", "value")  # type: ignore[arg-type]
cache.set(None, 1)  # type: ignore[arg-type]
cache.set("k", 1, ttl="1")  # type: ignore[arg-type]
cache.add("k", "value")  # type: ignore[arg-type]
cache.set_many({"k": "value"})  # type: ignore[arg-type]
cache.remove(1.5)  # type: ignore[arg-type]
cache.get_with("k", lambda: "value")  # type: ignore[arg-type,return-value]
cache.get_with("k", int, 1, False)  # type: ignore[call-arg]
cache.is_coherent = True  # type: ignore[misc]
cache.cached()  # type: ignore[call-arg]
cache.cached(key=float)  # type: ignore[arg-type]


@cache.cached(key=str)
def double(number: int) -> int:
    return 2 * number


double("1")  # type: ignore[arg-type]


async def compute() -> int:
    return 1


async def compute_text() -> str:
    return "value"


async_cache: AsyncNearCache[int] = AsyncNearCache(client, "n", ttl=300)

AsyncNearCache(client, "n")  # type: ignore[call-overload]
AsyncNearCache(None, "n", ttl=1)  # type: ignore[call-overload]
with async_cache:  # type: ignore[attr-defined]
    pass
async_cache.get_local(1.5)  # type: ignore[call-overload]
async_cache.cached(key=float)  # type: ignore[arg-type]


async def misuse() -> None:
    await async_cache.get(1.5)  # type: ignore[call-overload]
    (await async_cache.get("k")) + 1  # type: ignore[operator]
    async_cache.get("k", 0) + 1  # type: ignore[operator]
    await async_cache.set("k", "value")  # type: ignore[arg-type]
    await async_cache.get_with("k", int)  # type: ignore[arg-type]
    await async_cache.get_with("k", compute_text)  # type: ignore[arg-type]
    await async_cache.get_with("k", compute())  # type: ignore[arg-type]


@async_cache.cached(key=str)  # type: ignore[arg-type]
def no_coroutine(number: int) -> int:
    return number
