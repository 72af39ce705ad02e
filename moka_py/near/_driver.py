"""`Driver`: carries out the steps of operations with a synchronous client."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from typing import Any, cast

from moka_py.near._client import SyncClient, reply_options
from moka_py.near._operations import Ask, Command, Run, Share, Step, Steps, Wait
from moka_py.near._tier import Tier


class Driver:
    """Carries out the steps of operations on one namespace."""

    def __init__(self, tier: Tier, client: SyncClient) -> None:
        self._tier = tier
        self._client = client
        self._package = tier.server.package

    def perform[T](self, steps: Steps[T]) -> T:
        """Carry out the steps of an operation, and return its result."""
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._carry_out(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            return cast(T, end.value)

    def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self._ask(step.commands)
        if isinstance(step, Run):
            result = step.initializer()
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("initializer must not return a coroutine: use AsyncNearCache.get_with")
            return result
        if isinstance(step, Share):
            operation = step.operation
            return self._tier.computations.get_with(step.key, lambda: self.perform(operation()))
        return _wait(step)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and return their replies. An error reply is in the list, another error is raised."""
        tier = self._tier
        tier.check_server()
        try:
            if len(commands) == 1:
                [command] = commands
                replies = [self._client.execute_command(*command, **reply_options(command))]
            else:
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command, **reply_options(command))
                replies = pipeline.execute(raise_on_error=False)
        except self._package.response_error as error:
            tier.record_error(error)
            return [error] * len(commands)
        except self._package.error as error:
            tier.record_error(error)
            raise
        tier.record_replies(replies)
        return replies


def _wait(step: Wait) -> None:
    event = threading.Event()
    step.wakeup.notify = event.set
    if not step.wakeup.is_set:
        event.wait(step.seconds)
