"""Replays accesses through one subject: get, and set after a miss. As a program it prints the hits as JSON.

It is a separate program because PyPI's moka-py has the name of this package, so that each needs its own environment.
"""

import array
import heapq
import json
import lzma
import sys
from collections import OrderedDict, defaultdict


def ids_of(paths):
    """Returns the accesses of trace files, one after the other. Ids of different files are different keys."""
    names = sorted(set(paths))
    accesses = []
    for path in paths:
        file, _, count = path.partition(":")
        with open(file, "rb") as source:
            ids = array.array("I", lzma.decompress(source.read()))
        if sys.byteorder == "big":
            ids.byteswap()
        files = sorted({name.partition(":")[0] for name in names})
        apart = files.index(file) << 32
        accesses += [key + apart for key in ids[: int(count) if count else None]]
    return accesses


def hits_of(get, put, keys):
    hits = 0
    for key in keys:
        if get(key) is None:
            put(key, key)
        else:
            hits += 1
    return hits


def ours(policy):
    def replay(capacity, keys):
        from moka_py import Moka

        if not hasattr(Moka, "expires_in"):
            raise ImportError("this is PyPI's moka-py")
        cache = Moka(capacity, policy=policy)
        return hits_of(cache.get, cache.set, [key + 1 for key in keys])

    return replay


def moka_py(capacity, keys):
    """PyPI's moka-py. Its maintenance runs after each set, because it would exceed its capacity otherwise."""
    from moka_py import Moka

    if hasattr(Moka, "expires_in"):
        raise ImportError("this is not PyPI's moka-py")
    cache = Moka(capacity)

    def put(key, value):
        cache.set(key, value)
        cache.run_pending_tasks()

    return hits_of(cache.get, put, [key + 1 for key in keys])


def theine(capacity, keys):
    from theine import Cache

    cache = Cache(capacity)
    return hits_of(lambda key: cache.get(key)[0], cache.set, [key + 1 for key in keys])


def cachebox(capacity, keys):
    from cachebox import LRUCache

    cache = LRUCache(capacity)
    return hits_of(cache.get, cache.insert, [key + 1 for key in keys])


def exact_lru(capacity, keys):
    order, hits = OrderedDict(), 0
    for key in keys:
        if key in order:
            order.move_to_end(key)
            hits += 1
        else:
            order[key] = None
            if len(order) > capacity:
                order.popitem(last=False)
    return hits


def exact_lfu(capacity, keys):
    """It counts the uses of the entries that it holds. Of the entries used least it evicts the least recent one."""
    uses, by_uses, least, hits = {}, defaultdict(OrderedDict), 1, 0
    for key in keys:
        count = uses.get(key, 0)
        if count:
            hits += 1
            del by_uses[count][key]
            if count == least and not by_uses[count]:
                least += 1
        else:
            if len(uses) >= capacity:
                victim, _ = by_uses[least].popitem(last=False)
                del uses[victim]
            least = 1
        uses[key] = count + 1
        by_uses[count + 1][key] = None
    return hits


def optimum(capacity, keys):
    """The offline optimum: it evicts the key whose next access is latest, or does not admit it.

    Belady, "A study of replacement algorithms for a virtual-storage computer" (1966).
    """
    never = len(keys)
    needed_next, upcoming = [never] * len(keys), {}
    for at in range(len(keys) - 1, -1, -1):
        needed_next[at] = upcoming.get(keys[at], never)
        upcoming[keys[at]] = at
    held, heap, hits = {}, [], 0
    for at, key in enumerate(keys):
        hits += key in held
        held[key] = needed_next[at]
        heapq.heappush(heap, (-needed_next[at], key))
        while len(held) > capacity:
            needed, key = heapq.heappop(heap)
            if held.get(key) == -needed:
                del held[key]
    return hits


SUBJECTS = {
    "offline optimum": optimum,
    "moka_py tiny_lfu": ours("tiny_lfu"),
    "theine": theine,
    "moka-py 0.5.0": moka_py,
    "moka_py lru": ours("lru"),
    "cachebox LRU": cachebox,
    "exact LRU": exact_lru,
}


def main():
    subject, capacities, *paths = sys.argv[1:]
    keys = ids_of(paths)
    try:
        hits = [SUBJECTS[subject](capacity, keys) for capacity in json.loads(capacities)]
    except ImportError:
        hits = None
    json.dump({"accesses": len(keys), "unique": len(set(keys)), "hits": hits}, sys.stdout)


if __name__ == "__main__":
    main()
