"""A cache and its process: Ctrl-C, and the end of the interpreter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_script

import moka_py

WAITS = """
import _thread, os, signal, sys, threading, time
from moka_py import Moka

cache = Moka(10)
inside, go_on = threading.Event(), threading.Event()
results = []

def compute():
    inside.set()
    go_on.wait(50)
    return "computed"

def lead():
    results.append(cache.get_with("a", compute))

leader = threading.Thread(target=lead, daemon=True)
leader.start()
inside.wait(50)

def interrupt():
    time.sleep(0.3)
    global sent
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
class TestInterrupt:
    def test_waiter_is_interrupted(self):
        out = run_script(
            WAITS
            + """
threading.Thread(target=interrupt, daemon=True).start()
try:
    cache.get_with("a", lambda: "late")
except KeyboardInterrupt:
    print(time.monotonic() - sent)
else:
    raise AssertionError("not interrupted")
"""
        )
        assert float(out) < 5  # It looks for signals every 50 ms or so; the rest is for slow machines.

    def test_computation_survives_an_interrupted_waiter(self):
        run_script(
            WAITS
            + """
waiter = threading.Thread(target=lambda: results.append(cache.get_with("a", lambda: "late")), daemon=True)
waiter.start()
threading.Thread(target=interrupt, daemon=True).start()
try:
    cache.get_with("a", lambda: "late")
except KeyboardInterrupt:
    pass
go_on.set()
leader.join(), waiter.join()
assert results == ["computed"] * 2, results
assert cache.get_with("a", lambda: "late") == "computed"
"""
        )

    def test_wait_continues_after_a_handler_that_raises_nothing(self):
        run_script(
            WAITS
            + """
handled = []
signal.signal(signal.SIGINT, lambda *_: (handled.append(1), go_on.set()))
threading.Thread(target=interrupt, daemon=True).start()
assert cache.get_with("a", lambda: "late") == "computed"
assert handled == [1]
"""
        )

    def test_signal_handler_can_use_the_cache_during_a_wait(self):
        run_script(
            WAITS
            + """
def handle(*_):
    cache.set("b", 1)
    assert cache.get_with("c", lambda: 2) == 2
    list(cache.items())
    go_on.set()
signal.signal(signal.SIGINT, handle)
threading.Thread(target=interrupt, daemon=True).start()
assert cache.get_with("a", lambda: "late") == "computed"
assert dict(cache.items()) == {"a": "computed", "b": 1, "c": 2}
"""
        )

    def test_signal_handler_can_raise_its_own_error(self):
        run_script(
            WAITS
            + """
def handle(*_):
    raise TimeoutError("mine")
signal.signal(signal.SIGINT, handle)
threading.Thread(target=interrupt, daemon=True).start()
try:
    cache.get_with("a", lambda: "late")
except TimeoutError as error:
    assert str(error) == "mine"
else:
    raise AssertionError
"""
        )

    def test_leader_is_interrupted(self):
        run_script(
            """
import os, signal, threading, time
from moka_py import Moka
cache = Moka(10)
def compute():
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        time.sleep(0.01)
waiter = threading.Timer(0.05, lambda: cache.get_with("a", lambda: "by the waiter"))
waiter.start()
try:
    cache.get_with("a", compute)
except KeyboardInterrupt:
    pass
waiter.join()
assert cache.get_with("a", lambda: "late") == "by the waiter"
"""
        )

    def test_alarms_during_all_calls_do_no_harm(self):
        run_script(
            """
import signal, sys
from moka_py import Moka
cache = Moka(50, eviction_listener=lambda *event: None)
class Alarm(Exception):
    pass
alarms = 0
def ring(_, frame):
    global alarms
    alarms += 1
    while frame is not None and frame.f_code is not work.__code__:
        frame = frame.f_back
    if frame is not None and alarms < 300:
        raise Alarm
signal.signal(signal.SIGALRM, ring)
sys.unraisablehook = lambda report: None
class Key:
    def __init__(self, name): self.name = name
    def __hash__(self): return self.name % 10
    def __eq__(self, other): return self.name == other.name
def work():
    number = 0
    while alarms < 300:
        try:
            number += 1
            cache.set(Key(number % 70), number)
            cache.get(Key(number % 30))
            cache.get_with(Key(number % 90), lambda: number)
            cache.remove(Key(number % 20))
        except Alarm:
            pass
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while alarms < 300:
    try:
        work()
    except Alarm:  # It rang between the calls.
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(cache) == len(list(cache)) == cache.weighted_size() <= 50
"""
        )


def test_interpreter_ends_with_a_full_cache():
    run_script(
        """
from moka_py import Moka
class Value:
    def __del__(self):
        cache.get("a"), cache.set("late", 1)
cache = Moka(10, eviction_listener=lambda *event: None, ttl=1e-9)
keeper = Moka(10)
for number in range(10):
    keeper.set(number, Value())
    cache.set(number, Value())
"""
    )


@pytest.mark.parametrize("listener", ["None", "lambda *event: None"])
def test_interpreter_ends_with_daemon_threads_that_use_a_cache(listener):
    run_script(
        f"listener = {listener}"
        + """
import threading, time
from moka_py import Moka
cache = Moka(100, eviction_listener=listener, tti=1)
def work():
    number = 0
    while True:
        number += 1
        cache.set(number % 300, [number])
        cache.get_with(number % 200, list)
        list(cache.items())
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""
    )


def test_interpreter_ends_with_waiting_daemon_threads():
    run_script(
        """
import threading, time
from moka_py import Moka
cache = Moka(10)
inside = threading.Event()
def compute():
    inside.set()
    time.sleep(1000)
threading.Thread(target=lambda: cache.get_with("a", compute), daemon=True).start()
inside.wait()
for _ in range(3):
    threading.Thread(target=lambda: cache.get_with("a", list), daemon=True).start()
time.sleep(0.2)
"""
    )


def test_atexit_handlers_and_late_finalizers_can_use_a_cache():
    out = run_script(
        """
import atexit
from moka_py import Moka
cache = Moka(10, eviction_listener=lambda key, value, cause: print("left", key))
cache.set("a", 1)
class Late:
    def __del__(self, cache=cache):
        cache.set("late", 1)
        print("late", cache.get("late"))
late = Late()
atexit.register(lambda: print("removed", cache.remove("a")))
"""
    )
    assert "left a" in out and "removed 1" in out and "late 1" in out


def test_import_error_explains_a_missing_extension_module(tmp_path):
    package = Path(moka_py.__file__).parent
    (tmp_path / "moka_py").mkdir()
    for file in package.glob("*.py"):
        shutil.copy(file, tmp_path / "moka_py")
    command = [sys.executable, "-c", "import sys; sys.path[0:0] = ['']; import moka_py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {tmp_path / 'moka_py'} has no extension module for this interpreter")
    assert last.endswith("run Python in another folder or with -P")


def test_second_import_keeps_the_same_class():
    run_script(
        """
import importlib, sys
import moka_py
first = moka_py.Moka
for name in [name for name in sys.modules if name.startswith("moka_py")]:
    del sys.modules[name]
import moka_py
importlib.reload(moka_py)
for kind in (first, moka_py.Moka):
    cache = kind(10)
    cache.set((1, 2), "by way of __eq__")
    assert cache.get((1, 2)) == "by way of __eq__" and cache.get(key="absent", default=1) == 1
    assert list(cache.items()) == [((1, 2), "by way of __eq__")]
"""
    )
