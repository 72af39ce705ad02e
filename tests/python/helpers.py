"""Helpers that all tests share: threads that must end, scripts in their own process, and special keys and values."""

import faulthandler
import functools
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
# Whether a large cache may have more than 16 shards.
HAS_MANY_SHARDS = FREE_THREADED and (os.cpu_count() or 1) > 4


# A thread of the free-threaded build reserves 34 MB of address space, which ci/test limits.
MANY_THREADS = 200 if FREE_THREADED else 1000


DEBUG_BUILD = bool(sysconfig.get_config_var("Py_DEBUG"))


# How many removed values of one thread may await their release. On the GIL build there is none.
MAX_UNRELEASED_PER_THREAD = 64 if FREE_THREADED else 0


# A duration, in seconds, that has passed when the next call reads the clock. Tests use it to make entries expire.
IMMEDIATELY_DUE = 1e-9


# Maintenance may leave an entry that expired this many seconds ago to the next call.
MAINTENANCE_DELAY = 0.002


# How far apart two clocks of one machine may be, in seconds.
MAX_CLOCK_SKEW = 0.005


MISSING = object()


# Each call that takes a key, with the other arguments that it needs.
CALLS_WITH_KEY = {
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
    "peek": lambda cache, key: cache.peek(key),
    "touch": lambda cache, key: cache.touch(key),
    "get_many": lambda cache, key: next(iter(cache.get_many([key]).values()), None),
    "get_many_with": lambda cache, key: next(
        iter(cache.get_many_with([key], lambda missing: dict.fromkeys(missing, "new")).values()), None
    ),
    "set_many": lambda cache, key: cache.set_many([(key, "new")]),
    "remove_many": lambda cache, key: cache.remove_many([key]) > 0,
    "in keys": lambda cache, key: key in cache.keys(),
    "in items": lambda cache, key: (key, 1) in cache.items(),
}


class Value:
    """A value that can be weakly referenced."""

    __slots__ = ("__weakref__", "held")

    def __init__(self, held=None):
        self.held = held


class Key:
    """A key that equals every `Key` of the same name. Its hash can be chosen, so that different keys share a hash."""

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


class CallbackKey(Key):
    """A key whose `__eq__` first calls `on_eq` of either key, if that is set."""

    on_eq = None

    __hash__ = Key.__hash__

    def __eq__(self, other):
        on_eq = self.on_eq or getattr(other, "on_eq", None)
        if on_eq is not None:
            on_eq()
        return super().__eq__(other)


class Events(list):
    """A listener that records its events."""

    def __call__(self, key, value, cause):
        self.append((key, value, cause))

    def causes(self):
        return [cause for _, _, cause in self]

    def keys(self):
        return [key for key, _, _ in self]


class Gate:
    """A gate that stops the first thread that arrives, until another thread opens it."""

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
        assert self._opened.wait(60), "no thread opened the gate"

    def wait_until_reached(self):
        assert self._reached.wait(60), "no thread reached the gate"

    def open(self):
        self._opened.set()


def wait_for_misses(cache, count):
    """Wait until the calls on the cache have missed so many keys. A call that missed a key is about to wait for it.

    It may still come too late to wait. Then it loads the key itself, and the tests for which that matters repeat.
    """
    end = time.monotonic() + 60
    while cache.stats().misses < count:
        assert time.monotonic() < end, "a thread did not ask for its key"
        time.sleep(0.001)


class Background:
    """A thread that runs beside the test. Leaving the `with` block joins it and raises its exception."""

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


class BackgroundCollector(Background):
    """A thread that runs one full collection for each `step()` of the working threads.

    It does not simply loop. On the free-threaded build each collection stops the world, so a loop of collections
    starves all other threads of the process for minutes.
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
    """Run each target in its own thread, all started together, and return their results."""
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


def outcomes_of_threads(count, call):
    """Run `call(number)` in threads that start together. Return their results or exceptions, in order of number."""

    def outcome(number):
        try:
            return call(number)
        except BaseException as error:
            return error

    return run_threads(*[functools.partial(outcome, number) for number in range(count)])


def run_in_thread(target, timeout=60.0):
    """Run a function in another thread and return its result."""
    return run_threads(target, timeout=timeout)[0]


def run_script(source, *args, timeout=60.0):
    """Run a script in its own process and return its output. It must exit with code 0, and in time."""
    # A process that a shell starts in the background ignores SIGINT, and so do its children.
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
    """Run full collections until objects that finalizers released are collected, too."""
    for _ in range(3):
        gc.collect()


def count_alive(references):
    """Return how many of these weak references are alive."""
    return sum(reference() is not None for reference in references)


def watched_values(count):
    """Return a list of values, and a list of weak references to them."""
    values = [Value() for _ in range(count)]
    return values, [weakref.ref(value) for value in values]


def contents(cache):
    """Return the contents of the cache as a dict, without an access to any entry."""
    return dict(cache.items())


def observable_state(cache):
    """Return all that can be observed of a cache without an access. A failed call must not change it."""
    keys = list(cache)
    forever = [key for key in keys if cache.expires_in(key) is None]
    return contents(cache), keys, len(cache), cache.count(), cache.weighted_size(), forever


def assert_copies_of_exception(error, others):
    """Assert that waiters got copies of the exception, so that no traceback has the frames of two waiters."""
    for other in others:
        assert type(other) is type(error) and other.args == error.args
        assert other.__cause__ is error.__cause__
    assert len({id(each) for each in (error, *others)}) == 1 + len(others)


def counted(cache, *names):
    """Return the counts of these names of the cache's stats."""
    stats = cache.stats()
    return tuple(getattr(stats, name) for name in names)
