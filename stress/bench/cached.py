"""Measures the cost of a call of a cached function, compared with `functools.lru_cache` and other decorators.

A hit has one of 1,000 keys in a cache of 10,000. Unless the row says otherwise, they are equal to the stored keys but
other objects. A miss has a new key, in a full cache. Threads call one function, each with keys that it made itself.
"""

import asyncio
import functools
import time

import harness
import threads

from moka_py import Moka, cached

ENTRIES = 10_000
KEYS = 1_000
LAPS = 5
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
    return (time.thread_time_ns() - begin) / calls


def call_with_none(function):
    laps = [None] * (LAPS * KEYS)
    begin = time.thread_time_ns()
    for _ in laps:
        function()
    return per_call(begin, LAPS * KEYS)


def call_with_one(function, keys):
    begin = time.thread_time_ns()
    for _ in range(LAPS):
        for key in keys:
            function(key)
    return per_call(begin, LAPS * KEYS)


def call_with_two(function, keys):
    begin = time.thread_time_ns()
    for _ in range(LAPS):
        for x, y in keys:
            function(x, y)
    return per_call(begin, LAPS * KEYS)


def call_with_keyword(function, keys):
    begin = time.thread_time_ns()
    for _ in range(LAPS):
        for x, y in keys:
            function(x, k=y)
    return per_call(begin, LAPS * KEYS)


class Missing:
    """Calls with ints that were never in the cache."""

    def __init__(self, function):
        self.function = function
        self.next = 10**9

    def __call__(self):
        keys = range(self.next, self.next + LAPS * KEYS)
        self.next = keys.stop
        function = self.function
        begin = time.thread_time_ns()
        for key in keys:
            function(key)
        return per_call(begin, LAPS * KEYS)


def same(x):
    """A module-level function, whose references threads do not count."""
    return x


def hits(decorate):
    """Yields each kind of hit, with a filled function of its own and a callable that measures one round."""

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
        stored = make()
        call_with_one(function, stored)
        yield f"f({name})", functools.partial(call_with_one, function, make())
        yield f"f({name}) of the stored objects", functools.partial(call_with_one, function, stored)
    function = decorate(two)
    call_with_two(function, list(zip(ints(), strs(), strict=True)))
    yield "f(int, str)", functools.partial(call_with_two, function, list(zip(ints(), strs(), strict=True)))
    function = decorate(keyword)
    call_with_keyword(function, list(zip(ints(), strs(), strict=True)))
    yield "f(int, k=str)", functools.partial(call_with_keyword, function, list(zip(ints(), strs(), strict=True)))
    missing = Missing(decorate(one))
    missing()
    yield "a miss, int", missing


def single_thread(report, scale):
    runs = {(operation, name): run for name, decorate in DECORATORS.items() for operation, run in hits(decorate)}
    figures = harness.take_turns(runs, scale.rounds)
    for operation in dict.fromkeys(operation for operation, _ in runs):
        of_these = {name: figures[operation, name] for name in DECORATORS}
        report.add(f"cached, {operation}" + ("" if "miss" in operation else ", hit"), of_these)
    report.table(BASE)


async def awaited(function, keys):
    begin = time.thread_time_ns()
    for _ in range(LAPS):
        for key in keys:
            await function(key)
    return per_call(begin, LAPS * KEYS)


async def awaited_loads(cache, load, keys):
    begin = time.thread_time_ns()
    for _ in range(LAPS):
        for key in keys:
            await cache.aget_with(key, load)
    return per_call(begin, LAPS * KEYS)


async def coroutines(report, scale):
    async def one(x):
        return x

    async def load():
        return 1

    functions = {name: decorate(one) for name, decorate in ASYNC_DECORATORS.items()} | {"not cached": one}
    costs = {name: functools.partial(awaited, function) for name, function in functions.items()}
    cache = Moka(ENTRIES)
    costs["moka_py, aget_with"] = functools.partial(awaited_loads, cache, load)
    keys = ints()
    seen = {name: [] for name in costs}
    for _ in range(scale.rounds + 1):
        for name, cost in costs.items():
            seen[name].append(await cost(keys))
    report.add("cached, await f(int), hit", {name: harness.Figure.of(costs[1:]) for name, costs in seen.items()})
    report.table("async-lru")


def in_threads(report, scale):
    """Hits of a module-level function, whose references threads do not count."""
    prepares = {}
    for name, decorate in DECORATORS.items():
        laps = threads.laps_of(scale, threads.s.OF_PYPI if name == "moka-py of PyPI" else name, KEYS)

        function = decorate(same)

        def prepare(number, function=function, laps=laps):
            keys = [10**6 + number * KEYS + key for key in range(KEYS)]
            threads.get_all(function, keys, 1)
            return functools.partial(threads.get_all, function, list(map(int, keys)), laps), laps * KEYS

        prepares[name] = prepare
    threads.measure(report, "cached, f(int), hit, keys of their own", prepares, scale, BASE)


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("cached", options)
    single_thread(report, options.scale)
    asyncio.run(coroutines(report, options.scale))
    options.scale = harness.dataclasses.replace(options.scale, rounds=max(1, options.scale.rounds // 5))
    in_threads(report, options.scale)
    report.close()


if __name__ == "__main__":
    main()
