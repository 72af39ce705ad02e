"""What the metrics of Prometheus and of OpenTelemetry have in common: the metrics, and how they are read.

Reading does no maintenance: it removes no entry and calls no listener. So an entry that is due counts as an entry until
some call on its cache removes it.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from moka_py import CachedFunction, CachedMethod, Moka, Stats, cached_functions
from moka_py.near._base import NearCacheBase

MAX_READINGS = 100
"""How often a mapping is read until no thread changes it meanwhile."""

_Source = Moka[Any, Any] | NearCacheBase[Any] | CachedFunction[..., Any] | CachedMethod[..., Any]


@dataclass(frozen=True)
class Reading:
    """The counts of one cache."""

    stats: Stats
    # None if there is no bound.
    capacity: int | None


@dataclass(frozen=True)
class Metric:
    """A metric, and the values that it has by label. A metric without a label has one value, whose label is empty."""

    name: str
    description: str
    unit: str
    is_counter: bool
    label: str | None
    values: Mapping[str, Callable[[Reading], float | None]]

    def sums(self, readings: Iterable[Reading]) -> Iterable[tuple[str, float]]:
        """Yield each label with the sum of its values. A sum with an unbounded capacity is left out."""
        readings = list(readings)
        for label, value in self.values.items():
            values = [value(reading) for reading in readings]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                yield label, sum(known)


METRICS = (
    Metric(
        "requests",
        "Look-ups, by whether they found a value.",
        "{request}",
        True,
        "result",
        {"hit": lambda of: of.stats.hits, "miss": lambda of: of.stats.misses},
    ),
    Metric(
        "removals",
        "Entries that were removed or replaced, by the cause.",
        "{entry}",
        True,
        "cause",
        {
            "expired": lambda of: of.stats.expirations,
            "explicit": lambda of: of.stats.removals,
            "replaced": lambda of: of.stats.replacements,
            "size": lambda of: of.stats.evictions,
        },
    ),
    Metric(
        "loads",
        "Computations of values that ended, by whether they returned a value.",
        "{load}",
        True,
        "result",
        {
            "success": lambda of: of.stats.loads - of.stats.load_failures,
            "failure": lambda of: of.stats.load_failures,
        },
    ),
    Metric(
        "load_seconds",
        "Seconds that all loads took together.",
        "s",
        True,
        None,
        {"": lambda of: of.stats.load_seconds},
    ),
    Metric(
        "entries",
        "Entries, also those that are due and not removed yet.",
        "{entry}",
        False,
        None,
        {"": lambda of: of.stats.count},
    ),
    Metric("weight", "The weight of all entries.", "1", False, None, {"": lambda of: of.stats.weight}),
    Metric(
        "capacity",
        "The most that all entries may weigh. A cache without a bound has none.",
        "1",
        False,
        None,
        {"": lambda of: of.capacity},
    ),
)


class Sources:
    """The caches that are read, by name."""

    def __init__(self, caches: Mapping[str, _Source] | None, functions: str | bool) -> None:
        if caches is not None and not isinstance(caches, Mapping):
            raise TypeError(f"caches must be a mapping of names to caches or None, got {type(caches).__name__}")
        if not isinstance(functions, str | bool):
            raise TypeError(f"functions must be a bool or the name of a package, got {type(functions).__name__}")
        self._caches = {} if caches is None else caches
        self._functions = functions
        # A wrong cache raises here rather than at the first reading.
        self.read()

    def read(self) -> dict[str, list[Reading]]:
        """Return the readings of all caches that exist now. Several have the same name if functions do."""
        readings = defaultdict(list)
        for name, source in _items_of(self._caches):
            readings[name].append(_read(name, source))
        if self._functions is not False:
            package = self._functions if isinstance(self._functions, str) else None
            for function in cached_functions(package):
                name = _name_of(function)
                readings[name].append(_read(name, function))
        return readings


def _items_of(caches: Mapping[str, _Source]) -> list[tuple[str, _Source]]:
    """Return the items of a mapping that other threads may change, such as a `weakref.WeakValueDictionary`."""
    for _ in range(MAX_READINGS - 1):
        # The iteration raises RuntimeError if a thread adds or removes a cache meanwhile.
        with suppress(RuntimeError):
            return list(caches.items())
    return list(caches.items())


def _name_of(function: Any) -> str:
    """Return the module and the qualified name of a cached function.

    A cached `functools.partial` has the name of the function that it calls, and a callable object that of its class.
    """
    if not hasattr(function, "__qualname__"):
        function = function.__wrapped__
        while isinstance(function, functools.partial):
            function = function.func
        if not hasattr(function, "__qualname__"):
            function = type(function)
    return f"{function.__module__}.{function.__qualname__}"


def _read(name: Any, source: Any) -> Reading:
    if not isinstance(name, str):
        raise TypeError(f"a name in caches must be a str, got {type(name).__name__}")
    cache: Any = source
    if isinstance(source, CachedFunction | CachedMethod):
        cache = source.cache
    elif isinstance(source, NearCacheBase):
        cache = source._tier.entries
    if not isinstance(cache, Moka):
        kinds = "a Moka, a near cache or a cached function"
        raise TypeError(f"caches[{name!r}] must be {kinds}, got {type(source).__name__}")
    capacity = cache.capacity
    return Reading(cache._counts(), capacity if capacity < sys.maxsize else None)
