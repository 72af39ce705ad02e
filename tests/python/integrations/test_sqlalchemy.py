"""SQLAlchemy with a `Moka`: its own dogpile example, and the cache of compiled statements."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
pytest.importorskip("dogpile.cache", reason="dogpile.cache is not installed")

from integrations.framework_sources import source_of
from sqlalchemy import create_engine, literal, select

from moka_py import Moka

EXAMPLE = Path(__file__).parent / "framework_suites/sqlalchemy_example.py"


def run_example(tmp_path, backend):
    """Return the numbers of statements of the first and the second run of each program."""
    folder = tmp_path / backend
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, "-P", EXAMPLE, source_of("sqlalchemy"), backend],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_dogpile_example_of_sqlalchemy_reads_from_the_cache(tmp_path):
    counts = run_example(tmp_path, "moka_py_pickle")
    assert counts == run_example(tmp_path, "dogpile.cache.memory_pickle")
    assert all(first > second for first, second in counts.values())
    # As the example says, the second run emits a single statement.
    assert counts["relationship_caching"][1] == 1


def test_compiled_statements_are_kept_in_the_cache_and_engines_may_share_it():
    compiled = Moka(100)
    for engines in (1, 2):
        engine = create_engine("sqlite://", execution_options={"compiled_cache": compiled})
        with engine.connect() as connection:
            assert [connection.scalar(select(literal(number))) for number in range(3)] == [0, 1, 2]
        engine.dispose()
        # Each engine has an entry of its own.
        assert (compiled.stats().hits, compiled.stats().misses, len(compiled)) == (2 * engines, engines, engines)


def test_cache_of_compiled_statements_has_its_capacity():
    compiled = Moka(2, policy="lru")
    engine = create_engine("sqlite://", execution_options={"compiled_cache": compiled})
    with engine.connect() as connection:
        for number in range(5):
            assert connection.scalar(select(*(literal(1) for _ in range(number + 1)))) == 1
    engine.dispose()
    assert len(compiled) == 2
    assert compiled.stats().evictions == 3
