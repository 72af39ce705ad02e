"""Measures the throughput of one, two and eight threads, compared with the peers in the same process.

Each thread makes its own needles and its own bound methods, and its loop has local variables only. Otherwise, on the
free-threaded build, objects that threads share besides the cache would dominate the figures. Values are immortal:
`True`, which a write does not replace by itself, or small ints that differ from the stored value, in rows that say so.
In rows with own keys, the values are those keys. Figures are millions of operations per second of all threads together,
from the start of the first to the end of the last. The second figure is the processor time of one operation. Other work
of the machine does not extend it, but cache lines that move between threads do.
"""

import dataclasses
import functools
import random
import threading
import time

import harness
import subjects as s
from harness import NEEDLES
from single_thread import zipf

from moka_py import Moka

THREADS = (1, 2, 8)
OWN_DICT = "a dict a thread, d[k]"
SHARED_DICT = "a shared dict, d[k]"
NOTHING = "no-op method"
OTHERS = " of other values"
LONG_LIVED = "moka_py long_lived"
BOUND = "moka_py, a bound method a thread"
# Names of the module, as programs have them. A variable of a closure takes a lock of its own, which hides the rest.
LONG_LIVED_CACHE = Moka(2 * NEEDLES, long_lived=True)
ORDINARY_CACHE = Moka(2 * NEEDLES)
# Operations of each thread in one round on the free-threaded build. The system may start two threads on one processor
# and separate them after some milliseconds. Rounds of 20 ms showed two evicting threads as 33 % too fast.
SIDE_BY_SIDE = 500_000
# Slow subjects make fewer operations by these factors, so that all take about the same time.
FEWER = {s.OF_PYPI: 10, s.CACHETOOLS: 15, s.THEINE: 60}
CACHES = (s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI, s.THEINE, s.CACHETOOLS)


def get_all(get, needles, laps):
    for _ in range(laps):
        for key in needles:
            get(key)


def get_all_of_ordinary_cache(needles, laps):
    for _ in range(laps):
        for key in needles:
            ORDINARY_CACHE.get(key)


def get_all_of_long_lived_cache(needles, laps):
    for _ in range(laps):
        for key in needles:
            LONG_LIVED_CACHE.get(key)


def get_all_by_subscript(table, needles, laps):
    for _ in range(laps):
        for key in needles:
            table[key]


def get_and_set(get, store, groups, values, laps):
    """For each group, gets all its keys and sets the last one."""
    for lap in range(laps):
        for group, value in zip(groups, values[lap % 2]):  # noqa: B905
            for key in group:
                get(key)
            store(key, value)


def set_by_turns(get, store, gets, sets, values, laps):
    for lap in range(laps):
        for wanted, stored, value in zip(gets, sets, values[lap % 2]):  # noqa: B905
            get(wanted)
            store(stored, value)


def one_value(_number, count):
    """Returns the values of the writes of two laps: always the same one."""
    return [[True] * count] * 2


def other_values(number, count):
    """Returns the values of the writes of two laps: different for each thread and lap."""
    return [[16 * number + 8 * lap + at % 7 for at in range(count)] for lap in range(2)]


def set_all(store, keys):
    for key in keys:
        store(key, True)


def throughput(prepare, threads, costs):
    """Returns the operations per microsecond of a number of threads.

    Each thread calls `prepare(number)`, which returns its work and the number of operations in it. The processor time
    of one operation, in nanoseconds, is appended to `costs`.
    """
    ready = threading.Barrier(threads)
    spans = [None] * threads
    failed = []

    def run(number):
        try:
            work, count = prepare(number)
            ready.wait()
            used, begin = time.thread_time_ns(), time.perf_counter_ns()
            work()
            spans[number] = (begin, time.perf_counter_ns(), time.thread_time_ns() - used, count)
        except BaseException as error:
            failed.append(error)
            ready.abort()

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    begins, ends, used, counts = zip(*spans, strict=True)
    costs.append(sum(used) / sum(counts))
    return 1000 * sum(counts) / (max(ends) - min(begins))


def own_keys(number):
    """Returns 1,000 keys that only this thread uses, as new objects in random order."""
    order = list(range(NEEDLES))
    random.Random(number).shuffle(order)
    begin = 10**6 + number * NEEDLES
    return [begin + key for key in order]


def measure(report, row, prepares, scale, base=s.OURS):
    costs = {(name, threads): [] for name in prepares for threads in THREADS}
    runs = {
        (name, threads): functools.partial(throughput, prepares[name], threads, costs[name, threads])
        for name, threads in costs
    }
    figures = harness.take_turns(runs, scale.rounds)
    # The warm-up round does not count.
    used = {run: harness.Figure.of(seen[-scale.rounds :]) for run, seen in costs.items()}
    for unit, kind, found in (("million a second", "", figures), ("ns", ", processor time of an operation", used)):
        for threads in THREADS:
            of_these = {name: found[name, threads] for name in prepares}
            report.add(f"{row}, {threads} thread{'s' * (threads > 1)}{kind}", of_these, unit)
        report.table(base)


def laps_of(scale, name, operations):
    """Returns the number of laps over that many operations."""
    return max(1, scale.per_thread // FEWER.get(name, 1) // operations)


def hits_of_own_keys(report, scale):
    laps = laps_of(scale, s.OURS, NEEDLES)
    table = {}

    def of_cache(name, cache, number):
        store, remove = cache.set, cache.remove
        # This thread makes all of these keys and values, including those that the cache stores.
        for key in sorted(own_keys(number)):
            if cache.is_hit(cache.get(key)):
                remove(key)
            store(key, key)
        get, needles, laps = bound(cache), own_keys(number), laps_of(scale, name, NEEDLES)
        return functools.partial(get_all, get, needles, laps), laps * NEEDLES

    def of_dict(make, number):
        own = make()
        for key in sorted(own_keys(number)):
            own.pop(key, None)
            own[key] = key
        return functools.partial(get_all_by_subscript, own, own_keys(number), laps), laps * NEEDLES

    def of_nothing(number):
        return functools.partial(get_all, ().count, own_keys(number), laps), laps * NEEDLES

    made = s.make(2 * scale.entries + 8 * NEEDLES, *CACHES)
    for subject in made.values():
        subject.fill(range(scale.entries))
    prepares = {name: functools.partial(of_cache, name, subject) for name, subject in made.items()}
    prepares[OWN_DICT] = functools.partial(of_dict, dict)
    prepares[SHARED_DICT] = functools.partial(of_dict, lambda: table)
    prepares[NOTHING] = of_nothing
    measure(report, "get, hit, keys of their own", prepares, scale)


def bound(subject, name="get"):
    """Returns a new bound method for the calling thread, if the method is one of the cache itself."""
    method = getattr(subject, name)
    owner = getattr(method, "__self__", None)
    return getattr(owner, method.__name__) if owner is not None else method


def one_hot_key(report, scale):

    def needles():
        return [int("1000000")] * NEEDLES

    def of_cache(name, subject, _number):
        laps = laps_of(scale, name, NEEDLES)
        return functools.partial(get_all, bound(subject), needles(), laps), laps * NEEDLES

    def of_dict(table, _number):
        laps = laps_of(scale, s.OURS, NEEDLES)
        return functools.partial(get_all_by_subscript, table, needles(), laps), laps * NEEDLES

    made = s.make(scale.entries, *CACHES)
    for subject in made.values():
        subject.set(10**6, True)
    prepares = {name: functools.partial(of_cache, name, subject) for name, subject in made.items()}
    prepares[SHARED_DICT] = functools.partial(of_dict, {10**6: True})
    measure(report, "get, one hot key", prepares, scale)


def one_cache_of_a_module(report, scale):
    laps = laps_of(scale, s.OURS, NEEDLES)
    for cache in (ORDINARY_CACHE, LONG_LIVED_CACHE):
        for key in range(NEEDLES):
            cache.set(10**6 + key, True)

    def prepare(work, _number):
        # New key objects for this thread.
        needles = [int(str(10**6 + key)) for key in range(NEEDLES)]
        return functools.partial(work, needles, laps), laps * NEEDLES

    def by_bound_method(needles, laps):
        get_all(ORDINARY_CACHE.get, needles, laps)

    works = {s.OURS: get_all_of_ordinary_cache, LONG_LIVED: get_all_of_long_lived_cache, BOUND: by_bound_method}
    prepares = {name: functools.partial(prepare, work) for name, work in works.items()}
    measure(report, "cache.get(key), one cache of a module", prepares, scale)


def mixed(report, scale):
    keys, count = scale.entries, min(scale.per_thread, 5_000)
    draws = zipf(keys, 8 * count)

    def mostly_gets(values, name, subject, number):
        laps = laps_of(scale, name, count)
        # New key objects for this thread.
        mine = [key + 10**6 - 10**6 for key in draws[number * count : (number + 1) * count]]
        groups = [mine[at : at + 19] for at in range(0, count, 19)]
        stored = values(number, len(groups))
        work = functools.partial(get_and_set, bound(subject), bound(subject, "set"), groups, stored, laps)
        return work, laps * (count + len(groups))

    def by_turns(values, name, subject, number):
        laps = laps_of(scale, name, count)
        begin = number * 7919
        gets = [(begin + step * 31) % keys for step in range(count // 2)]
        sets = [(begin + step * 37 + 5) % keys for step in range(count // 2)]
        stored = values(number, len(sets))
        work = functools.partial(set_by_turns, bound(subject), bound(subject, "set"), gets, sets, stored, laps)
        return work, laps * 2 * (count // 2)

    made = s.make(2 * keys, *CACHES)
    for subject in made.values():
        for key in range(keys):
            subject.set(key, True)
    for row, work in (("zipf 0.99, 95 % get, 5 % set", mostly_gets), ("half get, half set", by_turns)):
        for kind, values in (("", one_value), (OTHERS, other_values)):
            prepares = {name: functools.partial(work, values, name, subject) for name, subject in made.items()}
            measure(report, row + kind, prepares, scale)


def all_sets_evict(report, scale):
    turns = dict.fromkeys(CACHES, 0)
    made = s.make(scale.entries, *CACHES)
    for subject in made.values():
        subject.fill(range(scale.entries))

    def newcomers(name, subject, number):
        if number == 0:
            turns[name] += 1
        count = max(1, scale.per_thread // 4 // FEWER.get(name, 1))
        begin = (turns[name] + 1) * 10**9 + number * 10**7
        return functools.partial(set_all, bound(subject, "set"), list(range(begin, begin + count))), count

    prepares = {name: functools.partial(newcomers, name, subject) for name, subject in made.items()}
    measure(report, "set, all evict", prepares, scale)


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    if options.rounds is None and options.scale is harness.FULL:
        per_thread = SIDE_BY_SIDE if harness.FREE_THREADED else options.scale.per_thread
        options.scale = dataclasses.replace(options.scale, rounds=5, per_thread=per_thread)
    scale = options.scale
    report = harness.Report("threads", options)
    hits_of_own_keys(report, scale)
    one_hot_key(report, scale)
    one_cache_of_a_module(report, scale)
    mixed(report, scale)
    all_sets_evict(report, scale)
    report.close()


if __name__ == "__main__":
    main()
