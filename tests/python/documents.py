"""The Python blocks of Markdown documents, which are programs that the tests run."""

import re
import subprocess
import sys

# Either a heading or a whole block, since a comment in a block looks like a heading.
HEADING_OR_BLOCK = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(document):
    """The Python blocks of a document, each with the number of its first line and the heading above it."""
    text = read(document)
    heading = ""
    for match in HEADING_OR_BLOCK.finditer(text):
        if match["heading"]:
            heading = match["heading"]
        else:
            yield match["code"], text.count("\n", 0, match.start("code")) + 1, heading


# Its `sleep` advances the clock of the caches, and does not wait. So a slow machine changes nothing.
MANUAL_TIME = """
import time
from moka_py.testing import ManualClock

clock = ManualClock()
clock.__enter__()
slept = 0.0

def sleep(seconds):
    global slept
    slept += seconds
    clock.advance(seconds)

time.sleep, time.perf_counter = sleep, lambda: slept
"""


def run_block(folder, code, line):
    """Run a block that begins in a line of its document, in an empty folder."""
    program = folder / "block.py"
    (folder / "manual_time.py").write_text(MANUAL_TIME, encoding="utf-8")
    # A fence is above the block, so there is a line for this import.
    prelude = "import manual_time" if "from time import" in code else ""
    # Empty lines come first, so that a traceback shows the line numbers of the document.
    program.write_text(prelude + "\n" * (line - 1) + code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", program],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
