"""What the processes of a run record: each write, removal and read of a key, with its times.

The times are those of the system's monotonic clock, which all processes of a machine share. It is read before the call
and after the return, so a call can look longer than it was, but never shorter.
"""

import array
import time
from typing import NamedTuple

# The end of a call that raised. The server may execute it at any later time.
NEVER = (1 << 62) - 1
# The value of an absent key.
ABSENT = 0

now = time.monotonic_ns

# A write of a value, which is unique.
SET = 1
# A value that an initializer computed, and that was perhaps never written.
LOAD = 2
# A removal of the key. The key RESET_ALL stands for all keys.
RESET = 3
# A read by a call that may return a local entry, and by one that must not.
READ, FRESH_READ = 4, 5
# A read by `get_with` that ran no initializer.
LOADING_READ = 6

RESET_ALL = -1
FIELDS = 7


class Record(NamedTuple):
    """A call. A read has a floor: the end of this process's last own write of the key before the read, or 0."""

    kind: int
    key: int
    value: int
    begin: int
    end: int
    floor: int
    process: int


class Log:
    """The records of one thread. Of successive reads of a key with the same value, it keeps the first and the last.

    The first says best when the value was written, and the last is the oldest.
    """

    def __init__(self, process):
        self._process = process
        self._numbers = array.array("q")
        # For each key and kind of read: the value and floor of the last read, and the read if it is not yet recorded.
        self._last = {}
        self.reads = 0

    def add(self, kind, key, value, begin, end, floor=0):
        self._numbers.extend((kind, key, value, begin, end, floor, self._process))

    def add_read(self, kind, key, value, begin, end, floor):
        self.reads += 1
        known = self._last.get((kind, key))
        if known is not None and known[0] == (value, floor):
            known[1] = (begin, end)
            return
        self._flush(kind, key)
        self.add(kind, key, value, begin, end, floor)
        self._last[kind, key] = [(value, floor), None]

    def take(self):
        """Return all records as an array of numbers, and forget them."""
        for kind, key in self._last:
            self._flush(kind, key)
        self._last.clear()
        numbers, self._numbers = self._numbers, array.array("q")
        return numbers

    def _flush(self, kind, key):
        known = self._last.get((kind, key))
        if known is not None and known[1] is not None:
            (value, floor), (begin, end) = known
            self.add(kind, key, value, begin, end, floor)


def records(numbers):
    """Return the records of an array of numbers."""
    return [Record(*numbers[first : first + FIELDS]) for first in range(0, len(numbers), FIELDS)]
