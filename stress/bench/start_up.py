"""Measures the import of the package, each time in a new process, and the time to make and drop a cache."""

import functools
import subprocess
import sys
import time

import harness
import subjects as s

PACKAGES = {
    "nothing": "sys",
    s.OURS: "moka_py",
    s.OF_PYPI: "moka_py_of_pypi",
    "cachebox": "cachebox",
    s.THEINE: "theine",
    "cachetools": "cachetools",
    s.LRU_DICT: "lru",
    "functools": "functools",
    "async-lru": "async_lru",
}
IMPORT = """
import time
begin = time.thread_time_ns()
import {}
print(time.thread_time_ns() - begin)
"""


def time_to_import(package):
    flags = ["-X", "gil=0"] if harness.FREE_THREADED else []
    run = [sys.executable, *flags, "-P", "-c", IMPORT.format(package)]
    return int(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1e6


def make_and_drop(make, times):
    begin = time.thread_time_ns()
    for _ in range(times):
        make()
    return (time.thread_time_ns() - begin) / times


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("start-up", options)
    there = {name: package for name, package in PACKAGES.items() if harness.peer(package)}
    runs = {name: functools.partial(time_to_import, package) for name, package in there.items()}
    report.add("import, in a fresh process", harness.take_turns(runs, options.scale.processes), "milliseconds")
    report.table()

    makers = {
        s.DICT: dict,
        s.OURS: functools.partial(s.Moka, 1_000),
        s.OURS_LRU: functools.partial(s.Moka, 1_000, policy="lru"),
        s.OURS_TIMED: functools.partial(s.Moka, 1_000, ttl=60, tti=60),
    }
    if s.cachebox:
        makers[s.CACHEBOX] = functools.partial(s.cachebox.LRUCache, 1_000)
    if s.of_pypi:
        makers[s.OF_PYPI] = functools.partial(s.of_pypi.Moka, 1_000)
    if s.lru:
        makers[s.LRU_DICT] = functools.partial(s.lru.LRU, 1_000)
    if s.cachetools:
        makers["cachetools"] = functools.partial(s.cachetools.LRUCache, 1_000)
    times = 100 * options.scale.laps
    runs = {name: functools.partial(harness.own_code(make_and_drop), make, times) for name, make in makers.items()}
    report.add("a cache of capacity 1,000 made and dropped", harness.take_turns(runs, options.scale.rounds))
    report.table(s.OURS)
    report.close()


if __name__ == "__main__":
    main()
