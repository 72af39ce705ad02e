"""The arguments of near caches: options, durations, namespaces and keys, checked and converted.

A key is a `str`, or a `bytes` that is not UTF-8: the form that the local tier has. So 1, "1" and b"1" are one key.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal

Key = str | bytes | int
"""A key as a caller gives it."""
TierKey = str | bytes
"""A key as the local tier has it."""
Duration = float | timedelta

BUILTIN_KEYS = (str, bytes, int)
"""The types of keys. An instance of a subclass of the first two is a key, too."""
MAX_SECONDS = 1000 * 365.25 * 86_400
"""A duration of more than 1,000 years counts as a mistake."""


class Default(enum.Enum):
    """The default of the argument `ttl`, which stands for the ttl of the near cache."""

    TTL = "the ttl of the near cache"

    def __repr__(self) -> str:
        return "..."


def seconds(name: str, value: object) -> float:
    """Return a positive duration in seconds.

    Raises:
        TypeError: It is neither a number nor a timedelta.
        ValueError: It is not positive, not finite, or longer than 1,000 years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{name} must be a number of seconds or a timedelta, got {type(value).__name__}")
    try:
        duration = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except OverflowError:
        duration = math.copysign(math.inf, int(value > 0) - 0.5) if isinstance(value, int) else math.inf
    if not duration > 0 or math.isinf(duration):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if duration > MAX_SECONDS:
        raise ValueError(f"{name} must be at most 1,000 years (out of range), got {value!r}")
    return duration


def milliseconds(name: str, value: object) -> int:
    """Return a positive duration in whole milliseconds, at least 1."""
    return max(1, round(seconds(name, value) * 1000))


def namespace_prefix(namespace: object) -> bytes:
    """Return the beginning of the server's keys of a namespace.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, contains ":", or has no UTF-8 form.
    """
    if not isinstance(namespace, str):
        raise TypeError(f"namespace must be a str, got {type(namespace).__name__}")
    if not namespace or ":" in namespace:
        raise ValueError(f'namespace must not be empty and must not contain ":", got {namespace!r}')
    return namespace.encode() + b":"


def tier_key(key: object) -> TierKey:
    """Return a key in the form of the local tier.

    Raises:
        TypeError: It is not a str, bytes or int. A bool or an instance of a subclass of int is none of these.
        UnicodeEncodeError: It is a str that has no UTF-8 form.
    """
    if isinstance(key, str):
        key.encode()
        return str.__str__(key)
    if isinstance(key, bytes):
        return tier_key_of_bytes(key)
    if type(key) is int:
        return str(key)
    raise TypeError(f"key must be a str, bytes or int, got {type(key).__name__}")


def tier_key_of_bytes(key: bytes) -> TierKey:
    """Return a key of the server, without its prefix, in the form of the local tier."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return bytes(key)


def key_bytes(key: TierKey) -> bytes:
    """Return a key of the local tier as the server has it, without its prefix."""
    return key.encode() if isinstance(key, str) else key


@dataclass(frozen=True, eq=False)
class Options:
    """The options of a near cache. All near caches of a namespace in a process have the same."""

    ttl: int | None
    """Milliseconds."""
    capacity: int
    local_ttl: float | None
    policy: Literal["tiny_lfu", "lru"]
    weigher: Callable[[TierKey, Any], int] | None
    max_staleness: float
    serializer: object
    on_error: Literal["raise", "miss"]
    stale_if_error: float | None
    copy: Callable[[Any], Any] | None

    @property
    def heartbeat(self) -> float:
        """Seconds between two heartbeats."""
        return self.max_staleness / 4

    def check_equal(self, other: Options) -> None:
        """Raise ValueError if the options of another near cache of the same namespace are different."""
        for field in fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if mine is not others and mine != others:
                raise ValueError(
                    f"{field.name} must be the same for all near caches of this namespace in a process,"
                    f" got {others!r} beside {mine!r}"
                )


def make_options(
    *,
    ttl: object,
    capacity: object,
    local_ttl: object,
    policy: object,
    weigher: Any,
    max_staleness: object,
    serializer: object,
    on_error: object,
    stale_if_error: object,
    copy: Any,
) -> Options:
    """Check the options. `Moka` checks the capacity and the policy, and `_serializers` the serializer."""
    if on_error not in ("raise", "miss"):
        raise ValueError(f'on_error must be "raise" or "miss", got {on_error!r}')
    for name, function in (("weigher", weigher), ("copy", copy)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable or None, got {type(function).__name__}")
    checked: dict[str, Any] = {
        "ttl": None if ttl is None else milliseconds("ttl", ttl),
        "local_ttl": None if local_ttl is None else seconds("local_ttl", local_ttl),
        "max_staleness": seconds("max_staleness", max_staleness),
        "stale_if_error": None if stale_if_error is None else seconds("stale_if_error", stale_if_error),
    }
    others: dict[str, Any] = {
        "capacity": capacity,
        "policy": policy,
        "weigher": weigher,
        "serializer": serializer,
        "on_error": on_error,
        "copy": copy,
    }
    return Options(**checked, **others)
