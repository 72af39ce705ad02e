"""Which calls of a cached function have the same key."""

import functools

import pytest
from cached_helpers import both_wait_modes, recording_function

from moka_py import cached


def test_none_and_other_false_values_are_cached():
    runs = []

    @cached
    def function(x):
        runs.append(x)
        return x

    for value in (None, 0, "", False, ()):
        assert function(value) is value
        assert function(value) is value
    assert runs == [None, 0, "", False, ()]


def test_positional_and_keyword_calls_have_different_keys_and_order_matters():
    function, runs = recording_function()
    for _ in range(2):
        function(1, 2)
        function(1, y=2)
        function(x=1, y=2)
        function(y=2, x=1)
        function(("x", 1), ("y", 2))
        function()
    assert len(runs) == 6


@pytest.mark.parametrize("typed", [False, True])
def test_typed_distinguishes_types(typed):
    function, runs = recording_function(typed=typed)
    for x in (1, 1.0, True):
        function(x, x)
        function(k=x)
    assert len(runs) == (6 if typed else 2)


def test_typed_ignores_types_inside_containers():
    function, runs = recording_function(typed=True)
    function((1,), "a")
    function((1.0,), "a")
    assert len(runs) == 1


def test_single_int_or_str_argument_is_its_own_key():
    function, _ = recording_function()
    function(7)
    function("x")
    assert function.cache.get(7) is function(7)
    assert function.cache.get("x") is function("x")
    # As in `lru_cache`, a single exact int is never compared with a float.
    assert function(1) is not function(1.0)


def test_arguments_and_their_tuple_have_different_keys():
    function, runs = recording_function()
    function(1, 2)
    function((1, 2))
    function(((1, 2),))
    assert len(runs) == 3


def test_identity_counts_as_equality():
    function, runs = recording_function()
    nan = float("nan")
    assert function(nan) is function(nan)
    assert function(nan, 1) is function(nan, 1)
    assert len(runs) == 2


@both_wait_modes
def test_each_argument_is_hashed_once_per_call(wait):
    hashed = []

    class Argument:
        def __hash__(self):
            hashed.append(self)
            return 1

    function, runs = recording_function(wait_concurrent=wait)
    argument = Argument()
    function(argument)
    assert len(hashed) == 1
    function(argument)
    assert len(hashed) == 2
    assert len(runs) == 1


@both_wait_modes
def test_unhashable_argument_is_a_type_error_before_the_function_runs(wait):
    function, runs = recording_function(wait_concurrent=wait)
    for call in (lambda: function([]), lambda: function(1, k={})):
        with pytest.raises(TypeError, match="unhashable type"):
            call()
    assert runs == []
    assert function.cache_info() == (0, 0, 128, 0)


@both_wait_modes
def test_errors_of_hash_and_eq_are_raised_unchanged(wait):
    error = ZeroDivisionError("of the argument")
    fails = {"hash": False, "eq": False}

    class Argument:
        def __hash__(self):
            if fails["hash"]:
                raise error
            return 1

        def __eq__(self, other):
            if fails["eq"]:
                raise error
            return True

    function, runs = recording_function(wait_concurrent=wait)
    value = function(Argument())
    for name in fails:
        fails[name] = True
        with pytest.raises(ZeroDivisionError) as caught:
            function(Argument())
        fails[name] = False
        assert caught.value is error
        assert error.__context__ is None and error.__cause__ is None
    assert function(Argument()) is value
    assert len(runs) == 1


def test_calls_are_equal_exactly_as_in_lru_cache():
    def returns_another(*args, **keywords):
        return object()

    for options in ({}, {"typed": True}):
        for decorate in (cached(**options), functools.lru_cache(**options)):
            f = decorate(returns_another)
            is_untyped = not options
            assert (f(1, 2) is f(1.0, 2)) is (f(1.0, 2) is f(True, 2)) is is_untyped
            assert f(1) is not f(1.0)
            assert f((1,)) is f((1.0,))
            assert f(1) is not f(x=1)
            assert f(x=1, y=2) is not f(y=2, x=1)
