"""Fixtures for the near cache: real and scripted servers, and clients for them.

MOKA_PY_SERVER names the program of the real server, as `ci/server --program redis` prints it. Without the variable a
redis-server or valkey-server of PATH is used. MOKA_PY_CLIENT is the client's package: redis, which is the default, or
valkey. MOKA_PY_PROTOCOL is 2 or 3, for clients that use this version of the protocol. Each process of pytest has a
server of its own.
"""

import contextlib
import functools
import importlib
import itertools
import os

import pytest
from near.blocking_near_cache import BlockingNearCache, LoopThread
from near.near_caches import install_scripts, make_near_cache
from near.real_server import PROGRAM_VARIABLE, RealServer, find_program
from near.scripted_server import ScriptedServer

from moka_py.near import NearCache, _listener
from moka_py.near._options import Options
from moka_py.testing import ManualClock

CLIENT_VARIABLE = "MOKA_PY_CLIENT"
PROTOCOL_VARIABLE = "MOKA_PY_PROTOCOL"
# Longer than any test waits for a reply.
SOCKET_TIMEOUT_SECONDS = 60.0

_numbers = itertools.count()


@pytest.fixture(scope="session")
def client_package():
    """Return the package of the client, redis or valkey."""
    name = os.environ.get(CLIENT_VARIABLE)
    if name is not None:
        return importlib.import_module(name)
    return pytest.importorskip("redis", reason="the package redis is not installed")


@pytest.fixture(scope="session")
def server_program():
    """Return the path of a server's program."""
    program = find_program()
    if program is None:
        pytest.skip(
            f"there is no redis-server: set {PROGRAM_VARIABLE} to the path that `ci/server --program redis` prints"
        )
    return program


@pytest.fixture(scope="session")
def _shared_server(server_program):
    with RealServer(server_program) as server:
        yield server


@pytest.fixture
def real_server(_shared_server, make_client):
    """Return a running server without any key. Tests of one process share it, so they must not stop it."""
    make_client(_shared_server).flushall()
    return _shared_server


@pytest.fixture
def own_server(server_program):
    """Return a server that the test may pause, kill and start again."""
    with RealServer(server_program) as server:
        yield server


@pytest.fixture
def scripted_server():
    """Return a server whose every reply the test can control."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def client_options(client_package):
    """Return the options of a client that neither retries nor gives up early."""
    retry = importlib.import_module(f"{client_package.__name__}.retry")
    backoff = importlib.import_module(f"{client_package.__name__}.backoff")
    options = {
        "retry": retry.Retry(backoff.NoBackoff(), 0),
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
    }
    if PROTOCOL_VARIABLE in os.environ:
        options["protocol"] = int(os.environ[PROTOCOL_VARIABLE])
    return options


@pytest.fixture
def make_client(client_package, client_options):
    """Return a function that makes a client for a server, real or scripted. The clients are closed after the test."""
    kind = getattr(client_package, "Redis", None) or client_package.Valkey
    with contextlib.ExitStack() as stack:

        def make(server, **options):
            client = kind(**{"host": server.host, "port": server.port, **client_options, **options})
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def make_async_client(client_package, client_options):
    """Return a function that makes a client of asyncio for a server. The test closes it, in its event loop."""
    module = importlib.import_module(f"{client_package.__name__}.asyncio")
    retry = importlib.import_module(f"{client_package.__name__}.asyncio.retry")
    backoff = importlib.import_module(f"{client_package.__name__}.backoff")
    kind = getattr(module, "Redis", None) or module.Valkey

    def make(server, **options):
        own = {**client_options, "retry": retry.Retry(backoff.NoBackoff(), 0)}
        return kind(host=server.host, port=server.port, **{**own, **options})

    return make


@pytest.fixture
def client(real_server, make_client):
    """Return a client of the real server, whose databases are empty."""
    return make_client(real_server)


@pytest.fixture
def scripted_client(scripted_server, make_client):
    """Return a client of the scripted server."""
    return make_client(scripted_server)


@pytest.fixture
def namespace():
    """Return a namespace that no other test of this process uses."""
    return f"test{next(_numbers)}"


@pytest.fixture(params=["sync", "async"])
def near_class(request):
    """Return `NearCache`, and then something like it that uses `AsyncNearCache`."""
    if request.param == "sync":
        yield NearCache
    else:
        with LoopThread() as thread:
            yield functools.partial(BlockingNearCache, thread)


@pytest.fixture
def near(namespace, near_class):
    """Return a function that makes coherent near caches of one namespace. They are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(client, namespace=namespace, **options):
            cache = make_near_cache(client, namespace, near_class, **options)
            return stack.enter_context(contextlib.closing(cache))

        yield make


@pytest.fixture
def server(scripted_server):
    """Return a scripted server that knows the scripts of the near cache."""
    install_scripts(scripted_server)
    return scripted_server


@pytest.fixture
def manual_clock():
    """Return a clock that the near caches of the test have, and that stands still."""
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def paced(monkeypatch):
    """Have listeners send a PING every few milliseconds, and wait for a reply as long as a test may take."""
    monkeypatch.setattr(Options, "heartbeat", property(lambda _: 0.005))
    monkeypatch.setattr(_listener, "MIN_TIMEOUT", SOCKET_TIMEOUT_SECONDS)
    monkeypatch.setattr(_listener, "MAX_TIMEOUT", SOCKET_TIMEOUT_SECONDS)
