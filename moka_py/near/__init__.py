"""A near cache: a `Moka` in front of Redis or Valkey, whose values are never more stale than a bound.

`NearCache` is for programs without asyncio. It needs redis-py 5.1 or later (`pip install moka_py[redis]`), or valkey-py
6 or later (`pip install moka_py[valkey]`).
"""

from moka_py.near._cached import NearCachedFunction
from moka_py.near._serializers import Serializer
from moka_py.near._stats import NearStats
from moka_py.near._sync import NearCache

__all__ = ["NearCache", "NearCachedFunction", "NearStats", "Serializer"]
