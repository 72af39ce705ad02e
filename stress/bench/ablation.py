"""What a change of the package costs: builds of it take turns in one process.

The arguments are the folders of the builds, the base first. This makes a folder from a source tree:

    pip install --no-deps --target FOLDER TREE

Each cell has two ratios of a build to the base. The first compares the round that only a tenth of the rounds beat, on
which other load of the machine has little effect. The second is the median of the ratios of all pairs of rounds.

A second copy of the base shows what chance does. The places that the compiler and the allocator choose are worth up to
3 %, and more in large caches.

A round of two threads is repeated if a thread waited for a processor, so these rows need a machine with little load.
"""

import argparse
import gc
import itertools
import random
import statistics
import sys
import threading
import time
from pathlib import Path

import harness
from harness import call_with_key, call_with_pair, own_code

ENTRIES = 10_000
CALLS = 2_000
# A round of two threads is repeated up to this many times while the time that passes is more than MAX_WAIT times the
# processor time.
MAX_ATTEMPTS = 6
MAX_WAIT = 1.15


def load(folder):
    """Import the package in a folder, and forget the import, so that the next folder can be imported."""
    sys.path.insert(0, str(folder))
    import moka_py

    sys.path.remove(str(folder))
    if not Path(moka_py.__file__).is_relative_to(folder):
        sys.exit(f"{folder}: has no package moka_py")
    for name in [name for name in sys.modules if name.partition(".")[0] == "moka_py"]:
        del sys.modules[name]
    return moka_py


def needles(count=CALLS):
    numbers = list(range(0, ENTRIES, 10))
    random.Random(1).shuffle(numbers)
    return [number + 10**6 for _ in range(count // len(numbers)) for number in numbers]


def filled(package, entries, capacity, **options):
    cache = package.Moka(capacity, **options)
    for number in range(entries):
        cache.set(number + 10**6, number + 10**6)
    return cache


def new_keys(count=CALLS):
    """Yield ranges of keys that were not used before."""
    return (range(begin, begin + count) for begin in itertools.count(10**9, count))


def call_with_function(operation, keys, function):
    begin = time.thread_time_ns()
    for key in keys:
        operation(key, function)
    return (time.thread_time_ns() - begin) / len(keys)


def remove_and_set(cache, keys):
    begin = time.thread_time_ns()
    for key in keys:
        cache.remove(key)
        cache.set(key, key)
    return (time.thread_time_ns() - begin) / len(keys)


def hits(package):
    cache, keys, loop = filled(package, ENTRIES, 2 * ENTRIES), needles(), own_code(call_with_key)
    return lambda: loop(cache.get, keys, 1)


def hits_anywhere(entries):
    def prepare(package):
        cache, loop, dice = filled(package, entries, entries), own_code(call_with_key), random.Random(1)
        return lambda: loop(cache.get, [dice.randrange(entries) + 10**6 for _ in range(CALLS)], 1)

    return prepare


def misses(package):
    cache, keys, loop = filled(package, ENTRIES, 2 * ENTRIES), [-key for key in needles()], own_code(call_with_key)
    return lambda: loop(cache.get, keys, 1)


def present(policy):
    def prepare(package):
        cache = filled(package, ENTRIES, 2 * ENTRIES, policy=policy)
        # Two objects for each key, so that each call stores another value.
        keys, loop = needles() + [key + 1 - 1 for key in needles()], own_code(call_with_pair)
        return lambda: loop(cache.set, keys, 1)

    return prepare


def evicting(policy, entries=ENTRIES):
    def prepare(package):
        cache, keys, loop = filled(package, entries, entries, policy=policy), new_keys(), own_code(call_with_pair)
        return lambda: loop(cache.set, next(keys), 1)

    return prepare


def removing(package):
    cache, keys, loop = filled(package, ENTRIES, 2 * ENTRIES), needles(), own_code(remove_and_set)
    return lambda: loop(cache, keys)


def get_with_hits(package):
    cache, keys, loop = filled(package, ENTRIES, 2 * ENTRIES), needles(), own_code(call_with_function)
    return lambda: loop(cache.get_with, keys, lambda: 1)


def get_with_misses(package):
    cache, keys, loop = filled(package, ENTRIES, ENTRIES), new_keys(), own_code(call_with_function)
    return lambda: loop(cache.get_with, next(keys), lambda: 1)


def cached_hits(package):
    function, keys, loop = package.cached(maxsize=2 * ENTRIES)(lambda x: x), needles(), own_code(call_with_key)
    return lambda: loop(function, keys, 1)


def cached_misses(package):
    function, keys, loop = package.cached(maxsize=ENTRIES)(lambda x: x), new_keys(), own_code(call_with_key)
    return lambda: loop(function, next(keys), 1)


def two_threads(work):
    """Return the nanoseconds of an operation while two threads do it at the same time."""
    for _ in range(MAX_ATTEMPTS):
        ready, costs = [False, False], [None, None]

        def run(number, ready=ready, costs=costs):
            loop, count = work(number)
            ready[number] = True
            # Spins, so that both threads begin at the same time.
            while not all(ready):
                pass
            begin, used = time.perf_counter_ns(), time.thread_time_ns()
            loop()
            costs[number] = (time.perf_counter_ns() - begin) / count, (time.thread_time_ns() - used) / count

        threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if all(passed <= MAX_WAIT * used for passed, used in costs):
            break
    return statistics.mean(passed for passed, _ in costs)


def both_evict(policy):
    def prepare(package):
        cache, keys = filled(package, ENTRIES, ENTRIES, policy=policy), new_keys(4 * CALLS)

        def work(_number):
            mine = list(next(keys))
            return lambda: [cache.set(key, True) for key in mine], len(mine)

        return lambda: two_threads(work)

    return prepare


def both_get_and_set(package):
    cache = filled(package, ENTRIES, 2 * ENTRIES)

    def work(number):
        keys = [(number * 7919 + step * 37) % ENTRIES + 10**6 for step in range(4 * CALLS)]
        return lambda: [cache.set(key, True) for key in keys if cache.get(key)], 2 * len(keys)

    return lambda: two_threads(work)


ROWS = {
    "get, hit": hits,
    "get, miss": misses,
    "set, present": present("tiny_lfu"),
    "set, present, lru": present("lru"),
    "set, evicts": evicting("tiny_lfu"),
    "set, evicts, lru": evicting("lru"),
    "remove and set": removing,
    "get_with, hit": get_with_hits,
    "get_with, miss": get_with_misses,
    "cached, hit": cached_hits,
    "cached, miss": cached_misses,
    "get, hit, 1,000,000 entries": hits_anywhere(1_000_000),
    "set, evicts, 300,000 entries": evicting("tiny_lfu", 300_000),
    "set, evicts, 1,000,000 entries": evicting("tiny_lfu", 1_000_000),
}
THREADS = {
    "2 threads, set, evicts": both_evict("tiny_lfu"),
    "2 threads, set, evicts, lru": both_evict("lru"),
    "2 threads, half get, half set": both_get_and_set,
}


def measure(prepare, packages, rounds):
    """Return the costs of all rounds for each package. The order of the packages is another one in each round."""
    runs = [prepare(package) for package in packages]
    costs = [[] for _ in runs]
    order = list(range(len(runs)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            random.shuffle(order)
            for index in order:
                # The first call loads the data into the processor's caches again.
                runs[index]()
                costs[index].append(runs[index]())
    finally:
        gc.enable()
    return costs


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=lambda text: Path(text).resolve(), help="builds, the base first")
    parser.add_argument(
        "--only", action="append", choices=[*ROWS, *THREADS], help="this row; may be given several times"
    )
    parser.add_argument("--rounds", type=int, default=200, help="a fifth of them for two threads")
    asked = parser.parse_args(argv)
    packages = [load(folder) for folder in asked.folders]
    rows = ROWS | THREADS if harness.FREE_THREADED else ROWS
    print(f"| ns, {harness.interpreter()} | " + " | ".join(folder.name for folder in asked.folders) + " |")
    print("|---|" + "--:|" * len(packages))
    for row in asked.only or rows:
        rounds = max(1, asked.rounds // 5) if row in THREADS else asked.rounds
        base, *variants = measure((ROWS | THREADS)[row], packages, rounds)
        fast = sorted(base)[len(base) // 10]
        cells = [f"{fast:,.0f}"]
        for costs in variants:
            ratios = [cost / of_base for cost, of_base in zip(costs, base, strict=True)]
            cells.append(f"{sorted(costs)[len(costs) // 10] / fast:.2f}, {statistics.median(ratios):.2f}")
        print(f"| {row} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
