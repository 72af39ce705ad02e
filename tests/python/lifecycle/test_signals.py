"""Signals such as Ctrl-C during a wait or a computation."""

import os

import pytest
from helpers import run_script

# A leader computes the key `a` until `go_on` is set, and `interrupt` sends SIGINT.
WAITING_LEADER = """
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
    os.kill(os.getpid(), signal.SIGINT)
"""

# `interrupt` makes a call that waits for the same call of another thread, and sends SIGINT during the wait.
INTERRUPTED_CALL = """
import os, signal, threading, time
from moka_py import Moka, cached
cache, inside, go_on, is_computed = Moka(10), threading.Event(), threading.Event(), threading.Event()
def compute(*_):
    inside.set()
    go_on.wait(50)
    is_computed.set()
    return "computed"
shared = cached(wait_concurrent=True)(compute)
def many():
    return cache.get_many_with(["a"], lambda missing: {"a": compute()})["a"]
calls = {"get_with": lambda: cache.get_with("a", compute), "cached": lambda: shared("a"), "get_many_with": many}
def interrupt(call):
    threading.Thread(target=call, daemon=True).start()
    inside.wait(50)
    def send():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send, daemon=True).start()
    return call()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
class TestInterrupt:
    def test_waiter_is_interrupted(self):
        run_script(
            WAITING_LEADER
            + """
threading.Thread(target=interrupt, daemon=True).start()
try:
    cache.get_with("a", lambda: "late")
except KeyboardInterrupt:
    assert not results, "the call waited for the computation"
else:
    raise AssertionError("not interrupted")
"""
        )

    def test_computation_survives_an_interrupted_waiter(self):
        run_script(
            WAITING_LEADER
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
            WAITING_LEADER
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
            WAITING_LEADER
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
            WAITING_LEADER
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

    def test_values_that_a_call_loaded_stay_if_its_wait_is_interrupted(self):
        run_script(
            WAITING_LEADER
            + """
def load(missing):
    assert missing == ["b"]
    threading.Thread(target=interrupt, daemon=True).start()
    return {"b": 2}
try:
    cache.get_many_with(["a", "b"], load)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("not interrupted")
assert dict(cache.items()) == {"b": 2}
go_on.set()
leader.join()
assert cache.get_many_with("ab", lambda missing: {}) == {"a": "computed", "b": 2}
"""
        )

    def test_interrupted_load_leaves_no_key_in_flight(self):
        run_script(
            """
import os, signal, threading, time
from moka_py import Moka
cache = Moka(10)
def load(missing):
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        time.sleep(0.01)
try:
    cache.get_many_with("ab", load)
except KeyboardInterrupt:
    pass
assert dict(cache.items()) == {}
assert cache.get_many_with("ab", lambda missing: {"a": 1, "b": 2}) == {"a": 1, "b": 2}
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
            cache.get_many_with([Key(number % 7), Key(number % 80)], lambda missing: dict.fromkeys(missing, number))
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


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("call", ["get_with", "cached", "get_many_with"])
class TestSignals:
    def test_waiter_is_interrupted_before_the_computation_ends(self, call):
        run_script(
            INTERRUPTED_CALL
            + f"""
try:
    interrupt(calls[{call!r}])
except KeyboardInterrupt:
    assert not is_computed.is_set(), "the call waited for the computation"
else:
    raise AssertionError("not interrupted")
"""
        )

    def test_error_of_the_signal_handler_is_raised(self, call):
        run_script(
            INTERRUPTED_CALL
            + f"""
def handle(*_): raise TimeoutError("mine")
signal.signal(signal.SIGINT, handle)
try:
    interrupt(calls[{call!r}])
except TimeoutError as error:
    assert str(error) == "mine"
else:
    raise AssertionError
go_on.set()
assert calls[{call!r}]() == "computed"
"""
        )

    def test_signal_handler_can_use_the_cache(self, call):
        run_script(
            INTERRUPTED_CALL
            + f"""
def handle(*_):
    for used in (cache, shared.cache):
        used.set("b", 1)
        assert used.get_with("c", lambda: 2) == 2
        assert used.remove_if(lambda key, value: key == "b") == 1
    go_on.set()
signal.signal(signal.SIGINT, handle)
assert interrupt(calls[{call!r}]) == "computed"
"""
        )

    def test_signal_handler_can_wait_for_the_key_its_thread_waits_for(self, call):
        run_script(
            INTERRUPTED_CALL
            + f"""
results = []
def handle(*_):
    threading.Timer(0.2, go_on.set).start()
    results.append(calls[{call!r}]())
signal.signal(signal.SIGINT, handle)
results.append(interrupt(calls[{call!r}]))
assert results == ["computed"] * 2, results
"""
        )
