"""The page "More than one process" is true: its blocks run, each in a process of its own, beside a real server."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

PAGE = ROOT / "ci/site/near.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def parameters():
    text = PAGE.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(1))
        yield pytest.param(match[1], line, id=f"near.md:{line}")


@pytest.mark.parametrize(("code", "line"), list(parameters()))
def test_block_runs(code, line, real_server, client_package, tmp_path):
    if client_package.__name__ != "redis":
        pytest.skip("the page is written for redis-py")
    # The server of a program is at the usual port, that of the tests is not.
    code = code.replace("redis.Redis(", f"redis.Redis(port={real_server.port}, ")
    assert str(real_server.port) in code
    program = tmp_path / "block.py"
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
