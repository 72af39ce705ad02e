"""`python -m moka_py simulate`: hit ratios of a file of keys at several capacities.

Chunks of the file go to the native `_Trace`, which finds the keys in them, samples and replays them. What is left for
Python is to unpack, and to show.
"""

import argparse
import json
import lzma
import os
import sys
import zlib
from gzip import GzipFile
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol, cast

from moka_py import _chart
from moka_py._moka_py import _Trace
from moka_py._progress import Progress

if TYPE_CHECKING:
    from moka_py._moka_py import _Method

METHODS: "tuple[_Method, ...]" = ("tiny_lfu", "lru", "optimum")

_CHUNK = 1 << 20
# Chunks of a file that is done before a progress bar tells anything.
_QUICKLY_READ = 4
# What the files begin with that are neither text nor unpacked here.
_OTHER_FORMATS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
_LONGEST_MAGIC = 6
_MOST_CAPACITY = 2**63 - 1

_DESCRIPTION = """\
How large should a cache be? Reads the keys that a program asked for, one a line, in the order of the accesses, and
prints the hit ratios that caches of several capacities would have had: get, and set after a miss, in one thread, from
an empty cache on. Beside both policies stands the optimum, which knows the future (Belady).
"""
_EPILOG = """\
Long files are sampled by key, and the table says so; hit ratios are then off by some tenths of a point. Empty lines are
left out. Exit codes: 0; 2 for what cannot be done, with a line on stderr that says why.
"""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Source:
    """A file whose beginning was looked at already, and which knows how much of it was read."""

    def __init__(self, file: BinaryIO, size: int | None) -> None:
        self._file = file
        self.size = size
        self.beginning = file.read(_LONGEST_MAGIC)
        self._unread = self.beginning
        self.done = 0

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            chunk, self._unread = self._unread + self._file.read(), b""
        else:
            chunk, self._unread = self._unread[:size], self._unread[size:]
            chunk += self._file.read(size - len(chunk))
        self.done += len(chunk)
        return chunk

    def unpacked(self) -> _Readable:
        if self.beginning.startswith(b"\x1f\x8b"):
            return GzipFile(fileobj=cast(BinaryIO, self), mode="rb")
        if self.beginning.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMAFile(cast(BinaryIO, self))
        for magic, name in _OTHER_FORMATS.items():
            if self.beginning.startswith(magic):
                raise ValueError(f"is packed with {name}: only text, gzip and xz are read")
        return self


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the command to those of the program."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate", help="how large should a cache be?", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("file", metavar="KEYS_FILE", help="a text, or one packed with gzip or xz; - is standard input")
    parser.add_argument("--column", metavar="NAME", help="the file is CSV, and the keys are in this column of it")
    parser.add_argument(
        "--capacities", metavar="N,N,...", type=_capacities, help="entries (default: a series up to all distinct keys)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--plot", metavar="OUT", type=_chart.target, help="draw a chart too, as .svg or .png")
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("--sample", metavar="KEYS", type=_whole_number, help="replay at most so many distinct keys")
    how_many.add_argument("--exact", action="store_true", help="replay all keys, whatever the time and memory")
    parser.set_defaults(run=lambda options: run(options, parser))


def _whole_number(text: str) -> int:
    # `int` takes more than that, such as "1_0".
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not 1 <= int(text) <= _MOST_CAPACITY:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def _capacities(text: str) -> list[int]:
    return sorted({_whole_number(part.strip()) for part in text.split(",")})


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if options.plot:
        _chart.prepare(options.plot, parser)
    name = "standard input" if options.file == "-" else options.file
    trace = _Trace(
        column=None if options.column is None else os.fsencode(options.column),
        most_keys=options.sample,
        exact=options.exact,
    )
    with Progress(sys.stderr) as progress:
        _read(options.file, name, trace, progress, parser)
        capacities = options.capacities or series(trace.distinct, trace.least_capacity)
        result = _replay(trace, capacities, progress)
    result = {"file": options.file, **result}
    print(json.dumps(result, indent=2) if options.json else table(result, name))
    if options.plot:
        # Before the chart, which may fail.
        sys.stdout.flush()
        _chart.draw(options.plot, result, name, parser)


def _read(file: str, name: str, trace: _Trace, progress: Progress, parser: argparse.ArgumentParser) -> None:
    def fail(why: object) -> NoReturn:
        progress.close()
        parser.error(f"{name}: {why}")

    try:
        if file == "-":
            if sys.stdin is None:
                fail("is closed")
            _feed(_Source(sys.stdin.buffer, None), trace, progress)
        else:
            with open(file, "rb") as opened:
                status = os.fstat(opened.fileno())
                _feed(_Source(opened, status.st_size or None), trace, progress)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        fail(f"is broken: {error}")
    except OSError as error:
        # gzip has no number for a file that is none.
        fail(error.strerror or f"is broken: {error}")
    except ValueError as error:
        fail(error)
    if not trace.accesses:
        fail("has no keys")


def _feed(source: _Source, trace: _Trace, progress: Progress) -> None:
    if not source.beginning:
        raise ValueError("is empty")
    text = source.unpacked()
    chunks = 0
    while chunk := text.read(_CHUNK):
        # As grep tells them: an image or an archive has lines, too, and its figures would mean nothing.
        if not chunks and b"\0" in chunk:
            raise ValueError("is no text: it has a NUL byte, as binary files and UTF-16 have")
        trace.feed(chunk)
        chunks += 1
        progress.is_worth_it = chunks > _QUICKLY_READ
        part = source.done / source.size if source.size else None
        progress.show("reading", part, f"{trace.accesses:,} accesses")
    trace.end()


def series(distinct: int, least: int) -> list[int]:
    """1, 2, 5, 10 and so on, from a thousandth of the distinct keys to where all of them fit."""
    first = max(distinct // 1000, least, 1)
    capacities = []
    for exponent in range(20):
        for digit in (1, 2, 5):
            capacity = digit * 10**exponent
            if capacity >= first:
                capacities.append(capacity)
            if capacity >= max(distinct, first):
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
    sample = {"rate": trace.rate, "keys": trace.kept_keys, "accesses": trace.kept_accesses}
    return {
        "accesses": trace.accesses,
        "distinct_keys": trace.distinct,
        "sample": sample if trace.rate < 1 else None,
        "least_capacity": trace.least_capacity,
        "empty": trace.empty,
        "hit_ratios": rows,
    }


def table(result: dict[str, Any], name: str) -> str:
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
