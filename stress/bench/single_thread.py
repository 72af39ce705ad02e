"""What one operation costs, in one thread, beside its peers in the same process.

The subjects take turns in rounds, and the table shows medians, so that what else the machine does falls on all alike.
Needles are equal to the stored keys and other objects, a thousand of them over ten thousand entries. All
figures include the loop, which has a row of its own. Peers that are not installed are left out.
"""

import argparse
import statistics
import sys
import sysconfig
import time

from moka_py import Moka

try:
    import cachebox
except ImportError:
    cachebox = None

ENTRIES = 10_000
NEEDLES = 1_000
LAPS = 20


def keys_of(kind):
    """The stored keys and the needles, which share no object."""
    make = {
        "str": lambda number: f"key {number}",
        "int": lambda number: number + 1_000_000,
        "tuple": lambda number: (number, f"key {number}"),
    }[kind]
    step = ENTRIES // NEEDLES
    return [make(number) for number in range(ENTRIES)], [make(number) for number in range(0, ENTRIES, step)]


def filled(cache, keys):
    for key in keys:
        cache[key] = key
    return cache


def cost(operation, needles):
    """Nanoseconds a call of `operation(key)`."""
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for key in needles:
            operation(key)
    return (time.perf_counter_ns() - begin) / (LAPS * len(needles))


def cost_of_storing(operation, needles):
    """Nanoseconds a call of `operation(key, value)`."""
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for key in needles:
            operation(key, None)
    return (time.perf_counter_ns() - begin) / (LAPS * len(needles))


def cost_of_loop(needles):
    begin = time.perf_counter_ns()
    for _ in range(LAPS):
        for _key in needles:
            pass
    return (time.perf_counter_ns() - begin) / (LAPS * len(needles))


class Evicting:
    """Stores keys that were never there before, into a full cache."""

    def __init__(self, store):
        self.store = store
        self.next = 10**9

    def __call__(self):
        keys = range(self.next, self.next + LAPS * NEEDLES)
        self.next = keys.stop
        store = self.store
        begin = time.perf_counter_ns()
        for key in keys:
            store(key, None)
        return (time.perf_counter_ns() - begin) / len(keys)


def subjects(kind):
    """Rows of operation and subject, each with what measures one round of it."""
    keys, needles = keys_of(kind)
    caches = {
        "moka_py tiny_lfu": Moka(ENTRIES + 1),
        "moka_py lru": Moka(ENTRIES + 1, policy="lru"),
        "moka_py ttl, tti": Moka(ENTRIES + 1, ttl=1000, tti=1000),
    }
    gets = {name: filled(cache, keys).get for name, cache in caches.items()}
    sets = {name: cache.set for name, cache in caches.items()}
    table = filled({}, keys)
    gets["dict"], sets["dict"] = table.get, table.__setitem__
    if cachebox:
        peer = filled(cachebox.LRUCache(ENTRIES + 1), keys)
        gets["cachebox LRUCache"], sets["cachebox LRUCache"] = peer.get, peer.insert
        timed = filled(cachebox.TTLCache(ENTRIES + 1, 1000), keys)
        gets["cachebox TTLCache"] = timed.get
    yield "loop", "", lambda: cost_of_loop(needles)
    for name, get in gets.items():
        yield "get, a hit", name, lambda get=get: cost(get, needles)
    for name, store in sets.items():
        yield "set, present", name, lambda store=store: cost_of_storing(store, needles)
    if kind == "int":
        full = {"moka_py tiny_lfu": Moka(ENTRIES).set, "moka_py lru": Moka(ENTRIES, policy="lru").set}
        if cachebox:
            full["cachebox LRUCache"] = cachebox.LRUCache(ENTRIES).insert
        for name, store in full.items():
            yield "set, evicts", name, Evicting(store)


def measure(kind, rounds):
    rows = [(operation, name, run, []) for operation, name, run in subjects(kind)]
    for _ in range(rounds):
        for _, _, run, costs in rows:
            costs.append(run())
    medians = {(operation, name): statistics.median(costs) for operation, name, _, costs in rows}
    for (operation, name), median in medians.items():
        peers = ("dict",) if operation == "get, a hit" else ("cachebox LRUCache",)
        bases = [medians.get((operation, peer)) for peer in peers]
        ratio = f"{median / bases[0]:5.2f} x {peers[0]}" if bases[0] else ""
        print(f"{kind:6} {operation:13} {name:18} {median:7.1f} ns  {ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="how often each subject has its turn (default: 25)")
    rounds = parser.parse_args().rounds
    gil = "off" if sysconfig.get_config_var("Py_GIL_DISABLED") else "on"
    print(f"CPython {sys.version.split()[0]}, GIL {gil}, medians of {rounds} rounds, loop included")
    for kind in ("str", "int", "tuple"):
        measure(kind, rounds)


if __name__ == "__main__":
    main()
