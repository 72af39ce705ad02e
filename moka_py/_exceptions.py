"""Copies of exceptions, for threads and coroutines that fail with the exception of another one.

As an exception passes through the frames of a thread, its traceback grows. If all waiters raised one object, its
traceback would gather the frames of all of them. On the free-threaded build of CPython 3.13, threads that raise one
object at the same time also corrupt its reference counts.
"""

from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

_HEAP_TYPE = 1 << 9
"""The flag of classes that are not builtin."""

# The descriptors of the class itself, which no subclass can shadow. `__suppress_context__` comes after `__cause__`,
# which sets it.
_DICT = vars(BaseException)["__dict__"]
_TRACEBACK = vars(BaseException)["__traceback__"]
_COMMON = [
    vars(BaseException)[name] for name in ("args", "__traceback__", "__context__", "__cause__", "__suppress_context__")
]
_GROUPED = [vars(BaseExceptionGroup)[name] for name in ("message", "exceptions")]


def copy_exception(error: Any) -> Any:
    """Return another exception of the same class with the same contents.

    No code of the class runs. `copy.copy` would call the class with `args`, which many classes do not accept.
    """
    kind = type(error)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    # The contents of a group are set when it is made, all else below.
    grouped = [field.__get__(error) for field in _GROUPED] if isinstance(error, BaseExceptionGroup) else []
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
