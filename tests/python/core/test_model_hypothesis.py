"""Every call of the class, compared with a naive model, in sequences that hypothesis chooses and shrinks.

The clock is a manual one. A failure prints the steps, and the code that repeats them.
"""

import gc
import os
from datetime import timedelta

import pytest
from helpers import MISSING, Events
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from naive_cache import MICROSECOND, SECOND, NaiveCache

from moka_py import Moka
from moka_py.testing import ManualClock

# Equal keys of different types, keys of equal hash, and others.
KEYS = [0, 1, 1.0, True, 2, "a", "b", (1, "t"), -1, -2, 2**61 - 1, b"a"]
DURATIONS = [None, None, None, 1, 0.5, 3.0, timedelta(seconds=2), 1000]
STEPS = [MICROSECOND * 10, SECOND // 2, SECOND // 2 - 1, SECOND, 2 * SECOND, 999 * SECOND]

keys = st.sampled_from(KEYS)
values = st.one_of(st.integers(0, 60), st.none(), st.just("heavy"))
durations = st.sampled_from(DURATIONS)


class PlannedError(Exception):
    """The error that weighers, initializers and predicates raise."""


def seconds(duration):
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


class CacheMachine(RuleBasedStateMachine):
    """A cache with random options, and random calls on it."""

    @initialize(
        capacity=st.sampled_from([0, 1, 2, 3, 5, 8, 1000]),
        policy=st.sampled_from(["lru", "tiny_lfu"]),
        has_weigher=st.booleans(),
        has_listener=st.booleans(),
        ttl=durations,
        tti=durations,
    )
    def begin(self, capacity, policy, has_weigher, has_listener, ttl, tti):
        # Without a listener the model must know the victims, which it does for an LRU only.
        self.listener_events = Events() if has_listener or policy != "lru" else None
        self.fails = False

        def weigh(key, value):
            if self.fails:
                raise PlannedError(key)
            return capacity + 1 if value == "heavy" else (value or 1) % 5

        self.clock = ManualClock()
        with self.clock:
            self.cache = Moka(
                capacity,
                ttl,
                tti,
                eviction_listener=self.listener_events,
                policy=policy,
                weigher=weigh if has_weigher else None,
            )
        is_exact = policy == "lru" or capacity < 8
        self.has_weigher, self.is_lru = has_weigher, policy == "lru"
        weigh = weigh if has_weigher else lambda key, value: 1
        self.model = NaiveCache(capacity, weigh, seconds(ttl), seconds(tti), is_exact, self.listener_events)

    def after_call(self, result=None):
        self.model.take_events()
        return result

    @rule(key=keys, call=st.sampled_from(["get", "get with default", "subscript"]))
    def get(self, key, call):
        if call == "get":
            got = self.after_call(self.cache.get(key))
            assert got == self.model.access(key, None)
        elif call == "get with default":
            got = self.after_call(self.cache.get(key, MISSING))
            assert got == self.model.access(key, MISSING)
        else:
            try:
                got = self.cache[key]
            except KeyError as error:
                assert error.args == (key,)
                got = MISSING
            self.after_call()
            assert got == self.model.access(key, MISSING)

    @rule(key=keys, value=values, ttl=durations, tti=durations, plain=st.booleans())
    def set(self, key, value, ttl, tti, plain):
        if plain:
            self.cache[key] = value
            ttl = tti = None
        else:
            assert self.cache.set(key, value, ttl=ttl, tti=tti) is None
        self.after_call()
        self.model.write(key, value, seconds(ttl), seconds(tti))

    @rule(key=keys, value=values)
    def setdefault(self, key, value):
        got = self.after_call(self.cache.setdefault(key, value))
        kept = self.model.access(key, MISSING)
        if kept is MISSING:
            self.model.write(key, value)
            kept = value
        assert got == kept

    @rule(key=keys, value=values, ttl=durations, tti=durations, fails=st.booleans())
    def set_with(self, key, value, ttl, tti, fails):
        seen = []

        def change(present):
            seen.append(present)
            if fails:
                raise PlannedError
            return value

        expected = self.model.live_contents().get(key, MISSING)
        try:
            assert self.cache.set_with(key, change, MISSING, ttl=ttl, tti=tti) == value
        except PlannedError:
            assert fails
        self.after_call()
        # The look-up may have removed expired entries.
        self.model.account_for_removals()
        assert seen == [expected]
        if not fails:
            self.model.set_with(key, value, seconds(ttl), seconds(tti))

    @rule(key=keys, ttl=durations, tti=durations)
    def touch(self, key, ttl, tti):
        got = self.after_call(self.cache.touch(key, ttl, tti))
        assert got is self.model.touch(key, seconds(ttl), seconds(tti))

    @rule(key=keys)
    def peek(self, key):
        got = self.after_call(self.cache.peek(key)), self.after_call(self.cache.peek(key, MISSING))
        live = self.model.live_contents()
        assert got == (live.get(key), live.get(key, MISSING))

    @rule()
    def next_deadline(self):
        got, expected = self.cache.next_deadline(), self.model.next_deadline()
        # Without a listener, the model has removed expired entries before the cache does.
        if self.model.events is not None:
            assert (got is None) is (expected is None)
            assert got is None or 0 <= got <= expected

    @rule(key=keys, value=values, ttl=durations, fails=st.booleans())
    def get_with(self, key, value, ttl, fails):
        def compute():
            if fails:
                raise PlannedError
            return value

        try:
            got = self.cache.get_with(key, compute, ttl=ttl)
        except PlannedError:
            got = PlannedError
        self.after_call()
        # The look-up may have removed expired entries.
        self.model.account_for_removals()
        kept = self.model.access(key, MISSING)
        if kept is MISSING:
            self.model.counts["loads"] += 1
            self.model.counts["failures"] += fails
            kept = PlannedError if fails else value
            if not fails:
                self.model.write(key, value, seconds(ttl))
        assert got == kept

    @rule(key=keys, call=st.sampled_from(["remove", "pop", "del", "pop with default"]))
    def remove(self, key, call):
        try:
            if call == "remove":
                got = self.cache.remove(key, MISSING)
            elif call == "pop":
                got = self.cache.pop(key)
            elif call == "pop with default":
                got = self.cache.pop(key, MISSING)
            else:
                got = self.model.live_contents()[key] if key in self.model.live_contents() else MISSING
                del self.cache[key]
        except KeyError as error:
            assert call in ("pop", "del") and error.args == (key,)
            got = MISSING
        self.after_call()
        assert got == self.model.remove(key, MISSING)

    @rule()
    def popitem(self):
        try:
            key, value = self.cache.popitem()
        except KeyError:
            self.after_call()
            self.model.account_for_removals()
            assert not self.model.live_contents()
            return
        self.after_call()
        self.model.account_for_removals()
        assert self.model.remove(key, MISSING) == value

    @rule(requested=st.lists(keys))
    def get_many(self, requested):
        got = self.after_call(self.cache.get_many(iter(requested)))
        found = {}
        for key in requested:
            self.model.account_for_removals()
            value = self.model.access(key, MISSING)
            if value is not MISSING:
                found[key] = value
        assert list(got.items()) == list(found.items())

    @rule(
        pairs=st.lists(st.tuples(keys, values)),
        ttl=durations,
        tti=durations,
        call=st.sampled_from(["set_many", "set_many of a dict", "update", "update by names"]),
    )
    def set_many(self, pairs, ttl, tti, call):
        if call == "update":
            self.cache.update(pairs)
        elif call == "update by names":
            pairs = list({str(key): value for key, value in pairs}.items())
            self.cache.update(**dict(pairs))
        elif call == "set_many":
            self.cache.set_many(iter(pairs), ttl=ttl, tti=tti)
        else:
            pairs = list(dict(pairs).items())
            self.cache.set_many(dict(pairs), ttl, tti)
        if call.startswith("update"):
            ttl = tti = None
        self.after_call()
        for key, value in pairs:
            self.model.write(key, value, seconds(ttl), seconds(tti))

    @rule(requested=st.lists(keys))
    def remove_many(self, requested):
        got = self.after_call(self.cache.remove_many(requested))
        assert got == sum(self.model.remove(key, MISSING) is not MISSING for key in requested)

    @rule(picked=st.sets(keys), fails=st.booleans())
    def remove_if(self, picked, fails):
        live, requested, removed = self.model.live_contents(), {}, []

        def is_picked(key, value):
            assert key not in requested
            requested[key] = value
            if fails and len(requested) == 3:
                raise PlannedError
            if key in picked:
                removed.append(key)
            return key in picked

        try:
            got = self.cache.remove_if(is_picked)
            assert got == len(removed) and requested == live
        except PlannedError:
            assert len(requested) == 3 and requested.items() <= live.items()
        self.after_call()
        for key in removed:
            assert self.model.remove(key, MISSING) is not MISSING

    @rule()
    def clear(self):
        self.after_call(self.cache.clear())
        self.model.clear_all()
        assert self.model.events is not None or not list(self.cache)

    @rule(capacity=st.sampled_from([0, 1, 2, 4, 8, 20, 1000]))
    def resize(self, capacity):
        assert self.after_call(self.cache.resize(capacity)) is None
        assert self.cache.capacity == capacity
        # Before the first write, the capacity may choose another policy.
        self.model.is_exact &= self.is_lru or self.model.was_written
        self.model.resize(capacity)

    @rule(key=keys)
    def expires_in(self, key):
        got = self.after_call(self.cache.expires_in(key))
        assert got == self.model.expires_in(key)

    @rule(step=st.sampled_from(STEPS))
    def advance(self, step):
        self.clock.advance(step / SECOND)
        self.model.now += step

    @rule()
    def sizes(self):
        sizes = len(self.cache), self.cache.count(), self.cache.weighted_size(), bool(self.cache)
        self.after_call()
        self.model.check_nothing_expired()
        count = len(self.model.entries)
        assert sizes == (count, count, self.model.weight(), count > 0)

    @rule(resets=st.booleans())
    def stats(self, resets):
        got = self.after_call(self.cache.stats())
        self.model.check_nothing_expired()
        assert got.load_seconds >= 0
        assert got == self.model.stats(got.load_seconds)
        if resets:
            self.cache.reset_stats()
            self.model.counts.clear()

    @rule()
    def run_pending_tasks(self):
        self.after_call(self.cache.run_pending_tasks())
        self.model.check_nothing_expired()

    @rule(
        key=keys,
        value=values,
        call=st.sampled_from(["set", "setdefault", "get_with", "update", "set_many", "set_with"]),
    )
    def weigher_raises(self, key, value, call):
        if not self.has_weigher:
            return
        calls = {
            "set": lambda: self.cache.set(key, value),
            "setdefault": lambda: self.cache.setdefault(key, value),
            "set_with": lambda: self.cache.set_with(key, lambda _: value),
            "get_with": lambda: self.cache.get_with(key, lambda: value),
            "update": lambda: self.cache.update([(key, value)]),
            "set_many": lambda: self.cache.set_many({key: value}),
        }
        self.fails = True
        try:
            got = calls[call]()
        except PlannedError:
            got = PlannedError
        finally:
            self.fails = False
        self.after_call()
        kept = MISSING
        if call in ("setdefault", "get_with"):
            self.model.account_for_removals()
            kept = self.model.access(key, MISSING)
            if kept is MISSING and call == "get_with":
                self.model.counts["loads"] += 1
        assert got == (PlannedError if kept is MISSING else kept)

    @rule(
        call=st.sampled_from(
            [
                lambda cache: cache.get([]),
                lambda cache: cache.set({}, 1),
                lambda cache: cache.set(1, 1, ttl=-1),
                lambda cache: cache.set(1, 1, tti=0),
                lambda cache: cache.set_many([(1, 1)], ttl="soon"),
                lambda cache: cache.set_many([([], 1)]),
                lambda cache: cache.get_with(1, None),
                lambda cache: cache.get_with([], lambda: 1),
                lambda cache: cache.remove([]),
                lambda cache: cache.pop([], None),
                lambda cache: [] in cache,
                lambda cache: cache.remove_if(None),
                lambda cache: cache.expires_in([]),
                lambda cache: cache.peek([]),
                lambda cache: cache.touch([]),
                lambda cache: cache.touch(1, -1),
                lambda cache: cache.set_with([], str),
                lambda cache: cache.set_with(1, None),
                lambda cache: cache.set_with(1, str, tti=0),
                lambda cache: cache.update(3),
                lambda cache: cache.resize(-1),
            ]
        )
    )
    def invalid_call(self, call):
        with pytest.raises((TypeError, ValueError)):
            call(self.cache)
        self.after_call()

    @rule(changes=st.booleans())
    def remove_while_iterating(self, changes):
        live = self.model.live_contents()
        for key in self.cache:
            assert self.after_call(self.cache.pop(key)) == self.model.remove(key, MISSING) == live.pop(key)
        assert not live

    @invariant()
    def cache_agrees_with_the_model(self):
        self.model.check_no_event_left()
        live = self.model.live_contents()
        assert dict(self.cache.items()) == live
        assert sorted(map(repr, self.cache)) == sorted(map(repr, live))
        assert sorted(map(str, self.cache.values())) == sorted(map(str, live.values()))
        assert all((key in self.cache) == (key in live) == (key in self.cache.keys()) for key in KEYS)
        assert all(pair in self.cache.items() for pair in live.items())
        self.after_call()
        self.model.check_no_event_left()


@pytest.fixture
def unfrozen():
    """Let Hypothesis find what refers to its random generator. The collector shows no references of frozen objects."""
    gc.unfreeze()
    yield
    gc.freeze()


# MOKA_EXAMPLES sets the number of sequences.
EXAMPLES = int(os.environ.get("MOKA_EXAMPLES", "60"))
TestApi = pytest.mark.usefixtures("unfrozen")(pytest.mark.time_limit(120 + 2 * EXAMPLES)(CacheMachine.TestCase))
TestApi.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
