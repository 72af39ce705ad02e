"""A naive model of a cache: a dict in order of use, and a clock.

It predicts what every call returns, what is counted, and which entries are removed for which cause. Two choices belong
to the cache: which of the expired entries a call removes, and, unless the policy is an exact LRU, which entries it
evicts. The model takes these from the listener's events, and checks that each of them was allowed.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from moka_py import Stats

SECOND = 10**9
# An access within a microsecond of the last one does not restart the time to idle.
MICROSECOND = 1_000


@dataclass
class Entry:
    key: Any
    value: Any
    weight: int
    expires_at: float
    used_at: int
    ttl: float
    tti: float

    def deadline(self):
        return min(self.expires_at, self.used_at + self.tti)


def nanos(seconds):
    """Return a duration in nanoseconds. `None` is infinite."""
    return float("inf") if seconds is None else round(seconds * SECOND)


class NaiveCache:
    def __init__(self, capacity, weigh, ttl, tti, is_exact, listener_events):
        self.capacity, self.weigh, self.is_exact = capacity, weigh, is_exact
        self.ttl, self.tti = nanos(ttl), nanos(tti)
        # The events that the model has not accounted for. `None` without a listener.
        self.events = None if listener_events is None else deque()
        self.listener_events = listener_events
        self.now = 0
        self.was_resized = self.was_written = False
        self.entries = {}  # In order of use, the least recently used first.
        self.counts = Counter()

    def live_contents(self):
        return {key: entry.value for key, entry in self.entries.items() if not self.is_expired(entry)}

    def is_expired(self, entry):
        return entry.deadline() <= self.now

    def weight(self):
        return sum(entry.weight for entry in self.entries.values())

    def live_entry(self, key):
        entry = self.entries.get(key)
        return None if entry is None or self.is_expired(entry) else entry

    def expires_in(self, key):
        entry = self.live_entry(key)
        remaining = float("inf") if entry is None else entry.deadline() - self.now
        return None if remaining == float("inf") else remaining / SECOND

    # The effects of calls.

    def take_events(self):
        """Take the events of the call that has just returned."""
        if self.events is None:
            self.remove_expired()
        else:
            self.events.extend(self.listener_events)
            self.listener_events.clear()

    def access(self, key, default):
        """Return the result of an access, and count it."""
        entry = self.live_entry(key)
        self.counts["misses" if entry is None else "hits"] += 1
        if entry is None:
            return default
        if self.now > entry.used_at + MICROSECOND:
            entry.used_at = self.now
        self.entries[entry.key] = self.entries.pop(key)
        return entry.value

    def write(self, key, value, ttl=None, tti=None):
        """Account for a write and for the removals that it caused."""
        weight = self.weigh(key, value)
        self.was_written = True
        replaced = self.live_entry(key)
        self.counts["inserts"] += replaced is None
        self.remove_if_present(key, "replaced")
        # As in a dict, a replacement keeps the first key object.
        key = key if replaced is None else replaced.key
        if weight > self.capacity or self.is_closed():
            self.expect_event(key, value, "size")
            self.counts["size"] += 1
            self.account_for_removals()
            return
        ttl, tti = min(self.ttl, nanos(ttl)), min(self.tti, nanos(tti))
        self.entries[key] = Entry(key, value, weight, self.now + ttl, self.now, ttl, tti)
        self.account_for_removals(keep=key)

    def set_with(self, key, value, ttl=None, tti=None):
        """Account for a write that keeps the deadlines of a present entry, unless a duration is given."""
        present = self.live_entry(key)
        self.write(key, value, **self.restarted(present, ttl, tti))
        entry = self.entries.get(key)
        if present is not None and entry is not None and ttl is tti is None:
            entry.expires_at, entry.used_at = present.expires_at, present.used_at

    def touch(self, key, ttl=None, tti=None):
        """Restart the deadlines of an entry. Return whether there is one."""
        entry = self.live_entry(key)
        if entry is None:
            return False
        durations = self.restarted(entry, ttl, tti)
        entry.ttl, entry.tti = min(self.ttl, nanos(durations["ttl"])), min(self.tti, nanos(durations["tti"]))
        entry.expires_at, entry.used_at = self.now + entry.ttl, self.now
        self.entries[entry.key] = self.entries.pop(key)
        return True

    def restarted(self, entry, ttl, tti):
        """Return the durations of an entry whose deadlines start anew. One that is not given stays its own."""
        if entry is not None:
            ttl = self.in_seconds(entry.ttl) if ttl is None else ttl
            tti = self.in_seconds(entry.tti) if tti is None else tti
        return {"ttl": ttl, "tti": tti}

    @staticmethod
    def in_seconds(duration):
        return None if duration == float("inf") else duration / SECOND

    def next_deadline(self):
        """Return the seconds until the earliest deadline, or None."""
        earliest = min((entry.deadline() for entry in self.entries.values()), default=float("inf"))
        return None if earliest == float("inf") else max(0, earliest - self.now) / SECOND

    def is_closed(self):
        """Return whether the cache was resized to 0, so that it keeps nothing, also no entry of weight zero."""
        return self.capacity == 0 and self.was_resized

    def resize(self, capacity):
        self.capacity, self.was_resized = capacity, True
        self.account_for_removals()
        if self.is_closed():
            for key in list(self.entries) if self.events is None else [event[0] for event in self.events]:
                self.remove_entry(key, "size")
            assert not self.entries, "the cache must be empty"

    def remove(self, key, default=None):
        entry = self.live_entry(key)
        self.remove_if_present(key, "explicit")
        self.account_for_removals()
        return default if entry is None else entry.value

    def remove_if_present(self, key, cause):
        if key in self.entries:
            self.remove_entry(key, cause)

    def remove_entry(self, key, cause):
        entry = self.entries.pop(key)
        cause = "expired" if self.is_expired(entry) else cause
        self.counts[cause] += 1
        self.expect_event(key, entry.value, cause)

    def expect_event(self, *event):
        if self.events is not None:
            assert self.events, f"the listener got no event {event}"
            assert self.events.popleft() == event

    def account_for_removals(self, keep=None):
        """Account for the other removals of the call: expired entries, and evictions while the weight was too high."""
        if self.events is None:
            self.remove_expired()
            while self.weight() > self.capacity:
                self.remove_entry(self.oldest_key(keep), "size")
        while self.events:
            key, value, cause = self.events[0]
            entry = self.entries.get(key)
            if entry is None or entry.value != value or cause not in ("expired", "size"):
                break
            if cause == "expired":
                assert self.is_expired(entry), f"{key} has not expired"
            elif self.weight() <= self.capacity:
                break
            else:
                assert keep is None or key != keep, "an entry must not be the victim of its own write"
                assert entry.weight, "the eviction of an entry of weight zero makes no room"
                assert not self.is_exact or key == self.oldest_key(keep), "the victim must be the oldest entry"
            self.remove_entry(key, cause)
        assert self.weight() <= self.capacity, "the weight must not exceed the capacity"

    def oldest_key(self, keep):
        return next(key for key, entry in self.entries.items() if entry.weight and (keep is None or key != keep))

    def remove_expired(self):
        for entry in [entry for entry in self.entries.values() if self.is_expired(entry)]:
            self.remove_entry(entry.key, "expired")

    def check_nothing_expired(self):
        """Check the state after a call that removes all expired entries and reports them."""
        self.account_for_removals()
        assert not [entry for entry in self.entries.values() if self.is_expired(entry)], (
            "an expired entry is still in the cache"
        )
        self.check_no_event_left()

    def check_no_event_left(self):
        self.account_for_removals()
        assert not self.events, f"these events have no explanation: {self.events}"

    def clear_all(self):
        events = [] if self.events is None else sorted(map(str, self.events))
        expected = []
        for entry in list(self.entries.values()):
            cause = "expired" if self.is_expired(entry) else "explicit"
            expected.append(str((entry.key, entry.value, cause)))
            self.counts[cause] += 1
        if self.events is not None:
            assert events == sorted(expected)
            self.events.clear()
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
            refreshes=0,
        )
