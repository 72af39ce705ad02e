"""Replays real traces through one cache from several threads, and prints a table of counts.

Each thread has its own part of the trace. It gets every object, and loads and sets an absent one. It also sets every
50th object again, like a program that changes it.
"""

import array
import json
import lzma
import platform
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from moka_py import Moka

TRACES = ("sprite", "web12", "orm-busy")
DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
# The approximate number of accesses for each trace. Short traces are repeated, so that they last long enough.
ACCESSES = 1_000_000
THREADS = (1, 4)
# A short duration, so that entries expire during the run.
TTL = 0.05
WRITE_EACH = 50

# The columns with their widths.
COLUMNS = {
    "trace": -8,
    "capacity": 8,
    "threads": 7,
    "hit ratio": 9,
    "million ops/s": 13,
    "sets": 9,
    "evicted": 9,
    "expired": 9,
    "replaced": 9,
    "remaining": 9,
}


class RemovalCounts(threading.local):
    """Counts removals by cause. Each thread has its own counts, so that no thread waits for another."""

    def __init__(self, of_all_threads):
        self.causes = Counter()
        of_all_threads.append(self.causes)

    def listener(self, key, value, cause):
        self.causes[cause] += 1


def load(key):
    """Stands for a query of a database."""
    return f"object {key}"


def replay(cache, stretch, start):
    """Replays the part of one thread. Returns the numbers of hits and of sets."""
    # The thread makes its own key objects, as in a program where each thread works on its own requests.
    keys = stretch.tolist()
    hits = sets = 0
    get, put = cache.get, cache.set
    start.wait()
    for first in range(0, len(keys), WRITE_EACH):
        for key in keys[first : first + WRITE_EACH]:
            if get(key) is not None:
                hits += 1
            else:
                put(key, load(key))
                sets += 1
        put(key, load(key))
        sets += 1
    return hits, sets


def run(ids, capacity, threads):
    """Replays all ids with a number of threads. Returns the figures of a row."""
    by_thread = []
    cache = Moka(capacity, ttl=TTL, eviction_listener=RemovalCounts(by_thread).listener)
    length = -(-len(ids) // threads)
    stretches = [ids[first : first + length] for first in range(0, len(ids), length)]
    start = threading.Barrier(threads + 1)
    results = []
    workers = [
        threading.Thread(target=lambda stretch=stretch: results.append(replay(cache, stretch, start)))
        for stretch in stretches
    ]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if len(results) != threads:
        raise SystemExit("a thread failed")

    hits, sets = map(sum, zip(*results, strict=True))
    remaining = len(cache)
    causes = sum(by_thread, Counter())
    if sets != causes.total() + remaining:
        raise SystemExit(f"{sets} entries were set, but {causes.total()} were removed and {remaining} remain")
    return (
        f"{hits / len(ids):.1%}",
        f"{(len(ids) + sets) / seconds / 1e6:.2f}",
        f"{sets:,}",
        *(f"{causes[cause]:,}" for cause in ("size", "expired", "replaced")),
        f"{remaining:,}",
    )


def print_row(cells):
    columns = (
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}"
        for width, cell in zip(COLUMNS.values(), cells, strict=True)
    )
    print("  ".join(columns), flush=True)


def main():
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{platform.python_implementation()} {platform.python_version()}, GIL {'on' if gil else 'off'}")
    print_row(COLUMNS)
    traces = {trace["name"]: trace for trace in json.loads((DATA / "traces.json").read_text())}
    for trace in map(traces.get, TRACES):
        ids = array.array("I", lzma.decompress((DATA / trace["file"]).read_bytes()))
        if sys.byteorder == "big":
            ids.byteswap()
        ids *= -(-ACCESSES // len(ids))
        capacity = trace["sizes"][-1]
        for threads in THREADS:
            print_row((trace["name"], f"{capacity:,}", threads, *run(ids, capacity, threads)))


main()
