"""That the benchmarks run: each part with hardly anything to do. What they measure is for `ci/bench`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FREE_THREADED

BENCH = Path(__file__).parent.parent / "stress" / "bench"
PARTS = ["single_thread", "cached", "threads", "tail", "memory", "start_up", "growth"]
# A row of each part that the targets of stress/bench ask for.
ROWS = {
    "single_thread": "get_with, miss that evicts, int",
    "cached": "cached, f(int, k=str), hit",
    "threads": "set, all evict, 8 threads",
    "tail": "get beside a writer, p99.9 over median",
    "memory": "an empty cache, capacity 2**62",
    "start_up": "import, in a fresh process",
    "growth": "get, hit, 1,000 entries",
}
FLAGS = ["-X", "gil=0"] if FREE_THREADED else []


def run(*arguments):
    done = subprocess.run([sys.executable, *FLAGS, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    written = {}
    for part in PARTS:
        file = folder / f"{part}.json"
        run(BENCH, "--only", part, "--tiny", "--json", file)
        written[part] = file
    return written


@pytest.mark.parametrize("part", PARTS)
def test_each_part_measures_this_package_and_writes_its_rows(results, part):
    rows = {row["row"]: row["figures"] for row in json.loads(results[part].read_text())["rows"]}
    subject = "moka_py tiny_lfu" if part == "cached" else "moka_py"
    assert rows[ROWS[part]][subject]["median"] > 0


def test_the_targets_know_the_rows_that_are_measured(results, tmp_path):
    rows = [row for file in results.values() for row in json.loads(file.read_text())["rows"]]
    both = []
    for free_threaded in (False, True):
        # As if a million had been there and the peers as well: a row that has another name is not measured.
        text = json.dumps({"free_threaded": free_threaded, "python": "3.13", "cores": 2, "rows": rows})
        file = tmp_path / f"{free_threaded}.json"
        file.write_text(text.replace("20 threads, get_with", "1,000 threads, get_with"))
        both.append(file)
    table = run(BENCH / "report.py", *both, "--targets")
    lost = [line for line in table.splitlines() if "not measured" in line]
    peers = ("cachebox", "lru-dict")
    assert [line for line in lost if not any(peer in line for peer in peers)] == []
    assert table.count("\n") > 40
