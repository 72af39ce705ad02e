"""A naive model of a cache: a dict in the order of uses, and a clock. It foretells what every call returns, what is
counted, and who leaves for what cause.

Two choices are the cache's own: which of the entries that are due leave in a call, and, unless the policy is an exact
LRU, whom the capacity costs. There the model is told by the listener, checks that the choice was a lawful one, and
follows.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from moka_py import Stats

SECOND = 10**9
# A use within a microsecond of the last one does not count for the tti.
MICROSECOND = 1_000


@dataclass
class Entry:
    key: Any
    value: Any
    weight: int
    expires_at: float
    used_at: int
    tti: float

    def deadline(self):
        return min(self.expires_at, self.used_at + self.tti)


def nanos(seconds):
    """A duration in nanoseconds; none is without end."""
    return float("inf") if seconds is None else round(seconds * SECOND)


class Naive:
    def __init__(self, capacity, weigh, ttl, tti, is_exact, told):
        self.capacity, self.weigh, self.is_exact = capacity, weigh, is_exact
        self.ttl, self.tti = nanos(ttl), nanos(tti)
        # What the listener was told and the model has not accounted for; None without a listener.
        self.told = told if told is None else deque()
        self.source = told
        self.now = 0
        self.entries = {}  # The least recently used comes first.
        self.counts = Counter()

    def live(self):
        return {key: entry.value for key, entry in self.entries.items() if not self.is_due(entry)}

    def is_due(self, entry):
        return entry.deadline() <= self.now

    def weight(self):
        return sum(entry.weight for entry in self.entries.values())

    def find(self, key):
        entry = self.entries.get(key)
        return None if entry is None or self.is_due(entry) else entry

    def expires_in(self, key):
        entry = self.find(key)
        left = float("inf") if entry is None else entry.deadline() - self.now
        return None if left == float("inf") else left / SECOND

    # What calls do.

    def hear(self):
        """Takes in what the listener was told by the call that has just returned."""
        if self.told is None:
            self.drop_due()
        else:
            self.told.extend(self.source)
            self.source.clear()

    def access(self, key, default):
        """What an access returns; it counts and is a use."""
        entry = self.find(key)
        self.counts["misses" if entry is None else "hits"] += 1
        if entry is None:
            return default
        if self.now > entry.used_at + MICROSECOND:
            entry.used_at = self.now
        self.entries[entry.key] = self.entries.pop(key)
        return entry.value

    def write(self, key, value, ttl=None, tti=None):
        """Accounts for a write, and for what it made leave."""
        weight = self.weigh(key, value)
        # What takes another's place is no entry that came.
        there = self.find(key)
        self.counts["inserts"] += there is None
        self.leave_if_there(key, "replaced")
        # As in a dict, the key that came first stays.
        key = key if there is None else there.key
        if weight > self.capacity:
            self.expect(key, value, "size")
            self.counts["size"] += 1
            self.follow()
            return
        ttl, tti = min(self.ttl, nanos(ttl)), min(self.tti, nanos(tti))
        self.entries[key] = Entry(key, value, weight, self.now + ttl, self.now, tti)
        self.follow(keep=key)

    def remove(self, key, default=None):
        entry = self.find(key)
        self.leave_if_there(key, "explicit")
        self.follow()
        return default if entry is None else entry.value

    def leave_if_there(self, key, cause):
        if key in self.entries:
            self.leave(key, cause)

    def leave(self, key, cause):
        entry = self.entries.pop(key)
        cause = "expired" if self.is_due(entry) else cause
        self.counts[cause] += 1
        self.expect(key, entry.value, cause)

    def expect(self, *event):
        if self.told is not None:
            assert self.told, f"nobody was told of {event}"
            assert self.told.popleft() == event

    def follow(self, keep=None):
        """Follows what else the call made leave: what is due, and evictions of others as long as it was over."""
        if self.told is None:
            self.drop_due()
            while self.weight() > self.capacity:
                self.leave(self.oldest(keep), "size")
        while self.told:
            key, value, cause = self.told[0]
            entry = self.entries.get(key)
            if entry is None or entry.value != value or cause not in ("expired", "size"):
                break
            if cause == "expired":
                assert self.is_due(entry), f"{key} is not due"
            elif self.weight() <= self.capacity:
                break
            else:
                assert keep is None or key != keep, "an entry is not the victim of its own write"
                assert entry.weight, "that it leaves makes no room"
                assert not self.is_exact or key == self.oldest(keep), "the oldest leaves"
            self.leave(key, cause)
        assert self.weight() <= self.capacity, "the bound is exact"

    def oldest(self, keep):
        return next(key for key, entry in self.entries.items() if entry.weight and (keep is None or key != keep))

    def drop_due(self):
        for entry in [entry for entry in self.entries.values() if self.is_due(entry)]:
            self.leave(entry.key, "expired")

    def settled(self):
        """After a call that makes all leave that is due, and when all that was told is accounted for."""
        self.follow()
        assert not [entry for entry in self.entries.values() if self.is_due(entry)], "all that is due has left"
        self.done()

    def done(self):
        self.follow()
        assert not self.told, f"nothing explains {self.told}"

    def cleared(self):
        told = [] if self.told is None else sorted(map(str, self.told))
        expected = []
        for entry in list(self.entries.values()):
            cause = "expired" if self.is_due(entry) else "explicit"
            expected.append(str((entry.key, entry.value, cause)))
            self.counts[cause] += 1
        if self.told is not None:
            assert told == sorted(expected)
            self.told.clear()
        self.entries.clear()

    def stats(self, load_seconds):
        counts, accesses = self.counts, self.counts["hits"] + self.counts["misses"]
        return Stats(
            hits=counts["hits"],
            misses=counts["misses"],
            hit_ratio=counts["hits"] / accesses if accesses else 0.0,
            inserts=counts["inserts"],
            replacements=counts["replaced"],
            evictions=counts["size"],
            expirations=counts["expired"],
            removals=counts["explicit"],
            loads=counts["loads"],
            load_failures=counts["failures"],
            load_seconds=load_seconds,
            weight=self.weight(),
            count=len(self.entries),
        )
