"""What is done to the server, the network and the processes during a run.

Each fault is a method. It begins and ends the fault, records what it writes and removes, and returns whether it had an
effect.
"""

import contextlib
import os
import random
import signal
import threading
import time

from actions import NAMESPACES, PLAIN, RAW, kind_of, namespace_of
from history import ABSENT, NEVER, RESET, RESET_ALL, SET, now
from proxy import DOWN, UP

# A script that writes its keys at once, and then keeps the server busy with as many steps as the last argument says.
# (A script has no clock.)
SLOW_SCRIPT = """
for position = 1, #KEYS do redis.call('SET', KEYS[position], ARGV[position]) end
for step = 1, tonumber(ARGV[#ARGV]) do end
return #KEYS
"""
SCRIPT_KEYS = 3
MEASURED_STEPS = 20_000_000
# Entries that fill the server's memory, and that it may evict.
FILLERS, FILLER_BYTES, FILLER_ROOM_BYTES = 2000, 1000, 200_000
POLL_SECONDS = 0.002


class Faults:
    """Makes faults. A duration is in the size of the bound, so that a cache which ignores it is found."""

    def __init__(self, server, proxy, make_client, client_error, values, bound):
        self._server = server
        self._proxy = proxy
        self._make_client = make_client
        self._client = make_client()
        self._client_error = client_error
        self._values = values
        self._bound = bound
        self._log = None
        self._dice = None
        self._keys = None
        self._processes = []
        began = time.monotonic()
        self._client.eval(SLOW_SCRIPT, 0, MEASURED_STEPS)
        self._steps_per_second = MEASURED_STEPS / (time.monotonic() - began)

    def start_round(self, log, keys, processes, seed):
        self._log = log
        self._keys = keys
        self._processes = processes
        self._dice = random.Random(seed)

    def listener_killed(self):
        """The server closes the connections of the listeners."""
        listeners = [each["id"] for each in self._client.client_list() if "t" in each["flags"]]
        return sum(self._client.client_kill_filter(_id=each) for each in listeners) > 0

    def server_paused(self):
        self._server.pause()
        self._wait(0.1, 3)
        self._server.resume()
        return True

    def server_restarted(self):
        """The server is killed, and starts again without any key."""
        begin = now()
        self._server.kill()
        self._log.add(RESET, RESET_ALL, ABSENT, begin, now())
        self._wait(0, 2)
        self._server.start()
        return True

    def direction_swallowed(self):
        """The network loses what one side sends, and then the connections."""
        self._proxy.hold(self._direction(), only_listeners=self._dice.random() < 0.5)
        self._wait(0.1, 3)
        count = self._proxy.cut()
        self._proxy.release()
        return count > 0

    def direction_held(self):
        """The network delivers what one side sends much later."""
        self._proxy.hold(self._direction(), only_listeners=self._dice.random() < 0.5)
        self._wait(0.1, 3)
        self._proxy.release()
        return True

    def direction_delayed(self):
        """The network delivers everything from one side a little later."""
        self._proxy.delay(self._direction(), self._dice.uniform(0.01, 0.3) * self._bound)
        self._wait(1, 3)
        self._proxy.release()
        return True

    def connections_cut(self):
        """All connections end, and for a while no new one succeeds."""
        if self._dice.random() < 0.5:
            self._proxy.refuse()
        count = self._proxy.cut()
        self._wait(0, 1)
        self._proxy.release()
        return count > 0

    def databases_flushed(self):
        flush = self._dice.choice([self._client.flushdb, self._client.flushall])
        begin, end = now(), NEVER
        try:
            flush()
            end = now()
        finally:
            self._log.add(RESET, RESET_ALL, ABSENT, begin, end)
        return True

    def memory_filled(self):
        """The server evicts keys that have a deadline."""
        names = [f"filler:{number}" for number in range(FILLERS)]
        before = self._client.info("stats")["evicted_keys"]
        used = self._client.info("memory")["used_memory"]
        self._client.config_set("maxmemory-policy", self._dice.choice(["volatile-random", "volatile-ttl"]))
        self._client.config_set("maxmemory", used + FILLER_ROOM_BYTES)
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.set(name, bytes(FILLER_BYTES), ex=100)
        pipeline.execute(raise_on_error=False)
        self._wait(0.1, 1)
        self._client.config_set("maxmemory", 0)
        self._client.unlink(*names)
        return self._client.info("stats")["evicted_keys"] > before

    def script_slow(self):
        """A script writes keys, and then blocks the server, which tells other clients that it is busy."""
        keys = [each for each in self._keys if namespace_of(each) == RAW and kind_of(each) == PLAIN]
        keys = self._dice.sample(keys, SCRIPT_KEYS)
        values = {key: self._values.new() for key in keys}
        steps = int(self._dice.uniform(0.5, 3) * self._bound * self._steps_per_second)
        begin = now()
        # The script has written its keys when the server calls itself busy.
        end, is_busy = NEVER, False
        with self._running_script(keys, values, steps) as ended:
            while not is_busy and not ended.wait(POLL_SECONDS):
                is_busy = self._is_busy()
            end = now()
        for key, value in values.items():
            self._log.add(SET, key, value, begin, end)
        return is_busy

    @contextlib.contextmanager
    def _running_script(self, keys, values, steps):
        """Run the script in a thread. Leaving the block waits for its end, and raises its error."""
        ended = threading.Event()
        errors = []

        def run():
            client = self._make_client()
            try:
                client.eval(SLOW_SCRIPT, len(keys), *map(name_of, keys), *values.values(), steps)
            except Exception as error:
                errors.append(error)
            finally:
                client.close()
                ended.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield ended
        thread.join()
        if errors:
            raise errors[0]

    def _is_busy(self):
        client = self._make_client()
        try:
            return not client.ping()
        except self._client_error as error:
            # redis-py calls it a ResponseError.
            if "BUSY" not in str(error).upper():
                raise
            return True
        finally:
            client.close()

    def process_suspended(self):
        """A process gets no time, while the others go on."""
        process = self._dice.choice(self._processes)
        os.kill(process.pid, signal.SIGSTOP)
        self._wait(0.1, 3)
        os.kill(process.pid, signal.SIGCONT)
        return True

    def quiet(self):
        """Nothing happens, so that the tiers answer."""
        self._wait(2, 4)
        return True

    def _wait(self, least, most):
        time.sleep(self._dice.uniform(least, most) * self._bound)

    def _direction(self):
        """Return the side whose bytes do not arrive."""
        return self._dice.choice([UP, DOWN])


ALL = (
    "listener_killed",
    "server_paused",
    "server_restarted",
    "direction_swallowed",
    "direction_held",
    "direction_delayed",
    "connections_cut",
    "databases_flushed",
    "memory_filled",
    "script_slow",
    "process_suspended",
    "quiet",
)


def name_of(key):
    """Return the name of a key on the server."""
    return f"{NAMESPACES[namespace_of(key)]}:{key}"
