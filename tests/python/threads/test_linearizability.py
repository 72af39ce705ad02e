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
    from linearizability import play
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
            moments, act, *value = text.split()
            call, ret = map(int, moments.split("-"))
            steps.append(Step(call, ret, act, *(words.get(word, word) for word in value)))
        threads.append(steps)
    return threads


ORDERLY = {
    "nothing": ["0-1 read"],
    "one after the other": ["0-1 write 1, 2-3 read 1, 4-5 take 1, 6-7 read"],
    "a read beside a write sees it": ["0-9 write 1", "1-2 read 1"],
    "or not": ["0-9 write 1", "1-2 read"],
    "what overlaps is in any order": ["0-9 write 1, 10-11 read 2", "0-9 write 2"],
    "in the other one, too": ["0-9 write 1, 10-11 read 1", "0-9 write 2"],
    "moments that are one overlap": ["0-5 write 1", "5-9 read"],
    "one of two takes it": ["0-1 write 1, 2-9 take 1", "2-9 take"],
    "one of two puts it in": ["0-9 put 1", "0-9 read 1"],
    "two reads beside a removal": ["0-1 write 1, 2-9 take 1", "2-5 read 1, 6-8 read"],
    "several take what may be there": ["0-1 write 1, 2-9 take unknown", "2-9 take some, 10-11 read"],
    "a computation is there afterwards": ["0-1 join 1, 0-1 look, 5-6 land 1, 7-8 read 1", "2-9 wait 1"],
    "a computation that is overtaken by a write": ["0-1 join 1, 0-1 look, 5-6 land 1, 7-8 read 2", "2-3 write 2"],
    "a computation that is overtaken by a removal": ["0-1 join 1, 0-1 look, 5-6 land 1, 7-8 read", "2-3 take"],
    "who waits for what is overtaken later": ["0-1 join 1, 0-1 look, 8-9 land 1", "2-4 wait 1", "3-5 write 2"],
    "another computation after the overtaken one": [
        "0-1 join 1, 0-1 look, 8-9 land 1, 10-11 read 2",
        "2-3 take, 4-5 join 2, 4-5 look, 6-7 land 2",
    ],
    "a failure is shared": ["0-1 join 1, 0-1 look, 5-6 fail 1, 7-8 read", "2-6 wait 1"],
}

DISORDERLY = {
    "a value from nowhere": ["0-1 read 1"],
    "a value that is lost": ["0-1 write 1, 2-3 read"],
    "a read of what was before": ["0-1 write 1, 2-3 write 2, 4-5 read 1"],
    "a read of what was before, by another thread": ["0-1 write 1, 2-3 write 2", "4-5 read 1"],
    "a read back in time": ["0-9 write 1", "1-2 read 1, 3-4 read"],
    "two threads that see two orders": ["0-9 write 1", "0-9 write 2", "10-11 read 1", "12-13 read 2"],
    "two take one": ["0-1 write 1, 2-9 take 1", "2-9 take 1"],
    "two put one in": ["0-9 put 1", "0-9 put 2"],
    "a removal that is undone": ["0-1 write 1, 2-3 take 1, 4-5 has"],
    "a removal that took nothing of what was there": ["0-1 write 1, 2-3 take"],
    "nothing where some were taken": ["0-1 take some"],
    "two computations at once": ["0-1 join 1, 0-1 look, 6-7 land 1", "2-3 join 2, 2-3 look, 4-5 land 2"],
    "a computation although it is there": ["0-1 write 1, 2-3 join 2, 2-3 look, 4-5 land 2"],
    "a computation put over a write": ["0-1 join 1, 0-1 look, 5-6 land 1, 7-8 read 1", "2-3 write 2"],
    "a computation put back after a removal": ["0-1 join 1, 0-1 look, 5-6 land 1, 7-8 read 1", "2-3 take"],
    "who comes after the write waits for the overtaken": [
        "0-1 join 1, 0-1 look, 8-9 land 1",
        "2-3 write 2, 4-9 wait 1",
    ],
    "a failure that is kept": ["0-1 join 1, 0-1 look, 2-3 fail 1, 4-5 wait 1"],
}

# Histories without an order, unless entries may be evicted at any moment.
EVICTED = {
    "a value is gone": ["0-1 write 1, 2-3 read"],
    "it is gone and put in again": ["0-1 write 1, 2-3 put 2, 4-5 read 2"],
    "it is gone and computed": ["0-1 write 1, 2-3 join 2, 2-3 look, 4-5 land 2, 6-7 read 2"],
    "it is gone, and is had of its computation, which returns later": [
        "0-1 join 1, 0-1 look, 2-9 land 1",
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


@pytest.mark.parametrize("case", ["a value from nowhere", "a read of what was before", "two take one"])
def test_checker_rejects_other_histories_even_if_entries_may_be_evicted(case):
    assert explain(history(*DISORDERLY[case]), evicts=True)


def test_superseded_load_of_a_key_of_equal_hash_is_not_kept():
    lines = "0-1 join 1, 0-1 look, 2-3 land 1, 4-5 read", "6-7 read"
    assert explain(history(*lines))
    assert explain(history(*lines), collides=True) is None


def test_history_without_an_order_is_printed():
    shown = explain(history("100-101 write 1, 102-103 read 1, 104-105 read 2", "102-109 read 1"))
    assert "? thread 0,         4 to         5 ns: read 2" in shown
    assert "  thread 0,         0 to         1 ns: write 1" in shown
