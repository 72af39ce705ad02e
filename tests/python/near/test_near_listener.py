"""The listener, step by step: connections, refusals, queued messages, and a machine that slept."""

import pytest
from helpers import Background
from near.near_caches import catch, fill, pass_two_pings, settle, wait_until, write
from near.resp import Failure, Status

from moka_py.near import NearCache, _listener, _tier

STALENESS = 10.0


@pytest.fixture
def cache(server, scripted_client, near, manual_clock, paced):
    """A near cache whose entries are valid for 10 seconds after the last PING but one."""
    return near(scripted_client, "n", max_staleness=STALENESS)


# --- Rule 8 ---


def test_the_constructor_opens_no_connection(server, scripted_client):
    NearCache(scripted_client, "n", ttl=1).close()
    assert server.connections == []


def test_after_a_lost_connection_the_tier_is_cleared_and_answers_again(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    server.refuse()
    server.wait_for_tracking().close()
    server.wait_for(lambda: not server.tracking)
    # No connection tracks now, so this write is not reported. The old entry answers until its deadline.
    write(server, "k", '"new"')
    assert cache.get("k") == "old"
    server.accept()
    wait_until(lambda: cache.stats().reconnects == 1)
    wait_until(lambda: cache.get("k") == "new")
    fill(cache, server, scripted_client, text='"newer"')


class Pauses:
    """Stands for the event that ends a listener: it notes the pauses between connections, and ends the listener."""

    def __init__(self, number):
        self._number = number
        self.seconds = []

    def is_set(self):
        return len(self.seconds) >= self._number

    def wait(self, seconds):
        self.seconds.append(seconds)


def test_between_connections_are_50_milliseconds_to_2_seconds_with_jitter(server, scripted_client):
    server.refuse()
    with NearCache(scripted_client, "n", ttl=1) as cache:
        listener = _listener.Listener(cache._tier)
        listener._stop = pauses = Pauses(50)
        listener._run()
    assert all(0.05 <= pause <= 2 for pause in pauses.seconds)
    # The longest possible pause doubles each time, from 0.1 s on.
    assert all(pause <= 0.1 * 2**index for index, pause in enumerate(pauses.seconds))
    assert len(set(pauses.seconds)) == 50
    assert max(pauses.seconds) > 1


def test_a_fill_that_began_before_a_reconnect_is_not_kept(cache, server, scripted_client):
    write(server, "k", '"old"')
    settle(cache, scripted_client, "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")) as reader:
        hold.execute()
        server.wait_for_tracking().close()
        server.wait_for(lambda: not server.tracking)
        write(server, "k", '"new"')
        wait_until(lambda: cache.stats().reconnects == 1)
        settle(cache, scripted_client, "n")
        hold.release()
    assert reader.result == "old"
    assert cache.get("k") == "new"


def test_a_server_that_restarts_empty_is_noticed(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    server.restart()
    wait_until(lambda: catch(lambda: cache.get("k", "absent")) == "absent")
    wait_until(lambda: cache.is_coherent)


def test_the_tier_is_local_only_after_its_probe_and_two_pongs(server, scripted_client, namespace, manual_clock, paced):
    write(server, "k", '"value"')
    server.hold_pushes()
    with NearCache(scripted_client, "n", ttl=1) as cache, server.hold("PING", tracking=True) as first:
        assert cache.get("k") == "value"
        server.wait_for_command("DEL")
        assert not cache.is_coherent
        assert server.count("PING", tracking=True) == 0
        server.release_pushes()
        first.wait()
        assert not cache.is_coherent
        second = server.hold("PING", tracking=True)
        first.release()
        with second:
            second.wait()
            assert not cache.is_coherent
            second.release()
        wait_until(lambda: cache.is_coherent)
        written = [command for command in server.commands if command[0] == b"SET"]
        assert [command[1].startswith(b"n:\xc1mk-probe:") for command in written] == [True]
        assert server.do("KEYS", "*") == [b"n:k"]


REFUSALS = {
    "tracking": (("CLIENT", "TRACKING"), "NOPERM this user has no permissions to run the 'client|tracking' command"),
    "old server": (("CLIENT", "TRACKING"), "ERR Unknown subcommand or wrong number of arguments for 'TRACKING'"),
    "hello": (("HELLO",), "ERR unknown command `HELLO`"),
    "probe": (("SET",), "READONLY You can't write against a read only replica."),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_tracking_or_probe_all_works_without_a_local_tier(
    server, scripted_server, make_client, refusal, manual_clock, paced
):
    words, error = REFUSALS[refusal]
    server.answer(*words, reply=Failure(error))
    write(server, "k", '"old"')
    client = make_client(server, protocol=2)
    with NearCache(client, "n", ttl=1) as cache:
        assert cache.get("k") == "old"
        with pytest.warns(RuntimeWarning, match="has no local tier, since the server does not report writes") as caught:
            wait_until(lambda: cache.is_coherent or caught.list)
        write(server, "k", '"new"')
        assert cache.get("k") == "new"
        assert not cache.is_coherent
        assert cache.get_many(["k", "l"]) == {"k": "new"}
        assert len(caught) == 1
        assert cache.remove("k")
        assert cache.get("k") is None
        assert cache.get_with("k", lambda: 1, across=False) == 1


def test_a_client_that_writes_elsewhere_is_found_out(server, scripted_client, manual_clock, monkeypatch):
    monkeypatch.setattr(_listener, "MIN_TIMEOUT", 0.3)
    server.hold_pushes()
    with NearCache(scripted_client, "n", ttl=1, max_staleness=0.02) as cache:
        with pytest.warns(RuntimeWarning, match="the server did not report a write of the client") as caught:
            wait_until(lambda: cache.is_coherent or caught.list)
        assert not cache.is_coherent
        assert server.count("CLIENT", "TRACKING") == _listener.MAX_LOST_PROBES


def test_a_replica_is_found_out_by_its_role(server, scripted_client, manual_clock, paced):
    def answer(connection, command):
        connection.protocol = 3
        return {"server": "redis", "version": "7.0.15", "proto": 3, "id": 1, "mode": "standalone", "role": "replica"}

    server.answer("HELLO", reply=answer)
    with NearCache(scripted_client, "n", ttl=1) as cache:
        with pytest.warns(RuntimeWarning, match="it is a replica") as caught:
            wait_until(lambda: cache.is_coherent or caught.list)
        assert not cache.is_coherent


def test_an_unexpected_error_of_the_listener_is_reported_once(
    server, scripted_client, near_class, manual_clock, paced, monkeypatch
):
    attempts = []

    def fail(listener, connection):
        attempts.append(1)
        raise AttributeError("no such attribute")

    monkeypatch.setattr(_listener.Listener, "_await_probe", fail)
    with near_class(scripted_client, "n", ttl=1) as cache:
        with pytest.warns(RuntimeWarning, match="its listener fails: AttributeError: no such attribute") as caught:
            wait_until(lambda: cache.get("k") or len(attempts) >= 3)
        assert len(caught) == 1
        monkeypatch.undo()
        wait_until(lambda: cache.is_coherent)


def test_a_busy_server_is_no_refusal(server, scripted_client, paced, manual_clock):
    answer = server.answer("CLIENT", "TRACKING", reply=Failure("BUSY Redis is busy running a script"))
    with NearCache(scripted_client, "n", ttl=1) as cache:
        assert not cache.is_coherent
        server.wait_for_command("CLIENT", "TRACKING", count=2)
        server.forget(answer)
        wait_until(lambda: cache.is_coherent)


def test_a_listener_that_is_not_answered_connects_anew(server, scripted_client, near, manual_clock, monkeypatch):
    monkeypatch.setattr(_listener, "MIN_TIMEOUT", 0.3)
    cache = near(scripted_client, "n", max_staleness=0.02)
    # With so short a timeout a slow machine makes the listener connect anew before, which empties the tier.
    write(server, "k", '"old"')
    wait_until(lambda: cache.get("k") == "old")
    reconnects = cache.stats().reconnects
    server.wait_for_tracking().hold_output()
    write(server, "k", '"new"')
    wait_until(lambda: cache.stats().reconnects > reconnects)
    wait_until(lambda: cache.get("k") == "new")


# --- Rule 9 ---


def test_ten_thousand_queued_messages_are_applied(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    connection = server.wait_for_tracking()
    connection.hold_output()
    for number in range(10_000):
        write(server, number, '"x"')
    write(server, "k", '"new"')
    connection.release_output()
    settle(cache, scripted_client, "n")
    assert cache.get("k") == "new"
    assert cache.stats().invalidations >= 10_000
    assert cache.stats().reconnects == 0


def test_an_error_in_the_handler_clears_the_tier(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    server.wait_for_tracking().push("invalidate", 5)
    settle(cache, scripted_client, "n")
    requests = server.count("GET", "n:k")
    assert cache.get("k") == "old"
    assert server.count("GET", "n:k") == requests + 1
    assert cache.stats().reconnects == 0


def test_other_messages_are_ignored(cache, server, scripted_client):
    fill(cache, server, scripted_client)
    server.wait_for_tracking().push("message", "channel", "text")
    server.wait_for_tracking().push("invalidate", [b"another:k", b"n", b""])
    settle(cache, scripted_client, "n")
    assert cache.get("k") == "old"
    assert server.count("GET", "n:k") == 1
    assert cache.stats().reconnects == 0


def test_a_reply_that_answers_nothing_ends_the_connection(cache, server, scripted_client):
    with server.hold("PING", tracking=True) as hold:
        hold.wait()
        server.wait_for_tracking().send(Status("PONG"))
        server.wait_for_tracking().send(Status("PONG"))
        hold.release()
    wait_until(lambda: cache.stats().reconnects == 1)
    wait_until(lambda: cache.is_coherent)


# --- Rule 11 ---


def test_after_a_suspend_the_tier_is_cleared(cache, server, scripted_client, monkeypatch):
    fill(cache, server, scripted_client)
    suspended = _tier._suspended_seconds()
    monkeypatch.setattr(_tier, "_suspended_seconds", lambda: suspended + 100)
    pass_two_pings(server)
    assert cache.get("k") == "old"
    assert server.count("GET", "n:k") == 2
    assert cache.get("k") == "old"
    assert server.count("GET", "n:k") == 2
