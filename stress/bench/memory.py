"""Measures resident memory, with a separate process for each figure.

The overhead of an entry is the memory that a million entries from int to int add to the process, without keys and
values, which are made before and held by lists. The remaining memory after `clear()` is measured as a percentage of it.
"""

import argparse
import functools
import gc
import json
import subprocess
import sys

import harness
import subjects as s

VTTL, CACHEBOX_TTL = "cachebox VTTL", s.CACHEBOX_TTL
EMPTY = 500
CAPACITIES = {"1,000": 1_000, "2**62": 2**62}
# On 3.13t one of the peers does not finish a million entries with their own ttl.
TIMEOUT_SECONDS = 120


def makers():
    return {
        s.DICT: s.plain_dict,
        s.OURS: s.ours,
        s.OURS_LRU: s.MAKERS[s.OURS_LRU],
        s.OURS_TIMED: s.MAKERS[s.OURS_TIMED],
        s.CACHEBOX: s.of_cachebox,
        CACHEBOX_TTL: functools.partial(s.of_cachebox, name="TTLCache", ttl=s.LATER),
        VTTL: functools.partial(s.of_cachebox, name="VTTLCache"),
        s.LRU_DICT: s.of_lru_dict,
        s.THEINE: s.of_theine,
        s.OF_PYPI: s.moka_of_pypi,
        "moka-py of PyPI ttl, tti": functools.partial(s.moka_of_pypi, ttl=s.LATER, tti=s.LATER),
        s.CACHETOOLS: s.of_cachetools,
        s.LRU_CACHE: s.of_lru_cache,
    }


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def of_entries(name, count):
    """Returns the overhead of an entry in bytes, and the percentage that remains after `clear()`."""
    make = makers()[name]
    if make(10) is None:
        return None
    keys = [10**6 + number for number in range(count)]
    values = [10**9 + number for number in range(count)]
    warm = make(1_000)
    store = warm.set or (lambda key, _value: warm.get(key))
    for key in keys[:500]:
        store(key, key)
    before = resident()
    subject = make(2 * count)
    store = subject.set
    if store is None:
        get = subject.get
        for key in keys:
            get(key)
    elif name == VTTL:
        for key, value in zip(keys, values, strict=True):
            store(key, value, ttl=s.LATER)
    else:
        for key, value in zip(keys, values, strict=True):
            store(key, value)
    full = resident() - before
    clear = getattr(subject.cache, "clear", None) or subject.cache.cache_clear
    clear()
    left = resident() - before
    return full / count, 100 * left / max(full, 1)


def of_empty(name, _count):
    """Returns the bytes of an unused cache, for each of the capacities."""
    make = makers()[name]
    if make(10) is None:
        return None
    made, sizes = [make(10) for _ in range(50)], []
    for capacity in CAPACITIES.values():
        made += [make(capacity) for _ in range(50)]
        before = resident()
        made += [make(capacity) for _ in range(EMPTY)]
        sizes.append((resident() - before) / EMPTY)
    return sizes


def in_its_own_process(*arguments):
    flags = ["-X", "gil=0"] if harness.FREE_THREADED else []
    run = [sys.executable, *flags, __file__, "--one", *map(str, arguments)]
    try:
        done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{arguments[1]}: not finished after {TIMEOUT_SECONDS} s", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("memory", options)
    count = options.scale.large
    overhead, left = {}, {}
    names = makers() if options.scale.large > 1_000 else (s.DICT, s.OURS)
    for name in names:
        if found := in_its_own_process("entries", name, count):
            overhead[name], left[name] = found
    report.add(f"overhead an entry, int to int, {count:,} entries", overhead, "bytes")
    report.add("left after clear()", left, "percent of it")
    empty = {}
    for name in (s.DICT, s.OURS, s.OURS_LRU, s.OURS_TIMED, s.OF_PYPI):
        if found := in_its_own_process("empty", name, 0):
            empty[name] = found
    for position, capacity in enumerate(CAPACITIES):
        sizes = {name: found[position] for name, found in empty.items()}
        report.add(f"an empty cache, capacity {capacity}", sizes, "bytes")
    report.table()
    report.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("kind")
        parser.add_argument("name")
        parser.add_argument("number", type=int)
        one = parser.parse_args(sys.argv[2:])
        json.dump({"entries": of_entries, "empty": of_empty}[one.kind](one.name, one.number), sys.stdout)
    else:
        main()
