"""Helpers of the benchmarks: scales, rounds in which all subjects take turns, and reports.

A result is a row of a part: an operation, its unit, and for each subject the median of its rounds with the spread.
Parts print their rows as Markdown and, with `--json`, write them to a file that `report.py` reads.
"""

import argparse
import dataclasses
import gc
import json
import os
import statistics
import sys
import sysconfig
import time
import types

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
NEEDLES = 1_000


@dataclasses.dataclass(frozen=True)
class Scale:
    """The amounts of a run. `QUICK` gives a rough result, and `TINY` only tests that everything runs."""

    name: str
    rounds: int
    # Laps over the needles in one round of one subject.
    laps: int
    entries: int = 10_000
    large: int = 1_000_000
    largest: int = 10_000_000
    # Operations of each thread in one round. There are so many that the start of the threads does not matter.
    per_thread: int = 300_000
    stampede: int = 1_000
    processes: int = 9


FULL = Scale("full", rounds=25, laps=10)
QUICK = Scale("quick", rounds=7, laps=4, large=50_000, largest=100_000, per_thread=60_000, stampede=200, processes=3)
TINY = Scale("tiny", 1, 1, entries=200, large=1_000, largest=1_000, per_thread=2_000, stampede=20, processes=1)


def parse_options(doc, argv=None):
    """Parses the options that every part has: its scale, the number of rounds, and the file for its rows."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick", dest="scale", action="store_const", const=QUICK, default=FULL, help="a rough result in less time"
    )
    sizes.add_argument("--tiny", dest="scale", action="store_const", const=TINY, help="only test that it runs")
    parser.add_argument("--rounds", type=int, help="the number of rounds of each subject")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file as well")
    options = parser.parse_args(argv)
    if options.rounds is not None:
        options.scale = dataclasses.replace(options.scale, rounds=options.rounds)
    return options


def interpreter():
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"CPython {sys.version.split()[0]}{'t' if FREE_THREADED else ''}, GIL {'on' if gil else 'off'}"


def peer(name):
    """Returns a package to compare with, or None if it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def own_code(function):
    """Returns a copy of a function with its own bytecode.

    The interpreter specializes the bytecode of a loop for the method that it calls, so a loop that all subjects share
    would be specialized for one of them only.
    """
    copy = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return copy


@dataclasses.dataclass
class Figure:
    """The median of the rounds, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, costs):
        if len(costs) == 1:
            return cls(costs[0], costs[0], costs[0])
        low, median, high = statistics.quantiles(costs, n=4, method="inclusive")
        return cls(median, low, high)


def take_turns(runs, rounds):
    """Runs each of `runs`, a dict of callables that return a cost, in turns, and returns a figure for each.

    The turns spread a disturbance over all subjects. The collector is off, as in `timeit`, because its runs depend on
    earlier allocations.
    """
    seen = {name: [] for name in runs}
    if rounds > 1:
        for run in runs.values():
            run()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                seen[name].append(run())
    finally:
        gc.enable()
    return {name: Figure.of(costs) for name, costs in seen.items()}


class Report:
    """The rows of one part, which are printed during the run."""

    def __init__(self, part, options):
        self.part, self.options, self.rows, self.printed = part, options, [], 0
        print(f"\n## {part}, {interpreter()}, {options.scale.rounds} rounds\n", flush=True)

    def add(self, row, figures, unit="ns"):
        """Adds a row of figures or plain numbers by subject."""
        figures = {
            subject: figure if isinstance(figure, Figure) else Figure(figure, figure, figure)
            for subject, figure in figures.items()
            if figure is not None
        }
        plain = {subject: dataclasses.asdict(figure) for subject, figure in figures.items()}
        self.rows.append({"part": self.part, "row": row, "unit": unit, "figures": plain})

    def table(self, base=None):
        """Prints the rows since the last table: a column per subject, with the ratio to the base and the spread."""
        print_rows(self.rows[self.printed :], base)
        self.printed = len(self.rows)

    def close(self):
        if self.options.json:
            described = {
                "python": sys.version.split()[0],
                "free_threaded": FREE_THREADED,
                "cores": os.cpu_count(),
                "scale": self.options.scale.name,
                "rows": self.rows,
            }
            with open(self.options.json, "w") as file:
                json.dump(described, file, indent=1)


def short(number):
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 1 else f"{number:.2g}"


def cell(figure, against):
    """Formats the median, its ratio to the base in brackets, and half the interquartile range in percent."""
    median = figure["median"]
    text = short(median)
    if against:
        text += f" ({median / against:.2f})"
    if median and figure["high"] != figure["low"]:
        text += f" ±{50 * (figure['high'] - figure['low']) / median:.0f}%"
    return text


def print_rows(rows, base=None):
    """Prints rows as one Markdown table. A subject without a figure in any row gets no column."""
    subjects = list(dict.fromkeys(subject for row in rows for subject in row["figures"]))
    if not subjects:
        return
    units = {row["unit"] for row in rows}
    print(f"| {', '.join(sorted(units))} | " + " | ".join(subjects) + " |")
    print("|---|" + "--:|" * len(subjects))
    for row in rows:
        figures = row["figures"]
        against = figures[base]["median"] if base in figures else None
        cells = [
            cell(figures[subject], against if subject != base else None) if subject in figures else ""
            for subject in subjects
        ]
        print(f"| {row['row']} | " + " | ".join(cells) + " |")
    print(flush=True)


# Loops. Each returns nanoseconds per operation, and is copied with `own_code` for each subject. They measure the
# processor time of the thread, which leaves out other work of the machine.


def loop_over(needles, laps):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for _key in needles:
            pass
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def call_with_key(operation, needles, laps):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            operation(key)
    return (time.thread_time_ns() - begin) / (laps * len(needles))


def call_with_pair(operation, needles, laps):
    begin = time.thread_time_ns()
    for _ in range(laps):
        for key in needles:
            operation(key, key)
    return (time.thread_time_ns() - begin) / (laps * len(needles))
