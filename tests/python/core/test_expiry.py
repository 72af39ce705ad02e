"""Time to live and time to idle, of the cache and of an entry."""

import time
from datetime import timedelta

import pytest
from helpers import IMMEDIATELY_DUE, MAX_CLOCK_SKEW, MISSING, Events, contents

from moka_py import Moka
from moka_py.testing import ManualClock

SHORT = 0.05


class Stopwatch:
    """Bounds of the time since a call, which hold however busy the machine is."""

    def __init__(self, call):
        self._before = time.monotonic()
        call()
        self._after = time.monotonic()

    def least(self):
        return time.monotonic() - self._after - MAX_CLOCK_SKEW

    def most(self):
        return time.monotonic() - self._before + MAX_CLOCK_SKEW


def assert_expires(cache, key, duration, since):
    """Assert that the key expires `duration` seconds after the call that `since` measured."""
    least = since.least()
    left = cache.expires_in(key)
    assert duration - since.most() <= left <= duration - least


LOOKS = {
    "in": lambda cache: "a" in cache,
    "len": lambda cache: len(cache) == 1,
    "expires_in": lambda cache: cache.expires_in("a") is not None,
    "items": lambda cache: list(cache.items()) == [("a", 1)],
    "get": lambda cache: cache.get("a", MISSING) is not MISSING,
}


# Law 8: time is exact. (A get restarts the time to idle, so it cannot observe that deadline.)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("ttl", "tti") for name in LOOKS if (kind, name) != ("tti", "get")],
)
def test_entry_exists_until_its_deadline_and_no_longer(kind, name):
    cache = Moka(10)
    watch = Stopwatch(lambda: cache.set("a", 1, **{kind: SHORT}))
    present = True
    while present:
        least = watch.least()
        present = LOOKS[name](cache)
        most = watch.most()
        assert not present or least < SHORT
    assert most >= SHORT


def cache_with(key, **durations):
    cache = Moka(10)
    cache.set(key, 1, **durations)
    return cache


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("place", ["cache", "entry"])
class TestPastItsDeadline:
    """Every method treats an expired entry as absent, whether maintenance has run or not (law 8)."""

    @pytest.fixture
    def events(self):
        return Events()

    @pytest.fixture
    def cache(self, kind, place, events):
        if place == "cache":
            cache = Moka(10, eviction_listener=events, **{kind: IMMEDIATELY_DUE})
            cache.set("a", 1)
        else:
            cache = Moka(10, eviction_listener=events)
            cache.set("a", 1, **{kind: IMMEDIATELY_DUE})
        return cache

    def test_get_is_a_miss(self, cache):
        assert cache.get("a", MISSING) is MISSING

    def test_subscript_raises(self, cache):
        with pytest.raises(KeyError):
            cache["a"]

    def test_in_is_false(self, cache):
        assert "a" not in cache

    def test_expires_in_is_none(self, cache):
        assert cache.expires_in("a") is None

    def test_remove_returns_the_default_and_the_cause_is_expired(self, cache, events):
        assert cache.remove("a", MISSING) is MISSING
        assert events == [("a", 1, "expired")]

    def test_pop_returns_the_default_and_the_cause_is_expired(self, cache, events):
        assert cache.pop("a", MISSING) is MISSING
        assert events == [("a", 1, "expired")]

    def test_pop_without_a_default_raises(self, cache):
        with pytest.raises(KeyError):
            cache.pop("a")

    def test_del_raises_and_the_cause_is_expired(self, cache, events):
        with pytest.raises(KeyError):
            del cache["a"]
        assert events == [("a", 1, "expired")]

    def test_popitem_raises(self, cache, events):
        with pytest.raises(KeyError):
            cache.popitem()
        assert events == [("a", 1, "expired")]

    def test_clear_reports_the_cause_expired(self, cache, events):
        cache.clear()
        assert events == [("a", 1, "expired")]

    def test_set_is_an_insert_and_the_old_cause_is_expired(self, cache, events):
        cache.set("a", 2)
        assert events[0] == ("a", 1, "expired")
        assert "replaced" not in events.causes()

    def test_setdefault_sets(self, cache):
        assert cache.setdefault("a", 2) == 2

    def test_get_with_computes(self, cache):
        assert cache.get_with("a", lambda: 2) == 2

    def test_counts_leave_it_out(self, cache):
        assert (cache.count(), len(cache), cache.weighted_size(), bool(cache)) == (0, 0, 0, False)

    def test_iteration_leaves_it_out(self, cache):
        assert (list(cache), list(cache.keys()), list(cache.values()), list(cache.items())) == ([],) * 4

    def test_views_leave_it_out(self, cache):
        assert "a" not in cache.keys() and 1 not in cache.values() and ("a", 1) not in cache.items()

    def test_run_pending_tasks_reports_it(self, cache, events):
        cache.run_pending_tasks()
        assert events == [("a", 1, "expired")]


def test_replacing_an_expired_entry_stores_the_new_key():
    cache = Moka(10)
    cache.set(1, "old", ttl=IMMEDIATELY_DUE)
    cache.set(1.0, "new")
    assert [type(key) for key in cache] == [float]


def test_entries_without_durations_do_not_expire():
    cache = cache_with("a")
    assert cache.expires_in("a") is None


def test_expires_in_of_an_absent_key_is_none():
    assert Moka(10, ttl=5).expires_in("a") is None


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("duration", [100, 100.5, timedelta(minutes=2), 0.75e9])
def test_expires_in_is_the_remaining_time(kind, duration):
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    of_cache = Moka(10, **{kind: duration})
    assert_left_of_cache = Stopwatch(lambda: of_cache.set("a", 1))
    assert_expires(of_cache, "a", seconds, assert_left_of_cache)
    of_entry = Moka(10)
    watch = Stopwatch(lambda: of_entry.set("a", 1, **{kind: duration}))
    assert_expires(of_entry, "a", seconds, watch)
    assert type(of_entry.expires_in("a")) is float


@pytest.mark.parametrize(
    ("of_cache", "of_entry", "seconds"),
    [
        ({"ttl": 100}, {"ttl": 200}, 100),
        ({"ttl": 200}, {"ttl": 100}, 100),
        ({"tti": 100}, {"tti": 200}, 100),
        ({"tti": 200}, {"tti": 100}, 100),
        ({"ttl": 100}, {"tti": 200}, 100),
        ({"ttl": 200}, {"tti": 100}, 100),
        ({"tti": 100}, {"ttl": 200}, 100),
        ({"tti": 200}, {"ttl": 100}, 100),
        ({"ttl": 400, "tti": 300}, {"ttl": 200, "tti": 100}, 100),
        ({}, {"ttl": 100, "tti": 200}, 100),
    ],
)
def test_earliest_deadline_wins(of_cache, of_entry, seconds):
    cache = Moka(10, **of_cache)
    watch = Stopwatch(lambda: cache.set("a", 1, **of_entry))
    assert_expires(cache, "a", seconds, watch)


def test_set_restarts_the_deadline(clock):
    cache = Moka(10, ttl=100)
    cache.set("a", 1)
    clock.advance(40)
    cache.set("a", 2)
    assert cache.expires_in("a") == 100


@pytest.mark.parametrize(
    "replace",
    [
        lambda cache: cache.set("a", 2),
        lambda cache: cache.__setitem__("a", 2),
        lambda cache: cache.update(a=2),
        lambda cache: (cache.remove("a"), cache.set("a", 2)),
    ],
    ids=["set", "setitem", "update", "remove"],
)
@pytest.mark.parametrize("kind", ["ttl", "tti"])
def test_replacing_forgets_the_durations_of_the_old_entry(replace, kind):
    cache = cache_with("a", **{kind: 100})
    replace(cache)
    assert cache.expires_in("a") is None


def test_set_can_shorten_and_lengthen_the_deadline():
    cache = Moka(10)
    for seconds in (100, 50, 200):
        watch = Stopwatch(lambda: cache.set("a", 1, ttl=seconds))
        assert_expires(cache, "a", seconds, watch)


def test_shortened_entry_expires_at_its_new_deadline():
    cache = cache_with("a", ttl=1000)
    cache.set("a", 2, ttl=IMMEDIATELY_DUE)
    assert len(cache) == 0


def test_lengthened_entry_outlives_its_old_deadline(clock):
    cache = Moka(10)
    cache.set("a", 1, ttl=10)
    cache.set("a", 2, ttl=1000)
    clock.advance(20)
    cache.run_pending_tasks()
    assert contents(cache) == {"a": 2}


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.get("a"),
        lambda cache: cache["a"],
        lambda cache: cache.get_with("a", list),
        lambda cache: cache.setdefault("a", 5),
        lambda cache: cache.set("a", 1),
    ],
    ids=["get", "subscript", "get_with", "setdefault", "set"],
)
def test_access_restarts_the_time_to_idle(use, clock):
    cache = Moka(10, tti=100)
    cache.set("a", 1)
    clock.advance(40)
    use(cache)
    assert cache.expires_in("a") == 100


@pytest.mark.parametrize(
    "look",
    [
        lambda cache: "a" in cache,
        lambda cache: cache.expires_in("a"),
        list,
        lambda cache: list(cache.items()),
        lambda cache: list(cache.values()),
        lambda cache: 1 in cache.values(),
        lambda cache: ("a", 1) in cache.items(),
        repr,
        len,
        lambda cache: cache.run_pending_tasks(),
    ],
    ids=["in", "expires_in", "iter", "items", "values", "in values", "in items", "repr", "len", "run"],
)
def test_calls_that_are_not_accesses_leave_the_time_to_idle(look, clock):
    cache = Moka(10, tti=100)
    cache.set("a", 1)
    clock.advance(40)
    look(cache)
    assert cache.expires_in("a") == 60


def test_access_restarts_the_time_to_idle_of_an_entry(clock):
    cache = cache_with("a", tti=100)
    clock.advance(40)
    cache.get("a")
    assert cache.expires_in("a") == 100


def test_access_leaves_the_time_to_live(clock):
    cache = Moka(10, tti=200, ttl=100)
    cache.set("a", 1)
    clock.advance(40)
    cache.get("a")
    assert cache.expires_in("a") == 60


def test_accessed_entry_outlives_its_first_idle_deadline(clock):
    cache = cache_with("a", tti=100)
    for _ in range(10):
        clock.advance(99)
        assert cache.get("a") == 1
    clock.advance(100)
    assert cache.get("a") is None


def test_idle_entry_expires_while_another_is_accessed(clock):
    cache = Moka(10, tti=100)
    cache.set("idle", 1)
    for _ in range(2):
        cache.setdefault("used", 2)
        clock.advance(50)
    assert contents(cache) == {"used": 2}
    assert cache.get("idle") is None


@pytest.mark.parametrize("tiny", [1e-9, 1e-10, 1e-300, 5e-324, timedelta(microseconds=1)])
def test_tiny_duration_is_accepted(tiny, clock):
    cache = cache_with("a", ttl=tiny)
    clock.advance(0.001)
    assert cache.get("a") is None


@pytest.mark.parametrize("long", [86400 * 365 * 999, timedelta(days=365 * 999), 86400.0 * 365 * 999])
def test_long_duration_is_accepted(long):
    cache = cache_with("a", ttl=long, tti=long)
    assert cache.get("a") == 1
    assert cache.expires_in("a") == pytest.approx(86400 * 365 * 999, abs=120)


YEAR = 365.25 * 86400


@pytest.mark.parametrize("years", [72, 74, 143, 145, 292, 585, 900, 1000])
@pytest.mark.parametrize("kind", ["ttl", "tti"])
def test_expires_in_of_a_long_duration_is_exact(kind, years):
    with ManualClock() as clock:
        cache = Moka(10, **{kind: years * YEAR})
        entries = Moka(10)
    cache["a"] = 1
    entries.set("a", 1, **{kind: years * YEAR})
    for one in (cache, entries):
        assert one.expires_in("a") == pytest.approx(years * YEAR, abs=1e-5)
    clock.advance(10 * YEAR)
    for one in (cache, entries):
        assert one.expires_in("a") == pytest.approx((years - 10) * YEAR, abs=1e-3)
        assert one["a"] == 1
        left = years * YEAR if kind == "tti" else (years - 10) * YEAR
        assert one.expires_in("a") == pytest.approx(left, abs=1e-3)


def test_expires_in_is_the_sooner_of_two_long_deadlines():
    with ManualClock() as clock:
        cache = Moka(10, ttl=900 * YEAR, tti=800 * YEAR)
    cache["a"] = 1
    cache.set("b", 1, ttl=500 * YEAR)
    cache.set("c", 1, ttl=950 * YEAR, tti=999 * YEAR)
    cache.set("d", 1, tti=30)
    left = [cache.expires_in(key) for key in "abcd"]
    assert left == pytest.approx([800 * YEAR, 500 * YEAR, 800 * YEAR, 30], abs=1e-5)
    clock.advance(140 * YEAR)
    assert cache["a"] == 1 and "d" not in cache
    assert [cache.expires_in(key) for key in "abcd"] == [
        pytest.approx(760 * YEAR, abs=1e-3),
        pytest.approx(360 * YEAR, abs=1e-3),
        pytest.approx(660 * YEAR, abs=1e-3),
        None,
    ]


def test_manual_clock_refuses_to_advance_beyond_its_end():
    with ManualClock() as clock:
        cache = Moka(10, ttl=100 * YEAR)
    cache["a"] = 1
    for years in (144, 999):
        with pytest.raises(OverflowError, match=rf"seconds must keep the clock below 144 years, got {years * YEAR}"):
            clock.advance(years * YEAR)
    clock.advance(100 * YEAR)
    assert "a" not in cache


def test_get_with_sets_durations_on_a_miss():
    cache = Moka(10)
    watch = Stopwatch(lambda: cache.get_with("a", lambda: 1, ttl=100))
    assert_expires(cache, "a", 100, watch)
    watch = Stopwatch(lambda: cache.get_with("b", lambda: 1, tti=100))
    assert_expires(cache, "b", 100, watch)


def test_get_with_leaves_the_deadline_on_a_hit():
    cache = Moka(10)
    watch = Stopwatch(lambda: cache.set("a", 1, ttl=100))
    cache.get_with("a", list, ttl=5)
    assert_expires(cache, "a", 100, watch)


def test_time_to_live_starts_after_the_computation(clock):
    cache = Moka(10, ttl=100)
    cache.get_with("a", lambda: clock.advance(40))
    assert cache.expires_in("a") == 100


def test_setdefault_of_an_absent_key_uses_the_durations_of_the_cache():
    cache = Moka(10, ttl=100)
    watch = Stopwatch(lambda: cache.setdefault("a", 1))
    assert_expires(cache, "a", 100, watch)
