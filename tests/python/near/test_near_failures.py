"""Failures of the server: what reads, loads and writes do while the client raises."""

import threading
import warnings

import pytest
from helpers import Background, run_threads
from near.near_caches import callers, payload, settle, wait_until
from near.resp import Failure

from moka_py.near import NearCache, _tier
from moka_py.near._options import Options

STALENESS = 10.0


@pytest.fixture
def error(client_package):
    return client_package.exceptions.ConnectionError


@pytest.fixture
def make(server, scripted_client, near, manual_clock, paced):
    """Return a function that makes a near cache with the value "old" of the key "k" in its local tier."""

    def make(**options):
        server.do("SET", "n:k", payload('"old"'))
        cache = near(scripted_client, "n", max_staleness=STALENESS, **options)
        settle(cache, scripted_client, "n")
        assert cache.get("k") == "old"
        return cache

    return make


def fail(server, manual_clock):
    """Have the server refuse connections, and the tier pass its deadline."""
    server.refuse()
    server.disconnect_all()
    server.wait_for(lambda: not server.connections)
    manual_clock.advance(2 * STALENESS)


READS = {
    "get": lambda cache: cache.get("k"),
    "get_many": lambda cache: cache.get_many(["k", "l"]),
    "contains": lambda cache: cache.contains("k"),
    "get fresh": lambda cache: cache.get("k", fresh=True),
    "get_many fresh": lambda cache: cache.get_many(["k"], fresh=True),
}
WRITES = {
    "set": lambda cache: cache.set("k", 1),
    "set_many": lambda cache: cache.set_many({"k": 1}),
    "add": lambda cache: cache.add("k", 1),
    "touch": lambda cache: cache.touch("k"),
    "remove": lambda cache: cache.remove("k"),
    "remove_many": lambda cache: cache.remove_many(["k"]),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_reads_raise_the_error_of_the_client(make, server, manual_clock, error, call):
    cache = make()
    fail(server, manual_clock)
    with pytest.raises(error):
        call(cache)
    assert cache.stats().remote_errors >= 1


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("on_error", ["raise", "miss"])
def test_writes_raise_the_error_of_the_client(make, server, manual_clock, error, call, on_error):
    cache = make(on_error=on_error)
    fail(server, manual_clock)
    with pytest.raises(error):
        call(cache)


def test_get_and_get_many_miss_if_that_is_chosen(make, server, manual_clock, error):
    cache = make(on_error="miss")
    fail(server, manual_clock)
    assert cache.get("k", "default") == "default"
    assert cache.get("k", fresh=True) is None
    assert cache.get_many(["k", "l"]) == {}
    with pytest.raises(error):
        cache.contains("k")


def test_an_error_reply_is_an_error_of_the_client(make, server, client_package):
    cache = make()
    server.answer("GET", "n:other", reply=Failure("WRONGTYPE Operation against a key holding the wrong kind of value"))
    with pytest.raises(client_package.exceptions.ResponseError, match="WRONGTYPE"):
        cache.get("other")
    # It says nothing about the next request.
    assert cache.get("k") == "old"
    assert cache.get("another") is None


def test_a_server_that_refuses_the_client_at_its_connection_does_not_break_get_with(
    server, make_client, near_class, client_package
):
    refusal = "NOPERM this user has no permissions to run the 'hello' command"
    server.answer("HELLO", reply=Failure(refusal))
    with near_class(make_client(server, protocol=3), "n", ttl=1) as cache:
        with pytest.raises(client_package.exceptions.ResponseError, match="no permissions"):
            cache.get("k")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert cache.get_with("k", lambda: 1) == 1
            assert cache.get_with("k", lambda: 2, across=False) == 2


def test_local_hits_go_on_until_the_deadline(make, server, error, manual_clock):
    cache = make()
    server.refuse()
    server.disconnect_all()
    server.wait_for(lambda: not server.connections)
    assert cache.get("k") == "old"
    manual_clock.advance(2 * STALENESS)
    with pytest.raises(error):
        cache.get("k")


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("on_error", ["raise", "miss"])
def test_get_with_runs_the_initializer_and_returns_its_value(make, server, manual_clock, across, on_error):
    cache = make(on_error=on_error)
    fail(server, manual_clock)
    for fresh in (False, True):
        assert cache.get_with("k", lambda: (1, 2), across=across, fresh=fresh) == [1, 2]


@pytest.mark.parametrize("across", [True, False])
def test_without_a_server_a_process_still_computes_once(make, server, manual_clock, across):
    cache = make()
    fail(server, manual_clock)
    barrier = threading.Barrier(4)
    all_asked = threading.Event()
    loads = []

    def load():
        loads.append(1)
        assert all_asked.wait(60)
        return "loaded"

    def call():
        barrier.wait(60)
        assert cache.get_with("k", load, across=across) == "loaded"

    def release():
        # Each caller runs the initializer, or joins the run.
        wait_until(lambda: callers(cache, "computation") == 4)
        all_asked.set()

    with Background(release):
        run_threads(*[call] * 4)
    assert len(loads) == 1


@pytest.mark.parametrize("across", [True, False])
def test_without_a_server_a_fresh_call_joins_no_computation_that_began_before_it(make, server, manual_clock, across):
    cache = make()
    fail(server, manual_clock)
    began, go_on = threading.Event(), threading.Event()

    def load():
        began.set()
        assert go_on.wait(60)
        return "before"

    with Background(lambda: cache.get_with("k", load, across=across)) as first:
        assert began.wait(60)
        assert cache.get_with("k", lambda: "after", across=across, fresh=True) == "after"
        go_on.set()
    assert first.result == "before"


def test_the_error_of_the_initializer_leaves_the_call_without_a_server_too(make, server, manual_clock):
    cache = make()
    fail(server, manual_clock)
    with pytest.raises(ZeroDivisionError):
        cache.get_with("k", lambda: 1 // 0)


def test_a_value_that_cannot_be_stored_is_returned(make, server, error):
    cache = make()

    def load():
        server.refuse()
        server.disconnect_all()
        return 1

    assert cache.get_with("new", load) == 1
    assert cache.stats().remote_errors >= 1


def test_after_a_connection_error_no_call_asks_the_server_for_one_heartbeat(
    make, server, manual_clock, error, monkeypatch
):
    cache = make()
    fail(server, manual_clock)
    monkeypatch.setattr(Options, "heartbeat", property(lambda _: 3_600.0))
    with pytest.raises(error):
        cache.get("k")
    server.accept()
    commands = server.count("GET", "n:k")
    for call in [*READS.values(), *WRITES.values()]:
        with pytest.raises(error, match="the server was not asked, since it failed less than 3600 s ago"):
            call(cache)
    assert cache.get_with("k", lambda: "loaded") == "loaded"
    assert server.count("GET", "n:k") == commands
    assert server.count("SET", "n:k") == server.count("DEL", "n:k") == 0


def test_after_a_heartbeat_calls_ask_the_server_again(make, server, manual_clock, error):
    cache = make()
    fail(server, manual_clock)
    with pytest.raises(error):
        cache.get("k")
    server.accept()

    def is_answered():
        try:
            return cache.get("k") == "old"
        except error:
            return False

    wait_until(is_answered)
    assert cache.get("k") == "old"


def test_a_full_pool_says_nothing_about_the_server(server, make_client, near, manual_clock, error, monkeypatch):
    monkeypatch.setattr(Options, "heartbeat", property(lambda _: 3_600.0))
    cache = near(make_client(server, max_connections=1), "n")
    with server.hold("GET", "n:k") as hold, Background(lambda: cache.get("k")):
        hold.wait()
        for _ in range(2):
            with pytest.raises(error, match=r"^Too many connections"):
                cache.get("l", fresh=True)
        hold.release()
    assert cache.get("m") is None


# --- Stale values ---


@pytest.fixture
def stale(make, server, manual_clock):
    """A near cache that has lost its server, 10 seconds after its tier was last coherent."""
    cache = make(stale_if_error=60)
    server.do("SET", "n:absent-later", payload("1"))
    fail(server, manual_clock)
    return cache


def test_while_the_client_raises_a_local_value_may_be_stale(stale, error):
    for _ in range(2):
        assert stale.get("k") == "old"
        assert stale.get_many(["k"]) == {"k": "old"}
    assert stale.stats().stale_values == 4
    with pytest.raises(error):
        stale.get("other")
    with pytest.raises(error):
        stale.get_many(["k", "other"])


def test_get_with_prefers_a_stale_value_to_the_initializer(stale):
    assert stale.get_with("k", lambda: "loaded") == "old"
    assert stale.get_with("k", lambda: "loaded", across=False) == "old"
    assert stale.get_with("other", lambda: "loaded") == "loaded"


def test_with_fresh_no_value_is_stale(stale, error):
    with pytest.raises(error):
        stale.get("k", fresh=True)
    with pytest.raises(error):
        stale.get_many(["k"], fresh=True)
    assert stale.get_with("k", lambda: "loaded", fresh=True) == "loaded"


def test_a_value_is_stale_for_at_most_the_given_time(make, server, manual_clock, error):
    cache = make(stale_if_error=60)
    fail(server, manual_clock)
    manual_clock.advance(60 - STALENESS - 0.001)
    assert cache.get("k") == "old"
    manual_clock.advance(STALENESS)
    with pytest.raises(error):
        cache.get("k")
    assert cache.get_with("k", lambda: "loaded") == "loaded"


def test_a_stale_value_does_not_outlive_its_own_deadline(server, scripted_client, near, manual_clock, paced, error):
    server.do("SET", "n:k", payload('"old"'), "PX", "30000")
    cache = near(scripted_client, "n", max_staleness=STALENESS, stale_if_error=1_000)
    settle(cache, scripted_client, "n")
    assert cache.get("k") == "old"
    fail(server, manual_clock)
    assert cache.get("k") == "old"
    manual_clock.advance(10)
    with pytest.raises(error):
        cache.get("k")


def test_after_an_own_write_no_older_value_is_returned_as_stale(stale, error):
    with pytest.raises(error):
        stale.set("k", "new")
    with pytest.raises(error):
        stale.get("k")


def test_a_known_absence_may_be_stale_too(make, server, manual_clock):
    cache = make(stale_if_error=60)
    assert cache.get("absent") is None
    fail(server, manual_clock)
    assert cache.get("absent", "default") == "default"
    assert cache.get_many(["absent", "k"]) == {"k": "old"}
    assert cache.get_with("absent", lambda: "loaded") == "loaded"


def test_after_a_suspend_no_value_from_before_it_is_stale(stale, error, monkeypatch):
    assert stale.get("k") == "old"
    suspended = _tier._suspended_seconds()
    monkeypatch.setattr(_tier, "_suspended_seconds", lambda: suspended + 1)
    # Its deadline may have passed while the machine slept.
    with pytest.raises(error):
        stale.get("k")
    assert stale.get_with("k", lambda: "loaded") == "loaded"


def test_without_that_option_no_value_is_stale(make, server, manual_clock, error):
    cache = make()
    fail(server, manual_clock)
    with pytest.raises(error):
        cache.get("k")
    assert cache.stats().stale_values == 0


def test_what_goes_before_a_miss(make, server, manual_clock):
    cache = make(stale_if_error=60, on_error="miss")
    fail(server, manual_clock)
    assert cache.get("k", "default") == "old"
    assert cache.get("other", "default") == "default"
    assert cache.get_many(["k", "other"]) == {"k": "old"}


def test_a_server_that_never_answered_leaves_get_with_working(server, scripted_client, error):
    server.refuse()
    with NearCache(scripted_client, "n", ttl=1, max_staleness=1000) as cache:
        assert not cache.is_coherent
        assert cache.get_with("k", lambda: 1) == 1
        with pytest.raises(error):
            cache.get("k")
