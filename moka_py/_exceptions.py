"""Copies of exceptions, for calls that fail with the exception of another call, or with one that is kept.

As an exception passes through the frames of a thread, its traceback grows. If all waiters raised one object, its
traceback would gather the frames of all of them. On the free-threaded build of CPython 3.13, threads that raise one
object at the same time also corrupt its reference counts.

An exception that is kept has no traceback, since the frames of a traceback keep all local variables alive. That holds
for the exceptions behind it, too.
"""

import functools
import sys
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

_HEAP_TYPE = 1 << 9
"""The flag of classes that are not builtin."""

# The descriptors of the class itself, which no subclass can shadow.
_DICT = vars(BaseException)["__dict__"]
_ARGS, _TRACEBACK, _CONTEXT, _CAUSE, _SUPPRESS_CONTEXT = (
    vars(BaseException)[name] for name in ("args", "__traceback__", "__context__", "__cause__", "__suppress_context__")
)
# `__suppress_context__` comes after `__cause__`, which sets it.
_COMMON = (_ARGS, _TRACEBACK, _CONTEXT, _CAUSE, _SUPPRESS_CONTEXT)
_GROUPED = [vars(BaseExceptionGroup)[name] for name in ("message", "exceptions")]


def copy_exception(error: Any) -> Any:
    """Return another exception of the same class with the same contents.

    No code of the class runs. `copy.copy` would call the class with `args`, which many classes do not accept.
    """
    # The contents of a group are set when it is made, all else afterwards.
    grouped = [field.__get__(error) for field in _GROUPED] if isinstance(error, BaseExceptionGroup) else []
    return _copy_with(error, grouped)


def _copy_with(error: Any, grouped: list[Any]) -> Any:
    """Return a copy of an exception; that of a group has this message and these members."""
    kind = type(error)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    copy = builtin.__new__(kind, *grouped)
    attributes = _DICT.__get__(copy)
    attributes.update(_DICT.__get__(error))
    notes = attributes.get("__notes__")
    if type(notes) is list:
        attributes["__notes__"] = notes.copy()
    for field in _COMMON:
        field.__set__(copy, field.__get__(error))
    # Slots, and the fields of builtin classes.
    for base in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for field in list(vars(base).values()):
            if isinstance(field, MemberDescriptorType | GetSetDescriptorType):
                # A field that is not set raises, and so does one that is read-only.
                with suppress(AttributeError, TypeError):
                    value = field.__get__(error)
                    # A builtin field that is not set may read as None. If it were set to None, it would be shown.
                    if value is not None or base.__flags__ & _HEAP_TYPE:
                        field.__set__(copy, value)
    return copy


def copy_exception_at(error: Any, traceback: TracebackType | None) -> Any:
    """Return a copy of an exception as it was when it had this traceback."""
    copy = copy_exception(error)
    _TRACEBACK.__set__(copy, traceback)
    return copy


def is_cancellation(kind: type[Exception]) -> bool:
    """Return whether a subclass of `Exception` is one of cancellations. The other cancellations are no such classes."""
    # If the module is not imported, there is no exception of the class.
    futures = sys.modules.get("concurrent.futures._base")
    return futures is not None and issubclass(kind, futures.CancelledError)


def copy_to_keep(error: Exception) -> Exception | None:
    """Return a copy of an exception for a cache to keep, or None if the exception is a cancellation.

    Raises:
        Exception: The exception cannot be copied.
    """
    return None if is_cancellation(type(error)) else copy_kept(error)


def copy_kept(error: Any) -> Any:
    """Return a copy of an exception and of all exceptions behind it, without tracebacks.

    Behind it are its cause and context, the members of a group, and exceptions among its arguments and attributes. A
    cause or context that cannot be copied is left out, and an argument or attribute is then not copied.
    """
    copies: dict[int, Any] = {}
    originals: list[Any] = []
    replace = functools.partial(_replace, copies=copies, originals=originals)
    _copy_alone(error, copies, originals)
    # The list grows until nothing behind the exception is new.
    for original in originals:
        copy = copies[id(original)]
        args = _ARGS.__get__(original)
        if isinstance(original, BaseExceptionGroup):
            # The sequence of its members is mostly one of them.
            args = [[*map(replace, each)] if type(each) is list else each for each in args]
        _ARGS.__set__(copy, tuple(replace(each) for each in args))
        for field in (_CONTEXT, _CAUSE):
            linked = field.__get__(original)
            replaced = replace(linked)
            field.__set__(copy, None if replaced is linked else replaced)
        # After the cause, which sets it.
        _SUPPRESS_CONTEXT.__set__(copy, _SUPPRESS_CONTEXT.__get__(original))
        attributes = _DICT.__get__(copy)
        attributes.update({name: replace(value) for name, value in attributes.items()})
    return copies[id(error)]


def _copy_alone(original: Any, copies: dict[int, Any], originals: list[Any]) -> Any:
    """Return the copy of an exception, whose links are copied later, and of the members if it is a group."""
    if id(original) not in copies:
        contents = []
        if isinstance(original, BaseExceptionGroup):
            message, members = (field.__get__(original) for field in _GROUPED)
            contents = [message, [_copy_alone(member, copies, originals) for member in members]]
        copy = _copy_with(original, contents)
        _TRACEBACK.__set__(copy, None)
        copies[id(original)] = copy
        originals.append(original)
    return copies[id(original)]


def _replace(value: Any, copies: dict[int, Any], originals: list[Any]) -> Any:
    """Return the copy of an exception. Return any other value itself, and an exception that cannot be copied."""
    if issubclass(type(value), BaseException):
        with suppress(Exception):
            return _copy_alone(value, copies, originals)
    return value
