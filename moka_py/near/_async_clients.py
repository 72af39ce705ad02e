"""The clients of an `AsyncNearCache`: one for each event loop, since the connections of a client belong to one loop.

How it works: the user's client serves the loop that first uses the near cache. For each further loop a client with the
same settings is made. An asynchronous generator closes it: the end of the loop runs it to its end
(`loop.shutdown_asyncgens`, which `asyncio.run` calls), and so does the collector.

Invariants:
- `held-by-loop`: the near cache refers to a client that it has made only weakly. The loop refers to it, by a timer that
  never fires, until the loop is closed. A client refers to its loop, so otherwise the near cache would keep the loop.
- `own-process`: in the child of a fork, no client of the parent is used.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from moka_py.near._async_flights import running_loop
from moka_py.near._client import make_async_client

HELD_SECONDS = 100 * 365 * 86400.0
"""The time of a timer that never fires."""


class LoopClient:
    """The client of one event loop. Calls that use it are in its context."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def __aenter__(self) -> Any:
        return self.client

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass


class OwnLoopClient(LoopClient):
    """A client that was made for an event loop, and that is closed."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(client)
        self.loop = loop
        self._calls = 0
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None
        self._closer = _close_at_end(client)
        with suppress(StopIteration):
            # From now on the loop knows the generator.
            self._closer.asend(None).send(None)
        # `held-by-loop`.
        self._timer = loop.call_later(HELD_SECONDS, _hold, self)

    async def __aenter__(self) -> Any:
        self._calls += 1
        return self.client

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._calls -= 1
        # A call that is closed cannot wait. The collector closes the client then.
        if self._is_retired and kind is not GeneratorExit:
            await self.close_if_unused()

    def retire(self) -> None:
        """Close the client after the calls that use it. The loop's thread calls it."""
        self._is_retired = True
        self._timer.cancel()

    def retire_and_close(self) -> None:
        """Do what `retire` does, and close the client soon if no call uses it."""
        self.retire()
        self._closing = self.loop.create_task(self.close_if_unused())

    async def close_if_unused(self) -> None:
        """Close the client now, unless a call uses it."""
        if not self._calls:
            # The loop may be closing it at its own end.
            with suppress(RuntimeError):
                await self._closer.aclose()


def _hold(_client: OwnLoopClient) -> None:
    """Do nothing. The timer is there for its reference."""


async def _close_at_end(client: Any) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        # An error of a connection that is no longer needed is of no interest.
        with suppress(Exception):
            await client.aclose()


class LoopClients:
    """The clients of one near cache."""

    def __init__(self, client: Any) -> None:
        self._users = LoopClient(client)
        self._process = os.getpid()
        self._is_retired = False
        self._first_loop: dict[str, weakref.ref[asyncio.AbstractEventLoop]] = {}
        # A client refers to its loop, so while the client lives no other loop has the id.
        self._own: weakref.WeakValueDictionary[tuple[int, int], OwnLoopClient] = weakref.WeakValueDictionary()

    def of_running_loop(self) -> LoopClient:
        """Return the client of the caller's event loop."""
        loop = running_loop()
        process = os.getpid()
        # One step, also for several threads.
        first = self._first_loop.setdefault("loop", weakref.ref(loop))
        if process == self._process and first() is loop:
            return self._users
        name = (process, id(loop))
        own = self._own.get(name)
        if own is None:
            own = OwnLoopClient(make_async_client(self._users.client), loop)
            self._own[name] = own
            if self._is_retired:
                own.retire()
        return own

    def retire(self) -> None:
        """Close the clients that were made, each in its loop, after the calls that use it. Any thread may call it."""
        self._is_retired = True
        # The list is made in one step. Another thread may add a client meanwhile, and sees then that it is retired.
        for reference in self._own.valuerefs():
            own = reference()
            if own is not None:
                # The loop may be closed.
                with suppress(RuntimeError):
                    own.loop.call_soon_threadsafe(own.retire_and_close)

    async def close(self) -> None:
        """Do what `retire` does, and close the client of this loop before the return, unless a call uses it."""
        own = self._own.get((os.getpid(), id(running_loop())))
        self.retire()
        if own is not None:
            own.retire()
            await own.close_if_unused()


def end_clients(clients: LoopClients, probe_client: Any) -> None:
    """Close the clients that a near cache has made, when it is dropped."""
    clients.retire()
    probe_client.connection_pool.disconnect()
