"""How long a `refresh` keeps its cache, its executor and an instance of `weak_self` alive."""

import weakref

from helpers import collect
from refresh_helpers import REFRESH, ManualExecutor

from moka_py import Moka, cached


def test_cycle_through_the_executor_and_its_jobs_is_collected(clock):
    executor = ManualExecutor()
    executor.cache = Moka(10, refresh=REFRESH, executor=executor)
    executor.cache["a"] = 1
    clock.advance(REFRESH + 1)
    executor.cache.get_with("a", lambda: 2)
    assert len(executor.jobs) == 1
    watched = weakref.ref(executor), weakref.ref(executor.cache)
    del executor
    collect()
    assert [reference() for reference in watched] == [None, None]


def test_job_keeps_its_cache_alive(clock):
    executor = ManualExecutor()
    cache = Moka(10, refresh=REFRESH, executor=executor)
    cache["a"] = 1
    clock.advance(REFRESH + 1)
    cache.get_with("a", lambda: 2)
    watched = weakref.ref(cache)
    del cache
    collect()
    assert watched()["a"] == 1
    executor.run()
    assert watched() is None or watched()["a"] == 2
    collect()
    assert watched() is None


def test_weak_self_instance_is_held_while_its_refresh_runs(clock):
    executor, calls = ManualExecutor(), []

    class Kept:
        @cached(weak_self=True, refresh=REFRESH, executor=executor)
        def method(self):
            calls.append(watched() is not None)
            return len(calls)

    instance = Kept()
    watched = weakref.ref(instance)
    instance.method()
    clock.advance(REFRESH + 1)
    instance.method()
    del instance
    collect()
    assert watched() is not None
    executor.run()
    collect()
    assert calls == [True, True]
    assert watched() is None
    assert len(Kept.method.cache) == 0, "the new result is removed with its instance"


def test_result_that_a_refresh_inserts_anew_is_removed_with_its_instance(clock):
    others = []

    class Kept:
        @cached(1, weak_self=True, refresh=REFRESH)
        def method(self):
            while others:
                others.pop().method()  # It evicts the entry that is refreshed.
            return 1

    instance = Kept()
    instance.method()
    clock.advance(REFRESH + 1)
    others.append(Kept())
    instance.method()
    assert len(Kept.method.cache) == 1
    del instance
    collect()
    assert len(Kept.method.cache) == 0
