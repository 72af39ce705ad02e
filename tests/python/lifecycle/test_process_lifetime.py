"""A cache through the life of its process: imports, signals in a wait, threads that end, forks, sub-interpreters."""

import os
import sys

import pytest
from helpers import run_script


def test_many_threads_can_import_the_package_at_once():
    run_script(
        """
import sys, threading
sys.setswitchinterval(1e-6)
barrier, made = threading.Barrier(8), []
def work():
    barrier.wait(50)
    import moka_py
    from moka_py import Moka, cached
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.get("a") == cached()(abs)(-1) == 1
    made.append((moka_py, Moka))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(made) == 8 and len(set(made)) == 1
"""
    )


def test_import_loads_only_the_modules_it_needs():
    run_script("""
import sys
import moka_py
heavy = {"asyncio", "dataclasses", "inspect", "logging", "re", "threading"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert moka_py.cached(str)(1) == "1"
assert "asyncio" not in sys.modules
""")


def test_second_import_does_not_disturb_threads_that_use_the_first():
    run_script(
        """
import importlib, sys, threading
import moka_py
cache, ended = moka_py.Moka(50), []
def work():
    number = 0
    while not ended:
        number += 1
        cache.set(number % 70, [number]); cache.get(number % 70); cache.get_with(number % 90, list); cache.stats()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(20):
    for name in [name for name in sys.modules if name.startswith("moka_py")]:
        del sys.modules[name]
    import moka_py
    importlib.reload(moka_py)
    other = moka_py.Moka(5)
    other.set((1, 2), 3)
    assert other.get((1, 2)) == 3 and other.stats().inserts == 1
ended.append(True)
for thread in threads: thread.join()
assert len(cache) == len(list(cache)) <= 50
"""
    )


@pytest.mark.parametrize("config", ["legacy", "isolated"])
@pytest.mark.parametrize("first", ["import moka_py", ""])
def test_import_in_a_subinterpreter_raises_import_error(config, first):
    out = run_script(
        f"""
try:
    import _interpreters
except ImportError:
    print("ImportError: there are none here")
    raise SystemExit
{first}
other = _interpreters.create({config!r})
failed = _interpreters.run_string(other, '''
try:
    import moka_py
except ImportError as error:
    import os
    assert str(error), "it says why"
    os.write(1, f"ImportError: {{error}}\\\\n".encode())
''')
assert failed is None, failed
_interpreters.destroy(other)
try:
    import moka_py
except ImportError as error:
    assert {first!r} == "" and "the first that imports it" in str(error)
    print(f"ImportError: {{error}}")
    raise SystemExit
cache = moka_py.Moka(1)
cache.set(1, 2)
assert cache.get(1) == 2
"""
    )
    assert out.startswith("ImportError: ")


def test_collector_of_a_subinterpreter_does_not_visit_the_classes():
    # It would leave marks on them that the collector of their own interpreter takes for its own: a debug build of
    # CPython 3.13t gave up at the end of such a program.
    run_script(
        """
try:
    import _interpreters
except ImportError:
    raise SystemExit
import moka_py, sys
other = _interpreters.create("legacy")
failed = _interpreters.run_string(other, f'''
import importlib.machinery, importlib.util
spec = importlib.machinery.PathFinder.find_spec("moka_py._moka_py", {moka_py.__path__!r})
module = importlib.util.module_from_spec(spec)
try:
    spec.loader.exec_module(module)
except ImportError:
    pass
else:
    raise AssertionError("it serves one interpreter")
classes = [name for name, kept in vars(module).items() if isinstance(kept, type)]
assert not classes, classes
''')
assert failed is None, failed
_interpreters.destroy(other)
"""
    )


WAITS = """
import os, signal, threading, time
from moka_py import Moka, cached
cache, inside, go_on = Moka(10), threading.Event(), threading.Event()
def compute(*_):
    inside.set()
    go_on.wait(50)
    return "computed"
shared = cached(wait_concurrent=True)(compute)
calls = {"get_with": lambda: cache.get_with("a", compute), "cached": lambda: shared("a")}
def interrupt(call):
    threading.Thread(target=call, daemon=True).start()
    inside.wait(50)
    def send():
        global sent
        time.sleep(0.2)
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send, daemon=True).start()
    return call()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("call", ["get_with", "cached"])
class TestSignals:
    def test_waiter_is_interrupted_promptly(self, call):
        out = run_script(
            WAITS
            + f"""
try:
    interrupt(calls[{call!r}])
except KeyboardInterrupt:
    print(time.monotonic() - sent)
"""
        )
        assert float(out) < 5  # 50 ms or so; the rest is for slow machines.

    def test_error_of_the_signal_handler_is_raised(self, call):
        run_script(
            WAITS
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
            WAITS
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
            WAITS
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


def test_values_of_ended_threads_are_released():
    run_script(
        """
import gc, threading, weakref
from moka_py import Moka
class Value: pass
cache, references = Moka(20), []
def work():
    for number in range(200):
        value = Value()
        references.append(weakref.ref(value))
        cache.set(number % 40, value)
        cache.get(number % 7)
    if len(references) % 3 == 0:
        cache.clear()
for _ in range(30):
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
cache.run_pending_tasks()
gc.collect()
alive = sum(reference() is not None for reference in references)
assert alive == len(cache) <= 20, (alive, len(cache))
cache.clear()
cache.run_pending_tasks()
gc.collect()
assert not any(reference() for reference in references)
"""
    )


def test_finalizer_of_thread_local_data_can_make_a_cached_call():
    """Thread-local objects of Python die late in their thread, and may use a cache then."""
    run_script(
        """
import threading
from moka_py import Moka, cached
cache, local = Moka(5), threading.local()
function = cached()(lambda x: [x])
class Late:
    def __init__(self, number): self.number = number
    def __del__(self):
        cache.set(self.number, [1]); cache.get_with(self.number + 1, list); function(self.number); cache.remove(1)
def work(number):
    local.late = Late(number)
    cache.set(("held", number), Late(number + 100))
for number in range(200):
    thread = threading.Thread(target=work, args=(number,))
    thread.start()
    thread.join()
assert len(cache) == 5 == cache.weighted_size()
cache.clear()
"""
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("who", ["main", "another thread"])
def test_process_can_fork_beside_threads_inside_every_operation(who):
    """The child uses the cache, waits for a computation of its own, clears, and exits; so do its children."""
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
        + ("forks()" if who == "main" else "forker = threading.Thread(target=forks)\nforker.start()\nforker.join()")
        + """
ended.append(True)
for thread in threads: thread.join()
if errors: raise errors[0]
""",
        timeout=100.0,
    )


def test_os_exit_ends_the_process_immediately_in_any_callback():
    for place in (
        "cache.get_with(1, end)",
        "Moka(1, weigher=end).set(1, 1)",
        "own = Moka(1, eviction_listener=end); own.set(1, 1); own.set(1, 2)",
        "cache.set(1, 1); cache.remove_if(end)",
        "cached()(end)(1)",
    ):
        run_script(
            f"""
import os
from moka_py import Moka, cached
cache = Moka(5)
def end(*_): os._exit(0)
{place}
raise AssertionError
"""
        )


@pytest.mark.parametrize("capacity", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1, sys.maxsize])
@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_capacity_of_any_size_takes_no_memory_up_front(capacity, policy):
    from moka_py import Moka

    cache = Moka(capacity, policy=policy)
    for number in range(100):
        cache.set(number, number)
    assert len(cache) == min(capacity, 100)
    assert cache.capacity == capacity
