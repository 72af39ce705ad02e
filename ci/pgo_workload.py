"""The workload for profile-guided optimization: the compiler optimizes the wheel for code that runs often here.

maturin runs it with an instrumented module, by `pgo-command` in pyproject.toml. Each kind of call is about as frequent
as in programs, so that none is slow for the sake of another: mainly hits with all kinds of keys, then misses, writes
that replace, evict and remove, deadlines, listeners, computations and cached functions, in one thread and in two.
"""

import asyncio
import random
import sys
import threading

from moka_py import Moka, cached

ENTRIES = 5_000
KEYS = {
    "int": lambda number: number + 1_000_000,
    "str": lambda number: f"key {number}",
    "str of 200": lambda number: f"key {number}".ljust(200, "."),
    "tuple": lambda number: (number + 1_000_000, f"key {number}"),
}
OPTIONS = (
    {},
    {"ttl": 3600},
    {"ttl": 3600, "tti": 3600},
    {"weigher": lambda key, value: 1},
    {"eviction_listener": lambda key, value, cause: None},
    {"ttl": 3600, "refresh": 1800},
)
SKEW = 0.99


def hit(cache, needles):
    """Reads and replaces present entries."""
    for _ in range(4):
        for key in needles:
            cache.get(key)
    for key in needles:
        cache.get(key, None)
        cache.get_with(key, int)
        cache.set(key, key)
        cache[key] = key
        cache[key]
        key in cache  # noqa: B015


def miss(cache, make, start):
    """Reads absent keys, and computes or sets them, so that others are evicted."""
    fresh = [make(start + number) for number in range(ENTRIES)]
    for key in fresh:
        cache.get(key)
    for key in fresh:
        cache.set(key, key)
    for key in (make(start + ENTRIES + number) for number in range(ENTRIES)):
        cache.get_with(key, int)
    for key in fresh[: ENTRIES // 5]:
        cache.remove(key)
        cache.set(key, key)
        cache.pop(key, None)
        cache.setdefault(key, key)
        cache.set(key, key, ttl=60.0)
        cache.set(key, key, ttl=60, tti=30)
        cache.set(key, key, 60)
        cache.get_with(key, int, ttl=60)


def read_through(cache, seed):
    """Reads keys by Zipf's law, 10 % of which fit into the cache, and sets absent ones."""
    dice = random.Random(seed)
    weights, total = [], 0.0
    for rank in range(10 * ENTRIES):
        total += (rank + 1) ** -SKEW
        weights.append(total)
    for key in dice.choices(range(10 * ENTRIES), cum_weights=weights, k=20 * ENTRIES):
        if cache.get(key) is None:
            cache.set(key, key)


def in_bulk(cache):
    """Makes calls for many entries at once."""
    for _ in range(3):
        cache.set_many({number: number for number in range(ENTRIES)})
        cache.get_many(range(ENTRIES))
        sum(1 for _ in cache)
        sum(1 for _ in cache.items())
        cache.clear()
    for start in range(0, 4 * ENTRIES, 100):
        for _ in range(2):
            cache.get_many_with(range(start, start + 100), lambda missing: {key: key for key in missing})
    cache.clear()


def call_cached():
    """Calls cached functions with positional and keyword arguments, and cached coroutine functions."""

    @cached(maxsize=1000)
    def add(left, right=0):
        return left

    @cached(maxsize=1000)
    async def add_later(left):
        return left

    async def call_later():
        for _ in range(20):
            for number in range(1_000):
                await add_later(number)
        for number in range(2 * ENTRIES):
            await add_later(1_000 + number)

    for _ in range(20):
        for number in range(1_100):
            add(number)
            add(number, 1)
        for number in range(100):
            add(number, right=2)
    # Each of these misses evicts an entry.
    for number in range(4 * ENTRIES):
        add(2_000 + number)
    asyncio.run(call_later())


def train(seed):
    """Runs the whole workload in one thread."""
    for policy in ("tiny_lfu", "lru"):
        for options in OPTIONS:
            for kind, make in KEYS.items():
                cache = Moka(ENTRIES, policy=policy, **options)
                for number in range(ENTRIES):
                    cache.set(make(number), number)
                needles = [make(number) for number in range(0, ENTRIES, 5)]
                hit(cache, needles)
                # Most keys of programs are of one of these types.
                if kind in ("int", "str"):
                    miss(cache, make, ENTRIES)
        read_through(Moka(ENTRIES, policy=policy), seed)
        in_bulk(Moka(ENTRIES, policy=policy))
    call_cached()


def share(cache):
    """Reads through one cache in two threads."""
    threads = [threading.Thread(target=read_through, args=(cache, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    train(0)
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        for policy in ("tiny_lfu", "lru"):
            share(Moka(ENTRIES, policy=policy))


if __name__ == "__main__":
    main()
