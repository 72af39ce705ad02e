"""Caches with one bug each. The linearizability checker must find every bug."""

import random
import threading
import time

from moka_py import Moka

ABSENT = object()


class StaleGet(Moka):
    """`get` sometimes repeats an earlier result."""

    def __init__(self, *_, **__):
        self.before = {}

    def get(self, key, default=None):
        value = super().get(key, default)
        if random.random() < 0.01:
            return self.before.get(key, value)
        self.before[key] = value
        return value


class TornSetdefault(Moka):
    """`setdefault` looks the key up, and then sets it in a second step."""

    def setdefault(self, key, default=None):
        value = super().get(key, ABSENT)
        if value is ABSENT:
            time.sleep(0)
            self.set(key, default)
            return default
        return value


class TornSetWith(Moka):
    """`set_with` reads the value, and then sets another in a second step."""

    def set_with(self, key, function, default=None, ttl=None):
        value = function(self.peek(key, default))
        time.sleep(0)
        self.set(key, value, ttl)
        return value


class TornPop(Moka):
    """`pop` reads the value, and then removes it in a second step."""

    def pop(self, key, default=None):
        value = super().get(key, default)
        time.sleep(0)
        self.remove(key)
        return value


class OverwritingLoad(Moka):
    """`get_with` stores the computed value over a later write."""

    def get_with(self, key, initializer):
        value = super().get(key, ABSENT)
        if value is ABSENT:
            value = initializer()
            self.set(key, value)
        return value


class LazySet(Moka):
    """`set` takes effect at the next `set` of the same thread, after it has returned."""

    def __init__(self, *_, **__):
        self.local = threading.local()

    def set(self, key, value, ttl=None):
        before = getattr(self.local, "pending", None)
        self.local.pending = key, value
        if before:
            super().set(*before)


BUGS = {
    "stale_get": StaleGet,
    "torn_setdefault": TornSetdefault,
    "torn_set_with": TornSetWith,
    "torn_pop": TornPop,
    "overwriting_load": OverwritingLoad,
    "lazy_set": LazySet,
}
