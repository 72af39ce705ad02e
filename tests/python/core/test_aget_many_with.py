"""`aget_many_with`: the keys that it loads, the values that it keeps and returns, and waits for other flights."""

import asyncio
from collections import ChainMap, UserDict

import pytest
from bulk_load_helpers import GatedLoad, answers, begun, load_all, unexpected
from cached_helpers import run_async, run_ready_tasks

from moka_py import Moka
from moka_py.testing import ManualClock

# Keys that are loaded.


def test_load_gets_the_missing_keys_once_in_the_order_asked_for():
    cache = Moka(100)
    cache.set("b", "present")
    load = GatedLoad()

    async def main():
        load.open.set()
        result = await cache.aget_many_with(iter(["d", "b", "c", "d", "a", "c"]), load)
        assert load.runs == [["d", "c", "a"]]
        assert result == answers("d", "c", "a") | {"b": "present"}
        assert list(result) == ["d", "b", "c", "a"]
        assert dict(cache.items()) == result

    run_async(main)


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "a"]])
def test_load_is_not_called_if_no_key_is_missing(keys):
    cache = Moka(100)
    cache.set_many(answers("a", "b"))

    async def main():
        assert await cache.aget_many_with(keys, unexpected) == answers(*keys)

    run_async(main)


@pytest.mark.parametrize("make", [dict, UserDict, lambda pairs: ChainMap(pairs), lambda pairs: _moka_of(pairs)])
def test_load_may_return_any_mapping(make):
    async def load(missing):
        return make(answers(*missing))

    async def main():
        assert await Moka(100).aget_many_with("ab", load) == answers("a", "b")

    run_async(main)


def _moka_of(pairs):
    cache = Moka(100)
    cache.set_many(pairs)
    return cache


def test_later_change_of_the_mapping_changes_nothing():
    mappings = []

    async def load(missing):
        mappings.append(answers(*missing))
        return mappings[0]

    async def main():
        cache = Moka(100)
        first, second = await begun(cache.aget_many_with("ab", load), cache.aget_many_with("ab", unexpected))
        result = await first
        mappings[0].clear()
        result.clear()
        assert await second == answers("a", "b")
        assert await cache.aget_many_with("ab", unexpected) == answers("a", "b")

    run_async(main)


def test_keys_in_flight_are_not_loaded_and_waited_for_after_load():
    cache = Moka(100)
    load, other = GatedLoad(), GatedLoad()
    opened = asyncio.Event()

    async def initializer():
        await opened.wait()
        return "single"

    async def main():
        single, bulk, call = await begun(
            cache.aget_with("a", initializer),
            cache.aget_many_with("bc", other),
            cache.aget_many_with("abcd", load),
        )
        assert load.runs == [["d"]]
        load.open.set()
        await run_ready_tasks()
        assert cache["d"] == "value of d" and not call.done()
        other.open.set()
        await run_ready_tasks()
        assert not call.done()
        opened.set()
        assert await call == answers("b", "c", "d") | {"a": "single"}
        assert list(await call) == ["a", "b", "c", "d"]
        assert await single == "single" and await bulk == answers("b", "c")

    run_async(main)


def test_call_that_loads_nothing_waits_for_the_flights_of_others():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        first, second = await begun(cache.aget_many_with("ab", load), cache.aget_many_with("ba", unexpected))
        load.open.set()
        assert await first == await second == answers("a", "b")

    run_async(main)


def test_two_calls_with_the_same_keys_in_opposite_orders_never_wait_for_each_other():
    async def main():
        cache = Moka(1000)
        keys = list(range(100))
        calls = [cache.aget_many_with(keys[shift:] + keys[:shift], load_all) for shift in range(0, 100, 10)]
        calls += [cache.aget_many_with(reversed(keys), load_all)]
        for result in await asyncio.gather(*calls):
            assert result == answers(*keys)

    run_async(main)


def test_two_calls_whose_keys_overlap_crosswise_never_wait_for_each_other():
    cache = Moka(100)
    loads = [GatedLoad(), GatedLoad(), GatedLoad()]

    async def main():
        tasks = await begun(
            cache.aget_many_with("ab", loads[0]),
            cache.aget_many_with("bca", loads[1]),
            cache.aget_many_with("cda", loads[2]),
        )
        assert [load.runs for load in loads] == [[["a", "b"]], [["c"]], [["d"]]]
        for load in reversed(loads):
            load.open.set()
            await run_ready_tasks()
        results = await asyncio.gather(*tasks)
        assert results == [answers("a", "b"), answers("b", "c", "a"), answers("c", "d", "a")]

    run_async(main)


def test_thousand_calls_share_one_load():
    cache = Moka(1000)
    load = GatedLoad()
    keys = list(range(10))

    async def main():
        tasks = [asyncio.create_task(cache.aget_many_with(keys, load)) for _ in range(1000)]
        await run_ready_tasks()
        load.open.set()
        assert await asyncio.gather(*tasks) == [answers(*keys)] * 1000
        assert load.runs == [keys]

    run_async(main)
    stats = cache.stats()
    assert (stats.loads, stats.misses, stats.hits) == (1, 10_000, 0)


# Keys that `load` does not answer, and those that it was not asked for.


def test_unanswered_key_is_absent_and_not_kept():
    cache = Moka(100)
    load = GatedLoad(without="b")

    async def main():
        load.open.set()
        assert await cache.aget_many_with("abc", load) == answers("a", "c")
        assert "b" not in cache

    run_async(main)


def test_aget_with_that_waits_for_an_unanswered_key_runs_its_own_initializer():
    cache = Moka(100)
    load = GatedLoad(without="b")
    runs = []

    async def initializer():
        runs.append("ran")
        await asyncio.sleep(0)
        return "own"

    async def main():
        bulk, *singles = await begun(
            cache.aget_many_with("abc", load), *(cache.aget_with("b", initializer) for _ in range(100))
        )
        assert runs == []
        load.open.set()
        assert await bulk == answers("a", "c")
        assert await asyncio.gather(*singles) == ["own"] * 100
        assert runs == ["ran"] and cache["b"] == "own"

    run_async(main)


def test_aget_with_that_waits_for_an_unanswered_key_finds_a_value_that_was_set_meanwhile():
    cache = Moka(100)

    async def load(missing):
        await run_ready_tasks()
        await run_ready_tasks()
        cache.set("b", "set")
        return {}

    async def unexpected_initializer():
        raise AssertionError("there is a value")

    async def main():
        bulk, single = await begun(cache.aget_many_with("ab", load), cache.aget_with("b", unexpected_initializer))
        assert await single == "set"
        assert await bulk == {}

    run_async(main)


def test_aget_with_gets_its_key_of_a_bulk():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        bulk, *singles = await begun(
            cache.aget_many_with("ab", load), *(cache.aget_with("b", unexpected) for _ in range(100))
        )
        load.open.set()
        assert await asyncio.gather(*singles) == ["value of b"] * 100
        assert await bulk == answers("a", "b")

    run_async(main)


def test_key_that_another_bulk_does_not_answer_is_absent():
    cache = Moka(100)
    other, load = GatedLoad(without="b"), GatedLoad()

    async def main():
        first, second = await begun(cache.aget_many_with("ab", other), cache.aget_many_with("abc", load))
        load.open.set()
        other.open.set()
        assert await second == answers("a", "c")
        assert await first == answers("a")
        assert "b" not in cache

    run_async(main)


def test_key_whose_other_leader_gave_up_is_absent_unless_it_has_a_value():
    cache = Moka(100)
    opened = asyncio.Event()

    async def give_up():
        await opened.wait()
        raise asyncio.CancelledError

    async def main():
        first, second, call = await begun(
            cache.aget_with("a", give_up), cache.aget_with("b", give_up), cache.aget_many_with("abc", load_all)
        )
        cache.set("b", "set")
        opened.set()
        assert await call == answers("c") | {"b": "set"}
        assert "a" not in cache
        await asyncio.wait([first, second])

    run_async(main)


def test_keys_that_were_not_asked_for_are_kept_unless_they_have_a_value_or_are_in_flight():
    cache = Moka(100)
    cache.set("present", "old")
    opened = asyncio.Event()

    async def initializer():
        await opened.wait()
        return "of the flight"

    async def load(missing):
        await asyncio.sleep(0)
        return answers("a", "more", "present", "in flight")

    async def main():
        (single,) = await begun(cache.aget_with("in flight", initializer))
        result = await cache.aget_many_with("a", load)
        assert result == answers("a", "more", "present", "in flight")
        assert next(iter(result)) == "a"
        assert dict(cache.items()) == answers("a", "more") | {"present": "old"}
        opened.set()
        assert await single == cache["in flight"] == "of the flight"

    run_async(main)


def test_key_that_another_call_computes_keeps_the_value_of_that_call_in_the_result():
    cache = Moka(100)
    cache.set("present", "old")
    other = GatedLoad()

    async def load(missing):
        return dict.fromkeys(["a", "b", "present"], "of load")

    async def main():
        first, call = await begun(cache.aget_many_with("b", other), cache.aget_many_with(["present", "b", "a"], load))
        other.open.set()
        assert await call == {"present": "old", "b": "value of b", "a": "of load"}
        assert await first == answers("b")

    run_async(main)


# Counts, lifetimes, later writes.


def test_load_counts_once_and_each_missing_key_is_a_miss():
    cache = Moka(100)
    cache.set("a", 1)

    async def main():
        await cache.aget_many_with("aabcd", load_all)

    run_async(main)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 3, 1, 0)


def test_result_has_values_that_are_not_kept():
    cache = Moka(0)

    async def load(missing):
        return answers(*missing, "more")

    async def main():
        assert await cache.aget_many_with("ab", load) == answers("a", "b", "more")
        assert cache.count() == 0

    run_async(main)


def test_ttl_and_tti_are_those_of_the_loaded_entries():
    with ManualClock():
        cache = Moka(100, ttl=100)

    async def load(missing):
        return answers(*missing, f"more than {missing[0]}")

    async def main():
        cache.set("present", 1)
        await cache.aget_many_with(["present", "ttl"], load, 10)
        await cache.aget_many_with(["tti"], load, tti=20)
        await cache.aget_many_with(["function"], load, ttl=lambda key, value: len(key))
        assert {key: cache.expires_in(key) for key in cache} == {
            "present": 100,
            "ttl": 10,
            "more than ttl": 10,
            "tti": 20,
            "more than tti": 20,
            "function": 8,
            "more than function": 18,
        }

    run_async(main)


@pytest.mark.parametrize(
    "write",
    [lambda cache: cache.set("b", "new"), lambda cache: cache.remove("b"), lambda cache: cache.remove_many("b")],
    ids=["set", "remove", "remove_many"],
)
def test_write_during_a_load_wins_for_its_key(write):
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("abc", load))
        write(cache)
        after = dict(cache.items())
        load.open.set()
        assert await call == answers("a", "b", "c")
        assert dict(cache.items()) == answers("a", "c") | after

    run_async(main)


def test_clear_during_a_load_keeps_all_out():
    cache = Moka(100)
    load = GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("abc", load))
        cache.clear()
        load.open.set()
        assert await call == answers("a", "b", "c")
        assert cache.count() == 0

    run_async(main)


def test_call_after_a_removal_does_not_join_the_load_of_that_key():
    cache = Moka(100)
    load, later = GatedLoad(), GatedLoad()

    async def main():
        (call,) = await begun(cache.aget_many_with("ab", load))
        cache.remove("b")
        (second,) = await begun(cache.aget_many_with("ab", later))
        assert later.runs == [["b"]]
        load.open.set()
        later.open.set()
        assert await call == await second == answers("a", "b")

    run_async(main)


def test_listener_is_called_after_the_flights_have_ended():
    cache = Moka(1, policy="lru", eviction_listener=lambda key, value, cause: heard.append((key, cause)))
    heard = []

    async def main():
        assert await cache.aget_many_with("ab", load_all) == answers("a", "b")

    run_async(main)
    assert heard == [("a", "size")]
