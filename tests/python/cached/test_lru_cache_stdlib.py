"""The standard library's own tests of `functools.lru_cache`, run with `cached` instead."""

import functools
import sys
from types import SimpleNamespace

import pytest

from moka_py import cached
from moka_py._cached import CacheInfo

test_functools = pytest.importorskip("test.test_functools", reason="this CPython has no test package")


def lru_cache(maxsize=128, typed=False):
    return cached(maxsize, typed, policy="lru")


# The module that the tests import `lru_cache` from.
module = SimpleNamespace(**vars(functools))
module.lru_cache = lru_cache
module._CacheInfo = CacheInfo


@lru_cache()
def cached_func(x, y):
    return 3 * x + y


# The tests pickle the function by its name, so the module must have it under that name.
sys.modules[__name__].cached_func = cached_func


class TestCachedAsLRU(test_functools.TestLRU, test_functools.unittest.TestCase):
    module = module
    cached_func = (cached_func,)

    @lru_cache()
    def cached_meth(self, x, y):
        return 3 * x + y

    @staticmethod
    @lru_cache()
    def cached_staticmeth(x, y):
        return 3 * x + y

    def test_lru_cache_parameters(self):
        """`cached` has more parameters than `lru_cache`."""
        parameters = lru_cache(maxsize=2)(len).cache_parameters()
        assert {name: parameters[name] for name in ("maxsize", "typed")} == {"maxsize": 2, "typed": False}
        assert lru_cache(maxsize=2, typed=True)(len).cache_parameters()["typed"] is True
