"""The mutations of tests/mutations: checks and lists them, and applies them to a copy of the source.

usage: mutations.py check            checks that each mutation applies, and that its test exists
       mutations.py list [TEXT]...   prints the kind and the test of the check, the file, the room and the name
       mutations.py copy FOLDER      copies the source, or brings a copy up to date
       mutations.py apply FOLDER NAME, or restore FOLDER NAME

A mutation belongs to the room that its file names. It has these fields:

- `name`: what the mutated code does.
- `breaks`: the law, or the invariant of the file, that the mutation breaks.
- `file`, `old`, `new`: the edit. `old` occurs exactly once in the file.
- `check`: the kind and the name of the test that must fail. KINDS lists the kinds.
"""

import filecmp
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from source_folder import NOT_COPIED, ROOT

TABLES = ROOT / "tests/mutations"
KINDS = {
    "unit": "a test in src, with threads that run in parallel",
    "core": "a test of tests/core, likewise",
    "gil-unit": "a test in src, as on the GIL build",
    "gil-core": "a test of tests/core, likewise",
    "loom": "a model of tests/loom",
    "3.14": "a test of tests/python on this interpreter",
    "3.13t": "likewise",
}


class Mutation(NamedTuple):
    room: str
    name: str
    breaks: str
    file: str
    old: str
    new: str
    check: str

    @property
    def kind(self) -> str:
        return self.check.partition(" ")[0]

    @property
    def test(self) -> str:
        return self.check.partition(" ")[2]

    def mutated(self) -> str:
        """Returns the content of the file with the edit."""
        content = (ROOT / self.file).read_text()
        count = content.count(self.old)
        if count != 1:
            raise ValueError(f"`old` occurs {count} times in {self.file}")
        return content.replace(self.old, self.new)


def mutations() -> list[Mutation]:
    """Returns all mutations. Those with the same build are neighbours, and those that need none come first."""
    tables = sorted(TABLES.glob("*.toml"))
    if not tables:
        raise FileNotFoundError(f"{TABLES} has no tables")
    found = [
        Mutation(room=path.stem, **fields) for path in tables for fields in tomllib.loads(path.read_text())["mutation"]
    ]
    return sorted(found, key=lambda each: (list(KINDS).index(each.kind), each.file.endswith(".rs")))


def has_test(mutation: Mutation) -> bool:
    """Returns whether the test of a check exists."""
    path, *inner, name = mutation.test.split("::")
    if mutation.kind.startswith("3."):
        file = ROOT / "tests/python" / path
        patterns = [rf"^class {each}\b" for each in inner]
        patterns.append(rf"^{'    ' * len(inner)}(async )?def {name.partition('[')[0]}\(")
        return file.is_file() and all(re.search(each, file.read_text(), re.MULTILINE) for each in patterns)
    if mutation.kind.endswith("unit"):
        files = list((ROOT / "src").rglob("*.rs"))
    else:
        tests = ROOT / "tests" / ("loom" if mutation.kind == "loom" else "core")
        files = [tests.joinpath(path, *inner).with_suffix(".rs")]
    return any(re.search(rf"\bfn {name}\(", file.read_text()) for file in files if file.is_file())


def check() -> list[str]:
    """Returns the faults of the mutations."""
    wrong = []
    names: set[str] = set()
    for mutation in mutations():
        try:
            if mutation.mutated() == (ROOT / mutation.file).read_text():
                wrong.append(f"{mutation.name}: it changes nothing")
        except (OSError, ValueError) as error:
            wrong.append(f"{mutation.name}: {error}")
        if not has_test(mutation):
            wrong.append(f"{mutation.name}: there is no test {mutation.check}")
        if mutation.name in names:
            wrong.append(f"{mutation.name}: another one has this name")
        names.add(mutation.name)
    return wrong


def selected(texts: list[str]) -> list[Mutation]:
    """Returns the mutations of these kinds and rooms, and those whose name has a text. Without texts it returns all."""
    every = mutations()

    def is_selected(each: Mutation, text: str) -> bool:
        return text in (each.kind, each.room) or text in each.name

    for text in texts:
        if not any(is_selected(each, text) for each in every):
            raise SystemExit(f"ci/mutations: no kind and no room is named {text!r}, and no name of a mutation has that")
    return [each for each in every if not texts or any(is_selected(each, text) for text in texts)]


def copy_source(folder: Path) -> None:
    """Makes a folder equal to the source. Files that are equal keep their time, for cargo."""

    def copy(source: str, target: str) -> None:
        if not (os.path.isfile(target) and filecmp.cmp(source, target, shallow=False)):
            shutil.copyfile(source, target)

    shutil.copytree(ROOT, folder, ignore=NOT_COPIED, symlinks=True, copy_function=copy, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and not (ROOT / path.relative_to(folder)).exists():
            path.unlink()


def main(command: str, arguments: list[str]) -> int:
    if command == "check":
        wrong = check()
        print("\n".join(wrong) if wrong else f"{len(mutations())} mutations apply")
        return int(bool(wrong))
    if command == "list":
        for each in selected(arguments):
            test = f"tests/python/{each.test}" if each.kind.startswith("3.") else each.test
            print(each.kind, test, each.file, each.room, each.name, sep="\t")
        return 0
    folder, names = Path(arguments[0]), arguments[1:]
    if command == "copy":
        copy_source(folder)
        return 0
    [mutation] = [each for each in mutations() if each.name in names]
    content = {"apply": mutation.mutated, "restore": (ROOT / mutation.file).read_text}[command]()
    (folder / mutation.file).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
