"""The benchmark of the integrations runs at its smallest scale."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT


def test_benchmark_has_the_rows_of_django_and_dogpile(tmp_path):
    pytest.importorskip("django", reason="Django is not installed")
    pytest.importorskip("dogpile.cache", reason="dogpile.cache is not installed")
    file = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "stress/bench", "--only", "integrations", "--tiny", "--json", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    rows = {row["row"]: set(row["figures"]) for row in json.loads(file.read_text())["rows"]}
    for operation in ("get, hit", "get, miss", "set, present", "set, full", "add, present", "incr", "get_or_set, hit"):
        assert rows[f"Django, {operation}"] >= {"moka_py", "moka_py, shared", "locmem"}
    for operation in ("get, hit", "get_or_create, hit", "set, present"):
        assert rows[f"dogpile.cache, {operation}"] >= {"moka_py", "memory", "memory_pickle"}
    assert "Django, get, hit, keys of their own, 8 threads" in rows
