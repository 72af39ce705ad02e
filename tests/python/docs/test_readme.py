"""The documentation is true: its blocks run, its commands exist, and its figures agree.

Every Python block of the README, of the pages in ci/site and of the reference that the package implements runs as a
program. Those of the pages on integrations run in tests/python/integrations. The commands that size a cache run, too.
ci/test runs those that install.
"""

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from documents import blocks, read, run_block

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
README = ROOT / "README.md"
PAGES = sorted((ROOT / "ci/site").glob("*.md"))
REFERENCE = ROOT / "tests/data/reference_blocks.md"
OTHERS = [ROOT / name for name in ("stress/README.md", "stress/bench/README.md")]


def parameters():
    # The blocks of near.md need a server: tests/python/near/test_near_page.py runs them.
    pages = [page for page in PAGES if page.name != "near.md"]
    for document in (README, *pages, REFERENCE):
        for code, line, heading in blocks(document):
            yield pytest.param(code, line, id=f"{document.name}:{line} {heading}")


@pytest.mark.parametrize(("code", "line"), list(parameters()))
def test_block_runs(tmp_path, code, line):
    result = run_block(tmp_path, code, line)
    assert result.returncode == 0, result.stderr
    assert not result.stderr


def test_broken_block_of_a_page_fails_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n# Not a heading\nassert x == 2\n```\n", encoding="utf-8")
    [(code, line, heading)] = blocks(page)
    result = run_block(tmp_path, code, line)
    assert (result.returncode, heading) == (1, "Page")
    assert "line 6, in <module>" in result.stderr


def simulations():
    """The commands of the documentation that size a cache, without their comments."""
    text = "".join(map(read, (README, *PAGES)))
    shell = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    return [line.partition("  #")[0].rstrip() for line in shell.splitlines() if "moka_py simulate" in line]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("command", simulations())
def test_command_that_sizes_a_cache_runs(tmp_path, command):
    (tmp_path / "keys.txt").write_text("a\nb\na\nc\na\n")
    (tmp_path / "keys.1.gz").write_bytes(gzip.compress(b"a\nb\na\nc\na\n"))
    (tmp_path / "access.csv.gz").write_bytes(gzip.compress(b"time,url\n1,a\n2,b\n3,a\n4,c\n5,a\n"))
    line = command.replace("python -m", f"'{sys.executable}' -P -W error -m")
    assert line != command
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    if "--plot" in command and importlib.util.find_spec("matplotlib") is None:
        assert (result.returncode, b"needs matplotlib" in result.stderr) == (2, True), result.stderr
    else:
        assert result.returncode == 0 and b"5 accesses" in result.stdout.replace(b'"accesses": 5', b"5 accesses")


def test_documentation_has_commands_that_size_a_cache():
    assert len(simulations()) == 5


def test_scripts_that_the_documents_name_can_be_run():
    text = "".join(map(read, (README, *PAGES, *OTHERS)))
    # Folders and files with a suffix are not scripts.
    named = {name for name in re.findall(r"\bci/\w+\b(?![./]\w)", text) if not (ROOT / name).is_dir()}
    assert len(named) > 10
    assert {name for name in named if not os.access(ROOT / name, os.X_OK)} == set()


def test_figures_of_the_readme_stand_in_the_performance_page():
    rows = re.findall(r"^\| `.*\|$", read(README), re.MULTILINE)
    assert len(rows) >= 5
    assert set(rows) <= set(read(ROOT / "ci/site/performance.md").splitlines())


def test_internals_page_names_files_and_functions_that_exist():
    text = read(ROOT / "ci/site/internals.md")
    paths = set(re.findall(r"`([\w/]+\.(?:rs|py))`", text))
    functions = set(re.findall(r"`\w+::(\w+)`", text))
    source = "".join(map(read, (ROOT / "src").rglob("*.rs")))
    assert len(paths) > 20 and len(functions) > 30
    assert {path for path in paths if not (ROOT / "src" / path).exists() and not (ROOT / path).exists()} == set()
    assert {name for name in functions if not re.search(rf"\bfn {name}\b", source)} == set()


def test_readme_is_short():
    assert len(read(README).splitlines()) <= 220


def test_readme_names_the_oldest_rust_that_serves():
    oldest = tomllib.loads(read(ROOT / "Cargo.toml"))["package"]["rust-version"]
    assert f"Rust {oldest} or later" in read(README)


def test_documents_have_blocks():
    counts = {document.stem: len(list(blocks(document))) for document in (README, *PAGES, REFERENCE)}
    assert counts["README"] >= 3
    assert counts["reference_blocks"] == 8
    assert sum(counts.values()) >= 24
