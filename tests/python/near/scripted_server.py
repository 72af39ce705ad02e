"""A server that speaks the protocol of Redis, and whose every reply and push message a test can hold, replace or drop.

By default it behaves as a small Redis: see scripted_store.py. On top of that

- `hold(*words)` stops the next command that begins with these words, before it is executed. The test waits for it, and
  then decides: `execute()`, `release()`, `reply(...)`, `disconnect()`;
- `answer(*words, reply=...)` replies to each such command without executing it;
- `hold_pushes()` keeps invalidations back until `release_pushes()`, so a PONG can overtake them;
- a `Connection` can `send`, `push`, `hold_output` and `close`;
- `refuse()` and `accept()` close and open the port; `restart()` loses all data and connections.

Commands are executed one at a time, in order of arrival. Replies and pushes to one connection keep their order. The
clock of the keys moves only by `advance`. Functions in `store.scripts` stand for Lua scripts, by source. Nothing
sleeps, and each wait has a time limit.
"""

import socket
import threading

from near.resp import Failure, Status
from near.scripted_connection import TIME_LIMIT_SECONDS, Connection, Hold
from near.scripted_store import FLUSHED, OK, Store


class ScriptedServer:
    """The server. It listens on a free port of the loopback interface from its construction until `close`."""

    def __init__(self, version="7.0.15"):
        self.store = Store(version)
        # All commands in order of arrival, each as a tuple of bytes.
        self.commands = []
        self.connections = []
        # Violations of the protocol by clients, and failures of the server's own threads.
        self.errors = []
        self.host = "127.0.0.1"
        self.port = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._numbers = 0
        # The connection and the command of each element of `commands`.
        self._log = []
        self._holds = []
        self._answers = []
        self._held_pushes = None
        self._listener = None
        self.accept()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def url(self):
        return f"redis://{self.host}:{self.port}/0"

    # Methods by which a test decides

    def hold(self, *words, tracking=None):
        """Return a `Hold`, which stops the next command that begins with these words.

        The first word is the command's name in any case. With `tracking` only commands of connections with or without
        tracking match.
        """
        hold = Hold(self, self._matcher(words, tracking))
        with self._lock:
            self._holds.append(hold)
        return hold

    def answer(self, *words, reply, tracking=None):
        """Reply to each command that begins with these words, without executing it. Return an object for `forget`.

        The reply may be a function of the connection and the command.
        """
        answer = (self._matcher(words, tracking), reply)
        with self._lock:
            self._answers.append(answer)
        return answer

    def forget(self, what):
        """End a hold or an answer: later commands pass."""
        with self._lock:
            for each in (self._holds, self._answers):
                if what in each:
                    each.remove(what)

    def hold_pushes(self):
        """Keep all invalidations back from now on."""
        with self._lock:
            self._held_pushes = []

    def release_pushes(self, *, lose=False):
        """Send the invalidations that were kept back, or lose them, and keep back no more."""
        with self._lock:
            held, self._held_pushes = self._held_pushes, None
            if not lose:
                for connection, message in held or []:
                    connection.push(*message)

    def advance(self, seconds):
        """Move the clock of the keys. Keys that expire are removed, and their invalidations sent."""
        with self._lock:
            self.store.advance(seconds)
            self._broadcast()

    def do(self, *words, database=0):
        """Execute a command as a foreign client would. Return its reply."""
        with self._lock:
            reply = self.store.execute(database, [to_bytes(word) for word in words])
            self._broadcast()
            return reply

    def refuse(self):
        """Close the port. Connections stay."""
        if self._listener is not None:
            # shutdown wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._accepting.join(TIME_LIMIT_SECONDS)
            self._listener = None

    def accept(self):
        """Open the port, the same one after `refuse`."""
        self._listener = socket.create_server((self.host, self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True, name="accepting")
        self._accepting.start()

    def disconnect_all(self):
        """Drop all connections."""
        for connection in list(self.connections):
            connection.close()

    def restart(self):
        """Do what a crash and a start do to clients: connections drop, and all data and scripts are lost."""
        self.refuse()
        self.disconnect_all()
        with self._lock:
            self.store.databases.clear()
            self.store.do_script(None, b"FLUSH")
            self.store.take_changes()
        self.accept()

    def close(self):
        """Stop. Raise the first error of a client's protocol or of a thread, if there was one."""
        self.refuse()
        self.disconnect_all()
        with self._lock:
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.__exit__()
        if self.errors:
            raise self.errors[0]

    # Methods by which a test observes

    def wait_for(self, condition):
        """Wait until a condition holds, which is checked after each command and each change of a connection."""
        with self._changed:
            assert self._changed.wait_for(condition, TIME_LIMIT_SECONDS), f"received: {self.commands[-20:]}"

    def wait_for_command(self, *words, count=1, tracking=None):
        """Wait until `count` commands that begin with these words have arrived. Return the last of them."""
        matches = self._matcher(words, tracking)

        def found():
            return [command for connection, command in self._log if matches(connection, command)]

        self.wait_for(lambda: len(found()) >= count)
        return found()[-1]

    def count(self, *words, tracking=None):
        """Return how many commands that begin with these words have arrived."""
        matches = self._matcher(words, tracking)
        with self._lock:
            return sum(matches(connection, command) for connection, command in self._log)

    def wait_for_tracking(self, count=1):
        """Wait until this many connections track keys. Return the newest of them."""
        self.wait_for(lambda: len(self.tracking) >= count)
        return self.tracking[-1]

    @property
    def tracking(self):
        """The connections that track keys."""
        return [connection for connection in self.connections if connection.is_tracking]

    # Methods for the threads of connections

    def serve(self, connection, words):
        command = tuple(words)
        with self._changed:
            self.commands.append(command)
            self._log.append((connection, command))
            hold = next((each for each in self._holds if each.matches(connection, command)), None)
            if hold is not None:
                self._holds.remove(hold)
            self._changed.notify_all()
        try:
            if hold is not None:
                reply = hold.stop(connection, command)
                if not connection.closed.is_set():
                    connection.send(reply)
            else:
                # The reply enters the queue in the same turn, so that it precedes the pushes of later commands.
                with self._lock:
                    connection.send(self.execute(connection, command))
        except AssertionError as error:
            self.errors.append(error)
            connection.close()

    def execute(self, connection, command):
        """Execute a command of a connection, send the invalidations, and return the reply."""
        with self._changed:
            answer = next((reply for matches, reply in self._answers if matches(connection, command)), self)
            if answer is not self:
                return answer(connection, command) if callable(answer) else answer
            reply = self._execute(connection, list(command))
            self._broadcast()
            self._changed.notify_all()
            return reply

    def gone(self, connection):
        with self._changed:
            self.connections.remove(connection)
            self._changed.notify_all()

    # Inside

    @staticmethod
    def _matcher(words, tracking):
        wanted = [to_bytes(word) for word in words]

        def matches(connection, command):
            if tracking is not None and connection.is_tracking is not tracking:
                return False
            if len(command) < len(wanted) or command[0].upper() != wanted[0].upper():
                return False
            return list(command[1 : len(wanted)]) == wanted[1:]

        return matches

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._numbers += 1
                self.connections.append(Connection(self, self._numbers, sock))
                self._changed.notify_all()

    def _broadcast(self):
        changes = self.store.take_changes()
        for connection in self.connections:
            if connection.prefixes is None or not changes:
                continue
            keys = []
            for key in dict.fromkeys(changes):
                if key is FLUSHED:
                    self._push(connection, ("invalidate", None))
                elif any(map(key.startswith, connection.prefixes)):
                    keys.append(key)
            if keys:
                self._push(connection, ("invalidate", keys))

    def _push(self, connection, message):
        if self._held_pushes is None:
            connection.push(*message)
        else:
            self._held_pushes.append((connection, message))

    def _execute(self, connection, words):
        name, arguments = words[0].upper(), words[1:]
        if connection.queued is not None and name not in (b"EXEC", b"DISCARD"):
            connection.queued.append(words)
            return Status("QUEUED")
        match name:
            case b"PING":
                return arguments[0] if arguments else Status("PONG")
            case b"HELLO":
                return self._hello(connection, arguments)
            case b"AUTH":
                connection.user = arguments[0].decode() if len(arguments) > 1 else "default"
                return OK
            case b"SELECT":
                connection.database = int(arguments[0])
                return OK
            case b"CLIENT":
                return self._client(connection, arguments)
            case b"MULTI":
                connection.queued = []
                return OK
            case b"DISCARD":
                connection.queued = None
                return OK
            case b"EXEC":
                queued, connection.queued = connection.queued or [], None
                return [self._execute(connection, each) for each in queued]
        return self.store.execute(connection.database, words)

    def _hello(self, connection, arguments):
        if arguments:
            if arguments[0] not in (b"2", b"3"):
                return Failure("NOPROTO unsupported protocol version")
            connection.protocol = int(arguments[0])
        for position, word in enumerate(arguments):
            if word.upper() == b"AUTH":
                connection.user = arguments[position + 1].decode()
        return {
            "server": "redis",
            "version": self.store.version,
            "proto": connection.protocol,
            "id": connection.number,
            "mode": "standalone",
            "role": "master",
            "modules": [],
        }

    def _client(self, connection, arguments):
        match [arguments[0].upper(), *arguments[1:]]:
            case [b"ID"]:
                return connection.number
            case [b"SETNAME", name]:
                connection.name = name.decode()
                return OK
            case [b"GETNAME"]:
                return connection.name
            case [b"SETINFO", _, _]:
                return OK
            case [b"TRACKING", action, *options]:
                return self._tracking(connection, action.upper(), options)
        return Failure(f"ERR unknown subcommand '{arguments[0].decode()}'")

    @staticmethod
    def _tracking(connection, action, options):
        if action == b"OFF":
            connection.prefixes = None
            return OK
        prefixes, flags = [], set()
        options = list(options)
        while options:
            word = options.pop(0).upper()
            if word == b"PREFIX":
                prefixes.append(options.pop(0))
            else:
                flags.add(word)
        if action != b"ON" or b"BCAST" not in flags or connection.protocol != 3:
            return Failure("ERR this server supports CLIENT TRACKING only with BCAST and RESP3")
        connection.prefixes = (connection.prefixes or []) + (prefixes or [b""])
        return OK


def to_bytes(word):
    """Return a word of a command as bytes."""
    return word if isinstance(word, bytes) else str(word).encode()
