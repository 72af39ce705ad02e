"""A process of the check: threads or tasks that read and write through near caches, as `__main__.py` tells it.

It reads a line of JSON for each round from standard input, and writes one with its counts when the round has ended. The
records go to the file that the line names.
"""

import asyncio
import dataclasses
import importlib
import json
import random
import sys
import threading
import time
from collections import Counter

from actions import JSON, NAMESPACES, RAW, Actions, Values
from buggy_near_caches import BUGS
from history import Log, now

from moka_py.near import NearCache

# How long a writer waits on average between two writes, and a reader after so many reads.
WRITE_PAUSE_SECONDS = 0.004
READS_PER_PAUSE = 100
READ_PAUSE_SECONDS = 0.001
# A process that has not finished this long after the end of a round hangs.
HANG_SECONDS = 60


def client_options(settings, package, asynchronous):
    """Return the options of a client without retries, with time-outs in the size of the bound."""
    prefix = f"{package}.asyncio" if asynchronous else package
    retry = importlib.import_module(f"{prefix}.retry").Retry
    no_backoff = importlib.import_module(f"{package}.backoff").NoBackoff
    return {
        "host": settings["host"],
        "port": settings["port"],
        "retry": retry(no_backoff(), 0),
        "socket_timeout": 2 * settings["bound"],
        "socket_connect_timeout": 2 * settings["bound"],
        **settings["client_options"],
    }


def client_class(package, asynchronous):
    module = importlib.import_module(f"{package}.asyncio" if asynchronous else package)
    return getattr(module, "Redis", None) or module.Valkey


class Worker:
    """The part that threads and tasks have in common."""

    asynchronous = False

    def __init__(self, settings):
        self.settings = settings
        self.values = Values(settings["process"])
        package = settings["package"]
        base = importlib.import_module(package).exceptions
        self.client_error = getattr(base, "RedisError", None) or base.ValkeyError
        self.client = client_class(package, self.asynchronous)(**client_options(settings, package, self.asynchronous))
        kind = self.near_class()
        self.caches = {
            namespace: kind(
                self.client,
                NAMESPACES[namespace],
                ttl=None,
                capacity=settings["capacity"],
                max_staleness=settings["bound"],
                serializer=serializer,
            )
            for namespace, serializer in ((RAW, "raw"), (JSON, "json"))
        }
        if settings["bug"] and not self.asynchronous:
            bug = BUGS[settings["bug"]]
            self.caches = {name: bug(cache, settings["bound"]) for name, cache in self.caches.items()}

    def near_class(self):
        return NearCache

    def start_round(self, command):
        """Make the actions of the round: one for the writer, and one for each reader."""
        self.deadline = time.monotonic() + command["seconds"]
        self.own_ends = {}
        dice = random.Random(f"{command['seed']} {self.settings['process']}")
        self.logs = [Log(self.settings["process"]) for _ in range(1 + self.settings["readers"])]
        self.actions = [
            Actions(
                self.settings["process"],
                self.values,
                log,
                self.own_ends,
                random.Random(dice.random()),
                command["round"],
                self.asynchronous,
            )
            for log in self.logs
        ]
        self.dice = random.Random(dice.random())
        self.pairs = [(action.write, True) for action in self.actions[:1]]
        self.pairs += [(action.read, False) for action in self.actions[1:]]

    def finish_round(self, command):
        """Write the records, and return the counts."""
        with open(command["file"], "wb") as file:
            for log in self.logs:
                log.take().tofile(file)
        errors = sum((action.errors for action in self.actions), Counter())
        return {
            "reads": sum(log.reads for log in self.logs),
            "errors": errors,
            "stats": [as_dict(self.caches[name].stats()) for name in sorted(self.caches)],
        }


class ThreadWorker(Worker):
    """Runs a writing thread and reading threads."""

    def run_round(self, command):
        self.start_round(command)
        failures = []

        def work(choose, is_writer):
            try:
                self.loop(choose, is_writer)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in self.pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(command["seconds"] + HANG_SECONDS)
            if thread.is_alive():
                raise RuntimeError("a thread hangs")
        if failures:
            raise failures[0]
        return self.finish_round(command)

    def loop(self, choose, is_writer):
        caches, client_error, pause = self.caches, self.client_error, self.dice.expovariate
        while time.monotonic() < self.deadline:
            for _ in range(1 if is_writer else READS_PER_PAUSE):
                call = choose()
                method = getattr(caches[call.namespace], call.method)
                error = result = None
                begin = now()
                try:
                    result = method(*call.arguments, **call.options)
                except client_error as raised:
                    error = raised
                call.done(result, error, begin, now())
                if error is not None:
                    # A server that fails at once would be asked in a loop.
                    time.sleep(READ_PAUSE_SECONDS)
            time.sleep(pause(1 / WRITE_PAUSE_SECONDS) if is_writer else READ_PAUSE_SECONDS)


class TaskWorker(Worker):
    """Runs a writing task and reading tasks in one event loop, which lives as long as the process."""

    asynchronous = True

    def __init__(self, settings):
        self._runner = asyncio.Runner()
        super().__init__(settings)

    def near_class(self):
        return importlib.import_module("moka_py.near").AsyncNearCache

    def run_round(self, command):
        return self._runner.run(self._run_round(command))

    async def _run_round(self, command):
        self.start_round(command)
        async with asyncio.timeout(command["seconds"] + HANG_SECONDS), asyncio.TaskGroup() as group:
            for choose, is_writer in self.pairs:
                group.create_task(self.loop(choose, is_writer))
            group.create_task(self.loop(self.actions[1].read_local, False))
        return self.finish_round(command)

    async def loop(self, choose, is_writer):
        caches, client_error, pause = self.caches, self.client_error, self.dice.expovariate
        while time.monotonic() < self.deadline:
            for _ in range(1 if is_writer else READS_PER_PAUSE):
                call = choose()
                method = getattr(caches[call.namespace], call.method)
                error = result = None
                begin = now()
                try:
                    result = method(*call.arguments, **call.options)
                    if asyncio.iscoroutine(result):
                        result = await result
                except client_error as raised:
                    error = raised
                call.done(result, error, begin, now())
                if error is not None:
                    await asyncio.sleep(READ_PAUSE_SECONDS)
            await asyncio.sleep(pause(1 / WRITE_PAUSE_SECONDS) if is_writer else READ_PAUSE_SECONDS)


def as_dict(stats):
    """Return the numbers of a NearStats, with those of its parts."""
    if dataclasses.is_dataclass(stats):
        return dataclasses.asdict(stats)
    if hasattr(stats, "_asdict"):
        return {name: as_dict(value) for name, value in stats._asdict().items()}
    return stats


def main():
    settings = json.loads(sys.argv[1])
    worker = (TaskWorker if settings["asyncio"] else ThreadWorker)(settings)
    for line in sys.stdin:
        print(json.dumps(worker.run_round(json.loads(line))), flush=True)


main()
