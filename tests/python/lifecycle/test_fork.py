"""After `fork()` beside running threads the child's cache works, and it recomputes loads that were in flight."""

import os

import pytest
from helpers import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# A child that does not end is killed, and that is an error.
FORK = """
import faulthandler, gc, os, random, signal, sys, threading, time, weakref
from moka_py import Moka

# The watchdog of `dump_traceback_later` is a thread, so the child has none.
faulthandler.register(signal.SIGALRM, chain=True)

def in_child(work, seconds=30):
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"

def thread(target):
    it = threading.Thread(target=target, daemon=True)
    it.start()
    return it
"""


def test_child_has_the_contents_of_the_parent():
    run_script(
        FORK
        + """
cache = Moka(10)
cache.set("a", 1)
def work():
    assert cache.get("a") == 1
    cache.set("b", 2)
    cache.remove("a")
    assert dict(cache.items()) == {"b": 2} and len(cache) == 1
in_child(work)
assert dict(cache.items()) == {"a": 1}
"""
    )


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_process_can_fork_under_load(policy):
    run_script(
        FORK
        + f"cache = Moka(3000, tti=1000, policy={policy!r}, eviction_listener=lambda *event: None)"
        + """
done = []
class Key:
    def __init__(self, name): self.name = name
    def __hash__(self): return self.name % 500
    def __eq__(self, other): return isinstance(other, Key) and self.name == other.name
def load(seed):
    dice = random.Random(seed)
    while not done:
        number = dice.randrange(5000)
        key = Key(number) if number % 3 == 0 else number
        cache.set(key, [number])
        cache.get(key)
        cache.get_with(number + 1, lambda: number)
        if number % 5 == 0:
            cache.remove(key)
        if number % 1000 == 0:
            cache.clear()
            list(cache.items())
threads = [thread(lambda seed=seed: load(seed)) for seed in range(3)]

class Value:
    pass

def work():
    for number in range(300):
        cache.set(number, number)
        assert cache.get(number) == number
        cache.get_with(Key(number), lambda: number)
    references = []
    for number in range(300):
        value = Value()
        references.append(weakref.ref(value))
        cache.set("same", value)
    del value
    cache.run_pending_tasks()
    assert sum(reference() is not None for reference in references) == 1
    list(cache.items()), gc.collect()
    assert len(cache) == len(list(cache)) <= 3000
    cache.clear()
    assert len(cache) == 0
    other = thread(lambda: [cache.set(number, 1) for number in range(4000)])
    other.join()
    assert len(cache) == 3000

for _ in range(25):
    in_child(work)
done.append(True)
for it in threads:
    it.join()
""",
        timeout=100,
    )


IN_FLIGHT = (
    FORK
    + """
cache = Moka(10)
inside, go_on = threading.Event(), threading.Event()
def compute():
    inside.set()
    go_on.wait(60)
    return "parent"
results = []
leader = thread(lambda: results.append(cache.get_with("a", compute)))
inside.wait(60)
"""
)


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
children = []
def compute():
    children.append(os.fork())
    if children[0] == 0:
        signal.alarm(30)
    return "value"
assert cache.get_with("a", compute) == "value"
cache.get_with("a", lambda: "anew")
assert cache.get_with("b", lambda: 2) == 2
cache.clear()
assert cache.get_with("a", lambda: 3) == 3
if children[0] == 0:
    os._exit(0)
_, status = os.waitpid(children[0], 0)
assert status == 0
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
children = []
def load(missing):
    children.append(os.fork())
    if children[0] == 0:
        signal.alarm(30)
    return {"a": 1, "b": 2, "c": 3}
assert cache.get_many_with("ab", load) == {"a": 1, "b": 2, "c": 3}
assert cache.get_many_with("abd", lambda missing: dict.fromkeys(missing, 4)).keys() == set("abd")
cache.clear()
assert cache.get_many_with("ab", lambda missing: dict.fromkeys(missing, 5)) == {"a": 5, "b": 5}
if children[0] == 0:
    os._exit(0)
_, status = os.waitpid(children[0], 0)
assert status == 0
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
children = []
def load(missing):
    children.append(os.fork())
    if children[0] == 0:
        signal.alarm(30)
    go_on.set()
    return dict.fromkeys(missing, "loaded")
result = cache.get_many_with("ab", load)
if children[0] == 0:
    os._exit(result != {"b": "loaded"})
_, status = os.waitpid(children[0], 0)
assert status == 0, f"the child ended with {status}"
assert result == {"a": "parent", "b": "loaded"}
"""
    )


def test_child_forked_by_a_signal_handler_computes_the_awaited_key():
    run_script(
        IN_FLIGHT
        + """
children = []
def fork(*_):
    children.append(os.fork())
    if children[0] == 0:
        signal.alarm(30)
    go_on.set()
signal.signal(signal.SIGUSR1, fork)
def send():
    time.sleep(0.3)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
threads = [thread(lambda: results.append(cache.get_with("a", lambda: "late"))) for _ in range(3)]
thread(send)
value = cache.get_with("a", lambda: "child")
if children[0] == 0:
    os._exit(value != "child")
_, status = os.waitpid(children[0], 0)
assert status == 0, f"the child ended with {status}"
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


def test_child_waits_for_no_thread_of_its_parent():
    """The child has one thread, so a removed value is released before the call returns, on both builds."""
    run_script(
        FORK
        + """
go = threading.Event()
inside = [threading.Event() for _ in range(3)]
def use(number):
    cache = Moka(10)
    cache.set("a", 1)
    cache.get("a")
    inside[number].set()
    go.wait()
threads = [thread(lambda number=number: use(number)) for number in range(3)]
for event in inside:
    event.wait()

class Value:
    def __del__(self):
        gone.append(1)

def work():
    cache = Moka(10)
    for number in range(5):
        cache.set("key", Value())
        assert len(gone) == number, gone
    one = threading.Thread(target=use, args=(0,))
    go.set()
    one.start()
    one.join()
    other = Moka(10)
    other.set("key", Value())
    other.remove("key")
    assert len(gone) == 5, gone

gone = []
# The thread that forks uses caches before, too.
Moka(10).set("a", 1)
in_child(work)
go.set()
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


def test_child_uses_methods_whose_owners_other_threads_register():
    run_script(
        FORK
        + """
from moka_py import cached
class Kind:
    @cached(weak_self=True, maxsize=None)
    def method(self, x):
        return id(self), x
kept = [Kind() for _ in range(20)]
done = []
def load():
    while not done:
        new = [Kind() for _ in range(20)]
        assert all(one.method(1) == (id(one), 1) for one in kept + new)
threads = [thread(load) for _ in range(3)]
def work():
    new = [Kind() for _ in range(200)]
    assert all(one.method(number) == (id(one), number) for number in range(2) for one in kept + new)
    del new
    gc.collect()
    assert all(one.method(1) == (id(one), 1) for one in kept)
for _ in range(25):
    in_child(work)
done.append(True)
for it in threads:
    it.join()
""",
        timeout=100,
    )


def test_caches_from_before_and_after_the_fork_are_collected_in_the_child():
    run_script(
        FORK
        + """
cache = Moka(10)
cache.set("me", cache)
reference = weakref.ref(cache)
def work():
    global cache
    del cache
    gc.collect()
    assert reference() is None
    other = Moka(10)
    other.set("me", other)
    another = weakref.ref(other)
    del other
    gc.collect()
    assert another() is None
in_child(work)
"""
    )


def test_multiprocessing_by_fork_works():
    run_script(
        """
import multiprocessing
from moka_py import Moka
cache = Moka(100)
cache.set("a", 1)
def work(number):
    return cache.get("a") + cache.get_with(number, lambda: number)
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(10)) == list(range(1, 11))
"""
    )


@pytest.mark.parametrize("forker", ["main", "another thread"])
def test_process_can_fork_beside_threads_inside_every_operation(forker):
    """The child and its own children use the cache, wait for a computation, clear the cache, and exit."""
    run_script(
        """
import asyncio, faulthandler, os, random, signal, sys, threading, time
from moka_py import Moka, cached
sys.setswitchinterval(1e-5)
faulthandler.register(signal.SIGALRM, chain=True)
ended = []
sys.unraisablehook = lambda report: None
class Key:
    def __init__(self, name): self.name = name
    def __hash__(self): return self.name % 9
    def __eq__(self, other): time.sleep(0); return isinstance(other, Key) and self.name == other.name
def listener(*event): time.sleep(0)
def slow(*_): time.sleep(0.001); return [1]
cache = Moka(40, ttl=0.01, eviction_listener=listener, weigher=lambda key, value: time.sleep(0) or 1)
shared = cached(maxsize=10, wait_concurrent=True)(slow)
@cached(maxsize=10, wait_concurrent=True)
async def later(x):
    await asyncio.sleep(0.001)
    return x
async def gather():
    return await asyncio.gather(*(later(number % 5) for number in range(10)))
jobs = [
    lambda key: cache.set(Key(key), [key]), lambda key: cache.get(Key(key)), lambda key: cache.get_with(key % 4, slow),
    lambda key: cache.remove_if(lambda key, value: time.sleep(0)), lambda key: shared(key % 20),
    lambda key: asyncio.run(gather()), lambda key: list(cache.items()), lambda key: cache.set_many([(1, 1), (2, 2)]),
    lambda key: cache.pop(key, None),
    lambda key: cache.get_many_with([key % 4, Key(key), key % 7], lambda missing: dict.fromkeys(missing, slow())),
]
def work(number):
    dice = random.Random(number)
    while not ended:
        dice.choice(jobs)(dice.randrange(90))
        if number == 0 and dice.random() < 0.01:
            cache.clear()
threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
for thread in threads: thread.start()

def live(depth):
    signal.alarm(50)
    try:
        for number in range(60):
            cache.set(Key(number), number)
            cache.set(number, number)
            assert cache.get_with(number % 4, slow) is not None and shared(number % 20) == [1]
        assert asyncio.run(gather())[4] == 4
        results = []
        waiters = [threading.Thread(target=lambda: results.append(cache.get_with("new", slow))) for _ in range(3)]
        for it in waiters: it.start()
        for it in waiters: it.join()
        assert results == [[1]] * 3
        if depth:
            fork(depth - 1)
        cache.clear()
        cache.run_pending_tasks()
        assert len(cache) == 0
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)

def fork(depth):
    child = os.fork()
    if child == 0:
        live(depth)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"

errors = []
def forks():
    try:
        for number in range(12):
            time.sleep(random.random() * 0.01)
            fork(number % 3 == 0)
    except BaseException as error:
        errors.append(error)
"""
        + ("forks()" if forker == "main" else "forker = threading.Thread(target=forks)\nforker.start()\nforker.join()")
        + """
ended.append(True)
for thread in threads: thread.join()
if errors: raise errors[0]
""",
        timeout=100.0,
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
