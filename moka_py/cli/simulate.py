"""`python -m moka_py simulate`: hit ratios of a file of keys at several capacities.

The native `_Trace` samples the keys and replays them. This file reads the options and shows the results.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from moka_py._moka_py import _Trace
from moka_py.cli import chart
from moka_py.cli.keys import UnreadableError, read_keys
from moka_py.cli.progress import Progress

if TYPE_CHECKING:
    from moka_py._moka_py import _Method

METHODS: "tuple[_Method, ...]" = ("tiny_lfu", "lru", "optimum")

# A file that has at most this many chunks shows no progress.
_MAX_CHUNKS_WITHOUT_PROGRESS = 4
_MAX_CAPACITY = 2**63 - 1

_DESCRIPTION = """\
How large should a cache be? Reads the keys that a program asked for, one a line, in the order of the accesses, and
prints the hit ratios that caches of several capacities would have had: get, and set after a miss, in one thread, from
an empty cache on. The optimum, which knows the future (Belady), stands beside both policies.
"""
_EPILOG = """\
Long files are sampled by key, and the table says so. Hit ratios of a sample are off by a few tenths of a point. Empty
lines are left out. Exit codes: 0; 2 for an error, which stderr explains in one line.
"""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the commands of the program."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate", help="how large should a cache be?", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("file", metavar="KEYS_FILE", help="a text, or one packed with gzip or xz; - is standard input")
    parser.add_argument("--column", metavar="NAME", help="the file is CSV, and the keys are in this column of it")
    parser.add_argument(
        "--capacities", metavar="N,N,...", type=_capacities, help="entries (default: a series up to all distinct keys)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--plot", metavar="OUT", type=chart.output_path, help="draw a chart too, as .svg or .png")
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("--sample", metavar="KEYS", type=_whole_number, help="replay at most so many distinct keys")
    how_many.add_argument("--exact", action="store_true", help="replay all keys, whatever the time and memory")
    parser.set_defaults(run=lambda options: run(options, parser))


def _whole_number(text: str) -> int:
    # `int` takes more than that, such as "1_0".
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not 1 <= int(text) <= _MAX_CAPACITY:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def _capacities(text: str) -> list[int]:
    return sorted({_whole_number(part.strip()) for part in text.split(",")})


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Read the keys, replay them, and print the result."""
    if options.plot:
        chart.check_path(options.plot, parser)
    name = "standard input" if options.file == "-" else options.file
    trace = _Trace(max_keys=options.sample, exact=options.exact)
    with Progress(sys.stderr) as progress:
        try:
            _read(options.file, options.column, trace, progress)
        except UnreadableError as error:
            progress.close()
            parser.error(f"{name}: {error}")
        capacities = options.capacities or default_capacities(trace.distinct_keys, trace.min_capacity)
        result = _replay(trace, capacities, progress)
    result = {"file": options.file, **result}
    print(json.dumps(result, indent=2) if options.json else table(result, name))
    if options.plot:
        # The chart may fail, and the table is to be seen all the same.
        sys.stdout.flush()
        chart.draw(options.plot, result, name, parser)


def _read(file: str, column: str | None, trace: _Trace, progress: Progress) -> None:
    chunks = 0

    def show(done: float | None) -> None:
        nonlocal chunks
        chunks += 1
        progress.is_enabled = chunks > _MAX_CHUNKS_WITHOUT_PROGRESS
        progress.show("reading", done, f"{trace.accesses:,} accesses")

    read_keys(file, column, trace, show)


def default_capacities(distinct_keys: int, min_capacity: int) -> list[int]:
    """Return 1, 2, 5, 10 and so on, from a thousandth of the distinct keys to the first capacity that holds all."""
    first = max(distinct_keys // 1000, min_capacity, 1)
    capacities = []
    for exponent in range(20):
        for digit in (1, 2, 5):
            capacity = digit * 10**exponent
            if capacity >= first:
                capacities.append(capacity)
            if capacity >= max(distinct_keys, first):
                return capacities
    return capacities


def _replay(trace: _Trace, capacities: list[int], progress: Progress) -> dict[str, Any]:
    rows = []
    for done, capacity in enumerate(capacities):
        row: dict[str, Any] = {"capacity": capacity}
        for index, method in enumerate(METHODS):
            progress.show("replaying", (done + index / len(METHODS)) / len(capacities), f"capacity {capacity:,}")
            ratio = trace.hit_ratio(method, capacity)
            row[method] = None if ratio is None else round(ratio, 4)
        rows.append(row)
    sample = {"rate": trace.sampling_rate, "keys": trace.sampled_keys, "accesses": trace.sampled_accesses}
    return {
        "accesses": trace.accesses,
        "distinct_keys": trace.distinct_keys,
        "sample": sample if trace.sampling_rate < 1 else None,
        "least_capacity": trace.min_capacity,
        "empty": trace.empty_keys,
        "hit_ratios": rows,
    }


def table(result: dict[str, Any], name: str) -> str:
    """Return the result as text for people."""
    sample = result["sample"]
    about = "about " if sample else ""
    lines = [f"{name}: {result['accesses']:,} accesses, {about}{result['distinct_keys']:,} distinct keys"]
    if sample:
        lines.append(
            f"sampled: 1 key in {round(1 / sample['rate']):,}, which makes {sample['keys']:,} keys and"
            f" {sample['accesses']:,} accesses; --exact replays all"
        )
    if result["empty"]:
        lines.append(f"left out: {result['empty']:,} without a key")
    head = ["capacity", *METHODS]
    rows = [
        [f"{row['capacity']:,}", *("-" if row[method] is None else f"{row[method]:.2f}" for method in METHODS)]
        for row in result["hit_ratios"]
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines += ["", "hit ratio in percent, by capacity in entries", ""]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    if any(row[METHODS[0]] is None for row in result["hit_ratios"]):
        lines += [
            "",
            f"-: below {result['least_capacity']:,} the sample is too small to tell; --exact or a larger --sample does",
        ]
    return "\n".join(lines)
