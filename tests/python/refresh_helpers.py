"""Helpers that the tests of `refresh` share: a call of each kind, loaders and executors."""

import pytest

from moka_py import Moka, cached

REFRESH = 10


NANOSECOND = 1e-9


every_kind_of_call = pytest.mark.parametrize("kind", ["get_with", "cached", "cached, shared"])


every_kind_of_shared_call = pytest.mark.parametrize("kind", ["get_with", "cached, shared"])


class Caller:
    """A cache, and calls with a loader of one kind. The key of a call is its argument."""

    def __init__(self, kind, load, maxsize=100, **options):
        options = {"refresh": REFRESH, **options}
        if kind == "get_with":
            self.cache = Moka(maxsize, **options)
            self.call = lambda key="a": self.cache.get_with(key, lambda: load(key))
        else:
            function = cached(maxsize, wait_concurrent=kind == "cached, shared", **options)(load)
            self.cache = function.cache
            self.call = lambda key="a": function(key)


class Counter:
    """A loader that returns 1, 2, 3 and so on."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key=None):
        self.calls += 1
        return self.calls


class FailingAfterFirst:
    """A loader that returns 1, and from then on raises the error that it has."""

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def __call__(self, key=None):
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return 1


class ManualExecutor:
    """An executor that runs its jobs when the test asks for it."""

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)

    def run(self):
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            assert job() is None
        return len(jobs)


class RefusingExecutor:
    def __init__(self, error):
        self.error = error

    def submit(self, job):
        raise self.error


def counts(cache):
    stats = cache.stats()
    return stats.hits, stats.misses, stats.loads, stats.load_failures, stats.refreshes
