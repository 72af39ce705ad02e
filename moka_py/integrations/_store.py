"""What the backends of the frameworks share: the longest deadline, and `add`."""

from typing import Any

from moka_py import Moka

# In place of a value that a key does not have.
MISSING: Any = object()
# The longest ttl that a cache takes: 1,000 years.
LONGEST_SECONDS = 1000 * 365 * 24 * 3600


class _Present(Exception):
    """The key has a value."""


def add(cache: Moka[str, Any], key: str, value: Any, ttl: float | None) -> bool:
    """Store a value atomically if the key has none, and return whether it was stored.

    It does not wait for a load of the key that is in flight, as `get_with` would. The load's result is not stored then.
    """

    def refuse_present(present: Any) -> Any:
        if present is not MISSING:
            raise _Present
        return value

    if key in cache:
        return False
    try:
        cache.set_with(key, refuse_present, MISSING, ttl)
    except _Present:
        return False
    return True
