"""The options `refresh` and `executor`: which values they take, and where a cache tells them."""

from datetime import timedelta

import pytest
from refresh_helpers import ManualExecutor

from moka_py import Moka, cached


@pytest.mark.parametrize("make", [lambda **options: Moka(10, **options), lambda **options: cached(**options)])
class TestOptions:
    @pytest.mark.parametrize("refresh, ttl", [(5, 5), (6, 5), (timedelta(seconds=5), 5.0)])
    def test_refresh_must_be_less_than_ttl(self, make, refresh, ttl):
        with pytest.raises(ValueError, match=r"refresh must be less than ttl, got refresh=[56] and ttl=5"):
            make(refresh=refresh, ttl=ttl)

    @pytest.mark.parametrize("refresh", [0, -1, float("nan"), float("inf"), 1e12])
    def test_refresh_must_be_a_duration(self, make, refresh):
        with pytest.raises(ValueError, match="refresh must be"):
            make(refresh=refresh)

    @pytest.mark.parametrize("refresh", ["1", [], lambda key, value: 1])
    def test_refresh_must_be_a_number_or_a_timedelta(self, make, refresh):
        with pytest.raises(TypeError, match="refresh must be a number of seconds or a timedelta, got"):
            make(refresh=refresh)

    @pytest.mark.parametrize("executor", [5, object(), type("Wrong", (), {"submit": 1})()])
    def test_executor_must_have_a_callable_submit(self, make, executor):
        with pytest.raises(TypeError, match="executor must have a callable submit, got"):
            make(refresh=5, executor=executor)

    def test_executor_needs_refresh(self, make):
        with pytest.raises(ValueError, match="executor must be None without refresh, got"):
            make(executor=ManualExecutor())

    def test_refresh_may_be_longer_than_tti_or_the_ttl_of_a_call(self, make):
        make(refresh=5, tti=1)


def test_cache_tells_its_refresh():
    assert Moka(10, refresh=timedelta(minutes=1)).refresh == 60.0
    assert Moka(10).refresh is None
    assert "refresh=1.5" in repr(Moka(10, refresh=1.5))


def test_cached_function_tells_its_refresh():
    executor = ManualExecutor()
    function = cached(refresh=5, executor=executor)(len)
    parameters = function.cache_parameters()
    assert (parameters["refresh"], parameters["executor"], function.cache.refresh) == (5, executor, 5.0)
    plain = cached(len).cache_parameters()
    assert (plain["refresh"], plain["executor"]) == (None, None)
