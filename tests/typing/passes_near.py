"""Code with near caches that a type checker must accept, and the types that it must infer. It is never run."""

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any, assert_type

from moka_py import Stats
from moka_py.near import (
    AsyncNearCache,
    AsyncNearCachedFunction,
    NearCache,
    NearCachedFunction,
    NearStats,
    Serializer,
)


class Client:
    """It has what a near cache uses of `redis.Redis` and `valkey.Valkey`."""

    connection_pool: object

    def execute_command(self, *args: Any, **options: Any) -> Any: ...
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> object: ...


class Reverse:
    name = "reverse"

    def dumps(self, value: Any) -> bytes:
        return bytes(reversed(value))

    def loads(self, data: bytes) -> Any:
        return bytes(reversed(data))


client = Client()
serializer: Serializer = Reverse()

# The type of the values is declared, or bytes for raw values, or Any.
cache: NearCache[dict[str, int]] = NearCache(client, "n", ttl=300)
assert_type(NearCache(client, "n", ttl=None), NearCache[Any])
assert_type(NearCache(client, "n", ttl=1, serializer="raw"), NearCache[bytes])
assert_type(NearCache[str](client, "n", ttl=1, serializer="pickle"), NearCache[str])
full: NearCache[str] = NearCache(
    client,
    "n",
    ttl=timedelta(minutes=5),
    capacity=100,
    local_ttl=1.5,
    policy="lru",
    weigher=lambda key, value: len(key) + len(value),
    max_staleness=timedelta(seconds=1),
    serializer=serializer,
    on_error="miss",
    stale_if_error=60,
    copy=str,
)

assert_type(cache.get("k"), dict[str, int] | None)
assert_type(cache.get(b"k", None), dict[str, int] | None)
assert_type(cache.get(1, {}, fresh=True), dict[str, int])
assert_type(cache.get("k", 0), dict[str, int] | int)
assert_type(cache.get_many(["k", 1, b"k"]), dict[str | bytes | int, dict[str, int]])
assert_type(cache.contains("k"), bool)
cache.set("k", {"a": 1})
cache.set("k", {"a": 1}, 5)
cache.set("k", {"a": 1}, ttl=None)
entries: Mapping[str, dict[str, int]] = {}
cache.set_many(entries)
cache.set_many([(1, {"a": 1})], ttl=timedelta(1))
assert_type(cache.add("k", {}), bool)
assert_type(cache.touch("k", ttl=1.5), bool)
assert_type(cache.remove("k"), bool)
assert_type(cache.remove_many(["k", 1]), int)
assert_type(cache.get_with("k", dict), dict[str, int])
assert_type(cache.get_with("k", lambda: {"a": 1}, 5, across=False, lease=1, fresh=True), dict[str, int])
cache.clear()
cache.clear_local()
assert_type(cache.is_coherent, bool)
stats = cache.stats()
assert_type(stats, NearStats)
assert_type(stats.local, Stats)
assert_type(stats.remote_hits, int)
assert_type(stats.seconds_incoherent, float)
with cache as entered:
    assert_type(entered, NearCache[dict[str, int]])
cache.close()


@cache.cached(key=lambda number, flag=False: f"square:{number}")
def loose(number: int, flag: bool = False) -> int:
    return number * number


def square_key(number: int, flag: bool = False) -> str:
    return f"square:{number}:{flag}"


@cache.cached(key=square_key, ttl=5)
def square(number: int, flag: bool = False) -> int:
    return number * number


function: NearCachedFunction[[int, bool], int] = square
assert_type(square(1, flag=True), int)
assert_type(square.__wrapped__(1), int)
assert_type(square.cache_key(1), str | bytes | int)
assert_type(square.cache_contains(1, True), bool)
assert_type(square.cache_invalidate(1), bool)
assert_type(square.cache.stats(), NearStats)

# The same for coroutines.
async_cache: AsyncNearCache[dict[str, int]] = AsyncNearCache(client, "n", ttl=300)
assert_type(AsyncNearCache(client, "n", ttl=None), AsyncNearCache[Any])
assert_type(AsyncNearCache(client, "n", ttl=1, serializer="raw"), AsyncNearCache[bytes])
assert_type(AsyncNearCache[str](client, "n", ttl=1, weigher=lambda key, value: len(value)), AsyncNearCache[str])
assert_type(async_cache.get_local("k"), dict[str, int] | None)
assert_type(async_cache.get_local("k", {}), dict[str, int])
assert_type(async_cache.get_local("k", 0), dict[str, int] | int)
assert_type(async_cache.is_coherent, bool)
assert_type(async_cache.stats(), NearStats)


async def compute() -> dict[str, int]:
    return {}


def compute_later() -> Awaitable[dict[str, int]]:
    return compute()


async def use_coroutines() -> None:
    assert_type(await async_cache.get("k"), dict[str, int] | None)
    assert_type(await async_cache.get(b"k", None), dict[str, int] | None)
    assert_type(await async_cache.get(1, {}, fresh=True), dict[str, int])
    assert_type(await async_cache.get("k", 0), dict[str, int] | int)
    assert_type(await async_cache.get_many(["k", 1, b"k"]), dict[str | bytes | int, dict[str, int]])
    assert_type(await async_cache.contains("k"), bool)
    await async_cache.set("k", {"a": 1})
    await async_cache.set("k", {"a": 1}, ttl=None)
    await async_cache.set_many(entries)
    await async_cache.set_many([(1, {"a": 1})], ttl=timedelta(1))
    assert_type(await async_cache.add("k", {}), bool)
    assert_type(await async_cache.touch("k", ttl=1.5), bool)
    assert_type(await async_cache.remove("k"), bool)
    assert_type(await async_cache.remove_many(["k", 1]), int)
    assert_type(await async_cache.get_with("k", compute), dict[str, int])
    assert_type(await async_cache.get_with("k", compute_later, 5, across=False, lease=1, fresh=True), dict[str, int])
    await async_cache.clear()
    await async_cache.clear_local()
    async with async_cache as entered:
        assert_type(entered, AsyncNearCache[dict[str, int]])
    await async_cache.close()
    assert_type(await async_square(1, flag=True), int)
    assert_type(await async_square.__wrapped__(1), int)
    assert_type(await async_square.cache_contains(1, True), bool)
    assert_type(await async_square.cache_invalidate(1), bool)


@async_cache.cached(key=square_key, ttl=5)
async def async_square(number: int, flag: bool = False) -> int:
    return number * number


async_function: AsyncNearCachedFunction[[int, bool], int] = async_square
assert_type(async_square.cache_key(1), str | bytes | int)
assert_type(async_square.cache.stats(), NearStats)
