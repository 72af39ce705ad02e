"""Greenlets of one thread cannot wait for each other, so each of them computes the key itself."""

import threading

import pytest
from helpers import Background, Gate, run_script

from moka_py import Moka, cached

greenlet = pytest.importorskip("greenlet")


def loads():
    """Return the ways to load a key by a function."""
    cache = Moka(10)
    by_cache = lambda key, function: cache.get_with(key, lambda: function(key))  # noqa: E731
    functions = {}

    def by_function(key, function):
        shared = functions.setdefault("one", cached(wait_concurrent=True)(lambda key, _: functions["now"](key)))
        functions["now"] = function
        return shared(key, None)

    return {"get_with": by_cache, "cached": by_function}


LOADS = pytest.mark.parametrize("load", loads().values(), ids=loads())


@LOADS
def test_greenlets_of_one_thread_do_not_share_a_load(load):
    hub = greenlet.getcurrent()
    runs = []

    def compute(key):
        runs.append(key)
        number = len(runs)
        hub.switch()
        return number

    got = []
    workers = [greenlet.greenlet(lambda: got.append(load("greenlets", compute))) for _ in range(4)]
    for _ in range(2):
        for worker in workers:
            worker.switch()
    assert all(worker.dead for worker in workers)
    assert sorted(got) == [1, 2, 3, 4]
    assert load("greenlets", pytest.fail) in got


@LOADS
def test_greenlet_that_needs_its_own_key_gets_an_error(load):
    def compute(key):
        return load(key, compute)

    def run():
        with pytest.raises(RuntimeError, match=r"very key, .*own"):
            load("own", compute)

    run()
    worker = greenlet.greenlet(run)
    worker.switch()
    assert worker.dead


def test_load_that_needs_its_own_key_raises_in_a_program_with_greenlets():
    run_script(
        """
import greenlet
from moka_py import Moka
cache = Moka(10)
try:
    cache.get_with("a", lambda: cache.get_with("a", lambda: 1))
except RuntimeError:
    pass
else:
    raise AssertionError("no error")
"""
    )


def test_greenlet_can_wait_for_another_thread():
    cache, gate = Moka(10), Gate()

    def compute():
        gate.stop_here()
        return "theirs"

    with Background(lambda: cache.get_with("a", compute)) as leader:
        gate.wait_until_reached()
        opener = threading.Timer(0.05, gate.open)
        opener.start()
        got = []
        greenlet.greenlet(lambda: got.append(cache.get_with("a", pytest.fail))).switch()
    assert got == ["theirs"] == [leader.result]
    opener.join()


def test_gevent_greenlets_can_load_one_key():
    gevent = pytest.importorskip("gevent")
    cache = Moka(10)

    def compute():
        gevent.sleep(0)
        return "value"

    jobs = [gevent.spawn(cache.get_with, "a", compute) for _ in range(5)]
    gevent.joinall(jobs, timeout=60, raise_error=True)
    assert [job.value for job in jobs] == ["value"] * 5
    assert cache.get("a") == "value"


def test_greenlets_as_in_sqlalchemy_do_not_wait_for_each_other():
    """Coroutines run their sync parts in greenlets, which switch back to the event loop."""
    hub = greenlet.getcurrent()
    runs = []

    @cached(wait_concurrent=True)
    def look_up(x):
        runs.append(x)
        return hub.switch(x)

    workers = [greenlet.greenlet(look_up) for _ in range(3)]
    asked = [worker.switch(1) for worker in workers]
    assert asked == [1, 1, 1]
    answers = [worker.switch("row") for worker in workers]
    assert answers == ["row"] * 3 and look_up(1) == "row"
    assert len(runs) == 3
