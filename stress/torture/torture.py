"""Tortures a cache with threads and with hostile objects, and checks its promises.

Each case runs in its own process for a number of seconds, in rounds with a seed each. The workers start together,
threads switch as often as possible, and a collector runs beside them. After a round, when no thread is in a call, the
bound, the counts and the listener's events must be exact, and only referenced values may be alive. If a case takes too
long, faulthandler prints the tracebacks of all threads and ends it.

    python stress/torture/torture.py --seconds 10 --threads 8            # all cases
    python stress/torture/torture.py --case hostile_keys --seed 7 --rounds 1
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

from hostile_cases import callbacks, hostile_keys, mischief
from torture_lib import (
    FREE_THREADED,
    POLICIES,
    PlannedError,
    Round,
    Stop,
    Value,
    check_bound,
    check_empty,
    count_living_values,
    in_child,
    random_call,
)

from moka_py import Moka, cached

# A case that takes this many seconds longer than it was given counts as hung.
HANG_SECONDS = 120


def plain(round_):
    """All calls with builtin keys, all policies and options. The listener's events must add up."""
    dice = round_.dice("shape")
    reports = Counter()
    causes = Counter()
    lock = threading.Lock()

    def listener(key, value, cause):
        assert cause in ("expired", "explicit", "replaced", "size")
        with lock:
            reports[id(value)] += 1
            causes[cause] += 1
            removed.append(value)

    removed = []
    capacity = dice.choice([0, 1, 5, 100, 1_000, 5_000])
    cache = Moka(
        capacity,
        policy=dice.choice(POLICIES),
        ttl=dice.choice([None, None, 1e-4, 10]),
        tti=dice.choice([None, None, 1e-3]),
        weigher=dice.choice([None, lambda key, value: hash(key) % 7]),
        eviction_listener=listener,
    )
    # The values are kept alive, so that no two have the same id.
    made = []

    def value():
        fresh = Value()
        made.append(fresh)
        return fresh

    def work(dice):
        number = dice.randrange(2 * capacity + 10)
        key = dice.choice([number, f"key {number}", (number, "x"), float(number) + 0.5, number << 70])
        random_call(cache, dice, key, value)

    round_.run(work)
    check_bound(cache)
    stats = cache.stats()
    counted = {"expired": stats.expirations, "explicit": stats.removals}
    counted |= {"replaced": stats.replacements, "size": stats.evictions}
    assert +Counter(counted) == causes, "each removal must be counted once, by its cause"
    held = {id(value) for value in cache.values()}
    twice = [count for count in reports.values() if count > 1]
    assert not twice, "each removal must be reported once"
    assert not held & set(reports), "a reported value must not be in the cache"
    check_empty(cache)
    assert held <= set(reports), "each value that was in the cache must be reported when it is removed"
    del made[:], removed[:]
    cache.run_pending_tasks()


def resizes(round_):
    """The capacity changes while all other calls are made, also by the listener and by several threads at once."""
    dice = round_.dice("shape")
    capacities = [0, 1, 7, 8, 100, 1_000, 3_000]
    cache = Moka(
        dice.choice(capacities),
        policy=dice.choice(POLICIES),
        ttl=dice.choice([None, None, 1e-3]),
        weigher=dice.choice([None, lambda key, value: hash(key) % 7]),
        eviction_listener=dice.choice([None, lambda key, *_: key == 13 and cache.resize(50)]),
    )

    def work(dice):
        if dice.randrange(30) == 0:
            cache.resize(dice.choice(capacities))
        else:
            random_call(cache, dice, dice.randrange(2_000), Value)

    round_.run(work)
    check_bound(cache)
    # The listener may change it once more.
    while cache.capacity:
        cache.resize(0)
    cache.run_pending_tasks()
    assert (cache.capacity, cache.count(), cache.weighted_size()) == (0, 0, 0), "a resize to 0 must empty the cache"
    check_empty(cache)


def single_flight(round_):
    """Many threads compute few keys. At most one computes a key at a time, unless another thread writes the key."""
    dice = round_.dice("shape")
    supersedes = dice.random() < 0.5
    # If no thread removes a key, a capacity of zero makes the threads compute it again.
    cache = Moka(dice.choice([0, 1, 100]) if supersedes else 0)
    running = Counter()
    lock = threading.Lock()

    def work(dice):
        key = dice.randrange(4)

        def compute(key=key):
            with lock:
                running[key] += 1
                assert supersedes or running[key] == 1, "two computations of a key at once"
            try:
                chance = random.randrange(8)
                if chance == 0:
                    raise PlannedError
                if chance == 1:
                    time.sleep(1e-4)
                if chance == 2:
                    cache.get_with(key + 100 * random.randrange(2, 5), Value)
                if chance == 3:
                    cache.get_with(random.randrange(4), Value)
                return Value()
            finally:
                with lock:
                    running[key] -= 1

        def load(missing):
            assert len(missing) == len(set(missing)), missing
            return {key: compute(key) for key in missing}

        with contextlib.suppress(PlannedError, RuntimeError):
            if dice.randrange(3):
                assert isinstance(cache.get_with(key, compute), Value)
            else:
                keys = dice.sample(range(4), 3)
                assert all(isinstance(value, Value) for value in cache.get_many_with(keys, load).values())
        if dice.randrange(3) == 0:
            if supersedes:
                dice.choice([cache.remove, lambda key: cache.set(key, Value())])(key)
            else:
                cache.set(key + 1000, Value())
            cache.run_pending_tasks()

    round_.run(work)
    check_empty(cache)


def counters(round_):
    """Threads count with `set_with` while entries move, grow and expire. No increment is lost."""
    dice = round_.dice("shape")
    options = dice.choice([{}, {"ttl": 1000}, {"weigher": lambda key, value: 1 + value % 3}, {"policy": "lru"}])
    cache = Moka(1_000_000, **options)
    counts = [Counter() for _ in range(round_.threads)]
    numbers = iter(counts)
    local = threading.local()

    def work(dice):
        if not hasattr(local, "counts"):
            local.counts = next(numbers)
        key = dice.randrange(4)
        if dice.randrange(4) == 0:
            cache.touch(key, dice.choice([None, 900, 2000]))
        if dice.randrange(4) == 0:
            cache.set(dice.randrange(100, 10_000), 0)
        cache.set_with(key, lambda count: count + 1, 0, ttl=dice.choice([None, None, 900]))
        local.counts[key] += 1

    round_.run(work)
    expected = sum(counts, Counter())
    assert {key: cache.peek(key) for key in expected} == dict(expected), "an increment was lost"
    check_bound(cache)
    check_empty(cache)


def decorated(round_):
    """Cached functions with and without shared runs and `weak_self`, cleared and invalidated during their calls."""
    dice = round_.dice("shape")
    shared = dice.random() < 0.5
    options = {"maxsize": dice.choice([0, 1, 30, None]), "policy": dice.choice(POLICIES), "wait_concurrent": shared}

    @cached(**options)
    def function(x, *rest, **named):
        if x == 13:
            raise PlannedError
        return (x, rest, tuple(named.items()))

    class Instance:
        @cached(weak_self=True, **options)
        def method(self, x):
            return x

    def work(dice):
        x = dice.randrange(50)
        match dice.randrange(14):
            case 0:
                function.cache_invalidate(x)
            case 6 if x != 13:
                function.cache_set((x, (), ()), x)
            case 7:
                instance = Instance()
                Instance.method.cache_set(x, instance, x)
                assert instance.method(x) == x
            case 1 if dice.randrange(20) == 0:
                function.cache_clear()
            case 2:
                function.cache_contains(x, 1)
            case 3:
                instance = Instance()
                assert instance.method(x) == instance.method(x) == x
            case 4:
                assert function(x, k=(x,)) == (x, (), (("k", (x,)),)) if x != 13 else True
            case 5:
                assert function(float(x) + 0.5, x) == (x + 0.5, (x,), ())
            case _:
                try:
                    assert function(x) == (x, (), ())
                    assert x != 13
                except PlannedError:
                    assert x == 13

    def guarded(dice):
        with contextlib.suppress(PlannedError):
            work(dice)

    round_.run(guarded)
    info = function.cache_info()
    assert info.currsize == len(function.cache)
    assert options["maxsize"] is None or info.currsize <= options["maxsize"]
    gc.collect()
    Instance.method.cache.run_pending_tasks()
    assert Instance.method.cache_info().currsize == 0, "the results of an instance must be removed with it"


def coroutines(round_):
    """Event loops in all threads share one cached coroutine function, and random tasks are cancelled."""
    dice = round_.dice("shape")

    @cached(maxsize=dice.choice([0, 1, 20]), wait_concurrent=dice.random() < 0.7)
    async def function(x):
        await asyncio.sleep(0)
        if x == 3:
            raise PlannedError
        if x == 4:
            await function(5)
        return Value()

    async def main(dice):
        tasks = [asyncio.create_task(function(dice.randrange(8))) for _ in range(dice.randrange(30))]
        await asyncio.sleep(0)
        if dice.randrange(3) == 0:
            function.cache_set(Value(), dice.randrange(8))
        for task in tasks:
            if dice.randrange(3) == 0:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        allowed = (Value, PlannedError, asyncio.CancelledError)
        assert all(isinstance(outcome, allowed) for outcome in outcomes), outcomes

    async def leave(dice):
        tasks = [asyncio.ensure_future(function(dice.randrange(8))) for _ in range(5)]
        await asyncio.sleep(0)
        return len(tasks)

    def work(dice):
        for _ in range(3):
            asyncio.run(dice.choice([main, main, leave])(dice))

    # A call runs three event loops, so it takes about 30 ms of the processor.
    round_.run(work, calls_per_step=2)
    function.cache_clear()
    function.cache.run_pending_tasks()


def forks(round_):
    """Threads fork while other threads are in every operation. The child must be able to use the cache, and to exit."""
    cache = Moka(100, ttl=1, eviction_listener=lambda *_: None)

    def use():
        for number in range(50):
            cache.set(number, number)
            cache.get_with(number + 1000, lambda: 1)
            cache.get_many_with(range(number + 2000, number + 2010), lambda missing: dict.fromkeys(missing, 1))
        cache.clear()
        return 0 if cache.count() == 0 else 2

    def work(dice):
        key = dice.randrange(200)
        if dice.random() > 0.02:
            random_call(cache, dice, key, Value)
            return
        in_child(use)

    round_.run(work)
    check_bound(cache)


def churn(round_):
    """Threads start and end all the time. Their remains must not pile up."""
    cache = Moka(200)

    def burst(dice):
        def use():
            for number in range(100):
                cache.set((number, dice.random()), Value())
                cache.get(number)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(dice):
        if dice.randrange(50) == 0:
            burst(dice)
        else:
            random_call(cache, dice, dice.randrange(300), Value)

    round_.run(work)
    check_bound(cache)
    check_empty(cache)


# The threads use no name of a module. CPython 3.13t clears modules at its exit, and waits for ever for the lock of
# their dictionaries if a stopped thread was to get that lock next. stress/LOG.md says how often.
EXIT = """
import faulthandler, sys, threading, time, random
faulthandler.dump_traceback_later(80, exit=True)
sys.setswitchinterval(1e-6)
from moka_py import Moka, cached

def begin(sleep):
    def pause(*_):
        sleep(0)
        return 1

    cache = Moka(50, ttl=0.001)
    slow = Moka(50, ttl=0.001, eviction_listener=pause, weigher=pause)
    function = cached(maxsize=20, wait_concurrent=True)(pause)

    def work(key):
        while True:
            key = (37 * key + 11) % 101
            cache.set(key, [key]); cache.get(key); cache.pop(key, None); function(key); key in cache
            slow.set(key, key); slow.get_with(key % 4, pause); slow.remove_if(pause); slow.set_many([(1, 1)])
            slow.set_with(key, pause); slow.touch(key, 1); slow.peek(key); slow.next_deadline()
            slow.clear()
            for _ in cache.items(): pass

    for _ in range(4):
        threading.Thread(target=work, args=(random.randrange(101),), daemon=True).start()
    return cache

cache = begin(time.sleep)
time.sleep(random.random() * 0.05)
"""


def exits(round_):
    """A program exits while daemon threads are inside every operation, and inside user code that it calls."""
    stop = Stop(round_.seconds)
    dice = round_.dice("exit")
    while not stop():
        script = EXIT + dice.choice(["", "sys.exit(0)", "import os; os._exit(0)", "cache.clear()"])
        result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, (result.returncode, result.stderr)


CASES = {
    case.__name__: case
    for case in (
        plain,
        resizes,
        hostile_keys,
        callbacks,
        mischief,
        single_flight,
        counters,
        decorated,
        coroutines,
        forks,
        churn,
        exits,
    )
}


def run_case(name, seed, seconds, threads, rounds):
    """Runs one case in this process: rounds until the time is up, each with the next seed."""
    faulthandler.enable()
    # An alarm is the watchdog of a forked child.
    faulthandler.register(signal.SIGALRM, chain=True)
    faulthandler.dump_traceback_later(seconds + HANG_SECONDS, exit=True)
    sys.setswitchinterval(1e-6)
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end and (rounds is None or done < rounds):
        print(f"{name}, seed {seed + done}", flush=True)
        CASES[name](Round(seed + done, threads, min(2.0, seconds)))
        done += 1
        leaked = count_living_values()
        assert leaked == 0, f"{leaked} values are alive without a reference of the test"


def run_all(names, arguments):
    """Runs each case in its own process. Returns the names of the failed cases."""
    failed = []
    for name in names:
        command = [sys.executable, *arguments.python, __file__, "--in-process", "--case", name]
        command += ["--seed", str(arguments.seed), "--threads", str(arguments.threads)]
        command += ["--seconds", str(arguments.seconds / len(names))]
        began = time.monotonic()
        code, output = run_alone(command)
        rounds = [line for line in output.splitlines() if line.startswith(f"{name}, seed ")]
        verdict = "ok" if code == 0 else f"FAILED with {code}"
        print(f"{name}: {verdict}, {len(rounds)} rounds in {time.monotonic() - began:.0f} s", flush=True)
        if code != 0:
            failed.append(name)
            print(output, flush=True)
    return failed


def run_alone(command):
    """Runs a command, and kills its whole process group at the end. Returns its exit code and its output."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return code, output.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="run only this case; may be given several times")
    parser.add_argument("--seconds", type=float, default=60, help="the time of all cases together")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, help="with --case: the most rounds to run, in this process")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--python", action="append", default=[], help="an option for the interpreter, as in --python=-Xdev"
    )
    arguments = parser.parse_args()
    if arguments.case and (arguments.in_process or arguments.rounds):
        run_case(arguments.case[0], arguments.seed, arguments.seconds, arguments.threads, arguments.rounds)
        return
    gil = "off" if FREE_THREADED else "on"
    print(
        f"CPython {sys.version.split()[0]}, GIL {gil}, {arguments.threads} threads, seed {arguments.seed}", flush=True
    )
    failed = run_all(arguments.case or list(CASES), arguments)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
