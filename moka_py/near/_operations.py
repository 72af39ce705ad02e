"""The operations of near caches, without input and output.

How it works: an operation is a generator. It yields what it needs, a `Step`, and is resumed with the outcome.
`_driver.py` carries the steps out with a synchronous client, and `_async_driver.py` with an asynchronous one. So both
have one protocol. `_loading.py` has the operation of `get_with`, and this file has the others.

Invariants:
- `registered-first`: a fill begins before the request that it depends on is sent (law 13).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from moka_py._moka_py import _Fill
from moka_py.near._lease import ADD, TOUCH, Script
from moka_py.near._options import TierKey, key_bytes
from moka_py.near._serializers import Codec, UndecodableError, is_lease
from moka_py.near._tier import ABSENT, MISSING, Tier

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]
Reply = Any


class Ask(NamedTuple):
    """Send commands together. The outcome is the list of their replies. An error reply is in the list."""

    commands: Sequence[Command]


class Run(NamedTuple):
    """Run an initializer. The outcome is its result."""

    initializer: Callable[[], Any]


class Wait(NamedTuple):
    """Wait for a change of a key, for at most so many seconds."""

    key: TierKey
    wakeup: Wakeup
    seconds: float


class Share(NamedTuple):
    """Carry out an operation once for all calls of this process that ask for it at the time.

    The outcome is its result. The calls are those whose flights have the same table, `computations`, and key.
    """

    key: TierKey
    operation: Callable[[], Steps[Any]]


Step = Ask | Run | Wait | Share
Steps = Generator[Step, Any, T]
"""The steps of an operation that returns a `T`."""


class Wakeup:
    """What a waiting load waits for. The driver sets `notify` to what wakes it."""

    def __init__(self) -> None:
        self.is_set = False
        self.notify: Callable[[], object] | None = None

    def wake(self) -> None:
        """Note a change of the key, and wake the load."""
        self.is_set = True
        notify = self.notify
        if notify is not None:
            notify()


SCAN_COUNT = 1000
"""How many keys `clear` asks for at a time, and the most keys of one command."""


class Operations:
    """The operations on one namespace."""

    def __init__(self, tier: Tier, codec: Codec) -> None:
        self.tier = tier
        self.codec = codec
        self._package = tier.server.package

    def wire(self, key: TierKey) -> bytes:
        """Return a key as the server has it."""
        return self.tier.prefix + key_bytes(key)

    # --- Reading ---

    def fetch(self, key: TierKey, *, is_kept: bool) -> Steps[Any]:
        """Return the value of a key from the server, or `ABSENT`.

        Args:
            key: The key.
            is_kept: Whether the local tier keeps the value. The caller has looked the key up there.
        """
        wire = self.wire(key)
        fill = self.tier.begin_fill(key) if is_kept else None
        if fill is None:
            [payload] = yield Ask([("GET", wire)])
            return self.value_of(checked(payload))
        lifetime, payload = yield Ask([("PTTL", wire), ("GET", wire)])
        value = self.value_of(checked(payload))
        self.keep(fill, value, payload, checked(lifetime))
        return value

    def fetch_many(self, keys: Sequence[TierKey], *, is_kept: bool) -> Steps[dict[TierKey, Any]]:
        """Return the values of keys from the server, `ABSENT` for those that have none."""
        found: dict[TierKey, Any] = {}
        for start in range(0, len(keys), SCAN_COUNT):
            part = keys[start : start + SCAN_COUNT]
            wires = [self.wire(key) for key in part]
            fills = [self.tier.begin_fill(key) if is_kept else None for key in part]
            commands: list[Command] = [("PTTL", wire) for wire in wires] if is_kept else []
            *lifetimes, payloads = yield Ask([*commands, ("MGET", *wires)])
            for index, (key, payload) in enumerate(zip(part, checked(payloads), strict=True)):
                found[key] = self.value_of(payload)
                fill = fills[index]
                if fill is not None:
                    self.keep(fill, found[key], payload, checked(lifetimes[index]))
        return found

    def value_of(self, payload: bytes | None) -> Any:
        """Decode a payload of the server, and count it."""
        counters = self.tier.counters
        if payload is not None and not is_lease(payload):
            try:
                value = self.codec.decode(payload)
            except UndecodableError:
                counters.add("decode_errors")
            else:
                counters.add("remote_hits")
                return value
        counters.add("remote_misses")
        return ABSENT

    def keep(self, fill: _Fill, value: object, payload: bytes | None, lifetime: int) -> None:
        """Keep the answer to a request in the local tier.

        Args:
            fill: The fill that began before the request.
            value: The value.
            payload: What the server has.
            lifetime: Its PTTL, which was read first: -1 without a deadline, -2 for no key.
        """
        if payload is None or lifetime == -1:
            self.tier.finish_fill(fill, value, None)
        elif lifetime > 0:
            # The server counts whole milliseconds, of which the first had begun before.
            self.tier.finish_fill(fill, value, lifetime - 1)

    def stale(self, key: TierKey) -> Any:
        """Return the local entry of a key after an error of the client, or `MISSING`. Counts a stale value."""
        value = self.tier.stale(key)
        if value is not MISSING:
            self.tier.counters.add("stale_values")
        return value

    # --- Writing ---

    def store(self, entries: Sequence[tuple[TierKey, bytes]], ttl: int | None) -> Steps[None]:
        """Store payloads.

        Args:
            entries: Pairs of a key and a payload.
            ttl: Milliseconds, or None for no deadline.
        """
        end: Command = () if ttl is None else ("PX", ttl)
        for start in range(0, len(entries), SCAN_COUNT):
            part = entries[start : start + SCAN_COUNT]
            replies = yield Ask([("SET", self.wire(key), payload, *end) for key, payload in part])
            for reply in replies:
                checked(reply)

    def add(self, key: TierKey, payload: bytes, ttl: int | None) -> Steps[bool]:
        """Store a payload if the key has no value. Returns whether it is stored."""
        end: Command = () if ttl is None else ("PX", ttl)
        [reply] = yield Ask([("SET", self.wire(key), payload, "NX", *end)])
        if checked(reply):
            return True
        # A lease is no value.
        return bool((yield from self.run_script(ADD, key, payload, "" if ttl is None else ttl)))

    def touch(self, key: TierKey, ttl: int | None) -> Steps[bool]:
        """Give the value of a key a new lifetime. Returns whether it has a value."""
        return bool((yield from self.run_script(TOUCH, key, "" if ttl is None else ttl)))

    def remove(self, keys: Sequence[TierKey]) -> Steps[int]:
        """Delete keys. Returns how many the server had."""
        number = 0
        for start in range(0, len(keys), SCAN_COUNT):
            [reply] = yield Ask([("DEL", *(self.wire(key) for key in keys[start : start + SCAN_COUNT]))])
            number += int(checked(reply))
        return number

    def clear(self) -> Steps[None]:
        """Delete all keys of the namespace."""
        pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in self.tier.prefix)
        cursor: Any = 0
        while True:
            [reply] = yield Ask([("SCAN", cursor, "MATCH", pattern + b"*", "COUNT", SCAN_COUNT)])
            cursor, keys = checked(reply)
            if keys:
                [reply] = yield Ask([("UNLINK", *keys)])
                checked(reply)
            if int(cursor) == 0:
                return

    def run_script(self, script: Script, key: TierKey, *arguments: bytes | str | int) -> Steps[Any]:
        """Run a script on a key, by its digest if the server knows it."""
        wire = self.wire(key)
        [reply] = yield Ask([("EVALSHA", script.digest, 1, wire, *arguments)])
        if isinstance(reply, self._package.no_script_error):
            [reply] = yield Ask([("EVAL", script.source, 1, wire, *arguments)])
        return checked(reply)


def checked(reply: Reply) -> Any:
    """Return a reply, or raise it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply
