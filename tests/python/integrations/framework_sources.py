"""The source distributions of the frameworks, with the tests and examples that wheels do not have."""

import importlib.metadata
import os
from pathlib import Path

import pytest


def source_of(distribution):
    """Return the unpacked source distribution of the installed version of a package, or skip the test."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    folder = os.environ.get("MOKA_PY_SUITES")
    if folder is None:
        pytest.skip("MOKA_PY_SUITES is not set: it is the folder that `ci/suites` prints")
    source = Path(folder, f"{distribution}-{version}")
    if not source.is_dir():
        pytest.skip(f"there is no {source}: `ci/suites {distribution}=={version}` fetches it")
    return source
