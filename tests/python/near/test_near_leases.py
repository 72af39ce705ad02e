"""Leases: one computation for all processes, and what ends a lease."""

import threading
from contextlib import contextmanager

import pytest
from helpers import Background
from near.near_caches import callers, is_lease, payload, settle, wait_until
from near.resp import Failure

from moka_py.near import NearCache

OTHER_LEASE = b"\xc1mk?" + b"0123456789abcdef"


@pytest.fixture
def cache(server, scripted_client, near, manual_clock, paced):
    return near(scripted_client, "n")


@pytest.fixture(params=[True, False], ids=["coherent", "incoherent"])
def any_cache(request, cache, server, manual_clock):
    """A near cache that is coherent, or is not and stays so."""
    if not request.param:
        hold = server.hold("PING", tracking=True)
        hold.wait()
        manual_clock.advance(7_200)
        assert not cache.is_coherent
    yield cache
    if not request.param:
        hold.release()


def read(server, key="k"):
    return server.do("GET", f"n:{key}")


def other_process_takes_lease(server, milliseconds=30_000):
    server.do("SET", "n:k", OTHER_LEASE, "PX", milliseconds)


def wait_for_waiters(cache, number=1):
    wait_until(lambda: cache.stats().lease_waits == number)


def test_a_lease_is_in_the_place_of_the_value_until_it_is_there(any_cache, server):
    cache = any_cache

    def load():
        assert is_lease(read(server))
        assert server.do("PTTL", "n:k") == 20_000
        # For others there is no value yet.
        assert cache.get("k", "default") == "default"
        assert cache.get("k", "default", fresh=True) == "default"
        assert cache.get_many(["k"]) == {}
        assert not cache.contains("k")
        assert not cache.touch("k")
        return {"a": (1,)}

    assert cache.get_with("k", load, lease=20) == {"a": [1]}
    assert read(server) == payload('{"a":[1]}')
    assert server.do("PTTL", "n:k") == 300_000
    assert cache.get("k") == {"a": [1]}


def test_a_get_after_a_load_does_not_return_the_absence_that_was_known_before_it(cache, server):
    assert cache.get("k") is None
    server.hold_pushes()
    assert cache.get_with("k", lambda: 1) == 1
    assert cache.get("k") == 1
    server.release_pushes()


def test_the_first_get_after_a_load_fills_the_local_tier(cache, server, scripted_client):
    assert cache.get_with("k", lambda: 1) == 1
    settle(cache, scripted_client, "n")
    cache.get("k")
    requests = server.count("GET", "n:k")
    assert cache.get("k") == cache.get_with("k", lambda: 2) == 1
    assert server.count("GET", "n:k") == requests


def test_a_present_value_is_returned_and_kept_by_one_request(cache, server, scripted_client):
    server.do("SET", "n:k", payload("1"))
    settle(cache, scripted_client, "n")
    assert cache.get_with("k", lambda: 2) == 1
    commands = len([command for command in server.commands if b"n:k" in command])
    assert commands == 2, "PTTL and SET with NX and GET"
    assert cache.get("k") == cache.get_with("k", lambda: 2) == 1
    assert len([command for command in server.commands if b"n:k" in command]) == commands


@contextmanager
def waiter_that_seldom_polls(cache, server, monkeypatch):
    """Yield a call that waits for the lease of another process, and does not ask the server again for a minute."""
    monkeypatch.setattr("moka_py.near._loading.POLL_SECONDS", (60, 60))
    other_process_takes_lease(server)
    with Background(lambda: cache.get_with("k", lambda: "mine")) as waiter:
        wait_for_waiters(cache)
        server.wait_for_command("SET", "n:k", count=2)
        yield waiter


def test_a_waiter_hears_of_the_value(cache, server, monkeypatch):
    with waiter_that_seldom_polls(cache, server, monkeypatch) as waiter:
        server.do("SET", "n:k", payload('"other"'))
    assert waiter.result == "other"
    assert cache.stats().lease_takeovers == 0


def test_a_waiter_hears_of_a_flush(cache, server, monkeypatch):
    with waiter_that_seldom_polls(cache, server, monkeypatch) as waiter:
        server.do("FLUSHALL")
        waiter.join(timeout=20)
    assert waiter.result == "mine"


def test_a_waiter_that_hears_nothing_polls(cache, server):
    other_process_takes_lease(server)
    server.hold_pushes()
    with Background(lambda: cache.get_with("k", lambda: "mine")) as waiter:
        wait_for_waiters(cache)
        server.do("SET", "n:k", payload('"other"'))
    assert waiter.result == "other"
    server.release_pushes()


def test_a_waiter_takes_over_when_the_lease_has_ended(any_cache, server):
    other_process_takes_lease(server)
    with Background(lambda: any_cache.get_with("k", lambda: "mine")) as waiter:
        wait_for_waiters(any_cache)
        server.advance(30)
    assert waiter.result == "mine"
    assert read(server) == payload('"mine"')
    assert any_cache.stats().lease_takeovers == 1


def test_a_waiter_takes_over_when_the_holder_has_failed(any_cache, server):
    other_process_takes_lease(server)
    with Background(lambda: any_cache.get_with("k", lambda: "mine")) as waiter:
        wait_for_waiters(any_cache)
        server.do("DEL", "n:k")
    assert waiter.result == "mine"


def test_a_waiter_waits_at_most_as_long_as_its_lease(any_cache, server):
    other_process_takes_lease(server, 10**9)
    assert any_cache.get_with("k", lambda: "mine", lease=0.02) == "mine"
    assert read(server) == payload('"mine"')
    assert any_cache.stats().lease_waits == 1


class Failed(Exception):
    pass


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("error", [Failed, Stopped, StopIteration])
def test_a_lease_is_freed_if_the_initializer_raises(any_cache, server, error):
    if error is StopIteration and not isinstance(any_cache, NearCache):
        pytest.skip("a coroutine cannot raise StopIteration")

    def load():
        assert is_lease(read(server))
        raise error("reason")

    with pytest.raises(error, match="reason"):
        any_cache.get_with("k", load)
    assert read(server) is None
    assert any_cache.get_with("k", lambda: 1) == 1


def test_a_lease_is_freed_if_the_value_cannot_be_serialized(any_cache, server):
    with pytest.raises(TypeError):
        any_cache.get_with("k", object)
    assert read(server) is None


class Unreadable:
    name = "unreadable"

    def __init__(self, error):
        self._error = error

    def dumps(self, value):
        return b""

    def loads(self, data):
        raise self._error


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("error", [Failed, StopIteration])
def test_the_error_of_loads_leaves_the_load_unchanged_and_nothing_is_written(
    server, scripted_client, near, manual_clock, paced, across, error
):
    raised = error("reason")
    cache = near(scripted_client, "n", serializer=Unreadable(raised))
    expected = RuntimeError if error is StopIteration and not isinstance(cache, NearCache) else error
    with pytest.raises(expected) as caught:
        cache.get_with("k", lambda: 1, across=across)
    assert caught.value is raised or caught.value.__cause__ is raised
    assert read(server) is None


@pytest.mark.parametrize("near_class", ["sync"], indirect=True)
def test_a_lease_is_freed_if_the_initializer_returns_a_coroutine(any_cache, server):
    async def load():
        return 1

    with pytest.raises(TypeError, match="initializer must not return a coroutine"):
        any_cache.get_with("k", load)
    assert read(server) is None


def test_after_a_failure_only_its_own_lease_is_freed(any_cache, server):
    def load():
        server.do("SET", "n:k", payload("2"))
        raise Failed

    with pytest.raises(Failed):
        any_cache.get_with("k", load)
    assert read(server) == payload("2")


def test_one_waiter_tries_after_a_failure(cache, server):
    began, go_on = threading.Event(), threading.Event()
    loads = []

    def fail():
        began.set()
        assert go_on.wait(60)
        raise Failed

    def load():
        loads.append(1)
        return "second"

    def call_and_fail():
        with pytest.raises(Failed):
            cache.get_with("k", fail, fresh=True)

    with Background(call_and_fail):
        assert began.wait(60)
        with Background(lambda: cache.get_with("k", load)) as one, Background(lambda: cache.get_with("k", load)) as two:
            wait_until(lambda: cache.stats().lease_waits >= 1)
            go_on.set()
    assert one.result == two.result == "second"
    assert len(loads) == 1


VOIDS = {
    "del": (("DEL", "n:k"), None),
    "set": (("SET", "n:k", payload("2")), payload("2")),
    "flush": (("FLUSHALL",), None),
    "other lease": (("SET", "n:k", OTHER_LEASE), OTHER_LEASE),
}


@pytest.mark.parametrize("write", VOIDS)
def test_any_write_by_anyone_voids_a_lease(any_cache, server, write):
    command, expected = VOIDS[write]

    def load():
        server.do(*command)
        return "mine"

    assert any_cache.get_with("k", load) == "mine"
    assert read(server) == expected


@pytest.mark.parametrize("write", ["set", "remove", "clear", "add"])
@pytest.mark.parametrize("across", [True, False])
def test_a_write_of_this_process_during_a_load_wins(any_cache, server, write, across):
    cache = any_cache

    def load():
        if write == "remove":
            cache.remove("k")
        elif write == "clear":
            cache.clear()
        else:
            getattr(cache, write)("k", "written")
        return "loaded"

    assert cache.get_with("k", load, across=across) == "loaded"
    expected = None if write in ("remove", "clear") else "written"
    assert cache.get("k") == expected
    assert read(server) == (expected and payload('"written"'))


@pytest.mark.parametrize("across", [True, False])
def test_after_a_write_of_this_process_no_call_joins_a_load_from_before_it(any_cache, server, across):
    cache = any_cache
    began, go_on = threading.Event(), threading.Event()

    def load():
        began.set()
        assert go_on.wait(60)
        return "before"

    server.hold_pushes()
    with Background(lambda: cache.get_with("k", load, across=across)) as first:
        assert began.wait(60)
        cache.remove("k")
        assert cache.get_with("k", lambda: "after", across=across) == "after"
        go_on.set()
    assert first.result == "before"
    assert cache.get("k") == "after"
    assert read(server) == payload('"after"')
    server.release_pushes()


def test_add_stores_in_the_place_of_a_lease(any_cache, server):
    other_process_takes_lease(server)
    assert any_cache.add("k", 1)
    assert read(server) == payload("1")
    assert not any_cache.add("k", 2)


def make_retrying_client(make_client, server, client_package):
    """Return a client that sends a request again after a lost connection."""
    retry = client_package.retry.Retry(client_package.backoff.NoBackoff(), 3)
    return make_client(server, retry=retry, retry_on_error=[client_package.exceptions.ConnectionError])


def test_a_reply_equal_to_the_own_token_means_that_the_lease_is_held(
    server, make_client, client_package, near, manual_clock, paced
):
    cache = near(make_retrying_client(make_client, server, client_package), "n")
    with server.hold("SET", "n:k") as hold, Background(lambda: cache.get_with("k", lambda: 1)) as caller:
        hold.execute()
        # The client sends its request again.
        hold.disconnect()
    assert caller.result == 1
    assert read(server) == payload("1")
    assert cache.stats().lease_waits == 0


def test_a_lost_reply_to_the_fill_does_not_matter(server, make_client, client_package, near, manual_clock, paced):
    cache = near(make_retrying_client(make_client, server, client_package), "n")
    cache.get_with("other", lambda: 1)
    with server.hold("EVALSHA") as hold, Background(lambda: cache.get_with("k", lambda: 1)) as caller:
        hold.execute()
        hold.disconnect()
    assert caller.result == 1
    assert cache.get("k") == 1


def syntax_error_for_nx_with_get(server):
    def answer(connection, command):
        if b"NX" in command and b"GET" in command:
            return Failure("ERR syntax error")
        return server.store.execute(connection.database, list(command))

    server.answer("SET", "n:k", reply=answer)
    server.answer("SET", "n:l", reply=answer)


def test_an_old_server_warns_once_and_takes_no_leases(any_cache, server):
    syntax_error_for_nx_with_get(server)
    assert any_cache.get_with("k", lambda: 1) == 1
    with pytest.warns(RuntimeWarning, match=r"takes no leases, .* need Redis 7.0 or later, or Valkey") as caught:
        assert any_cache.get_with("l", lambda: 2) == 2
    assert any_cache.get_with("k", lambda: 3, fresh=True) == 1
    assert len(caught) == 1
    assert len([command for command in server.commands if b"NX" in command and b"GET" in command]) == 1
    assert read(server) == payload("1")


def test_a_server_without_scripts_warns_once_and_takes_no_leases(any_cache, server):
    for name in ("EVAL", "EVALSHA"):
        server.answer(name, reply=Failure(f"NOPERM this user has no permissions to run the '{name.lower()}' command"))
    assert any_cache.get_with("k", lambda: 1) == 1
    with pytest.warns(RuntimeWarning, match="takes no leases"):
        assert any_cache.get_with("l", lambda: 2) == 2
    assert read(server, "l") == payload("2")


def test_without_across_no_token_is_written(any_cache, server):
    def load():
        assert read(server) is None
        return 1

    assert any_cache.get_with("k", load, across=False, ttl=5) == 1
    assert read(server) == payload("1")
    assert server.do("PTTL", "n:k") == 5_000


def test_without_across_another_programs_write_during_a_load_wins(any_cache, server):
    def load():
        server.do("SET", "n:k", payload("2"))
        return 1

    assert any_cache.get_with("k", load, across=False) == 1
    assert read(server) == payload("2")


def number_of_callers(cache):
    """Return how many callers compute, have joined a call or a computation, or wait for a lease."""
    kinds = ("load", "computation") if cache.is_coherent else ("computation",)
    return max(cache.stats().lease_waits + 1, *(callers(cache, kind) for kind in kinds))


@pytest.mark.parametrize("across", [True, False])
def test_threads_of_a_process_share_one_load(any_cache, server, across):
    cache = any_cache
    began, go_on = threading.Event(), threading.Event()
    loads = []

    def load():
        loads.append(1)
        began.set()
        assert go_on.wait(60)
        return "loaded"

    def call():
        return cache.get_with("k", load, across=across)

    with Background(call) as first:
        assert began.wait(60)
        with Background(call) as second, Background(call) as third:
            wait_until(lambda: number_of_callers(cache) == 3)
            go_on.set()
    assert first.result == second.result == third.result == "loaded"
    assert len(loads) == 1


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_an_initializer_that_asks_for_its_own_key_raises(any_cache, server, across, fresh):
    def load():
        return any_cache.get_with("k", lambda: 1, across=across, fresh=fresh)

    with pytest.raises(RuntimeError, match="asked for that very key, 'k'"):
        any_cache.get_with("k", load, across=across, fresh=fresh)
    assert read(server) is None


def test_an_initializer_may_ask_for_other_keys(any_cache):
    def load():
        return any_cache.get_with("l", lambda: any_cache.get_with("m", lambda: 1) + 1) + 1

    assert any_cache.get_with("k", load) == 3
    assert any_cache.get_many(["k", "l", "m"]) == {"k": 3, "l": 2, "m": 1}


def test_with_fresh_get_with_asks_the_server_and_joins_no_load(cache, server, scripted_client):
    server.do("SET", "n:k", payload('"old"'))
    settle(cache, scripted_client, "n")
    assert cache.get("k") == "old"
    server.hold_pushes()
    server.do("SET", "n:k", payload('"new"'))
    assert cache.get_with("k", lambda: "mine") == "old"
    assert cache.get_with("k", lambda: "mine", fresh=True) == "new"
    server.release_pushes()


def test_a_fresh_load_joins_no_load_that_began_before_it(any_cache, server):
    cache = any_cache
    began, go_on = threading.Event(), threading.Event()

    def load():
        began.set()
        assert go_on.wait(60)
        return "before"

    with Background(lambda: cache.get_with("k", load, across=False)) as first:
        assert began.wait(60)
        assert cache.get_with("k", lambda: "fresh", across=False, fresh=True) == "fresh"
        go_on.set()
    assert first.result == "before"
    assert read(server) == payload('"fresh"')


def test_arguments_of_get_with_are_checked(cache):
    with pytest.raises(TypeError, match="initializer must be callable, got int"):
        cache.get_with("k", 1)
    with pytest.raises(TypeError, match="lease must be a number of seconds or a timedelta, got str"):
        cache.get_with("k", dict, lease="1")
