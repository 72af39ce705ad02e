"""Records what threads see of a cache, and checks that each key behaved as if one call came after the other.

How it works: in each round threads call one cache at once, on a key or a few, and note for each call the moments
before and after it and what came of it. Which calls there are in a round is by chance, since some hide what others
would show. Beside it threads set and remove other keys, so that the table grows, shrinks and reuses its places.
Afterwards `histories.py` looks for an order, for each key by itself: a call of several keys, as
`set_many` or `clear`, promises no more than to do something to each between its beginning and its end.

The moments are of `time.perf_counter_ns`, the system's monotonic clock, which all threads and cores share. It is read
before the call begins and after it has returned, so a call seems longer than it was and never shorter: an order that
the clock shows was there, and what it cannot tell apart overlaps. A counter would say more, but one that is exact
without the GIL needs a lock, which would keep apart what is to meet here; `itertools.count` of 3.13t is not exact.

On the GIL build threads take turns only in Python code: there the calls with initializers, predicates and keys that
have an `__eq__` of their own are what is tried.

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

from moka_py import Moka

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# A hang is told after this many seconds more than were asked for.
SLACK = 120
now = time.perf_counter_ns


class Planned(Exception):
    """What initializers raise."""


class Key:
    """A key that Python compares."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return isinstance(other, Key) and self.name == other.name


class Colliding(Key):
    """All have one hash."""

    def __hash__(self):
        return 7


class Worker:
    """One thread's calls, each noted as steps in the log of its key."""

    def __init__(self, cache, keys, others, ttls, shares, seed, number):
        self.cache, self.keys, self.others, self.ttls = cache, keys, others, ttls
        self.dice = random.Random(f"{seed} {number}")
        # Values tell who made them, so no two that are made are the same.
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

    def note(self, call, key, act, value=ABSENT):
        self.log[key].append(Step(call, now(), act, value))

    def note_all(self, call, act, values):
        ret = now()
        for key in self.keys:
            self.log[key].append(Step(call, ret, act, values.get(key, ABSENT)))

    def do_get(self, key):
        call = now()
        value = self.cache.get(key, ABSENT)
        self.note(call, key, "read", value)
        return value

    def do_subscript(self, key):
        call = now()
        try:
            self.note(call, key, "read", self.cache[key])
        except KeyError:
            self.note(call, key, "read")

    def do_in(self, key):
        call = now()
        self.note(call, key, "has" if key in self.cache else "read")

    def do_set(self, key):
        value, call = self.fresh(), now()
        self.cache.set(key, value, ttl=self.dice.choice(self.ttls))
        self.note(call, key, "write", value)

    def do_set_again(self, key):
        """Mostly the very object that is there, which takes another way."""
        value = self.do_get(key)
        if value is not ABSENT:
            call = now()
            self.cache.set(key, value)
            self.note(call, key, "write", value)

    def do_setitem(self, key):
        value, call = self.fresh(), now()
        self.cache[key] = value
        self.note(call, key, "write", value)

    def do_setdefault(self, key):
        value, call = self.fresh(), now()
        kept = self.cache.setdefault(key, value)
        self.note(call, key, "put" if kept == value else "read", kept)

    def do_remove(self, key):
        call = now()
        self.note(call, key, "take", self.cache.remove(key, ABSENT))

    def do_pop(self, key):
        call = now()
        self.note(call, key, "take", self.cache.pop(key, ABSENT))

    def do_del(self, key):
        call = now()
        try:
            del self.cache[key]
            self.note(call, key, "take", SOME)
        except KeyError:
            self.note(call, key, "take")

    def do_get_with(self, key):
        """Computed here it is three steps; else the value, or the failure, is somebody else's."""
        begun = []
        outcome = self.fresh()

        def compute():
            begun.append(now())
            if self.dice.random() < 0.3:
                time.sleep(0)
            fails = self.dice.random() < 0.2
            begun.append(now())
            if fails:
                raise Planned(outcome)
            return outcome

        call, act = now(), "land"
        try:
            got = self.cache.get_with(key, compute)
        except Planned as planned:
            got, act = planned.args[0], "fail"
        ret = now()
        if not begun:
            self.log[key].append(Step(call, ret, "wait", got))
            return
        assert got == outcome, "who computes gets what was computed"
        self.log[key] += [
            Step(call, begun[0], "join", got),
            Step(call, begun[0], "look"),
            Step(begun[1], ret, act, got),
        ]

    def do_get_many(self, _):
        call = now()
        self.note_all(call, "read", self.cache.get_many(self.keys))

    def do_items(self, _):
        call = now()
        # What is moved meanwhile may come twice; then both values were there.
        seen = [(key, value) for key, value in self.cache.items() if key in self.keys]
        if len(seen) == len(dict(seen)):
            self.note_all(call, "read", dict(seen))

    def do_set_many(self, _):
        values, call = {key: self.fresh() for key in self.keys}, now()
        self.dice.choice([self.cache.set_many, self.cache.update])(values)
        self.note_all(call, "write", values)

    def do_remove_many(self, _):
        call = now()
        count = self.cache.remove_many(self.keys)
        what = {0: ABSENT, len(self.keys): SOME}.get(count, UNKNOWN)
        self.note_all(call, "take", dict.fromkeys(self.keys, what))

    def do_remove_if(self, key):
        seen = []

        def is_meant(other, value):
            if other != key or seen:
                return False
            seen.append(value)
            return True

        call = now()
        count = self.cache.remove_if(is_meant)
        ret = now()
        # First it overtakes all computations under way, whatever their keys.
        for each in self.keys:
            self.log[each].append(Step(call, ret, "overtake"))
        self.log[key].append(Step(call, ret, "take" if count else "read", *seen))

    def do_popitem(self, _):
        call = now()
        try:
            key, value = self.cache.popitem()
        except KeyError:
            self.note_all(call, "read", {})
        else:
            if key in self.keys:
                self.note(call, key, "take", value)

    def do_clear(self, _):
        call = now()
        self.cache.clear()
        self.note_all(call, "take", dict.fromkeys(self.keys, UNKNOWN))


CALLS = [name for name in dir(Worker) if name.startswith("do_")]


def pair(number):
    return number, "x"


def play(seed, made_by=Moka, calls=600):
    """One round. Returns what is wrong, in words, or None; and how many steps there were."""
    dice = random.Random(seed)
    evicts = dice.random() < 0.4
    capacity = dice.choice([1, 2, 4, 16]) if evicts else dice.choice([1_000, 5_000])
    cache = made_by(capacity, policy=dice.choice(["lru", "tiny_lfu"]))
    kind = dice.choice([int, str, pair, Key, Key, Colliding])
    many = dice.choice([1, 1, 2, 3])
    # Few calls in one half of the rounds, which meet oftener; any in the other.
    few = dice.sample(CALLS, 2) if dice.random() < 0.5 else CALLS
    shares = [dice.choice([1, 4, 16]) * (name in few) + (name in ("do_get", "do_get_with")) for name in CALLS]
    # With one hash for all, a look would compare with hundreds of keys.
    others = (lambda number: kind(100 + number % 10)) if kind is Colliding else (lambda number: kind(100 + number))

    if not evicts and dice.random() < 0.3:
        others = None

    # While nothing can expire, values give way to others without a lock. That ends with the first ttl.
    ttls = [None] * dice.choice([1, 1, 1, 100]) + [1000] * (dice.random() < 0.6)

    def keys():
        """Of each thread its own, so that they are not the same but equal."""
        return [kind(number) for number in range(many)]

    count = dice.choice([2, 3, 4])
    workers = [Worker(cache, keys(), others, ttls, shares, seed, number) for number in range(count)]
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
    parser.add_argument("--rounds", type=int, help="no more than this")
    parser.add_argument("--bug", choices=BUGS, help="try a cache with this mistake, which must be found")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.dump_traceback_later(arguments.seconds + SLACK, exit=True)
    sys.setswitchinterval(1e-6)
    gil = "off" if FREE_THREADED else "on"
    print(f"CPython {sys.version.split()[0]}, GIL {gil}, seed {arguments.seed}", flush=True)
    end, steps = time.monotonic() + arguments.seconds, 0
    for done in itertools.count():
        if time.monotonic() >= end or done == arguments.rounds:
            break
        wrong, more = play(arguments.seed + done, BUGS.get(arguments.bug, Moka))
        steps += more
        if wrong:
            sys.exit(wrong)
    print(f"{done} rounds, {steps} steps: each key has an order")


if __name__ == "__main__":
    main()
