"""Counts the cache lines that move between the cores of two threads per operation, independent of the machine's load.

    python stress/bench/coherence.py               # needs cargo and valgrind, and takes seven minutes
    python stress/bench/coherence.py --only evict --where 20

`coherence.rs` lets two threads make one operation at a time, in random order, and valgrind's lackey traces each access
to memory. In the model each thread has a core with an infinite cache. A line is fetched if the other core has written
it since. A line is taken if it is in this cache and is written, and the other core has it, too. The model knows neither
contention nor prefetching nor Python. So it shows how many lines move, and where, but not how long that takes.
"""

import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = {
    "`get`, a hit, one key of all": "hit-of-one",
    "`get`, a hit": "hit",
    "`get`, a miss": "miss",
    "`set` of the value that is there": "replace-by-same",
    "`set` of another value": "replace",
    "half `get`, half `set` of another value": "half-and-half",
    "`set` that evicts": "evict",
    "`remove` and `set` again": "remove-and-set",
}
POLICIES = ("tiny_lfu", "lru")
LINE = 64


def build():
    """Builds the program at a fixed address, so that addresses of the trace can be mapped to source lines."""
    command = ["cargo", "rustc", "--locked", "--profile", "bench", "--bench", "coherence", "--message-format=json"]
    debug_info = {"CARGO_PROFILE_BENCH_DEBUG": "1", "CARGO_PROFILE_BENCH_STRIP": "none"}
    done = subprocess.run(
        [*command, "--", "-Crelocation-model=static"],
        cwd=ROOT,
        env=os.environ | debug_info,
        stdout=subprocess.PIPE,
        check=True,
    )
    messages = map(json.loads, done.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "coherence" and m["executable"])


def operations(program, *arguments):
    """Yields the thread and the accesses of each operation: the line, whether it is written, and the instruction."""
    printed = subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout
    *begins, end = (int(address, 16) // LINE for address in printed.split())
    read, write = os.pipe()
    lackey = ["valgrind", "--quiet", "--tool=lackey", "--trace-mem=yes", f"--log-fd={write}"]
    with (
        subprocess.Popen([*lackey, program, *map(str, arguments)], pass_fds=[write]) as running,
        open(read, "rb") as trace,
    ):
        os.close(write)
        yield from parse(trace, begins, end)
        if running.wait():
            sys.exit(f"lackey ended with {running.returncode}")


def parse(trace, begins, end):
    """Yields the same from the output of lackey. A thread writes to its line of `begins` before an operation, and to
    `end` after it."""
    thread, accesses, instruction = None, [], 0
    for text in trace:
        if (kind := text[:2]) not in (b"I ", b" L", b" S", b" M"):
            continue
        place = int(text[3:].partition(b",")[0], 16)
        if kind == b"I ":
            instruction = place
        elif (line := place // LINE) == end and thread is not None:
            yield thread, accesses
            thread = None
        elif line in begins:
            thread, accesses = begins.index(line), []
        elif thread is not None:
            writes = kind != b" L"
            if accesses and accesses[-1][::2] == (line, instruction):
                # lackey reports an exchange or a locked addition as a read and then a write.
                writes |= accesses.pop()[1]
            accesses.append((line, writes, instruction))


class Lines:
    """The cores that have each line, and the number of moves in the operations that count."""

    def __init__(self):
        self.holders, self.written = {}, set()
        # By the address of the instruction.
        self.fetched, self.taken = collections.Counter(), collections.Counter()
        self.operations = self.touched = self.changed = 0

    def take(self, thread, accesses, counts):
        for line, writes, instruction in accesses:
            holders = self.holders.setdefault(line, set())
            others = bool(holders - {thread})
            if counts and thread not in holders and (others if writes else line in self.written):
                self.fetched[instruction] += 1
            elif counts and writes and others:
                self.taken[instruction] += 1
            if writes:
                holders.clear()
                self.written.add(line)
            holders.add(thread)
        if counts:
            self.operations += 1
            self.touched += len({line for line, *_ in accesses})
            self.changed += len({line for line, writes, _ in accesses if writes})


def sources(program, addresses):
    """Returns the source lines of each address, from the innermost inlined function to the outermost."""
    wanted = "".join(f"{address:x}\n" for address in addresses)
    done = subprocess.run(["addr2line", "-aipe", program], input=wanted, capture_output=True, text=True, check=True)
    lines = {}
    for text in done.stdout.splitlines():
        if text.startswith("0x"):
            address, _, text = text.partition(": ")
            lines[int(address, 16)] = found = []
        place = text.removeprefix(" (inlined by) ").partition(" (discriminator")[0]
        if place.startswith(f"{ROOT}/src/"):
            found.append(place.removeprefix(f"{ROOT}/src/"))
    return {address: " < ".join(lines[address][:3]) or "elsewhere" for address in addresses}


def follow(program, operation, policy, entries, count):
    """Counts the lines of `count` operations. The first half is a warm-up and does not count."""
    lines = Lines()
    for index, done in enumerate(operations(program, operation, policy, entries, count)):
        lines.take(*done, index >= entries + count // 2)
    return lines


def print_where(program, lines, most):
    moved = lines.fetched + lines.taken
    places, where = collections.Counter(), sources(program, moved)
    for address, count in moved.items():
        places[where[address]] += count / lines.operations
    for place, count in places.most_common(most):
        print(f"    {count:6.3f}  {place}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only operations whose names contain this")
    parser.add_argument("--where", type=int, default=0, metavar="N", help="show the N places where most lines move")
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--operations", type=int, default=10_000)
    options = parser.parse_args()
    if min(options.entries, options.operations) < 1:
        parser.error("--entries and --operations must be 1 or more")
    program = build()
    print("| operation | lines touched | written | fetched | taken |\n|---|--:|--:|--:|--:|")
    names = [name for name in OPERATIONS if options.only in name]
    for name, policy in itertools.product(names, POLICIES):
        lines = follow(program, OPERATIONS[name], policy, options.entries, options.operations)
        figures = (lines.touched, lines.changed, lines.fetched.total(), lines.taken.total())
        cells = [f"{figure / lines.operations:.1f}" for figure in figures]
        print(f"| {name}, `{policy}` | {' | '.join(cells)} |", flush=True)
        if options.where:
            print_where(program, lines, options.where)


if __name__ == "__main__":
    main()
