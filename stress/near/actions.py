"""What the threads and tasks of a worker do: random calls of a near cache, each with the record that it leaves.

A key is a number. Its parity says in which namespace it lies, and the rest says what happens to it.
"""

import itertools
from collections import Counter
from typing import NamedTuple

from history import ABSENT, FRESH_READ, LOAD, LOADING_READ, NEVER, READ, RESET, SET, now

KEYS_PER_ROUND = 120
# Keys of a round begin at its number times this.
ROUND_SPAN = 1000

RAW, JSON = 0, 1
NAMESPACES = ("stress-raw", "stress-json")
# Keys that are only set, that expire, that are computed, and that come and go.
PLAIN, EXPIRING, LOADED, CHURNED = range(4)
TTL_SECONDS = 0.4
# The lease of a call whose connection broke holds up the others for this time.
LEASE_SECONDS = 1.0

# Each process makes its own values.
VALUES_PER_PROCESS = 1 << 40


def namespace_of(key):
    return key & 1


def kind_of(key):
    return (key >> 1) % 4


def keys_of_round(number):
    return range(number * ROUND_SPAN, number * ROUND_SPAN + KEYS_PER_ROUND)


class Values:
    """Makes values that no other process makes, and that are never equal."""

    def __init__(self, process):
        self._next = itertools.count(process * VALUES_PER_PROCESS + 1).__next__

    def new(self):
        return self._next()


def encoded(key, value):
    """Return a value as the serializer of the key's namespace takes it."""
    return b"%d" % value if namespace_of(key) == RAW else value


class Call(NamedTuple):
    """A call of a near cache. `done(result, error, begin, end)` records it."""

    namespace: int
    method: str
    arguments: tuple
    options: dict
    done: object


class Actions:
    """Makes the calls of one thread or task."""

    def __init__(self, process, values, log, own_ends, dice, round_number, asynchronous):
        self._process = process
        self._values = values
        self._log = log
        # The end of this process's last own write of each key.
        self._own_ends = own_ends
        self._dice = dice
        self._asynchronous = asynchronous
        self._keys = list(keys_of_round(round_number))
        # Few keys are read often.
        self._weights = list(itertools.accumulate(1 / (1 + position) for position in range(len(self._keys))))
        dice_of_round = type(dice)(round_number)
        dice_of_round.shuffle(self._keys)
        self.errors = Counter()

    def read(self):
        key = self._dice.choices(self._keys, cum_weights=self._weights)[0]
        choice = self._dice.random()
        if kind_of(key) == LOADED and choice < 0.3:
            return self._get_with(key)
        if choice < 0.94:
            return self._get(key, READ, "get", {})
        if choice < 0.97:
            return self._get(key, FRESH_READ, "get", {"fresh": True})
        return self._get_many(key, fresh=choice > 0.99)

    def read_local(self):
        """Return a call of `get_local`, whose default does not tell that the key is absent."""
        key = self._dice.choices(self._keys, cum_weights=self._weights)[0]
        floor = self._own_ends.get(key, 0)

        def done(result, error, begin, end):
            if error is None and result != ABSENT:
                self._log.add_read(READ, key, int(result), begin, end, floor)

        return Call(namespace_of(key), "get_local", (str(key), ABSENT), {}, done)

    def write(self):
        key = self._dice.choice(self._keys)
        choice = self._dice.random()
        if choice < 0.002:
            return self._clear(key)
        if choice < 0.01:
            return Call(namespace_of(key), "clear_local", (), {}, self._nothing)
        match kind_of(key):
            case 0 if choice < 0.1:
                return self._touch(key)
            case 0 if choice < 0.3:
                return self._set_many(key)
            case 2 | 3 if choice < 0.4:
                return self._remove(key)
            case 3 if choice < 0.6:
                return self._add(key)
            case 3 if choice < 0.7:
                return self._remove_many(key)
        return self._set(key)

    def _get(self, key, kind, method, options):
        floor = self._own_ends.get(key, 0)

        def done(result, error, begin, end):
            if error is None:
                self._log.add_read(kind, key, int(result), begin, end, floor)
            else:
                self.failed(error)

        return Call(namespace_of(key), method, (str(key), ABSENT), options, done)

    def _get_many(self, key, fresh):
        keys = [key, *(each for each in self._dice.sample(self._keys, 4) if namespace_of(each) == namespace_of(key))]
        floors = {each: self._own_ends.get(each, 0) for each in keys}
        kind = FRESH_READ if fresh else READ

        def done(result, error, begin, end):
            if error is not None:
                self.failed(error)
                return
            for each, floor in floors.items():
                self._log.add_read(kind, each, int(result.get(str(each), ABSENT)), begin, end, floor)

        return Call(namespace_of(key), "get_many", ([str(each) for each in keys],), {"fresh": fresh}, done)

    def _get_with(self, key):
        floor = self._own_ends.get(key, 0)
        begun = []

        def initializer():
            begun.append((self._values.new(), now()))
            return encoded(key, begun[-1][0])

        async def async_initializer():
            return initializer()

        def done(result, error, begin, end):
            if error is not None:
                self.failed(error)
            elif int(result) not in (value for value, _ in begun):
                self._log.add_read(LOADING_READ, key, int(result), begin, end, floor)
            for value, computed_at in begun:
                self._log.add(LOAD, key, value, computed_at, end)

        arguments = (str(key), async_initializer if self._asynchronous else initializer)
        return Call(namespace_of(key), "get_with", arguments, {"lease": LEASE_SECONDS}, done)

    def _set(self, key):
        value = self._values.new()
        ttl = TTL_SECONDS if kind_of(key) == EXPIRING else None
        return self._writing("set", {key: value}, (str(key), encoded(key, value)), ttl=ttl)

    def _set_many(self, key):
        others = [
            each
            for each in self._dice.sample(self._keys, 6)
            if kind_of(each) == PLAIN and namespace_of(each) == namespace_of(key)
        ]
        values = {each: self._values.new() for each in dict.fromkeys([key, *others])}
        items = {str(each): encoded(each, value) for each, value in values.items()}
        return self._writing("set_many", values, (items,), ttl=None)

    def _add(self, key):
        value = self._values.new()
        return self._writing("add", {key: value}, (str(key), encoded(key, value)), ttl=None)

    def _touch(self, key):
        return self._writing("touch", {key: None}, (str(key),), ttl=None)

    def _remove(self, key):
        return self._writing("remove", {key: ABSENT}, (str(key),))

    def _remove_many(self, key):
        others = [
            each
            for each in self._dice.sample(self._keys, 6)
            if kind_of(each) == CHURNED and namespace_of(each) == namespace_of(key)
        ]
        keys = list(dict.fromkeys([key, *others]))
        return self._writing("remove_many", dict.fromkeys(keys, ABSENT), ([str(each) for each in keys],))

    def _writing(self, method, values, arguments, **options):
        """Return a call that writes values. A value is ABSENT for a removal, and None if it does not change."""

        def done(result, error, begin, end):
            if error is not None:
                self.failed(error)
            for key, value in values.items():
                if value is not None and not (method == "add" and result is False):
                    kind = RESET if value == ABSENT else SET
                    self._log.add(kind, key, value, begin, NEVER if error is not None else end)
                self._own_ends[key] = end

        return Call(namespace_of(next(iter(values))), method, arguments, options, done)

    def _clear(self, key):
        def done(result, error, begin, end):
            if error is not None:
                self.failed(error)
            for each in self._keys:
                if namespace_of(each) == namespace_of(key):
                    self._log.add(RESET, each, ABSENT, begin, NEVER if error is not None else end)

        return Call(namespace_of(key), "clear", (), {}, done)

    def _nothing(self, result, error, begin, end):
        if error is not None:
            self.failed(error)

    def failed(self, error):
        self.errors[type(error).__name__] += 1
