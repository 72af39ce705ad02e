"""Cases of the torture in which keys, values and functions of a user do what they should not."""

import contextlib
import gc
import os
import random
import sys
import threading
import time

from torture_lib import POLICIES, Planned, Value, check_empty, in_child, some_operation

from moka_py import Moka, cached


class HostileKey:
    """A key whose hash and equality raise, sleep, collect, change the cache, or answer what is no bool."""

    __slots__ = ("acts", "cache", "dice", "number")

    def __init__(self, number, dice, cache):
        self.number = number
        self.dice = random.Random(dice.random())
        self.cache = cache
        self.acts = dice.random() < 0.5

    def __hash__(self):
        if self.acts and self.dice.random() < 0.01:
            raise Planned("hash")
        return self.number % 5

    def __eq__(self, other):
        if not isinstance(other, HostileKey):
            return NotImplemented
        if self.acts:
            match self.dice.randrange(40):
                case 0:
                    raise Planned("eq")
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
            with contextlib.suppress(Planned, RecursionError, RuntimeError):
                self.cache.get(self.dice.randrange(20))


def hostile_keys(round_):
    """Keys whose `__eq__` and `__hash__` do as they please."""
    dice = round_.dice("shape")
    cache = Moka(dice.choice([1, 10, 50]), policy=dice.choice(POLICIES), ttl=dice.choice([None, 1e-3]))

    def work(dice):
        # RuntimeError: a comparison inside a computation asked for what is being computed.
        with contextlib.suppress(Planned, RuntimeError):
            some_operation(cache, dice, HostileKey(dice.randrange(30), dice, cache), Value)

    round_.run(work)
    assert cache.weighted_size() <= cache.capacity
    check_empty(cache)


class LateValue(Value):
    """A value whose end uses the cache."""

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
            raise Planned("listener")
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
            raise Planned("weigher")
        if chance == 1:
            nested(lambda: cache.remove(key))
        return chance % 4

    cache = Moka(40, policy=dice.choice(POLICIES), eviction_listener=listener, weigher=weigher)

    def initializer():
        chance = random.randrange(20)
        if chance == 0:
            raise Planned("initializer")
        if chance < 4:
            nested(lambda: cache.get_with(random.randrange(50), initializer))
        return LateValue(cache)

    def work(dice):
        key = dice.randrange(50)
        try:
            if dice.randrange(2):
                cache.get_with(key, initializer)
            else:
                some_operation(cache, dice, key, lambda: LateValue(cache))
        except (Planned, RuntimeError):
            pass  # RuntimeError: a circle of computations.

    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        round_.run(work)
        assert cache.weighted_size() <= cache.capacity
        for _ in range(20):
            cache.clear()
    finally:
        sys.unraisablehook = hook


class Mischief:
    """Does something that nobody should do where it is asked to: inside a key, a callback, or the end of a value."""

    def __init__(self, cache, dice):
        self.cache = cache
        self.dice = dice
        self.depth = threading.local()
        self.heard = []
        self.process = os.getpid()
        # One of both: CPython 3.13t can leave a set of `threading` locked for ever in a child, if another thread was
        # starting or ending then.
        self.forks = dice.random() < 0.5

    def __call__(self, *, starts=True):
        """`starts`: whether it may also start threads."""
        if os.getpid() != self.process:
            # In a child CPython drops what other threads held before the locks of `threading` are whole again.
            return
        depth = getattr(self.depth, "now", 0)
        if depth < 3:
            self.depth.now = depth + 1
            try:
                self.act(self.dice.randrange(400), starts and not self.forks)
            finally:
                self.depth.now = depth

    def at_end(self):
        """What a `__del__` does: it may run inside of `threading`, whose lock a thread that is started waits for."""
        with contextlib.suppress(Planned, RuntimeError):
            self(starts=False)

    def act(self, what, starts):
        cache, key = self.cache, self.dice.randrange(30)
        match what:
            case 0 | 1 | 2:
                raise Planned
            case 3:
                sys.setswitchinterval(self.dice.choice([1e-6, 1e-5, 1e-3]))
            case 4 if starts:
                # Joined it may be by nobody: it uses the cache while its maker goes on.
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
        with contextlib.suppress(Planned, RuntimeError):
            call(*arguments)

    def fork(self):
        if self.dice.randrange(20):
            return
        in_child(self.use)

    def use(self):
        # CPython 3.13t leaves an object locked in a child if its lock was on its way to a thread that waited for it.
        self.process, self.dice, self.heard = os.getpid(), random.Random(os.getpid()), []
        cache = self.cache
        self.quietly(lambda: (cache.set("new", 1), cache.get("new"), cache.get_with("newer", Value)))
        self.quietly(lambda: (cache.remove("new"), cache.stats(), cache.clear()))


class ChangingKey:
    """A key whose hash changes, and which is equal to whatever it likes, by an answer that need be no bool."""

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
        self.mischief.at_end()


class MischievousValue(Value):
    __slots__ = ("mischief",)

    def __init__(self, mischief):
        super().__init__()
        self.mischief = mischief

    def __del__(self):
        self.mischief.at_end()


def mischief(round_):
    """Everything that is a user's code does what it should not, also start threads, fork and collect."""
    dice = random.Random(round_.dice("shape").random())

    def function(*_):
        act()
        return act.dice.choice([0, 1, 1, 3])

    def listener(key, value, cause):
        act.heard.append(cause)
        act()

    cache = Moka(
        dice.choice([1, 5, 40]),
        policy=dice.choice(POLICIES),
        ttl=dice.choice([None, 1e-4]),
        eviction_listener=dice.choice([None, listener]),
        weigher=dice.choice([None, function]),
    )
    act = Mischief(cache, dice)
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
        # RuntimeError: a circle of computations, or too many threads.
        with contextlib.suppress(Planned, RuntimeError):
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
                    some_operation(cache, own, key, make)

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
    assert set(act.heard) <= {"expired", "explicit", "replaced", "size"}
    del act.heard[:]
    act.cache = None
