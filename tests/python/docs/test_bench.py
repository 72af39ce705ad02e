"""The benchmarks run at their smallest scale. `ci/bench` judges their figures."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FREE_THREADED, ROOT

import moka_py

BENCH = ROOT / "stress" / "bench"
PARTS = {"single thread", "cached", "threads", "tail", "memory", "start-up", "growth"}
# Targets that compare with these peers cannot be judged, because the peers are not installed here. Those of the near
# cache cannot either, because there is no server: near/test_near_bench.py runs its benchmark.
PEERS = ("cachebox", "lru-dict", "near cache")


def run(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


# This takes a few seconds on a quiet machine, and much longer on a busy one, because many threads share it.
@pytest.mark.time_limit(900)
def test_each_part_runs_and_has_the_rows_that_the_targets_need(tmp_path):
    file = tmp_path / "rows.json"
    run(BENCH, "--tiny", "--json", file)
    result = json.loads(file.read_text())
    assert result["free_threaded"] == FREE_THREADED
    assert {row["part"] for row in result["rows"]} == PARTS
    for row in result["rows"]:
        # The processor time of a call may be below the resolution of the clock, and a tiny cache smaller than a page.
        is_small = row["part"] in ("tail", "memory")
        assert is_small or all(figure["median"] > 0 for figure in row["figures"].values()), row

    # Pretend that there were 1,000 threads, and that the other build had the same figures.
    result["rows"] = json.loads(json.dumps(result["rows"]).replace("20 threads, get_with", "1,000 threads, get_with"))
    both = []
    for free_threaded in (False, True):
        both.append(tmp_path / f"{free_threaded}.json")
        both[-1].write_text(json.dumps(result | {"free_threaded": free_threaded}))
    table = run(BENCH / "report.py", *both, "--targets").splitlines()
    unmeasured = [line for line in table if "not measured" in line and not any(peer in line for peer in PEERS)]
    # A tiny run has no row for the memory of deadlines.
    assert [line for line in unmeasured if "overhead an entry, ttl" not in line] == []
    assert sum(line.endswith(("| yes |", "| **no** |")) for line in table) > 30


@pytest.mark.time_limit(900)
def test_builds_are_compared_in_one_process(tmp_path):
    folders = [tmp_path / "base", tmp_path / "variant"]
    for folder in folders:
        shutil.copytree(Path(moka_py.__file__).parent, folder / "moka_py")
    rows = ["get, hit", "set, evicts", "get_with, miss", "cached, hit"]
    if FREE_THREADED:
        rows.append("2 threads, set, evicts")
    only = [argument for row in rows for argument in ("--only", row)]
    table = run(BENCH / "ablation.py", *folders, "--rounds", "1", *only).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == rows
    assert table[0].endswith("| base | variant |")


def test_instruction_that_reads_and_writes_a_line_is_one_access(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    parse = importlib.import_module("coherence").parse
    trace = """\
I  00000100,4
 L 00000400,8
I  00000104,4
 S 00000048,8
I  00000108,5
 L 00000400,8
 M 00000408,8
I  0000010d,3
 L 00000440,8
I  00000110,3
 S 00000440,8
I  00000113,4
 S 00000080,8
I  00000117,4
 S 00000400,8
I  0000011b,4
 S 00000000,8
I  0000011f,4
 L 00000480,4
I  00000104,4
 S 00000088,8
==353== Counted 1 call to main()
"""
    operations = list(parse(trace.encode().splitlines(), [0, 1], 2))
    assert operations == [(1, [(16, True, 0x108), (17, False, 0x10D), (17, True, 0x110)]), (0, [(18, False, 0x11F)])]


def test_line_moves_when_the_other_thread_wrote_it_or_holds_the_written_line(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    lines = importlib.import_module("coherence").Lines()
    # The thread, the line, whether the thread writes it, and the effect on the line.
    steps = [
        (0, 1, False, "stays"),
        (1, 1, False, "stays"),
        (0, 1, True, "taken"),
        (0, 1, True, "stays"),
        (1, 1, False, "fetched"),
        (1, 1, True, "taken"),
        (0, 1, True, "fetched"),
        (1, 2, True, "stays"),
    ]
    for instruction, (thread, line, writes, _) in enumerate(steps):
        lines.take(thread, [(line, writes, instruction)], True)
    lines.take(1, [(1, True, 99)], False)
    for kind, counted in ("fetched", lines.fetched), ("taken", lines.taken):
        assert dict(counted) == {at: 1 for at, (*_, expected) in enumerate(steps) if expected == kind}
    assert (lines.operations, lines.touched, lines.changed) == (8, 8, 5)
