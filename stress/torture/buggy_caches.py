"""Caches with a mistake each, which a check of what threads see must find."""

import random
import threading
import time

from moka_py import Moka

ABSENT = object()


class StaleGet(Moka):
    """Answers now and then what it answered before."""

    def __init__(self, *_, **__):
        self.before = {}

    def get(self, key, default=None):
        value = super().get(key, default)
        if random.random() < 0.01:
            return self.before.get(key, value)
        self.before[key] = value
        return value


class TornSetdefault(Moka):
    """Looks, then sets."""

    def setdefault(self, key, default=None):
        value = super().get(key, ABSENT)
        if value is ABSENT:
            time.sleep(0)
            self.set(key, default)
            return default
        return value


class TornPop(Moka):
    """Looks, then removes."""

    def pop(self, key, default=None):
        value = super().get(key, default)
        time.sleep(0)
        self.remove(key)
        return value


class LateLanding(Moka):
    """Puts what it computed over what was set meanwhile."""

    def get_with(self, key, initializer):
        value = super().get(key, ABSENT)
        if value is ABSENT:
            value = initializer()
            self.set(key, value)
        return value


class LazySet(Moka):
    """Sets later than it returns, when the same thread comes again."""

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
    "torn_pop": TornPop,
    "late_landing": LateLanding,
    "lazy_set": LazySet,
}
