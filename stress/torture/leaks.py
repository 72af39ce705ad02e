"""Counts leaked objects after millions of operations: no object may leak, and none may be released twice.

Threads make all kinds of calls with keys and values that are counted when they are made and when they die. Sentinels
are put into caches again and again, and at the end each must have its first reference count. When the caches are
gone, the interpreter must have about as many memory blocks as after a first, short run.

    python stress/torture/leaks.py --operations 10_000_000
"""

import argparse
import contextlib
import gc
import random
import sys
import sysconfig
import threading

from moka_py import Moka, cached

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# The number of additional blocks that the interpreter may keep, for free lists and ended threads.
MAX_MORE_BLOCKS = 500


# For each thread, the numbers of objects that were made and that died in it.
COUNTS = []
# An item for each object that died in a thread whose counts had been cleared, because the thread was ending.
LATE_DEATHS = []


class Account(threading.local):
    """The counts of this thread."""

    def __init__(self):
        self.counts = [0, 0]
        COUNTS.append(self.counts)


ACCOUNT = Account()


class Counted:
    """A key or a value that is counted. Each thread writes its own counts, so no update is lost."""

    __slots__ = ("number",)

    def __init__(self, number):
        self.number = number
        ACCOUNT.counts[0] += 1

    def __del__(self):
        try:
            ACCOUNT.counts[1] += 1
        except AttributeError:
            LATE_DEATHS.append(self.number)

    def __hash__(self):
        return hash(self.number)

    def __eq__(self, other):
        return isinstance(other, Counted) and self.number == other.number


def alive():
    return sum(made - died for made, died in COUNTS) - len(LATE_DEATHS)


def operate(cache, function, dice, sentinels):
    """Makes one call with a counted key or value, or a sentinel."""
    number = dice.randrange(3_000)
    key = number if dice.randrange(2) else Counted(number)
    match dice.randrange(12):
        case 0 | 1:
            cache.get(key)
        case 2 | 3:
            cache.set(key, Counted(number))
        case 4:
            cache.set(key, dice.choice(sentinels), ttl=dice.choice([None, 1e-5, 1e-2]))
        case 5:
            cache.get_with(key, lambda: Counted(number))
        case 6:
            cache.remove(key)
        case 7:
            cache.setdefault(key, dice.choice(sentinels))
        case 8:
            cache.pop(key, None)
        case 9:
            function(key)
        case 10:
            _ = key in cache
        case 11:
            with contextlib.suppress(KeyError):
                cache.popitem()


def run(operations, threads, seed, sentinels):
    """Makes a number of operations in several threads, on a new cache and a new cached function."""
    causes = []
    cache = Moka(1_000, eviction_listener=lambda key, value, cause: causes.append(cause) if len(causes) < 9 else None)
    function = cached(maxsize=500)(lambda key: sentinels[0] if isinstance(key, int) else Counted(0))
    errors = []

    def work(number):
        dice = random.Random(f"{seed} {number}")
        try:
            for _ in range(operations // threads):
                operate(cache, function, dice, sentinels)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    cache.run_pending_tasks()
    held = [cached for pair in cache.items() for cached in pair]
    held += [cached for pair in function.cache.items() for cached in pair]
    return sum(isinstance(each, Counted) for each in held)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    gil = "off" if FREE_THREADED else "on"
    print(
        f"CPython {sys.version.split()[0]}, GIL {gil}, {arguments.threads} threads, seed {arguments.seed}", flush=True
    )
    sentinels = [object() for _ in range(20)]
    run(min(100_000, arguments.operations), arguments.threads, arguments.seed, sentinels)
    gc.collect()
    references, blocks = [sys.getrefcount(each) for each in sentinels], sys.getallocatedblocks()
    run(arguments.operations, arguments.threads, arguments.seed, sentinels)
    gc.collect()
    after, more = [sys.getrefcount(each) for each in sentinels], sys.getallocatedblocks() - blocks
    made = sum(made for made, _ in COUNTS)
    print(f"{arguments.operations:,} operations, {made:,} objects made, {alive()} alive; {more:+} blocks of memory")
    assert alive() == 0, f"{alive()} objects leaked"
    assert after == references, f"references to the sentinels, before and after: {references}, {after}"
    assert more <= MAX_MORE_BLOCKS, f"{more} more blocks of memory"


if __name__ == "__main__":
    main()
