"""The traces of real systems in `tests/data`, and their replay through a cache."""

import array
import importlib.util
import json
import lzma
import sys
from functools import cache as remember

from helpers import ROOT

from moka_py import Moka

DATA = ROOT / "tests" / "data"
TRACES = {trace["name"]: trace for trace in json.loads((DATA / "traces.json").read_text())}
ROWS = [(name, size) for name, trace in TRACES.items() for size in trace["sizes"]]


def load_module(name):
    """Load a module of `stress/hit_ratio`: `replay` has an exact LRU and the offline optimum, `traps` has traps."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "stress" / "hit_ratio" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@remember
def accesses(name):
    """Return the ids of a trace in order. The ids of its parts are kept apart."""
    trace = TRACES[name]
    if "parts" in trace:
        names = sorted({part["name"] for part in trace["parts"]})
        return [
            number * len(names) + names.index(part["name"])
            for part in trace["parts"]
            for number in accesses(part["name"])[: part["accesses"]] * part["repeats"]
        ]
    ids = array.array("I", lzma.decompress((DATA / trace["file"]).read_bytes()))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tolist()


def hits_of(cache, keys):
    """Replay keys as a get, and a set after each miss. Return the number of hits."""
    hits = 0
    for key in keys:
        if cache.get(key) is None:
            cache.set(key, key + 1)
        else:
            hits += 1
    return hits


def lag_of_trap(kind, capacity, seed):
    """Return by how many points `tiny_lfu` is below `lru` on a trap of 50 capacities."""
    keys = load_module("traps").trace_of(kind, capacity, 50, seed, {})
    ours, lru = (hits_of(Moka(capacity, policy=policy), keys) for policy in ("tiny_lfu", "lru"))
    return 100 * (lru - ours) / len(keys)


def ratio_of(name, capacity):
    """Return the hit ratio of a trace in percent."""
    keys, cache = accesses(name), Moka(capacity)
    hits = hits_of(cache, keys)
    assert len(cache) <= capacity
    return 100 * hits / len(keys)
