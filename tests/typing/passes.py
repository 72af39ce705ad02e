"""Code that a type checker must accept, and the types that it must infer. The code is checked and never run."""

import asyncio
from collections.abc import Callable, Hashable, ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal, assert_type

import moka_py
from moka_py import VERSION, CachedFunction, CachedMethod, CacheInfo, Moka, Stats, cached, cached_functions
from moka_py.testing import ManualClock

assert_type(VERSION, str)
assert_type(moka_py.VERSION, str)


def listener(key: str, value: int, cause: Literal["expired", "explicit", "replaced", "size"]) -> None: ...


def careless_listener(key: object, value: object, cause: str) -> int:
    return 1


# The types of keys and values come from a declaration, from the listener or the weigher, or are Any.
cache: Moka[str, int] = Moka(100)
assert_type(Moka(100), Moka[Any, Any])
assert_type(Moka(100, eviction_listener=listener), Moka[str, int])
assert_type(Moka[str, bytes](100, weigher=lambda key, value: len(key) + len(value)), Moka[str, bytes])
full: Moka[str, int] = Moka(
    capacity=100,
    ttl=1.5,
    tti=timedelta(minutes=1),
    eviction_listener=careless_listener,
    policy="lru",
    weigher=lambda key, value: value,
)


def rest(key: object, value: int) -> timedelta | None:
    return timedelta(seconds=value)


assert_type(Moka[str, int](100, ttl=rest), Moka[str, int])
tokens: Moka[str, int] = Moka(100, ttl=lambda key, value: None if key == "a" else value)
tokens.set("a", 1, ttl=rest)
tokens.set_many({"a": 1}, ttl=lambda key, value: len(key) + value + 0.5)
assert_type(tokens.get_with("a", lambda: 1, ttl=lambda key, value: value), int)
assert_type(
    cached(ttl=lambda key, value: 5)(len).cache.ttl, float | Callable[[Any, Any], float | timedelta | None] | None
)

assert_type(cache.get("a"), int | None)
assert_type(cache.get("a", None), int | None)
assert_type(cache.get("a", 1), int)
assert_type(cache.get("a", default="none"), int | str)
assert_type(cache.remove("a"), int | None)
assert_type(cache.remove("a", 1), int)
assert_type(cache.remove("a", default="none"), int | str)
assert_type(cache.pop("a"), int)
assert_type(cache.pop("a", None), int | None)
assert_type(cache.popitem(), tuple[str, int])
assert_type(cache.setdefault("a", 1), int)
assert_type(cache.get_with("a", lambda: 1), int)
assert_type(cache.get_with(key="a", initializer=lambda: 1, ttl=1, tti=timedelta(1)), int)
assert_type(cache["a"], int)
assert_type(cache.peek("a"), int | None)
assert_type(cache.peek("a", 1), int)
assert_type(cache.peek("a", default="none"), int | str)
assert_type(cache.touch("a", ttl=1, tti=timedelta(1)), bool)
assert_type(cache.set_with("a", lambda value: value + 1, 0), int)
assert_type(cache.set_with("a", lambda value: 1 if value is None else value + 1), int)
assert_type(cache.set_with("a", int, default="1", ttl=timedelta(1)), int)
assert_type(cache.next_deadline(), float | None)
assert_type(cache.expires_in("a"), float | None)
assert_type(cache.count(), int)
assert_type(cache.weighted_size(), int)
assert_type(cache.capacity, int)
assert_type(cache.policy, Literal["tiny_lfu", "lru"])
assert_type(cache.ttl, float | Callable[[str, int], float | timedelta | None] | None)
assert_type(cache.tti, float | None)
assert_type(cache.get_many(["a"]), dict[str, int])
assert_type(cache.get_many_with(["a"], lambda missing: {key: len(key) for key in missing}), dict[str, int])
assert_type(cache.get_many_with(keys="ab", load=lambda _: cache, ttl=1, tti=timedelta(1)), dict[str, int])
assert_type(cache.get_many_with(["a"], lambda _: {"a": 1}, ttl=lambda key, value: len(key) + value), dict[str, int])
assert_type(cache.remove_many(key for key in "ab"), int)
assert_type(cache.remove_if(lambda key, value: key.upper() and value + 1), int)
assert_type(cache.hottest(), list[tuple[str, int]])
assert_type(cache.hottest(10), list[tuple[str, int]])
assert_type(cache.coldest(limit=None), list[tuple[str, int]])
with ManualClock(caches=[cache, cached(ttl=1)(len)]) as clock:
    assert_type(clock, ManualClock)
    assert_type(clock.advance(0.5), None)
    clock.advance(seconds=timedelta(1))
cache.set_many({"a": 1}, ttl=1, tti=timedelta(seconds=1))
cache.set_many([("a", 1)])
cache.set_many(cache)
assert_type(cache.stats(), Stats)
assert_type(cache.stats().hits, int)
assert_type(cache.stats().hit_ratio, float)
assert_type(cache.stats().load_seconds, float)
assert_type(cache.stats().count, int)
cache.reset_stats()
cache.set("a", 1, ttl=1, tti=0.5)
cache.set(key="a", value=1)
cache["a"] = 1
del cache["a"]
cache.clear()
cache.resize(200)
cache.resize(capacity=0)
assert_type(cache.capacity, int)
cache.run_pending_tasks()

# A cache is a mapping, and can be passed where one is expected.
assert_type(iter(cache), Iterator[str])
assert_type(cache.keys(), KeysView[str])
assert_type(cache.values(), ValuesView[int])
assert_type(cache.items(), ItemsView[str, int])
assert_type(list(cache), list[str])
assert_type(dict(cache), dict[str, int])
assert_type(len(cache), int)
assert_type("a" in cache, bool)
assert_type(bool(cache), bool)
assert_type(hash(cache), int)
mapping: MutableMapping[str, int] = cache
key: Hashable = cache
cache.update({"a": 1})
cache.update([("a", 1)], b=2)
cache.update(b=2)
cache.update(full)
optional: Moka[str, int | None] = Moka(1)
assert_type(optional.setdefault("a"), int | None)


class Sub(Moka[str, int]):
    def double(self, key: str) -> int:
        return 2 * self[key]


assert_type(Sub(10), Sub)
assert_type(Sub(10).get("a"), int | None)


# A cached function keeps its signature.
@cached
def plain(x: int, y: str = "") -> list[int]:
    return [x]


@cached(
    maxsize=None,
    typed=True,
    ttl=1.0,
    tti=timedelta(seconds=1),
    wait_concurrent=True,
    weak_self=False,
    policy="lru",
    weigher=None,
)
def full_signature(x: int, *, y: str = "") -> list[int]:
    return [x]


@cached(ttl=1)
async def coroutine(x: int) -> str:
    return str(x)


@cached(key=lambda text: text.lower())
def folded(text: str) -> str:
    return text.lower()


@cached(errors=(LookupError, OSError), error_ttl=timedelta(seconds=5))
def keeps_failures(x: int) -> str:
    return str(x)


assert_type(keeps_failures(1), str)
assert_type(cached(errors=KeyError, error_ttl=5)(keeps_failures)(1), str)


class Service:
    @cached(maxsize=10)
    def method(self, x: int) -> str:
        return str(x)

    @cached(weak_self=True)
    async def later(self, x: int) -> str:
        return str(x)

    @staticmethod
    @cached
    def of_no_instance(x: int) -> str:
        return str(x)


assert_type(plain(1, "a"), list[int])
assert_type(full_signature(1, y="a"), list[int])
assert_type(folded("A"), str)
assert_type(Service().method(1), str)
assert_type(Service.method(Service(), 1), str)
assert_type(Service.of_no_instance(1), str)
assert_type(plain.__wrapped__(1), list[int])
assert_type(plain.cache_info().hits, int)
assert_type(plain.cache_invalidate(1, y="a"), bool)
assert_type(plain.cache_contains(1), bool)
assert_type(plain.cache_refresh(1, y="a"), list[int])
assert_type(Service.method.cache_refresh(Service(), 1), str)
assert_type(Service().method.cache_refresh(Service(), 1), str)
assert_type(Service.of_no_instance.cache_refresh(1), str)
assert_type(Service.method.cache_invalidate(Service(), 1), bool)
assert_type(Service().method.cache_invalidate(Service(), 1), bool)
plain.cache_set([1], 1, y="a")
coroutine.cache_set("a", 1)
Service.method.cache_set("a", Service(), 1)
Service().method.cache_set("a", Service(), 1)
Service().later.cache_set("a", Service(), 1)
Service.of_no_instance.cache_set("a", 1)
assert_type(cached_functions("shop")[0].cache_info().hits, int)
cached_functions()[0].cache_clear()
assert_type(Moka[str, int](100, long_lived=True), Moka[str, int])
assert_type(Moka[str, int](100, refresh=5), Moka[str, int])
assert_type(Moka[str, int](100, refresh=timedelta(minutes=1)).refresh, float | None)
assert_type(Moka[str, int](100, refresh=5, executor=ThreadPoolExecutor()), Moka[str, int])
assert_type(Moka[str, int](100, refresh=5, executor=None), Moka[str, int])
assert_type(cache.stats().refreshes, int)


class Submitter:
    def submit(self, job: Callable[[], object]) -> None: ...


assert_type(Moka[str, int](100, refresh=5, executor=Submitter()), Moka[str, int])
assert_type(cached(refresh=5, executor=ThreadPoolExecutor())(len).cache.refresh, float | None)
assert_type(plain.cache_parameters(), dict[str, Any])
assert_type(plain.cache, Moka[Any, Any])
plain.cache_clear()


async def awaits() -> None:
    assert_type(await coroutine(1), str)
    assert_type(await asyncio.create_task(coroutine(1)), str)
    assert_type(await asyncio.gather(coroutine(1), coroutine(2)), tuple[str, str])
    assert_type(await Service().later(1), str)
    assert_type(await coroutine.cache_refresh(1), str)
    assert_type(await Service().later.cache_refresh(Service(), 1), str)
    assert_type(await texts.aget_with(1, load_text), str)
    assert_type(await texts.aget_with(1, load_text, ttl=5, tti=timedelta(1)), str)
    assert_type(await texts.aget_with(1, lambda: load_text(), ttl=lambda key, text: key + len(text)), str)
    assert_type(await asyncio.create_task(texts.aget_with(1, load_text)), str)
    assert_type(await texts.aget_many_with([1, 2], load_texts), dict[int, str])
    assert_type(await texts.aget_many_with({1, 2}, load_texts, ttl=5, tti=timedelta(1)), dict[int, str])
    assert_type(await Moka(100).aget_with("any", load_text), Any)


texts: Moka[int, str] = Moka(100)


async def load_text() -> str:
    return ""


async def load_texts(missing: list[int]) -> dict[int, str]:
    return dict.fromkeys(missing, "")


class Counting(Moka[str, int]):
    def __init__(self, capacity: int, *, ttl: float | None = None) -> None:
        super().__init__(capacity, ttl=ttl)
        self.misses = 0


assert_type(Counting(10, ttl=5).misses, int)


class Named(Moka[int, str]):
    def __init__(self, capacity: int, name: str) -> None:
        super().__init__(capacity, ttl=1)
        self.name = name


assert_type(Named(10, "a").get(1), str | None)
assert_type(Named(10, name="a").name, str)
assert_type(Moka[int, str](10), Moka[int, str])


def described(it: object) -> str:
    if isinstance(it, CachedFunction):
        return str(it.cache_info().currsize)
    return str(it.__self__) if isinstance(it, CachedMethod) else ""


annotated: CachedFunction[[int], list[int]] = cached(lambda x: [x])
info: CacheInfo = plain.cache_info()
assert_type(info.currsize, int)
