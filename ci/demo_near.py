"""Shows a near cache in two processes with one server: writes of one are seen by the other.

usage: python ci/demo_near.py HOST:PORT

One process writes, and both read objects, a few of them very often. Half-way the server closes the connections of the
listeners. Each process counts the reads that its local tier answered. For each read of a value that the other process
had already replaced it notes how long ago that was.
"""

import itertools
import multiprocessing
import platform
import random
import sys
import time
from collections import defaultdict

import redis

from moka_py.near import NearCache

NAMESPACE = "demo"
SECONDS = 2.0
MAX_STALENESS = 1.0
OBJECTS = 2_000
# The keys of so many reads are drawn in advance, and then repeated.
DRAWN = 100_000
# The writer writes one of so many objects that it reads.
WRITE_EACH = 50
now = time.monotonic


def connect(address):
    """Return a client and a near cache. Both processes call this."""
    host, port = address.split(":")
    client = redis.Redis(host=host, port=int(port))
    return client, NearCache(client, NAMESPACE, ttl=300, capacity=10_000, max_staleness=MAX_STALENESS)


def draw_keys(seed):
    """Return keys by Zipf's law: the object of rank n is read 1/n as often as the first."""
    weights = itertools.accumulate(1 / rank for rank in range(1, OBJECTS + 1))
    return random.Random(seed).choices(range(OBJECTS), cum_weights=list(weights), k=DRAWN)


def replay(near, keys, deadline, versions, write=None):
    """Read objects until the deadline. Return the number of reads, and those that were behind `versions`.

    `versions` has the last version of each object that the writer knows to be on the server.
    """
    reads, behind = 0, []
    while True:
        for key in keys:
            known = versions[key]
            began = now()
            found = near.get_with(key, lambda: 0)
            if found < known:
                behind.append((key, found, began))
            reads += 1
            if write is not None and reads % WRITE_EACH == 0:
                write(key)
            if began >= deadline:
                return reads, behind


def counts(near, reads, behind):
    """Return what a process has found: its reads, its counts, and the reads of replaced values."""
    stats = near.stats()
    return reads, stats.local.hit_ratio, stats.invalidations, stats.reconnects, behind


def read_in_child(address, versions, pipe):
    """The second process."""
    keys = draw_keys(2)
    client, near = connect(address)
    with client, near:
        # First it waits for one write of the other process.
        before = near.get("greeting")
        wait_until_coherent(near)
        pipe.send(before)
        while near.get("greeting") == before:
            pass
        pipe.send((now(), near.get("greeting")))
        pipe.send(counts(near, *replay(near, keys, pipe.recv(), versions)))


def wait_until_coherent(near):
    deadline = now() + 30
    while not near.is_coherent:
        if now() > deadline:
            raise SystemExit("the near cache does not become coherent")
        time.sleep(0.01)
        near.get("greeting")


def main():
    address = sys.argv[1]
    keys = draw_keys(1)
    context = multiprocessing.get_context("spawn")
    versions = context.Array("q", OBJECTS, lock=False)
    pipe, end = context.Pipe()
    client, near = connect(address)
    client.flushall()
    with client, near:
        near.set("greeting", "hello")
        child = context.Process(target=read_in_child, args=(address, versions, end), daemon=True)
        child.start()
        said = pipe.recv()
        began = now()
        near.set("greeting", "good evening")
        seen, text = pipe.recv()
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        print(f"{platform.python_implementation()} {platform.python_version()}, GIL {'on' if gil else 'off'}")
        delay = 1e6 * (seen - began)
        print(f'one process sets "{text}" in place of "{said}"; the other one reads it {delay:.0f} us later')

        replaced = defaultdict(list)

        def write(key):
            version = versions[key] + 1
            near.set(key, version)
            replaced[key].append(now())
            versions[key] = version

        wait_until_coherent(near)
        start = now()
        pipe.send(start + SECONDS)
        halves = [replay(near, keys, start + SECONDS / 2, versions, write)]
        closed = sum(client.client_kill_filter(_id=each["id"]) for each in client.client_list() if "t" in each["flags"])
        halves.append(replay(near, keys, start + SECONDS, versions, write))
        rows = [counts(near, sum(reads for reads, _ in halves), [each for _, part in halves for each in part])]
        rows.append(pipe.recv())
        child.join(30)
    if child.exitcode != 0 or closed != 2:
        raise SystemExit(f"exit code {child.exitcode}, closed {closed} listeners")
    report(rows, replaced)


def report(rows, replaced):
    print("process  reads      hit ratio  invalidations  reconnects  worst staleness")
    for name, (reads, ratio, invalidations, reconnects, behind) in zip(("writer", "reader"), rows, strict=True):
        # Version n was replaced when version n + 1 was written, which is entry n of the list.
        worst = max((began - replaced[key][version] for key, version, began in behind), default=0.0)
        print(
            f"{name:<7}  {reads:<9,}  {ratio:<9.1%}  {invalidations:<13,}  {reconnects:<10}  "
            f"{1000 * worst:.1f} ms of {1000 * MAX_STALENESS:.0f}"
        )
        if worst > MAX_STALENESS:
            raise SystemExit("a read was older than its bound")
        if reconnects == 0:
            raise SystemExit("the listener did not connect again")
    if not sum(map(len, replaced.values())):
        raise SystemExit("nothing was written")


if __name__ == "__main__":
    main()
