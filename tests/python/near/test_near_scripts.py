"""The scripts of the near cache do on a real server what the scripted server's functions do."""

import pytest
from near.near_caches import is_lease, payload

OTHER_LEASE = b"\xc1mk?" + b"0123456789abcdef"
OTHER_KINDS = [b"\xc1mk?" + b"too short", b"\xc1mk?" + b"too long" * 3, b"\xc1mk=json:0123456789abc", b""]


@pytest.fixture
def cache(client, near):
    return near(client, "n")


VOIDS = {
    "del": lambda client: client.delete("n:k"),
    "set": lambda client: client.set("n:k", payload("2")),
    "other lease": lambda client: client.set("n:k", OTHER_LEASE),
    "flush": lambda client: client.flushall(),
    "another kind": lambda client: client.pipeline().delete("n:k").set("n:k", b"").execute(),
}


@pytest.mark.parametrize("write", VOIDS.values(), ids=VOIDS)
@pytest.mark.parametrize("fails", [False, True])
def test_any_write_by_anyone_voids_a_lease(cache, client, write, fails):
    def load():
        assert is_lease(client.get("n:k"))
        write(client)
        load.expected = client.get("n:k")
        return object() if fails else "mine"

    if fails:
        with pytest.raises(TypeError):
            cache.get_with("k", load)
    else:
        assert cache.get_with("k", load) == "mine"
    assert client.get("n:k") == load.expected


def test_a_load_stores_its_value_with_its_lifetime(cache, client):
    assert cache.get_with("k", lambda: 1, ttl=50) == 1
    assert client.get("n:k") == payload("1")
    assert 0 < client.pttl("n:k") <= 50_000
    assert cache.get_with("l", lambda: 1, ttl=None) == 1
    assert client.pttl("n:l") == -1


def test_a_failed_load_frees_its_lease(cache, client):
    with pytest.raises(ZeroDivisionError):
        cache.get_with("k", lambda: 1 // 0)
    assert client.exists("n:k") == 0


def test_a_lease_is_no_value_for_add_and_touch(cache, client):
    client.set("n:k", OTHER_LEASE, px=5_000)
    assert not cache.touch("k", ttl=None)
    assert 0 < client.pttl("n:k") <= 5_000
    assert cache.add("k", 1, ttl=None)
    assert client.get("n:k") == payload("1")
    assert client.pttl("n:k") == -1


@pytest.mark.parametrize("value", OTHER_KINDS)
def test_what_only_resembles_a_lease_is_a_value_for_add_and_touch(cache, client, value):
    client.set("n:k", value)
    assert not cache.add("k", 1)
    assert cache.touch("k", ttl=5)
    assert client.get("n:k") == value
    assert 0 < client.pttl("n:k") <= 5_000


def test_a_key_of_another_kind_is_present_for_add(cache, client):
    client.rpush("n:k", "element")
    assert not cache.add("k", 1)
    assert client.type("n:k") == b"list"


def test_scripts_work_after_the_server_has_forgotten_them(cache, client):
    for key in ("a", "b"):
        client.script_flush()
        assert cache.get_with(key, lambda: 1) == 1
        assert client.get(f"n:{key}") == payload("1")
    assert cache.stats().remote_errors == 0
