"""The fixtures give working clients for real and scripted servers."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from near.near_caches import TIME_LIMIT_SECONDS, wait_until


def test_a_client_reaches_a_real_server_without_keys(client):
    assert client.dbsize() == 0
    assert client.set("k", "v")
    assert client.get("k") == b"v"


def test_a_client_reaches_the_scripted_server(scripted_client, scripted_server):
    assert scripted_client.set("k", "v", px=1000)
    assert scripted_client.get("k") == b"v"
    assert scripted_client.pttl("k") == 1000
    assert scripted_client.pipeline(transaction=False).get("k").pttl("k").execute() == [b"v", 1000]
    assert scripted_client.pipeline().get("k").pttl("k").execute() == [b"v", 1000]
    assert scripted_server.do("GET", "k") == b"v"


@pytest.mark.parametrize("server", ["real_server", "scripted_server"])
def test_a_client_of_asyncio_reaches_both(server, request, make_async_client):
    async def main():
        async with make_async_client(request.getfixturevalue(server)) as client:
            assert await client.set("k", "v")
            return await client.get("k")

    assert asyncio.run(main()) == b"v"


def test_a_server_of_its_own_can_be_paused_killed_and_started_empty(own_server, make_client, client_package):
    client = make_client(own_server, socket_timeout=0.5)
    client.set("k", "v")
    own_server.pause()
    with pytest.raises(client_package.exceptions.TimeoutError):
        client.get("k")
    own_server.resume()
    own_server.kill()
    with pytest.raises(client_package.exceptions.ConnectionError):
        client.get("k")
    own_server.start()
    assert client.get("k") is None


def test_a_server_ends_with_the_process_that_started_it(server_program):
    source = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from near.real_server import RealServer
print(RealServer(sys.argv[2]).port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", source, tests, server_program]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS)
    assert killed.returncode < 0, killed.stderr

    def is_gone():
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", int(killed.stdout))) != 0

    wait_until(is_gone)
