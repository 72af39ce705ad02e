"""Keeps a cache under full load for a given time. Memory must not grow, and all counts must be exact at the end.

The run has laps of a few seconds. In each lap new threads make all kinds of calls with random durations, weights and
keys, start short-lived threads, and make and drop small caches. Between two laps no thread is in a call, so living
objects, counts and events must agree. Each thread counts the objects that it made, those that died in it, its events
and its calls.

Memory is sampled during the run: resident memory, allocated blocks of the interpreter, and bytes in use of the C
library's heap, which holds all memory of the cache itself. After the warm-up no tenth of the run may have a median more
than 5 % above that of the first tenth.

On the free-threaded build the pages of the interpreter's own heap are shown, but not judged. They grow although the
blocks in them do not: a thread that ends abandons pages with objects that other threads hold, and few of these pages
are filled again. Dicts instead of the cache grow by more.

    python stress/torture/soak.py --seconds 600
    python stress/torture/soak.py --seconds 600 --dict     # dicts instead of the cache, for comparison
"""

import argparse
import array
import contextlib
import ctypes
import os
import random
import re
import statistics
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter

from moka_py import Moka

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
CAPACITY = 50_000
# The number of different keys. Low ones are far more frequent.
KEYS = 40_000
LAP = 5.0
# The longest duration of an entry that can expire.
MAX_DURATION_SECONDS = 2.0
# The number of removed values per thread that may await release, by law 11.
MAX_UNRELEASED_PER_THREAD = 64 if FREE_THREADED else 0
# The number of values that a thread may hold outside of the cache: those of a small cache and of its current call.
MAX_HELD_PER_THREAD = 32
# Made once, because each `CDLL` makes a class, and classes are immortal on CPython 3.13t.
LIBRARY = ctypes.CDLL(None)
# How much each kind of memory may grow after the warm-up. `None` is not judged.
GROWTH = {"resident": 0.05, "blocks": 0.05, "heap": 0.05}
if FREE_THREADED:
    GROWTH["pages of the interpreter"] = None


class Account:
    """The counts of one thread. No other thread writes them, so no update is lost."""

    __slots__ = ("accesses", "causes", "died", "loads", "made", "operations", "writes")

    def __init__(self):
        self.made = self.died = self.operations = self.accesses = self.loads = self.writes = 0
        self.causes = Counter()

    def add(self, other):
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + theirs)


class Accounts:
    """The accounts of all threads. Those of ended threads are summed up."""

    def __init__(self):
        self.local = threading.local()
        self.open = []
        self.closed = Account()

    def mine(self):
        try:
            return self.local.account
        except AttributeError:
            account = self.local.account = Account()
            self.open.append(account)
            return account

    def close(self):
        """Sums up all accounts. No other thread may be running."""
        done, self.open = self.open, []
        for account in done:
            self.closed.add(account)
        self.local = threading.local()
        return self.closed

    def least_alive(self):
        """Returns a lower bound of the living values while other threads run, because it reads the deaths last."""
        made = self.closed.made + sum(account.made for account in list(self.open))
        return made - self.closed.died - sum(account.died for account in list(self.open))


ACCOUNTS = Accounts()


class Value:
    """A value that is counted while it is alive, with a weight and some memory."""

    __slots__ = ("payload", "weight")

    def __init__(self, weight):
        ACCOUNTS.mine().made += 1
        self.weight = weight
        self.payload = bytes(40 * weight)

    def __del__(self):
        ACCOUNTS.mine().died += 1


def listen(key, value, cause):
    ACCOUNTS.mine().causes[cause] += 1


class PlannedError(Exception):
    """The error that an initializer sometimes raises."""


class Load:
    """The work of the threads of a lap."""

    def __init__(self, cache, seconds):
        self.cache = cache
        self.end = time.monotonic() + seconds
        self.errors = []

    def run(self, seed):
        dice = random.Random(seed)
        try:
            while time.monotonic() < self.end:
                for _ in range(200):
                    self.operate(dice)
                if dice.random() < 0.2:
                    self.passing_thread(dice)
                if dice.random() < 0.2:
                    self.passing_cache(dice)
        except BaseException as error:
            self.errors.append(error)

    def passing_thread(self, dice):
        mine = random.Random(dice.random())

        def use():
            try:
                for _ in range(50):
                    self.operate(mine)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    def passing_cache(self, dice):
        small = Moka(20, policy=dice.choice(["lru", "tiny_lfu"]), ttl=dice.choice([None, 1e-4]))
        for number in range(100):
            small.set(number, Value(1))
        with contextlib.suppress(KeyError):
            small.popitem()

    def operate(self, dice):
        cache, account = self.cache, ACCOUNTS.mine()
        number = int(KEYS * dice.random() ** 3)
        key = (number, f"key {number}", (number, "x"))[number % 3]
        account.operations += 1
        match dice.randrange(20):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6:
                account.accesses += 1
                cache.get(key)
            case 7 | 8 | 9:
                account.accesses += 1
                self.compute(key, dice)
            case 10:
                account.accesses += 1
                cache.setdefault(key, Value(dice.randrange(1, 10)))
            case 11 | 12 | 13 | 14 | 15:
                account.writes += 1
                cache.set(key, Value(dice.randrange(1, 10)))
            case 16 | 17:
                account.writes += 1
                ttl, tti = (
                    MAX_DURATION_SECONDS * dice.random(),
                    dice.choice([None, MAX_DURATION_SECONDS * dice.random()]),
                )
                cache.set(key, Value(dice.randrange(1, 10)), ttl=ttl, tti=tti)
            case 18:
                cache.remove(key)
            case 19:
                _ = key in cache
                for step, _ in enumerate(cache.items()):
                    if step > 5:
                        break

    def compute(self, key, dice):
        account = ACCOUNTS.mine()

        def initializer():
            account.loads += 1
            if dice.random() < 0.01:
                raise PlannedError
            return Value(dice.randrange(1, 10))

        with contextlib.suppress(PlannedError):
            self.cache.get_with(key, initializer, ttl=dice.choice([None, MAX_DURATION_SECONDS * dice.random()]))


class DictCache:
    """Dicts that hold about as many entries, each with a lock for its writers.

    They show what the interpreter itself does.
    Reads use `d[k]`, because on the free-threaded build `d.get` of a shared dict waits for its lock.
    """

    SHARDS = 16
    HELD = 7_500

    def __init__(self, capacity, **options):
        self.held = min(capacity, self.HELD) // self.SHARDS + 1
        self.shards = [({}, threading.Lock()) for _ in range(self.SHARDS)]

    def shard(self, key):
        return self.shards[hash(key) % self.SHARDS]

    def get(self, key):
        try:
            return self.shard(key)[0][key]
        except KeyError:
            return None

    def set(self, key, value, ttl=None, tti=None):
        entries, lock = self.shard(key)
        with lock:
            entries[key] = value
            oldest = next(iter(entries)) if len(entries) > self.held else None
            left = None if oldest is None else (oldest, entries.pop(oldest))
        del left

    def setdefault(self, key, value):
        if self.get(key) is None:
            self.set(key, value)

    def get_with(self, key, initializer, ttl=None):
        if self.get(key) is None:
            self.set(key, initializer())

    def remove(self, key):
        entries, lock = self.shard(key)
        with lock:
            left = entries.pop(key, None)
        del left

    def items(self):
        return ()

    def __contains__(self, key):
        return self.get(key) is not None


class Memory:
    """Samples of the memory of this process, by kind: times and amounts, in arrays, which need few blocks."""

    def __init__(self):
        self.samples = {kind: (array.array("d"), array.array("d")) for kind in GROWTH}

    def add(self, kind, amount):
        if amount is not None:
            moments, amounts = self.samples[kind]
            moments.append(time.monotonic())
            amounts.append(amount)

    def tenths(self, kind, begin):
        """Returns the medians of the tenths of the run after `begin`."""
        samples = [(at, amount) for at, amount in zip(*self.samples[kind], strict=True) if at >= begin]
        if not samples:
            return []
        span = (samples[-1][0] - begin) / 10
        tenths = [[] for _ in range(10)]
        for at, amount in samples:
            tenths[min(9, int((at - begin) / span))].append(amount)
        return [statistics.median(tenth) for tenth in tenths if tenth]

    def judge(self, begin):
        """Prints the medians, and returns a description of each kind that grew too much."""
        failures = []
        for kind, allowed in GROWTH.items():
            medians = self.tenths(kind, begin)
            if not medians:
                continue
            rise = max(medians) / medians[0] - 1
            shown = ", ".join(f"{each:,.0f}" if kind == "blocks" else f"{each / 2**20:.2f}" for each in medians)
            print(f"{kind}, {'' if kind == 'blocks' else 'MiB, '}by tenths: {shown}; at most {rise:+.1%} of the first")
            if allowed is not None and rise > allowed:
                failures.append(f"{kind} grew by {rise:.1%}, and {allowed:.0%} is allowed")
        return failures


def mappings():
    """Yields the begin, the end and the resident bytes of each mapping of this process."""
    with open("/proc/self/smaps") as file:
        for line in file:
            if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
                begin, end = (int(place, 16) for place in found.groups())
            elif line.startswith("Rss:"):
                yield begin, end, int(line.split()[1]) * 1024


def heap_of_interpreter():
    """Returns the bounds of the free-threaded interpreter's heap, whose addresses it reserves in one piece."""
    one = id(object())
    begin, end = next((begin, end) for begin, end, _ in mappings() if begin <= one < end)
    assert end - begin >= 2**28, "the interpreter's heap is not in one piece"
    return begin, end


def sample_resident(memory, own):
    """Samples resident memory. If the interpreter's heap is known, its pages are a kind of their own."""
    if own is None:
        with open("/proc/self/statm") as file:
            memory.add("resident", int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        return
    inside = outside = 0
    for begin, end, amount in mappings():
        # The system may merge the heap with a neighbouring mapping.
        if begin < own[1] and end > own[0]:
            inside += amount
        else:
            outside += amount
    memory.add("resident", outside)
    memory.add("pages of the interpreter", inside)


def heap():
    """Returns the bytes in use of the C library's heap, or `None` if the library has no `malloc_info`."""
    if not hasattr(LIBRARY, "malloc_info"):
        return None
    LIBRARY.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile() as file:
        stream = ctypes.c_void_p(LIBRARY.fdopen(os.dup(file.fileno()), b"w"))
        LIBRARY.malloc_info(0, stream)
        LIBRARY.fclose(stream)
        file.seek(0)
        of_all = file.read().decode().rpartition("</heap>")[2]
    free = sum(int(size) for size in re.findall(r'type="(?:fast|rest)" count="\d+" size="(\d+)"', of_all))
    given = re.search(r'<system type="current" size="(\d+)"', of_all)
    return int(given[1]) - free if given else None


def lap(cache, seconds, threads, seed, memory, own):
    """Runs threads at full load for some seconds, and samples memory. Returns the most values that were seen alive."""
    load = Load(cache, seconds)
    workers = [threading.Thread(target=load.run, args=(f"{seed} {number}",)) for number in range(threads)]
    for worker in workers:
        worker.start()
    most = 0
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.1)
        most = max(most, ACCOUNTS.least_alive())
        sample_resident(memory, own)
    for worker in workers:
        worker.join()
    if load.errors:
        raise load.errors[0]
    memory.add("blocks", sys.getallocatedblocks())
    memory.add("heap", heap())
    # Each worker may have a short-lived thread.
    bound = CAPACITY + 2 * threads * (MAX_UNRELEASED_PER_THREAD + MAX_HELD_PER_THREAD)
    assert most <= bound, f"{most} values were alive, and {bound} are allowed"
    return most


def check_between_laps(cache, threads):
    """Checks the conditions that must hold when no thread is in a call."""
    assert cache.weighted_size() <= CAPACITY
    count = cache.count()
    account = ACCOUNTS.close()
    waiting = account.made - account.died - count
    # Entries that expired since the count can only lower this number.
    assert waiting <= 2 * threads * MAX_UNRELEASED_PER_THREAD, (
        f"{waiting} removed values are alive, beside {count} entries"
    )


def check_at_the_end(cache):
    """Checks all counts when no entry can expire any more."""
    time.sleep(MAX_DURATION_SECONDS)
    cache.run_pending_tasks()
    values = list(cache.values())
    stats, account = cache.stats(), ACCOUNTS.close()
    causes = account.causes
    facts = {
        "count()": (cache.count(), len(values)),
        "len()": (len(cache), len(values)),
        "stats().count": (stats.count, len(values)),
        "weighted_size()": (cache.weighted_size(), sum(value.weight for value in values)),
        "stats().weight": (stats.weight, cache.weighted_size()),
        "values alive": (account.made - account.died, len(values)),
        "accesses": (stats.hits + stats.misses, account.accesses),
        "loads": (stats.loads, account.loads),
        "evictions reported": (causes["size"], stats.evictions),
        "expirations reported": (causes["expired"], stats.expirations),
        "removals reported": (causes["explicit"], stats.removals),
        "replacements reported": (causes["replaced"], stats.replacements),
        "inserts": (stats.inserts, stats.evictions + stats.expirations + stats.removals + stats.count),
    }
    assert causes.total() == stats.evictions + stats.expirations + stats.removals + stats.replacements
    del values
    cache.clear()
    cache.run_pending_tasks()
    account = ACCOUNTS.close()
    facts["values alive after clear()"] = (account.made - account.died, 0)
    facts["weight after clear()"] = (cache.weighted_size(), 0)
    wrong = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}
    assert not wrong, f"counts that are wrong, with the right ones: {wrong}"
    return facts, account


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--dict", action="store_true", help="use dicts instead of the cache, without checks")
    arguments = parser.parse_args()
    gil = "off" if FREE_THREADED else "on"
    print(
        f"CPython {sys.version.split()[0]}, GIL {gil}, {arguments.threads} threads, seed {arguments.seed}", flush=True
    )
    kind = DictCache if arguments.dict else Moka
    cache = kind(CAPACITY, weigher=lambda key, value: value.weight, eviction_listener=listen)
    memory, most, began = Memory(), 0, time.monotonic()
    own = heap_of_interpreter() if FREE_THREADED else None
    end = began + arguments.seconds
    laps = 0
    while time.monotonic() < end:
        seconds = min(LAP, arguments.seconds / 4)
        most = max(most, lap(cache, seconds, arguments.threads, f"{arguments.seed} {laps}", memory, own))
        if not arguments.dict:
            check_between_laps(cache, arguments.threads)
        laps += 1
    account = ACCOUNTS.close()
    if not arguments.dict:
        facts, account = check_at_the_end(cache)
        print("exact at the end: " + ", ".join(f"{name} {have:,}" for name, (have, _) in facts.items()))
    print(f"{laps} laps, {account.operations:,} operations, {account.made:,} values made, at most {most:,} alive")
    failures = memory.judge(began + arguments.seconds / 5)
    if arguments.seconds < 60 or arguments.dict:
        print("memory is not judged, because the run was shorter than a minute or had no cache")
    elif failures:
        sys.exit("; ".join(failures))


if __name__ == "__main__":
    main()
