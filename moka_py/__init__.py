"""An in-process cache that threads hit in parallel.

`Moka` is the cache, a mutable mapping with a capacity and deadlines; `cached` puts one in front of a function,
sync or async.
"""

import collections.abc as _abc

from moka_py._cached import cached
from moka_py._moka_py import VERSION, Moka
from moka_py._stats import Stats

__all__ = ["VERSION", "Moka", "Stats", "cached"]

# To be a mapping for `isinstance` and `match`, without a base class written in Python.
_abc.MutableMapping.register(Moka)
