"""Counts the instructions of the hot operations by purpose with callgrind, independent of the machine's load.

    CARGO_PROFILE_RELEASE_DEBUG=1 CARGO_PROFILE_RELEASE_STRIP=none ./ci/wheel
    python stress/bench/instructions.py            # with that wheel installed; needs valgrind, and takes some minutes

Each operation runs in its own process, once with few and once with many rounds. The difference is the cost of the
operation. An instruction counts for the function in whose source its line is, even if that function is inlined.
"""

import argparse
import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PREPARE = """
import functools, gc, sys
import moka_py
from moka_py import Moka
gc.disable()
rounds, entries = int(sys.argv[1]), 10_000
"""


def filled(work, made="Moka(entries)", key="k + 10**6", more=""):
    """Returns the preparation and the work of a program: a full cache, and needles equal to some of its keys."""
    prepare = f"""
cache = {made}
for k in range(entries): cache.set({key}, k)
needles = [{key} for k in range(5000, 6000)]
get, set, remove, fresh = cache.get, cache.set, cache.remove, 10**8
{more}
"""
    return prepare, work


def decorated(decorator):
    """Returns the preparation of a full cached function, as `get`."""
    return f"get = {decorator}(maxsize=entries)(lambda x: x)\nfor k in range(entries): get(k)"


OPERATIONS = {
    "nothing: the loop around a call of `().count`": filled("get(k)", more="get = ().count"),
    "`get`, a hit, int": filled("get(k)"),
    "`get`, a hit, str": filled("get(k)", key="f'k {k}'"),
    "`get`, a hit, ttl and tti": filled("get(k)", made="Moka(entries, ttl=9999, tti=9999)"),
    "`get`, a miss, int": filled("get(k)", more="needles = list(range(1000))"),
    "`set` of a present key": filled("set(k, k)"),
    "`set` that evicts, `lru`": filled("set(fresh, k); fresh += 1", made="Moka(entries, policy='lru')"),
    "`set` that evicts, `tiny_lfu`": filled("set(fresh, k); fresh += 1"),
    "`remove` and `set` again": filled("remove(k); set(k, k)"),
    "`get_with` that misses": filled("get(fresh, set); fresh += 1", more="get, set = cache.get_with, lambda: 1"),
    "a cached function that misses": filled("get(fresh); fresh += 1", more=decorated("moka_py.cached")),
    "`lru_cache` that misses": filled("get(fresh); fresh += 1", more=decorated("functools.lru_cache")),
}
FEW, MANY = 20, 120

# The purpose of a function: the beginning of its path below src/, or a part of the path of another crate, and a
# pattern for its name. The first match counts.
PURPOSES = (
    ("hash", ("python/object/", r"hash|small$"), ("cache/seed.rs", ".*")),
    ("equality", ("python/object/", r"(^|_)eq(_|$)|of$|str_parts|equal"), ("map/query.rs", ".*")),
    (
        "probe",
        ("map/table.rs", ".*"),
        ("map/resize.rs", ".*"),
        ("map/mod.rs", "try_get|find"),
        ("shard/shards.rs", ".*"),
    ),
    ("pin, lock", ("sync/", ".*"), ("reclaim/thread", ".*"), ("reclaim/", "pin"), ("crossbeam-epoch", ".*")),
    ("references, result", ("python/object/", ".*"), ("refcount.rs", ".*"), ("map/removal.rs", ".*")),
    ("entry", ("map/", ".*"), ("reclaim/", ".*")),
    ("stamp", ("policy/tiny_lfu/access_stamps.rs", "record"), ("policy/mod.rs", "record")),
    ("sketch", ("policy/tiny_lfu/sketch.rs", ".*"), ("policy/tiny_lfu/access_stamps.rs", ".*")),
    ("count", ("python/moka/stats.rs", ".*"), ("collections/striped_counter.rs", ".*")),
    ("order", ("policy/", ".*"), ("collections/", ".*")),
    ("clock, deadlines", ("expiry/", ".*"), ("python/moka/clock.rs", ".*"), ("quanta", ".*")),
    ("way in and out", ("python/", ".*"), ("cache/", ".*"), ("shard/", ".*"), ("config.rs", ".*")),
)


class Sources:
    """Finds the function that contains a line of the project."""

    def __init__(self):
        self.lines = {}

    def function(self, path, line):
        if path not in self.lines:
            names, name = [], ""
            for text in path.read_text().splitlines():
                found = re.match(r"\s*(?:pub(?:\([a-z]+\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)", text)
                name = found[1] if found else name
                names.append(name)
            self.lines[path] = names
        names = self.lines[path]
        return names[line - 1] if 0 < line <= len(names) else ""


def purpose(sources, file, line, caller):
    """Returns the purpose of an instruction. Inlined code of the standard library counts for its caller."""
    below = file.split("/src/")[-1] if "/src/" in file else file.removeprefix("src/")
    is_ours = (ROOT / "src" / below).is_file()
    function = sources.function(ROOT / "src" / below, line) if is_ours else ""
    for name, *places in PURPOSES:
        for place, functions in places:
            is_there = below.startswith(place) if is_ours else "/" not in place and place in file
            if is_there and re.search(functions, function):
                return name
    return caller


def counted(profile, sources):
    """Counts the instructions of a callgrind file by purpose."""
    names, counts = {}, collections.Counter()
    thing = file = ""
    line, is_call = 0, False

    def named(kind, text):
        number, _, name = text.partition(" ")
        if name:
            names[kind, number] = name
        return names[kind, number]

    last = ""
    for text in profile.read_text().splitlines():
        key, _, value = text.partition("=")
        if key in ("ob", "cob"):
            value = named("ob", value)
            thing = value if key == "ob" else thing
        elif key in ("fl", "fi", "fe", "cfi", "cfl"):
            value = named("file", value)
            file = value if key in ("fl", "fi", "fe") else file
        elif key in ("fn", "cfn"):
            named("fn", value)
            last = "way in and out" if key == "fn" else last
        elif key == "calls":
            is_call = True
        elif text[:1] in "+-*0123456789" and text:
            position, _, cost = text.partition(" ")
            line = line if position == "*" else line + int(position) if position[0] in "+-" else int(position)
            if not is_call and cost:
                if "_moka_py" in thing:
                    last = purpose(sources, file, line, last)
                    counts[last] += int(cost.split()[0])
                else:
                    counts["interpreter"] += int(cost.split()[0])
            is_call = False
    return counts


def measure(prepare, work, sources):
    """Counts the instructions of one operation by purpose."""
    loop = f"def main(needles, get, set, remove, fresh):\n for _ in range(rounds):\n  for k in needles:\n   {work}\n"
    code = PREPARE + prepare + loop + "main(needles, get, set, remove, fresh)\n"
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for rounds in (FEW, MANY):
            profile = Path(folder) / str(rounds)
            run = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", sys.executable, "-P", "-c", code]
            subprocess.run([*run, str(rounds)], check=True, capture_output=True)
            totals.append(counted(profile, sources))
    few, many = totals
    return {name: (many[name] - few[name]) / ((MANY - FEW) * 1000) for name in many}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only operations whose names contain this")
    options = parser.parse_args()
    sources = Sources()
    columns = ["interpreter", *(name for name, *_ in PURPOSES)]
    print(f"| operation | {' | '.join(columns)} | together |\n|---|{'--:|' * (len(columns) + 1)}")
    for name, (prepare, work) in OPERATIONS.items():
        if options.only in name:
            counts = measure(prepare, work, sources)
            cells = [f"{counts.get(column, 0):.0f}" for column in columns]
            print(f"| {name} | {' | '.join(cells)} | {sum(counts.values()):.0f} |", flush=True)


if __name__ == "__main__":
    main()
