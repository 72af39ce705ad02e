"""What the cases of the torture share: rounds of threads, values that can be counted, calls at random, the accounts."""

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


class Planned(Exception):
    """What hostile objects raise."""


class Value:
    """A value that is seen by the collector while it lives."""

    __slots__ = ("cache",)

    def __init__(self, cache=None):
        self.cache = cache


def living():
    """How many values live once nobody is in a call."""
    for _ in range(3):
        gc.collect()
    return sum(isinstance(each, Value) for each in gc.get_objects())


class Stop:
    """Tells the workers of a round when to end."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def __call__(self):
        return time.monotonic() >= self.end


class Round:
    """What the workers of one round share."""

    def __init__(self, seed, threads, seconds):
        self.seed = seed
        self.threads = threads
        self.seconds = seconds

    def dice(self, name):
        return random.Random(f"{self.seed} {name}")

    def run(self, work):
        """Runs `work(dice)` again and again in all threads until the round is over; raises what one of them raised."""
        barrier = threading.Barrier(self.threads)
        stop = Stop(self.seconds)
        errors = []
        steps = threading.Semaphore(0)

        def worker(number):
            dice = self.dice(number)
            barrier.wait(60)
            try:
                while not stop() and not errors:
                    for _ in range(50):
                        work(dice)
                    steps.release()
            except BaseException as error:
                errors.append(error)

        def collector():
            # One collection for each step of the workers: without pause it would starve them.
            while steps.acquire() and not stop():
                gc.collect(random.randrange(3))

        workers = [threading.Thread(target=worker, args=(number,), daemon=True) for number in range(self.threads)]
        threading.Thread(target=collector, daemon=True).start()
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        steps.release()
        if errors:
            raise errors[0]


def check_bound(cache):
    assert cache.weighted_size() <= cache.capacity, (cache.weighted_size(), cache.capacity)
    before = None
    while before != (after := cache.count()):
        # Something may have expired between the counts; once nothing did, they must be one.
        before, seen = after, (len(cache), sum(1 for _ in cache))
    assert seen == (after, after), "the counts are exact when nobody is in a call"


def check_empty(cache):
    cache.clear()
    cache.run_pending_tasks()
    assert cache.count() == 0 and cache.weighted_size() == 0


def some_keys(dice):
    return [dice.randrange(50) for _ in range(dice.randrange(4))]


def some_operation(cache, dice, key, value):
    """One call of the mapping, chosen at random."""
    match dice.randrange(24):
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


def in_child(work):
    """Forks, and waits for the child: it does `work`, and ends well unless that raises or returns another exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # faulthandler's own watchdog is a thread, which the child does not have.
            signal.alarm(60)
            code = work() or 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
