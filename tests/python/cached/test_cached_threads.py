"""`cached` on plain functions in threads: recursion, single flight, counts, clears."""

import threading
import time

import pytest
from cached_helpers import both_wait_modes, recording_function
from helpers import assert_copies_of_exception, outcomes_of_threads

from moka_py import cached


@both_wait_modes
def test_function_can_call_itself_with_other_arguments(wait):
    @cached(maxsize=None, wait_concurrent=wait)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1548008755920
    assert fibonacci.cache_info().misses == 61
    assert fibonacci.cache_info().hits == 58


@pytest.mark.parametrize("maxsize", [0, 8])
def test_recursion_with_the_same_arguments_raises_when_shared(maxsize):
    @cached(maxsize=maxsize, wait_concurrent=True)
    def function(x):
        return function(x)

    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            function(1)
        assert not isinstance(caught.value, RecursionError)


def test_threads_that_wait_for_each_other_raise_when_shared():
    inside = threading.Barrier(2)

    @cached(wait_concurrent=True)
    def function(x):
        inside.wait(30)
        return function(1 - x)

    outcomes = outcomes_of_threads(2, function)
    assert all(isinstance(outcome, RuntimeError) for outcome in outcomes), outcomes


def test_stampede_runs_once_when_shared():
    runs = []

    @cached(wait_concurrent=True)
    def function(x):
        runs.append(x)
        time.sleep(0.2)  # for the others to arrive
        return object()

    values = outcomes_of_threads(32, lambda number: function(number % 2))
    assert sorted(runs) == [0, 1]
    assert {id(value) for value in values[::2]} == {id(function(0))}
    assert {id(value) for value in values[1::2]} == {id(function(1))}
    assert function.cache_info() == (32, 2, 128, 2)


def test_stampede_shares_without_capacity_but_keeps_nothing():
    runs = []

    @cached(maxsize=0, wait_concurrent=True)
    def function(x):
        runs.append(x)
        time.sleep(0.5)  # for the others to arrive
        return object()

    assert len(set(outcomes_of_threads(8, lambda _: function(1)))) == 1
    function(1)
    assert len(runs) == 2


def test_failure_is_shared_and_not_cached():
    runs = []

    @cached(wait_concurrent=True)
    def function(x):
        runs.append(x)
        time.sleep(0.5)  # for the others to arrive
        if len(runs) == 1:
            raise LookupError("first")
        return "fine"

    errors = outcomes_of_threads(8, lambda _: function(1))
    assert_copies_of_exception(errors[0], errors[1:])
    assert isinstance(errors[0], LookupError) and errors[0].args == ("first",)
    assert all(error.__cause__ is None and error.__context__ is None for error in errors)
    assert function(1) == "fine"
    assert runs == [1, 1]
    assert function.cache_info() == (0, 2, 128, 1)


@both_wait_modes
def test_counts_are_exact_under_threads(wait):
    function, runs = recording_function(maxsize=None, wait_concurrent=wait)
    calls = 20_000

    def call(number):
        for step in range(calls):
            function(step % 50)

    assert outcomes_of_threads(4, call) == [None] * 4
    info = function.cache_info()
    assert info.hits + info.misses == 4 * calls
    assert info.misses == len(runs)
    assert info.currsize == 50


@both_wait_modes
def test_function_can_wait_for_its_own_call_in_another_thread(wait):
    @cached(wait_concurrent=wait)
    def function(x):
        if x == 0:
            return outcomes_of_threads(1, lambda _: function(1))
        return "inner"

    assert function(0) == ["inner"]


@both_wait_modes
def test_eq_of_an_argument_can_call_the_function(wait):
    function, _ = recording_function(wait_concurrent=wait)

    class Argument:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            function("inner")
            function.cache_info()
            return isinstance(other, Argument)

    assert function(Argument()) is function(Argument())


@both_wait_modes
def test_run_that_began_before_a_clear_stores_nothing(wait):
    runs = []

    @cached(wait_concurrent=wait)
    def function(x):
        runs.append(x)
        if len(runs) == 1:
            function.cache_clear()
        return len(runs)

    assert function(1) == 1
    assert function.cache_info().currsize == 0
    assert function(1) == 2
    assert function(1) == 2


@both_wait_modes
def test_value_that_was_weighed_during_a_clear_is_not_stored(wait):
    clears = [True]

    def weigh(key, value):
        if clears:
            clears.pop()
            function.cache_clear()
        return 1

    function, runs = recording_function(weigher=weigh, wait_concurrent=wait)
    value = function(1)
    assert function.cache_info().currsize == 0
    assert function(1) is not value
    assert function(1) is function(1)
    assert len(runs) == 2


@both_wait_modes
def test_clear_beside_calls_leaves_no_older_result(wait):
    version = 0

    @cached(wait_concurrent=wait)
    def function(x):
        seen = version
        time.sleep(0)
        return seen

    def call(number):
        nonlocal version
        for step in range(2000):
            if number == 0 and step % 20 == 0:
                version += 1
                function.cache_clear()
            function(step % 3)

    assert outcomes_of_threads(4, call) == [None] * 4
    assert {function(x) for x in range(3)} == {version}
