"""Help for tests of programs that use caches: `ManualClock`, a clock that the test advances."""

from moka_py._moka_py import ManualClock

__all__ = ["ManualClock"]
