"""Kinds of accesses to keys that differ in weight, and the subjects that replay them.

Each kind has 500,000 accesses, mostly by Zipf's law to 50,000 keys, and room for a part of all weights. A
policy that heeds weights too much loses weight that is hit, and one that neglects them loses hits.
"""

import heapq
import random
from itertools import accumulate
from math import exp

ACCESSES = 500_000
KEYS = 50_000
EXPONENT = 0.9
# The part of all weights that the cache has room for, unless the kind says otherwise.
CAPACITY_PART = 1 / 20


def zipf(draw, exponent=EXPONENT, keys=KEYS, accesses=ACCESSES):
    """Draws keys from 0, the most popular one, on."""
    sums = list(accumulate(rank**-exponent for rank in range(1, keys + 1)))
    return draw.choices(range(keys), cum_weights=sums, k=accesses)


def log_normal(draw, keys=KEYS, sigma=1.5):
    return [max(1, round(exp(draw.gauss(3, sigma)))) for _ in range(keys)]


def nearly_sorted(draw, weights, *, reverse):
    """Sorts the weights, but for random exchanges: so the rank of a key and its weight are correlated."""
    weights = sorted(weights, reverse=reverse)
    for at in range(len(weights)):
        other = min(at + draw.randrange(KEYS // 10), len(weights) - 1)
        weights[at], weights[other] = weights[other], weights[at]
    return weights


def with_scan(draw, keys, weights, weight, part):
    """Replaces a part of the accesses by keys of this weight that come once."""
    weights = list(weights)
    for at in range(len(keys)):
        if draw.random() < part:
            keys[at] = len(weights)
            weights.append(weight)
    return keys, weights


def one_giant(draw):
    weights = log_normal(draw)
    capacity = round(sum(weights) * CAPACITY_PART)
    weights[20] = capacity // 2
    return zipf(draw), weights, capacity


def moving(draw):
    """Popularity moves by a fiftieth of the keys every 25,000 accesses."""
    keys = [(key + at // 25_000 * (KEYS // 50)) % KEYS for at, key in enumerate(zipf(draw))]
    return keys, log_normal(draw), None


def loop(draw):
    weights = log_normal(draw, 5_000)
    return [at % len(weights) for at in range(ACCESSES)], weights, sum(weights) * 2 // 3


def tiny_scan(draw):
    keys, weights = with_scan(draw, zipf(draw), [1_000] * KEYS, 1, 0.5)
    return keys, weights, round(1_000 * KEYS * CAPACITY_PART)


def band_beside_giant(draw):
    """A hot core and keys that come again soon and then never, beside one hot key of half the capacity."""
    keys = [
        KEYS if at % 50 == 0 else draw.randrange(200) if at % 3 == 0 else 200 + at // 8 + draw.randrange(2_000)
        for at in range(ACCESSES)
    ]
    return keys, [10] * KEYS + [25_000] + [10] * KEYS, 50_000


# Returns the keys of the accesses, the weights of the keys, and the capacity; `None` is the usual part of all weights.
KINDS = {
    "log-normal": lambda draw: (zipf(draw), log_normal(draw), None),
    "log-normal, exponent 0.6": lambda draw: (zipf(draw, 0.6), log_normal(draw), None),
    "log-normal, exponent 1.2": lambda draw: (zipf(draw, 1.2), log_normal(draw), None),
    "popular keys are heavy": lambda draw: (zipf(draw), nearly_sorted(draw, log_normal(draw), reverse=True), None),
    "popular keys are light": lambda draw: (zipf(draw), nearly_sorted(draw, log_normal(draw), reverse=False), None),
    "half 10, half 1,000": lambda draw: (zipf(draw), draw.choices([10, 1_000], k=KEYS), None),
    "one in 100 of 50,000, others 10": lambda draw: (zipf(draw), draw.choices([50_000] + [10] * 99, k=KEYS), None),
    "three in ten of 0": lambda draw: (
        zipf(draw),
        [weight if draw.random() < 0.7 else 0 for weight in log_normal(draw)],
        None,
    ),
    "Pareto, exponent 1.1": lambda draw: (
        zipf(draw),
        [round(min(10 * draw.paretovariate(1.1), 1e9)) for _ in range(KEYS)],
        None,
    ),
    "one hot key of half the capacity": one_giant,
    "a band of recent keys beside such a key": band_beside_giant,
    "1,000 beside tiny keys that come once": tiny_scan,
    "log-normal, popularity moves": moving,
    "log-normal, loop of 1.5 capacities": loop,
    "all 7": lambda draw: (zipf(draw), [7] * KEYS, None),
}


def ours(policy):
    def replay(capacity, keys, weights):
        from moka_py import Moka

        cache = Moka(capacity, policy=policy, weigher=lambda key, weight: weight)
        for key in keys:
            hit = cache.get(key) is not None
            if not hit:
                cache.set(key, weights[key])
            yield hit

    return replay


def gdsf(capacity, keys, weights):
    """GDSF with perfect counts, also of keys that it does not hold: the least uses for their weight are evicted.

    A key that is used gets its uses, divided by its weight, on top of the rank of the last victim: Cherkasova,
    "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy" (1998).
    """
    uses, ranks, heap, floor, used = [0] * len(weights), {}, [], 0.0, 0
    for key in keys:
        weight, hit = weights[key], key in ranks
        uses[key] += 1
        if not hit and weight <= capacity:
            used += weight
            while used > capacity:
                rank, victim = heapq.heappop(heap)
                if ranks.get(victim) == rank:
                    del ranks[victim]
                    used -= weights[victim]
                    floor = rank
        if hit or weight <= capacity:
            ranks[key] = floor + uses[key] / max(weight, 1)
            heapq.heappush(heap, (ranks[key], key))
        yield hit


SUBJECTS = {"moka_py tiny_lfu": ours("tiny_lfu"), "moka_py lru": ours("lru"), "GDSF, perfect counts": gdsf}


def ratios_of(kind, seed):
    """Returns, for each subject, which percentage of the accesses and of their weight hit, from an empty cache on."""
    keys, weights, capacity = KINDS[kind](random.Random(f"{kind} {seed}"))
    capacity = capacity or round(sum(weights) * CAPACITY_PART)
    total = sum(weights[key] for key in keys)

    def ratios(replay):
        hits = [key for key, hit in zip(keys, replay(capacity, keys, weights), strict=True) if hit]
        return 100 * len(hits) / len(keys), 100 * sum(weights[key] for key in hits) / total

    return {subject: ratios(replay) for subject, replay in SUBJECTS.items()}
