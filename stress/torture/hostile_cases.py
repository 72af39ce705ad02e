"""Torture cases with hostile keys, values and callbacks."""

import contextlib
import gc
import os
import random
import sys
import threading
import time

from torture_lib import POLICIES, PlannedError, Value, check_empty, in_child, random_call

from moka_py import Moka, cached


class HostileKey:
    """A key whose `__hash__` and `__eq__` raise, sleep, collect, change the cache, or return no bool."""

    __slots__ = ("acts", "cache", "dice", "number")

    def __init__(self, number, dice, cache):
        self.number = number
        self.dice = random.Random(dice.random())
        self.cache = cache
        self.acts = dice.random() < 0.5

    def __hash__(self):
        if self.acts and self.dice.random() < 0.01:
            raise PlannedError("hash")
        return self.number % 5

    def __eq__(self, other):
        if not isinstance(other, HostileKey):
            return NotImplemented
        if self.acts:
            match self.dice.randrange(40):
                case 0:
                    raise PlannedError("eq")
                case 1:
                    time.sleep(0)
                case 2:
                    gc.collect(0)
                case 3:
                    self.cache.clear()
                case 4:
                    self.cache.set(self.dice.randrange(20), Value())
                case 5:
                    self.cache.get_with(self.dice.randrange(20), Value)
                case 6:
                    self.cache.remove(self)
                case 7:
                    return [] if self.number != other.number else [1]
                case 8:
                    return True
        return self.number == other.number

    def __del__(self):
        if self.acts and self.dice.random() < 0.05:
            with contextlib.suppress(PlannedError, RecursionError, RuntimeError):
                self.cache.get(self.dice.randrange(20))


def hostile_keys(round_):
    """Calls with keys whose `__eq__` and `__hash__` are hostile."""
    dice = round_.dice("shape")
    cache = Moka(dice.choice([1, 10, 50]), policy=dice.choice(POLICIES), ttl=dice.choice([None, 1e-3]))

    def work(dice):
        # RuntimeError: a comparison inside a computation asked for the key of that computation.
        with contextlib.suppress(PlannedError, RuntimeError):
            random_call(cache, dice, HostileKey(dice.randrange(30), dice, cache), Value)

    round_.run(work)
    assert cache.weighted_size() <= cache.capacity
    check_empty(cache)


class LateValue(Value):
    """A value whose finalizer uses the cache."""

    __slots__ = ()

    def __del__(self):
        cache = self.cache
        if cache is not None:
            cache.get(id(self) % 50)
            if id(self) % 64 == 0:
                cache.set(id(self) % 50, Value())


def callbacks(round_):
    """Weigher, listener, initializer and `__del__` that use the cache, raise, and collect."""
    dice = round_.dice("shape")
    state = threading.local()

    def nested(what):
        depth = getattr(state, "depth", 0)
        if depth > 3:
            return
        state.depth = depth + 1
        try:
            what()
        finally:
            state.depth = depth

    def listener(key, value, cause):
        chance = random.randrange(30)
        if chance == 0:
            raise PlannedError("listener")
        if chance < 6:
            nested(lambda: cache.set(key, Value()))
        elif chance < 12:
            nested(lambda: cache.get(key))
        elif chance == 12:
            nested(cache.clear)
        elif chance == 13:
            gc.collect(0)

    def weigher(key, value):
        chance = random.randrange(40)
        if chance == 0:
            raise PlannedError("weigher")
        if chance == 1:
            nested(lambda: cache.remove(key))
        return chance % 4

    cache = Moka(40, policy=dice.choice(POLICIES), eviction_listener=listener, weigher=weigher)

    def initializer():
        chance = random.randrange(20)
        if chance == 0:
            raise PlannedError("initializer")
        if chance < 4:
            nested(lambda: cache.get_with(random.randrange(50), initializer))
        return LateValue(cache)

    def work(dice):
        key = dice.randrange(50)
        try:
            if dice.randrange(2):
                cache.get_with(key, initializer)
            else:
                random_call(cache, dice, key, lambda: LateValue(cache))
        except (PlannedError, RuntimeError):
            pass  # RuntimeError: computations that wait for each other.

    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        round_.run(work)
        assert cache.weighted_size() <= cache.capacity
        for _ in range(20):
            cache.clear()
    finally:
        sys.unraisablehook = hook


class HostileAction:
    """A callable that takes a random hostile action inside a key, a callback, or a finalizer."""

    def __init__(self, cache, dice):
        self.cache = cache
        self.dice = dice
        self.depth = threading.local()
        self.causes = []
        self.process = os.getpid()
        # A round either forks or starts threads. If a thread starts or ends during a fork, CPython 3.13t can leave a
        # set of the module `threading` locked for ever in the child.
        self.forks = dice.random() < 0.5

    def __call__(self, *, starts=True):
        """Takes an action. `starts` says whether it may start threads."""
        if os.getpid() != self.process:
            # In a child, CPython drops the objects of other threads before it resets the locks of `threading`.
            return
        depth = getattr(self.depth, "now", 0)
        if depth < 3:
            self.depth.now = depth + 1
            try:
                self.act(self.dice.randrange(400), starts and not self.forks)
            finally:
                self.depth.now = depth

    def in_finalizer(self):
        """Takes an action of a `__del__`. It may run inside `threading`, whose lock a new thread would wait for."""
        with contextlib.suppress(PlannedError, RuntimeError):
            self(starts=False)

    def act(self, what, starts):
        cache, key = self.cache, self.dice.randrange(30)
        match what:
            case 0 | 1 | 2:
                raise PlannedError
            case 3:
                sys.setswitchinterval(self.dice.choice([1e-6, 1e-5, 1e-3]))
            case 4 if starts:
                # No thread joins this one, so that it uses the cache while its maker goes on.
                threading.Thread(target=self.quietly, args=(cache.set, key, Value()), daemon=True).start()
            case 5 if starts:
                thread = threading.Thread(target=self.quietly, args=(cache.remove, key))
                thread.start()
                thread.join()
            case 6:
                gc.collect(self.dice.randrange(3))
            case 7:
                time.sleep(1e-4)
            case 8 if self.forks:
                self.fork()
            case 9:
                cache.clear()
            case 10:
                cache.remove_if(lambda key, value: self.dice.randrange(2))
            case 11:
                cache.set_many([(key, Value()), (key + 1, Value())], ttl=1e-5)
            case 12:
                cache.get_with(key, Value)
            case 13:
                for _ in cache.items():
                    cache.remove(key)
            case 14:
                cache.stats(), cache.reset_stats(), cache.run_pending_tasks()

    def quietly(self, call, *arguments):
        with contextlib.suppress(PlannedError, RuntimeError):
            call(*arguments)

    def fork(self):
        if self.dice.randrange(20):
            return
        in_child(self.use)

    def use(self):
        # CPython 3.13t leaves an object locked in a child if its lock was being handed to a waiting thread.
        self.process, self.dice, self.causes = os.getpid(), random.Random(os.getpid()), []
        cache = self.cache
        self.quietly(lambda: (cache.set("new", 1), cache.get("new"), cache.get_with("newer", Value)))
        self.quietly(lambda: (cache.remove("new"), cache.stats(), cache.clear()))


class ChangingKey:
    """A key whose hash changes, and whose `__eq__` returns a random object."""

    __slots__ = ("mischief", "number")

    def __init__(self, number, mischief):
        self.number = number
        self.mischief = mischief

    def __hash__(self):
        self.mischief()
        return self.number + self.mischief.dice.randrange(2)

    def __eq__(self, other):
        self.mischief()
        answers = [self is other, [], [0], None, "yes", 2.5, NotImplemented, True]
        return self.mischief.dice.choice(answers)

    def __del__(self):
        self.mischief.in_finalizer()


class MischievousValue(Value):
    __slots__ = ("mischief",)

    def __init__(self, mischief):
        super().__init__()
        self.mischief = mischief

    def __del__(self):
        self.mischief.in_finalizer()


def mischief(round_):
    """All code of the user takes hostile actions, including starting threads, forking and collecting."""
    dice = random.Random(round_.dice("shape").random())

    def function(*_):
        act()
        return act.dice.choice([0, 1, 1, 3])

    def listener(key, value, cause):
        act.causes.append(cause)
        act()

    cache = Moka(
        dice.choice([1, 5, 40]),
        policy=dice.choice(POLICIES),
        ttl=dice.choice([None, 1e-4]),
        eviction_listener=dice.choice([None, listener]),
        weigher=dice.choice([None, function]),
    )
    act = HostileAction(cache, dice)
    shared = cached(maxsize=5, wait_concurrent=dice.random() < 0.5)(function)

    def yields():
        for _ in range(3):
            act()
            yield ChangingKey(act.dice.randrange(30), act)

    def make():
        act()
        return MischievousValue(act)

    def work(own):
        key = own.choice([own.randrange(30), ChangingKey(own.randrange(30), act)])
        # RuntimeError: computations that wait for each other, or too many threads. KeyError: what a load returns
        # does not find a key that has changed its hash.
        with contextlib.suppress(PlannedError, RuntimeError, KeyError):
            match own.randrange(9):
                case 0:
                    cache.get_with(key, make)
                case 1:
                    cache.remove_if(function)
                case 2:
                    shared(key)
                case 3:
                    cache.get_many(yields())
                case 4:
                    cache.set_many((each, make()) for each in yields())
                case 5:
                    cache.remove_many(yields())
                case _:
                    random_call(cache, own, key, make)

    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        round_.run(work)
        sys.setswitchinterval(1e-6)
        while threading.active_count() > 1 and not all(each.name == "collector" for each in threading.enumerate()[1:]):
            time.sleep(1e-3)
        assert cache.weighted_size() <= cache.capacity
        act.depth.now = 3
        for owned in (cache, shared.cache):
            check_empty(owned)
            assert len(owned) == len(list(owned)) == 0
    finally:
        sys.unraisablehook = hook
    assert set(act.causes) <= {"expired", "explicit", "replaced", "size"}
    del act.causes[:]
    act.cache = None
