"""Merges wheels for different interpreters into one: `merge_wheels.py OUT WHEEL...`.

Each wheel has its own extension module, and all other files must be the same. The merged wheel has all modules and all
tags, so that pip installs this one file on every interpreter, and each interpreter imports its own module. Prints the
path of the merged wheel.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Files that may differ between the wheels. The merged wheel gets new ones. The bill of materials names the crates of
# the build, which are the same for all.
MAY_DIFFER = re.compile(r"[^/]+\.dist-info/(WHEEL|RECORD|sboms/.*)")


def wheel_tool(*arguments: str | Path) -> None:
    """Runs the `wheel` command."""
    subprocess.run([sys.executable, "-m", "wheel", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def unpack(wheel: Path, into: Path) -> Path:
    """Unpacks a wheel, and checks it against its RECORD. Returns the folder of its contents."""
    wheel_tool("unpack", "--dest", into, wheel)
    (folder,) = into.iterdir()
    return folder


def tags_of(folder: Path) -> list[str]:
    """Returns the tags of an unpacked wheel, such as cp313-cp313t-manylinux_2_34_x86_64."""
    (metadata,) = folder.glob("*.dist-info/WHEEL")
    return re.findall(r"^Tag: (\S+)$", metadata.read_text(), re.MULTILINE)


def strictest(platforms: set[str]) -> str:
    """Returns the platform tag that fits all modules: the one with the newest C library or system.

    The name of a wheel combines every interpreter with every platform, so there must be one platform for all.
    """

    def needs(platform: str) -> tuple[int, ...]:
        version = re.match(r"(?:manylinux|musllinux|macosx)_(\d+)_(\d+)_", platform)
        # `linux_x86_64` is valid for this machine only, so it outranks the numbered tags.
        return tuple(map(int, version.groups())) if version else (sys.maxsize,)

    # `manylinux2014` and similar tags are aliases of numbered ones.
    return max((platform for platform in platforms if not re.match(r"manylinux\d", platform)), key=needs)


def merge(folders: list[Path]) -> Path:
    """Copies all files into the first folder, and returns it. Raises ValueError if two files differ."""
    first, *others = folders
    for folder in others:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder)
            target = first / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                target.chmod(path.stat().st_mode)
            elif not MAY_DIFFER.fullmatch(name.as_posix()) and target.read_bytes() != path.read_bytes():
                raise ValueError(f"the wheels differ in {name}")
    return first


def hide_path(folder: Path) -> None:
    """Removes the path of the checkout from the bills of materials."""
    for bill in folder.glob("*.dist-info/sboms/*.json"):
        text = bill.read_text(encoding="utf-8")
        bill.write_text(re.sub(r'path\+file://[^"#]*#', "path+file:///#", text), encoding="utf-8")


def retag(folder: Path, tags: list[str]) -> None:
    """Replaces the tags of an unpacked wheel."""
    (metadata,) = folder.glob("*.dist-info/WHEEL")
    lines = [line for line in metadata.read_text().splitlines() if line and not line.startswith("Tag: ")]
    lines += [f"Tag: {tag}" for tag in tags]
    metadata.write_text("\n".join(lines) + "\n")


def main() -> None:
    out, *wheels = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        folders = [unpack(wheel, Path(scratch, str(number))) for number, wheel in enumerate(wheels)]
        # Neither Python tags nor ABI tags nor platforms contain a hyphen.
        split = [tag.split("-") for folder in folders for tag in tags_of(folder)]
        platform = strictest({platform for _, _, platform in split})
        modules = sorted({(python, abi) for python, abi, _ in split}, key=lambda tag: (int(tag[0][3:]), tag[1]))
        whole = merge(folders)
        hide_path(whole)
        retag(whole, [f"{python}-{abi}-{platform}" for python, abi in modules])
        out.mkdir(parents=True, exist_ok=True)
        wheel_tool("pack", "--dest-dir", out, whole)
    (packed,) = out.glob("*.whl")
    print(packed.resolve())


if __name__ == "__main__":
    main()
