"""Bounds, deadlines and weights of the results of a cached function."""

import datetime

import pytest
from cached_helpers import both_wait_modes, recording_function

from moka_py import cached


def test_lru_keeps_the_most_recently_used_results():
    function, runs = recording_function(maxsize=2, policy="lru")
    for x in (1, 2, 1, 3, 1, 2):
        function(x)
    assert [args[0] for args, _ in runs] == [1, 2, 3, 2]
    assert function.cache_info() == (2, 4, 2, 2)


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_size_stays_within_maxsize(policy):
    function, _ = recording_function(maxsize=10, policy=policy)
    for x in range(100):
        value = function(x)
        assert function(x) is value
        assert function.cache_info().currsize <= 10
    assert function.cache_info().currsize == 10


def test_maxsize_none_is_unbounded():
    function, runs = recording_function(maxsize=None)
    for _ in range(2):
        for x in range(5000):
            function(x)
    assert len(runs) == 5000
    assert function.cache_info() == (5000, 5000, None, 5000)


def test_huge_maxsize_is_accepted():
    function, _ = recording_function(maxsize=10**30)
    assert function(1) is function(1)
    assert function.cache_info().maxsize == 10**30


@both_wait_modes
@pytest.mark.parametrize("maxsize", [0, -1, -(10**30)])
def test_maxsize_of_zero_or_less_keeps_no_result(maxsize, wait):
    function, runs = recording_function(maxsize=maxsize, wait_concurrent=wait, weigher=lambda key, value: 0)
    assert function(1) is not function(1)
    assert len(runs) == 2
    assert function.cache_info() == (0, 2, 0, 0)
    assert function.cache_parameters()["maxsize"] == 0


def test_maxsize_of_zero_accepts_unhashable_arguments():
    assert cached(maxsize=0)(lambda x: x)([1]) == [1]


@both_wait_modes
@pytest.mark.parametrize("maxsize", [10, None, 0])
def test_resize_of_the_cache_changes_maxsize(maxsize, wait):
    function, runs = recording_function(maxsize=maxsize, wait_concurrent=wait)
    function.cache.resize(3)
    for x in range(5):
        function(x)
    assert function.cache_info() == (0, 5, 3, 3)
    function(4)
    assert function.cache_info() == (1, 5, 3, 3)
    assert function.cache_contains(4) and function.cache_invalidate(4)
    assert function.cache_parameters()["maxsize"] == maxsize


@both_wait_modes
@pytest.mark.parametrize("maxsize", [10, None, 0])
@pytest.mark.parametrize("options", [{}, {"weigher": lambda key, value: 0}, {"typed": True}, {"key": lambda x: x}])
def test_resize_to_zero_disables_a_cached_function(maxsize, options, wait):
    function, runs = recording_function(maxsize=maxsize, wait_concurrent=wait, **options)
    function(1)
    function.cache.resize(0)
    assert function(1) is not function(1)
    assert function.cache_info() == (0, 3, 0, 0)
    function.cache.resize(10)
    assert function(1) is function(1)
    assert function.cache_info().maxsize == 10
    assert len(runs) == 4


def test_resize_to_the_unbounded_capacity_shows_no_maxsize():
    function, _ = recording_function(maxsize=None)
    unbounded = function.cache.capacity
    function.cache.resize(5)
    assert function.cache_info().maxsize == 5
    function.cache.resize(unbounded)
    assert function.cache_info().maxsize is None


def test_result_is_computed_again_after_ttl(clock):
    function, runs = recording_function(ttl=10)
    value = function(1)
    clock.advance(10)
    assert function.cache_info().currsize == 0
    assert function(1) is not value
    assert len(runs) == 2


def test_result_is_kept_until_ttl(clock):
    function, _ = recording_function(ttl=1000)
    value = function(1)
    clock.advance(999)
    assert function(1) is value
    assert function.cache.expires_in(1) == 1


def test_access_restarts_tti(clock):
    function, _ = recording_function(tti=datetime.timedelta(seconds=1000))
    value = function(1)
    clock.advance(999)
    assert function(1) is value
    assert function.cache.expires_in(1) == 1000


def test_result_is_computed_again_after_tti(clock):
    function, _ = recording_function(tti=datetime.timedelta(seconds=10))
    value = function(1)
    clock.advance(10)
    assert function(1) is not value


@both_wait_modes
def test_weigher_gets_key_and_value_and_bounds_the_total(wait):
    weighed = []

    def weigh(key, value):
        hash(key)
        weighed.append(value)
        return len(value)

    function = cached(maxsize=10, weigher=weigh, policy="lru", wait_concurrent=wait)(lambda x, n: "x" * n)
    for x in range(4):
        function(x, 4)
    assert weighed == ["xxxx"] * 4
    assert function.cache_info().currsize == 8
    assert len(function(9, 11)) == 11
    assert function.cache_info().currsize <= 10


@both_wait_modes
def test_error_of_the_weigher_is_raised_and_nothing_is_cached(wait):
    error = LookupError("no scales")

    def weigh(key, value):
        raise error

    function, runs = recording_function(weigher=weigh, wait_concurrent=wait)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            function(1)
        assert caught.value is error
    assert len(runs) == 2
    assert function.cache_info().currsize == 0
