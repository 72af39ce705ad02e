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


def run_block(folder, code, line):
    program = folder / "block.py"
    # Empty lines come first, so that a traceback shows the line numbers of the document.
    program.write_text("\n" * (line - 1) + code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", program],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
