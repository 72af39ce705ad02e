"""`stats()` counts the calls of all threads."""

import os

import pytest
from helpers import (
    FREE_THREADED,
    counted,
    run_script,
    run_threads,
)

from moka_py import Moka


@pytest.mark.parametrize("threads", [4, 100 if FREE_THREADED else 20])
def test_counts_of_threads_add_up_exactly(threads, fast_switches):
    """On the free-threaded build some runs have more threads than the counters have stripes."""
    cache, rounds = Moka(10_000), 300

    def work(thread):
        for number in range(rounds):
            cache.set((thread, number % 50), number)
            cache.get((thread, number % 50))
            cache.get((thread, -1))
            cache.get_with(("loaded", thread, number), lambda: 1)
            cache.remove(("loaded", thread, number))

    for times in (1, 2):
        run_threads(*(lambda thread=thread: work(thread) for thread in range(threads)))
        stats = cache.stats()
        calls = times * threads * rounds
        assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (calls, 2 * calls, calls, 0)
        assert (stats.evictions, stats.expirations, stats.removals) == (0, 0, calls)
        assert stats.count == threads * 50
        assert (stats.inserts, stats.replacements) == (calls + threads * 50, calls - threads * 50)


def test_counts_of_threads_that_evict_add_up_exactly(fast_switches):
    cache, threads, rounds = Moka(5000), 4, 4000

    def work(thread):
        for number in range(rounds):
            cache.set((thread, number), number)

    run_threads(*(lambda thread=thread: work(thread) for thread in range(threads)))
    stats = cache.stats()
    assert (stats.inserts, stats.replacements) == (threads * rounds, 0)
    assert stats.evictions == threads * rounds - stats.count


def test_concurrent_resets_do_no_harm(fast_switches):
    cache = Moka(100)

    def work():
        for number in range(2000):
            cache.set(number % 150, number)
            cache.get(number % 150)

    def ask():
        for _ in range(300):
            assert min(cache.stats()) >= 0
            cache.reset_stats()

    run_threads(work, work, work, ask)
    cache.reset_stats()
    cache.get("absent")
    assert counted(cache, "hits", "misses", "inserts", "evictions") == (0, 1, 0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_of_a_fork_keeps_the_counts():
    """The counts of the parent's other threads are not lost, although these threads are gone."""
    run_script(
        """
        import os, threading
        from moka_py import Moka
        cache = Moka(10)
        thread = threading.Thread(target=lambda: [cache.get("a") for _ in range(10)])
        thread.start()
        thread.join()
        child = os.fork()
        if child == 0:
            cache.get("a")
            os._exit(0 if cache.stats().misses == 11 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.stats().misses == 10
        """
    )
