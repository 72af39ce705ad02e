"""Checks a wheel before anyone publishes it: `check_wheel.py CHECK WHEEL`, where CHECK is a name in `CHECKS`.

Prints what it looked at, and what is wrong with it; the exit code says whether anything is. It needs the tools that
ci/lib.sh lists for releases.
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

# Twice what a module takes in November 2026 and more: what passes this has debug information or a dependency too many.
MOST_BYTES = 3_000_000

# As MUST in ci/lib.sh has it.
MUST_SERVE = {"cp313", "cp313t", "cp314", "cp315"}

# Paths that only the machine has on which it was built, in any file of the wheel.
OF_A_MACHINE = re.compile(
    rb"(?:/(?:home|root|Users)/|[A-Z]:[\\/]Users[\\/])[\w.]|\.cargo[\\/]registry|\.rustup[\\/]|path\+file:///[^#]"
)

# What a module says where PyO3 was built without its pool of references.
OF_NO_POOL = b"without the thread being attached"


class Wheel:
    """A wheel file, and what its name and its metadata say."""

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
        """The headers of METADATA or WHEEL."""
        return message_from_string(self.files[f"{self.info}/{file}"].decode())

    def tags(self) -> list[str]:
        """The tags that WHEEL lists, such as cp313-cp313t-manylinux_2_34_x86_64."""
        return self.headers("WHEEL").get_all("Tag", [])


def check_metadata(wheel: Wheel) -> Iterator[str]:
    """Twine's strict check; the version, the licence's text and the addresses; classifiers that PyPI knows."""
    from trove_classifiers import classifiers

    twine = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(wheel.path)]
    result = subprocess.run(twine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout)
    if result.returncode:
        yield "twine refuses it"
    metadata = wheel.headers("METADATA")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    if {metadata["Version"], wheel.version} != {version}:
        yield f"the version must be {version}, got {metadata['Version']} in METADATA and {wheel.version} in the name"
    if metadata["License-Expression"] != "MIT":
        yield f"the licence must be MIT, got {metadata['License-Expression']}"
    if wheel.files.get(f"{wheel.info}/licenses/LICENSE") != (ROOT / "LICENSE").read_bytes():
        yield "licenses/LICENSE is not the project's"
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    if sorted(metadata.get_all("Project-URL", [])) != sorted(f"{name}, {url}" for name, url in urls.items()):
        yield f"the addresses must be {urls}, got {metadata.get_all('Project-URL', [])}"
    given = metadata.get_all("Classifier", [])
    yield from (f"PyPI knows no classifier {name!r}" for name in given if name not in classifiers)
    for tag in wheel.tags():
        wanted = "Programming Language :: Python :: " + re.sub(r"cp(\d)(\d+)-.*", r"\1.\2", tag)
        if wanted not in given:
            yield f"no classifier {wanted!r} for the tag {tag}"


def check_modules(wheel: Wheel) -> Iterator[str]:
    """One extension module for each interpreter that the tags promise, none of them too large."""
    abis = {tag.split("-")[1] for tag in wheel.tags()}
    named = {
        f"cp{found[1]}": file
        for file in wheel.modules
        if (found := re.fullmatch(r"moka_py/_moka_py\.(?:cpython-|cp)(\d+t?)-\w[\w-]*\.(?:so|pyd)", file))
    }
    if set(named) != abis or len(named) != len(wheel.modules):
        yield f"the tags are for {sorted(abis)}, the modules {sorted(wheel.modules)}"
    if MUST_SERVE - abis:
        yield f"it must serve {sorted(MUST_SERVE)}, got {sorted(abis)}"
    for file, data in wheel.modules.items():
        print(f"{file}: {len(data):,} bytes")
        if len(data) > MOST_BYTES:
            yield f"{file} has {len(data):,} bytes, more than {MOST_BYTES:,}"
        if OF_NO_POOL not in data:
            yield f"{file} was built without the flags of .cargo/config.toml: PyO3 has its pool of references"


def check_platform(wheel: Wheel) -> Iterator[str]:
    """The tags of the name are those of WHEEL, and promise the very C library that the modules need."""
    if set(wheel.tags()) - wheel.tags_of_name or len({tag.split("-")[2] for tag in wheel.tags()}) != 1:
        yield f"the name has the platforms {wheel.platforms}, WHEEL the tags {wheel.tags()}"
    if any("linux" in platform for platform in wheel.platforms):
        auditwheel = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel.path)]
        report = json.loads(subprocess.run(auditwheel, check=True, stdout=subprocess.PIPE).stdout)
        print(json.dumps(report, indent=2))
        if report["overall_tag"] not in wheel.platforms:
            yield f"auditwheel finds it fit for {report['overall_tag']}, got {wheel.platforms}"
        if not re.match(r"(many|musl)linux_\d", report["overall_tag"]):
            yield f"PyPI takes no {report['overall_tag']}"
        yield from (f"it needs a library that is not in it: {name}" for name in report["external_libs"])


def check_paths(wheel: Wheel) -> Iterator[str]:
    """No file of the wheel names a folder of the machine that it was built on."""
    folders = [str(ROOT), os.environ.get("CARGO_HOME", ""), str(Path.home())]
    here = [f"{folder}{os.sep}".encode() for folder in folders if len(folder) > 1]
    for file, data in wheel.files.items():
        found = {match[0] for match in OF_A_MACHINE.finditer(data)} | {folder for folder in here if folder in data}
        print(f"{file}: {len(found)} paths")
        yield from (f"{file} has the path {path!r}" for path in sorted(found))


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
