"""Makes traces that trap an adaptive window: in each, recency or frequency alone has many hits, and the other has few.

Each kind is a function of a random generator, a capacity and the number of accesses. It returns the keys in order.
Lengths and distances are multiples of the capacity, so a kind is the same at each capacity.

As a program it makes one trace, replays it through some subjects, and prints the hits as JSON. Each trace has a process
of its own, because the seed of the hashes of `tiny_lfu` is that of the process.
"""

import json
import random
import sys
from heapq import heappop, heappush
from itertools import accumulate, count


def used_twice(dice, capacity, length, *, hot_share=0.5, hot_keys=1.0, exponent=1.0, distances=(0.02, 0.25)):
    """A hot set, drawn by Zipf's law, beside keys that are used exactly twice."""
    hot = zipf(dice, int(capacity * hot_keys), exponent, length)
    return add_keys_used_twice(dice, capacity, hot, hot_share, distances)


def reuse_bands(dice, capacity, length, *, core_share=0.06, core_keys=0.01, distances=(0.6, 0.95)):
    """A small hot core beside keys that are used exactly twice, at distances that only most of the capacity spans."""
    core = dice.choices(range(max(1, int(capacity * core_keys))), k=length)
    return add_keys_used_twice(dice, capacity, core, core_share, distances)


def alternating_phases(dice, capacity, length, *, phase=20, distance=0.5, loop=0.9):
    """Phases of keys that are used exactly twice, at one distance, alternate with phases of a loop that fits."""
    keys, phase_length, first = [], int(capacity * phase), 0
    while len(keys) < length:
        keys += add_keys_used_twice(dice, capacity, [first] * phase_length, 0, (distance, distance))
        first = max(keys) + 1
        loop_length = max(1, int(capacity * loop))
        keys += [first + number % loop_length for number in range(phase_length)]
        first += loop_length
    return keys[:length]


def moving_popularity(dice, capacity, length, *, period=8, keys=10.0, exponent=1.0):
    """Keys drawn by Zipf's law. After each period they change places."""
    places, period_length = list(range(max(1, int(capacity * keys)))), int(capacity * period)
    accesses = []
    while len(accesses) < length:
        dice.shuffle(places)
        accesses += [places[rank] for rank in zipf(dice, len(places), exponent, period_length)]
    return accesses[:length]


def loop(dice, capacity, length, *, keys=1.1):
    """One loop over more keys than fit: LRU has no hit."""
    del dice
    return [number % int(capacity * keys) for number in range(length)]


KINDS = {kind.__name__: kind for kind in (used_twice, alternating_phases, reuse_bands, moving_popularity, loop)}


def zipf(dice, keys, exponent, length):
    """Draws keys from 0 on by Zipf's law: key n with a probability in proportion to 1 / (n + 1) ** exponent."""
    sums = list(accumulate((number + 1) ** -exponent for number in range(max(1, keys))))
    return dice.choices(range(len(sums)), cum_weights=sums, k=length)


def add_keys_used_twice(dice, capacity, others, share_of_others, distances):
    """Replaces all but a share of the accesses by those of keys that are used exactly twice.

    The second use follows after a distance between the two given ones, drawn uniformly.
    """
    keys, due, new_keys = [], [], count(max(others) + 1)
    for at, key in enumerate(others):
        if dice.random() >= share_of_others:
            if due and due[0][0] <= at:
                _, key = heappop(due)
            else:
                key = next(new_keys)
                heappush(due, (at + max(1, dice.uniform(*distances) * capacity), key))
        keys.append(key)
    return keys


def trace_of(kind, capacity, capacities, seed, parameters):
    """Returns the keys of a trace whose number of accesses is a multiple of the capacity."""
    return KINDS[kind](random.Random(seed), capacity, capacity * capacities, **parameters)


def main():
    from replay import exact_lfu, ours

    subjects = {"tiny_lfu": ours("tiny_lfu"), "lru": ours("lru"), "exact LFU": exact_lfu}
    kind, capacity, capacities, seed, parameters = sys.argv[1], *map(json.loads, sys.argv[2:])
    keys = trace_of(kind, capacity, capacities, seed, parameters)
    hits = {subject: replay(capacity, keys) for subject, replay in subjects.items()}
    json.dump({"accesses": len(keys), "hits": hits}, sys.stdout)


if __name__ == "__main__":
    main()
