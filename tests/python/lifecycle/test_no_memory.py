"""A refused allocation raises MemoryError and leaves the cache unchanged. It does not abort the process.

A write allocates memory for tables before it changes anything. Each test sets a limit that the tables reach before
Python's own objects do.
"""

import sys

import pytest
from helpers import FREE_THREADED, HAS_MANY_SHARDS, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")

LIMIT = """
import gc, os, resource, sys
from moka_py import Moka, cached
numbers = list(range(1_500_000))

def limit(more):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

def unlimit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

def fill(write):
    "Writes until memory was refused 20 times, and records the inserted numbers. It allocates nothing itself."
    refused = 0
    for number in numbers:
        try:
            write(number)
        except MemoryError as error:
            refused += 1
            if refused == 20:
                break
        else:
            went_in[number] = 1
    return refused

went_in = bytearray(len(numbers))
"""

SHAPES = {
    "lru": "policy='lru'",
    "tiny_lfu": "policy='tiny_lfu'",
    "ttl": "ttl=1000",
    "tti, lru": "tti=1000, policy='lru'",
    "weigher": "weigher=lambda key, value: 1",
    "weigher, ttl, listener": "ttl=1000, weigher=lambda key, value: 1, eviction_listener=lambda *event: None",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("megabytes", [1, 6, 30])
def test_insert_without_memory_raises_memory_error_and_changes_nothing(shape, megabytes):
    run_script(
        LIMIT
        + f"""
cache = Moka(10**9, {shape})
cache.set("first", 1)
limit({megabytes} << 20)
refused = fill(lambda number: cache.set(number, number))
unlimit()
kept = [number for number in numbers if went_in[number]]
assert refused == 20, "memory was refused"
assert len(cache) == cache.weighted_size() == len(kept) + 1 == len(list(cache))
assert all(cache.get(number) == number for number in kept) and cache.get("first") == 1
for number in numbers[:200_000]:
    cache.set(number, -number)
assert cache.get(150_000) == -150_000
stats = cache.stats()
assert stats.inserts == len(cache), stats
cache.clear()
cache.run_pending_tasks()
assert len(cache) == cache.weighted_size() == 0
"""
    )


CALLS = {
    "subscript": "cache.__setitem__(number, number)",
    "setdefault": "cache.setdefault(number, number)",
    "get_with": "cache.get_with(number, int)",
    "get_many_with": "cache.get_many_with((number,), dict.fromkeys)",
    "update": "cache.update(((number, number),))",
    "set_many": "cache.set_many(((number, number),), ttl=1000)",
    "cached function": "function(number)",
    "shared function": "shared(number)",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_inserting_call_raises_memory_error(call):
    run_script(
        LIMIT
        + f"""
cache = Moka(10**9)
function, shared = cached(maxsize=None)(lambda x: x), cached(maxsize=None, wait_concurrent=True)(lambda x: x)
call = lambda number: {call}
call(0)
limit(6 << 20)
refused = fill(call)
unlimit()
kept = [number for number in numbers if went_in[number]]
assert refused == 20, "memory was refused"
for number in numbers[:len(kept) + 50]:
    call(number)
assert {{len(cache), len(function.cache), len(shared.cache)}} == {{0, len(kept) + 50}}
"""
    )


@pytest.mark.parametrize("megabytes", [1, 20, 100])
def test_load_of_many_keys_without_memory_raises_memory_error_and_leaves_no_key_in_flight(megabytes):
    run_script(
        LIMIT
        + f"""
cache = Moka(10**9)
many, values = numbers[:900_000], dict.fromkeys(numbers[:900_000], 1)
limit({megabytes} << 20)
try:
    cache.get_many_with(many, lambda missing: values)
except MemoryError:
    pass
else:
    raise AssertionError("memory was refused")
unlimit()
assert len(cache) == cache.weighted_size() == len(list(cache))
assert cache.get_many_with(many, lambda missing: values) == values
assert len(cache) == len(many)
"""
    )


def test_write_without_memory_for_its_deadline_keeps_the_old_value():
    run_script(
        LIMIT
        + """
cache = Moka(10**9)
for number in range(900_000):
    cache.set(number, number)
limit(2 << 20)
try:
    for number in reversed(range(900_000)):
        cache.set(number, "new", ttl=1000)
except MemoryError:
    pass
else:
    raise AssertionError("memory was refused")
unlimit()
assert cache.get(number) == number and cache.expires_in(number) is None
cache.set(number, "new", ttl=1000)
assert cache.get(number) == "new" and cache.expires_in(number) > 900
"""
    )


@pytest.mark.skipif(FREE_THREADED, reason="the lists of retired entries allocate memory with infallible calls")
def test_calls_that_free_memory_need_none():
    run_script(
        LIMIT
        + """
cache = Moka(600_000, weigher=lambda key, value: value)
for number in range(500_000):
    cache.set(number, 1)
limit(100_000)
for number in range(100_000):
    cache.remove(number)
cache.set("heavy", 500_000)
assert cache.weighted_size() <= 600_000
cache.clear()
assert len(cache) == 0
cache.run_pending_tasks()
unlimit()
cache.set(1, 1)
assert cache.get(1) == 1
"""
    )


@pytest.mark.parametrize("capacity", ["2**64 - 1", "10**9"])
def test_large_capacity_allocates_no_memory(capacity):
    run_script(
        LIMIT
        + f"""
limit({8 if HAS_MANY_SHARDS else 3} << 20)
caches = [Moka({capacity}, policy=policy, ttl=1) for policy in ("lru", "tiny_lfu") for _ in range(20)]
for cache in caches:
    cache.set(1, 1)
    assert cache.get(1) == 1
"""
    )


def test_cache_works_after_refused_python_allocations():
    """`_testcapi` refuses one allocation of CPython after the other.

    Where PyO3 does not handle a refused allocation, it panics, which becomes an exception. Nothing aborts.
    """
    run_script(
        """
try:
    import _testcapi
except ImportError:
    raise SystemExit
from moka_py import Moka, cached

def heard(key, value, cause): pass
def first(x): return (x,)
def many(x, *rest, **named): return (x, rest)
def always(key, value): return True
def plain_values(missing): return plain

cache, plain = Moka(20, eviction_listener=heard), Moka(20)
function, shared = cached(maxsize=9)(many), cached(maxsize=9, wait_concurrent=True)(first)
calls = [
    lambda: cache.set("a", 1.5), lambda: cache.get("a"), lambda: cache.get_with((1, 2), list), lambda: cache.items(),
    lambda: list(plain.items()), lambda: plain.stats(), lambda: plain.get_many([1, 2, 3]), lambda: plain.update(a=1),
    lambda: plain.set_many([(1, 2), (3, 4)], ttl=100), lambda: plain.remove_if(always), lambda: plain.popitem(),
    lambda: plain.expires_in(1), lambda: repr(plain), lambda: Moka(5, ttl=1), lambda: plain.setdefault(9, 8),
    lambda: function(1), lambda: function(1, 2, k=3), lambda: shared(2.5), lambda: function.cache_info(),
    lambda: function.cache_invalidate(1), lambda: plain["absent"], lambda: plain.pop("absent"), lambda: cache.clear(),
    lambda: plain.count(), lambda: plain.weighted_size(), lambda: plain.capacity, lambda: plain.remove_many([1, 3]),
    lambda: plain.get_many_with([1, 5, 6], dict.fromkeys), lambda: cache.get_many_with([1, 7, 8], plain_values),
]
for number, call in enumerate(calls):
    for refused in range(40):
        plain.set(1, 2)
        cache.set(1, 2)
        try:
            _testcapi.set_nomemory(refused, refused + 1)
            call()
        except (MemoryError, KeyError):
            pass
        except BaseException as error:
            _testcapi.remove_mem_hooks()
            assert type(error).__name__ == "PanicException", (number, refused, error)
        finally:
            _testcapi.remove_mem_hooks()
plain.set(1, 2)
cache.set(1, 2)
assert len(plain) == len(list(plain)) and cache.get(1) == plain.get(1) == 2
assert function(1) == (1, ()) and shared(2.5) == (2.5,)
"""
    )
