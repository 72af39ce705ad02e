"""Many threads use one cache."""

import random
import threading
import time
import weakref
from collections import Counter

import pytest
from helpers import IMMEDIATELY_DUE, MISSING, Background, BackgroundCollector, Key, run_threads

from moka_py import Moka

pytestmark = pytest.mark.usefixtures("fast_switches")


def run_copies(work, count=4):
    return run_threads(*(lambda thread=thread: work(thread) for thread in range(count)))


@pytest.mark.parametrize("make", [lambda n: n, str, lambda n: Key(n, n % 50)], ids=["int", "str", "equal hashes"])
def test_each_thread_reads_its_own_writes(make):
    cache = Moka(100_000)

    def work(thread):
        dice, mine = random.Random(thread), {}
        for number in range(4000):
            key = make(4 * dice.randrange(300) + thread)
            if dice.random() < 0.6:
                cache.set(key, (thread, number))
                mine[key] = (thread, number)
            elif dice.random() < 0.5:
                assert cache.remove(key, MISSING) == mine.pop(key, MISSING)
            assert cache.get(key, MISSING) == mine.get(key, MISSING)
        return mine

    everything = {}
    for mine in run_copies(work):
        everything.update(mine)
    assert dict(cache.items()) == everything
    assert len(cache) == len(everything)


def test_first_deadline_applies_to_its_own_key_only():
    for _ in range(100):
        cache = Moka(5000)
        cache.set_many((key, True) for key in range(100))

        def replace(thread, cache=cache):
            for key in range(100):
                cache.set(key, thread)

        def give_deadlines(cache=cache):
            for key in range(100, 120):
                cache.set(key, True, ttl=IMMEDIATELY_DUE)

        run_threads(lambda: replace(1), give_deadlines, lambda: replace(2))
        assert {key: cache.get(key) in (1, 2) for key in range(120)} == {key: key < 100 for key in range(120)}


def test_reader_sees_writes_of_one_key_in_order():
    cache, done = Moka(10), []
    cache.set("a", 0)

    def write():
        for number in range(30_000):
            cache.set("a", number)
        done.append(True)

    def read():
        last = 0
        while not done:
            value = cache.get("a")
            assert value >= last
            last = value

    run_threads(write, read, read)


def test_present_key_is_never_missed_while_it_is_replaced():
    cache, done = Moka(10), []
    cache.set("a", 0)

    def write():
        for number in range(20_000):
            cache.set("a", number)
        done.append(True)

    def read():
        while not done:
            assert cache.get("a", MISSING) is not MISSING
            assert "a" in cache

    run_threads(write, read, read)


def test_present_keys_are_never_missed_while_the_map_grows_and_shrinks():
    cache, done = Moka(1_000_000), []
    for number in range(100):
        cache.set(("stays", number), number)

    def write():
        try:
            for round_ in range(4):
                for number in range(10_000):
                    cache.set(number, round_)
                for number in range(10_000):
                    cache.remove(number)
        finally:
            done.append(True)

    def read():
        while not done:
            for number in range(100):
                assert cache.get(("stays", number)) == number

    run_threads(write, read, read)
    assert len(cache) == 100


def test_thread_that_learns_of_a_write_sees_it():
    cache, written, done = Moka(10**6), [], []

    def write():
        for number in range(15_000):
            cache.set(number, number)
            if number % 3 == 0:
                cache.remove(number)
            written.append((number, None if number % 3 == 0 else number))
        done.append(True)

    def read():
        seen = 0
        while not done:
            last = len(written)
            for number, value in written[max(seen, last - 20) : last]:
                assert cache.get(number) == value
            seen = last

    run_threads(write, read, read)


def test_only_one_thread_gets_a_removed_value():
    cache = Moka(10_000)
    cache.update({number: number for number in range(5000)})
    taken = run_copies(lambda thread: [cache.remove(number, MISSING) for number in range(5000)])
    for number in range(5000):
        assert sorted((list_[number] is not MISSING) for list_ in taken) == [False, False, False, True]


def test_only_one_thread_gets_a_popped_item():
    cache = Moka(10_000)
    cache.update({number: -number for number in range(3000)})

    def work(thread):
        mine = []
        while True:
            try:
                mine.append(cache.popitem())
            except KeyError:
                return mine

    taken = [item for mine in run_copies(work) for item in mine]
    assert sorted(taken) == [(number, -number) for number in range(3000)]


def test_setdefault_has_one_winner():
    cache = Moka(10_000)
    results = run_copies(lambda thread: [cache.setdefault(number, (thread, number)) for number in range(3000)])
    for number in range(3000):
        assert len({list_[number] for list_ in results}) == 1
        assert results[0][number] == cache.get(number)


def test_two_equal_new_keys_become_one_entry():
    cache = Moka(10_000)
    run_copies(lambda thread: [cache.set(Key(number, number % 7), thread) for number in range(400)])
    assert len(cache) == len(list(cache)) == 400


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_all_calls_at_once_keep_exact_counts(policy):
    """Threads make all calls on few keys, with expiry, weights and a listener."""
    causes = Counter()
    cache = Moka(
        60,
        policy=policy,
        tti=1000,
        weigher=lambda key, value: value % 4,
        eviction_listener=lambda key, value, cause: causes.update([cause]),
    )

    def work(thread):
        dice = random.Random(thread)
        for number in range(4000):
            key, call = dice.randrange(150), dice.randrange(14)
            if call < 4:
                cache.set(key, number, ttl=IMMEDIATELY_DUE if dice.random() < 0.1 else None)
            elif call < 8:
                cache.get(key)
            elif call == 8:
                cache.remove(key)
            elif call == 9:
                cache.get_with(key, lambda: number)
            elif call == 10:
                cache.setdefault(key, number)
            elif call == 11:
                cache.pop(key, None)
            elif number % 50 == 0:
                dice.choice([list, len, Moka.clear, Moka.run_pending_tasks])(cache)
            else:
                key in cache, cache.expires_in(key)

    run_copies(work)
    values = list(cache.values())
    assert cache.count() == len(cache) == len(values)
    assert cache.weighted_size() == sum(value % 4 for value in values) <= 60
    assert set(causes) <= {"expired", "explicit", "replaced", "size"}


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_collector_runs_beside_all_calls(policy):
    cache, collector = Moka(500, policy=policy, eviction_listener=lambda *event: None), BackgroundCollector()

    class Cyclic:
        def __init__(self):
            self.me = self
            self.cache = cache

    def work(thread):
        for number in range(2500):
            key = Key(number % 700, number % 90)
            cache.set(key, Cyclic())
            cache.get(key)
            cache.get_with(Key(-number, number % 90), Cyclic)
            if number % 5 == 0:
                cache.remove(key)
            if number % 25 == 0:
                collector.step()

    with collector:
        run_copies(work, 3)
    assert len(cache) == len(list(cache)) <= 500


# Law 3: living threads drop the references that ended threads left behind.
def test_thousands_of_short_lived_threads_leak_nothing():
    cache, died = Moka(100, eviction_listener=lambda *event: None), []

    class Mortal:
        def __del__(self):
            died.append(threading.get_ident())

    def work(thread):
        cache.set(thread % 150, Mortal())
        cache.get((thread + 1) % 150)
        cache.remove((thread + 2) % 150)
        cache.get_with(thread % 7, Mortal)

    for start in range(0, 3000, 20):
        threads = [threading.Thread(target=work, args=(start + number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(cache) <= 100
    cache.clear()
    cache.run_pending_tasks()
    assert len(died) >= 3000
    assert all(died)


def test_threads_can_end_while_others_read():
    """The bookkeeping of an ended thread is freed, and the values that it retired are not lost."""
    cache, done = Moka(50), []

    def read():
        while not done:
            for number in range(60):
                cache.get(number)

    def write():
        for number in range(60):
            cache.set(number, [number])

    with Background(read):
        try:
            for _ in range(200):
                with Background(write), Background(write):
                    pass
        finally:
            done.append(True)
    assert len(cache) == 50


def test_many_threads_can_make_and_drop_caches():
    def work(thread):
        for number in range(400):
            cache = Moka(10, ttl=1000, eviction_listener=lambda *event: None)
            for key in range(20):
                cache.set(key, [cache])
            assert len(cache) == 10

    run_copies(work)


def test_cache_can_be_destroyed_by_another_thread():
    for _ in range(200):
        holder = [Moka(10)]
        holder[0].update({number: [number] for number in range(10)})
        with Background(holder.clear):
            pass


def test_value_removed_by_another_thread_is_released_immediately():
    # On the free-threaded build a biased reference count delays the release until the owner thread acts. The cache
    # detects the first such delay, and from then on counts its references in another way.
    class Value:
        pass

    cache, references, alive = Moka(100), [], []
    turns = threading.Barrier(2)

    def made():
        value = Value()
        references.append(weakref.ref(value))
        return value

    def remove():
        for _ in range(2):
            turns.wait(60)
            for key in ("set", "loaded"):
                cache.remove(key)
            cache.run_pending_tasks()
            alive.append([reference() is not None for reference in references])
            turns.wait(60)

    with Background(remove) as other:
        for _ in range(2):
            references.clear()
            cache.set("set", made())
            cache.get_with("loaded", made)
            turns.wait(60)
            turns.wait(60)
        other.join()
    assert alive[1] == [False, False]


@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
def test_other_threads_proceed_while_many_entries_are_removed(policy):
    count, seen = 300_000, []
    cache = Moka(10**6, policy=policy)
    cache.set_many((number, None) for number in range(count))
    began, ended = threading.Event(), threading.Event()

    def watch():
        began.set()
        while not ended.is_set():
            seen.append(len(cache))

    with Background(watch) as other:
        began.wait(60)
        cache.clear()
        ended.set()
        other.join()
    assert len(cache) == 0
    assert any(0 < number < count for number in seen)


def test_threads_share_entries_that_expire():
    cache, events = Moka(5000, eviction_listener=lambda *event: events.append(event)), []

    def work(thread):
        end = time.monotonic() + 0.5
        number = 0
        while time.monotonic() < end:
            cache.set((thread, number), number, ttl=0.001 * (number % 5 + 1))
            cache.get((thread, number - 3))
            number += 1
        return number

    written = sum(run_copies(work))
    time.sleep(0.02)
    cache.run_pending_tasks()
    assert len(cache) == 0
    assert len(events) == len({key for key, _, _ in events}) == written
