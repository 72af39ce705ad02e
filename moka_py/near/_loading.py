"""`load`: the operation of `get_with`.

How it works: a load with a lease asks for the lease and for the value in one request. If there is a value, that is the
result. If it has the lease, it runs the initializer, and stores the payload in the place of the lease. If another call
has the lease, it waits until the key changes, and asks again.

Invariants:
- `registered-first`: a fill or a run begins before the request that it depends on is sent (law 13).
- `loads-of-payload`: each value that is returned is decoded from a payload, also that of an initializer.
- `freed`: a lease is freed if its holder fails or is cancelled, also while a request takes or replaces the lease. Only
  if the client fails or is interrupted in such a request, the lease is left to end by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from moka_py._moka_py import _Fill
from moka_py.near._lease import RELEASE, REPLACE
from moka_py.near._operations import Ask, Command, Operations, Reply, Run, Share, Steps, Wait, Wakeup, checked
from moka_py.near._options import TierKey
from moka_py.near._serializers import is_lease, new_lease
from moka_py.near._tier import ABSENT, MISSING, Tier, Watch

POLL_SECONDS = (0.02, 0.5)
"""How long a load waits for a change that it may not hear of: at first, and at most. Each time twice as long."""


def load(
    operations: Operations,
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
        operations: The operations on the namespace.
        key: The key.
        initializer: Computes the value.
        ttl: Milliseconds that a new value lives on the server, or None.
        across: Whether a lease keeps other processes from computing at the same time.
        lease: Milliseconds that the lease lives.
        fresh: Whether no entry or flight from before the call counts.
    """
    refuse_own_key(operations.tier, key)
    call = _Load(operations, key, initializer, ttl, fresh)
    try:
        if across and operations.tier.supports_leases:
            return (yield from call.with_lease(lease))
        return (yield from call.without_lease())
    except _ServerFailedError:
        return (yield from call.without_server())


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
                fill, lifetime, reply = yield from self._or_free(token, self._ask_for_value(command))
                if isinstance(reply, self._package.response_error):
                    self._refuse_leases(reply, "syntax error", "SET with NX and GET")
                    return (yield from self.without_lease())
                # The client may have sent the request twice.
                if reply is None or reply == token:
                    self._tier.counters.add("remote_misses")
                    if watch is not None:
                        self._tier.counters.add("lease_takeovers")
                    return (yield from self._compute_and_replace(token, own_lease=token))
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
        value = self._operations.value_of(reply)
        if value is ABSENT:
            return (yield from self._compute_once(reply))
        if fill is not None:
            self._operations.keep(fill, value, reply, lifetime)
        return value

    def _refuse_leases(self, error: Exception, words: str, what: str) -> None:
        """Do without leases from now on, if the error says that the server cannot provide them."""
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

    def _compute_and_replace(self, expected: bytes | None, *, own_lease: bytes | None = None) -> Steps[Any]:
        """Compute the value, and store it if the key still has the expected payload.

        Args:
            expected: The payload that the server has for the key: a lease, or one that cannot be decoded. None if it
                has none.
            own_lease: The expected payload, if it is a lease of this call. It is freed after a failure.
        """
        # A removal that finds no key changes nothing on the server. In this process it is seen here.
        run = self._tier.begin_run(self._key) if expected is None else None
        try:
            payload, value = yield from self._compute()
        except GeneratorExit:
            raise
        except BaseException:
            if own_lease is not None:
                yield from self._free(own_lease)
            raise
        if expected is not None:
            store = self._operations.run_script(REPLACE, self._key, expected, payload, self._ttl)
        elif run is not None and run.is_superseded():
            return value
        else:
            store = self._store_if_absent(payload)
        stored = self._despite_errors(store)
        yield from stored if own_lease is None else self._or_free(own_lease, stored)
        # The local tier may know the key as absent.
        self._tier.discard(self._key)
        return value

    def _store_if_absent(self, payload: bytes) -> Steps[Any]:
        end: Command = () if self._ttl == "" else ("PX", self._ttl)
        [reply] = yield Ask([("SET", self._wire, payload, "NX", *end)])
        return checked(reply)

    def _or_free[T](self, token: bytes, request: Steps[T]) -> Steps[T]:
        """Carry out a request that takes or replaces the lease with this token. If it is cancelled, free the lease."""
        try:
            return (yield from request)
        except (Exception, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # The server may have executed the request or not.
            yield from self._free(token)
            raise

    def _free(self, token: bytes) -> Steps[None]:
        """Delete the lease with this token, if the server has it."""
        return self._despite_errors(self._operations.run_script(RELEASE, self._key, token))

    def _despite_errors(self, steps: Steps[Any]) -> Steps[None]:
        """Carry out steps after which the value is right also if they fail. The driver counts the error."""
        try:
            yield from steps
        except self._package.response_error as error:
            self._refuse_leases(error, "unknown command", "scripts")
        except self._package.error:
            pass
