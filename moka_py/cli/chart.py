"""The chart of `python -m moka_py simulate`. It needs matplotlib."""

import argparse
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

_SUFFIXES = (".svg", ".png")
_MAX_TICKS = 12
_LINE_STYLES = {
    "optimum": {"label": "optimum (offline)", "color": "#8a8a8a", "linestyle": (0, (4, 2)), "linewidth": 1.4},
    "tiny_lfu": {"label": "tiny_lfu", "color": "#c8443c", "linewidth": 2.2, "marker": "o"},
    "lru": {"label": "lru", "color": "#2f6db5", "linewidth": 1.8, "marker": "s"},
}


def output_path(text: str) -> Path:
    """Parse the path of the chart, whose suffix is the format."""
    path = Path(text)
    if path.suffix.lower() not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"must end in .svg or .png, got {text!r}")
    return path


def check_path(path: Path, parser: argparse.ArgumentParser) -> None:
    """Exit with an error before the long replay, if the chart could not be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    if path.is_dir():
        parser.error(f"argument --plot: {path}: is a directory")
    if not path.parent.is_dir():
        parser.error(f"argument --plot: {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        parser.error(f"argument --plot: {path}: cannot be written")


def draw(path: Path, result: dict[str, Any], name: str, parser: argparse.ArgumentParser) -> None:
    """Draw the hit ratios of a result, and exit with an error if the file cannot be written."""
    rows = [row for row in result["hit_ratios"] if row["lru"] is not None]
    if not rows:
        parser.error("argument --plot: the sample is too small for every capacity")
    # Imported by name, since type checkers may run where matplotlib is not installed.
    matplotlib = importlib.import_module("matplotlib")
    ticker = importlib.import_module("matplotlib.ticker")
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(8, 4.8), layout="constrained")

    # Makes the file the same for the same figures.
    matplotlib.rcParams["svg.hashsalt"] = "moka_py"
    plot = figure.subplots()
    capacities = [row["capacity"] for row in rows]
    for method, style in _LINE_STYLES.items():
        plot.plot(capacities, [row[method] for row in rows], markersize=4.5, **style)
    plot.set_xscale("log")
    plot.set_ylim(0, 100)
    # A tick for each capacity, unless there are too many. The default has powers of ten, and 2,000 to 5,000 has none.
    if len(capacities) <= _MAX_TICKS:
        plot.set_xticks(capacities)
    plot.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    plot.xaxis.set_minor_formatter(ticker.NullFormatter())
    plot.set_xlabel("capacity, entries")
    plot.set_ylabel("hit ratio, percent")
    about = "about " if result["sample"] else ""
    detail = f"{result['accesses']:,} accesses, {about}{result['distinct_keys']:,} distinct keys"
    if result["sample"]:
        detail += f", 1 key in {round(1 / result['sample']['rate']):,} sampled"
    title = plot.set_title(f"{Path(name).name}\n", loc="left", fontweight="bold")
    title.set_parse_math(False)
    plot.text(0, 1.02, detail, transform=plot.transAxes, color="#555555", fontsize="medium")
    plot.grid(which="major", color="#dddddd", linewidth=0.8)
    plot.set_axisbelow(True)
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)
    plot.legend(loc="lower right", frameon=False)
    try:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        parser.error(f"argument --plot: {path}: {error.strerror or error}")
