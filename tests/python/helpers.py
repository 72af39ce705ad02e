"""What the tests share: threads that must end, scripts in a process of their own, keys and values with a will."""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import weakref
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEBUG_BUILD = bool(sysconfig.get_config_var("Py_DEBUG"))

# How many values of one thread may wait for their release: only where readers have no lock to go by.
MAY_WAIT = 64 if FREE_THREADED else 0

# Past its deadline as soon as the next call looks at the clock: what is due, without any waiting.
AT_ONCE = 1e-9

# Maintenance may leave to the next call what came due a moment ago; this is more than a moment.
MOMENT = 0.002

# How far two clocks of one machine may be apart, in seconds.
CLOCKS_DIFFER = 0.005

MISSING = object()


# Each call that takes a key, with what it needs besides.
CALLS_WITH_A_KEY = {
    "get": lambda cache, key: cache.get(key),
    "subscript": lambda cache, key: cache[key],
    "set": lambda cache, key: cache.set(key, "new"),
    "setitem": lambda cache, key: cache.__setitem__(key, "new"),
    "remove": lambda cache, key: cache.remove(key),
    "del": lambda cache, key: cache.__delitem__(key),
    "in": lambda cache, key: key in cache,
    "pop": lambda cache, key: cache.pop(key, None),
    "setdefault": lambda cache, key: cache.setdefault(key, "new"),
    "update": lambda cache, key: cache.update([(key, "new")]),
    "get_with": lambda cache, key: cache.get_with(key, lambda: "new"),
    "expires_in": lambda cache, key: cache.expires_in(key),
    "get_many": lambda cache, key: next(iter(cache.get_many([key]).values()), None),
    "set_many": lambda cache, key: cache.set_many([(key, "new")]),
    "remove_many": lambda cache, key: cache.remove_many([key]) > 0,
    "in keys": lambda cache, key: key in cache.keys(),
    "in items": lambda cache, key: (key, 1) in cache.items(),
}


class Value:
    """A value whose life can be watched."""

    __slots__ = ("__weakref__", "held")

    def __init__(self, held=None):
        self.held = held


class Key:
    """Equal to every `Key` of the same name; the hash can be chosen, so that different keys share one."""

    def __init__(self, name, hash_=None):
        self.name = name
        self.hash = hash(name) if hash_ is None else hash_

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        if not isinstance(other, Key):
            return NotImplemented
        return self.name == other.name

    def __repr__(self):
        return f"Key({self.name!r})"


class ActingKey(Key):
    """A key that does something before it compares, once it has been told what: `key.act = ...`."""

    act = None

    __hash__ = Key.__hash__

    def __eq__(self, other):
        act = self.act or getattr(other, "act", None)
        if act is not None:
            act()
        return super().__eq__(other)


class Events(list):
    """A listener that keeps what it was told."""

    def __call__(self, key, value, cause):
        self.append((key, value, cause))

    def causes(self):
        return [cause for _, _, cause in self]

    def keys(self):
        return [key for key, _, _ in self]


class Gate:
    """A place where the first thread that comes stops and says so, until another lets it go on."""

    def __init__(self):
        self._reached = threading.Event()
        self._opened = threading.Event()
        self._tickets = [True]

    def stop_here(self, *_):
        try:
            self._tickets.pop()
        except IndexError:
            return
        self._reached.set()
        assert self._opened.wait(60), "nobody opened the gate"

    def wait_until_reached(self):
        assert self._reached.wait(60), "nobody came to the gate"

    def open(self):
        self._opened.set()


class Background:
    """A thread beside the test: `with Background(f) as it:` ends it, and raises what it raised."""

    def __init__(self, target):
        self._target = target
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.result = None
        self.error = None

    def _run(self):
        try:
            self.result = self._target()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def join(self, timeout=60.0):
        self._thread.join(timeout)
        if self._thread.is_alive():
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
            raise AssertionError("a thread hangs")

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.join()
            if self.error is not None:
                raise self.error


class Collector(Background):
    """A collector beside working threads, one full collection for each `step` they report.

    It does not simply loop: on the free-threaded build that starves every other thread of the process
    for minutes, whatever they work with, because each collection stops the world anew.
    """

    def __init__(self):
        super().__init__(self._collect)
        self._steps = threading.Semaphore(0)
        self._ended = False

    def step(self):
        self._steps.release()

    def _collect(self):
        while self._steps.acquire(timeout=60) and not self._ended:
            gc.collect()

    def __exit__(self, *failure):
        self._ended = True
        self._steps.release()
        super().__exit__(*failure)


def run_threads(*targets, timeout=90.0):
    """Run each target in a thread of its own, all let go at once; return what they returned."""
    barrier = threading.Barrier(len(targets))
    results = [None] * len(targets)
    errors = []

    def run(index, target):
        try:
            barrier.wait(timeout)
            results[index] = target()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=pair, daemon=True, name=f"runner {pair[0]}") for pair in enumerate(targets)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        raise AssertionError("threads hang")
    if errors:
        raise errors[0]
    return results


def in_thread(target, timeout=60.0):
    """Run it in another thread, and return what it returned."""
    return run_threads(target, timeout=timeout)[0]


def run_script(source, *args, timeout=60.0):
    """Run a program of its own, which must end well and in time; return what it printed."""
    # A program started in the background of a shell would ignore SIGINT, and so would those that it starts.
    prelude = "import faulthandler, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    prelude += "faulthandler.enable()\n"
    prelude += f"faulthandler.dump_traceback_later({timeout}, exit=True)\n"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "script.py")
        with open(path, "w") as file:
            file.write(prelude + textwrap.dedent(source))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", path, *args],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout + 10)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
        return out


def collect():
    """A full collection, and the ones that what it freed may need."""
    for _ in range(3):
        gc.collect()


def alive(references):
    """How many of these weak references still lead to something."""
    return sum(reference() is not None for reference in references)


def watched(count):
    """A list of values, and a list of weak references to them."""
    values = [Value() for _ in range(count)]
    return values, [weakref.ref(value) for value in values]


def contents(cache):
    """What is in the cache, without an access to any of it."""
    return dict(cache.items())


def state(cache):
    """All that can be asked of a cache without an access, to see that a failed call changed none of it."""
    keys = list(cache)
    forever = [key for key in keys if cache.expires_in(key) is None]
    return contents(cache), keys, len(cache), cache.count(), cache.weighted_size(), forever


def assert_raised_for_each(error, others):
    """Waiters fail with copies of the exception, so that no traceback has the frames of two waiters."""
    for other in others:
        assert type(other) is type(error) and other.args == error.args
        assert other.__cause__ is error.__cause__
    assert len({id(each) for each in (error, *others)}) == 1 + len(others)
