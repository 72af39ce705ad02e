"""Prints the targets and draws the charts from files of `stress/bench --json`, of whole runs or of parts.

python stress/bench/report.py gil.json free_threaded.json --targets --charts FOLDER
"""

import argparse
import json
from pathlib import Path

import targets

COLORS = {
    "moka_py": "#c8443c",
    "moka_py lru": "#e59a3c",
    "moka_py ttl, tti": "#e5c93c",
    "dict": "#333333",
    "a dict a thread, d[k]": "#333333",
    "a shared dict, d[k]": "#8a8a8a",
    "cachebox LRU": "#2f6db5",
    "lru-dict": "#5aa469",
    "lru_cache": "#8c6bb1",
    "moka-py of PyPI": "#3aa6a6",
    "cachetools, lock": "#b58a5a",
    "theine": "#c77cb0",
}
CHARTED = (
    "get, hit, int",
    "get, hit, str",
    "get, hit, tuple",
    "get, miss, int",
    "set, present, int",
    "set, evicts, int",
    "remove and set again, int",
    "get_with, hit, int",
    "get_with, miss that evicts, int",
    "read-through, zipf 0.99",
)
THREADS = (1, 2, 8)
# The number of plots in a row in the charts of threads.
COLUMNS = 4


def version(result):
    """Returns the version of a result as ci/python names it, such as 3.13 or 3.13t."""
    return ".".join(result["python"].split(".")[:2]) + "t" * result["free_threaded"]


def title(result):
    return f"CPython {result['python']}" + (", free-threaded" if result["free_threaded"] else ", GIL")


def handles_of(plots):
    """Returns the labels and handles of a legend for all plots, each once."""
    found = {}
    for plot in plots:
        handles, labels = plot.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    return found


def draw_costs(path, results, pyplot):
    """Draws a line for each operation and a dot for each subject, on a logarithmic scale."""
    figure, plots = pyplot.subplots(1, len(results), figsize=(6.4 * len(results), 5.2), squeeze=False, sharey=True)
    for plot, result in zip(plots[0], results, strict=True):
        rows = {row["row"]: row["figures"] for row in result["rows"]}
        charted = [row for row in CHARTED if row in rows]
        for subject, color in COLORS.items():
            points = [(rows[row][subject]["median"], at) for at, row in enumerate(charted) if subject in rows[row]]
            if points:
                size = 70 if subject.startswith("moka_py") else 38
                plot.scatter(*zip(*points, strict=True), s=size, color=color, label=subject, zorder=3, alpha=0.9)
        plot.set(title=title(result), xlabel="nanoseconds an operation, loop included", xscale="log")
        plot.set_yticks(range(len(charted)), charted)
        plot.set_ylim(len(charted) - 0.5, -0.5)
        plot.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        plot.grid(alpha=0.3)
    handles = handles_of(plots[0])
    figure.legend(handles.values(), handles, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    save(figure, path)


def draw_threads(path, result, pyplot):
    """Draws a plot for each load: throughput over threads, with a line for each subject."""
    rows = {row["row"]: row["figures"] for row in result["rows"]}
    loads = [load for load in targets.THREADED if f"{load}, 1 thread" in rows]
    if not loads:
        return
    rows_of_plots = -(-len(loads) // COLUMNS)
    size = (3.6 * COLUMNS, 3.6 * rows_of_plots + 0.6)
    figure, grid = pyplot.subplots(rows_of_plots, COLUMNS, figsize=size, squeeze=False)
    plots = grid.flatten()
    for unused in plots[len(loads) :]:
        unused.set_axis_off()
    for plot, load in zip(plots, loads, strict=False):
        names = [f"{load}, {threads} thread{'s' * (threads > 1)}" for threads in THREADS]
        for subject, color in COLORS.items():
            if all(subject in rows[name] for name in names):
                medians = [rows[name][subject]["median"] for name in names]
                width = 2.4 if subject.startswith("moka_py") else 1.3
                plot.plot(range(len(THREADS)), medians, "o-", color=color, linewidth=width, markersize=4, label=subject)
        plot.set_xticks(range(len(THREADS)), THREADS)
        plot.set_title(load, fontsize="medium")
        plot.set_xlabel("threads")
        plot.set_ylim(bottom=0)
        plot.grid(alpha=0.3)
    for first in grid[:, 0]:
        first.set_ylabel("million operations a second")
    handles = handles_of(plots)
    figure.legend(handles.values(), handles, loc="lower center", ncols=5, frameon=False)
    figure.suptitle(f"{title(result)}, {result['cores']} cores")
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    save(figure, path)


def save(figure, path):
    # Equal figures give an identical file.
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def draw(folder, results, suffix):
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "moka_py"
    folder.mkdir(parents=True, exist_ok=True)
    draw_costs(folder / f"costs{suffix}", list(results.values()), pyplot)
    # Each build has a chart of threads, for its oldest version.
    for free_threaded, name in ((False, "threads_gil"), (True, "threads_free_threaded")):
        for result in [result for result in results.values() if result["free_threaded"] is free_threaded][:1]:
            draw_threads(folder / f"{name}{suffix}", result, pyplot)


def gather(results):
    """Merges the files, which may have a part each, into one result per interpreter version."""
    whole = {}
    for result in results:
        first = whole.setdefault(version(result), result)
        if first is not result:
            first["rows"] += result["rows"]
    return dict(sorted(whole.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", metavar="FILE", type=Path)
    parser.add_argument("--targets", action="store_true", help="print what was aimed at beside what was measured")
    parser.add_argument("--charts", metavar="FOLDER", type=Path, help="draw charts into this folder; needs matplotlib")
    parser.add_argument("--png", action="store_true", help="draw them as PNG in place of SVG")
    options = parser.parse_args()
    results = gather(json.loads(path.read_text()) for path in options.results)
    if options.targets:
        if any(result["scale"] != "full" for result in results.values()):
            print("Measured at a smaller scale than the targets are for.\n")
        print("\n".join(targets.lines(results)))
    if options.charts:
        draw(options.charts, results, ".png" if options.png else ".svg")


if __name__ == "__main__":
    main()
