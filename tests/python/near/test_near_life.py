"""The life of a near cache: the listener, the end, forks, and several processes."""

import gc
import json
import os
import shutil
import subprocess
import threading
import weakref
from pathlib import Path

import pytest
from helpers import FREE_THREADED, Background, run_script
from near.near_caches import make_near_cache, payload, settle, wait_until

from moka_py.near import NearCache, NearStats


def listeners():
    return [thread for thread in threading.enumerate() if thread.name.startswith("moka_py-near-")]


@pytest.fixture
def cache(server, scripted_client, near, manual_clock, paced):
    return near(scripted_client, "n")


# --- The listener ---


def test_there_is_one_daemon_thread_and_one_connection(cache, server, near, scripted_client):
    near(scripted_client, "n")
    [listener] = listeners()
    assert listener.daemon
    assert len(server.tracking) == 1
    assert server.tracking[0].protocol == 3
    assert server.tracking[0].prefixes == [b"n:"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_protocol_of_the_client_does_not_matter(server, make_client, near, manual_clock, paced, protocol):
    client = make_client(server, protocol=protocol)
    cache = near(client, "n")
    cache.set("k", [1])
    settle(cache, client, "n")
    assert cache.get("k") is cache.get("k")
    assert cache.get_with("l", lambda: 1) == 1
    cache.clear()
    assert cache.get_many(["k", "l"]) == {}


def test_the_listener_connects_with_the_settings_of_the_client(server, make_client, near, manual_clock, paced):
    client = make_client(server, db=3, username="me", password="secret", client_name="program")
    cache = near(client, "n")
    [connection] = server.tracking
    assert (connection.database, connection.user, connection.name) == (3, "me", "program")
    client.set("n:k", payload("1"))
    assert cache.get("k") == 1


def test_the_listener_connects_by_a_unix_socket(server_program, client_package, client_options, tmp_path, near):
    from near.real_server import RealServer

    path = str(tmp_path / "s")
    kind = getattr(client_package, "Redis", None) or client_package.Valkey
    with RealServer(server_program, "--unixsocket", path), kind(unix_socket_path=path, **client_options) as client:
        cache = near(client, "n")
        client.set("n:k", payload("[1]"))
        settle(cache, client, "n")
        assert cache.get("k") is cache.get("k")
        cache.close()


def test_the_listener_connects_by_tls(server_program, client_package, client_options, tmp_path, near):
    from near.real_server import RealServer, free_port

    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate, port = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem"), free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", certificate]
    files = ["--tls-cert-file", certificate, "--tls-key-file", key]
    kind = getattr(client_package, "Redis", None) or client_package.Valkey
    tls = {"ssl": True, "ssl_ca_certs": certificate, "host": "localhost", "port": port}
    try:
        server = RealServer(server_program, *options, *files)
    except RuntimeError:
        pytest.skip("this server is built without TLS")
    with server, kind(**{**client_options, **tls}) as client:
        cache = near(client, "n")
        for number in range(1_000):
            client.set(f"n:{number}", payload('"text"') * 20)
        client.set("n:k", payload("[1]"))
        settle(cache, client, "n")
        assert cache.get("k") is cache.get("k")
        cache.close()
        assert listeners() == []


def test_a_user_with_few_permissions_has_a_local_tier(client, real_server, make_client, near):
    permissions = "~f:* +@read +@write +@scripting +ping +client|tracking +hello +auth +select"
    client.execute_command("ACL", "SETUSER", "few", "on", ">secret", *permissions.split())
    cache = near(make_client(real_server, username="few", password="secret"), "f")
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert cache.get_with("l", lambda: 2) == 2


# --- The end ---


METHODS = {
    "get": lambda cache: cache.get("k"),
    "get_many": lambda cache: cache.get_many(["k"]),
    "contains": lambda cache: cache.contains("k"),
    "set": lambda cache: cache.set("k", 1),
    "set_many": lambda cache: cache.set_many({"k": 1}),
    "add": lambda cache: cache.add("k", 1),
    "touch": lambda cache: cache.touch("k"),
    "remove": lambda cache: cache.remove("k"),
    "remove_many": lambda cache: cache.remove_many(["k"]),
    "get_with": lambda cache: cache.get_with("k", lambda: 1),
    "clear": lambda cache: cache.clear(),
    "clear_local": lambda cache: cache.clear_local(),
    "with": lambda cache: cache.__enter__(),
    "cached": lambda cache: cache.cached(key=str),
}


@pytest.mark.parametrize("call", METHODS.values(), ids=METHODS)
def test_after_close_every_method_but_stats_raises(cache, server, scripted_client, call):
    server.do("SET", "n:k", payload("1"))
    settle(cache, scripted_client, "n")
    assert cache.get("k") == 1
    cache.close()
    cache.close()
    server.wait_for(lambda: not server.tracking)
    commands = len(server.commands)
    with pytest.raises(ValueError, match="the near cache is closed"):
        call(cache)
    assert isinstance(cache.stats(), NearStats)
    assert not cache.is_coherent
    assert len(server.commands) == commands
    assert scripted_client.get("n:k") == payload("1")


def test_the_listener_ends_with_the_last_near_cache_of_a_namespace(cache, server, scripted_client):
    other = make_near_cache(scripted_client, "n")
    cache.close()
    assert len(listeners()) == 1
    other.close()
    assert listeners() == []
    server.wait_for(lambda: not server.tracking)


def test_calls_that_are_under_way_end_normally(cache, server):
    server.do("SET", "n:k", payload("1"))
    began, go_on = threading.Event(), threading.Event()

    def load():
        began.set()
        assert go_on.wait(60)
        return 2

    with server.hold("GET", "n:k") as hold:
        with Background(lambda: cache.get("k")) as reader, Background(lambda: cache.get_with("l", load)) as loader:
            hold.wait()
            assert began.wait(60)
            cache.close()
            hold.release()
            go_on.set()
    assert (reader.result, loader.result) == (1, 2)
    assert server.do("GET", "n:l") == payload("2")


def test_a_new_near_cache_after_close_has_a_new_tier(cache, server, scripted_client, near):
    server.do("SET", "n:k", payload("1"))
    settle(cache, scripted_client, "n")
    assert cache.get("k") == 1
    cache.close()
    server.do("SET", "n:k", payload("2"))
    new = near(scripted_client, "n", capacity=5)
    assert new.get("k") == 2
    assert new.stats().remote_hits == 1


def test_a_near_cache_that_is_dropped_ends_its_listener(server, scripted_client, manual_clock, paced):
    cache = make_near_cache(scripted_client, "n")
    alive = weakref.ref(cache)
    cache.cycle = cache
    del cache
    gc.collect()
    assert alive() is None
    wait_until(lambda: not listeners())


def test_a_subclass_must_call_init(scripted_client):
    class Lazy(NearCache):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match=r"must call super\(\).__init__"):
        Lazy().get("k")


class Counting(NearCache):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.calls = 0

    def get(self, key, default=None, *, fresh=False):
        self.calls += 1
        return super().get(key, default, fresh=fresh)


def test_a_subclass_may_override_methods(server, scripted_client, namespace):
    with Counting(scripted_client, namespace, ttl=1) as cache:
        assert cache.get("k", 5) == 5
        assert cache.calls == 1
    assert NearCache[int] and NearCache[int](scripted_client, namespace, ttl=1).close() is None


# Scripts of their own: they get the address of a server.
SETUP = """
import os, signal, sys, threading, time, warnings
PACKAGE, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
module = __import__(PACKAGE)
Client = getattr(module, "Redis", None) or module.Valkey
client = Client(host=HOST, port=PORT)
from moka_py.near import NearCache
from near.near_caches import make_near_cache, payload, settle, wait_until

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
"""


@pytest.fixture
def run(client_package, real_server):
    """Return a function that runs a script with a client of the real server. The number of its loads is "loads"."""

    def run(source):
        tests = str(Path(__file__).parents[1])
        return run_script(SETUP + source, client_package.__name__, real_server.host, str(real_server.port), tests)

    return run


def test_the_end_of_the_interpreter_stops_the_listener(run):
    run("""
cache = make_near_cache(client, "n", max_staleness=0.1)
cache.set("k", 1)
assert cache.get("k") == 1
listener = cache._tier._listener._thread
import atexit
atexit.unregister(sys.modules["moka_py.near._tier"]._stop_all)
def check():
    assert listener.is_alive()
    sys.modules["moka_py.near._tier"]._stop_all()
    assert not listener.is_alive()
    print("stopped")
atexit.register(check)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_has_a_new_tier_and_a_listener_of_its_own(run):
    run("""
cache = make_near_cache(client, "n", max_staleness=3600)
client.set("n:k", payload('"old"'))
settle(cache, client, "n")
assert cache.get("k") == "old"
parent = cache._tier._listener._connection._sock
ids = {each["id"] for each in client.client_list()}

def work():
    assert threading.active_count() == 1
    assert parent.fileno() == -1, "the child has closed its copy of the parent's socket"
    assert not cache._tier.is_coherent, "the child has no listener yet"
    stats = cache.stats()
    assert stats.local.hits == stats.remote_hits == stats.local.count == stats.seconds_incoherent == 0
    # A write of which no listener of this process has heard.
    Client(host=HOST, port=PORT).set("n:k", payload('"new"'))
    assert cache.get("k") == "new"
    wait_until(lambda: cache.is_coherent)
    assert threading.active_count() == 2
    assert cache.stats().reconnects == 0
    client.set("n:k", payload('"newer"'))
    settle(cache, client, "n")
    assert cache.get("k") == "newer"
    cache.set("k", "by the child")

in_child(work)
# The listener of the parent has gone on, by its own connection.
wait_until(lambda: cache.get("k") == "by the child")
assert cache.stats().reconnects == 0 and cache.is_coherent
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_waits_for_no_lock_that_a_thread_of_the_parent_held(run):
    run("""
cache = make_near_cache(client, "n", max_staleness=3600)
client.set("n:k", payload("1"))
settle(cache, client, "n")
assert cache.get("k") == 1
watch = cache._tier.watch("k", int)
held, done = threading.Event(), threading.Event()
def hold():
    with cache._tier._lock, cache._tier.counters._lock, sys.modules["moka_py.near._tier"]._registry_lock:
        held.set()
        done.wait()

def work():
    assert cache.get("k") == 1
    wait_until(lambda: cache.is_coherent)
    cache.set("k", 2)
    settle(cache, client, "n")
    assert cache.get("k") == cache.get_with("k", lambda: 3) == 2
    assert cache.get_with("l", lambda: 4) == 4
    cache.clear()
    assert cache.stats().remote_hits == 2
    with make_near_cache(client, "n", max_staleness=3600) as other:
        assert other.get("k") is None
    with make_near_cache(client, "other") as other:
        assert other.get("k") is None
    cache.close()

holder = threading.Thread(target=hold, daemon=True)
holder.start()
assert held.wait(60)
in_child(work)
done.set()
holder.join(60)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif(FREE_THREADED, reason="CPython 3.13t leaves locks of objects held in the child")
def test_a_fork_beside_busy_threads_leaves_the_child_working(run):
    run("""
# In the child redis-py 8 takes locks that a thread of the parent may have held.
def renew_locks_of_client():
    pool = client.connection_pool
    for owner in (pool, getattr(pool, "_event_dispatcher", None)):
        if hasattr(owner, "_lock"):
            owner._lock = threading.RLock()

os.register_at_fork(after_in_child=renew_locks_of_client)
cache = make_near_cache(client, "n", max_staleness=3600)
stop = threading.Event()
def use(number):
    while not stop.is_set():
        cache.set(number, number)
        cache.get(number)
        cache.get_with("loaded", lambda: 1)
        cache.remove("loaded")
        cache.stats()
threads = [threading.Thread(target=use, args=(number,), daemon=True) for number in range(3)]
for thread in threads:
    thread.start()

def work():
    child_client = Client(host=HOST, port=PORT)
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert cache.get_with("of the child", lambda: 2) == 2
    wait_until(lambda: cache.is_coherent)

for _ in range(8):
    in_child(work)
stop.set()
for thread in threads:
    thread.join(30)
    assert not thread.is_alive()
""")


# --- Several processes ---


LOADER = """
def load():
    client.incr("loads")
    if client.get("mode") == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    # The others ask meanwhile.
    wait_until(lambda: int(client.get("asking") or 0) >= int(client.get("processes")))
    return {"loads": int(client.get("loads"))}

def ask(lease=30.0):
    client.incr("asking")
    return cache.get_with("cold", load, lease=lease)
"""


def start(client_package, server, source):
    tests = str(Path(__file__).parents[1])
    arguments = (client_package.__name__, server.host, str(server.port), tests)
    return Background(lambda: run_script(SETUP + LOADER + source, *arguments))


def test_eight_processes_that_ask_for_one_cold_key_load_it_once(client, client_package, real_server):
    client.set("processes", 8)
    source = """
cache = make_near_cache(client, "n", max_staleness=5)
client.incr("ready")
wait_until(lambda: int(client.get("ready")) == 8)
import json
print(json.dumps(ask()))
"""
    processes = [start(client_package, real_server, source) for _ in range(8)]
    for process in processes:
        process.__enter__()
    for process in processes:
        process.__exit__(None, None, None)
    assert [json.loads(process.result) for process in processes] == [{"loads": 1}] * 8
    assert client.get("loads") == b"1"


def test_after_the_holder_of_a_lease_was_killed_another_process_takes_over(client, client_package, real_server):
    client.mset({"processes": 1, "mode": "die"})
    dying = """
cache = make_near_cache(client, "n", max_staleness=5)
child = os.fork()
if child == 0:
    ask(lease=0.5)
os.waitpid(child, 0)
client.set("mode", "live")
# The token of the dead process is there, so this call waits.
assert client.get("n:cold").startswith(b"\\xc1mk?")
assert ask(lease=30.0) == {"loads": 2}
stats = cache.stats()
assert (stats.lease_waits, stats.lease_takeovers) == (1, 1), stats
"""
    with start(client_package, real_server, dying):
        pass
    assert client.get("n:cold") == payload('{"loads":2}')
