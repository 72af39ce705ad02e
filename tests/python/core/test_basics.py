"""The calls that a new user tries first: get, set, remove, clear; and how many entries a cache holds."""

import importlib.metadata
import sys
import tomllib

import pytest
from helpers import FREE_THREADED, MISSING, ROOT, Events, Value, run_script

import moka_py
from moka_py import Moka


def test_version_is_the_one_in_cargo_toml():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert moka_py.VERSION == manifest["package"]["version"] == importlib.metadata.version("moka_py")


def test_package_exports_its_three_names():
    assert {"Moka", "cached", "VERSION"} <= set(dir(moka_py))


def test_import_emits_no_warning_and_leaves_the_gil_off():
    script = "import sys, warnings\nwarnings.simplefilter('error')\nimport moka_py\n"
    script += "print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    assert run_script(script).strip() == str(not FREE_THREADED)


def test_get_returns_the_value_that_was_set():
    cache = Moka(10)
    assert cache.set("a", 1) is None
    assert cache.get("a") == 1


def test_get_returns_the_same_object():
    cache, value = Moka(10), [1, 2, 3]
    cache.set("a", value)
    assert cache.get("a") is value


def test_get_of_an_absent_key_returns_none():
    assert Moka(10).get("a") is None


def test_get_of_an_absent_key_returns_the_default():
    cache = Moka(10)
    assert cache.get("a", MISSING) is MISSING
    assert cache.get("a", default=MISSING) is MISSING


def test_none_can_be_a_value():
    cache = Moka(10)
    cache.set("a", None)
    assert cache.get("a", MISSING) is None
    assert "a" in cache


def test_none_can_be_a_key():
    cache = Moka(10)
    cache.set(None, 1)
    assert cache.get(None) == 1


def test_set_replaces_an_old_value():
    cache = Moka(10)
    cache.set("a", 1)
    cache.set("a", 2)
    assert cache.get("a") == 2
    assert len(cache) == 1


def test_remove_returns_the_value():
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.remove("a") == 1
    assert "a" not in cache


def test_remove_of_an_absent_key_returns_none():
    assert Moka(10).remove("a") is None


def test_remove_of_an_absent_key_returns_the_default():
    cache = Moka(10)
    assert cache.remove("a", MISSING) is MISSING
    assert cache.remove("a", default=MISSING) is MISSING


def test_remove_distinguishes_none_from_an_absent_key():
    cache = Moka(10)
    cache.set("a", None)
    assert cache.remove("a", default=MISSING) is None
    assert cache.remove("a", default=MISSING) is MISSING


def test_clear_removes_every_entry():
    cache = Moka(100)
    for number in range(50):
        cache.set(number, number)
    assert cache.clear() is None
    assert (len(cache), cache.count(), cache.weighted_size(), list(cache)) == (0, 0, 0, [])
    assert all(cache.get(number) is None for number in range(50))


def test_cache_works_after_clear():
    cache = Moka(10)
    cache.set("a", 1)
    cache.clear()
    cache.set("a", 2)
    assert cache.get("a") == 2


def test_count_len_and_weighted_size_follow_each_call():
    cache = Moka(1000)
    for number in range(500):
        cache.set(number, number)
        assert cache.count() == len(cache) == cache.weighted_size() == number + 1
    for number in range(500):
        cache.remove(number)
        assert cache.count() == len(cache) == cache.weighted_size() == 499 - number


def test_keys_and_values_can_be_keyword_arguments():
    cache = Moka(10)
    cache.set(key="a", value=1)
    assert cache.get(key="a") == 1
    assert cache.get_with(key="b", initializer=lambda: 2) == 2
    assert cache.expires_in(key="a") is None
    assert cache.remove(key="a") == 1


def test_run_pending_tasks_returns_none_and_keeps_live_entries():
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.run_pending_tasks() is None
    assert cache.get("a") == 1


@pytest.mark.parametrize("capacity", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_cache_holds_as_many_entries_as_its_capacity(capacity, policy):
    cache = Moka(capacity, policy=policy)
    for number in range(capacity):
        cache.set(number, number)
    assert sorted(cache) == list(range(capacity))
    cache.set("one more", 0)
    assert len(cache) == capacity


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_cache_of_capacity_zero_keeps_nothing(policy):
    events = Events()
    cache = Moka(0, eviction_listener=events, policy=policy)
    cache.set("a", 1)
    assert cache.get("a", MISSING) is MISSING
    assert cache.get_with("a", lambda: 2) == 2
    assert (len(cache), cache.weighted_size(), list(cache.items())) == (0, 0, [])
    assert events == [("a", 1, "size"), ("a", 2, "size")]


@pytest.mark.parametrize("capacity", [2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_cache_of_a_huge_capacity_works(capacity):
    cache = Moka(capacity)
    cache.set("a", 1)
    assert (cache.capacity, cache.get("a"), cache.weighted_size()) == (capacity, 1, 1)


def test_capacity_true_is_one():
    assert Moka(True).capacity == 1


def test_cache_finds_each_of_many_entries():
    cache = Moka(100_000)
    for number in range(100_000):
        cache.set(number, -number)
    assert len(cache) == 100_000
    assert all(cache.get(number) == -number for number in range(100_000))


def test_cache_leaves_reference_counts_of_values_balanced():
    cache, value, key = Moka(10), Value(), f"a key of its own {id(object())}"
    before = sys.getrefcount(value), sys.getrefcount(key)
    for _ in range(100):
        cache.set(key, value)
        cache.get(key)
        cache.get_with(key, Value)
        cache.setdefault(key, value)
        list(cache.items()), list(cache), list(cache.values()), key in cache
        cache.pop(key)
    cache.run_pending_tasks()
    assert (sys.getrefcount(value), sys.getrefcount(key)) == before


@pytest.mark.parametrize("capacity", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1, sys.maxsize])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_capacity_of_any_size_takes_no_memory_up_front(capacity, policy):
    cache = Moka(capacity, policy=policy)
    for number in range(100):
        cache.set(number, number)
    assert len(cache) == min(capacity, 100)
    assert cache.capacity == capacity
