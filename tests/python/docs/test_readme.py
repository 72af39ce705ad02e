"""Every Python block of the README, and of the reference that the package implements, is a program that runs.

So are its commands that size a cache. Those that install are run by `ci/test`; the others are scripts of `ci/`,
which are there.
"""

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from helpers import ROOT

SOURCES = (ROOT / "README.md", ROOT / "tests" / "data" / "reference_blocks.md")

# A heading of its own, or a block with all that is in it (where a comment looks like a heading).
HEADING_OR_BLOCK = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        heading = ""
        for found in HEADING_OR_BLOCK.finditer(text):
            if found["heading"]:
                heading = found["heading"]
            else:
                line = text.count("\n", 0, found.start("code"))
                yield pytest.param(found["code"], line, id=f"{source.name}:{line + 1} {heading}")


@pytest.mark.parametrize(("code", "line"), list(blocks()))
def test_block_runs(tmp_path, code, line):
    program = tmp_path / "block.py"
    # Lines are counted as in the document, so that a traceback leads to the right one.
    program.write_text("\n" * line + code, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", program],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr


def simulations():
    """The lines of the README that size a cache, without their comments."""
    text = SOURCES[0].read_text(encoding="utf-8")
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


def test_readme_has_commands_that_size_a_cache():
    assert len(simulations()) == 5


def test_scripts_that_the_documents_name_can_be_run():
    documents = [ROOT / name for name in ("README.md", "stress/README.md", "stress/bench/README.md")]
    named = {name for path in documents for name in re.findall(r"\bci/\w+", path.read_text(encoding="utf-8"))}
    scripts = {name: ROOT / name for name in named if not (ROOT / f"{name}.py").exists()}
    scripts.pop("ci/thread_sanitizer")  # a list
    assert len(scripts) > 10
    assert {name for name, path in scripts.items() if not os.access(path, os.X_OK)} == set()


def test_readme_names_the_oldest_rust_that_serves():
    least = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["rust-version"]
    assert f"Rust {least} or later" in SOURCES[0].read_text(encoding="utf-8")


def test_both_documents_have_blocks():
    found = [parameters.id.partition(":")[0] for parameters in blocks()]
    assert found.count("README.md") >= 8
    assert found.count("reference_blocks.md") == 8
