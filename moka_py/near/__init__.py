"""A near cache: a `Moka` in front of Redis or Valkey, whose values are never more stale than a bound.

`AsyncNearCache` is for programs with asyncio, `NearCache` for others. They need redis-py 5.1 or later
(`pip install moka_py[redis]`), or valkey-py 6 or later (`pip install moka_py[valkey]`).
"""

from typing import TYPE_CHECKING, Any

from moka_py.near._cached import AsyncNearCachedFunction, NearCachedFunction
from moka_py.near._serializers import Serializer
from moka_py.near._stats import NearStats
from moka_py.near._sync import NearCache

if TYPE_CHECKING:
    from moka_py.near._async import AsyncNearCache

__all__ = ["AsyncNearCache", "AsyncNearCachedFunction", "NearCache", "NearCachedFunction", "NearStats", "Serializer"]


def __getattr__(name: str) -> Any:
    """Import `AsyncNearCache`, and with it asyncio, when a program first needs it."""
    if name == "AsyncNearCache":
        from moka_py.near._async import AsyncNearCache

        globals()[name] = AsyncNearCache
        return AsyncNearCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
