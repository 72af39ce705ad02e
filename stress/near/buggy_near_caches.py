"""Near caches with one bug each, for the processes with threads. The checker must find every bug."""

import time


class Buggy:
    """Passes every call to a near cache. A subclass answers some calls by values that it keeps itself."""

    def __init__(self, near, bound):
        self._near = near
        self._bound = bound
        # By key: a value and the time when its read began.
        self._kept = {}

    def __getattr__(self, name):
        return getattr(self._near, name)

    def _kept_get(self, key, default, seconds, **options):
        """Return a value that this object read at most so many seconds ago, or read it."""
        known = self._kept.get(key)
        began = time.monotonic()
        if known is not None and began - known[1] < seconds:
            return known[0]
        value = self._near.get(key, default, **options)
        self._kept[key] = value, began
        return value


class TooOld(Buggy):
    """`get` returns values up to twice as old as the bound."""

    def get(self, key, default=None, *, fresh=False):
        if fresh:
            return self._near.get(key, default, fresh=True)
        return self._kept_get(key, default, 2 * self._bound)


class OwnWriteIgnored(Buggy):
    """`get` stays within the bound, but returns values from before an own write."""

    def get(self, key, default=None, *, fresh=False):
        if fresh:
            return self._near.get(key, default, fresh=True)
        return self._kept_get(key, default, self._bound / 4, fresh=True)


class FreshIsLocal(Buggy):
    """`get` with fresh=True may return a local value."""

    def get(self, key, default=None, *, fresh=False):
        return self._near.get(key, default)


class RemovalLost(Buggy):
    """`get` does not notice that a key became absent."""

    def get(self, key, default=None, *, fresh=False):
        value = self._near.get(key, default, fresh=fresh)
        if value != default:
            self._kept[key] = value
        return self._kept.get(key, default)


class CreationLost(Buggy):
    """`get` does not notice for twice the bound that an absent key was written."""

    def get(self, key, default=None, *, fresh=False):
        absent_since = self._kept.get(key)
        if absent_since is not None and time.monotonic() - absent_since < 2 * self._bound:
            return default
        value = self._near.get(key, default, fresh=fresh)
        self._kept[key] = time.monotonic() if value == default else None
        return value


BUGS = {
    "too_old": TooOld,
    "own_write_ignored": OwnWriteIgnored,
    "fresh_is_local": FreshIsLocal,
    "removal_lost": RemovalLost,
    "creation_lost": CreationLost,
}
