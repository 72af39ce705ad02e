"""Lines with near caches that a type checker must reject. If it accepts a line, the ignore comment is unused."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

from moka_py.near import NearCache


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
