"""The chart of `python -m moka_py simulate`, drawn by matplotlib where that is installed."""

import argparse
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

_FORMATS = (".svg", ".png")
_MOST_TICKS = 12
_LINES = {
    "optimum": {"label": "optimum (offline)", "color": "#8a8a8a", "linestyle": (0, (4, 2)), "linewidth": 1.4},
    "tiny_lfu": {"label": "tiny_lfu", "color": "#c8443c", "linewidth": 2.2, "marker": "o"},
    "lru": {"label": "lru", "color": "#2f6db5", "linewidth": 1.8, "marker": "s"},
}


def target(text: str) -> Path:
    """Read the argument: where the chart goes, with the format as its suffix."""
    path = Path(text)
    if path.suffix.lower() not in _FORMATS:
        raise argparse.ArgumentTypeError(f"must end in .svg or .png, got {text!r}")
    return path


def prepare(path: Path, parser: argparse.ArgumentParser) -> None:
    """Fail before the long work where it would be in vain."""
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    if path.is_dir():
        parser.error(f"argument --plot: {path}: is a directory")
    if not path.parent.is_dir():
        parser.error(f"argument --plot: {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        parser.error(f"argument --plot: {path}: cannot be written")


def draw(path: Path, result: dict[str, Any], name: str, parser: argparse.ArgumentParser) -> None:
    rows = [row for row in result["hit_ratios"] if row["lru"] is not None]
    if not rows:
        parser.error("argument --plot: the sample is too small for every capacity")
    # By name, since type checkers need not have it.
    matplotlib = importlib.import_module("matplotlib")
    ticker = importlib.import_module("matplotlib.ticker")
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(8, 4.8), layout="constrained")

    # The same file for the same figures.
    matplotlib.rcParams["svg.hashsalt"] = "moka_py"
    plot = figure.subplots()
    capacities = [row["capacity"] for row in rows]
    for method, style in _LINES.items():
        plot.plot(capacities, [row[method] for row in rows], markersize=4.5, **style)
    plot.set_xscale("log")
    plot.set_ylim(0, 100)
    # Each capacity by its number, unless that is too many: between 2,000 and 5,000 there is no power of ten.
    if len(capacities) <= _MOST_TICKS:
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
