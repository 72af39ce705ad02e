"""Helpers of the torture cases: rounds of threads, values that can be counted, random calls, and checks of a cache."""

import contextlib
import gc
import os
import random
import signal
import sysconfig
import threading
import time

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
POLICIES = ("tiny_lfu", "lru")


class PlannedError(Exception):
    """The error that hostile objects raise."""


class Value:
    """A value that the collector tracks, so that living values can be counted."""

    __slots__ = ("cache",)

    def __init__(self, cache=None):
        self.cache = cache


def count_living_values():
    """Returns the number of living values. No other thread may be in a call."""
    for _ in range(3):
        gc.collect()
    return sum(isinstance(each, Value) for each in gc.get_objects())


class Stop:
    """Whether the time of a round is over."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def __call__(self):
        return time.monotonic() >= self.end


class Round:
    """The seed, the threads and the time of one round."""

    def __init__(self, seed, threads, seconds):
        self.seed = seed
        self.threads = threads
        self.seconds = seconds

    def dice(self, name):
        return random.Random(f"{self.seed} {name}")

    def run(self, work, calls_per_step=50):
        """Repeats `work(dice)` in all threads until the round is over, and raises the first error of a thread.

        After each step a thread looks whether the round is over, and the collector runs once.
        """
        barrier = threading.Barrier(self.threads)
        stop = Stop(self.seconds)
        errors = []
        steps = threading.Semaphore(0)

        def worker(number):
            dice = self.dice(number)
            barrier.wait(60)
            try:
                while not stop() and not errors:
                    for _ in range(calls_per_step):
                        work(dice)
                    steps.release()
            except BaseException as error:
                errors.append(error)

        def collector():
            # One collection for each step of the workers. A loop without a pause would starve them.
            while steps.acquire() and not stop():
                gc.collect(random.randrange(3))

        workers = [threading.Thread(target=worker, args=(number,), daemon=True) for number in range(self.threads)]
        collecting = threading.Thread(target=collector, daemon=True)
        collecting.start()
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        steps.release()
        if errors:
            raise errors[0]
        # While it collects, a collection by the test would end at once, and leave all garbage.
        collecting.join()


def check_bound(cache):
    assert cache.weighted_size() <= cache.capacity, (cache.weighted_size(), cache.capacity)
    before = None
    while before != (after := cache.count()):
        # An entry may expire between the counts. If none did, the counts must be equal.
        before, seen = after, (len(cache), sum(1 for _ in cache))
    assert seen == (after, after), "the counts must be exact when no thread is in a call"


def check_empty(cache):
    cache.clear()
    cache.run_pending_tasks()
    assert cache.count() == 0 and cache.weighted_size() == 0


def some_keys(dice):
    return [dice.randrange(50) for _ in range(dice.randrange(4))]


def random_call(cache, dice, key, value):
    """Makes one random call on a cache."""
    match dice.randrange(29):
        case 0 | 1 | 2 | 3:
            cache.get(key)
        case 4 | 5 | 6:
            cache.set(key, value())
        case 7:
            cache.remove(key)
        case 8:
            cache.get_with(key, value)
        case 9:
            cache.setdefault(key, value())
        case 10:
            cache.pop(key, None)
        case 11:
            _ = key in cache
        case 12:
            cache.set(key, value(), ttl=dice.choice([1e-9, 1e-5, 1e-3, 1.0]), tti=dice.choice([None, 1e-4, 10]))
        case 13:
            cache.expires_in(key)
        case 14:
            for number, _ in enumerate(cache.items()):
                if number > 20:
                    break
        case 15 if dice.randrange(50) == 0:
            dice.choice([cache.clear, cache.run_pending_tasks, cache.count, cache.weighted_size])()
        case 16:
            cache.get_many([key, *some_keys(dice)])
        case 17:
            entries = {each: value() for each in some_keys(dice)}
            cache.set_many(entries, ttl=dice.choice([None, 1e-4, 10]))
        case 18:
            cache.remove_many([key, *some_keys(dice)])
        case 19 if dice.randrange(5) == 0:
            cache.remove_if(lambda key, value: id(value) % 8 == 0)
        case 20:
            stats = cache.stats()
            assert min(stats) >= 0 and stats.hit_ratio <= 1, stats
        case 21:
            cache.update([(key, value())])
        case 22:
            with contextlib.suppress(KeyError):
                cache.popitem()
        case 23:
            with contextlib.suppress(KeyError):
                _ = cache[key]
        case 24 | 25:
            made = cache.set_with(key, lambda _: value(), ttl=dice.choice([None, None, 1e-5, 10]))
            assert isinstance(made, Value)
        case 26:
            assert isinstance(cache.touch(key, dice.choice([None, 1e-5, 10]), dice.choice([None, 1e-4])), bool)
        case 27:
            cache.peek(key)
            remaining = cache.next_deadline()
            assert remaining is None or remaining >= 0
        case 28:
            keys = [key, *some_keys(dice)]
            left_out = dice.choice(keys)
            extra = dice.choice([{}, {dice.randrange(50): value()}])
            ttl = dice.choice([None, None, 1e-5, 10])
            got = cache.get_many_with(keys, lambda missing: {k: value() for k in missing if k != left_out} | extra, ttl)
            # A key that another thread's load leaves out is absent. A key that changes its hash is not found in a set.
            assert not isinstance(key, int) or got.keys() <= {*keys, *extra}


def in_child(work):
    """Runs `work` in a forked child and waits for it. Fails if `work` raises or returns an exit code other than 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # The watchdog of faulthandler is a thread, which the child does not have.
            signal.alarm(60)
            code = work() or 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
