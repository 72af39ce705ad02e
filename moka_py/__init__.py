"""An in-process cache that threads hit in parallel.

`Moka` is the cache, a mutable mapping with a capacity and deadlines; `cached` puts one in front of a function,
sync or async.
"""

import collections.abc as _abc

try:
    from moka_py._moka_py import VERSION, Moka
except ModuleNotFoundError as _error:
    if _error.name != "moka_py._moka_py":
        raise
    # Python started in a checkout, most likely, which it prefers to what is installed.
    raise ModuleNotFoundError(
        f"{__path__[0]} has no extension module for this interpreter; if that is a checkout, and the package is"
        " installed, run Python in another folder or with -P",
        name=_error.name,
    ) from None
from moka_py._cached import CachedFunction, CachedMethod, CacheInfo, cached
from moka_py._stats import Stats

__all__ = ["VERSION", "CacheInfo", "CachedFunction", "CachedMethod", "Moka", "Stats", "cached"]

# To be a mapping for `isinstance` and `match`, without a base class written in Python.
_abc.MutableMapping.register(Moka)
