"""What `Moka.stats` returns."""

from typing import NamedTuple


class Stats(NamedTuple):
    """What a cache counted since it was made, or since its last `reset_stats`.

    It is exact when no call on the cache is under way. Accesses are `get`, `cache[key]`, `get_with`, `setdefault`, each
    key of `get_many`, and the calls of a function that is cached in it. What asks or removes without an access is
    neither hit nor miss: `in`, iteration, `expires_in`, `pop`, `remove` and the like. So is a call whose key raises.
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


Stats.hits.__doc__ = "Accesses that found a value. Of a cached function, the calls that got a value without running it."
Stats.misses.__doc__ = """Accesses that found none, those included that then waited for another's load. Of a cached
function, the calls that ran it."""
Stats.hit_ratio.__doc__ = "The share of hits in hits and misses, from 0.0 to 1.0; 0.0 when there were neither."
Stats.inserts.__doc__ = """Entries that came, by new keys. One that alone outweighs the capacity leaves as it comes: an
insert and an eviction."""
Stats.replacements.__doc__ = "Values that were set in place of another."
Stats.evictions.__doc__ = 'Entries that the capacity had no room for: those whose cause is "size".'
Stats.expirations.__doc__ = 'Entries that left past their deadline: those whose cause is "expired".'
Stats.removals.__doc__ = 'Entries that a call took out, `clear` included: those whose cause is "explicit".'
Stats.loads.__doc__ = """Computations that ended: of initializers by `get_with`, and runs of a function that is cached
in it. Calls that share one count one."""
Stats.load_failures.__doc__ = "Loads that raised, or were cancelled or given up before their end."
Stats.load_seconds.__doc__ = "Seconds that all loads took together. One inside another counts in both."
Stats.weight.__doc__ = "What all entries weigh together now, as `weighted_size()` says. No reset changes it."
Stats.count.__doc__ = "How many entries there are now, as `count()` says. No reset changes it."
