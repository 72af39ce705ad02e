"""Checks that no near cache is more stale than its bound, whatever breaks.

Several processes write and read the same keys through near caches, and another client writes past them. Meanwhile a
random series of faults disturbs the server, the network and the processes (faults.py). Everything is recorded. After
each round staleness_checker.py looks for reads that are too old, for own writes that were not seen, and for fresh reads
that are not linearizable.

    python stress/near --program "$(ci/server --program redis)" --minutes 10
    python stress/near --program ... --seed 7 --faults script_slow,quiet
    python stress/near --program ... --bug too_old          # must fail
"""

import argparse
import array
import contextlib
import functools
import importlib
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "python"))

import faults as faults_module  # noqa: E402
from actions import EXPIRING, RAW, TTL_SECONDS, Values, keys_of_round, kind_of, namespace_of  # noqa: E402
from buggy_near_caches import BUGS  # noqa: E402
from history import ABSENT, FIELDS, NEVER, RESET, SET, Log, now, records  # noqa: E402
from near.real_server import RealServer  # noqa: E402
from proxy import Proxy  # noqa: E402
from staleness_checker import check, describe  # noqa: E402

NANOS = 1_000_000_000
FOREIGN_PROCESS = 0
FOREIGN_PAUSE_SECONDS = 0.005
# How long the client that writes past the caches waits for a reply, and the one that makes faults.
FOREIGN_SECONDS, ADMIN_SECONDS = 1.0, 60.0
# A worker that answers this long after the end of a round hangs.
HANG_SECONDS = 90
MAX_DESCRIBED_PROBLEMS = 5
# A check whose reads were hardly ever answered by the local tier shows nothing.
MIN_LOCAL_SHARE = 0.3
# A run of at least this many minutes must have had each fault.
MIN_MINUTES_FOR_ALL_FAULTS = 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--program", required=True, help="the program of the server, as `ci/server --program` prints it"
    )
    parser.add_argument("--package", default="redis", choices=["redis", "valkey"], help="the package of the client")
    parser.add_argument("--protocol", type=int, choices=[2, 3], help="the version of the protocol of the data client")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="by default a random one, which is printed")
    parser.add_argument("--max-staleness", type=float, default=0.4, help="in seconds")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--readers", type=int, default=2, help="the reading threads of each process")
    parser.add_argument("--round-seconds", type=float, default=15.0)
    parser.add_argument("--capacity", type=int, default=80, help="of each local tier; a round has 60 keys for each")
    parser.add_argument("--faults", default=",".join(faults_module.ALL), help="a list of names, separated by commas")
    parser.add_argument("--no-asyncio", action="store_true", help="use only threads in all processes")
    parser.add_argument("--bug", choices=sorted(BUGS), help="use a cache with this bug; the check must fail")
    arguments = parser.parse_args()
    arguments.faults = arguments.faults.split(",")
    if unknown := set(arguments.faults) - set(faults_module.ALL):
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    return arguments


class Check:
    """A run: the server, the proxy, the processes, and the client that writes past the caches."""

    def __init__(self, arguments, stack):
        self.arguments = arguments
        package = importlib.import_module(arguments.package)
        self._client_kind = getattr(package, "Redis", None) or package.Valkey
        self._no_retry = package.retry.Retry(package.backoff.NoBackoff(), 0)
        self.client_error = getattr(package, "RedisError", None) or package.ValkeyError
        # The server calls itself busy after 5 ms of a script.
        self.server = stack.enter_context(RealServer(arguments.program, "--lua-time-limit", "5"))
        self.proxy = Proxy(self.server.port)
        stack.callback(self.proxy.close)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.processes = [
            stack.enter_context(self._start_worker(number)) for number in range(1, arguments.processes + 1)
        ]
        for process in self.processes:
            stack.callback(process.kill)
        self.values = Values(FOREIGN_PROCESS)
        self.faults = faults_module.Faults(
            self.server, self.proxy, self.make_client, self.client_error, self.values, arguments.max_staleness
        )
        self.counts = Counter()
        self.reads = 0
        self.worst_staleness = 0
        self.stats = []

    def make_client(self, **options):
        """Return a client that reaches the server without the proxy."""
        options = {"socket_timeout": ADMIN_SECONDS, "retry": self._no_retry, **options}
        return self._client_kind(host=self.server.host, port=self.server.port, **options)

    def _start_worker(self, number):
        arguments = self.arguments
        settings = {
            "process": number,
            "host": self.proxy.host,
            "port": self.proxy.port,
            "bound": arguments.max_staleness,
            "capacity": arguments.capacity,
            "package": arguments.package,
            "client_options": {} if arguments.protocol is None else {"protocol": arguments.protocol},
            "readers": arguments.readers,
            "asyncio": number == arguments.processes and not arguments.no_asyncio,
            "bug": arguments.bug,
        }
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), json.dumps(settings)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONFAULTHANDLER": "1"}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run_round(self, number, seed):
        """Run a round. Return its problems, and the time when it began."""
        start = now()
        seconds = self.arguments.round_seconds
        keys = list(keys_of_round(number))
        log, foreign_log = Log(FOREIGN_PROCESS), Log(FOREIGN_PROCESS)
        files = [self.folder / f"{position}.bin" for position in range(len(self.processes))]
        for process, file in zip(self.processes, files, strict=True):
            command = {"round": number, "seconds": seconds, "seed": seed, "file": str(file)}
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        deadline = time.monotonic() + seconds
        foreign = threading.Thread(target=self._write_past, args=(keys, foreign_log, seed, deadline), daemon=True)
        foreign.start()
        self.faults.start_round(log, keys, self.processes, seed)
        happened = self._make_faults(random.Random(f"{seed} order"), deadline)
        foreign.join(seconds + HANG_SECONDS)
        answers = [self._answer(process) for process in self.processes]
        numbers = log.take() + foreign_log.take()
        for file in files:
            with open(file, "rb") as source:
                part = array.array("q")
                part.frombytes(source.read())
                numbers += part
        ttls = {key: int(TTL_SECONDS * NANOS) for key in keys if kind_of(key) == EXPIRING}
        problems, worst = check(records(numbers), int(self.arguments.max_staleness * NANOS), ttls)
        self._count(number, seed, answers, happened, len(numbers) // FIELDS, worst)
        return problems, start

    def _answer(self, process):
        timer = threading.Timer(HANG_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            raise SystemExit(f"a process failed or hung: exit code {process.wait()}")
        return json.loads(line)

    def _make_faults(self, dice, deadline):
        happened, waiting = Counter(), []
        while time.monotonic() < deadline:
            if not waiting:
                waiting = dice.sample(self.arguments.faults, len(self.arguments.faults))
            name = waiting.pop()
            happened[name] += getattr(self.faults, name)()
            # Most faults meet tiers that answer, and some meet those that recover from another fault.
            time.sleep(dice.choice([0.1, 0.5, 2, 4]) * self.arguments.max_staleness)
        return happened

    def _write_past(self, keys, log, seed, deadline):
        """Write keys of the raw namespace as a foreign program would."""
        dice = random.Random(f"{seed} foreign")
        keys = [key for key in keys if namespace_of(key) == RAW]
        client = self.make_client(socket_timeout=FOREIGN_SECONDS)
        while time.monotonic() < deadline:
            key = dice.choice(keys)
            name = faults_module.name_of(key)
            if kind_of(key) != EXPIRING and dice.random() < 0.1:
                value, call = ABSENT, functools.partial(client.delete, name)
            else:
                value = self.values.new()
                px = int(TTL_SECONDS * 1000) if kind_of(key) == EXPIRING else None
                call = functools.partial(client.set, name, value, px=px)
            begin, end = now(), NEVER
            with contextlib.suppress(self.client_error):
                call()
                end = now()
            log.add(RESET if value == ABSENT else SET, key, value, begin, end)
            time.sleep(dice.expovariate(1 / FOREIGN_PAUSE_SECONDS))
        client.close()

    def _count(self, number, seed, answers, happened, recorded, worst):
        reads = sum(answer["reads"] for answer in answers)
        errors = sum((Counter(answer["errors"]) for answer in answers), Counter())
        self.counts += happened
        self.reads += reads
        self.worst_staleness = max(self.worst_staleness, worst)
        self.stats = [stats for answer in answers for stats in answer["stats"]]
        print(
            f"round {number}, seed {seed}: {reads:,} reads, {recorded:,} records, {happened.total()} faults, "
            f"worst staleness {worst / NANOS:.3f} s, errors {dict(errors)}",
            flush=True,
        )


def local_share(stats):
    """Return the share of look-ups that the local tiers answered."""
    hits = sum(each["local"]["hits"] for each in stats)
    remote = sum(each["remote_hits"] + each["remote_misses"] for each in stats)
    return hits / max(1, hits + remote)


def main():
    arguments = parse_arguments()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    print(f"CPython {sys.version.split()[0]}{'t' if free_threaded else ''}, seed {seed}", flush=True)
    deadline = time.monotonic() + arguments.minutes * 60
    with contextlib.ExitStack() as stack:
        run = Check(arguments, stack)
        number = 0
        while number == 0 or time.monotonic() < deadline:
            problems, start = run.run_round(number, seed + number)
            if problems:
                for problem in problems[:MAX_DESCRIBED_PROBLEMS]:
                    print("\n".join(describe(problem, start)))
                print(f"{len(problems)} problems; the round repeats with --seed {seed + number}")
                sys.exit(1)
            number += 1
        for process in run.processes:
            process.stdin.close()
        for process in run.processes:
            if process.wait(HANG_SECONDS) != 0:
                raise SystemExit(f"a process ended with exit code {process.returncode}")
    share = local_share(run.stats)
    print(f"faults: {', '.join(f'{name} {count}' for name, count in sorted(run.counts.items()))}")
    print(
        f"{run.reads:,} reads, {share:.1%} of them local, "
        f"worst staleness {run.worst_staleness / NANOS:.3f} s of {arguments.max_staleness} s"
    )
    totals = Counter()
    for stats in run.stats:
        totals.update({name: value for name, value in stats.items() if name != "local"})
    print(f"counts: {', '.join(f'{name} {value:,.0f}' for name, value in totals.items())}")
    if arguments.bug:
        raise SystemExit(f"the bug {arguments.bug} was not found")
    if share < MIN_LOCAL_SHARE:
        raise SystemExit(f"the local tiers answered only {share:.1%} of the reads, so this run shows nothing")
    if missing := [name for name in arguments.faults if not run.counts[name]]:
        if arguments.minutes >= MIN_MINUTES_FOR_ALL_FAULTS:
            raise SystemExit(f"these faults had no effect: {', '.join(missing)}")
        print(f"too short a run for: {', '.join(missing)}")


main()
