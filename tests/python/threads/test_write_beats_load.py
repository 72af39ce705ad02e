"""A write to the key during `get_with` wins: the callers get the computed value, but the cache does not store it."""

import pytest
from helpers import MISSING, Background, Events, Gate, Key, contents, wait_for_misses

from moka_py import Moka

WRITES = {
    "set": (lambda cache: cache.set("a", "by hand"), "by hand"),
    "setitem": (lambda cache: cache.__setitem__("a", "by hand"), "by hand"),
    "update": (lambda cache: cache.update(a="by hand"), "by hand"),
    "setdefault": (lambda cache: cache.setdefault("a", "by hand"), "by hand"),
    "set_with": (lambda cache: cache.set_with("a", str, "by hand"), "by hand"),
    "remove": (lambda cache: cache.remove("a"), MISSING),
    "pop": (lambda cache: cache.pop("a", None), MISSING),
    "set_many": (lambda cache: cache.set_many({"a": "by hand"}), "by hand"),
    "remove_many": (lambda cache: cache.remove_many("a"), MISSING),
    "clear": (lambda cache: cache.clear(), MISSING),
    "set and remove": (lambda cache: (cache.set("a", 5), cache.remove("a")), MISSING),
    "remove and set": (lambda cache: (cache.remove("a"), cache.set("a", "by hand")), "by hand"),
}


@pytest.mark.parametrize(("write", "remains"), WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("writer", ["initializer", "another thread"])
def test_write_during_the_computation_wins(write, remains, writer):
    cache, gate = Moka(10), Gate()

    def compute():
        if writer == "initializer":
            write(cache)
        else:
            gate.stop_here()
        return "computed"

    with Background(lambda: cache.get_with("a", compute)) as leader:
        if writer == "another thread":
            gate.wait_until_reached()
            write(cache)
            assert cache.get("a", MISSING) == remains
            gate.open()
    assert leader.result == "computed"
    assert cache.get("a", MISSING) == remains
    assert cache.get_with("a", lambda: "anew") == ("anew" if remains is MISSING else remains)


@pytest.mark.parametrize("write", ["set", "remove", "clear"])
def test_waiters_get_the_computed_value_although_a_write_won(write):
    for _ in range(20):
        cache, gate, computed = Moka(10), Gate(), []

        def compute():
            gate.stop_here()
            return "computed"

        with Background(lambda: cache.get_with("a", compute)) as leader:
            gate.wait_until_reached()
            with Background(lambda: cache.get_with("a", lambda: computed.append(1))) as waiter:
                wait_for_misses(cache, 2)
                {"set": lambda: cache.set("a", 5), "remove": lambda: cache.remove("a"), "clear": cache.clear}[write]()
                gate.open()
        assert leader.result == "computed"
        assert cache.get("a") == (5 if write == "set" else None)
        if not computed and waiter.result == "computed":
            return
    pytest.fail("the waiter came too late each time")


@pytest.mark.parametrize("other", ["b", Key("b", hash("a"))], ids=["other hash", "same hash"])
def test_write_of_another_key_during_the_computation_keeps_the_value(other):
    cache = Moka(10)

    def compute():
        cache.set(other, 1)
        cache.remove(other)
        cache.set(other, 2)
        return "computed"

    cache.get_with("a", compute)
    assert contents(cache) == {"a": "computed", other: 2}


def test_value_that_lost_to_a_write_is_not_reported():
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.get_with("a", lambda: cache.set("a", 1))
    assert events == []
