"""Computations that would wait for themselves raise an error instead of hanging (law 10)."""

import random
import threading
import time

import pytest
from helpers import Background, Gate, Key, contents, run_threads, wait_for_misses

from moka_py import Moka


def test_load_that_needs_its_own_key_raises():
    cache = Moka(10)
    with pytest.raises(RuntimeError):
        cache.get_with("a", lambda: cache.get_with("a", lambda: 1))
    assert contents(cache) == {}
    assert cache.get_with("a", lambda: 2) == 2


def test_load_that_needs_its_own_key_as_an_equal_object_raises():
    cache = Moka(10)
    with pytest.raises(RuntimeError):
        cache.get_with(Key("a"), lambda: cache.get_with(Key("a"), lambda: 1))


def test_load_that_needs_its_own_key_some_levels_deep_raises():
    cache = Moka(10)
    with pytest.raises(RuntimeError):
        cache.get_with(
            "a",
            lambda: cache.get_with("b", lambda: cache.get_with("c", lambda: cache.get_with("a", lambda: 1))),
        )
    assert contents(cache) == {}


def test_initializer_can_catch_the_error_about_its_own_key():
    cache = Moka(10)

    def compute():
        with pytest.raises(RuntimeError):
            cache.get_with("a", lambda: 1)
        return "instead"

    assert cache.get_with("a", compute) == "instead"
    assert cache.get("a") == "instead"


def test_load_can_load_an_equal_key_of_another_cache():
    first, second = Moka(10), Moka(10)
    assert first.get_with("a", lambda: second.get_with("a", lambda: 1)) == 1


def test_load_that_needs_its_own_key_through_another_cache_raises():
    first, second = Moka(10), Moka(10)
    with pytest.raises(RuntimeError):
        first.get_with("a", lambda: second.get_with("a", lambda: first.get_with("a", lambda: 1)))


def test_load_can_get_its_own_key_once_it_was_set():
    cache = Moka(10)

    def compute():
        cache.set("a", "set")
        return cache.get_with("a", pytest.fail)

    assert cache.get_with("a", compute) == "set"


def run_waiting_threads(asks, catch):
    """Run threads that each compute one key and then load the key of another thread.

    `asks` is a list of (own, other) pairs, each a cache and a key. Return a value or an error for each thread.
    """
    barrier = threading.Barrier(len(asks))

    def run(own, other):
        cache, key = own

        def compute():
            barrier.wait(60)
            wanted_cache, wanted = other
            try:
                return wanted_cache.get_with(wanted, lambda: "computed late")
            except RuntimeError:
                if not catch:
                    raise
                return "caught"

        try:
            return cache.get_with(key, compute)
        except RuntimeError as error:
            return error

    return run_threads(*(lambda pair=pair: run(*pair) for pair in asks), timeout=30)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_threads_that_wait_for_each_other_raise(size):
    cache = Moka(10)
    asks = [((cache, number), (cache, (number + 1) % size)) for number in range(size)]
    for _ in range(10):
        results = run_waiting_threads(asks, catch=False)
        assert any(isinstance(result, RuntimeError) for result in results)
        assert all(isinstance(result, RuntimeError) or result == "computed late" for result in results)
        cache.clear()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_initializers_can_catch_the_deadlock_error(size):
    cache = Moka(10)
    asks = [((cache, number), (cache, (number + 1) % size)) for number in range(size)]
    for _ in range(10):
        results = run_waiting_threads(asks, catch=True)
        assert "caught" in results
        assert set(results) <= {"caught", "computed late"}
        cache.clear()


def test_deadlock_across_two_caches_raises():
    first, second = Moka(10), Moka(10)
    asks = [((first, "a"), (second, "a")), ((second, "a"), (first, "a"))]
    for _ in range(10):
        results = run_waiting_threads(asks, catch=True)
        assert "caught" in results
        first.clear(), second.clear()


def test_deadlock_with_nested_computations_raises():
    cache = Moka(10)
    barrier = threading.Barrier(2)

    def run(outer, inner, other):
        def compute_inner():
            barrier.wait(60)
            return cache.get_with(other, lambda: "late")

        try:
            return cache.get_with(outer, lambda: cache.get_with(inner, compute_inner))
        except RuntimeError as error:
            return error

    results = run_threads(lambda: run("a", "b", "c"), lambda: run("c", "d", "a"), timeout=30)
    assert any(isinstance(result, RuntimeError) for result in results)


def test_chain_of_waiting_threads_is_not_a_deadlock():
    """The first thread waits for the second, the second for the third, and the third ends."""
    cache, gate = Moka(10), Gate()

    def chain(key, other):
        return cache.get_with(key, lambda: cache.get_with(other, lambda: "late") + 1)

    def last():
        gate.stop_here()
        return 1

    with Background(lambda: cache.get_with("c", last)):
        gate.wait_until_reached()
        with Background(lambda: chain("b", "c")) as second:
            wait_for_misses(cache, 3)
            with Background(lambda: chain("a", "b")) as first:
                wait_for_misses(cache, 5)
                gate.open()
    assert (first.result, second.result) == (3, 2)


def test_waiting_for_keys_of_equal_hash_is_not_a_deadlock():
    cache, gate = Moka(10), Gate()

    def last():
        gate.stop_here()
        return 1

    with Background(lambda: cache.get_with(Key("c", 1), last)):
        gate.wait_until_reached()
        with Background(lambda: cache.get_with(Key("b", 1), lambda: cache.get_with(Key("c", 1), list))) as second:
            wait_for_misses(cache, 3)
            with Background(lambda: cache.get_with(Key("b", 1), list)) as first:
                wait_for_misses(cache, 4)
                gate.open()
    assert (first.result, second.result) == (1, 1)


def test_random_webs_of_waiting_threads_terminate(fast_switches):
    """Threads load each other's keys at random. Each load ends with a value or with the error."""
    cache = Moka(1000)

    def work(seed):
        dice, deadlocks = random.Random(seed), 0

        def compute(depth):
            time.sleep(0)
            return ask(depth - 1) if depth else "value"

        def ask(depth):
            return cache.get_with(dice.randrange(6), lambda: compute(depth))

        for _ in range(300):
            try:
                assert ask(3) == "value"
            except RuntimeError:
                deadlocks += 1
            cache.remove(dice.randrange(6))
        return deadlocks

    run_threads(*(lambda seed=seed: work(seed) for seed in range(4)), timeout=60)
    cache.clear()
    assert all(cache.get_with(key, lambda: "new") == "new" for key in range(6))
