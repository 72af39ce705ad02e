"""Starts a real Redis or Valkey server for a test, on a free port and without persistence, and pauses or kills it.

The server ends with the process that started it, also if that is killed. A second process, the guard, reads from a pipe
whose other end only the first process has, and kills the server at the end of the pipe. (With `PR_SET_PDEATHSIG` the
server would end with the thread that started it.)
"""

import os
import shutil
import signal
import socket
import subprocess
import time

PROGRAM_VARIABLE = "MOKA_PY_SERVER"
PROGRAMS = ("redis-server", "valkey-server")
TIME_LIMIT_SECONDS = 30.0
MAX_ATTEMPTS = 20
WAIT_SECONDS = 0.01


def find_program():
    """Return the path of a server's program, or None. The variable MOKA_PY_SERVER names it before PATH does."""
    named = os.environ.get(PROGRAM_VARIABLE)
    if named is None:
        return next(filter(None, map(shutil.which, PROGRAMS)), None)
    found = shutil.which(named)
    if found is None:
        raise FileNotFoundError(f"{PROGRAM_VARIABLE} names no program: {named}")
    return found


class RealServer:
    """A server of its own. `kill` and `start` again use the same port, and all data is lost between them."""

    def __init__(self, program, *options):
        self._program = program
        self._options = options
        self._process = None
        self._guard = None
        self.host = "127.0.0.1"
        self.port = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def url(self):
        return f"redis://{self.host}:{self.port}/0"

    def start(self):
        """Start the server, on the port that it had before or on a free one, and wait until it answers."""
        for _ in range(MAX_ATTEMPTS):
            port = self.port or free_port()
            command = [self._program, "--bind", self.host, "--port", str(port), "--save", "", "--appendonly", "no"]
            self._process = subprocess.Popen(
                [*command, "--enable-debug-command", "yes", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", 'read line; kill -9 "$1"', "guard", str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._answers(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"{self._program} does not start: {command}")

    def pause(self):
        """Stop the process as a machine without time for it would. Its sockets stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        """End the process at once."""
        # First the guard: another process may get the id of the server.
        self._guard.kill()
        self._guard.communicate()
        self._process.kill()
        self._process.wait()

    def _answers(self, port):
        deadline = time.monotonic() + TIME_LIMIT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection((self.host, port), TIME_LIMIT_SECONDS) as sock:
                    sock.sendall(b"PING\r\n")
                    # Another server may have taken the port meanwhile; then the own process ends.
                    if sock.recv(64).startswith(b"+PONG") and self._process.poll() is None:
                        return True
            except OSError:
                pass
            time.sleep(WAIT_SECONDS)
        return False


def free_port():
    """Return a port that was free when this function looked."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]
