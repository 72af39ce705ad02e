"""Finds reads that are older than their bound, in the records of a run.

A read that may be stale by `bound` must return what the server held at some time between its begin minus the bound and
its end. So its interval is extended by the bound, but not beyond the end of its process's last own write of that key.
The interval of a fresh read is not extended. Then the history of each key must be linearizable.

For a register whose written values are all different, this is decided by intervals (Gibbons and Korach, "Testing shared
memories", 1997). The zone of a value lies between the first end and the last begin of the calls that wrote or read it:

- If the first end is earlier, the key had this value during the whole zone: a forward zone. Two of them must not
  overlap.
- Else the zone is a backward zone: the key had the value at some time within. It must not lie inside of a forward zone
  of another value, and neither must a removal or a read of an absent key.

A call that raised may be executed at any later time. So it counts only if its value was read.

A computed value must not be stored over a write that came after its computation began. So after such a write has ended
it must not be read.
"""

import bisect
from collections import defaultdict
from typing import NamedTuple

from history import ABSENT, FRESH_READ, LOAD, LOADING_READ, NEVER, READ, RESET, RESET_ALL, SET, Record

READS = {READ, FRESH_READ, LOADING_READ}
NANOS_PER_MS = 1_000_000
NO_CHANGE = Record(RESET, 0, ABSENT, NEVER, NEVER, 0, 0)
# How late a server with a busy machine may be in noticing a deadline, by its own clock.
EXPIRY_SLACK_NANOS = 100 * NANOS_PER_MS


class Zone(NamedTuple):
    """The calls of one value: the one that ended first, and the one that began last."""

    first_end: int
    last_begin: int
    first: object
    last: object

    @property
    def is_forward(self):
        return self.first_end < self.last_begin


class Cluster:
    """A written value, and the calls that read it."""

    def __init__(self, write):
        self.write = write
        self.reads = []
        self.first_end, self.first = (NEVER if write.kind == LOAD else write.end), write
        self.last_begin, self.last = write.begin, write

    def add(self, read, begin):
        self.reads.append(read)
        if read.end < self.first_end:
            self.first_end, self.first = read.end, read
        if begin > self.last_begin:
            self.last_begin, self.last = begin, read

    def zone(self):
        return Zone(self.first_end, self.last_begin, self.first, self.last)


class KeyChecker:
    """Checks the records of one key. `ttl` is the lifetime in nanoseconds of each of its values, or None."""

    def __init__(self, records, bound, ttl=None):
        self._bound = bound
        self._ttl = ttl
        self._resets = [each for each in records if each.kind == RESET]
        self._clusters = {each.value: Cluster(each) for each in records if each.kind in (SET, LOAD)}
        self._reads = [each for each in records if each.kind in READS]
        self.problems = []
        # By how many nanoseconds a read was older than the server at most.
        self.worst_staleness = 0

    def check(self):
        """Return a list of descriptions of what is wrong."""
        absent = []
        for read in self._reads:
            if read.value == ABSENT:
                absent.append(read)
            elif read.value not in self._clusters:
                self._report("a value was read that was never written", read)
            else:
                self._add(self._clusters[read.value], read)
        zones = [each.zone() for each in self._clusters.values() if each.first_end != NEVER]
        zones += [Zone(each.end, each.begin, each, each) for each in self._resets if each.end != NEVER]
        self._forward = sorted(zone for zone in zones if zone.is_forward)
        self._check_forward_zones()
        for zone in zones:
            if not zone.is_forward:
                self._check_inside(zone.last_begin, zone.first_end, zone.first, zone.last)
        self._changes = [each.write for each in self._clusters.values() if each.write.kind == SET] + self._resets
        self._changes.sort(key=lambda each: each.begin)
        self._first_to_end = [NO_CHANGE]
        for change in reversed(self._changes):
            self._first_to_end.append(min(change, self._first_to_end[-1], key=lambda each: each.end))
        self._first_to_end.reverse()
        self._check_computed()
        # A key that expires may be absent at any time, because the server may also evict it.
        if self._ttl is None:
            self._check_absent(absent)
        else:
            self._check_deadlines()
        self._measure_staleness()
        return self.problems

    def _add(self, cluster, read):
        write = cluster.write
        if read.end < write.begin:
            self._report("a value was read before it was written", write, read)
            return
        # Such a call may have joined the computation, whose value it returns even if it is not stored.
        is_joiner = write.kind == LOAD and read.process == write.process and read.begin < write.end
        if not is_joiner:
            cluster.add(read, self._begin(read))

    def _begin(self, read):
        """Return the begin of a read's extended interval. It is after the own write, not at its end."""
        return read.begin if read.kind == FRESH_READ else max(read.begin - self._bound, read.floor + 1)

    def _check_forward_zones(self):
        for zone, following in zip(self._forward, self._forward[1:], strict=False):
            if following.first_end < zone.last_begin:
                self._report("an overwritten value was read", zone.first, following.first, zone.last, following.last)

    def _check_inside(self, begin, end, *calls):
        """Report if the key had one value during the whole interval."""
        position = bisect.bisect_left(self._forward, begin, key=lambda zone: zone.first_end) - 1
        if position >= 0 and self._forward[position].last_begin > end:
            zone = self._forward[position]
            self._report("a value was read in spite of a later write or removal", zone.first, *calls, zone.last)

    def _check_absent(self, reads):
        """Report reads of an absent key that had a value, because no removal can have come after the write."""
        resets = sorted(self._resets, key=lambda each: each.begin)
        latest, latest_ends = 0, []
        for reset in resets:
            latest = max(latest, reset.end)
            latest_ends.append(latest)
        writes = sorted(
            (each for each in self._clusters.values() if each.first_end != NEVER), key=lambda each: each.write.begin
        )
        earliest = self._earliest_ends([each.first_end for each in writes])
        for read in reads:
            begin = self._begin(read)
            self._check_inside(begin, read.end, read)
            position = bisect.bisect_left(resets, read.end, key=lambda each: each.begin) - 1
            absent_until = latest_ends[position] if position >= 0 else 0
            first = bisect.bisect_right(writes, absent_until, key=lambda each: each.write.begin)
            if earliest[first] < begin:
                write = next(each for each in writes[first:] if each.first_end == earliest[first])
                self._report("a key that was written was absent", write.write, write.first, read)

    def _check_deadlines(self):
        for cluster in self._clusters.values():
            if cluster.first_end == NEVER:
                continue
            deadline = cluster.first_end + self._ttl + EXPIRY_SLACK_NANOS
            for read in cluster.reads:
                if read.begin > deadline:
                    self._report("a value was read after its deadline", cluster.first, read)

    def _measure_staleness(self):
        """Find the read that is most behind the server."""
        for cluster in self._clusters.values():
            replaced_at = self._first_change_after(cluster.first_end).end
            for read in cluster.reads:
                self.worst_staleness = max(self.worst_staleness, read.begin - replaced_at)

    def _check_computed(self):
        for cluster in self._clusters.values():
            if cluster.write.kind == LOAD and cluster.reads:
                change = self._first_change_after(cluster.write.begin)
                if change.end < cluster.last_begin:
                    self._report("a computed value was stored over a later write", cluster.write, change, cluster.last)

    def _first_change_after(self, time):
        """Return the call that ended first, of the writes and removals that began after a time."""
        first = bisect.bisect_right(self._changes, time, key=lambda each: each.begin)
        return self._first_to_end[first]

    @staticmethod
    def _earliest_ends(ends):
        """Return for each position the earliest end from there on, and NEVER after the last."""
        earliest = [NEVER]
        for end in reversed(ends):
            earliest.append(min(end, earliest[-1]))
        return earliest[::-1]

    def _report(self, what, *records):
        self.problems.append((what, records))


def check(records, bound, ttls):
    """Return all problems of a history and its worst staleness.

    `bound` is in nanoseconds, and `ttls` has the lifetime of each key that has one.
    """
    by_key = defaultdict(list)
    for record in records:
        by_key[record.key].append(record)
    for_all = by_key.pop(RESET_ALL, [])
    problems, worst = [], 0
    for key, own in sorted(by_key.items()):
        checker = KeyChecker(own + [each._replace(key=key) for each in for_all], bound, ttls.get(key))
        problems += checker.check()
        worst = max(worst, checker.worst_staleness)
    return problems, worst


NAMES = {
    SET: "set",
    LOAD: "load",
    RESET: "removal",
    READ: "read",
    FRESH_READ: "fresh read",
    LOADING_READ: "get_with",
}


def describe(problem, start):
    """Return lines about a problem, with times in milliseconds after `start`."""
    what, records = problem
    lines = [f"key {records[0].key}: {what}"]
    for each in dict.fromkeys(records):
        call = f"{NAMES[each.kind]} of {each.value or 'absent'} by process {each.process}"
        begin = (each.begin - start) / NANOS_PER_MS
        end = "never" if each.end == NEVER else f"{(each.end - start) / NANOS_PER_MS:.3f}"
        floor = f", after an own write at {(each.floor - start) / NANOS_PER_MS:.3f}" if each.floor else ""
        lines.append(f"    {begin:.3f} to {end} ms: {call}{floor}")
    return lines
