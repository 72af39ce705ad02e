"""Measures the backends for Django and dogpile.cache, compared with those of the frameworks and with theine's adapter.

Django's backends are called directly. Keys and values are short strs. `locmem` and `moka_py` pickle values, and the
others keep them as they are. The regions of dogpile.cache have no expiration time.
"""

import functools
import time

import harness
import threads

django = harness.peer("django")
dogpile = harness.peer("dogpile.cache")

BASE = "moka_py"
LOCMEM, SHARED, THEINE = "locmem", "moka_py, shared", "theine"
GROUP = 10


def django_backends(capacity):
    """Returns the installed backends, each with this capacity and entries that live long."""
    from django.core.cache.backends.locmem import LocMemCache

    from moka_py.integrations.django import MokaCache

    options = {"MAX_ENTRIES": capacity}
    # Each call makes caches of its own.
    where = f"{capacity} {time.monotonic_ns()}"
    backends = {
        BASE: MokaCache(where, {"OPTIONS": options}),
        SHARED: MokaCache(f"{where} shared", {"OPTIONS": {**options, "SHARE_VALUES": True}}),
        LOCMEM: LocMemCache(where, {"OPTIONS": options}),
    }
    try:
        from theine.adapters.django import Cache
    except ImportError:
        pass
    else:
        backends[THEINE] = Cache(where, {"OPTIONS": options})
    return backends


class NewKeys:
    """Calls with keys that were never in the cache."""

    def __init__(self, operation, count):
        self.operation = operation
        self.count = count
        self.next = 10**9

    def __call__(self):
        keys = [f"key {number}".replace(" ", "-") for number in range(self.next, self.next + self.count)]
        self.next += self.count
        return harness.call_with_pair(self.operation, keys, 1)


def django_calls(scale):
    """Yields each operation, with a callable for each backend that measures one round."""
    capacity = scale.entries
    names = [f"key-{number}" for number in range(capacity)]
    # Equal to the stored keys, and other objects.
    needles = [f"key-{number}" for number in range(min(harness.NEEDLES, capacity))]
    absent = [f"absent-{number}" for number in range(len(needles))]
    groups = [needles[begin : begin + GROUP] for begin in range(0, len(needles), GROUP)]

    def filled():
        # Twice the capacity, so that no backend has to remove entries before the measurement.
        backends = django_backends(2 * capacity)
        for backend in backends.values():
            for name in names:
                backend.set(name, name)
        return backends

    def run(loop, operation, keys):
        return functools.partial(harness.own_code(loop), operation, keys, scale.laps)

    backends = filled()
    yield "get, hit", {name: run(harness.call_with_key, of.get, needles) for name, of in backends.items()}
    yield "get, miss", {name: run(harness.call_with_key, of.get, absent) for name, of in backends.items()}
    yield "set, present", {name: run(harness.call_with_pair, of.set, needles) for name, of in backends.items()}
    yield "add, present", {name: run(harness.call_with_pair, of.add, needles) for name, of in backends.items()}
    yield (
        f"get_many of {GROUP}, hits",
        {name: run(harness.call_with_key, of.get_many, groups) for name, of in backends.items()},
    )
    yield (
        "get_or_set, hit",
        {
            name: run(harness.call_with_key, functools.partial(of.get_or_set, default=str), needles)
            for name, of in backends.items()
        },
    )
    counting = django_backends(2 * capacity)
    for backend in counting.values():
        for name in needles:
            backend.set(name, 0)
    yield "incr", {name: run(harness.call_with_key, of.incr, needles) for name, of in counting.items()}
    full = django_backends(capacity)
    for backend in full.values():
        for name in names:
            backend.set(name, name)
    yield "set, full", {name: NewKeys(of.set, len(needles)) for name, of in full.items()}


def dogpile_regions(scale):
    from dogpile.cache import make_region

    from moka_py import Moka
    from moka_py.integrations.dogpile import MokaProxy

    arguments = {"capacity": 2 * scale.entries}
    proxy = MokaProxy(Moka(2 * scale.entries))
    return {
        BASE: make_region().configure("moka_py", arguments=arguments),
        "memory": make_region().configure("dogpile.cache.memory"),
        "moka_py_pickle": make_region().configure("moka_py_pickle", arguments=arguments),
        "memory_pickle": make_region().configure("dogpile.cache.memory_pickle"),
        "MokaProxy, memory": make_region().configure("dogpile.cache.memory", wrap=[proxy]),
    }


def dogpile_calls(scale):
    needles = [f"key-{number}" for number in range(min(harness.NEEDLES, scale.entries))]
    regions = dogpile_regions(scale)
    for region in regions.values():
        for number in range(scale.entries):
            region.set(f"key-{number}", "value")

    def run(loop, operation, keys):
        return functools.partial(harness.own_code(loop), operation, keys, scale.laps)

    yield "get, hit", {name: run(harness.call_with_key, of.get, needles) for name, of in regions.items()}
    yield (
        "get_or_create, hit",
        {
            name: run(harness.call_with_key, functools.partial(of.get_or_create, creator=str), needles)
            for name, of in regions.items()
        },
    )
    yield "set, present", {name: run(harness.call_with_pair, of.set, needles) for name, of in regions.items()}


def in_turns(report, scale, framework, calls):
    for operation, runs in calls:
        report.add(f"{framework}, {operation}", harness.take_turns(runs, scale.rounds))
    report.table(BASE)


def django_in_threads(report, scale):
    def prepare_of(backend):
        def prepare(number):
            keys = [f"key-{number}-{key}" for key in range(harness.NEEDLES)]
            for key in keys:
                backend.set(key, key)
            needles = [f"key-{number}-{key}" for key in range(harness.NEEDLES)]
            # These calls take ten times as long as those of `Moka`.
            laps = max(1, scale.per_thread // 10 // len(needles))
            return functools.partial(threads.get_all, backend.get, needles, laps), laps * len(needles)

        return prepare

    backends = django_backends(2 * max(threads.THREADS) * harness.NEEDLES)
    prepares = {name: prepare_of(backend) for name, backend in backends.items()}
    threads.measure(report, "Django, get, hit, keys of their own", prepares, scale, BASE)


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("integrations", options)
    if django:
        in_turns(report, options.scale, "Django", django_calls(options.scale))
    if dogpile:
        in_turns(report, options.scale, "dogpile.cache", dogpile_calls(options.scale))
    if django:
        options.scale = harness.dataclasses.replace(options.scale, rounds=max(1, options.scale.rounds // 5))
        django_in_threads(report, options.scale)
    report.close()


if __name__ == "__main__":
    main()
