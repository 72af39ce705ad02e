"""Checks a wheel before a release: `check_wheel.py CHECK WHEEL`, where CHECK is a name in `CHECKS`.

Prints what it checked and each problem. The exit code is 1 if there is a problem. It needs the tools that ci/lib.sh
lists for releases.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# More than twice the size of a module in November 2026. A larger one has debug information or an unwanted dependency.
MAX_BYTES = 3_000_000

# The ABI tags of REQUIRED_PYTHONS in ci/lib.sh.
REQUIRED_ABIS = {"cp313", "cp313t", "cp314", "cp315"}

# A path of the build machine.
MACHINE_PATH = re.compile(
    rb"(?:/(?:home|root|Users)/|[A-Z]:[\\/]Users[\\/])[\w.]|\.cargo[\\/]registry|\.rustup[\\/]|path\+file:///[^#]"
)

# A message that only a module without PyO3's reference pool contains.
NO_POOL_MARKER = b"without the thread being attached"


class Wheel:
    """A wheel file, with the contents of its name and its metadata."""

    def __init__(self, path: Path) -> None:
        self.path = path
        name, self.version, python, abi, platform = path.name.removesuffix(".whl").split("-")
        sets = itertools.product(python.split("."), abi.split("."), platform.split("."))
        self.tags_of_name = {"-".join(tag) for tag in sets}
        self.platforms = platform.split(".")
        with zipfile.ZipFile(path) as archive:
            self.files = {file: archive.read(file) for file in archive.namelist()}
        self.info = f"{name}-{self.version}.dist-info"
        self.modules = {file: data for file, data in self.files.items() if file.endswith((".so", ".pyd"))}

    def headers(self, file: str) -> Message:
        """Returns the headers of METADATA or WHEEL."""
        return message_from_string(self.files[f"{self.info}/{file}"].decode())

    def tags(self) -> list[str]:
        """Returns the tags in WHEEL, such as cp313-cp313t-manylinux_2_34_x86_64."""
        return self.headers("WHEEL").get_all("Tag", [])


def check_metadata(wheel: Wheel) -> Iterator[str]:
    """Runs twine's strict check, and checks the version, the licence, the URLs and the classifiers."""
    from trove_classifiers import classifiers

    twine = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(wheel.path)]
    result = subprocess.run(twine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout)
    if result.returncode:
        yield "twine rejects the wheel"
    metadata = wheel.headers("METADATA")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    if {metadata["Version"], wheel.version} != {version}:
        yield f"the version must be {version}, got {metadata['Version']} in METADATA and {wheel.version} in the name"
    if metadata["License-Expression"] != "MIT":
        yield f"the licence must be MIT, got {metadata['License-Expression']}"
    if wheel.files.get(f"{wheel.info}/licenses/LICENSE") != (ROOT / "LICENSE").read_bytes():
        yield "licenses/LICENSE differs from LICENSE of the project"
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    if sorted(metadata.get_all("Project-URL", [])) != sorted(f"{name}, {url}" for name, url in urls.items()):
        yield f"the URLs must be {urls}, got {metadata.get_all('Project-URL', [])}"
    given = metadata.get_all("Classifier", [])
    yield from (f"PyPI knows no classifier {name!r}" for name in given if name not in classifiers)
    for tag in wheel.tags():
        wanted = "Programming Language :: Python :: " + re.sub(r"cp(\d)(\d+)-.*", r"\1.\2", tag)
        if wanted not in given:
            yield f"no classifier {wanted!r} for the tag {tag}"


def check_modules(wheel: Wheel) -> Iterator[str]:
    """Checks that each tag has one extension module, and that none is too large."""
    abis = {tag.split("-")[1] for tag in wheel.tags()}
    named = {
        f"cp{found[1]}": file
        for file in wheel.modules
        if (found := re.fullmatch(r"moka_py/_moka_py\.(?:cpython-|cp)(\d+t?)-\w[\w-]*\.(?:so|pyd)", file))
    }
    if set(named) != abis or len(named) != len(wheel.modules):
        yield f"the tags are for {sorted(abis)}, the modules {sorted(wheel.modules)}"
    if REQUIRED_ABIS - abis:
        yield f"the wheel must support {sorted(REQUIRED_ABIS)}, got {sorted(abis)}"
    for file, data in wheel.modules.items():
        print(f"{file}: {len(data):,} bytes")
        if len(data) > MAX_BYTES:
            yield f"{file} has {len(data):,} bytes, more than {MAX_BYTES:,}"
        if NO_POOL_MARKER not in data:
            yield f"{file} was built without the flags of .cargo/config.toml: it has PyO3's reference pool"


def check_platform(wheel: Wheel) -> Iterator[str]:
    """Checks that the name and WHEEL have the same tags, and that these fit the C library that the modules need."""
    if set(wheel.tags()) - wheel.tags_of_name or len({tag.split("-")[2] for tag in wheel.tags()}) != 1:
        yield f"the name has the platforms {wheel.platforms}, WHEEL the tags {wheel.tags()}"
    if any("linux" in platform for platform in wheel.platforms):
        auditwheel = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel.path)]
        report = json.loads(subprocess.run(auditwheel, check=True, stdout=subprocess.PIPE).stdout)
        print(json.dumps(report, indent=2))
        if report["overall_tag"] not in wheel.platforms:
            yield f"the platform must be {report['overall_tag']}, as auditwheel says, got {wheel.platforms}"
        if not re.match(r"(many|musl)linux_\d", report["overall_tag"]):
            yield f"PyPI does not accept {report['overall_tag']}"
        yield from (f"the wheel needs a library that it does not contain: {name}" for name in report["external_libs"])


def check_paths(wheel: Wheel) -> Iterator[str]:
    """Checks that no file of the wheel contains a path of the build machine."""
    folders = [str(ROOT), os.environ.get("CARGO_HOME", ""), str(Path.home())]
    here = [f"{folder}{os.sep}".encode() for folder in folders if len(folder) > 1]
    for file, data in wheel.files.items():
        found = {match[0] for match in MACHINE_PATH.finditer(data)} | {folder for folder in here if folder in data}
        print(f"{file}: {len(found)} paths")
        yield from (f"{file} contains the path {path!r}" for path in sorted(found))


CHECKS: dict[str, Callable[[Wheel], Iterator[str]]] = {
    "metadata": check_metadata,
    "modules": check_modules,
    "platform": check_platform,
    "paths": check_paths,
}


def main() -> None:
    name, path = sys.argv[1:]
    wrong = list(CHECKS[name](Wheel(Path(path))))
    print(*wrong, sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
