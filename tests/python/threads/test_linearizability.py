"""Calls of several threads on one key have a sequential order that explains their results.

`stress/torture/linearizability.py` checks the same for longer. The last tests check the checker: it rejects histories
without such an order, and finds the bug of each cache in `buggy_caches.py`.
"""

import itertools
import random
import sys

import pytest
from helpers import ROOT

TORTURE = str(ROOT / "stress" / "torture")
sys.path.insert(0, TORTURE)
try:
    from buggy_caches import BUGS
    from history_checker import SOME, UNKNOWN, Step, explain
    from linearizability import FunctionCache, play
finally:
    sys.path.remove(TORTURE)

ROUNDS = 20


@pytest.mark.parametrize("part", range(4))
def test_calls_on_each_key_are_linearizable(part, fast_switches):
    seed = random.SystemRandom().randrange(10**6)
    for each in range(seed, seed + ROUNDS):
        wrong, steps = play(each)
        assert not wrong, wrong
        assert steps > 0


def test_calls_on_each_key_of_a_cached_function_are_linearizable(fast_switches):
    seed = random.SystemRandom().randrange(10**6)
    for each in range(seed, seed + ROUNDS):
        wrong, steps = play(each, FunctionCache)
        assert not wrong, wrong
        assert steps > 0


@pytest.mark.parametrize("bug", BUGS)
def test_checker_finds_the_bug_of_each_buggy_cache(bug, fast_switches):
    assert any(play(seed, BUGS[bug])[0] for seed in range(2_000))


def history(*lines):
    """Parse a history from lines such as `"0-10 write 1, 11-12 read 1"`, with a line for each thread."""
    words = {"some": SOME, "unknown": UNKNOWN}
    threads = []
    for line in lines:
        steps = []
        for text in line.split(","):
            moments, action, *value = text.split()
            call, ret = map(int, moments.split("-"))
            steps.append(Step(call, ret, action, *(words.get(word, word) for word in value)))
        threads.append(steps)
    return threads


ORDERLY = {
    "a miss": ["0-1 read"],
    "sequential steps": ["0-1 write 1, 2-3 read 1, 4-5 remove 1, 6-7 read"],
    "a read beside a write sees it": ["0-9 write 1", "1-2 read 1"],
    "a read beside a write misses it": ["0-9 write 1", "1-2 read"],
    "overlapping writes in one order": ["0-9 write 1, 10-11 read 2", "0-9 write 2"],
    "overlapping writes in the other order": ["0-9 write 1, 10-11 read 1", "0-9 write 2"],
    "steps that touch overlap": ["0-5 write 1", "5-9 read"],
    "one of two removals gets the value": ["0-1 write 1, 2-9 remove 1", "2-9 remove"],
    "one of two inserts stores its value": ["0-9 insert 1", "0-9 read 1"],
    "two reads beside a removal": ["0-1 write 1, 2-9 remove 1", "2-5 read 1, 6-8 read"],
    "bulk removals of a possible value": ["0-1 write 1, 2-9 remove unknown", "2-9 remove some, 10-11 read"],
    "a computed value is stored": ["0-1 begin 1, 0-1 miss, 5-6 complete 1, 7-8 read 1", "2-9 wait 1"],
    "a computation superseded by a write": ["0-1 begin 1, 0-1 miss, 5-6 complete 1, 7-8 read 2", "2-3 write 2"],
    "a computation superseded by a removal": ["0-1 begin 1, 0-1 miss, 5-6 complete 1, 7-8 read", "2-3 remove"],
    "a wait for a computation that is superseded later": [
        "0-1 begin 1, 0-1 miss, 8-9 complete 1",
        "2-4 wait 1",
        "3-5 write 2",
    ],
    "another computation after a superseded one": [
        "0-1 begin 1, 0-1 miss, 8-9 complete 1, 10-11 read 2",
        "2-3 remove, 4-5 begin 2, 4-5 miss, 6-7 complete 2",
    ],
    "an offered value is stored": ["0-1 offer 1, 2-3 read 1"],
    "an offered value is not stored": ["0-1 write 2, 2-3 offer 1, 4-5 read 2", "6-7 read 2"],
    "an offered value may be refused without a visible reason": ["0-1 offer 1, 2-3 read"],
    "a failure is shared": ["0-1 begin 1, 0-1 miss, 5-6 fail 1, 7-8 read", "2-6 wait 1"],
}

DISORDERLY = {
    "a value from nowhere": ["0-1 read 1"],
    "a lost value": ["0-1 write 1, 2-3 read"],
    "a read of an earlier value": ["0-1 write 1, 2-3 write 2, 4-5 read 1"],
    "a read of an earlier value by another thread": ["0-1 write 1, 2-3 write 2", "4-5 read 1"],
    "a read back in time": ["0-9 write 1", "1-2 read 1, 3-4 read"],
    "two threads that see different orders": ["0-9 write 1", "0-9 write 2", "10-11 read 1", "12-13 read 2"],
    "two removals that get one value": ["0-1 write 1, 2-9 remove 1", "2-9 remove 1"],
    "two inserts that both store": ["0-9 insert 1", "0-9 insert 2"],
    "an undone removal": ["0-1 write 1, 2-3 remove 1, 4-5 has"],
    "a removal that missed a value": ["0-1 write 1, 2-3 remove"],
    "a bulk removal of an absent key": ["0-1 remove some"],
    "two concurrent computations": ["0-1 begin 1, 0-1 miss, 6-7 complete 1", "2-3 begin 2, 2-3 miss, 4-5 complete 2"],
    "a computation of a present key": ["0-1 write 1, 2-3 begin 2, 2-3 miss, 4-5 complete 2"],
    "a computed value stored over a write": ["0-1 begin 1, 0-1 miss, 5-6 complete 1, 7-8 read 1", "2-3 write 2"],
    "a computed value stored after a removal": ["0-1 begin 1, 0-1 miss, 5-6 complete 1, 7-8 read 1", "2-3 remove"],
    "a wait for a superseded computation after the write": [
        "0-1 begin 1, 0-1 miss, 8-9 complete 1",
        "2-3 write 2, 4-9 wait 1",
    ],
    "an offered value stored over another": ["0-1 write 2, 2-3 offer 1, 4-5 read 1"],
    "an offered value stored beside a computation": [
        "0-1 begin 2, 0-1 miss, 6-7 complete 2",
        "2-3 offer 1, 4-5 read 1",
    ],
    "a stored failure": ["0-1 begin 1, 0-1 miss, 2-3 fail 1, 4-5 wait 1"],
}

# Histories without an order, unless entries may be evicted at any moment.
EVICTED = {
    "an evicted value": ["0-1 write 1, 2-3 read"],
    "an evicted and inserted value": ["0-1 write 1, 2-3 insert 2, 4-5 read 2"],
    "an evicted and computed value": ["0-1 write 1, 2-3 begin 2, 2-3 miss, 4-5 complete 2, 6-7 read 2"],
    "an evicted value that a wait gets from its computation": [
        "0-1 begin 1, 0-1 miss, 2-9 complete 1",
        "3-4 read 1, 5-6 read, 7-8 wait 1",
    ],
}


@pytest.mark.parametrize("lines", ORDERLY.values(), ids=ORDERLY)
def test_checker_accepts_histories_with_an_order(lines):
    for threads in itertools.permutations(history(*lines)):
        assert explain(threads) is None
        assert explain(threads, evicts=True) is None
        assert explain(threads, collides=True) is None


@pytest.mark.parametrize("lines", DISORDERLY.values(), ids=DISORDERLY)
def test_checker_rejects_histories_without_an_order(lines):
    for threads in itertools.permutations(history(*lines)):
        assert explain(threads)


@pytest.mark.parametrize("lines", EVICTED.values(), ids=EVICTED)
def test_checker_accepts_these_histories_if_entries_may_be_evicted(lines):
    for threads in itertools.permutations(history(*lines)):
        assert explain(threads)
        assert explain(threads, evicts=True) is None


@pytest.mark.parametrize(
    "case", ["a value from nowhere", "a read of an earlier value", "two removals that get one value"]
)
def test_checker_rejects_other_histories_even_if_entries_may_be_evicted(case):
    assert explain(history(*DISORDERLY[case]), evicts=True)


def test_superseded_load_of_a_key_of_equal_hash_is_not_kept():
    lines = "0-1 begin 1, 0-1 miss, 2-3 complete 1, 4-5 read", "6-7 read"
    assert explain(history(*lines))
    assert explain(history(*lines), collides=True) is None


def test_history_without_an_order_is_printed():
    shown = explain(history("100-101 write 1, 102-103 read 1, 104-105 read 2", "102-109 read 1"))
    assert "? thread 0,         4 to         5 ns: read 2" in shown
    assert "  thread 0,         0 to         1 ns: write 1" in shown
