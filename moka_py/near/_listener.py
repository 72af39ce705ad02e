"""`Listener`: one thread and one connection by which a tier learns of writes on the server.

How it works: the connection asks for the invalidations of all keys with the prefix (`CLIENT TRACKING ON BCAST`). The
thread removes the entry of each reported key. And it sends PINGs, which tell until when the tier may answer.

Why two PINGs: the server sends the invalidations of a turn of its event loop at the end of that turn, so a PONG can
overtake the invalidation of an earlier write. PING n is sent after PONG n-1 has come. So when PONG n comes, every write
that was executed before PING n-1 was sent has been applied here. Hence the tier may answer until `max_staleness` after
PING n-1 was sent.

Invariants:
- `one-connection`: a connection is never used again after an error. The packages connect anew without being asked, and
  the new connection would answer PINGs but report no invalidations.
- `only-pong`: another reply than PONG voids both PINGs. While a slow script runs, the server answers BUSY at once, and
  has not yet sent the invalidations of what the script wrote.
- `cleared-first`: with each connection, the tier is cleared after tracking is on and before it answers again.
- `probed`: the tier answers only after the invalidation of a write by the user's client has come.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from moka_py.near._options import tier_key_of_bytes
from moka_py.near._tier import SECOND

if TYPE_CHECKING:
    from moka_py.near._tier import Tier

MIN_DELAY = 0.05
MAX_DELAY = 2.0
"""Seconds between two connections."""
REFUSED_DELAY = 30.0
"""Seconds to the next attempt after the server has refused to report invalidations. A failover may change its mind."""
MIN_TIMEOUT, MAX_TIMEOUT = 1.0, 5.0
"""Seconds that a reply may take."""
MAX_LOST_PROBES = 3
"""After so many probes in a row whose invalidations did not come, the client writes to another server."""

_PUSH: Final = object()
"""The result of reading a message that is no reply."""


class _RefusedError(Exception):
    """The server does not report invalidations, or not those of the client's writes."""


class _ProbeLostError(Exception):
    """The invalidation of the probe did not come."""


class _VoidReplyError(Exception):
    """The server answers with errors for now, or in an unexpected way."""


class Listener:
    """The thread that listens to the server for one tier."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._package = tier.server.package
        self._thread = threading.Thread(target=self._run, name=f"moka_py-near-{tier.prefix.decode()}", daemon=True)
        self._stop = threading.Event()
        self._connection: Any = None
        self._connections = 0
        self._probe = b""
        self._is_probe_seen = False
        self._lost_probes = 0
        self._timeout = min(max(tier.options.max_staleness, MIN_TIMEOUT), MAX_TIMEOUT)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_running(self) -> bool:
        """Return whether the thread has not ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread, and wait for its end for at most a second."""
        self._stop.set()
        connection = self._connection
        sock = None if connection is None else getattr(connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                # It wakes the thread. The method of an SSL socket would change the socket under it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(1.0)

    def abandon(self) -> None:
        """Close the socket in the child of a fork. The connection of the parent goes on."""
        connection = self._connection
        sock = None if connection is None else getattr(connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    # --- The thread ---

    def _run(self) -> None:
        longest = MIN_DELAY
        while not self._stop.is_set():
            before = self._tier.local.live_until
            delay = None
            try:
                self._listen()
            except Exception as error:
                if self._is_refusal(error):
                    self._warn("since the server does not report writes", str(error) or type(error).__name__)
                    delay = REFUSED_DELAY
                elif not isinstance(error, (self._package.error, OSError, _VoidReplyError, _ProbeLostError)):
                    self._warn("since its listener fails", f"{type(error).__name__}: {error}")
            finally:
                self._disconnect()
            if self._tier.local.live_until != before:
                # This connection has served.
                longest = MIN_DELAY
            longest = min(longest * 2, MAX_DELAY)
            self._stop.wait(random.uniform(MIN_DELAY, longest) if delay is None else delay)

    def _is_refusal(self, error: Exception) -> bool:
        """Return whether an error says that the server will not do what the listener needs."""
        if isinstance(error, _RefusedError):
            return True
        if isinstance(error, _ProbeLostError):
            self._lost_probes += 1
            return self._lost_probes >= MAX_LOST_PROBES
        # Others are temporary: a slow script, a full memory, a replica that has lost its primary.
        text = str(error)
        is_temporary = text.startswith(("BUSY", "OOM", "MISCONF", "TRYAGAIN", "NOREPLICAS", "MASTERDOWN", "LOADING"))
        kind = type(error).__name__
        is_temporary |= kind in ("OutOfMemoryError", "TryAgainError", "MasterDownError", "ClusterDownError")
        return isinstance(error, self._package.response_error) and not is_temporary

    def _warn(self, reason: str, error: str) -> None:
        self._tier.warn_later(
            "tracking", f"the near cache {self._tier.prefix.decode()!r} has no local tier, {reason}: {error}"
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The socket is of no use any more, so its errors are not either.
            with contextlib.suppress(Exception):
                connection.disconnect()

    def _listen(self) -> None:
        """Connect, and apply what the server reports until the connection fails or the thread is to stop."""
        server = self._tier.server
        connection = server.connection_class(**server.connect_arguments(self._timeout))
        self._connection = connection
        connection.connect()
        parser = connection._parser
        parser.set_invalidation_push_handler(self._on_invalidation)
        parser.set_pubsub_push_handler(lambda _message: _PUSH)
        # Not what the connection has of it: valkey-py keeps nothing.
        properties = self._request(connection, "HELLO")
        if properties.get(b"role") != b"master":
            raise _RefusedError("it is a replica")
        self._request(connection, "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._tier.prefix)
        self._connections += 1
        if self._connections > 1:
            self._tier.counters.add("reconnects")
        # `cleared-first`. The server reports changes of all keys that are fetched from now on.
        self._tier.clear()
        self._await_probe(connection)
        self._lost_probes = 0
        self._send_heartbeats(connection)

    def _await_probe(self, connection: Any) -> None:
        """Write a key with the user's client, and wait for its invalidation (`probed`)."""
        self._probe = self._tier.prefix + b"\xc1mk-probe:" + os.urandom(12).hex().encode()
        self._is_probe_seen = False
        client = self._tier.client()
        if client is None:
            raise _VoidReplyError("no near cache uses the tier any more")
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("SET", self._probe, b"", "PX", 1000)
        # It leaves nothing behind. If the client may not delete, the key expires.
        pipeline.execute_command("DEL", self._probe)
        written, _deleted = pipeline.execute(raise_on_error=False)
        if isinstance(written, Exception):
            raise written
        deadline = time.monotonic() + self._timeout
        while not self._is_probe_seen:
            if self._read(connection, deadline - time.monotonic()) is None:
                raise _ProbeLostError("the server did not report a write of the client")
            self._check_running()

    def _send_heartbeats(self, connection: Any) -> None:
        """Send PINGs, and move the deadline of the tier on by their PONGs, until the connection fails."""
        tier = self._tier
        max_staleness = round(tier.options.max_staleness * SECOND)
        heartbeat = tier.options.heartbeat
        next_ping = time.monotonic()
        # The clock of the tier when the PING before was sent, if its PONG has come; and when the present one was sent.
        before: int | None = None
        sent: int | None = None
        reply_until = 0.0
        while True:
            self._check_running()
            now = time.monotonic()
            if sent is None and now >= next_ping:
                next_ping = now + heartbeat
                reply_until = now + self._timeout
                sent = tier.local.now()
                self._send(connection, "PING")
            wait_until = next_ping if sent is None else reply_until
            reply = self._read(connection, wait_until - now)
            if reply is _PUSH:
                continue
            if reply is None:
                if sent is not None and time.monotonic() >= reply_until:
                    raise _VoidReplyError("the server did not answer a PING in time")
                continue
            if sent is None:
                raise _VoidReplyError("the server answered no request")
            if reply == b"PONG":
                if before is None:
                    # The second PING follows at once.
                    next_ping = time.monotonic()
                else:
                    tier.clear_after_suspend()
                    tier.extend(before + max_staleness)
                before = sent
            else:
                # `only-pong`.
                before = None
            sent = None

    def _check_running(self) -> None:
        if self._stop.is_set():
            raise _VoidReplyError("the listener is to stop")

    # --- Messages ---

    def _send(self, connection: Any, *command: str | bytes) -> None:
        # `one-connection`.
        if connection._sock is None:
            raise _VoidReplyError("the connection is closed")
        connection.send_command(*command, check_health=False)

    def _request(self, connection: Any, *command: str | bytes) -> Any:
        """Send a command and return its reply."""
        self._send(connection, *command)
        deadline = time.monotonic() + self._timeout
        while True:
            reply = self._read(connection, deadline - time.monotonic())
            if reply is None:
                raise _VoidReplyError(f"the server did not answer {command[0]!r} in time")
            if isinstance(reply, Exception):
                raise reply
            if reply is not _PUSH:
                return reply

    def _read(self, connection: Any, timeout: float) -> Any:
        """Read one message: return a reply or the error in it, `_PUSH` for any other message, or None if none came."""
        if connection._sock is None:
            raise _VoidReplyError("the connection is closed")
        if not connection.can_read(timeout=max(timeout, 0)):
            return None
        # Not by the connection: for a push, its method reads on until a reply comes, one level of recursion each.
        message = connection._parser.read_response(disable_decoding=True, push_request=True)
        return _VoidReplyError("the server answered with null") if message is None else message

    def _on_invalidation(self, message: Any) -> Any:
        """Apply a message of the server: a list of keys, or null for all."""
        tier = self._tier
        try:
            keys = message[1]
            if keys is None:
                tier.counters.add("flushes")
                tier.clear()
            else:
                tier.counters.add("invalidations", len(keys))
                for key in keys:
                    self._apply(key)
        except BaseException:
            # The parser would only log it. An entry may be out of date now, so none stays.
            tier.stop_answering()
            tier.clear()
        return _PUSH

    def _apply(self, key: bytes) -> None:
        prefix = self._tier.prefix
        if key == self._probe:
            self._is_probe_seen = True
        if key.startswith(prefix):
            self._tier.discard(tier_key_of_bytes(key[len(prefix) :]))
