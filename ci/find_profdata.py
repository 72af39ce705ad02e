"""Prints the folder of an llvm-profdata that can read the profiles of this rustc, or an error if there is none.

A wheel is compiled with a profile of ci/pgo_workload.py. maturin uses the tool of the toolchain, which rustup installs,
or else the first one in PATH. The tool of another LLVM works, too, if both agree on the format.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "llvm-profdata.exe" if os.name == "nt" else "llvm-profdata"


def run(*command: str | Path, **variables: str) -> str | None:
    """Returns the output of a command, or None if it fails."""
    try:
        done = subprocess.run(
            list(map(str, command)), check=True, capture_output=True, text=True, env=os.environ | variables
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def of_toolchain() -> Path | None:
    """Returns the folder of the toolchain's own tools."""
    libraries = run("rustc", "--print", "target-libdir")
    return Path(libraries).parent / "bin" if libraries else None


def folders() -> list[Path]:
    """Returns the folders that have an llvm-profdata, in the order in which they are tried."""
    own = of_toolchain()
    if own and not (own / NAME).exists() and shutil.which("rustup"):
        run("rustup", "component", "add", "llvm-tools")
    found = shutil.which(NAME)
    debians = sorted(Path("/usr/lib").glob("llvm-*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    some = [own, Path(found).parent if found else None, *debians]
    return [folder for folder in some if folder and (folder / NAME).exists()]


def count(scratch: Path) -> Path | None:
    """Returns the profile of an empty program, or None if rustc has no profiler runtime."""
    source, program, profile = scratch / "main.rs", scratch / "main", scratch / "main.profraw"
    source.write_text("fn main() {}\n")
    if run("rustc", "-Cprofile-generate", source, "-o", program) is None:
        return None
    run(program, LLVM_PROFILE_FILE=str(profile))
    return profile if profile.exists() else None


def find_profdata() -> Path:
    """Returns the folder of the first llvm-profdata that reads a profile. Raises LookupError if there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        profile = count(Path(scratch))
        if profile is None:
            raise LookupError("this rustc cannot build a program that records a profile")
        for folder in folders():
            if run(folder / NAME, "merge", "-o", Path(scratch, "merged"), profile) is not None:
                return folder
    raise LookupError("no llvm-profdata can read the profiles of this rustc: try `rustup component add llvm-tools`")


def main() -> None:
    try:
        print(find_profdata())
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
