"""Copies of exceptions, for threads and coroutines that fail with the exception of another.

As an exception goes up through the frames of a waiter its traceback grows. Of one object for all waiters it would
gather the frames of all. The free-threaded build of CPython 3.13 also counts references wrongly where threads raise one
object at the same time.
"""

from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

_HEAP_TYPE = 1 << 9

# Those of the class itself, whatever a subclass makes of these names. `__suppress_context__` comes after what sets it.
_DICT = vars(BaseException)["__dict__"]
_TRACEBACK = vars(BaseException)["__traceback__"]
_COMMON = [
    vars(BaseException)[name] for name in ("args", "__traceback__", "__context__", "__cause__", "__suppress_context__")
]
_GROUPED = [vars(BaseExceptionGroup)[name] for name in ("message", "exceptions")]


def copied(error: Any) -> Any:
    """Another exception of the same class with all that this one holds.

    It is made without any code of the class: `copy.copy` would call it with `args`, which many a class does not take.
    """
    kind = type(error)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    # What a group holds is set when it is made, and all else below.
    grouped = [field.__get__(error) for field in _GROUPED] if isinstance(error, BaseExceptionGroup) else []
    copy = builtin.__new__(kind, *grouped)
    attributes = _DICT.__get__(copy)
    attributes.update(_DICT.__get__(error))
    notes = attributes.get("__notes__")
    if type(notes) is list:
        attributes["__notes__"] = notes.copy()
    for field in _COMMON:
        field.__set__(copy, field.__get__(error))
    # What is kept in slots, and in the fields of builtin classes.
    for base in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for field in list(vars(base).values()):
            if isinstance(field, MemberDescriptorType | GetSetDescriptorType):
                # One that is not set raises, and so does one that is read-only.
                with suppress(AttributeError, TypeError):
                    value = field.__get__(error)
                    # A field that is not set may read as None, but one set to None is shown.
                    if value is not None or base.__flags__ & _HEAP_TYPE:
                        field.__set__(copy, value)
    return copy


def copied_at(error: Any, traceback: TracebackType | None) -> Any:
    """Copy an exception as it was when it had this traceback."""
    copy = copied(error)
    _TRACEBACK.__set__(copy, traceback)
    return copy
