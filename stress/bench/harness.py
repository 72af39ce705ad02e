"""What the benchmarks share: scales, rounds in which all subjects take turns, and what comes of them.

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
    """How much of everything. `quick` is for a look, `tiny` for a test that all of it runs."""

    name: str
    rounds: int
    # Laps over the needles in one round of one subject.
    laps: int
    entries: int = 10_000
    large: int = 1_000_000
    largest: int = 10_000_000
    # Operations of each thread in one round: long enough that when the threads begin does not count.
    per_thread: int = 300_000
    stampede: int = 1_000
    processes: int = 9


FULL = Scale("full", rounds=25, laps=10)
QUICK = Scale("quick", rounds=7, laps=4, large=50_000, largest=100_000, per_thread=60_000, stampede=200, processes=3)
TINY = Scale("tiny", 1, 1, entries=200, large=1_000, largest=1_000, per_thread=2_000, stampede=20, processes=1)


def options(doc, argv=None):
    """What every part is asked by: its scale, the rounds if others, and where its rows go."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=FULL, help="a look")
    sizes.add_argument("--tiny", dest="scale", action="store_const", const=TINY, help="only that it runs")
    parser.add_argument("--rounds", type=int, help="how often each subject has its turn")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file as well")
    asked = parser.parse_args(argv)
    if asked.rounds is not None:
        asked.scale = dataclasses.replace(asked.scale, rounds=asked.rounds)
    return asked


def interpreter():
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"CPython {sys.version.split()[0]}{'t' if FREE_THREADED else ''}, GIL {'on' if gil else 'off'}"


def peer(name):
    """A package to compare with, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def own_code(function):
    """The same function with bytecode of its own.

    The interpreter adapts the bytecode of a loop to what is called in it, so one loop for all subjects would be fit for
    the last one only.
    """
    copy = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return copy


@dataclasses.dataclass
class Figure:
    """The median of the rounds, and their first and last quarter."""

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
    """A figure for each of `runs`, a dict of callables that return a cost: what disturbs one disturbs all.

    The collector is off meanwhile, as in `timeit`: when it runs depends on what was there before.
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
    """The rows of one part, printed as they come."""

    def __init__(self, part, asked):
        self.part, self.asked, self.rows, self.printed = part, asked, [], 0
        print(f"\n## {part}, {interpreter()}, {asked.scale.rounds} rounds\n", flush=True)

    def add(self, row, figures, unit="ns"):
        """A row: figures, or plain numbers, by subject."""
        figures = {
            subject: figure if isinstance(figure, Figure) else Figure(figure, figure, figure)
            for subject, figure in figures.items()
            if figure is not None
        }
        plain = {subject: dataclasses.asdict(figure) for subject, figure in figures.items()}
        self.rows.append({"part": self.part, "row": row, "unit": unit, "figures": plain})

    def table(self, base=None):
        """Prints the rows since the last table: subjects across, ratios to the base in brackets, then the spread."""
        print_rows(self.rows[self.printed :], base)
        self.printed = len(self.rows)

    def close(self):
        if self.asked.json:
            described = {
                "python": sys.version.split()[0],
                "free_threaded": FREE_THREADED,
                "cores": os.cpu_count(),
                "scale": self.asked.scale.name,
                "rows": self.rows,
            }
            with open(self.asked.json, "w") as file:
                json.dump(described, file, indent=1)


def short(number):
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 1 else f"{number:.2g}"


def cell(figure, against):
    """The median, its ratio to the base in brackets, and half the distance of the quarters in percent."""
    median = figure["median"]
    text = short(median)
    if against:
        text += f" ({median / against:.2f})"
    if median and figure["high"] != figure["low"]:
        text += f" ±{50 * (figure['high'] - figure['low']) / median:.0f}%"
    return text


def print_rows(rows, base=None):
    """Rows of the same unit as one Markdown table. A subject that no row has gets no column."""
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


# Loops. Each returns nanoseconds an operation, and is given to `own_code` for each subject. They ask for the processor
# time of the thread: what the machine does in between for others does not count.


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
