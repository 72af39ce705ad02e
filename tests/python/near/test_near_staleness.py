"""The bound of staleness: the protocol between a near cache and its server, step by step.

The local entries are on a clock that the test moves, and the server holds each message that matters.
"""

import json

import pytest
from helpers import Background
from near.near_caches import catch, fill, make_near_cache, pass_two_pings, payload, settle, wait_until, write
from near.resp import Failure

from moka_py.near import NearCache

STALENESS = 10.0


@pytest.fixture
def cache(server, scripted_client, near, manual_clock, paced):
    """A near cache whose entries are valid for 10 seconds after the last PING but one."""
    return near(scripted_client, "n", max_staleness=STALENESS)


# --- Rule 1 ---


def test_a_local_hit_asks_nothing(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    commands = server.count("GET") + server.count("MGET") + server.count("PTTL")
    for _ in range(10):
        assert cache.get("k") == "old"
        assert cache.get_many(["k"]) == {"k": "old"}
        assert cache.contains("k")
        assert cache.get_with("k", lambda: "other") == "old"
    assert server.count("GET") + server.count("MGET") + server.count("PTTL") == commands


def test_a_write_by_another_program_is_applied(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    write(server, "k", '"new"')
    wait_until(lambda: cache.get("k") == "new")


@pytest.mark.parametrize("command", [("DEL", "n:k"), ("PEXPIRE", "n:k", "1"), ("FLUSHALL",), ("FLUSHDB",)], ids=str)
def test_a_removal_by_another_program_is_applied(cache, server, scripted_client, command):
    fill(cache, server, scripted_client)
    server.do(*command)
    server.advance(1)
    wait_until(lambda: cache.get("k", "absent") == "absent")


def test_the_local_tier_stops_answering_at_its_deadline(cache, server, scripted_client, manual_clock):
    fill(cache, server, scripted_client)
    pass_two_pings(server)
    with server.hold("PING", tracking=True) as hold:
        hold.wait()
        server.hold_pushes()
        write(server, "k", '"new"')
        manual_clock.advance(STALENESS - 0.001)
        assert cache.is_coherent
        assert cache.get("k") == "old"
        manual_clock.advance(0.001)
        assert not cache.is_coherent
        assert cache.get("k") == "new"
        assert cache.get_many(["k"]) == {"k": "new"}
        assert cache.get_with("k", lambda: "other") == "new"
    server.release_pushes()
    wait_until(lambda: cache.is_coherent)
    assert cache.get("k") == "new"


def test_a_pong_that_overtakes_an_invalidation_does_not_count_from_its_own_ping(
    cache, server, scripted_client, manual_clock
):
    fill(cache, server, scripted_client)
    with server.hold("PING", tracking=True) as first:
        # It is sent and executed at time 0.
        first.execute()
        second = server.hold("PING", tracking=True)
        server.hold_pushes()
        manual_clock.advance(0.5)
        write(server, "k", '"new"')
        manual_clock.advance(0.5)
        first.release()
    with second:
        # It is sent at time 1, and its PONG comes before the invalidation of the write at time 0.5.
        second.wait()
        third = server.hold("PING", tracking=True)
        second.release()
    with third:
        third.wait()
        manual_clock.advance(STALENESS - 1 + 0.7)
        # It is 10.7 now, so the write of 0.5 must be seen.
        assert cache.get("k") == "new"
        server.release_pushes()


def test_two_pongs_in_a_row_move_the_deadline_on(cache, server, scripted_client, manual_clock):
    fill(cache, server, scripted_client)
    for _ in range(3):
        manual_clock.advance(STALENESS - 1)
        pass_two_pings(server)
        assert cache.get("k") == "old"
    assert cache.stats().seconds_incoherent == 0
    assert server.count("GET", "n:k") == 1


def test_the_seconds_in_which_the_tier_cannot_answer_are_counted(cache, server, manual_clock):
    pass_two_pings(server)
    with server.hold("PING", tracking=True) as hold:
        hold.wait()
        manual_clock.advance(STALENESS + 5)
        assert cache.stats().seconds_incoherent == pytest.approx(5)
    wait_until(lambda: cache.is_coherent)
    assert cache.stats().seconds_incoherent == pytest.approx(5)


@pytest.mark.parametrize("error", ["BUSY Redis is busy running a script", "ERR something", "NOPERM no permissions"])
def test_an_error_reply_is_no_pong(cache, server, scripted_client, manual_clock, error):
    fill(cache, server, scripted_client)
    pass_two_pings(server)
    with server.hold("PING", tracking=True) as hold:
        hold.wait()
        server.hold_pushes()
        write(server, "k", '"new"')
        manual_clock.advance(STALENESS / 2)
        answer = server.answer("PING", reply=Failure(error), tracking=True)
        hold.reply(Failure(error))
    pass_two_pings(server)
    manual_clock.advance(STALENESS / 2)
    assert not cache.is_coherent
    assert cache.get("k") == "new"
    server.release_pushes()
    server.forget(answer)
    wait_until(lambda: cache.is_coherent)
    assert cache.get("k") == "new"


def test_an_error_reply_voids_the_ping_before_it(cache, server, scripted_client, manual_clock):
    fill(cache, server, scripted_client)
    with server.hold("PING", tracking=True) as first:
        # It is sent at 0, and its PONG comes at 5.
        first.wait()
        manual_clock.advance(STALENESS / 2)
        second = server.hold("PING", tracking=True)
        first.release()
    with second:
        second.wait()
        bad = server.hold("PING", tracking=True)
        # With this PONG, entries are valid until 10. The next one would make that 15.
        second.release()
    with bad:
        bad.wait()
        after = server.hold("PING", tracking=True)
        bad.reply(Failure("BUSY Redis is busy running a script"))
    with after:
        after.wait()
        last = server.hold("PING", tracking=True)
        after.release()
    with last:
        # One PONG has come since the error, and that is not enough.
        last.wait()
        manual_clock.advance(STALENESS / 2 - 0.001)
        assert cache.is_coherent
        manual_clock.advance(1)
        assert not cache.is_coherent


# --- Fills ---


FILLS = {
    "get": ("GET", lambda cache: cache.get("k")),
    "get_many": ("MGET", lambda cache: cache.get_many(["k"])["k"]),
    "get_with": ("SET", lambda cache: cache.get_with("k", lambda: "mine")),
    "get_with without a lease": ("GET", lambda cache: cache.get_with("k", lambda: "mine", across=False)),
}


@pytest.mark.parametrize(("command", "read"), FILLS.values(), ids=FILLS)
def test_an_invalidation_keeps_out_the_fill_that_began_before_it(cache, server, scripted_client, command, read):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold(command, "n:k") as hold:
        with Background(lambda: read(cache)) as reader:
            hold.execute()
            write(server, "k", '"new"')
            settle(cache, scripted_client, "n")
            hold.release()
    assert reader.result == "old"
    assert cache.get("k") == "new"
    assert cache.stats().superseded_fills >= 1


def test_a_flush_keeps_out_the_fill_that_began_before_it(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.execute()
        server.do("FLUSHALL")
        settle(cache, scripted_client, "n")
        hold.release()
    assert reader.result == "old"
    assert cache.get("k") is None
    assert cache.stats().flushes == 1


def test_a_fill_without_a_change_is_kept(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.execute()
        write(server, "other", '"new"')
        settle(cache, scripted_client, "n")
        hold.release()
    assert reader.result == cache.get("k") == "old"
    assert server.count("GET", "n:k") == 1


def get_twice_with_a_slow_fetch(cache, server, client, clock, seconds):
    """Get a value that the server keeps for five seconds. The first fetch takes so many seconds."""
    server.do("SET", "n:k", payload('"old"'), "PX", "5000")
    settle(cache, client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.wait()
        clock.advance(seconds)
        hold.release()
    assert reader.result == "old"
    pass_two_pings(server)
    assert cache.get("k") == "old"


def test_the_lifetime_of_the_server_is_counted_from_the_time_of_sending(cache, server, scripted_client, manual_clock):
    get_twice_with_a_slow_fetch(cache, server, scripted_client, manual_clock, seconds=4)
    assert server.count("GET", "n:k") == 1
    manual_clock.advance(1)
    pass_two_pings(server)
    assert cache.get("k") == "old"
    assert server.count("GET", "n:k") == 2


def test_a_value_whose_lifetime_ends_during_its_fetch_is_not_kept(cache, server, scripted_client, manual_clock):
    get_twice_with_a_slow_fetch(cache, server, scripted_client, manual_clock, seconds=5)
    assert server.count("GET", "n:k") == 2


@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_the_lifetime_is_read_before_the_value(cache, server, scripted_client, many):
    server.do("SET", "n:k", payload('"old"'), "PX", "1000")
    settle(cache, scripted_client, "n")
    command = "MGET" if many else "GET"
    with server.hold(command, "n:k") as hold:
        with Background(lambda: cache.get_many(["k"]) if many else cache.get("k")):
            hold.wait()
            assert server.count("PTTL", "n:k") == 1
            hold.release()


def test_a_key_that_came_between_its_lifetime_and_its_value_is_not_kept(cache, server, scripted_client):
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.wait()
        server.hold_pushes()
        server.do("SET", "n:k", payload('"new"'), "PX", "1000")
        hold.release()
    assert reader.result == "new"
    assert cache.get("k") == "new"
    assert server.count("GET", "n:k") == 2
    server.release_pushes()


# --- Rule 2 ---


WRITES = {
    "set": lambda cache: cache.set("k", "new"),
    "set_many": lambda cache: cache.set_many({"k": "new"}),
    "remove": lambda cache: cache.remove("k"),
    "remove_many": lambda cache: cache.remove_many(["k"]),
    "touch": lambda cache: cache.touch("k"),
    "add": lambda cache: cache.add("k", "new"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_no_later_call_returns_an_older_value_than_an_own_write(cache, server, scripted_client, call):
    fill(cache, server, scripted_client)
    server.hold_pushes()
    if call is WRITES["add"]:
        server.do("DEL", "n:k")
    call(cache)
    stored = server.do("GET", "n:k")
    expected = None if stored is None else json.loads(stored.partition(b":")[2])
    assert cache.get("k") == expected
    assert cache.get_many(["k"]) == ({} if expected is None else {"k": expected})
    server.release_pushes()


@pytest.mark.parametrize("name", ["set", "set_many", "remove", "remove_many", "touch", "add"])
def test_a_write_that_raises_removes_the_local_entry_too(cache, server, scripted_client, client_package, name):
    fill(cache, server, scripted_client)
    server.hold_pushes()
    command = {"set": "SET", "set_many": "SET", "add": "SET", "touch": "EVALSHA"}.get(name, "DEL")
    with server.hold(command) as hold, Background(lambda: catch(lambda: WRITES[name](cache))) as writer:
        hold.execute()
        hold.disconnect()
    assert isinstance(writer.result, client_package.exceptions.ConnectionError)
    requests = server.count("GET", "n:k")
    wait_until(lambda: not isinstance(catch(lambda: cache.get("k")), Exception))
    assert server.count("GET", "n:k") > requests
    server.release_pushes()


def test_an_own_write_keeps_out_the_fill_that_began_before_it(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.execute()
        server.hold_pushes()
        cache.set("k", "new")
        # This call does not join the fetch that began before the write.
        assert cache.get("k") == "new"
        hold.release()
    assert reader.result == "old"
    assert cache.get("k") == "new"
    server.release_pushes()


def test_a_fill_during_an_own_write_does_not_outlive_it(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    server.hold_pushes()
    with server.hold("SET", "n:k") as hold, Background(lambda: cache.set("k", "new")):
        hold.wait()
        # The server has not executed the write yet.
        assert cache.get("k") == "old"
        hold.release()
    assert cache.get("k") == "new"
    server.release_pushes()


def test_near_caches_of_one_namespace_share_a_tier_and_a_listener(cache, server, scripted_client, make_client):
    fill(cache, server, scripted_client)
    other = make_near_cache(make_client(server), "n", max_staleness=STALENESS)
    assert other.get("k") == "old"
    assert server.count("GET", "n:k") == 1
    assert len(server.tracking) == 1
    other.set("k", "new")
    assert cache.get("k") == "new"
    other.close()
    assert cache.get("k") == "new"
    assert other.stats() == cache.stats()
    assert cache.is_coherent


def test_the_name_of_a_host_may_be_in_any_case(server, make_client, near):
    one, other = [near(make_client(server, host=host), "n", ttl=None) for host in ("localhost", "LOCALHOST")]
    with pytest.raises(ValueError, match="ttl must be the same for all near caches of this namespace"):
        near(make_client(server, host="LocalHost"), "n", ttl=1)
    server.hold_pushes()
    for writer, reader in ((one, other), (other, one)):
        writer.set("k", id(writer))
        assert reader.get("k") == id(writer)
    server.release_pushes()


def test_another_database_and_another_namespace_have_tiers_of_their_own(cache, server, make_client, near):
    others = [near(make_client(server, db=1), "n", ttl=1), near(make_client(server), "n2", ttl=1)]
    for number, each in enumerate([cache, *others]):
        each.set("k", number)
    assert [each.get("k") for each in [cache, *others]] == [0, 1, 2]
    assert len(server.tracking) == 3


OTHER_OPTIONS = {
    "ttl": 1,
    "capacity": 7,
    "local_ttl": 1,
    "policy": "lru",
    "weigher": lambda key, value: 1,
    "max_staleness": 2,
    "serializer": "raw",
    "on_error": "miss",
    "stale_if_error": 3,
    "copy": list,
}


@pytest.mark.parametrize("name", OTHER_OPTIONS)
def test_other_options_for_one_namespace_are_refused(cache, scripted_client, name):
    options = {"ttl": 300, "max_staleness": STALENESS, name: OTHER_OPTIONS[name]}
    with pytest.raises(ValueError, match=f"{name} must be the same for all near caches of this namespace"):
        NearCache(scripted_client, "n", **options)
    cache.close()
    NearCache(scripted_client, "n", **options).close()


def test_while_coherent_a_call_joins_the_fetch_of_another_thread(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    misses = cache.stats().local.misses
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as first:
        hold.wait()
        with Background(lambda: cache.get("k")) as second:
            wait_until(lambda: cache.stats().local.misses == misses + 2)
            hold.release()
    assert first.result == second.result == "old"
    assert server.count("GET", "n:k") == 1


def test_with_fresh_a_call_joins_no_fetch_and_ignores_the_local_entry(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as first:
        hold.execute()
        server.hold_pushes()
        write(server, "k", '"new"')
        assert cache.get("k", fresh=True) == "new"
        assert cache.get_many(["k"], fresh=True) == {"k": "new"}
        assert cache.get_with("k", lambda: "other", fresh=True) == "new"
        # Nor does a later call return an older value than the fresh ones.
        assert cache.get("k") == "new"
        hold.release()
    assert first.result == "old"
    assert cache.get("k") == "new"
    server.release_pushes()


FRESH_READS = {
    "get": lambda cache: cache.get("k", fresh=True),
    "get_many": lambda cache: cache.get_many(["k"], fresh=True)["k"],
    "get_with": lambda cache: cache.get_with("k", lambda: "mine", fresh=True),
}


@pytest.mark.parametrize("call", FRESH_READS.values(), ids=FRESH_READS)
def test_after_a_fresh_read_no_call_returns_an_older_value(cache, server, scripted_client, call):
    fill(cache, server, scripted_client)
    server.hold_pushes()
    write(server, "k", '"new"')
    assert cache.get("k") == "old"
    assert call(cache) == "new"
    assert cache.get("k") == "new"
    server.release_pushes()


def test_while_incoherent_a_call_joins_no_fetch(cache, server, scripted_client, manual_clock):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("PING", tracking=True) as ping:
        ping.wait()
        manual_clock.advance(2 * STALENESS)
        with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as first:
            hold.execute()
            server.hold_pushes()
            write(server, "k", '"new"')
            assert cache.get("k") == "new"
            assert cache.get_with("k", lambda: "other") == "new"
            hold.release()
        assert first.result == "old"
    server.release_pushes()


@pytest.mark.parametrize(("command", "across"), [("SET", True), ("GET", False)], ids=["across", "alone"])
def test_while_incoherent_a_call_joins_no_load(cache, server, scripted_client, manual_clock, command, across):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("PING", tracking=True) as ping:
        ping.wait()
        manual_clock.advance(2 * STALENESS)
        with server.hold(command, "n:k") as hold:
            with Background(lambda: cache.get_with("k", lambda: "mine", across=across)) as first:
                hold.execute()
                # A report of the write would keep later calls from joining, too.
                server.hold_pushes()
                write(server, "k", '"new"')
                assert cache.get_with("k", lambda: "mine", across=across) == "new"
                hold.release()
        assert first.result == "old"
    server.release_pushes()
