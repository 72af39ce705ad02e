"""Makes the files of a release in dist/, on any system: `release.py wheel PYTHON...` or `release.py sdist PYTHON`.

The files are checked, and tested on each given interpreter. It needs Rust and these interpreters. ci/wheel and ci/test
are for work on the project on Linux, and keep their builds.

The URLs in the metadata are those of the repository whose workflow runs this script.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from check_wheel import CHECKS, ROOT
from find_profdata import find_profdata
from source_folder import source_folder

DIST = ROOT / "dist"
PYPROJECT = ROOT / "pyproject.toml"


def address() -> str | None:
    """Returns the URL of the repository whose workflow runs this script, if there is one."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{repository}" if server and repository else None


def with_urls(pyproject: str, address: str) -> str:
    """Returns the text of pyproject.toml with the URLs of a repository."""
    urls = {
        "Repository": address,
        "Documentation": f"{address}#readme",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    return f"{pyproject}\n[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in urls.items())


def tools(name: str) -> list[str]:
    """Returns a list of pinned tools from ci/lib.sh."""
    found = re.search(rf"^{name}=\(([^)]*)\)$", (ROOT / "ci/lib.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"ci/lib.sh has no {name}"
    return shlex.split(found[1])


def run(*command: str | Path, folder: Path = ROOT, **variables: str) -> None:
    """Runs a command in a folder, by default that of the project."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, cwd=folder, env=os.environ | variables)


def version_of(python: str) -> str:
    """Returns the version of an interpreter, such as 3.14."""
    ask = [python, "-I", "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    return subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def environment(folder: Path, python: str, *packages: str | Path) -> Path:
    """Makes a virtual environment with the packages, and returns its interpreter."""
    run(python, "-m", "venv", folder)
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(inside, "-m", "pip", "install", "-q", *packages)
    return inside


def test(scratch: Path, python: str, package: Path) -> None:
    """Installs a package in a new environment, and runs the tests on it."""
    inside = environment(scratch, python, package, *tools("TEST_TOOLS"))
    pytest = ("-m", "pytest", "-n", "2", "-q", "--tb=short", "-c", "pyproject.toml", "--rootdir", ".", "tests/python")
    run(inside, "-P", *pytest)


def make_wheel(scratch: Path, pythons: list[str]) -> None:
    """Builds, merges, checks and tests one wheel for all interpreters."""
    build = environment(scratch / "build", pythons[0], *tools("BUILD_TOOLS"), *tools("RELEASE_TOOLS"))
    # The same as `ensure_profdata` and `hide_paths` in ci/lib.sh.
    by_profile, path = ["--pgo"], os.environ["PATH"]
    try:
        path = os.pathsep.join([str(find_profdata()), path])
    except LookupError as error:
        print(f"building without a profile: {error}", flush=True)
        by_profile = []
    config = tomllib.loads((ROOT / ".cargo/config.toml").read_text(encoding="utf-8"))
    crates = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"), "registry", "src")
    flags = " ".join([*config["build"]["rustflags"], f"--remap-path-prefix={crates}=crates"])
    for number, python in enumerate(pythons):
        maturin = ("-m", "maturin", "build", "--release", "--locked", *by_profile, "--interpreter", python)
        out = ("--out", scratch / f"part-{number}")
        folder = source_folder(version_of(python), f"release-{number}")
        run(build, *maturin, *out, folder=folder, CARGO_BUILD_RUSTFLAGS=flags, PATH=path)
    run(build, "ci/merge_wheels.py", DIST, *scratch.glob("part-*/*.whl"))
    (wheel,) = DIST.glob("*.whl")
    for check in CHECKS:
        run(build, "ci/check_wheel.py", check, wheel)
    for number, python in enumerate(pythons):
        test(scratch / f"test-{number}", python, wheel)


def make_sdist(scratch: Path, python: str) -> None:
    """Builds the source distribution, and tests it after an installation."""
    build = environment(scratch / "build", python, *tools("BUILD_TOOLS"), *tools("RELEASE_TOOLS"))
    run(build, "-m", "maturin", "sdist", "--out", DIST)
    (sdist,) = DIST.glob("*.tar.gz")
    run(build, "-m", "twine", "--no-color", "check", "--strict", sdist)
    test(scratch / "test", python, sdist)


@contextlib.contextmanager
def addressed() -> Iterator[None]:
    """Adds the URLs of the repository to pyproject.toml during the `with` block, if the repository is known."""
    repository = address()
    if repository is None:
        yield
        return
    before = PYPROJECT.read_bytes()
    PYPROJECT.write_text(with_urls(before.decode(), repository), encoding="utf-8", newline="")
    try:
        yield
    finally:
        PYPROJECT.write_bytes(before)


def main() -> None:
    kind, *pythons = sys.argv[1:]
    shutil.rmtree(DIST, ignore_errors=True)
    with addressed(), tempfile.TemporaryDirectory() as folder:
        if kind == "wheel":
            make_wheel(Path(folder), pythons)
        elif kind == "sdist":
            make_sdist(Path(folder), *pythons)
        else:
            sys.exit(f"release.py makes a wheel or an sdist, got {kind}")


if __name__ == "__main__":
    main()
