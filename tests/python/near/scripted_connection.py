"""A connection of the scripted server, and a command that a test holds there."""

import queue
import socket
import threading

from near.resp import ProtocolError, Push, encode, read_command

TIME_LIMIT_SECONDS = 60.0

# The writing thread of a connection ends when it takes this from the queue.
END = object()


class Hold:
    """A place where one command stops until the test decides about it."""

    def __init__(self, server, matches):
        self._server = server
        self.matches = matches
        self.connection = None
        self.command = None
        self._caught = threading.Event()
        self._decided = threading.Event()
        self._is_executed = False
        self._reply = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Let the command go on if the test did not decide, and later commands pass."""
        self._server.forget(self)
        if not self._decided.is_set():
            self._decided.set()

    @property
    def is_caught(self):
        return self._caught.is_set()

    def wait(self):
        """Wait until a command stops here, and return this object."""
        assert self._caught.wait(TIME_LIMIT_SECONDS), f"no command matched; received: {self._server.commands[-20:]}"
        return self

    def execute(self):
        """Execute the command now, and keep its reply back. Its invalidations are sent."""
        self.wait()
        assert not self._is_executed and not self._decided.is_set(), "the command is already executed or answered"
        self._reply = self._server.execute(self.connection, self.command)
        self._is_executed = True
        return self._reply

    def release(self):
        """Execute the command, if it is not executed, and send its reply."""
        self.wait()
        self._decided.set()

    def reply(self, reply):
        """Send this reply. A command that is not yet executed never will be."""
        self.wait()
        self._reply, self._is_executed = reply, True
        self._decided.set()

    def disconnect(self):
        """Close the connection without a reply. A command that is not yet executed never will be."""
        self.wait()
        self._is_executed = True
        self.connection.close()
        self._decided.set()

    def stop(self, connection, command):
        """Stop a command, in the thread of its connection, and return its reply."""
        self.connection, self.command = connection, command
        self._caught.set()
        assert self._decided.wait(2 * TIME_LIMIT_SECONDS), f"the test left this command held: {command}"
        return self._reply if self._is_executed else self._server.execute(connection, command)


class Connection:
    """A connection of a client, seen from the server. Its number is its CLIENT ID."""

    def __init__(self, server, number, sock):
        self._server = server
        self._socket = sock
        self._output = queue.SimpleQueue()
        self._may_write = threading.Event()
        self._may_write.set()
        self.number = number
        self.protocol = 2
        self.database = 0
        self.user = "default"
        self.name = None
        # The tracked prefixes, or None without tracking.
        self.prefixes = None
        self.queued = None
        self.closed = threading.Event()
        for target in (self._read, self._write):
            threading.Thread(target=target, daemon=True, name=f"connection {number}").start()

    @property
    def is_tracking(self):
        return self.prefixes is not None

    def send(self, reply):
        """Send a reply of the types in resp.py after all that was sent before. `Raw` sends any bytes."""
        self._output.put(encode(reply, self.protocol))

    def push(self, *message):
        """Send a push message: `push("invalidate", [key])`, or `push("invalidate", None)` for a flush."""
        self.send(Push(message))

    def hold_output(self):
        """Keep everything back that this connection would send."""
        self._may_write.clear()

    def release_output(self):
        self._may_write.set()

    def close(self):
        """Drop the connection at once. Output that is held back is lost."""
        self.closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client closed it first
        self._output.put(END)
        self._may_write.set()

    def _read(self):
        try:
            with self._socket.makefile("rb") as file:
                while (command := read_command(file)) is not None:
                    if command:
                        self._server.serve(self, command)
        except (OSError, ProtocolError) as error:
            if isinstance(error, ProtocolError):
                self._server.errors.append(error)
        finally:
            self.close()
            self._server.gone(self)

    def _write(self):
        while (data := self._output.get()) is not END:
            self._may_write.wait()
            if self.closed.is_set():
                break
            try:
                self._socket.sendall(data)
            except OSError:
                break
        self._socket.close()
