"""Compares the figures with their targets, as a table of target, limit, measured value and verdict."""

import dataclasses
from collections.abc import Callable

OURS, OURS_LRU, TIMED, DICT, CACHEBOX = "moka_py", "moka_py lru", "moka_py ttl, tti", "dict", "cachebox LRU"
LONG_LIVED, LRU_CACHE = "moka_py long_lived", "lru_cache"
KINDS = ("int", "str", "str of 200", "tuple")
THREADED = {
    "get, hit, keys of their own": 1.9,
    "get, one hot key": 1.8,
    "zipf 0.99, 95 % get, 5 % set": 1.8,
    "zipf 0.99, 95 % get, 5 % set of other values": 1.8,
    "half get, half set": 1.7,
    "half get, half set of other values": 1.7,
    "set, all evict": 1.6,
}
# The duration of the computation in the stampede.
COMPUTATION_MILLIS = 500


class Missing(Exception):
    """A row or a subject that was not measured."""


class Figures:
    """The medians of one interpreter."""

    def __init__(self, result):
        self.rows = {row["row"]: row["figures"] for row in result["rows"]}

    def of(self, row, subject=OURS):
        try:
            return self.rows[row][subject]["median"]
        except KeyError:
            raise Missing(row, subject) from None

    def ratio(self, row, subject, base, base_row=None):
        return self.of(row, subject) / self.of(base_row or row, base)

    def first(self, start, end=""):
        """Returns the first row whose name begins and ends like this, with a size in between."""
        for row in self.rows:
            if row.startswith(start) and row.endswith(end):
                return row
        raise Missing(start)


@dataclasses.dataclass
class Target:
    what: str
    limit: float
    measure: Callable
    unit: str = "x"
    at_least: bool = False


def at_most(what, limit, row, subject, base, base_row=None):
    """Returns a target for the ratio of two subjects."""
    return Target(what, limit, lambda figures: figures.ratio(row, subject, base, base_row))


def of_one_thread():
    """Yields the targets of one thread on the GIL build. Each measures the figures of that build."""

    for kind in KINDS:
        yield at_most(f"get hit, {kind}, to dict.get", 1.0, f"get, hit, {kind}", OURS, DICT)
        yield at_most(f"get hit, {kind}, to cachebox", 0.95, f"get, hit, {kind}", OURS, CACHEBOX)
    yield at_most("get miss, to dict.get", 1.2, "get, miss, int", OURS, DICT)
    yield at_most(
        "get hit with ttl and tti, to cachebox TTL", 0.95, "get, hit, int, ttl and tti", TIMED, "cachebox TTL"
    )

    def everywhere(figures):
        return figures.ratio(figures.first("get, hit, int, ", "random"), OURS, DICT)

    yield Target("get hit, 1,000,000 entries, random, to dict.get", 0.85, everywhere)
    yield at_most("set of a present key, to cachebox", 0.9, "set, present, int", OURS, CACHEBOX)
    yield at_most("set that evicts, lru, to cachebox LRU", 1.05, "set, evicts, int", OURS_LRU, CACHEBOX)
    yield at_most("set that evicts, tiny_lfu, to cachebox LRU", 1.35, "set, evicts, int", OURS, CACHEBOX)
    for how in ("", " by place"):
        row = f"set, present, int, ttl of its own{how}"
        yield at_most(f"set with a ttl of its own{how}, to our plain set", 1.5, row, OURS, "moka_py without")
    yield at_most("set with a weigher, to cachebox", 1.0, "set, present, int, weigher", OURS, CACHEBOX)
    for subject in (OURS, OURS_LRU):
        row = "set, evicts, int, listener"
        yield at_most(f"set with a listener, {subject}, to lru-dict", 1.0, row, subject, "lru-dict")
    yield at_most("remove and set again, to cachebox", 1.15, "remove and set again, int", OURS, CACHEBOX)
    yield at_most("get_with hit, to our get", 1.2, "get_with, hit, int", OURS, "moka_py get")
    yield at_most("get_with hit, to cachebox", 0.75, "get_with, hit, int", OURS, CACHEBOX)
    row = "hit of a call with a loader, int"
    for call in ("get_with", "call"):
        for plain, refreshing in (("plain", "refresh"), ("ttl", "ttl and refresh")):

            def added(figures, plain=f"{call}, {plain}", refreshing=f"{call}, {refreshing}"):
                return figures.of(row, refreshing) - figures.of(row, plain)

            yield Target(f"hit with refresh, {call}, more than {plain}", 15, added, "ns")
    yield at_most("get_with miss, to cachebox", 1.4, "get_with, miss that evicts, int", OURS, CACHEBOX)
    row = "get_many_with, 100 misses that evict, int"
    yield at_most("a load of 100 keys, to 100 plain sets", 2.0, row, OURS, "moka_py set")
    row = "cached, await f(int), hit"
    yield at_most("aget_with hit, to our cached coroutine", 1.2, row, "moka_py, aget_with", OURS)
    yield at_most("read-through, zipf, to cachebox", 0.95, "read-through, zipf 0.99", OURS, CACHEBOX)
    ratio = "read-through, zipf 0.99: hits once it is full"
    yield Target("read-through, zipf, hits", 78.5, lambda figures: figures.of(ratio), "%", at_least=True)
    made = "a cache of capacity 1,000 made and dropped"
    yield Target("Moka(1000) made and dropped", 2.0, lambda figures: figures.of(made) / 1000, "us")
    yield Target("import", 15.0, lambda figures: figures.of("import, in a fresh process"), "ms")


def of_cached():
    """Yields the targets of cached functions on the GIL build."""
    limits = {
        "f(), hit": 0.85,
        "f(int), hit": 0.75,
        "f(int) of the stored objects, hit": 0.9,
        "f(int, str), hit": 0.65,
        "f(int, k=str), hit": 0.7,
        "a miss, int": 1.6,
    }
    for call, limit in limits.items():
        row = f"cached, {call}"
        yield at_most(f"{row}, to lru_cache", limit, row, "moka_py tiny_lfu", LRU_CACHE)


def of_both_builds():
    """Yields targets for the cost of an operation relative to a dict, on the free-threaded against the GIL build."""
    rows = [f"{operation}, {kind}" for operation in ("get, hit", "set, present") for kind in KINDS]
    rows += ["get, miss, int", "set, evicts, int", "remove and set again, int", "get_with, hit, int"]
    rows += ["get_with, miss that evicts, int", "read-through, zipf 0.99", "set, present, int, ttl of its own"]
    rows += ["set, present, int, weigher", "set, evicts, int, listener"]
    for row in rows:

        def compare(gil, free, row=row):
            # If a dict has no such row, its `get` stands for the speed of the interpreter.
            base = row if DICT in gil.rows.get(row, {}) else "get, hit, int"
            return free.ratio(row, OURS, DICT, base) / gil.ratio(row, OURS, DICT, base)

        yield Target(f"one thread, {row}: ratio to dict, to that with the GIL", 1.5, compare)


def of_threads():
    def scaled(row, more, fewer):
        plural = {1: "1 thread", 2: "2 threads", 8: "8 threads"}
        return lambda figures: figures.ratio(f"{row}, {plural[more]}", OURS, OURS, f"{row}, {plural[fewer]}")

    for row, limit in THREADED.items():
        yield Target(f"2 threads, {row}, to one thread", limit, scaled(row, 2, 1), at_least=True)
        yield Target(f"8 threads, {row}, to 2 threads", 0.9, scaled(row, 8, 2), at_least=True)
    of_module = "cache.get(key), one cache of a module, {}".format
    yield Target(
        "2 threads, cache.get(key) of a long_lived cache, to one thread",
        1.7,
        lambda f: f.ratio(of_module("2 threads"), LONG_LIVED, LONG_LIVED, of_module("1 thread")),
        at_least=True,
    )
    two = "get, hit, keys of their own, 2 threads"
    each = "a dict a thread, d[k]"
    yield Target(
        "2 threads, keys of their own, to a dict a thread", 0.6, lambda f: f.ratio(two, OURS, each), at_least=True
    )
    tail = "get beside a writer, p99.9 over median"
    yield Target("get beside a writer, p99.9 to the median", 10.0, lambda figures: figures.of(tail))

    def served(figures):
        return figures.of(figures.first("1,000 threads", "all served after"))

    yield Target("1,000 threads' stampede, all served", 1.2 * COMPUTATION_MILLIS + 50, served, "ms")

    def runs(figures):
        return figures.of(figures.first("1,000 threads", "computations"))

    yield Target("1,000 threads' stampede, computations", 1, runs, "")


def of_memory_and_pauses():
    def overhead(subject):
        return lambda figures: figures.of(figures.first("overhead an entry"), subject)

    def largest_empty(figures):
        subjects = (OURS, OURS_LRU, TIMED)
        return max(figures.of(f"an empty cache, capacity {size}", s) for size in ("1,000", "2**62") for s in subjects)

    yield Target("overhead an entry, no deadlines", 80, overhead(OURS), "bytes")
    yield Target("overhead an entry, ttl and tti", 96, overhead(TIMED), "bytes")
    yield Target("an empty cache", 4096, largest_empty, "bytes")
    yield Target("after clear() of 1,000,000", 10, lambda figures: figures.of("left after clear()"), "%")

    def due(figures):
        return figures.of(figures.first("longest get or set with", "processor time")) / 1000

    def growing(figures):
        return figures.of(figures.first("longest set while", "processor time")) / 1000

    yield Target("longest get or set with 1,000,000 due", 1.0, due, "ms")
    yield Target("longest set while 1,000,000 come", 2.0, growing, "ms")


def of_near_cache(limit):
    """Yields the targets of the near cache. `limit` is that of a hit, in nanoseconds."""
    small, large = "10,000", "1,000,000"
    hit, invalidation = "near cache, hit, {} entries".format, "near cache, invalidation, {} entries".format
    yield Target("near cache, hit", limit, lambda figures: figures.of(hit(small)), "ns")
    yield Target(
        "near cache, invalidation with 1,000,000 entries, to that with 10,000",
        3.0,
        lambda figures: figures.ratio(invalidation(large), OURS, OURS, invalidation(small)),
    )


def judge(target, *figures):
    """Returns one line of the table."""
    sign = ">=" if target.at_least else "<="
    limit = f"{sign} {target.limit:,.4g} {target.unit}".strip()
    try:
        measured = target.measure(*figures)
    except Missing:
        return f"| {target.what} | {limit} | not measured | |"
    is_met = measured >= target.limit if target.at_least else measured <= target.limit
    return f"| {target.what} | {limit} | {measured:,.3g} {target.unit} | {'yes' if is_met else '**no**'} |".replace(
        "  ", " "
    )


def lines(results):
    """Yields the table for a dict of results by version, such as 3.13 and 3.13t."""
    figures = {version: Figures(result) for version, result in results.items()}
    yield "| target | limit | measured | met |"
    yield "|---|--:|--:|---|"

    def judge_each(version, wanted, *measured):
        for target in wanted:
            target.what = f"{version}: {target.what}"
            yield judge(target, *measured)

    for version, own in figures.items():
        if not version.endswith("t"):
            yield from judge_each(version, of_one_thread(), own)
            yield from judge_each(version, of_cached(), own)
            continue
        if gil := figures.get(version.removesuffix("t")):
            yield from judge_each(version, of_both_builds(), gil, own)
        yield from judge_each(version, of_threads(), own)
    for version, own in figures.items():
        yield from judge_each(version, of_memory_and_pauses(), own)
        yield from judge_each(version, of_near_cache(300 if version.endswith("t") else 150), own)
