"""Records concurrent calls on a cache, and checks that the calls on each key are linearizable.

In each round threads call one cache at once, on one to three keys. For each call they record the times before and after
it, and its result. The kinds of calls in a round are random, because some calls hide the bugs of others. The threads
also set and remove other keys, so that the table grows, shrinks and reuses slots. Afterwards `history_checker.py` looks
for an order, for each key separately. A call on several keys, such as `set_many` or `clear`, promises only that its
effect on each key takes place between its call and its return.

The times are those of `time.perf_counter_ns`, the system's monotonic clock, which all threads and cores share. It is
read before the call and after the return, so a call can look longer than it was, but never shorter. A shared counter
would be more precise. But without the GIL an exact counter needs a lock, which would keep the calls from overlapping,
and `itertools.count` of 3.13t is not exact.

On the GIL build threads switch in Python code only. There, mainly the calls with initializers, predicates and keys with
a user-defined `__eq__` overlap.

    python stress/torture/linearizability.py --seconds 60
    python stress/torture/linearizability.py --seed 7 --rounds 1
    python stress/torture/linearizability.py --bug torn_pop          # must fail
"""

import argparse
import faulthandler
import itertools
import random
import sys
import sysconfig
import threading
import time
from collections import defaultdict

from buggy_caches import BUGS
from history_checker import ABSENT, SOME, UNKNOWN, Step, explain

from moka_py import Moka, cached

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# A run that takes this many seconds longer than asked for counts as hung.
HANG_SECONDS = 120
now = time.perf_counter_ns


class PlannedError(Exception):
    """The error that initializers raise."""


class Key:
    """A key with a user-defined `__eq__`."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return isinstance(other, Key) and self.name == other.name


class Colliding(Key):
    """A key whose hash is the same for all."""

    def __hash__(self):
        return 7


class FunctionCache:
    """The cache of a cached function, with the calls of a `Moka`: `set` is `cache_set`, and `get_with` is a call."""

    def __init__(self, capacity, policy):
        options = {"policy": policy, "wait_concurrent": True, "key": lambda key, compute: key}
        self.function = cached(capacity, **options)(lambda _key, compute: compute())
        self.get_with = self.function
        self.cache = self.function.cache

    def set(self, key, value, ttl=None):
        if ttl is None:
            self.function.cache_set(value, key, None)
        else:
            self.cache.set(key, value, ttl=ttl)

    def __setitem__(self, key, value):
        self.function.cache_set(value, key, compute=None)

    def __getitem__(self, key):
        return self.cache[key]

    def __delitem__(self, key):
        del self.cache[key]

    def __contains__(self, key):
        return key in self.cache

    def __getattr__(self, name):
        return getattr(self.cache, name)


class Worker:
    """The calls of one thread, each recorded as steps in the log of its key."""

    def __init__(self, cache, keys, others, ttls, capacities, shares, seed, number):
        self.cache, self.keys, self.others, self.ttls = cache, keys, others, ttls
        self.capacities = capacities
        self.dice = random.Random(f"{seed} {number}")
        # Each value contains the number of its thread, so that all values are different.
        self.fresh = map("{}.{}".format, itertools.repeat(number), itertools.count()).__next__
        self.log = defaultdict(list)
        self.calls = [getattr(self, name) for name in CALLS]
        self.shares = shares

    def run(self, many):
        for call in self.dice.choices(self.calls, self.shares, k=many):
            call(self.dice.choice(self.keys))
            if self.others and self.dice.random() < 0.3:
                self.disturb()

    def disturb(self):
        other = self.others(self.dice.randrange(300))
        if self.dice.random() < 0.7:
            self.cache.set(other, 0)
        else:
            self.cache.remove(other)

    def record(self, call, key, action, value=ABSENT):
        self.log[key].append(Step(call, now(), action, value))

    def record_all(self, call, action, values):
        ret = now()
        for key in self.keys:
            self.log[key].append(Step(call, ret, action, values.get(key, ABSENT)))

    def call_get(self, key):
        call = now()
        value = self.cache.get(key, ABSENT)
        self.record(call, key, "read", value)
        return value

    def call_subscript(self, key):
        call = now()
        try:
            self.record(call, key, "read", self.cache[key])
        except KeyError:
            self.record(call, key, "read")

    def call_in(self, key):
        call = now()
        self.record(call, key, "has" if key in self.cache else "read")

    def call_set(self, key):
        value, call = self.fresh(), now()
        self.cache.set(key, value, ttl=self.dice.choice(self.ttls))
        self.record(call, key, "write", value)

    def call_set_again(self, key):
        """Sets the present value again, which takes another code path."""
        value = self.call_get(key)
        if value is not ABSENT:
            call = now()
            self.cache.set(key, value)
            self.record(call, key, "write", value)

    def call_setitem(self, key):
        value, call = self.fresh(), now()
        self.cache[key] = value
        self.record(call, key, "write", value)

    def call_setdefault(self, key):
        value, call = self.fresh(), now()
        kept = self.cache.setdefault(key, value)
        self.record(call, key, "insert" if kept == value else "read", kept)

    def call_set_with(self, key):
        seen = []

        def change(value):
            seen.append(value)
            if self.dice.random() < 0.3:
                time.sleep(0)
            return self.fresh()

        call = now()
        value = self.cache.set_with(key, change, ABSENT, self.dice.choice(self.ttls))
        if seen[-1] is ABSENT:
            self.record(call, key, "insert", value)
        else:
            self.record(call, key, "update", (seen[-1], value))

    def call_touch(self, key):
        call = now()
        self.record(call, key, "has" if self.cache.touch(key, self.dice.choice(self.ttls)) else "read")

    def call_peek(self, key):
        call = now()
        self.record(call, key, "read", self.cache.peek(key, ABSENT))

    def call_remove(self, key):
        call = now()
        self.record(call, key, "remove", self.cache.remove(key, ABSENT))

    def call_pop(self, key):
        call = now()
        self.record(call, key, "remove", self.cache.pop(key, ABSENT))

    def call_del(self, key):
        call = now()
        try:
            del self.cache[key]
            self.record(call, key, "remove", SOME)
        except KeyError:
            self.record(call, key, "remove")

    def call_get_with(self, key):
        """If this thread computes, the call is three steps. Otherwise the result is that of another thread."""
        begun = []
        outcome = self.fresh()

        def compute():
            begun.append(now())
            if self.dice.random() < 0.3:
                time.sleep(0)
            fails = self.dice.random() < 0.2
            begun.append(now())
            if fails:
                raise PlannedError(outcome)
            return outcome

        call, action = now(), "complete"
        try:
            got = self.cache.get_with(key, compute)
        except PlannedError as planned:
            got, action = planned.args[0], "fail"
        ret = now()
        if not begun:
            self.log[key].append(Step(call, ret, "wait", got))
            return
        assert got == outcome, "a thread that computes must get its own result"
        self.log[key] += [
            Step(call, begun[0], "begin", got),
            Step(call, begun[0], "miss"),
            Step(begun[1], ret, action, got),
        ]

    def call_get_many_with(self, _):
        """For each key that this thread loads, the call is three steps, as in `call_get_with`."""
        ran, led, answered, offered = [], [], [], []
        outcome = self.fresh()

        def load(missing):
            ran.append(now())
            led.extend(missing)
            answered.extend(key for key in missing if self.dice.random() < 0.9)
            if self.dice.random() < 0.2:
                offered.extend(key for key in self.keys if key not in missing)
            if self.dice.random() < 0.3:
                time.sleep(0)
            fails = self.dice.random() < 0.2
            ran.append(now())
            if fails:
                raise PlannedError(outcome)
            return dict.fromkeys(answered + offered, outcome)

        call, failure = now(), None
        try:
            got = self.cache.get_many_with(self.keys, load)
        except PlannedError as planned:
            got, failure = {}, planned.args[0]
        ret = now()
        for key in led:
            # If the computation of another thread failed, this thread had stored its own values before.
            action = "complete" if key in answered and failure != outcome else "fail"
            self.log[key] += [
                Step(call, ran[0], "begin", outcome),
                Step(call, ran[0], "miss"),
                Step(ran[1], ret, action, outcome),
            ]
        for key in self.keys:
            if key in led:
                continue
            value = got.get(key, ABSENT)
            if failure is None and value is ABSENT:
                self.record(call, key, "read")
            elif failure is None and value != outcome:
                self.record(call, key, "wait", value)
            if key in offered and failure != outcome:
                self.log[key].append(Step(ran[1], ret, "offer", outcome))

    def call_get_many(self, _):
        call = now()
        self.record_all(call, "read", self.cache.get_many(self.keys))

    def call_items(self, _):
        call = now()
        # An entry that was removed and set again may be yielded twice.
        seen = [(key, value) for key, value in self.cache.items() if key in self.keys]
        if len(seen) == len(dict(seen)):
            self.record_all(call, "read", dict(seen))

    def call_set_many(self, _):
        values, call = {key: self.fresh() for key in self.keys}, now()
        self.dice.choice([self.cache.set_many, self.cache.update])(values)
        self.record_all(call, "write", values)

    def call_remove_many(self, _):
        call = now()
        count = self.cache.remove_many(self.keys)
        what = {0: ABSENT, len(self.keys): SOME}.get(count, UNKNOWN)
        self.record_all(call, "remove", dict.fromkeys(self.keys, what))

    def call_remove_if(self, key):
        seen = []

        def is_meant(other, value):
            if other != key or seen:
                return False
            seen.append(value)
            return True

        call = now()
        count = self.cache.remove_if(is_meant)
        ret = now()
        # `remove_if` first supersedes all computations in flight, whatever their keys.
        for each in self.keys:
            self.log[each].append(Step(call, ret, "supersede"))
        self.log[key].append(Step(call, ret, "remove" if count else "read", *seen))

    def call_popitem(self, _):
        call = now()
        try:
            key, value = self.cache.popitem()
        except KeyError:
            self.record_all(call, "read", {})
        else:
            if key in self.keys:
                self.record(call, key, "remove", value)

    def call_clear(self, _):
        call = now()
        self.cache.clear()
        self.record_all(call, "remove", dict.fromkeys(self.keys, UNKNOWN))

    def call_resize(self, _):
        """Changes the capacity. It may evict keys if the round allows evictions, which later reads then show."""
        self.cache.resize(self.dice.choice(self.capacities))


CALLS = [name for name in dir(Worker) if name.startswith("call_")]


def pair(number):
    return number, "x"


def play(seed, cache_type=Moka, calls=600):
    """Runs one round. Returns a description of a failure, or None, and the number of steps."""
    dice = random.Random(seed)
    evicts = dice.random() < 0.4
    capacities = [1, 2, 4, 16] if evicts else [1_000, 5_000]
    capacity = dice.choice(capacities)
    cache = cache_type(capacity, policy=dice.choice(["lru", "tiny_lfu"]))
    kind = dice.choice([int, str, pair, Key, Key, Colliding])
    many = dice.choice([1, 1, 2, 3])
    # Half of the rounds have two kinds of calls, which then meet more often.
    few = dice.sample(CALLS, 2) if dice.random() < 0.5 else CALLS
    shares = [dice.choice([1, 4, 16]) * (name in few) + (name in ("call_get", "call_get_with")) for name in CALLS]
    # With one hash for all keys, a look-up would compare with hundreds of keys.
    others = (lambda number: kind(100 + number % 10)) if kind is Colliding else (lambda number: kind(100 + number))

    if not evicts and dice.random() < 0.3:
        others = None

    # Until the first ttl, writes may replace values without the lock.
    ttls = [None] * dice.choice([1, 1, 1, 100]) + [1000] * (dice.random() < 0.6)

    def keys():
        """Returns new key objects, so that the threads use equal keys and not the same ones."""
        return [kind(number) for number in range(many)]

    count = dice.choice([2, 3, 4])
    workers = [Worker(cache, keys(), others, ttls, capacities, shares, seed, number) for number in range(count)]
    barrier = threading.Barrier(len(workers))
    errors = []

    def work(worker):
        try:
            barrier.wait(60)
            worker.run(calls)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    steps = 0
    for number, key in enumerate(keys()):
        history = [worker.log[key] for worker in workers]
        steps += sum(map(len, history))
        wrong = explain(history, evicts, kind is Colliding)
        if wrong:
            return f"seed {seed}, capacity {capacity}, key {number} of {many}, {kind.__name__}: {wrong}", steps
    return None, steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, help="the most rounds to run")
    parser.add_argument("--bug", choices=BUGS, help="check a cache with this bug, which must be found")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.dump_traceback_later(arguments.seconds + HANG_SECONDS, exit=True)
    sys.setswitchinterval(1e-6)
    gil = "off" if FREE_THREADED else "on"
    print(f"CPython {sys.version.split()[0]}, GIL {gil}, seed {arguments.seed}", flush=True)
    end, steps = time.monotonic() + arguments.seconds, 0
    for done in itertools.count():
        if time.monotonic() >= end or done == arguments.rounds:
            break
        seed = arguments.seed + done
        wrong, more = play(seed, BUGS.get(arguments.bug, (Moka, FunctionCache)[seed % 2]))
        steps += more
        if wrong:
            sys.exit(wrong)
    print(f"{done} rounds, {steps} steps: the calls on each key are linearizable")


if __name__ == "__main__":
    main()
