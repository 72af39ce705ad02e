"""An in-process cache that threads hit in parallel.

`Moka` is the cache, a mutable mapping with a capacity and deadlines. `cached` stores the results of a function, sync or
async, in such a cache.
"""

import collections.abc as _abc

try:
    from moka_py._moka_py import VERSION, Moka
except ModuleNotFoundError as _error:
    if _error.name != "moka_py._moka_py":
        raise
    # Most likely Python was started in a checkout, which it prefers to the installed package.
    raise ModuleNotFoundError(
        f"{__path__[0]} has no extension module for this interpreter; if that is a checkout, and the package is"
        " installed, run Python in another folder or with -P",
        name=_error.name,
    ) from None
from moka_py._cached import CachedFunction, CachedMethod, CacheInfo, cached
from moka_py._registry import cached_functions
from moka_py._stats import Stats

__all__ = [
    "VERSION",
    "CacheInfo",
    "CachedFunction",
    "CachedMethod",
    "Moka",
    "Stats",
    "cached",
    "cached_functions",
]

# `isinstance` and `match` then treat it as a mapping, without a base class written in Python.
_abc.MutableMapping.register(Moka)
