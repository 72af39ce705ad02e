"""What a call of a cached function costs, beside `functools.lru_cache` and other decorators in the same process.

A hit is one of a thousand keys, equal to the stored ones and other objects, in a cache of ten thousand. A miss has a
key that was never there before, in a full cache. Threads call one function, each with keys that it made itself.
"""

import asyncio
import functools
import time

import harness

from moka_py import cached

ENTRIES = 10_000
KEYS = 1_000
LAPS = 20
BASE = "lru_cache"

of_pypi = harness.peer("moka_py_of_pypi")
async_lru = harness.peer("async_lru")

DECORATORS = {
    BASE: functools.lru_cache(maxsize=ENTRIES),
    "moka_py tiny_lfu": cached(maxsize=ENTRIES),
    "moka_py lru": cached(maxsize=ENTRIES, policy="lru"),
}
if of_pypi:
    DECORATORS["moka-py of PyPI"] = of_pypi.cached(maxsize=ENTRIES)

ASYNC_DECORATORS = {
    "moka_py": cached(maxsize=ENTRIES),
    "moka_py, wait_concurrent": cached(maxsize=ENTRIES, wait_concurrent=True),
}
if async_lru:
    ASYNC_DECORATORS["async-lru"] = async_lru.alru_cache(maxsize=ENTRIES)
if of_pypi:
    ASYNC_DECORATORS["moka-py of PyPI"] = of_pypi.cached(maxsize=ENTRIES)


def ints():
    return [10**6 + number for number in range(KEYS)]


def strs():
    return [f"key {number}" for number in range(KEYS)]


def floats():
    return [number + 0.5 for number in range(KEYS)]


def per_call(begin, calls):
    return (time.perf_counter_ns() - begin) / calls


def call_with_none(function):
    laps = [None] * (LAPS * KEYS)
    begin = time.perf_counter_ns()
    for _ in laps:
        function()
    return per_call(begin, LAPS * KEYS)


def call_with_one(function, keys):
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for key in keys:
            function(key)
    return per_call(begin, LAPS * KEYS)


def call_with_two(function, keys):
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for x, y in keys:
            function(x, y)
    return per_call(begin, LAPS * KEYS)


def call_with_keyword(function, keys):
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for x, y in keys:
            function(x, k=y)
    return per_call(begin, LAPS * KEYS)


class Missing:
    """Calls with ints that were never there before."""

    def __init__(self, function):
        self.function = function
        self.next = 10**9

    def __call__(self):
        keys = range(self.next, self.next + LAPS * KEYS)
        self.next = keys.stop
        function = self.function
        begin = time.perf_counter_ns()
        for key in keys:
            function(key)
        return per_call(begin, LAPS * KEYS)


def same(x):
    """At the top of the module, where threads do not count a function's references."""
    return x


def hits(decorate):
    """Each kind of hit on a function of its own, filled, with what measures one round of it."""

    def none():
        return 1

    def one(x):
        return x

    def two(x, y):
        return x

    def keyword(x, *, k):
        return x

    function = decorate(none)
    yield "f()", functools.partial(call_with_none, function)
    for name, make in (("int", ints), ("str", strs), ("float", floats)):
        function = decorate(one)
        call_with_one(function, make())
        yield f"f({name})", functools.partial(call_with_one, function, make())
    function = decorate(two)
    call_with_two(function, list(zip(ints(), strs(), strict=True)))
    yield "f(int, str)", functools.partial(call_with_two, function, list(zip(ints(), strs(), strict=True)))
    function = decorate(keyword)
    call_with_keyword(function, list(zip(ints(), strs(), strict=True)))
    yield "f(int, k=str)", functools.partial(call_with_keyword, function, list(zip(ints(), strs(), strict=True)))
    missing = Missing(decorate(one))
    missing()
    yield "a miss, int", missing


def single_thread(rounds):
    runs = {(operation, name): run for name, decorate in DECORATORS.items() for operation, run in hits(decorate)}
    rows = {}
    for (operation, name), median in harness.medians(runs, rounds).items():
        rows.setdefault(operation, {})[name] = median
    harness.table("a call", list(DECORATORS), rows, BASE)


async def awaited(function, keys):
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for key in keys:
            await function(key)
    return per_call(begin, LAPS * KEYS)


async def coroutines(rounds):
    async def one(x):
        return x

    functions = {name: decorate(one) for name, decorate in ASYNC_DECORATORS.items()} | {"not cached": one}
    keys = ints()
    seen = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            seen[name].append(await awaited(function, keys))
    figures = {name: sorted(costs[1:])[len(costs[1:]) // 2] for name, costs in seen.items()}
    harness.table("awaited", list(functions), {"a hit, int": figures}, "async-lru")


def threads(rounds):
    def keys_of(number):
        return [10**6 + number * KEYS + key for key in range(KEYS)]

    rows = {}
    for count in (1, 2):
        runs = {}
        for name, decorate in DECORATORS.items():
            function = decorate(same)
            for number in range(2):
                call_with_one(function, keys_of(number))

            def work(number, function=function):
                keys = keys_of(number)
                for _ in range(5):
                    call_with_one(function, keys)
                return 5 * LAPS * KEYS

            runs[name] = functools.partial(harness.million_a_second, work, count)
        rows[f"{count} thread" + "s" * (count > 1)] = harness.medians(runs, max(rounds // 3, 3))
    harness.table("hits, a thousand keys a thread", list(DECORATORS), rows, BASE, "million a second")


def main():
    rounds = harness.rounds_asked(__doc__)
    single_thread(rounds)
    asyncio.run(coroutines(rounds))
    threads(rounds)


if __name__ == "__main__":
    main()
