"""What the benchmarks share: rounds in which all subjects take turns, and the tables of their medians."""

import argparse
import statistics
import sys
import sysconfig
import threading
import time

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def peer(name):
    """A package to compare with, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def rounds_asked(doc, default=25):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=default, help="how often each subject has its turn")
    rounds = parser.parse_args().rounds
    gil = "off" if FREE_THREADED else "on"
    print(f"CPython {sys.version.split()[0]}, GIL {gil}, medians of {rounds} rounds, loop included\n")
    return rounds


def medians(runs, rounds):
    """The median of what each of `runs`, a dict of callables, returns in rounds; what disturbs one disturbs all."""
    seen = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seen[name].append(run())
    return {name: statistics.median(costs) for name, costs in seen.items()}


def table(title, subjects, rows, base, unit="ns"):
    """Prints `rows`, a dict of operation to a dict of subject to figure, with the ratio to the base in brackets."""
    print(f"| {title} ({unit}) | " + " | ".join(subjects) + " |")
    print("|---|" + "--:|" * len(subjects))
    for operation, figures in rows.items():
        cells = []
        for subject in subjects:
            figure, against = figures.get(subject), figures.get(base)
            ratio = f" ({figure / against:.2f})" if figure and against and subject != base else ""
            cells.append(f"{figure:,.1f}{ratio}" if figure else "")
        print(f"| {operation} | " + " | ".join(cells) + " |")
    print(flush=True)


def million_a_second(work, threads):
    """Throughput of `work(number)`, run at once in so many threads; it returns how many operations it did."""
    barrier = threading.Barrier(threads + 1)
    done = [0] * threads

    def run(number):
        barrier.wait()
        done[number] = work(number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - begin) / 1e6
