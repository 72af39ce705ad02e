"""The operations of near caches, without input and output.

How it works: an operation is a generator. It yields what it needs, a `Step`, and is resumed with the outcome.
`NearCache` carries the steps out with a synchronous client, `AsyncNearCache` with an asynchronous one. So both have one
protocol.

How a load goes (`get_with` with `across=True`): it asks for a lease and for the value in one request. If there is a
value, that is the result. If it has the lease, it runs the initializer, and stores the payload in the place of the
lease. If another call has the lease, it waits until the key changes, and asks again.

Invariants:
- `registered-first`: a fill or a run begins before the request that it depends on is sent (law 13).
- `loads-of-payload`: each value that is returned is decoded from a payload, also that of an initializer.
- `freed`: a lease is freed if its holder fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar

from moka_py._moka_py import _Fill
from moka_py.near._lease import ADD, RELEASE, REPLACE, TOUCH, Script
from moka_py.near._options import TierKey, key_bytes
from moka_py.near._serializers import Codec, UndecodableError, is_lease, new_lease
from moka_py.near._tier import ABSENT, MISSING, Tier, Watch

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


POLL_SECONDS = (0.02, 0.5)
"""How long a load waits for a change that it may not hear of: at first, and at most. Each time twice as long."""

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
            return self._value(_checked(payload))
        lifetime, payload = yield Ask([("PTTL", wire), ("GET", wire)])
        value = self._value(_checked(payload))
        self._keep(fill, value, payload, _checked(lifetime))
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
            for index, (key, payload) in enumerate(zip(part, _checked(payloads), strict=True)):
                found[key] = self._value(payload)
                fill = fills[index]
                if fill is not None:
                    self._keep(fill, found[key], payload, _checked(lifetimes[index]))
        return found

    def _value(self, payload: bytes | None) -> Any:
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

    def _keep(self, fill: _Fill, value: object, payload: bytes | None, lifetime: int) -> None:
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
                _checked(reply)

    def add(self, key: TierKey, payload: bytes, ttl: int | None) -> Steps[bool]:
        """Store a payload if the key has no value. Returns whether it is stored."""
        end: Command = () if ttl is None else ("PX", ttl)
        [reply] = yield Ask([("SET", self.wire(key), payload, "NX", *end)])
        if _checked(reply):
            return True
        # A lease is no value.
        return bool((yield from self._script(ADD, key, payload, "" if ttl is None else ttl)))

    def touch(self, key: TierKey, ttl: int | None) -> Steps[bool]:
        """Give the value of a key a new lifetime. Returns whether it has a value."""
        return bool((yield from self._script(TOUCH, key, "" if ttl is None else ttl)))

    def remove(self, keys: Sequence[TierKey]) -> Steps[int]:
        """Delete keys. Returns how many the server had."""
        number = 0
        for start in range(0, len(keys), SCAN_COUNT):
            [reply] = yield Ask([("DEL", *(self.wire(key) for key in keys[start : start + SCAN_COUNT]))])
            number += int(_checked(reply))
        return number

    def clear(self) -> Steps[None]:
        """Delete all keys of the namespace."""
        pattern = b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in self.tier.prefix)
        cursor: Any = 0
        while True:
            [reply] = yield Ask([("SCAN", cursor, "MATCH", pattern + b"*", "COUNT", SCAN_COUNT)])
            cursor, keys = _checked(reply)
            if keys:
                [reply] = yield Ask([("UNLINK", *keys)])
                _checked(reply)
            if int(cursor) == 0:
                return

    def _script(self, script: Script, key: TierKey, *arguments: bytes | str | int) -> Steps[Any]:
        """Run a script on a key, by its digest if the server knows it."""
        wire = self.wire(key)
        [reply] = yield Ask([("EVALSHA", script.digest, 1, wire, *arguments)])
        if isinstance(reply, self._package.no_script_error):
            [reply] = yield Ask([("EVAL", script.source, 1, wire, *arguments)])
        return _checked(reply)

    # --- Loading ---

    def load(
        self,
        key: TierKey,
        initializer: Callable[[], Any],
        ttl: int | None,
        *,
        across: bool,
        lease: int,
        fresh: bool,
    ) -> Steps[Any]:
        """Return the value of a key from the server, or compute it.

        Args:
            key: The key.
            initializer: Computes the value.
            ttl: Milliseconds that a new value lives on the server, or None.
            across: Whether a lease keeps other processes from computing at the same time.
            lease: Milliseconds that the lease lives.
            fresh: Whether no entry or flight from before the call counts.
        """
        refuse_own_key(self.tier, key)
        load = _Load(self, key, initializer, ttl, fresh)
        try:
            if across and self.tier.supports_leases:
                return (yield from load.with_lease(lease))
            return (yield from load.without_lease())
        except _ServerFailedError:
            return (yield from load.without_server())


class _Computation:
    """A run of an initializer."""

    def __init__(self, tier: Tier, key: TierKey) -> None:
        self.tier = tier
        self.key = key
        self.is_running = True


_computations: ContextVar[tuple[_Computation, ...]] = ContextVar("moka_py.near.computations", default=())
"""The initializers that the present thread or task runs. The tasks that an initializer starts have them, too."""


def own_key_message(key: TierKey) -> str:
    """Return the message of the error for an initializer that asks for its own key."""
    return (
        f"the initializer of a key asked for that very key, {key!r}: it would wait for itself for ever;"
        " let it compute the value from other keys"
    )


def refuse_own_key(tier: Tier, key: TierKey) -> None:
    """Raise RuntimeError if the present thread or task runs the initializer of the key."""
    for each in _computations.get():
        # A task may outlive the initializer that has started it.
        if each.is_running and each.key == key and each.tier is tier:
            raise RuntimeError(own_key_message(key))


@contextmanager
def _computation_of(tier: Tier, key: TierKey) -> Iterator[None]:
    computation = _Computation(tier, key)
    token = _computations.set((*_computations.get(), computation))
    try:
        yield
    finally:
        computation.is_running = False
        # The collector may close the generator of an abandoned call in another context.
        with suppress(ValueError):
            _computations.reset(token)


class StoppedError(Exception):
    """Stands for a StopIteration of an initializer or a serializer, which cannot leave a generator.

    The caller of the operation raises `args[0]` in its place.
    """


class _ServerFailedError(Exception):
    """The client raised. The value is computed without the server."""


class _Load:
    """One call of `get_with` that has found nothing in the local tier."""

    def __init__(
        self, operations: Operations, key: TierKey, initializer: Callable[[], Any], ttl: int | None, fresh: bool
    ) -> None:
        self._operations = operations
        self._tier = operations.tier
        self._package = operations.tier.server.package
        self._codec = operations.codec
        self._key = key
        self._wire = operations.wire(key)
        self._initializer = initializer
        self._ttl: int | str = "" if ttl is None else ttl
        self._fresh = fresh

    # --- With a lease ---

    def with_lease(self, lease: int) -> Steps[Any]:
        """Return the value, computed by the one call that has the lease."""
        token = new_lease()
        poll, longest_poll = POLL_SECONDS
        wait_until = 0.0
        wakeup = Wakeup()
        watch: Watch | None = None
        try:
            while True:
                wakeup.is_set = False
                command: Command = ("SET", self._wire, token, "NX", "GET", "PX", lease)
                fill, lifetime, reply = yield from self._ask_for_value(command)
                if isinstance(reply, self._package.response_error):
                    self._refuse_leases(reply, "syntax error", "SET with NX and GET")
                    return (yield from self.without_lease())
                # The client may have sent the request twice.
                if reply is None or reply == token:
                    self._tier.counters.add("remote_misses")
                    if watch is not None:
                        self._tier.counters.add("lease_takeovers")
                    return (yield from self._compute_and_replace(token, is_lease_held=True))
                if not is_lease(reply):
                    return (yield from self._decode_or_compute(fill, lifetime, reply))
                if watch is None:
                    # From now on no change is missed, so ask once more.
                    watch = self._tier.watch(self._key, wakeup.wake)
                    wait_until = time.monotonic() + lease / 1000
                    self._tier.counters.add("lease_waits")
                    continue
                left = wait_until - time.monotonic()
                if left <= 0:
                    self._tier.counters.add("remote_misses")
                    return (yield from self._compute_once(reply))
                seconds = min(left, poll)
                if lifetime >= 0:
                    # The lease ends then, if its holder is gone.
                    seconds = min(seconds, lifetime / 1000 + 0.001)
                yield Wait(self._key, wakeup, seconds)
                poll = min(poll * 2, longest_poll)
        finally:
            if watch is not None:
                watch.close()

    def _ask_for_value(self, command: Command) -> Steps[tuple[_Fill | None, int, Reply]]:
        """Send PTTL and a command that returns the payload of the key.

        Returns:
            The fill of the local tier, the PTTL, and the reply. An error reply is returned, too.

        Raises:
            _ServerFailedError: The client raised.
        """
        tier = self._tier
        fill = tier.begin_fill(self._key) if not self._fresh and tier.is_coherent else None
        try:
            lifetime, reply = yield Ask([("PTTL", self._wire), command])
        except self._package.error as error:
            raise _ServerFailedError from error
        if isinstance(lifetime, Exception):
            raise _ServerFailedError from lifetime
        return fill, lifetime, reply

    def _decode_or_compute(self, fill: _Fill | None, lifetime: int, reply: bytes | None) -> Steps[Any]:
        """Return the value of a payload, and keep it in the local tier. Compute one if there is none in it."""
        value = self._operations._value(reply)
        if value is ABSENT:
            return (yield from self._compute_once(reply))
        if fill is not None:
            self._operations._keep(fill, value, reply, lifetime)
        return value

    def _refuse_leases(self, error: Exception, words: str, what: str) -> None:
        """Do without leases from now on, if the error says that the server has not what they need."""
        is_refusal = words in str(error) or isinstance(error, self._package.no_permission_error)
        if is_refusal and self._tier.supports_leases:
            self._tier.supports_leases = False
            self._tier.warn_later(
                "leases",
                f"the near cache {self._tier.prefix.decode()!r} takes no leases, as with across=False, since they need"
                f" Redis 7.0 or later, or Valkey: the server refuses {what}: {error}",
            )

    # --- Without a lease, and without a server ---

    def without_lease(self) -> Steps[Any]:
        """Return the value. Each process that finds none computes it."""
        fill, lifetime, reply = yield from self._ask_for_value(("GET", self._wire))
        if isinstance(reply, Exception):
            raise _ServerFailedError from reply
        return (yield from self._decode_or_compute(fill, lifetime, reply))

    def without_server(self) -> Steps[Any]:
        """Return a stale value, if that is allowed, or compute one."""
        if self._fresh:
            return (yield from self._compute_only())
        value = self._operations.stale(self._key)
        if value is not MISSING and value is not ABSENT:
            return value
        return (yield Share(self._key, self._compute_only))

    def _compute_once(self, expected: bytes | None) -> Steps[Any]:
        """Compute and store the value once a process, unless the call must not join a computation from before it."""
        if self._fresh:
            return (yield from self._compute_and_replace(expected))
        return (yield Share(self._key, partial(self._compute_and_replace, expected)))

    # --- Computing ---

    def _compute_only(self) -> Steps[Any]:
        _payload, value = yield from self._compute()
        return value

    def _compute(self) -> Steps[tuple[bytes, Any]]:
        """Run the initializer. Returns the payload of its result, and the value of that payload."""
        try:
            with _computation_of(self._tier, self._key):
                result = yield Run(self._initializer)
            payload = self._codec.encode(result)
            return payload, self._codec.decode_own(payload)
        except StopIteration as error:
            raise StoppedError(error) from None

    def _compute_and_replace(self, expected: bytes | None, *, is_lease_held: bool = False) -> Steps[Any]:
        """Compute the value, and store it if the key still has the expected payload.

        Args:
            expected: The payload that the server has for the key: a lease, or one that cannot be decoded. None if it
                has none.
            is_lease_held: Whether it is a lease of this call, which is freed after a failure.
        """
        # A removal that finds no key changes nothing on the server. In this process it is seen here.
        run = self._tier.begin_run(self._key) if expected is None else None
        try:
            payload, value = yield from self._compute()
        except GeneratorExit:
            raise
        except BaseException:
            if is_lease_held:
                yield from self._despite_errors(self._operations._script(RELEASE, self._key, expected or b""))
            raise
        if expected is not None:
            store = self._operations._script(REPLACE, self._key, expected, payload, self._ttl)
        elif run is not None and run.is_superseded():
            return value
        else:
            store = self._store_if_absent(payload)
        yield from self._despite_errors(store)
        # The local tier may know the key as absent.
        self._tier.discard(self._key)
        return value

    def _store_if_absent(self, payload: bytes) -> Steps[Any]:
        end: Command = () if self._ttl == "" else ("PX", self._ttl)
        [reply] = yield Ask([("SET", self._wire, payload, "NX", *end)])
        return _checked(reply)

    def _despite_errors(self, steps: Steps[Any]) -> Steps[None]:
        """Carry out steps after which the value is right also if they fail. The driver counts the error."""
        try:
            yield from steps
        except self._package.response_error as error:
            self._refuse_leases(error, "unknown command", "scripts")
        except self._package.error:
            pass


def _checked(reply: Reply) -> Any:
    """Return a reply, or raise it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply
