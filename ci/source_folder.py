"""Prints the folder to build the extension from for a version of CPython: `source_folder.py VERSION PURPOSE`.

PyO3 0.28 is the last version that supports CPython 3.13t, and PyO3 0.29 the first that supports 3.15. A lock file has
only one of them. For CPython 3.15 and later the folder is a copy of the project in target/ with ci/pyo3-0.30.lock as
its Cargo.lock. For other versions it is the project's own folder. Each PURPOSE has its own copy, so that no build
replaces the sources of another.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "ci/pyo3-0.30.lock"
FIRST_MINOR_OF_LOCK = 15
# Generated folders, which are not part of the project.
NOT_COPIED = shutil.ignore_patterns("target", "dist", ".git", "__pycache__")


def source_folder(version: str, purpose: str) -> Path:
    """Returns the folder to build from for a version such as 3.13t. A copy keeps the times of files, for cargo."""
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
