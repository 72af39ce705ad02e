"""A child of `fork()` computes the values whose loads and refreshes its parent had in flight."""

import os

import pytest
from fork_helpers import FORK, IN_FLIGHT
from helpers import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_child_recomputes_loads_that_were_in_flight():
    run_script(
        IN_FLIGHT
        + """
def work():
    assert cache.get_with("a", lambda: "child") == "child"
    assert cache.get("a") == "child"
in_child(work)
go_on.set()
leader.join()
assert results == ["parent"] and cache.get("a") == "parent"
"""
    )


def test_first_write_in_a_child_drops_the_loads_of_vanished_threads():
    """The table of flights is empty afterwards, so that later writes need not search it."""
    run_script(
        FORK
        + """
cache = Moka(10)
inside, go_on = threading.Event(), threading.Event()
class Key:
    pass
key = Key()
def compute():
    inside.set()
    go_on.wait(60)
    return "parent"
leader = thread(lambda: cache.get_with(key, compute))
inside.wait(60)
def work():
    before = sys.getrefcount(key)
    cache.set("other", 1)
    assert sys.getrefcount(key) == before - 1
    cache.set("other", 2)
    assert sys.getrefcount(key) == before - 1
    assert cache.get_with(key, lambda: "child") == "child" == cache.get(key)
in_child(work)
go_on.set()
leader.join()
assert cache.get(key) == "parent"
"""
    )


def test_child_forgets_waiting_threads_of_the_parent():
    run_script(
        IN_FLIGHT
        + """
waiters = [thread(lambda: results.append(cache.get_with("a", lambda: "late"))) for _ in range(3)]
time.sleep(0.2)
def work():
    assert cache.get_with("a", lambda: "child") == "child"
    cache.remove("a")
    results = []
    def ask():
        results.append(cache.get_with("a", lambda: time.sleep(0.05) or "again"))
    threads = [thread(ask) for _ in range(3)]
    for it in threads:
        it.join()
    assert results == ["again"] * 3
in_child(work)
go_on.set()
for it in [leader, *waiters]:
    it.join()
assert results == ["parent"] * 4
"""
    )


def test_initializer_can_fork():
    run_script(
        FORK
        + """
cache = Moka(10)
def compute():
    def work():
        assert cache.get_with("b", lambda: 2) == 2
    in_child(work)
    return 1
assert cache.get_with("a", compute) == 1
assert cache.get("a") == 1
"""
    )


def test_child_continues_the_initializer_that_forked():
    run_script(
        FORK
        + """
cache = Moka(10)
def compute():
    fork_here()
    return "value"
assert cache.get_with("a", compute) == "value"
cache.get_with("a", lambda: "anew")
assert cache.get_with("b", lambda: 2) == 2
cache.clear()
assert cache.get_with("a", lambda: 3) == 3
end_child()
"""
    )


def test_load_of_many_keys_can_fork():
    run_script(
        FORK
        + """
cache = Moka(10)
def load(missing):
    def work():
        assert cache.get_many_with("cd", lambda missing: {"c": 3, "d": 4}) == {"c": 3, "d": 4}
    in_child(work)
    return {"a": 1, "b": 2}
assert cache.get_many_with("ab", load) == {"a": 1, "b": 2} == dict(cache.items())
"""
    )


def test_child_continues_the_load_of_many_keys_that_forked():
    run_script(
        FORK
        + """
cache = Moka(10)
def load(missing):
    fork_here()
    return {"a": 1, "b": 2, "c": 3}
assert cache.get_many_with("ab", load) == {"a": 1, "b": 2, "c": 3}
assert cache.get_many_with("abd", lambda missing: dict.fromkeys(missing, 4)).keys() == set("abd")
cache.clear()
assert cache.get_many_with("ab", lambda missing: dict.fromkeys(missing, 5)) == {"a": 5, "b": 5}
end_child()
"""
    )


def test_child_loads_the_keys_that_a_load_of_many_keys_had_in_flight():
    run_script(
        FORK
        + """
cache = Moka(10)
inside, go_on = threading.Event(), threading.Event()
def load(missing):
    inside.set()
    go_on.wait(60)
    return dict.fromkeys(missing, "parent")
results = []
leader = thread(lambda: results.append(cache.get_many_with("ab", load)))
waiter = thread(lambda: results.append(cache.get_many_with("bc", load)))
inside.wait(60)
def work():
    expected = dict.fromkeys("abc", "child")
    assert cache.get_many_with("abc", lambda missing: dict.fromkeys(missing, "child")) == expected
    assert dict(cache.items()) == expected
in_child(work)
go_on.set()
leader.join(), waiter.join()
assert dict(cache.items()) == dict.fromkeys("abc", "parent")
"""
    )


def test_key_of_a_vanished_thread_is_absent_from_the_load_that_forked():
    run_script(
        IN_FLIGHT
        + """
def load(missing):
    fork_here()
    go_on.set()
    return dict.fromkeys(missing, "loaded")
result = cache.get_many_with("ab", load)
end_child(result != {"b": "loaded"})
assert result == {"a": "parent", "b": "loaded"}
"""
    )


def test_child_forked_by_a_signal_handler_computes_the_awaited_key():
    run_script(
        IN_FLIGHT
        + """
def fork(*_):
    fork_here()
    go_on.set()
signal.signal(signal.SIGUSR1, fork)
def send():
    time.sleep(0.3)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
threads = [thread(lambda: results.append(cache.get_with("a", lambda: "late"))) for _ in range(3)]
thread(send)
value = cache.get_with("a", lambda: "child")
end_child(value != "child")
for it in [leader, *threads]:
    it.join()
assert results == ["parent"] * 4 and value == "parent"
"""
    )


def test_fork_hook_registered_before_the_import_can_compute_in_the_child():
    run_script(
        "import os\nos.register_at_fork(after_in_child=lambda: hook())\n"
        + IN_FLIGHT
        + """
found = []
def hook():
    signal.alarm(30)
    found.append(cache.get_with("a", lambda: "child"))
def work():
    assert found == ["child"]
in_child(work)
go_on.set()
leader.join()
"""
    )


def test_deadlocks_are_detected_in_the_child():
    run_script(
        IN_FLIGHT
        + """
def work():
    try:
        cache.get_with("a", lambda: cache.get_with("b", lambda: cache.get_with("a", list)))
    except RuntimeError:
        pass
    else:
        raise AssertionError
    # A thread of the child may have the id of a thread that waited in the parent. That is not a deadlock.
    assert cache.get_with("c", lambda: cache.get_with("a", lambda: 1)) == 1
in_child(work)
go_on.set()
leader.join()
"""
    )


def test_child_can_fork_again():
    run_script(
        IN_FLIGHT
        + """
def work():
    assert cache.get_with("a", lambda: "child") == "child"
    def deeper():
        assert cache.get_with("a", lambda: "grandchild") == "child"
        assert cache.get_with("b", lambda: "grandchild") == "grandchild"
    in_child(deeper)
in_child(work)
go_on.set()
leader.join()
"""
    )


def test_child_has_no_refresh_under_way_while_the_parent_computes_one():
    run_script(
        FORK
        + """
from moka_py.testing import ManualClock
with ManualClock() as clock:
    cache = Moka(10, refresh=10)
begun, ended = threading.Event(), threading.Event()
def slow():
    begun.set()
    assert ended.wait(60)
    return "parent's"
cache["a"] = "old"
clock.advance(11)
computing = thread(lambda: cache.get_with("a", slow))
assert begun.wait(60)
assert cache.get_with("a", lambda: "new") == "old"
def work():
    # The thread that computes is not in the child, so another call computes.
    assert cache.get_with("a", lambda: "child's") == "child's"
    assert cache["a"] == "child's"
    assert cache.get_with("a", lambda: "new") == "child's"
in_child(work)
ended.set()
computing.join(60)
assert cache["a"] == "parent's"
"""
    )


def test_job_of_a_refresh_that_the_parent_queued_does_not_hold_back_the_child():
    run_script(
        FORK
        + """
from moka_py.testing import ManualClock
class Queue(list):
    submit = list.append
jobs = Queue()
with ManualClock() as clock:
    cache = Moka(10, refresh=10, executor=jobs)
cache["a"] = "old"
clock.advance(11)
assert cache.get_with("a", lambda: "parent's") == "old" and len(jobs) == 1
def work():
    assert cache.get_with("a", lambda: "child's") == "old"
    assert len(jobs) == 2
    stale, job = jobs
    job()
    assert cache["a"] == "child's"
    stale()
    assert cache["a"] == "child's"
in_child(work)
jobs.pop()()
assert cache["a"] == "parent's"
"""
    )


def test_process_can_fork_inside_a_refresh():
    run_script(
        FORK
        + """
from moka_py.testing import ManualClock
with ManualClock() as clock:
    cache = Moka(10, refresh=10)
cache["a"] = "old"
clock.advance(11)
def compute():
    def work():
        assert cache.get_with("a", lambda: "child's") == "child's"
    in_child(work)
    return "parent's"
assert cache.get_with("a", compute) == "parent's"
assert cache["a"] == "parent's"
"""
    )


def test_child_that_waits_for_no_refresh_of_the_parent_computes_an_expired_value():
    run_script(
        FORK
        + """
from moka_py.testing import ManualClock
with ManualClock() as clock:
    cache = Moka(10, ttl=20, refresh=10)
begun, ended = threading.Event(), threading.Event()
def slow():
    begun.set()
    assert ended.wait(60)
    return "parent's"
cache["a"] = "old"
clock.advance(11)
computing = thread(lambda: cache.get_with("a", slow))
assert begun.wait(60)
clock.advance(10)
def work():
    assert cache.get_with("a", lambda: "child's") == "child's"
in_child(work)
ended.set()
computing.join(60)
assert cache["a"] == "parent's"
"""
    )


def test_child_keeps_failures_as_its_parent_does():
    """It may have forgotten those of the parent, whose runs are not registered in the child."""
    run_script(
        FORK
        + """
from moka_py import cached
runs, failures = [], [LookupError()]

@cached(errors=LookupError, error_ttl=600)
def function(x):
    runs.append(x)
    if failures:
        raise failures[0]
    return "result"

def fails(x):
    try:
        function(x)
    except LookupError:
        return True
    return False

def work():
    assert fails(2) and fails(1)
    runs.clear()
    assert fails(1) and fails(2) and runs == []
    failures.clear()
    function.cache_invalidate(1)
    assert not fails(1) and fails(2)

assert fails(1)
in_child(work)
runs.clear()
assert fails(1) and runs == []
"""
    )
