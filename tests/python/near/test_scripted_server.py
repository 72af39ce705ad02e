"""The scripted server does what the tests of the near cache rely on."""

import hashlib
import socket

import pytest
from helpers import Background
from near.resp import Failure, Raw, Status
from near.scripted_server import ScriptedServer

TIME_LIMIT_SECONDS = 60.0


class Peer:
    """A client that sends and reads bytes, so that these tests need no package."""

    def __init__(self, server, *greeting):
        self.socket = socket.create_connection((server.host, server.port), TIME_LIMIT_SECONDS)
        self.file = self.socket.makefile("rb")
        if greeting:
            self.send(*greeting)
            self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))

    def do(self, *words):
        self.send(*words)
        return self.read()

    def read(self):
        """Return the next reply or push: a list begins with its type."""
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return Status(rest.decode())
            case b"-":
                return Failure(rest.decode())
            case b":":
                return int(rest)
            case b"_":
                return None
            case b"$":
                return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
            case b"*" | b">":
                found = [self.read() for _ in range(int(rest))]
                return [">", *found] if kind == b">" else found
            case b"%":
                return {self.read(): self.read() for _ in range(int(rest))}
            case b"":
                return EOFError
        raise AssertionError(line)


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def peer(server):
    with Peer(server, "HELLO", 3) as peer:
        yield peer


@pytest.fixture
def listener(server):
    with Peer(server, "HELLO", 3) as listener:
        assert listener.do("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "users:") == "OK"
        yield listener


def test_commands_read_and_change_keys(peer):
    assert peer.do("GET", "k") is None
    assert peer.do("SET", "k", b"\r\n\0") == "OK"
    assert peer.do("GET", "k") == b"\r\n\0"
    assert peer.do("SET", "k", "x", "NX") is None
    assert peer.do("SET", "k", "x", "NX", "GET") == b"\r\n\0"
    assert peer.do("SET", "k", "x", "XX", "GET") == b"\r\n\0"
    assert peer.do("MGET", "k", "absent") == [b"x", None]
    assert peer.do("DEL", "k", "absent") == 1
    assert peer.do("EXISTS", "k") == 0
    assert peer.do("NONSENSE").startswith("ERR unknown command")
    assert peer.do("GET").startswith("ERR wrong number")
    assert peer.do("SET", "k", "v", "PX", "0").startswith("ERR value")


def test_keys_expire_by_the_clock_of_the_test(server, peer, listener):
    peer.do("SET", "users:1", "a", "PX", 1500)
    assert listener.read() == [">", b"invalidate", [b"users:1"]]
    server.advance(1)
    assert peer.do("PTTL", "users:1") == 500
    server.advance(0.5)
    assert listener.read() == [">", b"invalidate", [b"users:1"]]
    assert peer.do("GET", "users:1") is None
    assert peer.do("PTTL", "users:1") == -2


def test_a_scan_returns_each_matching_key_once_and_knows_escapes(peer):
    for number in range(25):
        peer.do("SET", f"a*:{number}", "")
        peer.do("SET", f"ab:{number}", "")
    cursor, found = b"0", []
    while True:
        cursor, keys = peer.do("SCAN", cursor, "MATCH", "a\\*:*", "COUNT", 7)
        found += keys
        if cursor == b"0":
            break
    assert sorted(found) == sorted(b"a*:%d" % number for number in range(25))


def test_a_function_stands_for_a_script(server, peer):
    source = "return redis.call('GET', KEYS[1])"
    digest = hashlib.sha1(source.encode()).hexdigest()
    server.store.scripts[source] = lambda store, database, keys, arguments: store.get(database, keys[0]) or arguments[0]
    assert peer.do("EVALSHA", digest, 1, "k", "none").startswith("NOSCRIPT")
    assert peer.do("EVAL", source, 1, "k", "none") == b"none"
    peer.do("SET", "k", "v")
    assert peer.do("EVALSHA", digest, 1, "k", "none") == b"v"


def test_resp2_has_other_replies_and_no_pushes(server, listener):
    with Peer(server) as old:
        assert old.do("GET", "absent") is None
        assert old.do("HELLO", 2)[:2] == [b"server", b"redis"]
        assert old.do("SET", "users:1", "a") == "OK"
        assert old.do("CLIENT", "TRACKING", "ON", "BCAST").startswith("ERR")
    assert listener.read() == [">", b"invalidate", [b"users:1"]]


def test_a_transaction_is_one_turn(peer, listener):
    assert peer.do("MULTI") == "OK"
    assert peer.do("SET", "users:1", "a") == "QUEUED"
    assert peer.do("SET", "users:2", "a") == "QUEUED"
    assert peer.do("EXEC") == ["OK", "OK"]
    assert listener.read() == [">", b"invalidate", [b"users:1", b"users:2"]]


def test_changes_of_tracked_keys_are_broadcast_and_others_are_not(peer, listener):
    peer.do("SET", "other:1", "a")
    peer.do("SET", "users:1", "a")
    assert listener.read() == [">", b"invalidate", [b"users:1"]]
    peer.do("SET", "users:1", "b", "NX")
    peer.do("DEL", "users:2")
    peer.do("FLUSHDB")
    assert listener.read() == [">", b"invalidate", None]


def test_a_held_command_is_executed_when_the_test_says_so(server, peer):
    with server.hold("get", "k") as held:
        peer.send("GET", "k")
        held.wait()
        assert held.command == (b"GET", b"k")
        server.do("SET", "k", "late")
        held.release()
        assert peer.read() == b"late"
    assert peer.do("GET", "k") == b"late"


def test_an_executed_command_keeps_its_reply_until_it_is_released(server, peer, listener):
    server.do("SET", "users:1", "early")
    listener.read()
    with server.hold("GET") as held:
        peer.send("GET", "users:1")
        assert held.execute() == b"early"
        server.do("SET", "users:1", "late")
        assert listener.read() == [">", b"invalidate", [b"users:1"]]
        held.release()
        assert peer.read() == b"early"


def test_a_held_command_can_get_another_reply_or_none(server, peer):
    with server.hold("SET") as held:
        peer.send("SET", "k", "v")
        held.reply(Failure("OOM command not allowed"))
        assert peer.read() == "OOM command not allowed"
    assert server.do("GET", "k") is None
    with server.hold("SET") as held:
        peer.send("SET", "k", "v")
        held.execute()
        held.disconnect()
        assert peer.read() is EOFError
    assert server.do("GET", "k") == b"v"


def test_commands_behind_a_held_one_wait_and_other_connections_go_on(server, peer, listener):
    with server.hold("GET", "k") as held:
        peer.send("GET", "k")
        peer.send("PING")
        held.wait()
        assert listener.do("PING") == "PONG"
        assert server.count("PING", tracking=False) == 0
        held.release()
        assert [peer.read(), peer.read()] == [None, "PONG"]


def test_a_hold_can_be_limited_to_the_connection_that_tracks(server, peer, listener):
    with server.hold("PING", tracking=True) as held:
        assert peer.do("PING") == "PONG"
        assert not held.is_caught
        listener.send("PING")
        held.wait().reply(Failure("BUSY a script runs"))
        assert listener.read() == "BUSY a script runs"


def test_an_answer_replaces_all_replies_until_it_is_forgotten(server, peer):
    answer = server.answer("PING", reply=Failure("LOADING"))
    assert [peer.do("PING"), peer.do("PING")] == ["LOADING", "LOADING"]
    server.forget(answer)
    assert peer.do("PING") == "PONG"
    server.answer("GET", reply=lambda connection, command: command[1])
    assert peer.do("GET", "k") == b"k"


def test_a_pong_can_overtake_an_invalidation(server, peer, listener):
    server.hold_pushes()
    peer.do("SET", "users:1", "a")
    assert listener.do("PING") == "PONG"
    server.release_pushes()
    assert listener.read() == [">", b"invalidate", [b"users:1"]]
    server.hold_pushes()
    peer.do("SET", "users:1", "b")
    server.release_pushes(lose=True)
    assert listener.do("PING") == "PONG"


def test_output_of_a_connection_can_be_held(server, listener):
    connection = server.wait_for_tracking()
    connection.hold_output()
    listener.send("PING")
    server.do("SET", "users:1", "a")
    server.wait_for_command("PING", tracking=True)
    listener.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.socket.recv(1)
    listener.socket.settimeout(TIME_LIMIT_SECONDS)
    connection.release_output()
    assert sorted([str(listener.read()), str(listener.read())]) == sorted(
        ["PONG", "['>', b'invalidate', [b'users:1']]"]
    )


def test_any_bytes_can_be_sent(server, listener):
    connection = server.wait_for_tracking()
    connection.send(Raw(b"+what"))
    connection.send(Raw(b"ever\r\n"))
    assert listener.read() == "whatever"
    connection.push("invalidate", [b"users:x"])
    assert listener.read() == [">", b"invalidate", [b"users:x"]]


def test_a_refusing_server_keeps_connections_and_accepts_again_on_the_same_port(server, peer):
    port = server.port
    server.refuse()
    with pytest.raises(ConnectionRefusedError):
        Peer(server)
    assert peer.do("PING") == "PONG"
    server.accept()
    assert server.port == port
    with Peer(server) as other:
        assert other.do("PING") == "PONG"


def test_a_restart_drops_connections_and_data(server, peer):
    peer.do("SET", "k", "v")
    server.restart()
    assert peer.read() is EOFError
    with Peer(server) as other:
        assert other.do("GET", "k") is None


def test_a_wait_ends_when_the_command_arrives(server, peer):
    with Background(lambda: server.wait_for_command("PING", count=2)) as waiter:
        peer.do("PING")
        peer.do("PING", "x")
        waiter.join()
        assert waiter.result == (b"PING", b"x")


def test_a_violation_of_the_protocol_fails_the_test():
    server = ScriptedServer()
    with Peer(server) as peer:
        peer.socket.sendall(b"*1\r\n+PING\r\n")
        assert peer.read() is EOFError
    with pytest.raises(Exception, match="expected"):
        server.close()
