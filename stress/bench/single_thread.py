"""Measures the cost of one operation in one thread, compared with the peers in the same process.

Needles are equal to the stored keys, but other objects: 1,000 of them over 10,000 entries and over 1,000,000. One row
reads each of the 1,000,000 once, in random order, so that the processor's caches do not hold them. The figures include
the loop. The empty loop and a method that does nothing have their own columns.
"""

import functools
import itertools
import random
import time

import harness
import subjects as s
from harness import NEEDLES, call_with_key, call_with_pair, loop_over, own_code

from moka_py import Moka, cached

KEYS = {
    "int": lambda number: number + 1_000_000,
    "str": lambda number: f"key {number}",
    "str of 200": lambda number: f"key {number}".ljust(200, "."),
    "tuple": lambda number: (number + 1_000_000, f"key {number}"),
}
SKEW = 0.99
# How many keys one call loads.
BULK = 100


def keys_and_needles(kind, entries, times=1):
    """Returns the stored keys, and needles in random order, `times` times, as other objects than the keys.

    In the order of the keys a dict would read its entries sequentially, which programs rarely do.
    """
    make, numbers = KEYS[kind], list(range(0, entries, max(1, entries // NEEDLES)))
    random.Random(entries).shuffle(numbers)
    return [make(number) for number in range(entries)], [make(number) for _ in range(times) for number in numbers]


def to_store(kind, scale):
    """Returns keys, needles and laps for writes. With two needles per key, each write finds another value object."""
    return *keys_and_needles(kind, scale.entries, times=2), max(1, scale.laps // 2)


def runs_of(loop, operations, needles, laps):
    return {name: functools.partial(own_code(loop), operation, needles, laps) for name, operation in operations.items()}


def floors(needles, laps, arguments=1):
    no_op, loop = (().count, call_with_key) if arguments == 1 else ({}.pop, call_with_pair)
    return {
        s.LOOP: functools.partial(own_code(loop_over), needles, laps),
        s.NO_OP: functools.partial(own_code(loop), no_op, needles, laps),
    }


def filled(entries, keys, *names, makers=s.MAKERS):
    """Makes filled subjects with spare capacity, and checks that each has all keys."""
    made = s.make(2 * entries, *names, makers=makers)
    for name, subject in made.items():
        subject.fill(keys)
        if not all(subject.is_hit(subject.get(key)) for key in keys):
            raise AssertionError(f"{name} lost a key that it has room for")
    return made


def gets(made):
    return {name: subject.get for name, subject in made.items()}


def sets(made):
    return {name: subject.set for name, subject in made.items() if subject.set}


def hits_and_sets(report, scale):
    for kind in KEYS:
        keys, twice, laps = to_store(kind, scale)
        needles = twice[: len(twice) // 2]
        made = filled(scale.entries, keys)
        runs = floors(needles, scale.laps) | runs_of(call_with_key, gets(made), needles, scale.laps)
        report.add(f"get, hit, {kind}", harness.take_turns(runs, scale.rounds))
        runs = floors(twice, laps, 2) | runs_of(call_with_pair, sets(made), twice, laps)
        present = harness.take_turns(runs, scale.rounds)
        if kind == "int":
            dice = random.Random(2)
            absent = [2**40 + dice.randrange(2**40) for _ in range(NEEDLES)]
            missing = {name: get for name, get in gets(made).items() if name != s.LRU_CACHE}
            runs = floors(absent, scale.laps) | runs_of(call_with_key, missing, absent, scale.laps)
            report.add("get, miss, int", harness.take_turns(runs, scale.rounds))
            subscripts(report, scale, made, twice, laps)
        report.add(f"set, present, {kind}", present)
    keys, needles = keys_and_needles("int", scale.entries)
    runs = runs_of(call_with_key, gets(filled(scale.entries, keys, makers=s.TIMED_MAKERS)), needles, scale.laps)
    report.add("get, hit, int, ttl and tti", harness.take_turns(runs, scale.rounds))


def get_by_subscript(cache, needles, laps):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            cache[key]
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def set_by_subscript(cache, needles, laps):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            cache[key] = key
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def subscripts(report, scale, made, needles, laps):
    caches = {name: made[name].cache for name in (s.DICT, s.OURS, s.OURS_LRU, s.CACHEBOX, s.LRU_DICT) if name in made}
    for row, loop in (("cache[key], hit, int", get_by_subscript), ("cache[key] = value, int", set_by_subscript)):
        report.add(row, harness.take_turns(runs_of(loop, caches, needles, laps), scale.rounds))


def a_million(report, scale):
    keys, needles = keys_and_needles("int", scale.large)
    everywhere = [key + 0 for key in keys]
    dice = random.Random(1)
    dice.shuffle(everywhere)
    # The needles are made in this order, so that they themselves lie in memory sequentially.
    everywhere = [key + 1 - 1 for key in everywhere]
    piece = max(1, min(len(everywhere) // 50, 10_000))
    pieces = [everywhere[at : at + piece] for at in range(0, len(everywhere), piece)]
    names = (s.DICT, s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI, s.CACHETOOLS, s.LRU_DICT)
    made = filled(scale.large, keys, *names)
    about = f"{scale.large:,} entries"
    runs = floors(needles, scale.laps) | runs_of(call_with_key, gets(made), needles, scale.laps)
    report.add(f"get, hit, int, {about}, 1,000 needles", harness.take_turns(runs, scale.rounds))

    class Everywhere:
        """A run that takes another part of the keys in each round."""

        def __init__(self, operation):
            self.loop, self.operation, self.next = own_code(call_with_key), operation, itertools.cycle(pieces)

        def __call__(self):
            return self.loop(self.operation, next(self.next), 1)

    runs = {s.NO_OP: Everywhere(().count)} | {name: Everywhere(get) for name, get in gets(made).items()}
    report.add(f"get, hit, int, {about}, random", harness.take_turns(runs, scale.rounds))


class Newcomers:
    """A round of a loop with keys that were never in the cache."""

    def __init__(self, loop, operation, count, *more):
        self.loop, self.operation, self.more = own_code(loop), operation, more
        self.count, self.next = count, 10**9

    def __call__(self):
        keys = range(self.next, self.next + self.count)
        self.next = keys.stop
        return self.loop(self.operation, keys, 1, *self.more)


def evicting(report, scale):
    count = NEEDLES * scale.laps

    def measure(row, made, first=()):
        runs = {name: Newcomers(call_with_pair, subject.set, count) for name, subject in made.items()}
        report.add(row, harness.take_turns(dict(first) | runs, scale.rounds))

    bounded = [name for name in s.MAKERS if name not in (s.DICT, s.LRU_CACHE)]
    full = {name: subject.fill(range(scale.entries)) for name, subject in s.make(scale.entries, *bounded).items()}
    measure("set, evicts, int", full, {s.NO_OP: Newcomers(call_with_pair, {}.pop, count)})
    full = s.make(scale.entries, makers=LISTENED)
    for subject in full.values():
        subject.fill(range(scale.entries))
    measure("set, evicts, int, listener", full)
    runs = {
        name: Newcomers(call_with_key, subject.get, count)
        for name, subject in s.make(scale.entries, s.LRU_CACHE).items()
    }
    report.add("call, evicts, int", harness.take_turns(runs, scale.rounds))


def hear(key, value, cause=None):
    pass


def weigh(key, value):
    return 1


LISTENED = {
    s.OURS: functools.partial(s.ours, eviction_listener=hear),
    s.OURS_LRU: functools.partial(s.ours, eviction_listener=hear, policy="lru"),
    s.OF_PYPI: functools.partial(s.moka_of_pypi, eviction_listener=hear),
    s.LRU_DICT: functools.partial(s.of_lru_dict, callback=hear),
}
WEIGHED = {
    s.OURS: functools.partial(s.ours, weigher=weigh),
    s.CACHEBOX: functools.partial(s.of_cachebox, getsizeof=weigh),
    s.OF_PYPI: functools.partial(s.moka_of_pypi, weigher=weigh),
}
VARIABLE = {
    s.OURS: s.ours,
    "cachebox VTTL": functools.partial(s.of_cachebox, name="VTTLCache"),
    s.OF_PYPI: s.moka_of_pypi,
    s.THEINE: s.of_theine,
}


def set_with_ttl(store, needles, laps, ttl):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            store(key, key, ttl=ttl)
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def set_with_ttl_by_place(store, needles, laps, ttl):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            store(key, key, ttl)
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def remove_and_set(pair, needles, laps):
    remove, store = pair
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            remove(key)
            store(key, key)
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def other_sets(report, scale):
    keys, needles, laps = to_store("int", scale)
    made = filled(scale.entries, keys, makers=WEIGHED)
    runs = runs_of(call_with_pair, sets(made), needles, laps)
    report.add("set, present, int, weigher", harness.take_turns(runs, scale.rounds))

    made = filled(scale.entries, keys, makers=VARIABLE)
    ttls = dict.fromkeys(made, float(s.LATER)) | {s.THEINE: s.datetime.timedelta(seconds=s.LATER)}
    plain = sets(filled(scale.entries, keys, s.OURS))[s.OURS]
    for how, call in (("", set_with_ttl), (" by place", set_with_ttl_by_place)):
        runs = runs_of(call_with_pair, {"moka_py without": plain}, needles, laps)
        for name, subject in made.items():
            runs[name] = functools.partial(own_code(call), subject.set, needles, laps, ttls[name])
        report.add(f"set, present, int, ttl of its own{how}", harness.take_turns(runs, scale.rounds))

    names = [name for name in s.MAKERS if name not in (s.LRU_CACHE, s.OURS_TIMED)]
    made = filled(scale.entries, keys, *names)
    pairs = {name: (subject.remove, subject.set) for name, subject in made.items()}
    runs = runs_of(remove_and_set, pairs, needles, laps)
    report.add("remove and set again, int", harness.take_turns(runs, scale.rounds))


def call_with_function(operation, needles, laps, function):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            operation(key, function)
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def compute():
    return 1


def get_with(report, scale):
    keys, needles = keys_and_needles("int", scale.entries)
    names = (s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI)
    made = {name: subject for name, subject in filled(scale.entries, keys, *names).items() if subject.get_with}
    # A cache of its own, so that each subject finds the processor's caches as the one before it left them.
    plain = filled(scale.entries, keys, s.OURS)[s.OURS].get
    runs = {"moka_py get": functools.partial(own_code(call_with_key), plain, needles, scale.laps)}
    for name, subject in made.items():
        runs[name] = functools.partial(own_code(call_with_function), subject.get_with, needles, scale.laps, compute)
    report.add("get_with, hit, int", harness.take_turns(runs, scale.rounds))

    full = {name: s.MAKERS[name](scale.entries).fill(range(scale.entries)) for name in made}
    runs = {
        name: Newcomers(call_with_function, subject.get_with, NEEDLES * scale.laps, compute)
        for name, subject in full.items()
    }
    report.add("get_with, miss that evicts, int", harness.take_turns(runs, scale.rounds))


def load_many(get_many_with, keys, laps, load):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for at in range(0, len(keys), BULK):
            get_many_with(keys[at : at + BULK], load)
    return (time.thread_time_ns() - begin) / (laps * len(keys))


def loads_of_many_keys(report, scale):
    """The cost of a key. `dict.fromkeys` is the load, so little of the cost is that of the user's function."""
    full = [s.ours(scale.entries).fill(range(scale.entries)) for _ in range(3)]
    count = NEEDLES * scale.laps
    runs = {
        s.OURS: Newcomers(load_many, full[0].cache.get_many_with, count, dict.fromkeys),
        "moka_py set": Newcomers(call_with_pair, full[1].set, count),
        "moka_py get_with": Newcomers(call_with_function, full[2].get_with, count, compute),
    }
    report.add(f"get_many_with, {BULK} misses that evict, int", harness.take_turns(runs, scale.rounds))


def refreshing(report, scale):
    """Measures hits of calls with a loader in a cache with `refresh`, none of which is due."""
    keys, needles = keys_and_needles("int", scale.entries)
    options = {"plain": {}, "refresh": {"refresh": s.LATER / 2}, "ttl": {"ttl": s.LATER}}
    options["ttl and refresh"] = options["refresh"] | options["ttl"]
    runs = {}
    for name, more in options.items():
        cache = Moka(2 * scale.entries, **more)
        function = cached(2 * scale.entries, **more)(int)
        for key in keys:
            cache[key] = key
            function(key)
        get_with = functools.partial(own_code(call_with_function), cache.get_with, needles, scale.laps, compute)
        runs[f"get_with, {name}"] = get_with
        runs[f"call, {name}"] = functools.partial(own_code(call_with_key), function, needles, scale.laps)
    report.add("hit of a call with a loader, int", harness.take_turns(runs, scale.rounds))


def increment(value):
    return value + 1


def look_and_touch(report, scale):
    keys, needles = keys_and_needles("int", scale.entries)
    subject, plain = (filled(scale.entries, keys, s.OURS)[s.OURS] for _ in range(2))
    timed = filled(scale.entries, keys, s.OURS_TIMED)[s.OURS_TIMED]
    get = {"moka_py get": plain.get}
    runs = runs_of(call_with_key, get | {s.OURS: subject.cache.peek}, needles, scale.laps)
    report.add("peek, hit, int", harness.take_turns(runs, scale.rounds))
    touches = get | {s.OURS: subject.cache.touch, s.OURS_TIMED: timed.cache.touch}
    report.add(
        "touch, hit, int", harness.take_turns(runs_of(call_with_key, touches, needles, scale.laps), scale.rounds)
    )
    runs = {"moka_py set": functools.partial(own_code(call_with_pair), plain.set, needles, scale.laps)}
    for name, operation in ((s.OURS, subject.cache.set_with), (s.OURS_TIMED, timed.cache.set_with)):
        runs[name] = functools.partial(own_code(call_with_function), operation, needles, scale.laps, increment)
    report.add("set_with, present, int", harness.take_turns(runs, scale.rounds))


def zipf(keys, count, seed=7):
    """Draws keys by Zipf's law, each as a new object."""
    weights = itertools.accumulate((rank + 1) ** -SKEW for rank in range(keys))
    places = list(range(keys))
    dice = random.Random(seed)
    dice.shuffle(places)
    return [place + 0 for place in dice.choices(places, cum_weights=list(weights), k=count)]


def read_through(subject, keys):
    get, store = subject.get, subject.set
    misses = 0
    begin = time.thread_time_ns()
    for key in keys:
        if get(key) is None:
            misses += 1
            store(key, key)
    return (time.thread_time_ns() - begin) / len(keys), misses


def read_through_theine(subject, keys):
    get, store = subject.get, subject.set
    misses = 0
    begin = time.thread_time_ns()
    for key in keys:
        if not get(key)[1]:
            misses += 1
            store(key, key)
    return (time.thread_time_ns() - begin) / len(keys), misses


def reading_through(report, scale):
    capacity = scale.large // 10
    names = (s.OURS, s.OURS_LRU, s.CACHEBOX, s.OF_PYPI, s.THEINE, s.CACHETOOLS, s.LRU_DICT)
    made = s.make(capacity, *names)
    draws = zipf(scale.large, 2 * scale.large)
    warm, measured = draws[: scale.large], draws[scale.large :]
    loops = {name: own_code(read_through_theine if name == s.THEINE else read_through) for name in made}
    costs = {name: [] for name in made}
    misses = dict.fromkeys(made, 0)
    for name, subject in made.items():
        misses[name] += loops[name](subject, warm)[1]
    cold = dict(misses)
    piece = max(1, len(measured) // scale.rounds)
    for at in range(0, len(measured), piece):
        for name, subject in made.items():
            cost, missed = loops[name](subject, measured[at : at + piece])
            costs[name].append(cost)
            misses[name] += missed
    report.add("read-through, zipf 0.99", {name: harness.Figure.of(seen) for name, seen in costs.items()})
    report.table("cachebox LRU")
    ratios = {name: 100 - 100 * (misses[name] - cold[name]) / len(measured) for name in made}
    report.add("read-through, zipf 0.99: hits once it is full", ratios, "percent")
    ratios = {name: 100 - 100 * misses[name] / len(draws) for name in made}
    report.add("read-through, zipf 0.99: hits from empty on", ratios, "percent")
    report.table()


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("single thread", options)
    hits_and_sets(report, options.scale)
    a_million(report, options.scale)
    report.table(s.DICT)
    evicting(report, options.scale)
    other_sets(report, options.scale)
    get_with(report, options.scale)
    refreshing(report, options.scale)
    report.table(s.CACHEBOX)
    look_and_touch(report, options.scale)
    loads_of_many_keys(report, options.scale)
    report.table()
    reading_through(report, options.scale)
    report.close()


if __name__ == "__main__":
    main()
