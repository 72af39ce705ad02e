"""Measures the longest waits: tail latencies.

It measures reads beside a writer, writes while a table grows, calls that meet a million expired entries, reads during
the clear of a million entries, writes while the capacity is halved, and a thousand threads that load one key.

On a busy machine a single call may be stopped for milliseconds. So the work of a call counts as processor time of the
thread, and a wait counts as the best of several tries. A method that does nothing is measured beside the same writer,
to show the share of the machine.
"""

import functools
import gc
import threading
import time

import harness
import subjects as s
from harness import NEEDLES

TRIES = 3
COMPUTATION = 0.5
NO_OP = "no-op method"


def timed_reads(get, needles, stop_after):
    """Returns the nanoseconds of each call. `stop_after` is a number of calls, or a function that says when to stop."""
    clock, costs = time.perf_counter_ns, []
    append = costs.append
    is_over = stop_after if callable(stop_after) else lambda: len(costs) >= stop_after
    while not is_over():
        for key in needles:
            begin = clock()
            get(key)
            append(clock() - begin)
    return costs


def at(costs, part):
    return sorted(costs)[min(len(costs) - 1, int(len(costs) * part))]


class Writer:
    """A thread that sets new keys in a full cache during a `with` block."""

    def __init__(self, store):
        self.store, self.is_over = store, False
        self.thread = threading.Thread(target=self.write)

    def write(self):
        store = self.store
        begin = 10**9
        while not self.is_over:
            for key in range(begin, begin + 1_000):
                store(key, True)
            begin += 1_000

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_error):
        self.is_over = True
        self.thread.join()


def reads_beside_a_writer(report, scale):
    names = (s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI, s.CACHETOOLS)
    count = max(2_000, scale.large // 5)
    tails = {}
    for _ in range(TRIES if scale.large > 1_000 else 1):
        made = {name: subject.fill(range(scale.entries)) for name, subject in s.make(scale.entries, *names).items()}
        gets = {name: subject.get for name, subject in made.items()}
        for name, get in gets.items():
            needles = list(range(scale.entries - NEEDLES, scale.entries))
            with Writer(made[name].set):
                costs = timed_reads(get, needles, count)
            tails.setdefault(name, []).append(costs)
        with Writer(made[s.OURS].set):
            tails.setdefault(NO_OP, []).append(timed_reads(().count, needles, count))
    for part, name_of_part in ((0.5, "median"), (0.99, "p99"), (0.999, "p99.9")):
        figures = {name: min(at(costs, part) for costs in tries) for name, tries in tails.items()}
        report.add(f"get beside a writer, {name_of_part}", figures)
    figures = {name: min(at(costs, 0.999) / at(costs, 0.5) for costs in tries) for name, tries in tails.items()}
    report.add("get beside a writer, p99.9 over median", figures, "times")
    report.table()


def longest(operation, keys):
    """Returns the longest call in microseconds, by the processor time of the thread and by the wall clock."""
    cpu, wall = time.thread_time_ns, time.perf_counter_ns
    worst, slowest = 0, 0
    began, begun = cpu(), wall()
    for key in keys:
        operation(key)
        ended, over = cpu(), wall()
        if ended - began > worst:
            worst = ended - began
        if over - begun > slowest:
            slowest = over - begun
        began, begun = ended, over
    return worst / 1000, slowest / 1000


def best_of(tries, attempt):
    """Returns the smallest value of each figure over several tries."""
    return [min(figures) for figures in zip(*(attempt() for _ in range(tries)), strict=True)]


def add_longest(report, row, figures):
    for position, kind in ((0, "processor time"), (1, "wall clock")):
        report.add(f"{row}, {kind}", {name: found[position] for name, found in figures.items()}, "microseconds")


def growing(report, scale):
    makers = {
        s.OURS: s.ours,
        s.OURS_LRU: functools.partial(s.ours, policy="lru"),
        s.DICT: s.plain_dict,
        s.CACHEBOX: s.of_cachebox,
        s.OF_PYPI: s.moka_of_pypi,
    }
    keys = list(range(10**6, 10**6 + scale.large))
    figures = {}
    for name, maker in makers.items():

        def attempt(maker=maker):
            store = maker(2 * scale.large).set
            return longest(lambda key: store(key, key), keys)

        if maker(1) is not None:
            figures[name] = best_of(2, attempt)
    add_longest(report, f"longest set while {scale.large:,} entries come", figures)


def due_at_once(report, scale):
    """Makes calls on other keys when a million entries have expired at the same time."""
    figures, counted = {}, {}
    for policy in ("tiny_lfu", "lru"):
        name = s.OURS if policy == "tiny_lfu" else s.OURS_LRU
        subject = s.ours(2 * scale.large, policy=policy, ttl=0.5 + 3e-6 * scale.large)
        subject.fill(range(scale.large))
        while subject.cache.expires_in(scale.large - 1) is not None:
            time.sleep(0.05)
        keys = list(range(-scale.entries, 0))
        gets = longest(subject.get, keys)
        sets = longest(lambda key, store=subject.set: store(key, key), keys)
        figures[name] = [max(pair) for pair in zip(gets, sets, strict=True)]
        begin = time.thread_time_ns()
        subject.cache.count()
        counted[name] = (time.thread_time_ns() - begin) / 1000
    add_longest(report, f"longest get or set with {scale.large:,} entries due", figures)
    report.add(f"count() right after, of {scale.large:,} due", counted, "microseconds")


def clearing(report, scale):
    """Clears many entries while another thread makes gets. Measures both, and counts the gets."""
    took, waits, through = {}, {}, {}
    for name in (s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI):
        subject = s.MAKERS[name](2 * scale.large)
        if subject is None:
            continue
        subject.fill(range(scale.large))
        gc.collect()
        begun, is_over, costs = threading.Event(), [False], []

        def read(get=subject.get, begun=begun, is_over=is_over, costs=costs):
            timed_reads(get, range(100), 200)
            begun.set()
            costs += timed_reads(get, range(100), lambda: is_over[0])

        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        begin = time.perf_counter_ns()
        subject.cache.clear()
        took[name] = (time.perf_counter_ns() - begin) / 1000
        is_over[0] = True
        reader.join()
        waits[name], through[name] = max(costs, default=0) / 1000, len(costs)
    report.add(f"clear() of {scale.large:,}", took, "microseconds")
    report.add(f"clear() of {scale.large:,}: longest get of another thread", waits, "microseconds")
    report.add(f"clear() of {scale.large:,}: gets of another thread meanwhile", through, "count")


def resizing(report, scale):
    """Halves the capacity of a full cache while another thread makes sets. Measures both."""
    took, waits = {}, {}
    for name in (s.OURS, s.OURS_LRU):
        subject = s.MAKERS[name](scale.large).fill(range(scale.large))
        gc.collect()
        begun, is_over, costs = threading.Event(), [False], []

        def write(store=subject.set, begun=begun, is_over=is_over, costs=costs):
            clock = time.perf_counter_ns
            begun.set()
            key = scale.large
            while not is_over[0]:
                begin = clock()
                store(key, key)
                costs.append(clock() - begin)
                key += 1

        writer = threading.Thread(target=write)
        writer.start()
        begun.wait()
        begin = time.perf_counter_ns()
        subject.cache.resize(scale.large // 2)
        took[name] = (time.perf_counter_ns() - begin) / 1000
        is_over[0] = True
        writer.join()
        waits[name] = max(costs, default=0) / 1000
    report.add(f"resize() of {scale.large:,} to half", took, "microseconds")
    report.add(f"resize() of {scale.large:,} to half: longest set of another thread", waits, "microseconds")


def stampede(report, scale):
    """Measures the time from the first call to the last return, and counts the computations."""
    extra, runs = {}, {}
    computation = COMPUTATION if scale.large > 1_000 else 0.02
    for name in (s.OURS, s.OF_PYPI):
        subject = s.MAKERS[name](1_000)
        if subject is None:
            continue
        computed, spans = [], [None] * scale.stampede
        ready = threading.Barrier(scale.stampede)

        def compute(computed=computed):
            computed.append(True)
            time.sleep(computation)
            return True

        def ask(number, get_with=subject.get_with, compute=compute, ready=ready, spans=spans):
            ready.wait()
            begin = time.perf_counter_ns()
            get_with("key", compute)
            spans[number] = (begin, time.perf_counter_ns())
            # On CPython 3.13t the end of a thread takes longer than its call, and the other threads would wait for it.
            ready.wait()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(scale.stampede)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = max(end for _, end in spans) - min(begin for begin, _ in spans)
        extra[name], runs[name] = wall / 1e6, len(computed)
    row = f"{scale.stampede:,} threads, get_with of one key, computed in {1000 * computation:.0f} ms"
    report.add(f"{row}: all served after", extra, "milliseconds")
    report.add(f"{row}: computations", runs, "count")


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("tail", options)
    reads_beside_a_writer(report, options.scale)
    growing(report, options.scale)
    due_at_once(report, options.scale)
    clearing(report, options.scale)
    resizing(report, options.scale)
    stampede(report, options.scale)
    report.table()
    report.close()


if __name__ == "__main__":
    main()
