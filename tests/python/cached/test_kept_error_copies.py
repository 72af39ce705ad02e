"""A call that finds a kept error raises a copy of it. The kept error has no traceback."""

import asyncio
import threading
import traceback
import weakref

import pytest
from cached_helpers import (
    KINDS,
    MINUTE,
    NotCopied,
    error_of,
    every_kind,
    failing,
    made_function,
    run_async,
    run_ready_tasks,
)
from helpers import Background, CallbackKey, Gate, Key, Value, collect, outcomes_of_threads

from moka_py import cached

# --- What a call raises ---


@every_kind
def test_each_call_raises_a_copy_with_a_traceback_of_its_own(kind):
    function, _ = failing(kind, [KeyError("x", {"a": 1})])

    def ask():
        return error_of(function, 1)

    first = ask()
    first.add_note("a note of the first call")
    assert "run_or_fail" in [frame.name for frame in traceback.extract_tb(first.__traceback__)]
    others = [ask() for _ in range(3)]
    assert len({id(each) for each in [first, *others]}) == 4
    lengths = set()
    for each in others:
        assert type(each) is KeyError and each.args == first.args and not hasattr(each, "__notes__")
        names = [frame.name for frame in traceback.extract_tb(each.__traceback__)]
        assert names[0] == "error_of" and "run_or_fail" not in names and "ask" not in names
        lengths.add(len(names))
    assert len(lengths) == 1, "tracebacks do not grow"


def test_threads_can_raise_one_kept_error_at_the_same_time():
    function, runs = failing(KINDS["function"], [LookupError("x")])
    error_of(function, 1)

    def ask(number):
        return [error_of(function, 1) for _ in range(200)]

    errors = [error for errors in outcomes_of_threads(4, ask) for error in errors]
    assert len({id(error) for error in errors}) == 800 and len(runs) == 1
    assert all(type(error) is LookupError and error.args == ("x",) for error in errors)


class Detailed(LookupError):
    def __init__(self, code, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail


@every_kind
def test_copy_has_the_fields_the_cause_and_the_context(kind):
    detail = object()

    def run(x):
        try:
            raise KeyError("context")
        except KeyError:
            error = Detailed(7, detail)
            error.add_note("a note")
            raise error from OSError(2, "none")

    function = made_function(kind, run, **MINUTE)
    first, kept = error_of(function, 1), error_of(function, 1)
    assert kept is not first and type(kept) is Detailed
    assert (kept.code, kept.detail, kept.args, kept.__notes__) == (7, detail, ("code 7",), ["a note"])
    assert type(kept.__cause__) is FileNotFoundError and kept.__cause__.errno == 2
    assert type(kept.__context__) is KeyError and kept.__suppress_context__
    unlinked = error_of(made_function(kind, lambda x: [].pop(), **MINUTE), 1)
    assert unlinked.__cause__ is None and not unlinked.__suppress_context__


@every_kind
def test_group_is_kept_with_its_members(kind):
    function, runs = failing(kind, [ExceptionGroup("group", [ValueError(1), KeyError(2)])], errors=ExceptionGroup)
    first, kept = error_of(function, 1), error_of(function, 1)
    assert kept is not first and kept.message == "group" and len(runs) == 1
    assert [(type(each), each.args) for each in kept.exceptions] == [(ValueError, (1,)), (KeyError, (2,))]
    assert kept.exceptions[0] is not first.exceptions[0] and kept.args == ("group", list(kept.exceptions))


def raise_with(value, how):
    """Raise a LookupError. A traceback behind it has a frame that refers to the value."""

    def inner(value):
        raise ValueError

    def error():
        try:
            inner(value)
        except ValueError as error:
            return error

    match how:
        case "itself":
            raise LookupError
        case "context":
            try:
                inner(value)
            except ValueError:
                raise LookupError from None
        case "cause":
            raise LookupError from error()
        case "cause of the cause":
            try:
                raise KeyError from error()
            except KeyError as middle:
                raise LookupError from middle
        case "circle":
            one = LookupError()
            one.__context__ = error()
            one.__context__.__context__ = one
            raise one
        case "argument":
            raise LookupError("failed", error())
        case "attribute":
            failed = LookupError()
            failed.reason = error()
            raise failed
        case "member of a group":
            raise LookupError from ExceptionGroup("group", [ExceptionGroup("inner", [error()])])


WAYS = ["itself", "context", "cause", "cause of the cause", "circle", "argument", "attribute", "member of a group"]


@every_kind
@pytest.mark.parametrize("how", WAYS)
def test_kept_error_holds_no_frame(how, kind):
    alive = []

    def run(x):
        value = Value()
        alive.append(weakref.ref(value))
        raise_with(value, how)

    function = made_function(kind, run, **MINUTE)
    error_of(function, 1)
    collect()
    assert len(alive) == 1 and alive[0]() is None
    assert isinstance(error_of(function, 1), LookupError) and len(alive) == 1


@every_kind
@pytest.mark.parametrize("way", ["__cause__", "__context__"])
def test_cause_or_context_that_cannot_be_copied_is_left_out(way, kind):
    error = LookupError("x")
    setattr(error, way, NotCopied())
    function, runs = failing(kind, [error])
    error_of(function, 1)
    kept = error_of(function, 1)
    assert kept.args == ("x",) and getattr(kept, way) is None and len(runs) == 1


@every_kind
def test_raising_the_cause_of_a_copy_does_not_reach_the_kept_error(kind):
    def run(x):
        raise LookupError from KeyError("cause")

    function = made_function(kind, run, **MINUTE)
    error_of(function, 1)
    for _ in range(3):
        cause = error_of(function, 1).__cause__
        assert cause.__traceback__ is None
        with pytest.raises(KeyError):
            raise cause


# --- Shared runs ---


def test_threads_that_wait_for_a_run_raise_copies_and_later_calls_do_too():
    gate, runs = Gate(), []

    @cached(wait_concurrent=True, **MINUTE)
    def function(x):
        runs.append(x)
        gate.stop_here()
        raise LookupError("shared")

    waiting = threading.Semaphore(0)

    def ask(number):
        if number:
            gate.wait_until_reached()
            waiting.release()
        return error_of(function, 1)

    def open_later():
        for _ in range(7):
            assert waiting.acquire(timeout=60)
        gate.open()

    with Background(open_later):
        errors = outcomes_of_threads(8, ask)
    assert len(runs) == 1 and len({id(error) for error in errors}) == 8
    assert isinstance(error_of(function, 1), LookupError) and len(runs) == 1


def test_call_that_finds_no_error_and_then_leads_looks_again():
    """Its `__eq__` runs between its look-up and its run, and lets another call fail in between."""
    gate, runs = Gate(), []

    @cached(wait_concurrent=True, **MINUTE)
    def function(x):
        runs.append(x.name)
        if x.name == "in flight":
            gate.stop_here()
            return x
        raise LookupError

    def fail_in_another_thread():
        key.on_eq = None
        with Background(lambda: error_of(function, Key("key", 1))) as other:
            pass
        assert isinstance(other.result, LookupError)

    key = CallbackKey("key", 1)
    with Background(lambda: function(Key("in flight", 1))):
        gate.wait_until_reached()
        key.on_eq = fail_in_another_thread
        assert isinstance(error_of(function, key), LookupError)
        gate.open()
    assert key.on_eq is None and runs == ["in flight", "key"]
    assert function.cache_info()[:2] == (1, 2) and function.cache.stats().loads == 2


def test_coroutines_that_wait_for_a_run_raise_copies_and_later_calls_do_too():
    runs = []

    @cached(wait_concurrent=True, **MINUTE)
    async def function(x):
        runs.append(x)
        await run_ready_tasks()
        raise LookupError("shared")

    async def main():
        errors = await asyncio.gather(*(function(1) for _ in range(8)), return_exceptions=True)
        assert len({id(error) for error in errors}) == 8 and all(type(error) is LookupError for error in errors)
        with pytest.raises(LookupError):
            await function(1)

    run_async(main)
    assert len(runs) == 1
    # The error is kept for other loops, too.
    assert isinstance(error_of(function, 1), LookupError) and len(runs) == 1
