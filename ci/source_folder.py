"""Prints the folder to build the extension from for a version of CPython: `source_folder.py VERSION PURPOSE`.

PyO3 0.28 is the last version that serves CPython 3.13t, PyO3 0.29 the first one that serves 3.15, and a lock file holds
one of them. For CPython 3.15 and later the folder is a copy of the project, in target/, whose Cargo.lock is
ci/pyo3-0.30.lock. For any other version it is the project's own folder. Each PURPOSE has a copy of its own, so that no
build has its sources replaced by another.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "ci/pyo3-0.30.lock"
FIRST_MINOR_OF_LOCK = 15
# Folders that are made, and are no part of the project.
NOT_COPIED = shutil.ignore_patterns("target", "dist", ".git", "__pycache__")


def source_folder(version: str, purpose: str) -> Path:
    """The folder to build from for a version such as 3.13t, with the times of its files, by which cargo goes."""
    found = re.fullmatch(r"3\.(\d+)[td]*", version)
    if found is None:
        raise ValueError(f"the version must look like 3.15 or 3.13t, got {version}")
    if int(found[1]) < FIRST_MINOR_OF_LOCK:
        return ROOT
    copy = ROOT / "target" / f"sources-{purpose}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED, symlinks=True)
    shutil.copy2(LOCK, copy / "Cargo.lock")
    return copy


if __name__ == "__main__":
    print(source_folder(*sys.argv[1:]))
