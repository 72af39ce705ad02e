"""Keys, values and lifetimes, on a real server."""

import copy
import datetime
import json
import pickle

import pytest
from helpers import Events
from near.near_caches import payload, settle, wait_until

from moka_py.near import NearCache


@pytest.fixture
def cache(client, near):
    return near(client)


# --- Keys ---


def test_a_key_on_the_server_is_the_namespace_a_colon_and_the_key(cache, client, namespace):
    cache.set("a:b", 1)
    cache.set("ключ", 2)
    cache.set(b"\xff", 3)
    cache.set(-7, 4)
    assert set(client.keys()) == {f"{namespace}:".encode() + key for key in (b"a:b", "ключ".encode(), b"\xff", b"-7")}


def test_an_int_its_digits_and_their_bytes_are_one_key(cache, client, namespace):
    for key in (1, "1", b"1"):
        cache.set(key, [key if key != b"1" else None])
        settle(cache, client, namespace)
        assert cache.get(1) is cache.get("1") is cache.get(b"1")
    assert cache.get_many([1, "1", b"1", "2"]) == {1: [None], "1": [None], b"1": [None]}
    assert cache.remove("1")
    assert [cache.contains(key) for key in (1, "1", b"1")] == [False] * 3


def test_keys_that_are_not_utf_8_have_local_entries(cache, client, namespace):
    cache.set(b"\xff\xfe", "value")
    settle(cache, client, namespace)
    first = cache.get(b"\xff\xfe")
    hits = cache.stats().local.hits
    assert cache.get(b"\xff\xfe") is first
    assert cache.stats().local.hits == hits + 1
    cache.set(b"\xff\xfe", "other")
    assert cache.get(b"\xff\xfe") == "other"


class Number(int):
    pass


CALLS = {
    "get": lambda cache, key: cache.get(key),
    "get fresh": lambda cache, key: cache.get(key, fresh=True),
    "get_many": lambda cache, key: cache.get_many(["k", key]),
    "contains": lambda cache, key: cache.contains(key),
    "set": lambda cache, key: cache.set(key, 1),
    "set_many": lambda cache, key: cache.set_many([("k", 1), (key, 1)]),
    "add": lambda cache, key: cache.add(key, 1),
    "touch": lambda cache, key: cache.touch(key),
    "remove": lambda cache, key: cache.remove(key),
    "remove_many": lambda cache, key: cache.remove_many(["k", key]),
    "get_with": lambda cache, key: cache.get_with(key, lambda: 1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("key", [None, True, Number(1), 1.0, ("k",), bytearray(b"k")], ids=repr)
def test_other_types_are_no_keys(cache, client, call, key):
    with pytest.raises(TypeError, match=f"key must be a str, bytes or int, got {type(key).__name__}"):
        call(cache, key)
    assert client.dbsize() == 0


class Text(str):
    __slots__ = ()

    def __eq__(self, other):
        raise AssertionError("the subclass is not asked")

    __hash__ = None


def test_a_subclass_of_str_is_the_text_that_it_holds(cache, client, namespace):
    cache.set(Text("k"), [1])
    settle(cache, client, namespace)
    assert cache.get("k") is cache.get(Text("k")) is cache.get_with(Text("k"), list) is cache.get_with("k", list)
    assert cache.stats().remote_hits == 1


def test_a_text_without_utf_8_is_refused(cache):
    for call in CALLS.values():
        with pytest.raises(UnicodeEncodeError):
            call(cache, "\ud800")


# --- Values ---


def test_every_value_is_what_the_serializer_makes_of_the_payload(cache, client, namespace):
    cache.set("set", (1, 2))
    assert cache.get("set") == [1, 2]
    assert cache.get_with("loaded", lambda: {1: (2,)}) == {"1": [2]}
    assert cache.get("loaded") == {"1": [2]}
    assert client.get(f"{namespace}:loaded") == payload('{"1":[2]}')
    assert cache.get_with("set", lambda: None, fresh=True) == [1, 2]


def test_none_is_a_value(cache):
    cache.set("k", None)
    for _ in range(2):
        assert cache.get("k", "default") is None
        assert cache.contains("k")
        assert cache.get_with("k", lambda: 1) is None
        assert cache.get_many(["k", "absent"]) == {"k": None}


def test_an_absence_is_kept_locally(cache):
    assert cache.get("k", "default") == "default"
    misses = cache.stats().remote_misses
    assert cache.get("k", "other") == "other"
    assert cache.get("k") is None
    assert not cache.contains("k")
    assert cache.get_many(["k"]) == {}
    assert cache.stats().remote_misses == misses


def test_the_creation_of_an_absent_key_by_another_program_is_seen(cache, client, namespace):
    assert cache.get("k") is None
    client.set(f"{namespace}:k", payload('"new"'))
    wait_until(lambda: cache.get("k") == "new")


def test_a_value_that_cannot_be_serialized_is_not_written(cache, client):
    cache.set("k", 1)
    for call in (
        lambda: cache.set("k", object()),
        lambda: cache.add("other", object()),
        lambda: cache.set_many({"other": 1, "k": object()}),
        lambda: cache.get_with("other", object),
    ):
        with pytest.raises(TypeError, match="not JSON serializable"):
            call()
    assert cache.get("k") == 1
    assert client.dbsize() == 1


def test_the_default_path_never_unpickles(cache, client, namespace):
    exploded.clear()
    client.set(f"{namespace}:k", b"\xc1mk=pickle:" + pickle.dumps(Bomb()))
    assert cache.get("k", "default") == "default"
    assert cache.get_many(["k"]) == {}
    assert exploded == []
    pickle.loads(client.get(f"{namespace}:k").partition(b":")[2])
    assert exploded == [True]


exploded = []


def explode():
    exploded.append(True)


class Bomb:
    def __reduce__(self):
        return explode, ()


def test_pickle_is_an_explicit_choice(client, near, namespace):
    cache = near(client, serializer="pickle")
    cache.set("k", {1: (datetime.date(2026, 1, 1),)})
    assert cache.get("k") == {1: (datetime.date(2026, 1, 1),)}
    assert client.get(f"{namespace}:k").startswith(b"\xc1mk=pickle:")


def test_raw_values_stand_on_the_server_as_they_are(client, near, namespace):
    cache = near(client, serializer="raw")
    cache.set("k", b"\x00\xc1mk=json:1")
    assert client.get(f"{namespace}:k") == b"\x00\xc1mk=json:1"
    client.set(f"{namespace}:foreign", b"written by another program")
    assert cache.get("foreign") == b"written by another program"
    assert cache.get_with("loaded", lambda: b"abc") == b"abc" == client.get(f"{namespace}:loaded")
    with pytest.raises(TypeError, match='value must be bytes with serializer="raw", got str'):
        cache.set("k", "text")
    with pytest.raises(ValueError, match="value must not look like a lease"):
        cache.set("k", b"\xc1mk?" + bytes(16))


class Upper:
    name = "upper"

    @staticmethod
    def dumps(value):
        return value.upper().encode()

    @staticmethod
    def loads(data):
        return data.decode()


def test_a_serializer_of_the_user_has_its_name_in_the_header(client, near, namespace):
    cache = near(client, serializer=Upper)
    cache.set("k", "text")
    assert cache.get("k") == "TEXT"
    assert client.get(f"{namespace}:k") == b"\xc1mk=upper:TEXT"


def test_a_serializer_must_return_bytes(client, near):
    class Wrong(Upper):
        dumps = staticmethod(lambda value: "text")

    cache = near(client, serializer=Wrong)
    with pytest.raises(TypeError, match=r"serializer\.dumps must return bytes, got str"):
        cache.set("k", 1)


@pytest.mark.parametrize(
    "broken", [b"", b"text", b"\xc1mk=upper:X", b"\xc1mk=yaml:1", b"\xc1mk=json:{", b"\xc1mk=json:\xff"]
)
def test_a_payload_that_cannot_be_read_is_a_counted_miss(cache, client, namespace, broken):
    client.set(f"{namespace}:k", broken)
    assert cache.get("k", "default") == "default"
    assert cache.get_many(["k"]) == {}
    assert not cache.contains("k")
    stats = cache.stats()
    assert stats.decode_errors >= 1
    assert stats.remote_misses >= stats.decode_errors


@pytest.mark.parametrize("across", [True, False])
def test_get_with_replaces_a_payload_that_cannot_be_read(cache, client, namespace, across):
    client.set(f"{namespace}:k", b"broken")
    assert cache.get_with("k", lambda: 1, across=across) == 1
    assert client.get(f"{namespace}:k") == payload("1")
    assert client.pttl(f"{namespace}:k") > 0


@pytest.mark.parametrize("across", [True, False])
def test_get_with_replaces_only_the_bytes_that_it_has_read(cache, client, namespace, across):
    client.set(f"{namespace}:k", b"broken")

    def load():
        client.set(f"{namespace}:k", payload('"later"'))
        return "mine"

    assert cache.get_with("k", load, across=across) == "mine"
    assert client.get(f"{namespace}:k") == payload('"later"')


def test_decode_responses_does_not_matter(real_server, make_client, near, namespace):
    client = make_client(real_server, decode_responses=True)
    cache = near(client, serializer="pickle")
    cache.set_many({"k": b"\xff", "l": 1})
    assert cache.get("k") == b"\xff"
    assert cache.get("k", fresh=True) == b"\xff"
    assert cache.get_many(["k", "l"], fresh=True) == {"k": b"\xff", "l": 1}
    assert cache.get_with("k", lambda: None) == b"\xff"
    assert cache.get_with("m", lambda: 2) == 2
    assert not cache.add("k", 1)
    assert cache.touch("k")
    cache.clear()
    assert client.dbsize() == 0


def test_copy_is_applied_to_each_local_value(client, near):
    cache = near(client, copy=copy.deepcopy)
    cache.set("k", [1])
    for _ in range(3):
        cache.get("k").append(2)
        cache.get_many(["k"])["k"].append(2)
        cache.get_with("k", list).append(2)
    assert cache.get("k") == [1]


def test_without_copy_a_local_value_is_one_object(cache, client, namespace):
    cache.set("k", [1])
    settle(cache, client, namespace)
    assert cache.get("k") is cache.get("k") is cache.get_with("k", list) is cache.get_many(["k"])["k"]


def test_the_local_tier_has_a_capacity_and_a_weigher(client, near):
    weighed = Events()

    def weigh(key, value):
        weighed.append((key, value))
        return len(value)

    cache = near(client, capacity=10, weigher=weigh)
    cache.set_many({"a": "1234", "b": "1234", 3: "1234"})
    cache.get_many(["a", "b", 3, "absent"])
    assert cache.stats().local.weight <= 10
    assert set(weighed) == {("a", "1234"), ("b", "1234"), ("3", "1234")}


# --- Writes ---


def test_add_stores_only_what_the_server_does_not_have(cache, client, namespace):
    assert cache.add("k", 1)
    assert not cache.add("k", 2)
    assert cache.get("k") == 1
    assert 0 < client.pttl(f"{namespace}:k") <= 300_000


def test_set_many_takes_mappings_and_pairs(cache):
    cache.set_many({"a": 1, 2: 2})
    cache.set_many((key, key) for key in ["b", "c"])
    cache.set_many([])
    assert cache.get_many(["a", 2, "b", "c", "d"]) == {"a": 1, 2: 2, "b": "b", "c": "c"}
    with pytest.raises(TypeError, match="entries must be an iterable, got int"):
        cache.set_many(1)


def test_many_keys_are_read_written_and_removed_in_parts(cache, client):
    numbers = range(2_500)
    cache.set_many((number, number) for number in numbers)
    assert client.dbsize() == len(numbers)
    for fresh in (False, True, False):
        assert cache.get_many(numbers, fresh=fresh) == dict(zip(numbers, numbers, strict=True))
    assert cache.remove_many([*numbers, "absent"]) == len(numbers)
    assert cache.get_many(numbers) == {}


def test_remove_returns_whether_the_server_had_the_key(cache):
    cache.set("k", 1)
    assert cache.remove("k") is True
    assert cache.remove("k") is False
    assert cache.remove_many([]) == 0
    assert cache.get("k") is None


def test_clear_deletes_the_namespace_and_nothing_else(client, near):
    odd = near(client, "a*[b]?\\^-c")
    others = [near(client, name) for name in ("a*[b]?\\^-cd", "aX[b]?\\^-c", "ab", "axb?c")]
    for cache in [odd, *others]:
        cache.set_many({number: number for number in range(1_500)})
        assert cache.get(1) == 1
    odd.clear()
    assert odd.get(1) is None
    assert client.dbsize() == 1_500 * len(others)
    assert all(cache.get(1) == 1 for cache in others)


def test_clear_local_leaves_the_server_alone(cache, client, namespace):
    cache.set("k", 1)
    settle(cache, client, namespace)
    assert cache.get("k") == 1
    hits = cache.stats().remote_hits
    cache.clear_local()
    assert cache.get("k") == 1
    assert cache.stats().remote_hits == hits + 1


# --- Lifetimes ---


def test_a_value_lives_as_long_as_the_ttl_of_the_cache_or_of_the_call(client, near, namespace):
    cache = near(client, ttl=datetime.timedelta(seconds=100))

    def left(key):
        return client.pttl(f"{namespace}:{key}")

    cache.set("a", 1)
    cache.set("b", 1, 1.5)
    cache.set("c", 1, ttl=None)
    cache.set("d", 1, ttl=datetime.timedelta(milliseconds=70_500))
    cache.add("e", 1, ttl=50)
    cache.get_with("f", lambda: 1, ttl=40)
    cache.get_with("g", lambda: 1, 30, across=False)
    cache.set_many({"h": 1}, ttl=20)
    cache.get_with("i", lambda: 1)
    assert 99_000 < left("a") <= 100_000
    assert 0 < left("b") <= 1_500
    assert left("c") == -1
    assert 69_000 < left("d") <= 70_500
    assert 49_000 < left("e") <= 50_000
    assert 39_000 < left("f") <= 40_000
    assert 29_000 < left("g") <= 30_000
    assert 19_000 < left("h") <= 20_000
    assert 99_000 < left("i") <= 100_000
    assert cache.touch("c")
    assert 99_000 < left("c") <= 100_000
    assert cache.touch("c", ttl=None)
    assert left("c") == -1
    assert cache.touch("c", ttl=None)
    assert not cache.touch("absent")


def test_ttl_none_of_the_cache_is_no_deadline(client, near, namespace):
    cache = near(client, ttl=None)
    cache.set("k", 1)
    cache.get_with("l", lambda: 1)
    assert client.pttl(f"{namespace}:k") == client.pttl(f"{namespace}:l") == -1


@pytest.mark.parametrize("ttl", [0, -1, 0.0, float("nan"), float("inf"), datetime.timedelta(0), 10**400, -(10**400)])
def test_a_ttl_that_is_not_positive_is_refused_and_changes_nothing(cache, client, ttl):
    cache.set("k", 1)
    for call in (
        lambda: cache.set("k", 2, ttl),
        lambda: cache.set_many({"k": 2}, ttl),
        lambda: cache.add("new", 2, ttl),
        lambda: cache.touch("k", ttl),
        lambda: cache.get_with("new", lambda: 2, ttl),
        lambda: cache.get_with("new", lambda: 2, lease=ttl),
        lambda: cache.cached(key=str, ttl=ttl),
    ):
        with pytest.raises(ValueError, match=r"(ttl|lease) must be (positive and finite|at most 1,000 years)"):
            call()
    assert cache.get("k") == 1
    assert client.dbsize() == 1


@pytest.mark.parametrize("ttl", [True, "1", [1]])
def test_a_ttl_of_another_type_is_refused(cache, ttl):
    with pytest.raises(TypeError, match="ttl must be a number of seconds or a timedelta"):
        cache.set("k", 2, ttl)


def test_a_tiny_ttl_is_one_millisecond(cache, client, namespace):
    cache.set("k", 1, ttl=1e-9)
    assert client.pttl(f"{namespace}:k") <= 1


def test_local_ttl_bounds_a_local_entry(client, near, namespace, manual_clock):
    cache = near(client, local_ttl=10)
    cache.set("k", 1)
    settle(cache, client, namespace)
    assert cache.get("k") == 1
    hits = cache.stats().remote_hits
    manual_clock.advance(9.9)
    assert cache.get("k") == 1
    assert cache.stats().remote_hits == hits
    manual_clock.advance(0.2)
    assert cache.get("k") == 1
    assert cache.stats().remote_hits == hits + 1


def test_a_near_cache_as_a_context_manager_is_closed_at_its_end(client, namespace):
    with NearCache(client, namespace, ttl=1) as cache:
        cache.set("k", 1)
        assert json.dumps(cache.get("k")) == "1"
    with pytest.raises(ValueError, match="the near cache is closed"):
        cache.get("k")
