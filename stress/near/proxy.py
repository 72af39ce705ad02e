"""A TCP proxy between clients and a server, which can hold back one direction, delay it, and cut connections.

A connection of a listener is one whose client has sent the word TRACKING. Held bytes are delivered in order after
`release`, or lost if the connection is cut first, as on a network that drops packets.
"""

import contextlib
import socket
import threading
import time

UP, DOWN = "up", "down"
CHUNK_BYTES = 1 << 16
CONNECT_SECONDS = 5.0


class Pair:
    """A connection of a client, and the one that the proxy opened for it."""

    def __init__(self, proxy, client, server):
        self._proxy = proxy
        self._sockets = {UP: (client, server), DOWN: (server, client)}
        self._running = 2
        self._lock = threading.Lock()
        self.is_listener = False
        self.is_cut = False
        for direction in (UP, DOWN):
            threading.Thread(target=self._pump, args=(direction,), daemon=True, name=f"proxy {direction}").start()

    def cut(self):
        """Close both connections at once."""
        self.is_cut = True
        for sock in self._sockets[UP]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._proxy.wake()

    def _pump(self, direction):
        source, target = self._sockets[direction]
        try:
            while data := source.recv(CHUNK_BYTES):
                if direction == UP and b"TRACKING" in data:
                    self.is_listener = True
                self._proxy.pass_gate(self, direction)
                if self.is_cut:
                    break
                target.sendall(data)
        except OSError:
            pass  # one side has closed its connection
        self.cut()
        with self._lock:
            self._running -= 1
            is_last = not self._running
        if is_last:
            for sock in self._sockets[UP]:
                sock.close()
            self._proxy.gone(self)


class Proxy:
    """Listens on a free port of the loopback interface and forwards to a server's port."""

    def __init__(self, port, host="127.0.0.1"):
        self._target = (host, port)
        self._changed = threading.Condition()
        self._pairs = set()
        self._held = {}
        self._delays = {}
        self._is_refusing = False
        self._listener = socket.create_server((host, 0), backlog=128)
        self.host = host
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="proxy accepts").start()

    def hold(self, direction, *, only_listeners=False):
        """Hold back everything that arrives from one direction, on present and on new connections."""
        with self._changed:
            self._held[direction] = only_listeners

    def delay(self, direction, seconds):
        """Let each chunk from one direction wait."""
        with self._changed:
            self._delays[direction] = seconds

    def refuse(self):
        """Close each new connection at once."""
        self._is_refusing = True

    def release(self):
        """End all holds, delays and refusals."""
        with self._changed:
            self._held.clear()
            self._delays.clear()
            self._is_refusing = False
            self._changed.notify_all()

    def cut(self, *, only_listeners=False):
        """Close present connections, and lose the bytes that they hold back. Return how many there were."""
        with self._changed:
            pairs = [pair for pair in self._pairs if pair.is_listener or not only_listeners]
        for pair in pairs:
            pair.cut()
        return len(pairs)

    def close(self):
        self._listener.close()
        self.cut()

    # Methods for the threads of pairs

    def pass_gate(self, pair, direction):
        seconds = self._delays.get(direction)
        if seconds:
            time.sleep(seconds)
        if direction not in self._held:
            return
        with self._changed:
            self._changed.wait_for(lambda: pair.is_cut or not self._is_held(pair, direction))

    def wake(self):
        with self._changed:
            self._changed.notify_all()

    def gone(self, pair):
        with self._changed:
            self._pairs.discard(pair)

    def _is_held(self, pair, direction):
        only_listeners = self._held.get(direction)
        return only_listeners is not None and (pair.is_listener or not only_listeners)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, CONNECT_SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._pairs.add(Pair(self, client, server))
