"""Copies of exceptions, for threads that fail with the exception of another.

As an exception goes up through the frames of a thread its traceback grows. The free-threaded build of CPython 3.13
counts references wrongly where threads do that to one object at the same time.
"""

from contextlib import suppress
from types import MemberDescriptorType
from typing import Any

_HEAP_TYPE = 1 << 9

# Those of the class itself, whatever a subclass makes of these names.
_ARGS, _DICT, _CAUSE, _CONTEXT, _TRACEBACK = (
    vars(BaseException)[name] for name in ("args", "__dict__", "__cause__", "__context__", "__traceback__")
)


def copied(error: Any) -> Any:
    """Another exception of the same class with all that this one holds.

    It is made without any code of the class: `copy.copy` would call it with `args`, which many a class does not take.
    """
    kind = type(error)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    copy = builtin.__new__(kind, *_ARGS.__get__(error))
    if type(copy) is not kind:
        raise TypeError(f"{kind.__qualname__} makes another class of its arguments")
    attributes = _DICT.__get__(copy)
    attributes.update(_DICT.__get__(error))
    notes = attributes.get("__notes__")
    if type(notes) is list:
        attributes["__notes__"] = notes.copy()
    for descriptor in (_CAUSE, _CONTEXT, _TRACEBACK):
        descriptor.__set__(copy, descriptor.__get__(error))
    # What is kept in slots, and in the fields of builtin classes.
    for base in kind.__mro__:
        for member in list(vars(base).values()):
            if isinstance(member, MemberDescriptorType):
                # One that is not set raises, and so does one that is read-only, which was set when the copy was made.
                with suppress(AttributeError, TypeError):
                    value = member.__get__(error)
                    # A field that is not set reads as None, but one set to None is shown.
                    if value is not None or base.__flags__ & _HEAP_TYPE:
                        member.__set__(copy, value)
    return copy
