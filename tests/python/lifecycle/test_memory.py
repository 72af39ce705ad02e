"""The memory of a cache, roughly, measured as the resident memory of the process."""

import sys

import pytest
from helpers import DEBUG_BUILD, HAS_MANY_SHARDS, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEASURE = """
import ctypes, os
from moka_py import Moka

def resident():
    try:
        ctypes.CDLL(None).malloc_trim(0)  # Memory that only the allocator keeps does not count.
    except AttributeError:
        pass
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""


def test_empty_cache_of_huge_capacity_takes_only_kilobytes():
    run_script(
        MEASURE
        + """
Moka(10**9).set(1, 1)
before = resident()
caches = [Moka(10**9, policy=policy) for policy in ("lru", "tiny_lfu") for _ in range(100)]
for cache in caches:
    cache.set(1, 1)
grown = resident() - before
"""
        # With many cores a cache has 64 shards of 2 KB.
        + f"assert grown < 200 * {200_000 if HAS_MANY_SHARDS else 100_000}, grown"
    )


@pytest.mark.parametrize(
    "arguments", ["10", "10**9", "10**9, policy='lru'", "10**9, ttl=5, tti=5", "10**9, weigher=int"]
)
def test_unused_cache_takes_less_than_four_kilobytes(arguments):
    run_script(
        MEASURE
        + f"make = lambda: Moka({arguments})"
        + """
make().get(1)
before = resident()
caches = [make() for _ in range(2000)]
for cache in caches:
    assert cache.get(1) is None and len(cache) == 0
    cache.clear()
grown = resident() - before
assert grown < 2000 * 4096, grown
"""
    )


def test_small_caches_take_little_memory():
    run_script(
        MEASURE
        + """
Moka(10).set(1, 1)
before = resident()
caches = [Moka(10, ttl=5) for _ in range(2000)]
grown = resident() - before
assert grown < 2000 * 20_000, grown
"""
    )


@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
def test_cache_that_fills_and_empties_does_not_grow(policy):
    run_script(
        MEASURE
        + f"cache = Moka(10**9, ttl=1000, policy={policy!r})"
        + """
sizes = []
for round_ in range(8):
    for number in range(50_000):
        cache.set((round_, number), None)
    if round_ % 2:
        cache.clear()
    else:
        for number in range(50_000):
            cache.remove((round_, number))
    cache.run_pending_tasks()
    sizes.append(resident())
assert sizes[-1] - sizes[1] < 10_000_000, sizes
"""
    )


@pytest.mark.parametrize("empty", ["cache.clear()", "for key in keys: cache.remove(key)\ncache.run_pending_tasks()"])
@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
# At 815,000 entries a resize of the table is under way, which moves a few slots with each write.
@pytest.mark.parametrize("count", [1_000_000, 815_000])
def test_emptied_cache_keeps_at_most_a_tenth_of_its_memory(count, policy, empty):
    # A clear frees everything at once, so memory that the allocator keeps counts, too. With many shards it keeps their
    # small parts.
    is_at_once = "clear" in empty and not HAS_MANY_SHARDS
    measure = MEASURE.replace("ctypes.CDLL(None).malloc_trim(0)", "pass") if is_at_once else MEASURE
    run_script(
        measure
        + f"""
keys = list(range({count}))  # Alive throughout, so that their memory does not count.
cache = Moka(2_000_000, policy={policy!r})
before = resident()
for key in keys:
    cache.set(key, None)
full = resident() - before
{empty}
left = resident() - before
"""
        + "assert left < full / 10, (full, left)"
    )


@pytest.mark.skipif(DEBUG_BUILD, reason="a debug build returns less of the keys' own memory")
def test_table_shrinks_with_its_contents():
    run_script(
        MEASURE
        + """
cache = Moka(10**9)
before = resident()
for number in range(300_000):
    cache.set(number, None)
full = resident()
for number in range(300_000):
    cache.remove(number)
for number in range(1000):
    cache.set(number % 10, None)
cache.run_pending_tasks()
left = resident()
assert left - before < (full - before) / 2, (before, full, left)
"""
    )


@pytest.mark.parametrize(
    "step",
    [
        "cache.set('same', number)",
        "cache.set('same', number, ttl=1000 + number % 7)",
        "cache.set(number, None, ttl=1000, tti=500)",
        "cache.set(number % 50, None, ttl=1000); cache.remove(number % 50)",
        "cache.set('same', number, tti=1000); cache.get('same')",
        "cache.get_with(number, int, ttl=1000)",
        "cache.get(number)",
        "list(cache); cache.items(); len(cache)",
        "Moka(100, ttl=5).set(1, 1)",
    ],
)
@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
def test_memory_does_not_leak_in_a_loop(step, policy):
    run_script(
        MEASURE
        + f"""
cache = Moka(100, policy={policy!r})
def loop():
    for number in range(20_000):
        {step}
loop()
before = resident()
for _ in range(5):
    loop()
grown = resident() - before
assert grown < 4_000_000, grown
"""
    )


def test_memory_of_ended_threads_is_freed():
    run_script(
        MEASURE
        + """
import threading
cache = Moka(100)
def work():
    for number in range(100):
        cache.set(number, None)
def loop():
    for _ in range(300):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
loop()
before = resident()
for _ in range(4):
    loop()
grown = resident() - before
assert grown < 8_000_000, grown
"""
    )


def test_deeply_nested_caches_are_freed_without_stack_overflow():
    """Each cache is a value of the next one. Their destruction must not overflow the stack."""
    run_script(
        """
from moka_py import Moka
cache = Moka(1)
for number in range(20_000):
    outer = Moka(1)
    outer.set(0, cache)
    cache = outer
del outer, cache
cache = Moka(1)
for number in range(20_000):
    outer = Moka(1)
    outer.set(0, [cache])
    cache = outer
cache.clear()
"""
    )
