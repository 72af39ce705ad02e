"""Helpers that the tests of ttl functions share."""

import threading

import pytest
from helpers import Key, outcomes_of_threads

# Each call that inserts a value of an absent key, and returns what it returns.
INSERTS = {
    "set": lambda cache, key, value: cache.set(key, value),
    "setitem": lambda cache, key, value: cache.__setitem__(key, value),
    "setdefault": lambda cache, key, value: cache.setdefault(key, value),
    "update": lambda cache, key, value: cache.update({key: value}),
    "set_many": lambda cache, key, value: cache.set_many({key: value}),
    "get_with": lambda cache, key, value: cache.get_with(key, lambda: value),
    "set_with": lambda cache, key, value: cache.set_with(key, lambda _: value),
}


each_insert = pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)


RETURNING = ("setdefault", "get_with", "set_with")


# Each call that replaces a present value, and calls the ttl function for that.
REPLACEMENTS = {name: INSERTS[name] for name in ("set", "setitem", "update", "set_many")}


each_replacement = pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)


# Each call that takes a ttl function of its own.
CALLS_WITH_TTL = {
    "set": lambda cache, key, value, ttl: cache.set(key, value, ttl=ttl),
    "set by position": lambda cache, key, value, ttl: cache.set(key, value, ttl, None),
    "set_many": lambda cache, key, value, ttl: cache.set_many([(key, value)], ttl),
    "get_with": lambda cache, key, value, ttl: cache.get_with(key, lambda: value, ttl=ttl),
}


each_call_with_ttl = pytest.mark.parametrize("call", CALLS_WITH_TTL.values(), ids=CALLS_WITH_TTL)


class Recorder:
    """A ttl function that returns given values, and records its arguments."""

    def __init__(self, result=None):
        self.result = result
        self.calls = []

    def __call__(self, key, value):
        self.calls.append((key, value))
        return self.result


def outcomes_with_waiters(cache, value, waiters=3, **options):
    """Load a key whose value is `value` in one thread, while others wait for it. Return the outcomes and the runs."""
    computing, asking, runs = threading.Event(), threading.Semaphore(0), []

    class Announced(Key):
        __hash__ = Key.__hash__

        # A thread that is about to wait compares its key with the one in flight.
        def __eq__(self, other):
            asking.release()
            return super().__eq__(other)

    def initializer():
        runs.append(threading.get_ident())
        if len(runs) == 1:
            computing.set()
            assert all(asking.acquire(timeout=60) for _ in range(waiters))
        return value

    def call(number):
        assert number == 0 or computing.wait(60)
        return cache.get_with(Announced("a"), initializer, **options)

    return outcomes_of_threads(1 + waiters, call), runs
