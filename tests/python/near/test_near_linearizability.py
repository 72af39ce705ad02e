"""With `fresh=True` the calls on each key have a sequential order that explains their results."""

import itertools
import random
import sys
import time

import pytest
from helpers import ROOT, run_threads
from near.near_caches import make_near_cache

TORTURE = str(ROOT / "stress" / "torture")
sys.path.insert(0, TORTURE)
try:
    from history_checker import ABSENT, SOME, Step, explain
finally:
    sys.path.remove(TORTURE)

KEYS = ["a", "b", "c"]
CALLS = 60
ROUNDS = 10


class Player:
    """A thread that calls methods at random, and records their results in a history for each key."""

    def __init__(self, cache, seed, first):
        self.cache = cache
        self.random = random.Random(seed + first)
        # No two threads write the same value.
        self.values = itertools.count(first)
        self.history = {key: [] for key in KEYS}

    def play(self):
        for _ in range(CALLS):
            self.record(self.random.choice(KEYS))

    def record(self, key):
        cache, value = self.cache, next(self.values)
        kind = self.random.choice(["get", "get", "get_many", "contains", "set", "add", "remove", "get_with", "local"])
        call = time.monotonic_ns()
        match kind:
            case "get":
                step = "read", cache.get(key, ABSENT, fresh=True)
            case "get_many":
                step = "read", cache.get_many([key], fresh=True).get(key, ABSENT)
            case "set":
                step = "write", cache.set(key, value) or value
            case "add":
                step = ("insert", value) if cache.add(key, value) else ("has", value)
            case "remove":
                step = "remove", SOME if cache.remove(key) else ABSENT
            case "get_with":
                step = self.load(key, value)
            case _:
                # A call without `fresh` may return an older value, and must not disturb the others.
                cache.get(key)
                return
        self.history[key].append(Step(call, time.monotonic_ns(), *step))

    def load(self, key, value):
        """Without `across` a value that was computed is stored only if the key is still absent."""
        got = self.cache.get_with(key, lambda: value, across=False, fresh=True)
        return ("offer", value) if got == value else ("read", got)


@pytest.mark.parametrize("part", range(2))
def test_calls_on_each_key_are_linearizable(client, real_server, make_client, part):
    first = random.SystemRandom().randrange(10**6)
    # Two names of one server make two tiers, as two processes have them.
    names = [real_server.host, "localhost"]
    for seed in range(first, first + ROUNDS):
        namespace = f"n{seed}"
        clients = [make_client(real_server, host=name) for name in names for _ in range(2)]
        caches = [make_near_cache(each, namespace) for each in clients]
        players = [Player(cache, seed, index * 10**6) for index, cache in enumerate(caches)]
        run_threads(*[player.play for player in players])
        for key in KEYS:
            wrong = explain([player.history[key] for player in players])
            assert not wrong, f"seed {seed}, key {key}\n{wrong}"
        assert all(player.history[key] for player in players for key in KEYS)
        for cache in caches:
            cache.close()


def test_the_checker_notices_a_read_of_an_older_value():
    writer = [Step(0, 1, "write", 1), Step(4, 5, "write", 2)]
    assert explain([writer, [Step(2, 3, "read", 1), Step(6, 7, "read", 2)]]) is None
    assert explain([writer, [Step(2, 3, "read", 1), Step(6, 7, "read", 1)]])
