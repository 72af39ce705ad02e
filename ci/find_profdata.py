"""Prints the folder of an llvm-profdata that reads the profiles of this rustc; says why not where there is none.

A wheel is compiled by a profile of ci/pgo_workload.py. maturin takes the tool of the toolchain, which rustup adds, or
else the first in PATH. That of another LLVM serves as well, as long as the two agree on the format.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "llvm-profdata.exe" if os.name == "nt" else "llvm-profdata"


def run(*command: str | Path, **variables: str) -> str | None:
    """What a command prints, or nothing where it fails."""
    try:
        done = subprocess.run(
            list(map(str, command)), check=True, capture_output=True, text=True, env=os.environ | variables
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def of_toolchain() -> Path | None:
    """Where the toolchain has its own."""
    libraries = run("rustc", "--print", "target-libdir")
    return Path(libraries).parent / "bin" if libraries else None


def folders() -> list[Path]:
    """Where it may be, in the order in which they are asked."""
    own = of_toolchain()
    if own and not (own / NAME).exists() and shutil.which("rustup"):
        run("rustup", "component", "add", "llvm-tools")
    found = shutil.which(NAME)
    debians = sorted(Path("/usr/lib").glob("llvm-*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    some = [own, Path(found).parent if found else None, *debians]
    return [folder for folder in some if folder and (folder / NAME).exists()]


def count(scratch: Path) -> Path | None:
    """The profile of a program that does nothing, or nothing where rustc has no runtime to count with."""
    source, program, profile = scratch / "main.rs", scratch / "main", scratch / "main.profraw"
    source.write_text("fn main() {}\n")
    if run("rustc", "-Cprofile-generate", source, "-o", program) is None:
        return None
    run(program, LLVM_PROFILE_FILE=str(profile))
    return profile if profile.exists() else None


def find_profdata() -> Path:
    """The folder of the first that does. Raises LookupError where none does."""
    with tempfile.TemporaryDirectory() as scratch:
        profile = count(Path(scratch))
        if profile is None:
            raise LookupError("this rustc makes no program that counts what it runs")
        for folder in folders():
            if run(folder / NAME, "merge", "-o", Path(scratch, "merged"), profile) is not None:
                return folder
    raise LookupError("no llvm-profdata here reads the profiles of this rustc: try `rustup component add llvm-tools`")


def main() -> None:
    try:
        print(find_profdata())
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
