"""What threads fail with that wait for a computation which raises: on the free-threaded build, copies."""

import threading
import traceback
import urllib.error

import pytest
from cached_helpers import at_once
from helpers import assert_raised_for_each

from moka_py import Moka
from moka_py._raised import copied


class Coded(Exception):
    """Takes other arguments than it keeps."""

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
    """Leaves its arguments to `OSError.__init__`, as `requests.RequestException` does."""

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
def test_copy_has_all_that_the_exception_has(make):
    error = make()
    try:
        raise error from LookupError("the cause")
    except Exception:
        error.add_note("a note") if not isinstance(error, Slotted) else None
    copy = copied(error)
    assert copy is not error and type(copy) is type(error)
    assert BaseException.args.__get__(copy) == BaseException.args.__get__(error)
    assert fields_of(copy) == fields_of(error)
    assert traceback.format_exception(copy) == traceback.format_exception(error)
    assert copy.__traceback__ is error.__traceback__ and copy.__cause__ is error.__cause__


def test_what_is_added_to_a_copy_stays_there():
    error = Coded(1)
    error.add_note("of all")
    copy = copied(error)
    copy.add_note("of one")
    copy.code = 2
    assert error.__notes__ == ["of all"] and error.code == 1
    assert copy.__notes__ == ["of all", "of one"]


@pytest.mark.parametrize("make", KINDS)
def test_each_thread_that_waits_fails_and_knows_where_it_was_raised(make):
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
        errors = at_once(4, fail)
        if len(made) == 1:  # Else one came when it was over.
            (leader,) = [error for error in errors if error is made[0]][:1]
            others = errors.copy()
            others.remove(leader)
            if not isinstance(leader, Bare):
                assert_raised_for_each(leader, others)
            for error in errors:
                frames = traceback.extract_tb(error.__traceback__)
                assert frames[-1].name == "initializer_that_fails"
            return
    pytest.fail("somebody came too late each time")
