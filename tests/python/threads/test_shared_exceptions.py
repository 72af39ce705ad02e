"""When a computation fails, each waiter raises a copy of its exception."""

import asyncio
import threading
import traceback
import urllib.error

import pytest
from cached_helpers import run_async, run_ready_tasks
from helpers import Background, assert_copies_of_exception, outcomes_of_threads

from moka_py import Moka, cached
from moka_py._exceptions import copy_exception, copy_exception_at


class Coded(Exception):
    """An exception whose constructor takes other arguments than `args`."""

    def __init__(self, code):
        self.code = code
        super().__init__(f"code {code}")


class Slotted(ValueError):
    __slots__ = ("none", "unset", "x")

    def __init__(self, x):
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "none", None)

    def __setattr__(self, name, value):
        raise AssertionError("a copy runs no code of the class")


class Bare(Exception):
    def __new__(cls):
        return super().__new__(cls)

    def __reduce_ex__(self, protocol):
        raise AssertionError("a copy runs no code of the class")

    args = property()
    __dict__ = property()


class Failed(OSError):
    """An exception that passes its arguments to `OSError.__init__`, as `requests.RequestException` does."""

    def __init__(self, *args, response=None):
        self.response = response
        super().__init__(*args)


def changed(error, *args):
    error.args = args
    return error


KINDS = [
    lambda: ValueError("x"),
    lambda: KeyError(("a", 1)),
    lambda: OSError(2, "none", "file", None, "other"),
    lambda: FileNotFoundError(2, "none"),
    lambda: BlockingIOError(11, "full", 3),
    lambda: UnicodeDecodeError("utf-8", b"abc", 1, 2, "wrong"),
    lambda: SyntaxError("wrong", ("file", 1, 2, "text")),
    lambda: ImportError("x", name="name", path="path"),
    lambda: AttributeError("x", name="name", obj=3),
    lambda: StopIteration(3),
    lambda: MemoryError("why"),
    lambda: Failed("no answer", response=1),
    lambda: Failed(111, "refused", "file"),
    lambda: urllib.error.URLError("no host"),
    lambda: changed(OSError("a text"), 2, "none"),
    lambda: changed(ExceptionGroup("group", [ValueError(1)]), "other"),
    lambda: ExceptionGroup("group", [ValueError(1), KeyError(2)]),
    lambda: Coded(7),
    lambda: Slotted(5),
    lambda: Bare(),
]
FIELDS = (
    "characters_written code encoding end errno exceptions filename filename2 lineno message msg name none obj object"
    " offset path print_file_and_line reason response start strerror text unset value x"
).split()


def fields_of(error):
    return {name: getattr(error, name) for name in FIELDS if hasattr(error, name)}


@pytest.mark.parametrize("make", KINDS)
def test_copy_equals_the_exception_in_every_field(make):
    error = make()
    try:
        raise error from LookupError("the cause")
    except Exception:
        error.add_note("a note") if not isinstance(error, Slotted) else None
    copy = copy_exception(error)
    assert copy is not error and type(copy) is type(error)
    assert BaseException.args.__get__(copy) == BaseException.args.__get__(error)
    assert fields_of(copy) == fields_of(error)
    assert traceback.format_exception(copy) == traceback.format_exception(error)
    assert copy.__traceback__ is error.__traceback__ and copy.__cause__ is error.__cause__


def test_change_to_a_copy_does_not_affect_the_exception():
    error = Coded(1)
    error.add_note("of all")
    copy = copy_exception(error)
    copy.add_note("of one")
    copy.code = 2
    assert error.__notes__ == ["of all"] and error.code == 1
    assert copy.__notes__ == ["of all", "of one"]


@pytest.mark.parametrize("make", KINDS)
def test_each_waiting_thread_fails_with_the_traceback_of_the_failure(make):
    made = []

    def initializer_that_fails():
        waits.wait(10)
        made.append(make())
        raise made[-1]

    def fail(number):
        if number == 0:
            threading.Timer(0.05, waits.set).start()
        return cache.get_with("key", initializer_that_fails)

    for _ in range(20):
        cache, waits = Moka(10), threading.Event()
        made.clear()
        errors = outcomes_of_threads(4, fail)
        if len(made) == 1:  # Otherwise a thread came too late to wait.
            (leader,) = [error for error in errors if error is made[0]][:1]
            others = errors.copy()
            others.remove(leader)
            if not isinstance(leader, Bare):
                assert_copies_of_exception(leader, others)
            for error in errors:
                frames = traceback.extract_tb(error.__traceback__)
                assert frames[-1].name == "initializer_that_fails"
            return
    pytest.fail("a thread came too late each time")


WAITERS = 100


def names_of(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("how", ["get_with", "cached function"])
def test_traceback_has_the_frames_of_the_leader_and_of_one_waiter_only(how):
    """A single exception for all waiters would collect the frames of all of them."""
    for _ in range(20):
        made, raised = fail_for_many(how)
        if len(made) == 1:  # Otherwise a thread came too late to wait.
            break
    else:
        pytest.fail("a thread came too late each time")
    others = raised.copy()
    others.remove(made[0])
    assert_copies_of_exception(made[0], others)
    for error in raised:
        assert error.__notes__ == ["a note"]
        names = names_of(error)
        assert names[-1] == "failing" and names.count("ask") == 1
        assert len(names) == 3


def fail_for_many(how):
    """Let threads wait for one computation that fails. Return the failures, and the exception of each thread."""
    cache, made, arrived, all_wait = Moka(10), [], threading.Semaphore(0), threading.Event()

    def failing():
        assert all_wait.wait(60)
        made.append(LookupError("shared"))
        made[-1].add_note("a note")
        raise made[-1] from KeyError("cause")

    shared = cached(wait_concurrent=True)(failing)

    def ask(number):
        arrived.release()
        return shared() if how == "cached function" else cache.get_with("key", failing)

    def let_fail():
        for _ in range(WAITERS):
            assert arrived.acquire(timeout=60)
        # Give the last thread time to begin its wait. If that is too short, the caller tries again.
        all_wait.wait(0.05)
        all_wait.set()

    with Background(let_fail):
        return made, outcomes_of_threads(WAITERS, ask)


def test_traceback_has_the_frames_of_the_run_and_of_one_coroutine_only():
    made = []

    @cached(wait_concurrent=True)
    async def failing(x):
        await run_ready_tasks()
        made.append(LookupError("shared"))
        made[0].add_note("a note")
        raise made[0] from KeyError("cause")

    async def wait_for_it():
        try:
            await failing(1)
        except LookupError as error:
            await run_ready_tasks()
            return error

    async def main():
        leader, *others = await asyncio.gather(*(wait_for_it() for _ in range(WAITERS)))
        assert made == [leader]
        assert_copies_of_exception(leader, others)
        for error in others:
            assert error.__notes__ == ["a note"]
        for error in leader, *others:
            names = names_of(error)
            assert names[-1] == "failing" and names.count("wait_for_it") == 1
            assert names.count("join") == names.count("share") == names.count("_compute") == 1

    run_async(main)


def test_single_waiting_coroutine_gets_the_exception_itself():
    made = []

    @cached(wait_concurrent=True)
    async def failing(x):
        await run_ready_tasks()
        made.append(LookupError("alone"))
        raise made[0]

    async def main():
        leader = asyncio.create_task(failing(1))
        await asyncio.sleep(0)
        other = asyncio.create_task(failing(1))
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(LookupError) as caught:
            await other
        assert caught.value is made[0]
        with pytest.raises(asyncio.CancelledError):
            await leader

    run_async(main)


def test_copy_starts_with_an_earlier_traceback():
    try:
        raise LookupError
    except LookupError as error:
        before = error.__traceback__
        copy = copy_exception_at(error, None)
        assert copy.__traceback__ is None and error.__traceback__ is before
        assert copy_exception_at(copy, before).__traceback__ is before
