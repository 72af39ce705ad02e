"""Prints the hit ratios of the policies and their peers on traces of real systems as a table, and can draw a chart.

A trace is a name in tests/data/traces.json, or a file of little-endian 32-bit ids compressed with xz. Each access is a
get, and a set after a miss, in one thread, starting with an empty cache. Subjects that are not installed are left out.

With `--only weighted` it prints the hit ratios of keys that differ in weight (weighted.py): of the accesses, and of
their weight.

With `--only traps` it prints the hit ratios on traces that are made to trap an adaptive window (traps.py), and how far
`tiny_lfu` is behind.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from statistics import fmean

import traps
import weighted
from replay import SUBJECTS

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "tests" / "data"
# The capacities for a file without its own sizes, and those of a chart, as fractions of the number of distinct ids.
DEFAULT_FRACTIONS = (0.01, 0.05, 0.2)
# With `--more-sizes`, a trace has these fractions, too, if they are not tiny.
MORE_FRACTIONS = (0.005, 0.02, 0.05, 0.1)
MIN_MORE_SIZE = 8
CHART_FRACTIONS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6)
TRAP_CAPACITIES = (500, 5_000, 50_000)
# The accesses of a trap, as a multiple of the capacity.
TRAP_LENGTH = 50


def more_sizes(trace):
    """Returns the sizes of a trace, and fractions of its ids. A trace of parts of others has its own sizes alone."""
    fractions = () if "parts" in trace else MORE_FRACTIONS
    further = {round(fraction * trace["unique"]) for fraction in fractions}
    return sorted({*trace["sizes"], *(size for size in further if size >= MIN_MORE_SIZE)})


def traces_of(names, sizes_of):
    """Yields the name, the files (with the number of accesses of each) and the sizes of each requested trace."""
    carried = {trace["name"]: trace for trace in json.loads((DATA / "traces.json").read_text())}
    for name in names or carried:
        if name not in carried:
            yield Path(name).name.partition(".")[0], [name], None
            continue
        trace = carried[name]
        parts = trace.get("parts", [{"name": name, "accesses": trace["accesses"], "repeats": 1}])
        files = [
            f"{DATA / carried[part['name']]['file']}:{part['accesses']}"
            for part in parts
            for _ in range(part["repeats"])
        ]
        yield name, files, sizes_of(trace)


def replay(python, subject, capacities, files):
    """Returns the hits at each capacity and the length of the trace, or `None` if the subject is not installed."""
    run = [python, HERE / "replay.py", subject, json.dumps(capacities), *files]
    result = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout)
    return result if result["hits"] is not None else None


def ratios_of(pythons, capacities, files):
    """Returns the hit ratios in percent of each installed subject, one per capacity."""

    def ratios(subject):
        for python in pythons:
            if result := replay(python, subject, capacities, files):
                return [100 * hits / result["accesses"] for hits in result["hits"]]
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(SUBJECTS, pool.map(ratios, SUBJECTS), strict=True))
    return {subject: ratios for subject, ratios in found.items() if ratios is not None}


def sizes_for(fractions, files):
    unique = replay(sys.executable, "exact LRU", [1], files)["unique"]
    return sorted({max(1, round(fraction * unique)) for fraction in fractions})


def print_table(rows):
    """Prints rows of trace, capacity and hit ratio per subject as Markdown."""
    subjects = [subject for subject in SUBJECTS if all(subject in ratios for _, _, ratios in rows)]
    print(f"| trace | capacity | {' | '.join(subjects)} |")
    print(f"|---|--:|{'--:|' * len(subjects)}")
    for name, capacity, ratios in rows:
        print(f"| {name} | {capacity:,} | {' | '.join(f'{ratios[subject]:.2f}' for subject in subjects)} |")
    means = [sum(ratios[subject] for _, _, ratios in rows) / len(rows) for subject in subjects]
    print(f"| mean | | {' | '.join(f'{mean:.2f}' for mean in means)} |")


def print_weighted(kinds, seeds):
    """Prints the means of the seeds as Markdown: the percentage of the accesses that hit, and that of their weight."""
    print(f"| kind | {' | '.join(weighted.SUBJECTS)} |")
    print(f"|---|{'--:|' * len(weighted.SUBJECTS)}")
    with ProcessPoolExecutor() as pool:
        runs = {kind: [pool.submit(weighted.ratios_of, kind, seed) for seed in range(seeds)] for kind in kinds}
        for kind, futures in runs.items():
            ratios = [future.result() for future in futures]
            means = [map(fmean, zip(*(each[subject] for each in ratios), strict=True)) for subject in weighted.SUBJECTS]
            cells = [f"{hits:.1f} and {weight:.1f}" for hits, weight in means]
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


def trap_ratios(kinds, capacities, seeds):
    """Yields the kind, the capacity and the mean hit ratio in percent of each subject, from a cold start.

    `kinds` has the parameters of each kind that differ from the defaults.
    """
    rows = [(kind, capacity) for kind in kinds for capacity in capacities]

    def replay_trap(kind, capacity, seed):
        arguments = [capacity, TRAP_LENGTH, seed, kinds[kind]]
        run = [sys.executable, HERE / "traps.py", kind, *map(json.dumps, arguments)]
        result = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout)
        return {subject: 100 * hits / result["accesses"] for subject, hits in result["hits"].items()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {row: [pool.submit(replay_trap, *row, seed) for seed in range(seeds)] for row in rows}
        for (kind, capacity), futures in runs.items():
            ratios = [future.result() for future in futures]
            yield kind, capacity, {subject: fmean(each[subject] for each in ratios) for subject in ratios[0]}


def print_traps(kinds, capacities, seeds):
    print("| kind | capacity | `tiny_lfu` | `lru` | exact LFU | below `lru` | below the better of both |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, capacity, ratios in trap_ratios(kinds, capacities, seeds):
        ours, lru, lfu = ratios["tiny_lfu"], ratios["lru"], ratios["exact LFU"]
        figures = " | ".join(f"{figure:.2f}" for figure in (ours, lru, lfu, lru - ours, max(lru, lfu) - ours))
        print(f"| {kind.replace('_', ' ')} | {capacity:,} | {figures} |", flush=True)


def draw(path, curves):
    """Draws one plot per trace: hit ratio over capacity, with a line for each subject."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "the same file for the same figures"
    figure, plots = pyplot.subplots(1, len(curves), figsize=(5 * len(curves), 4.2), squeeze=False)
    for plot, (name, sizes, ratios) in zip(plots[0], curves, strict=True):
        for color, subject in enumerate(SUBJECTS):
            # The two LRUs have the same line.
            if subject not in ratios or subject == "cachebox LRU":
                continue
            is_ours = subject.startswith("moka_py")
            style = "--" if subject in ("offline optimum", "exact LRU") else "-"
            width = 2.4 if is_ours else 1.2
            plot.plot(sizes, ratios[subject], style, label=subject, color=f"C{color}", linewidth=width)
        plot.set(title=name, xlabel="capacity, entries", xscale="log")
        plot.grid(alpha=0.3)
    plots[0][0].set_ylabel("hit ratio, percent")
    plots[0][-1].legend(fontsize="small", loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith("svg") else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="*", metavar="TRACE", help="a name or a file (default: all named traces)")
    parser.add_argument("--sizes", help="capacities, separated by commas (default: those of the trace)")
    parser.add_argument("--more-sizes", action="store_true", help="more capacities of each named trace, 35 rows in all")
    parser.add_argument("--chart", metavar="FILE", help="draw a chart of these traces, as SVG or PNG; needs matplotlib")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with PyPI's moka-py")
    parser.add_argument("--only", choices=["traces", "traps", "weighted"], default="traces", help="default: traces")
    parser.add_argument("--seeds", type=int, default=8, help="how many traps, or traces of `weighted` (default: 8)")
    parser.add_argument("--parameters", type=json.loads, metavar="JSON", help='traps, as {"loop": {"keys": 1.5}}')
    options = parser.parse_args()
    if options.only == "weighted":
        print_weighted(options.traces or weighted.KINDS, options.seeds)
    elif options.only == "traps":
        capacities = [int(size) for size in options.sizes.split(",")] if options.sizes else TRAP_CAPACITIES
        print_traps(options.parameters or {kind: {} for kind in traps.KINDS}, capacities, options.seeds)
    else:
        replay_traces(options)


def replay_traces(options):
    pythons = [sys.executable, *filter(None, [options.peers])]
    rows, curves = [], []
    sizes_of = more_sizes if options.more_sizes else itemgetter("sizes")
    for name, files, sizes in traces_of(options.traces, sizes_of):
        if options.sizes:
            sizes = [int(size) for size in options.sizes.split(",")]
        sizes = sizes or sizes_for(DEFAULT_FRACTIONS, files)
        ratios = ratios_of(pythons, sizes, files)
        rows += [(name, size, {subject: row[at] for subject, row in ratios.items()}) for at, size in enumerate(sizes)]
        if options.chart:
            sizes = sizes_for(CHART_FRACTIONS, files)
            curves.append((name, sizes, ratios_of(pythons, sizes, files)))
    print_table(rows)
    if options.chart:
        draw(options.chart, curves)


if __name__ == "__main__":
    main()
