"""Every Python block of the README, and of the reference that the package implements, is a program that runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SOURCES = (TESTS.parent / "README.md", TESTS / "data" / "reference_blocks.md")

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


def test_both_documents_have_blocks():
    found = [parameters.id.partition(":")[0] for parameters in blocks()]
    assert found.count("README.md") >= 8
    assert found.count("reference_blocks.md") == 8
