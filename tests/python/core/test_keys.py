"""Keys are equal as in a dict: by hash and equality, and identity counts as equality."""

import datetime
import decimal
import enum
import fractions
import random

import pytest
from helpers import MISSING, Key, contents

from moka_py import Moka


class Text(str):
    pass


class Shouting(str):
    """A str that equals its upper-case form."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return str.__eq__(self.upper(), other)


class Number(int):
    pass


class Colour(enum.Enum):
    RED = 1


EQUAL = [
    (1, 1.0),
    (1, True),
    (0, False),
    (0, -0.0),
    (2**70, int(str(2**70))),
    (2**70, float(2**70)),
    (-(2**62), int(str(-(2**62)))),
    (10**5, int("100000")),
    ("a longer text", "".join(["a longer ", "text"])),
    ("é", "\u00e9"),
    ("текст", "".join(["тек", "ст"])),
    ("\ud800", "".join(["\ud800"])),
    ("\U0001f600", "".join(["\U0001f600"])),
    ("text", Text("text")),
    (Text("text"), "text"),
    (5, Number(5)),
    (Number(5), 5),
    (b"bytes", bytes(bytearray(b"bytes"))),
    (b"", bytes(0)),
    ((1, "a", (2.0, None)), (1.0, "a", (2, None))),
    (frozenset({1, 2}), frozenset([2, 1])),
    (decimal.Decimal("1.5"), fractions.Fraction(3, 2)),
    (1.5, decimal.Decimal("1.5")),
    (1 + 0j, 1),
    (datetime.date(2020, 1, 1), datetime.date.fromisoformat("2020-01-01")),
    (range(0, 3, 2), range(0, 4, 2)),
    (memoryview(b"ab"), b"ab"),
    (Key("a"), Key("a")),
]
UNEQUAL = [
    (1, "1"),
    ("a", b"a"),
    (1, 2),
    (-1, -2),
    (0, None),
    (0, ""),
    (1, 1.5),
    (0, 2**61 - 1),
    (1, 2**61),
    (2.0**53, 2**53 + 1),
    ("a", "A"),
    ("é", "e\u0301"),
    ("\ud800", "\udc00"),
    ("a", "a\0"),
    (b"a", b"a\0"),
    ("ab", "ba"),
    # Strings of equal bytes, whose characters have other widths. On little-endian systems their hashes are equal.
    ("AB", "\u4241"),
    ("AB\1\0", "\U00014241"),
    ("\u4241\1", "\U00014241"),
    ((1, 2), (2, 1)),
    ((), frozenset()),
    (Colour.RED, 1),
    (Shouting("a"), "a"),
    (Key("a"), Key("b")),
    (Key("a", 1), Key("b", 1)),
    (Key("a"), "a"),
    (Key(1, 1), 1),
    (None, False),
    (str, int),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_keys_share_an_entry(one, other):
    assert one == other and hash(one) == hash(other)
    cache = Moka(10)
    cache.set(one, "first")
    assert other in cache
    assert (cache.get(other), cache[other]) == ("first", "first")
    assert cache.get_with(other, list) == "first"
    cache.set(other, "second")
    assert contents(cache) == {one: "second"}
    assert next(iter(cache)) is one
    assert cache.remove(other) == "second"
    assert len(cache) == 0


@pytest.mark.parametrize(("one", "other"), UNEQUAL + [(other, one) for one, other in UNEQUAL])
def test_unequal_keys_have_separate_entries(one, other):
    cache = Moka(10)
    cache.set(one, "first")
    assert other not in cache
    assert cache.get(other, MISSING) is MISSING
    assert cache.remove(other, MISSING) is MISSING
    cache.set(other, "second")
    assert (cache.get(one), cache.get(other), len(cache)) == ("first", "second", 2)
    cache.remove(one)
    assert (cache.get(one), cache.get(other), len(cache)) == (None, "second", 1)


def test_identity_counts_as_equality():
    nan = float("nan")
    cache = Moka(10)
    cache.set(nan, 1)
    assert cache.get(nan) == 1
    assert cache.get(float("nan"), MISSING) is MISSING
    cache.set(float("nan"), 2)
    assert len(cache) == 2


def test_eq_of_a_str_subclass_is_called():
    cache = Moka(10)

    class Loose(str):
        def __hash__(self):
            return 7

        def __eq__(self, other):
            return self.lower() == str(other).lower()

    cache.set(Loose("Text"), 1)
    assert cache.get(Loose("tEXT")) == 1


def test_key_is_held_by_reference():
    key = [Key("a")]
    cache = Moka(10)
    cache.set(key[0], 1)
    assert next(iter(cache)) is key[0]


@pytest.mark.parametrize("hash_", [0, 1, -2, 2**61 - 2, 2**62, -(2**62), 2**63 - 1])
def test_keys_of_equal_hash_are_distinguished(hash_):
    cache = Moka(1000)
    keys = [Key(number, hash_) for number in range(200)]
    for key in keys:
        cache.set(key, key.name)
    assert len(cache) == 200
    for number in range(200):
        assert cache.get(Key(number, hash_)) == number
    for number in range(0, 200, 2):
        assert cache.remove(Key(number, hash_)) == number
    for number in range(200):
        assert cache.get(Key(number, hash_)) == (number if number % 2 else None)
    assert len(cache) == 100
    assert cache.get(Key(200, hash_), MISSING) is MISSING


def test_ints_of_equal_hash_are_distinguished():
    modulus = 2**61 - 1
    cache = Moka(1000)
    for number in range(300):
        cache.set(number * modulus, number)
    assert [cache.get(number * modulus) for number in range(300)] == list(range(300))


@pytest.mark.parametrize("shift", [0, 3, 6, 7, 8, 16, 20, 32, 40, 48, 54, 57, 60])
def test_strided_ints_are_fast(shift):
    """A map that does not mix the bits of its hashes would take hours here."""
    cache = Moka(200_000)
    for number in range(100_000):
        cache.set(number << shift, number)
    assert len(cache) == 100_000
    assert all(cache.get(number << shift) == number for number in range(100_000))


@pytest.mark.parametrize("low", [0, 0x7F, 0xFFFF])
def test_ints_of_equal_low_bits_are_fast(low):
    cache, dice = Moka(200_000), random.Random(low)
    keys = {dice.randrange(2**44) << 16 | low for _ in range(50_000)}
    for key in keys:
        cache.set(key, key)
    assert all(cache.get(key) == key for key in keys)


def test_map_stays_fast_while_keys_are_added_and_removed():
    """A map that keeps tombstones of removed entries would become slower and slower."""
    cache = Moka(100)
    for number in range(200_000):
        cache.set(number, number)
    assert sorted(cache.values())[-1] == 199_999
    for number in range(100_000):
        cache.set("in and out", number)
        cache.remove("in and out")
    assert "in and out" not in cache


# Keys that are hashed and compared without Python code, alone and in tuples, and keys that are not.
BUILTIN = [
    0,
    1,
    -1,
    -2,
    2**70,
    -(2**70),
    "a",
    "é",
    "x" * 50,
    b"ab",
    1.5,
    1.0,
    -0.0,
    float("inf"),
    True,
    None,
    (),
    (1, "a"),
]


class TupleWithEq(tuple):
    """A tuple that equals any tuple of its hash."""

    __hash__ = tuple.__hash__

    def __eq__(self, other):
        return True


@pytest.mark.parametrize("seed", range(4))
def test_tuples_and_other_builtin_keys_behave_as_in_a_dict(seed):
    dice = random.Random(seed)
    cache, naive = Moka(10**6), {}
    for step in range(20_000):
        items = (dice.choice(BUILTIN) for _ in range(dice.choice([0, 1, 2, 2, 3, 5])))
        key = dice.choice(BUILTIN) if dice.random() < 0.3 else tuple(items)
        match dice.randrange(4):
            case 0:
                cache.set(key, step)
                naive[key] = step
            case 1:
                assert cache.remove(key, MISSING) == naive.pop(key, MISSING), (seed, key)
            case _:
                assert cache.get(key, MISSING) == naive.get(key, MISSING), (seed, key)
    assert dict(cache.items()) == naive, seed


@pytest.mark.parametrize("items", [(), (1,), (-1, "a"), (2**70, b"ab", 1.5), ("é", "\U0001f600", -2, 0)])
def test_a_look_up_leaves_a_tuple_with_the_hash_of_the_interpreter(items):
    cache, key = Moka(10), (*items,)
    assert cache.get(key, MISSING) is MISSING
    assert hash(key) == hash((*items,))
    assert {key: 1}[(*items,)] == 1


@pytest.mark.parametrize("make", [lambda item: (item, 1), lambda item: ((1, "a"), item)])
def test_a_tuple_that_keeps_its_hash_is_found_by_the_eq_of_its_items(make):
    one, other, third = make(Key("a")), make(Key("a")), make(Key("b", hash("a")))
    assert len({hash(one), hash(other)}) == 1
    cache = Moka(10)
    cache.set(one, 1)
    assert (cache.get(one), cache.get(other), cache.get(third)) == (1, 1, None)
    cache.set(other, 2)
    assert contents(cache) == {one: 2}


def test_nan_is_found_by_identity_also_in_a_tuple():
    nan = float("nan")
    cache = Moka(10)
    cache.set(nan, 1)
    cache.set((nan, 1), 2)
    assert (cache.get(nan), cache.get((nan, 1))) == (1, 2)
    assert (cache.get(float("nan")), cache.get((float("nan"), 1))) == (None, None)


def test_eq_of_a_tuple_subclass_is_called():
    cache = Moka(10)
    cache.set(TupleWithEq((1, 2)), "pair")
    assert cache.get((1, 2)) == "pair"
    cache.clear()
    cache.set((1, 2), "tuple")
    assert cache.get(TupleWithEq((1, 2))) == "tuple"


def test_deeply_nested_tuples_can_be_keys():
    key = ()
    for _ in range(10_000):
        key = (key,)
    cache = Moka(10)
    cache.set(key, 1)
    assert cache.get(key) == 1
