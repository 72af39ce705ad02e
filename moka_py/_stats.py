"""The result of `Moka.stats`."""

from typing import NamedTuple


class Stats(NamedTuple):
    """The counts of a cache since it was made, or since its last `reset_stats`.

    They are exact if no call on the cache is in flight. Accesses are `get`, `cache[key]`, `get_with`, `setdefault`,
    each key of `get_many` and `get_many_with`, and the calls of a function that is cached in it. These are neither hits
    nor misses: `in`, iteration, `expires_in`, `pop`, `remove` and the like, and a call whose key raises.
    """

    hits: int
    misses: int
    hit_ratio: float
    inserts: int
    replacements: int
    evictions: int
    expirations: int
    removals: int
    loads: int
    load_failures: int
    load_seconds: float
    weight: int
    count: int  # type: ignore[assignment]  # a field here, which a tuple has as a method
    refreshes: int


Stats.hits.__doc__ = """Accesses that found a value. For a cached function, calls that returned a value or raised
a kept error without running it, or ran it to compute the value anew (`refresh`)."""
Stats.misses.__doc__ = """Accesses that found no value, also those that then waited for a load of another thread.
For a cached function, calls that ran it."""
Stats.hit_ratio.__doc__ = "Hits divided by hits and misses, from 0.0 to 1.0; 0.0 if there were neither."
Stats.inserts.__doc__ = """Entries that were added under a new key. An entry that alone outweighs the capacity counts as
an insert and an eviction. One that a ttl function does not keep counts as an insert and an expiration."""
Stats.replacements.__doc__ = "Values that replaced the value of their key."
Stats.evictions.__doc__ = 'Entries that were removed for want of capacity: those whose cause is "size".'
Stats.expirations.__doc__ = """Entries that were removed past their deadline, or that a ttl function did not keep:
those whose cause is "expired"."""
Stats.removals.__doc__ = 'Entries that a call removed, `clear` included: those whose cause is "explicit".'
Stats.loads.__doc__ = """Computations that ended: of initializers by `get_with`, of many keys by `get_many_with`, which
count once, and runs of a function that is cached in it. Calls that share a computation count once."""
Stats.load_failures.__doc__ = "Loads that raised, were cancelled, or were abandoned before their end."
Stats.loads.__doc__ = """Computations that ended: of initializers by `get_with`, and runs of a function that is cached
in it. Calls that share a computation count once."""
Stats.load_failures.__doc__ = """Loads that raised, were cancelled, or were abandoned before their end. A refresh that
is cancelled is no failure."""
Stats.load_seconds.__doc__ = "Seconds that all loads took together. A load inside another counts in both."
Stats.weight.__doc__ = "The total weight of all entries now, as of `weighted_size()`. A reset does not change it."
Stats.count.__doc__ = "The number of entries now, as of `count()`. A reset does not change it."
Stats.refreshes.__doc__ = "Loads that computed a value anew after the `refresh` of the cache, also those that failed."
