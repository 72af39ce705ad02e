"""The subjects of the comparisons, each with the same few bound methods.

A maker takes a capacity and returns a `Subject`, or `None` if its package is not installed.
"""

import dataclasses
import datetime
import functools
import sys
import threading
from collections.abc import Callable

import harness

from moka_py import Moka

of_pypi = harness.peer("moka_py_of_pypi")
cachebox = harness.peer("cachebox")
theine = harness.peer("theine")
cachetools = harness.peer("cachetools")
lru = harness.peer("lru")
if harness.FREE_THREADED and sys._is_gil_enabled():
    sys.exit("a peer turned the GIL on: run this with -X gil=0")

OURS = "moka_py"
OURS_LRU = "moka_py lru"
OURS_TIMED = "moka_py ttl, tti"
DICT = "dict"
OF_PYPI = "moka-py of PyPI"
CACHEBOX = "cachebox LRU"
CACHEBOX_TTL = "cachebox TTL"
THEINE = "theine"
CACHETOOLS = "cachetools, lock"
LRU_DICT = "lru-dict"
LRU_CACHE = "lru_cache"
LOOP = "empty loop"
NO_OP = "no-op method"

# A duration in seconds that never passes.
LATER = 100_000


@dataclasses.dataclass
class Subject:
    cache: object
    get: Callable
    set: Callable | None = None
    remove: Callable | None = None
    get_with: Callable | None = None
    # Whether the result of `get` is a hit.
    is_hit: Callable = lambda found: found is not None

    def fill(self, keys):
        store = self.set or (lambda key, _value: self.get(key))
        for key in keys:
            store(key, key)
        return self


def same(key):
    return key


def ours(capacity, **options):
    cache = Moka(capacity, **options)
    return Subject(cache, cache.get, cache.set, cache.remove, cache.get_with)


def moka_of_pypi(capacity, **options):
    if of_pypi is None:
        return None
    cache = of_pypi.Moka(capacity, **options)
    return Subject(cache, cache.get, cache.set, cache.remove, cache.get_with)


def plain_dict(_capacity):
    table = {}
    return Subject(table, table.get, table.__setitem__, table.pop)


def of_cachebox(capacity, name="LRUCache", ttl=None, **options):
    if cachebox is None:
        return None
    cache = getattr(cachebox, name)(capacity, *([] if ttl is None else [ttl]), **options)
    return Subject(cache, cache.get, cache.insert, cache.pop, getattr(cache, "setdefault_with", None))


def of_theine(capacity, ttl=None):
    if theine is None:
        return None
    cache = theine.Cache(capacity)
    store = cache.set
    if ttl is not None:
        store = functools.partial(cache.set, ttl=datetime.timedelta(seconds=ttl))
    return Subject(cache, cache.get, store, cache.delete, is_hit=lambda found: found[1])


def of_cachetools(capacity, ttl=None):
    """cachetools with a lock around each call, as its documentation recommends for threads."""
    if cachetools is None:
        return None
    cache = cachetools.LRUCache(capacity) if ttl is None else cachetools.TTLCache(capacity, ttl)
    lock = threading.Lock()

    def get(key):
        with lock:
            return cache.get(key)

    def store(key, value):
        with lock:
            cache[key] = value

    def remove(key, default=None):
        with lock:
            return cache.pop(key, default)

    return Subject(cache, get, store, remove)


def of_lru_dict(capacity, **options):
    if lru is None:
        return None
    cache = lru.LRU(capacity, **options)
    return Subject(cache, cache.get, cache.__setitem__, cache.pop)


def of_lru_cache(capacity):
    function = functools.lru_cache(maxsize=capacity)(same)
    return Subject(function, function)


MAKERS = {
    DICT: plain_dict,
    OURS: ours,
    OURS_LRU: functools.partial(ours, policy="lru"),
    OURS_TIMED: functools.partial(ours, ttl=LATER, tti=LATER),
    CACHEBOX: of_cachebox,
    OF_PYPI: moka_of_pypi,
    THEINE: of_theine,
    CACHETOOLS: of_cachetools,
    LRU_DICT: of_lru_dict,
    LRU_CACHE: of_lru_cache,
}

TIMED_MAKERS = {
    OURS_TIMED: MAKERS[OURS_TIMED],
    CACHEBOX_TTL: functools.partial(of_cachebox, name="TTLCache", ttl=LATER),
    OF_PYPI: functools.partial(moka_of_pypi, ttl=LATER, tti=LATER),
    THEINE: functools.partial(of_theine, ttl=LATER),
    CACHETOOLS: functools.partial(of_cachetools, ttl=LATER),
}


def make(capacity, *names, makers=MAKERS):
    """Returns the installed subjects of these names, or all installed subjects."""
    made = {name: makers[name](capacity) for name in names or makers}
    return {name: subject for name, subject in made.items() if subject is not None}


def has_package(name):
    return MAKERS[name](10) is not None
