"""`f.cache_refresh` runs the function now and puts the new result in the place of the old one."""

import asyncio
import gc
import inspect
import weakref

import pytest
from cached_helpers import both_wait_modes, call, every_kind, made_function, pause, recording_function, run_async
from helpers import Background, Gate, Value

from moka_py import cached
from moka_py.testing import ManualClock

OPTIONS = {
    "plain": {},
    "typed": {"typed": True},
    "key": {"key": lambda *args, **kwargs: (args, tuple(kwargs.items()))},
    "unbounded": {"maxsize": None},
    "ttl": {"ttl": 1000},
}
all_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def counting(kind, **options):
    """Return a cached function whose result is the number of the run."""
    runs = []

    def run(*args, **kwargs):
        runs.append(args)
        return len(runs)

    return made_function(kind, run, **options), runs


@every_kind
@all_options
def test_refresh_runs_the_function_and_stores_the_new_result(kind, options):
    function, runs = counting(kind, **options)
    assert call(function, 1, y=2) == 1
    assert call(function.cache_refresh, 1, y=2) == 2
    assert call(function, 1, y=2) == 2 and len(runs) == 2 and len(function.cache) == 1


@every_kind
def test_refresh_of_an_absent_result_stores_it(kind):
    function, runs = counting(kind)
    assert call(function.cache_refresh, 1) == 1
    assert call(function, 1) == 1 and len(runs) == 1


@both_wait_modes
def test_other_threads_get_the_old_result_during_a_refresh(wait):
    gate, runs = Gate(), []

    @cached(wait_concurrent=wait)
    def function(x):
        runs.append(x)
        if len(runs) == 2:
            gate.stop_here()
        return len(runs)

    function(1)
    with Background(lambda: function.cache_refresh(1)) as refresh:
        gate.wait_until_reached()
        assert function(1) == 1
        gate.open()
    assert refresh.result == 2 and function(1) == 2


@both_wait_modes
def test_other_tasks_get_the_old_result_during_a_refresh(wait):
    runs = []

    async def main():
        opened = asyncio.Event()

        @cached(wait_concurrent=wait)
        async def function(x):
            runs.append(x)
            if len(runs) == 2:
                await opened.wait()
            return len(runs)

        await function(1)
        refresh = asyncio.create_task(function.cache_refresh(1))
        await asyncio.sleep(0)
        assert len(runs) == 2 and await function(1) == 1
        opened.set()
        assert await refresh == 2 and await function(1) == 2

    run_async(main)


@both_wait_modes
def test_refresh_never_joins_a_run_that_began_earlier_and_wins_over_its_result(wait):
    gate, runs = Gate(), []

    @cached(wait_concurrent=wait)
    def function(x):
        runs.append(x)
        number = len(runs)
        if number == 1:
            gate.stop_here()
        return number

    with Background(lambda: function(1)) as earlier:
        gate.wait_until_reached()
        assert function.cache_refresh(1) == 2
        gate.open()
    assert earlier.result == 1 and function(1) == 2


@both_wait_modes
def test_refresh_of_a_coroutine_never_joins_a_run_that_began_earlier(wait):
    runs = []

    async def main():
        opened = asyncio.Event()

        @cached(wait_concurrent=wait)
        async def function(x):
            runs.append(x)
            number = len(runs)
            if number == 1:
                await opened.wait()
            return number

        earlier = asyncio.create_task(function(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await function.cache_refresh(1) == 2
        opened.set()
        assert await earlier == 1 and await function(1) == 2

    run_async(main)


def test_result_of_a_run_that_began_after_the_refresh_is_not_kept_out():
    gate, runs = Gate(), []

    @cached
    def function(x):
        runs.append(x)
        number = len(runs)
        if number == 2:
            # The refresh ends while this later run is in progress.
            gate.stop_here()
        if number == 1:
            later.__enter__()
            gate.wait_until_reached()
        return number

    later = Background(lambda: function(1))
    assert function.cache_refresh(1) == 1
    assert function(1) == 1
    gate.open()
    later.join()
    assert later.result == 2 and function(1) == 2


@every_kind
def test_failed_refresh_raises_and_leaves_the_old_result_and_its_deadline(kind):
    with ManualClock() as clock:
        failures = []

        def run(x):
            if failures:
                raise failures[0]
            return "old"

        function = made_function(kind, run, ttl=10)
        call(function, 1)
        clock.advance(6)
        failures.append(LookupError("later"))
        with pytest.raises(LookupError) as caught:
            call(function.cache_refresh, 1)
        assert caught.value is failures[0]
        assert call(function, 1) == "old"
        clock.advance(5)
        assert not function.cache_contains(1)


@every_kind
def test_refresh_restarts_the_deadline_as_a_set_does(kind):
    with ManualClock() as clock:
        function, runs = counting(kind, ttl=10)
        call(function, 1)
        clock.advance(6)
        call(function.cache_refresh, 1)
        clock.advance(6)
        assert call(function, 1) == 2
        clock.advance(5)
        assert call(function, 1) == 3


@every_kind
def test_refresh_counts_a_load_and_neither_a_hit_nor_a_miss(kind):
    failures = []

    def run(x):
        if failures:
            raise failures[0]
        return x

    function = made_function(kind, run)
    call(function, 1)
    before = function.cache.stats()
    call(function.cache_refresh, 1)
    after = function.cache.stats()
    assert (after.hits, after.misses) == (before.hits, before.misses) == function.cache_info()[:2]
    assert (after.loads, after.load_failures, after.replacements) == (before.loads + 1, 0, 1)
    failures.append(LookupError())
    with pytest.raises(LookupError):
        call(function.cache_refresh, 1)
    failed = function.cache.stats()
    assert (failed.hits, failed.misses) == (before.hits, before.misses)
    assert (failed.loads, failed.load_failures) == (before.loads + 2, 1)


WRITES = {
    "cache_set": lambda function: function.cache_set("written", 1),
    "cache_invalidate": lambda function: function.cache_invalidate(1),
    "cache_clear": lambda function: function.cache_clear(),
    "set of the cache": lambda function: function.cache.set(1, "written"),
    "remove of the cache": lambda function: function.cache.remove(1),
    "remove_if of the cache": lambda function: function.cache.remove_if(lambda key, value: True),
    "clear of the cache": lambda function: function.cache.clear(),
}


@every_kind
@pytest.mark.parametrize("is_present", [True, False], ids=["present", "absent"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_during_a_refresh_wins_over_its_result(write, is_present, kind):
    during = []

    def run(x):
        for each in during:
            each(function)
        return "refreshed"

    function = made_function(kind, run)
    if is_present:
        function.cache_set("old", 1)
    during.append(write)
    assert call(function.cache_refresh, 1) == "refreshed"
    assert function.cache.get(1) in ("written", None)
    during.clear()
    assert call(function.cache_refresh, 1) == call(function, 1) == "refreshed"


def test_coroutine_function_runs_only_when_its_refresh_is_awaited():
    runs = []

    @cached
    async def function(x):
        runs.append(x)

    refresh = function.cache_refresh(1)
    assert inspect.iscoroutine(refresh) and runs == []
    # It needs no event loop of a certain library.
    with pytest.raises(StopIteration):
        refresh.send(None)
    assert runs == [1]


@both_wait_modes
def test_cancelled_refresh_leaves_the_old_result(wait):
    async def main():
        entered, runs = asyncio.Event(), []

        @cached(wait_concurrent=wait)
        async def function(x):
            runs.append(x)
            if len(runs) > 1:
                entered.set()
                await asyncio.Event().wait()
            return "old"

        await function(1)
        refresh = asyncio.create_task(function.cache_refresh(1))
        await entered.wait()
        refresh.cancel()
        with pytest.raises(asyncio.CancelledError):
            await refresh
        assert await function(1) == "old"
        assert function.cache.stats().load_failures == 1

    run_async(main)


def test_refresh_that_is_never_finished_leaves_the_old_result():
    runs = []

    @cached
    async def function(x):
        runs.append(x)
        if len(runs) > 1:
            await pause()
        return len(runs)

    assert call(function, 1) == 1
    refresh = function.cache_refresh(1)
    refresh.send(None)
    refresh.close()
    assert call(function, 1) == 1 and function.cache.stats().load_failures == 1


def test_methods_take_the_instance_first():
    class Thing:
        @cached
        def method(self, x):
            return object()

        @classmethod
        @cached
        def of_class(cls, x):
            return object()

        @staticmethod
        @cached
        def static(x):
            return object()

    one = Thing()
    assert one.method.cache_refresh(one, 1) is one.method(1)
    assert Thing.of_class.cache_refresh(Thing, 1) is Thing.of_class(1)
    assert Thing.static.cache_refresh(1) is Thing.static(1)


@both_wait_modes
def test_refreshed_result_of_a_weak_self_method_dies_with_its_instance(wait):
    class Thing:
        @cached(weak_self=True, wait_concurrent=wait)
        def method(self, x):
            return Value()

    one = Thing()
    one.method(1)
    alive = weakref.ref(one.method.cache_refresh(one, 1))
    assert alive() is one.method(1)
    del one
    gc.collect()
    Thing.method.cache.run_pending_tasks()
    assert alive() is None and len(Thing.method.cache) == 0


@both_wait_modes
def test_function_that_stores_nothing_still_runs(wait):
    function, runs = recording_function(maxsize=0, wait_concurrent=wait)
    function.cache_refresh(1)
    assert len(runs) == 1 and len(function.cache) == 0
    assert function.cache.stats().loads == 1


def test_arguments_that_cannot_be_hashed_raise_before_a_run():
    function, runs = recording_function()
    with pytest.raises(TypeError, match="unhashable"):
        function.cache_refresh([])
    assert runs == [] and function.cache.stats().loads == 0


@every_kind
def test_error_of_the_weigher_leaves_the_old_result(kind):
    def weigh(key, value):
        if value > 1:
            raise ZeroDivisionError
        return 1

    function, _ = counting(kind, weigher=weigh)
    call(function, 1)
    with pytest.raises(ZeroDivisionError):
        call(function.cache_refresh, 1)
    assert call(function, 1) == 1


@every_kind
def test_refresh_without_a_result_keeps_its_error_and_a_later_one_ends_it(kind):
    failures = [LookupError("kept")]

    def run(x):
        if failures:
            raise failures[0]
        return "result"

    function = made_function(kind, run, errors=LookupError, error_ttl=5)
    with pytest.raises(LookupError) as caught:
        call(function.cache_refresh, 1)
    assert caught.value is failures[0]
    failures.clear()
    with pytest.raises(LookupError):
        call(function, 1)
    assert call(function.cache_refresh, 1) == "result"
    assert call(function, 1) == "result"


@every_kind
def test_failed_refresh_beside_a_result_keeps_no_error(kind):
    with ManualClock() as clock:
        failures = []

        def run(x):
            if failures:
                raise failures.pop()
            return "result"

        function = made_function(kind, run, ttl=1, errors=LookupError, error_ttl=100)
        call(function, 1)
        failures.append(LookupError())
        with pytest.raises(LookupError):
            call(function.cache_refresh, 1)
        clock.advance(2)
        assert not function.cache_contains(1)
        assert call(function, 1) == "result"


def test_cycle_through_a_refresh_is_collected():
    class Holder:
        def __init__(self):
            self.function = cached(lambda x: self)

    holder = Holder()
    holder.function.cache_refresh(1)
    alive = weakref.ref(holder)
    del holder
    gc.collect()
    assert alive() is None
