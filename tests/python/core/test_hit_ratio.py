"""Hit ratios of the policies on the traces of real systems in `tests/data`."""

import random
import statistics

import pytest
from helpers import FREE_THREADED, ROOT, run_script
from traces import ROWS, TRACES, accesses, hits_of, lag_of_trap, load_module, ratio_of

from moka_py import Moka

# From this capacity on, a cache of the free-threaded build has shards, and an LRU is exact within each shard only.
MIN_SHARDED_CAPACITY = 2048

# The best hit ratio of each row in percent. It is the best of the peers that `stress/hit_ratio` replays, of s3-fifo, of
# arc, of Caffeine's adaptive window, and of an exact W-TinyLFU with and without ghost caches.
BEST = {
    "loop": (25.19, 50.51, 98.71),
    "2_pools": (48.77, 51.49, 73.14),
    "sprite": (31.17, 78.97, 93.48),
    "web12": (38.72, 60.88, 75.53),
    "orm-busy": (50.38, 69.03, 87.52),
    "phases-a": (63.38,),
}
MEAN = 61.3

hits_of_exact_lru = load_module("replay").exact_lru
trace_of_trap = load_module("traps").trace_of
# Traps of one kind and capacity, of these seeds, are compared by their mean.
TRAP_SEEDS = range(4)


@pytest.mark.parametrize(("name", "capacity"), [*ROWS, ("web12", 1), ("web12", 7), ("sprite", 16)])
def test_lru_is_the_exact_lru_to_the_last_hit(name, capacity):
    if FREE_THREADED and capacity >= MIN_SHARDED_CAPACITY:
        pytest.skip("the order is exact within a shard")
    keys = accesses(name)[:200_000]
    assert hits_of(Moka(capacity, policy="lru"), keys) == hits_of_exact_lru(capacity, keys)


@pytest.mark.skipif(not FREE_THREADED, reason="there is one shard on the GIL build")
def test_shards_cost_lru_few_hits():
    for name, capacity in ROWS:
        if capacity >= MIN_SHARDED_CAPACITY:
            keys = accesses(name)
            lost = hits_of_exact_lru(capacity, keys) - hits_of(Moka(capacity, policy="lru"), keys)
            assert abs(lost) <= 0.003 * len(keys), (name, capacity)


def figure_of_another_process(function, *arguments):
    """Return the result of a function of `traces`, which takes a string and ints, under another seed of hashes."""
    script = "import sys; sys.path[:0] = [sys.argv[1]]; import traces; "
    script += "print(getattr(traces, sys.argv[2])(sys.argv[3], *map(int, sys.argv[4:])))"
    return float(run_script(script, str(ROOT / "tests" / "python"), function, *map(str, arguments)))


def test_tiny_lfu_is_ahead_in_the_mean_and_never_far_behind():
    ratios = {row: ratio_of(*row) for row in ROWS}
    table = "\n".join(f"{name} {capacity}: {ratio:.2f}" for (name, capacity), ratio in ratios.items())
    for name, capacity in ROWS:
        best = BEST[name][TRACES[name]["sizes"].index(capacity)]
        if ratios[name, capacity] < best - 4:
            # About one process in 1,000 has a seed with which the window adapts late. The median leaves it out.
            others = [figure_of_another_process("ratio_of", name, capacity) for _ in range(5)]
            assert statistics.median(others) >= best - 4, f"{name} {capacity}, best {best}, {others}\n{table}"
    assert sum(ratios.values()) / len(ratios) >= MEAN, table


@pytest.mark.parametrize("capacity", [8, 16, 50, 200, 1000, 5000])
def test_tiny_lfu_keeps_frequent_keys_through_scans(capacity):
    dice = random.Random(11)
    # With some seeds of hashes a small cache loses one of its few frequent keys, so it is tried with many keys.
    trials = 1 + 1000 // capacity
    before = after = 0
    for trial in range(trials):
        cache = Moka(capacity)
        frequent = range(trial * capacity, trial * capacity + capacity // 2)
        for _ in range(20):
            for number in dice.sample(frequent, len(frequent)):
                if cache.get(number) is None:
                    cache.set(number, True)
        before += sum(number in cache for number in frequent)
        for number in range(10 * capacity):
            cache.set(-1 - number, True)
        after += sum(number in cache for number in frequent)
    assert before >= trials * (capacity // 2) * 0.9
    assert after >= before * 0.8


@pytest.mark.parametrize("capacity", [100, 1000])
def test_tiny_lfu_adapts_to_a_workload_of_recent_keys(capacity):
    """Each key is accessed again once, soon. A window of 1 % would have no hits."""
    cache, hits = Moka(capacity), 0
    gap = capacity // 4
    for number in range(100 * capacity):
        for key in (number, number - gap):
            if cache.get(key) is None:
                cache.set(key, True)
            else:
                hits += number >= 50 * capacity
    assert hits >= 0.8 * 50 * capacity


@pytest.mark.parametrize("kind", ["used_twice", "alternating_phases", "reuse_bands", "moving_popularity"])
def test_no_trap_keeps_tiny_lfu_far_below_lru_after_a_cold_start(kind):
    lags = [lag_of_trap(kind, 500, seed) for seed in TRAP_SEEDS]
    if statistics.fmean(lags) > 3:
        # As above: one process in many has a seed with which the window adapts late.
        others = [figure_of_another_process("lag_of_trap", kind, 500, seed) for seed in range(5)]
        assert statistics.median(others) <= 3, f"{lags} in this process, {others} in others"


def test_tiny_lfu_keeps_a_loop_that_nearly_fits():
    keys = trace_of_trap("loop", 500, 50, 0, {"keys": 1.1})
    # 90.9 % of the loop fit, and the first of its 45 passes has no hits.
    assert hits_of(Moka(500), keys) >= 0.87 * len(keys)


@pytest.mark.parametrize("change", [lambda cache: cache.clear(), lambda cache: cache.resize(1500)])
def test_tiny_lfu_keeps_what_it_learned_when_it_is_cleared_or_resized(change):
    """After a cold start it would have 10 points fewer hits than an LRU in the first four capacities."""
    cache = Moka(500)
    hits_of(cache, trace_of_trap("reuse_bands", 500, 20, 1, {}))
    change(cache)
    capacity = cache.capacity
    later = [-key - 1 for key in trace_of_trap("reuse_bands", capacity, 4, 2, {})]
    assert hits_of(cache, later) >= hits_of_exact_lru(capacity, later) - 0.03 * len(later)


def test_load_counts_as_one_use():
    """A key that was loaded is colder than one that was set and used once, whichever came first."""
    for loaded_first in (True, False):
        cache = Moka(100)
        if loaded_first:
            cache.get_with("loaded", lambda: 1)
        cache.set("used", 1)
        assert cache.get("used") == 1
        if not loaded_first:
            cache.get_with("loaded", lambda: 1)
        assert [key for key, _ in cache.hottest(2)] == ["used", "loaded"]


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_entries_of_weight_zero_are_never_victims(policy):
    cache = Moka(50, policy=policy, weigher=lambda key, value: value)
    for number in range(20):
        cache.set(("free", number), 0)
    for number in range(500):
        cache.set(number, 1 + number % 5)
    assert sum(("free", number) in cache for number in range(20)) == 20
    cache.set(("free", 0), 3)
    for number in range(500):
        cache.set(number, 1 + number % 5)
    assert ("free", 0) not in cache and ("free", 1) in cache


def test_heavy_entry_does_not_evict_many_entries_of_the_same_frequency():
    cache = Moka(1000, weigher=lambda key, value: value)
    for _ in range(5):
        for number in range(90):
            if cache.get(number) is None:
                cache.set(number, 10)
    # The heavy entry is accessed as frequent as each of them, and weighs as much as thirty.
    for round_ in range(30):
        if cache.get("heavy") is None:
            cache.set("heavy", 300)
        for number in range(90):
            if cache.get(number) is None:
                cache.set(number, 10)
        cache.set(("once", round_), 10)
    assert sum(number in cache for number in range(90)) >= 60


def test_tiny_lfu_has_more_hits_where_weights_differ():
    dice = random.Random(3)
    keys = dice.choices(range(10_000), weights=[rank**-0.9 for rank in range(1, 10_001)], k=100_000)
    weights = [max(1, round(dice.lognormvariate(0.5, 1.5))) for _ in range(10_000)]

    def percentages_of(policy):
        """Return the percentage of the accesses that hit, and that of their weight."""
        cache = Moka(2_000, policy=policy, weigher=lambda key, weight: weight)
        hits = []
        for key in keys:
            if cache.get(key) is None:
                cache.set(key, weights[key])
            else:
                hits.append(key)
        total = sum(map(weights.__getitem__, keys))
        return 100 * len(hits) / len(keys), 100 * sum(map(weights.__getitem__, hits)) / total

    hits, weight = percentages_of("tiny_lfu")
    lru_hits, lru_weight = percentages_of("lru")
    # It was 9 points while each hit was a second chance, whatever the weight of the entry.
    assert hits > lru_hits + 12
    assert weight > lru_weight + 4
