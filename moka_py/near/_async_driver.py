"""`AsyncDriver`: carries out the steps of operations with the client of the running event loop."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from moka_py.near._async_clients import LoopClients
from moka_py.near._async_flights import fly
from moka_py.near._client import reply_options
from moka_py.near._operations import Ask, Command, Run, Share, Step, Steps, Wait
from moka_py.near._tier import Tier

CLEANUP_SECONDS = 1.0
"""How long each request of a cancelled call may take, such as the one that frees its lease."""


class AsyncDriver:
    """Carries out the steps of operations on one namespace."""

    def __init__(self, tier: Tier, clients: LoopClients) -> None:
        self._tier = tier
        self._clients = clients
        self._package = tier.server.package

    async def perform[T](self, steps: Steps[T]) -> T:
        """Carry out the steps of an operation, and return its result."""
        seconds: float | None = None
        async with self._clients.of_running_loop() as client:
            try:
                step = next(steps)
                while True:
                    try:
                        outcome = await self._carry_out(step, client, seconds)
                    except BaseException as error:
                        if isinstance(error, asyncio.CancelledError):
                            seconds = CLEANUP_SECONDS
                        step = steps.throw(error)
                    else:
                        step = steps.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)

    async def _carry_out(self, step: Step, client: Any, seconds: float | None) -> Any:
        """Carry out a step. A request may take so many seconds."""
        if isinstance(step, Ask):
            if seconds is None:
                return await self._ask(client, step.commands)
            try:
                return await asyncio.wait_for(self._ask(client, step.commands), seconds)
            except TimeoutError as error:
                raise self._package.connection_error("the server did not answer in time") from error
        if isinstance(step, Run):
            awaitable: Any = step.initializer()
            if not inspect.isawaitable(awaitable):
                raise TypeError(f"initializer must return an awaitable, got {type(awaitable).__name__}")
            return await awaitable
        if isinstance(step, Share):
            operation = step.operation
            return await fly(self._tier, "computation", step.key, lambda: self.perform(operation()), is_shared=True)
        return await _wait(step)

    async def _ask(self, client: Any, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and return their replies. An error reply is in the list, another error is raised."""
        tier = self._tier
        tier.check_server()
        try:
            if len(commands) == 1:
                [command] = commands
                replies = [await client.execute_command(*command, **reply_options(command))]
            else:
                pipeline = client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command, **reply_options(command))
                replies = await pipeline.execute(raise_on_error=False)
        except self._package.response_error as error:
            tier.record_error(error)
            return [error] * len(commands)
        except self._package.error as error:
            tier.record_error(error)
            raise
        tier.record_replies(replies)
        return replies


async def _wait(step: Wait) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    # Weakly: the tier refers to `notify`, and the future refers to the call. So a loop that is closed keeps no call.
    reference = weakref.ref(future)
    step.wakeup.notify = partial(_notify, reference)
    if step.wakeup.is_set:
        return
    timer = loop.call_later(step.seconds, _wake, future)
    try:
        await future
    finally:
        timer.cancel()


def _notify(reference: weakref.ref[asyncio.Future[None]]) -> None:
    """Wake the call that waits for a future, from any thread."""
    future = reference()
    if future is not None:
        # The loop may be closed.
        with suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
