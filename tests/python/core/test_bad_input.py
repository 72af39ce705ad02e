"""Bad input of every kind for every argument raises the right error, and leaves the cache unchanged."""

import decimal
import fractions
import re
from datetime import timedelta

import pytest
from helpers import MISSING, observable_state

from moka_py import Moka

NOT_POSITIVE = [
    0,
    -1,
    0.0,
    -0.0,
    -0.5,
    -5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    timedelta(0),
    timedelta(microseconds=-1),
    timedelta.min,
    -(10**400),
    False,
]
OUT_OF_RANGE = [10**400, 2**64, 1e300, 1e11, 86400 * 366 * 1001, timedelta.max, timedelta(days=366 * 1001)]
NO_DURATION = [
    "1",
    b"1",
    [1],
    (1,),
    {},
    1j,
    object(),
    decimal.Decimal(1),
    fractions.Fraction(1),
    NotImplemented,
]
# A ttl may be a function, a tti may not.
FUNCTIONS = [int, lambda: 1]
KINDS_OF_DURATIONS = {
    "ttl": "a number of seconds, a timedelta or a function",
    "tti": "a number of seconds or a timedelta",
}


def exactly(text):
    return f"^{re.escape(text)}$"


@pytest.fixture
def cache(events):
    cache = Moka(10, eviction_listener=events)
    cache.set("present", 1)
    cache.set("with a deadline", 2, ttl=1000)
    return cache


def name_of(value):
    return type(value).__name__


# The constructor.
@pytest.mark.parametrize("capacity", [-1, -2, -(2**63), -(2**64), -(10**400)])
@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_negative_capacity_is_refused(capacity, error):
    with pytest.raises(error, match=exactly(f"capacity must be at least 0, got {capacity}")):
        Moka(capacity)


def test_huge_negative_capacity_has_an_error_message():
    with pytest.raises(ValueError, match=exactly("capacity must be at least 0, got an int too long to print")):
        Moka(-(1 << 20_000))


def test_huge_negative_weight_has_an_error_message():
    cache = Moka(10, weigher=lambda key, value: value)
    for insert in (cache.set, cache.setdefault, lambda key, value: cache.get_with(key, lambda: value)):
        with pytest.raises(ValueError, match=exactly("weigher must return at least 0, got an int too long to print")):
            insert("key", -(1 << 20_000))


@pytest.mark.parametrize("capacity", [2**64, 2**64 + 1, 2**100, 10**400, 1 << 20_000], ids=int.bit_length)
@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_capacity_beyond_64_bits_is_refused(capacity, error):
    with pytest.raises(error, match=r"^capacity must be at most"):
        Moka(capacity)


@pytest.mark.parametrize("capacity", [1.0, "1", None, [], b"1", 1j, object(), decimal.Decimal(1), float("nan"), int])
def test_capacity_that_is_not_an_int_is_refused(capacity):
    with pytest.raises(TypeError, match=exactly(f"capacity must be an int, got {name_of(capacity)}")):
        Moka(capacity)


def test_missing_capacity_is_refused():
    with pytest.raises(TypeError, match="capacity"):
        Moka()


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("duration", NOT_POSITIVE, ids=repr)
def test_cache_duration_that_is_not_positive_is_refused(kind, duration):
    with pytest.raises(ValueError, match=exactly(f"{kind} must be positive and finite, got {duration!r}")):
        Moka(10, **{kind: duration})


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("duration", OUT_OF_RANGE, ids=lambda duration: repr(duration)[:30])
def test_cache_duration_that_is_out_of_range_is_refused(kind, duration):
    text = f"{kind} must be at most 1,000 years (out of range), got {duration!r}"
    with pytest.raises(ValueError, match=exactly(text)):
        Moka(10, **{kind: duration})


@pytest.mark.parametrize("duration", [1 << 20_000, -(1 << 20_000)], ids=["long", "negative"])
def test_huge_duration_has_an_error_message(duration):
    rule = "at most 1,000 years (out of range)" if duration > 0 else "positive and finite"
    with pytest.raises(ValueError, match=exactly(f"ttl must be {rule}, got an int too long to print")):
        Moka(10, ttl=duration)


@pytest.mark.parametrize(
    ("kind", "duration"),
    [(kind, duration) for kind in KINDS_OF_DURATIONS for duration in NO_DURATION]
    + [("tti", function) for function in FUNCTIONS],
    ids=lambda part: part if part in ("ttl", "tti") else name_of(part),
)
def test_cache_duration_of_a_wrong_type_is_refused(kind, duration):
    text = f"{kind} must be {KINDS_OF_DURATIONS[kind]}, got {name_of(duration)}"
    with pytest.raises(TypeError, match=exactly(text)):
        Moka(10, **{kind: duration})


@pytest.mark.parametrize("name", ["eviction_listener", "weigher"])
@pytest.mark.parametrize("thing", [1, "text", [], object(), 0, False, ""], ids=name_of)
def test_callback_that_is_not_callable_is_refused(name, thing):
    with pytest.raises(TypeError, match=exactly(f"{name} must be callable, got {name_of(thing)}")):
        Moka(10, **{name: thing})


@pytest.mark.parametrize("policy", ["x", "", "LRU", "lru ", "tiny-lfu", "tinylfu", "lfu", "lru\0", "é", "it's"])
def test_unknown_policy_is_refused(policy):
    with pytest.raises(ValueError, match=exactly(f'policy must be "tiny_lfu" or "lru", got {policy!r}')):
        Moka(10, policy=policy)


def test_unknown_policy_that_is_not_valid_unicode_is_refused():
    with pytest.raises(ValueError, match="policy must be"):
        Moka(10, policy="\ud800")


@pytest.mark.parametrize("policy", [None, 1, b"lru", ["lru"], object()], ids=name_of)
def test_policy_of_a_wrong_type_is_refused(policy):
    with pytest.raises(TypeError, match=exactly(f'policy must be "tiny_lfu" or "lru", got {name_of(policy)}')):
        Moka(10, policy=policy)


@pytest.mark.parametrize("flag", [None, 0, 1, "yes", object()], ids=name_of)
def test_long_lived_of_a_wrong_type_is_refused(flag):
    with pytest.raises(TypeError, match=exactly(f"long_lived must be a bool, got {name_of(flag)}")):
        Moka(10, long_lived=flag)


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((1, 2, 3, None, "lru", None, False, 1, None, 7), {}),
        ((1,), {"capacity": 1}),
        ((1,), {"maxsize": 1}),
        ((1,), {"name": "x"}),
        ((1, 2), {"ttl": 2}),
    ],
)
def test_constructor_refuses_unknown_arguments(args, options):
    with pytest.raises(TypeError):
        Moka(*args, **options)


def test_error_message_survives_an_argument_whose_repr_fails():
    class Odd:
        def __repr__(self):
            raise ZeroDivisionError

    for options in ({"ttl": Odd()}, {"policy": Odd()}, {"weigher": Odd()}):
        with pytest.raises(TypeError):
            Moka(10, **options)
    with pytest.raises(TypeError):
        Moka(Odd())


# Durations of an entry are checked before the key is hashed and before any callback runs.
class MustNotBeHashed:
    def __hash__(self):
        pytest.fail("hashed before the durations were checked")


def must_not_run(*_):
    pytest.fail("called before the durations were checked")


ENTRY_DURATIONS = (
    [(duration, ValueError, f"{{}} must be positive and finite, got {duration!r}") for duration in NOT_POSITIVE]
    + [
        (duration, ValueError, f"{{}} must be at most 1,000 years (out of range), got {duration!r}")
        for duration in OUT_OF_RANGE
    ]
    + [(duration, TypeError, "{} must be {}, got " + name_of(duration)) for duration in NO_DURATION]
)


@pytest.mark.parametrize("kind", ["ttl", "tti"])
@pytest.mark.parametrize("key", ["present", "absent", MustNotBeHashed(), []], ids=["present", "absent", "odd", "list"])
def test_wrong_duration_of_an_entry_is_refused_before_anything_else_happens(kind, key, events):
    guard = []
    cache = Moka(10, eviction_listener=events, weigher=lambda *_: must_not_run() if guard else 1)
    cache.set("present", 1)
    guard.append(True)
    before = observable_state(cache)
    functions = [(function, TypeError, "{} must be {}, got " + name_of(function)) for function in FUNCTIONS]
    for duration, error, text in ENTRY_DURATIONS + (functions if kind == "tti" else []):
        match = exactly(text.format(kind, KINDS_OF_DURATIONS[kind]))
        with pytest.raises(error, match=match):
            cache.set(key, 2, **{kind: duration})
        with pytest.raises(error, match=match):
            cache.get_with(key, must_not_run, **{kind: duration})
        assert (observable_state(cache), events) == (before, [])


def test_error_message_names_the_first_wrong_duration(cache):
    with pytest.raises(ValueError, match="ttl"):
        cache.set("present", 2, ttl=0, tti=1)
    with pytest.raises(ValueError, match="tti"):
        cache.set("present", 2, ttl=1, tti=0)
    with pytest.raises(ValueError, match="tti"):
        cache.set("present", 2, 1, 0)


# Keys.
UNHASHABLE = {
    "get": lambda cache, key: cache.get(key),
    "get with default": lambda cache, key: cache.get(key, MISSING),
    "subscript": lambda cache, key: cache[key],
    "set": lambda cache, key: cache.set(key, 1),
    "setitem": lambda cache, key: cache.__setitem__(key, 1),
    "remove": lambda cache, key: cache.remove(key, MISSING),
    "del": lambda cache, key: cache.__delitem__(key),
    "in": lambda cache, key: key in cache,
    "in keys": lambda cache, key: key in cache.keys(),
    "in items": lambda cache, key: (key, 1) in cache.items(),
    "pop": lambda cache, key: cache.pop(key, MISSING),
    "setdefault": lambda cache, key: cache.setdefault(key, 1),
    "update": lambda cache, key: cache.update([(key, 1)]),
    "get_with": lambda cache, key: cache.get_with(key, must_not_run),
    "expires_in": lambda cache, key: cache.expires_in(key),
}


@pytest.mark.parametrize("call", UNHASHABLE.values(), ids=UNHASHABLE)
@pytest.mark.parametrize(
    "key", [[], {}, set(), bytearray(), ([],), slice(0) if slice.__hash__ is None else {}], ids=repr
)
def test_unhashable_key_is_refused(call, key, cache, events):
    before = observable_state(cache)
    with pytest.raises(TypeError, match="unhashable type"):
        call(cache, key)
    assert (observable_state(cache), events) == (before, [])


def test_unhashable_key_is_refused_before_the_weigher_is_called():
    cache = Moka(10, weigher=must_not_run)
    with pytest.raises(TypeError, match="unhashable"):
        cache.set([], 1)


def test_empty_cache_refuses_an_unhashable_key():
    for call in UNHASHABLE.values():
        with pytest.raises(TypeError, match="unhashable"):
            call(Moka(0), [])


# The initializer.
@pytest.mark.parametrize("key", ["present", "absent", [], MustNotBeHashed()], ids=["present", "absent", "list", "odd"])
@pytest.mark.parametrize("initializer", [1, "text", None, [], object()], ids=name_of)
def test_initializer_that_is_not_callable_is_refused(key, initializer, cache, events):
    before = observable_state(cache)
    with pytest.raises(TypeError, match=exactly(f"initializer must be callable, got {name_of(initializer)}")):
        cache.get_with(key, initializer)
    with pytest.raises(TypeError, match="initializer must be callable"):
        cache.get_with(key, initializer, ttl=-1)
    assert (observable_state(cache), events) == (before, [])


def test_initializer_that_needs_arguments_raises_its_type_error(cache, events):
    before = observable_state(cache)
    with pytest.raises(TypeError, match="argument"):
        cache.get_with("absent", lambda one: 1)
    assert (observable_state(cache), events) == (before, [])


# Numbers and names of arguments.
WRONG_ARGUMENTS = {
    "get": [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2}), ((), {"default": 1})],
    "set": [((), {}), ((1,), {}), ((1, 2, 3, 4, 5), {}), ((1, 2), {"expire": 3}), ((1,), {"key": 1})],
    "get_with": [((), {}), ((1,), {}), ((1, list, 3, 4, 5), {}), ((1, list), {"default": 3})],
    "remove": [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2})],
    "pop": [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2})],
    "popitem": [((1,), {}), ((), {"last": True})],
    "setdefault": [((), {}), ((1, 2, 3), {})],
    "clear": [((1,), {})],
    "count": [((1,), {})],
    "weighted_size": [((1,), {})],
    "run_pending_tasks": [((1,), {})],
    "expires_in": [((), {}), ((1, 2), {})],
    "keys": [((1,), {})],
    "values": [((1,), {})],
    "items": [((1,), {})],
    "update": [(({}, {}), {})],
    "__getitem__": [((), {}), ((1, 2), {})],
    "__contains__": [((), {})],
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_methods_refuse_unknown_arguments(name, cache, events):
    before = observable_state(cache)
    for args, options in WRONG_ARGUMENTS[name]:
        with pytest.raises(TypeError):
            getattr(cache, name)(*args, **options)
        assert (observable_state(cache), events) == (before, [])


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_method_refuses_an_object_that_is_not_a_cache(name):
    for thing in ({}, None, 1, Moka):
        with pytest.raises(TypeError):
            getattr(Moka, name)(thing, "a", 1)


@pytest.mark.parametrize("other", [1, None, object(), [1], [(1,)], [(1, 2, 3)], ["abc"], [None]])
def test_update_refuses_an_object_without_pairs(other, cache, events):
    before = observable_state(cache)
    with pytest.raises((TypeError, ValueError)):
        cache.update(other)
    assert (observable_state(cache), events) == (before, [])


def test_unknown_attributes_raise_attribute_error(cache):
    with pytest.raises(AttributeError):
        cache.nothing
    with pytest.raises(AttributeError):
        cache.nothing = 1


def test_caches_cannot_be_ordered(cache):
    with pytest.raises(TypeError):
        cache < cache


def test_cache_is_not_a_sequence(cache):
    with pytest.raises(TypeError):
        reversed(cache)
    with pytest.raises(KeyError):
        cache[0]
    with pytest.raises(KeyError):
        cache[-1]
