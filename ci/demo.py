"""Replays real traces through one cache from several threads, and prints a table of what happened.

Each thread has a stretch of the trace for itself. It asks for every object, loads one that is not there and sets it,
and sets each 50th anew whether it is there or not, as a program does that changes it.
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
# About as many accesses for each trace, so that short ones last long enough to measure.
ACCESSES = 1_000_000
THREADS = (1, 4)
# Short beside the run, so that something expires.
TTL = 0.05
WRITE_EACH = 50

# Each with the width of its column.
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
    "left": 6,
}


class Leavings(threading.local):
    """Counts the causes by which entries leave, in each thread for itself, so that no thread waits for another."""

    def __init__(self, of_all_threads):
        self.causes = Counter()
        of_all_threads.append(self.causes)

    def listener(self, key, value, cause):
        self.causes[cause] += 1


def load(key):
    """Stands for the database."""
    return f"object {key}"


def replay(cache, stretch, start):
    """One thread's part; returns how many accesses were hits and how many sets there were."""
    # The thread's own objects, as in a program where each thread works on its own requests.
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
    """Replays all ids with so many threads; returns the figures of a row."""
    by_thread = []
    cache = Moka(capacity, ttl=TTL, eviction_listener=Leavings(by_thread).listener)
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
    left = len(cache)
    causes = sum(by_thread, Counter())
    if sets != causes.total() + left:
        raise SystemExit(f"{sets} entries were set, but {causes.total()} have left and {left} are there")
    return (
        f"{hits / len(ids):.1%}",
        f"{(len(ids) + sets) / seconds / 1e6:.2f}",
        f"{sets:,}",
        *(f"{causes[cause]:,}" for cause in ("size", "expired", "replaced")),
        f"{left:,}",
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
