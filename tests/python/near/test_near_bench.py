"""The benchmark of the near cache runs at its smallest scale. `ci/bench` judges its figures."""

import json
import os
import subprocess
import sys

import pytest
from helpers import FREE_THREADED, ROOT

BENCH = ROOT / "stress" / "bench" / "near.py"


def test_the_benchmark_of_the_near_cache_has_a_figure_in_each_row(own_server, client_package, tmp_path):
    if client_package.__name__ != "redis":
        pytest.skip("the benchmark uses redis-py")
    file = tmp_path / "rows.json"
    flags = ["-X", "gil=0"] if FREE_THREADED else []
    environment = os.environ | {"MOKA_PY_BENCH_SERVER": f"{own_server.host}:{own_server.port}"}
    command = [sys.executable, *flags, str(BENCH), "--tiny", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["row"]: row["figures"] for row in json.loads(file.read_text())["rows"]}
    sizes = ("200", "1,000")
    assert list(rows) == [
        f"near cache, {row}, {size} entries" for size in sizes for row in ("hit", "miss", "invalidation")
    ]
    assert all(figures["moka_py"]["median"] > 0 for figures in rows.values())
