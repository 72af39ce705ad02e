"""Prints the folder to build the extension from for an interpreter: `sources.py PYTHON`.

PyO3 0.28 is the last version that serves CPython 3.13t, PyO3 0.29 the first one that serves 3.15, and a lock file holds
one of them. For CPython 3.15 and later the folder is a copy of the project, in target/, whose Cargo.lock is
ci/pyo3-0.30.lock. For any other interpreter it is the project's own folder.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "ci/pyo3-0.30.lock"
COPY = ROOT / "target/sources-pyo3-0.30"
FIRST_MINOR_OF_COPY = 15
# What the project's folder has beside the project.
NOT_COPIED = shutil.ignore_patterns("target", "dist", ".git", "__pycache__")


def make_copy() -> Path:
    """Copies the project, with the times of its files, by which cargo tells what has changed."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT, COPY, ignore=NOT_COPIED, symlinks=True)
    shutil.copy2(LOCK, COPY / "Cargo.lock")
    return COPY


def sources(python: str) -> Path:
    """The folder to build from for an interpreter."""
    minor = subprocess.run(
        [python, "-I", "-c", "import sys; print(sys.version_info.minor)"], check=True, stdout=subprocess.PIPE, text=True
    )
    return make_copy() if int(minor.stdout) >= FIRST_MINOR_OF_COPY else ROOT


if __name__ == "__main__":
    print(sources(sys.argv[1]))
