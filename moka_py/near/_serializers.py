"""Payloads: values as the server has them.

A payload of `"raw"` is the value itself. Every other payload has a header that names its serializer, so that a program
never reads what another serializer wrote. A lease is in the place of a value, and has a header of its own.

    b"\\xc1mk=" name b":" data      a value
    b"\\xc1mk?" 16 random bytes     a lease

No text in UTF-8 has the byte 0xc1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

VALUE_MARK = b"\xc1mk="
LEASE_MARK = b"\xc1mk?"
LEASE_LENGTH = len(LEASE_MARK) + 16

MAX_NAME_LENGTH = 32


class Serializer(Protocol):
    """Turns values into bytes and back."""

    @property
    def name(self) -> str:
        """It is in the header of each payload: 1 to 32 ASCII characters that can be printed, without ":"."""
        ...

    def dumps(self, value: Any, /) -> bytes:
        """Return the value as bytes."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """Return the value of bytes that `dumps` made."""
        ...


class UndecodableError(Exception):
    """A payload has a header that is unknown, or its data is broken."""


def new_lease() -> bytes:
    """Return the token of a new lease."""
    return LEASE_MARK + os.urandom(16)


def is_lease(payload: bytes) -> bool:
    """Return whether a payload is the token of a lease."""
    return len(payload) == LEASE_LENGTH and payload.startswith(LEASE_MARK)


class Codec:
    """Encodes values as payloads, and decodes payloads."""

    def __init__(self, header: bytes, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        self._header = header
        self._dumps = dumps
        self._loads = loads

    def encode(self, value: object) -> bytes:
        """Return the payload of a value. An exception of the serializer leaves unchanged."""
        data = self._dumps(value)
        if not isinstance(data, bytes):
            raise TypeError(f"serializer.dumps must return bytes, got {type(data).__name__}")
        if self._header:
            return self._header + data
        if is_lease(data):
            raise ValueError(f"value must not look like a lease, got {data!r}")
        return data

    def decode(self, payload: bytes) -> Any:
        """Return the value of a payload.

        Raises:
            UndecodableError: The header is that of another serializer or of none, or the serializer raised.
        """
        if not payload.startswith(self._header):
            raise UndecodableError(f"the payload has another header than {self._header!r}")
        try:
            return self.decode_own(payload)
        except Exception as error:
            raise UndecodableError("the data of the payload is broken") from error

    def decode_own(self, payload: bytes) -> Any:
        """Return the value of a payload that `encode` has made. An exception of the serializer leaves unchanged."""
        return self._loads(payload[len(self._header) :])


def _dump_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _dump_raw(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f'value must be bytes with serializer="raw", got {type(value).__name__}')
    return bytes(value)


def _header(name: str) -> bytes:
    return VALUE_MARK + name.encode("ascii") + b":"


def make_codec(serializer: object) -> Codec:
    """Return the codec of the option `serializer`.

    Raises:
        TypeError: It is neither a name nor an object with a name, `dumps` and `loads`.
        ValueError: The name is unknown, or has characters that the header of a payload cannot have.
    """
    if serializer == "json":
        return Codec(_header("json"), _dump_json, json.loads)
    if serializer == "raw":
        return Codec(b"", _dump_raw, bytes)
    if serializer == "pickle":
        # Imported only by this choice: a program that can write to the server can then run code in this process.
        import pickle

        return Codec(_header("pickle"), pickle.dumps, pickle.loads)
    if isinstance(serializer, str):
        raise ValueError(
            f'serializer must be "json", "raw", "pickle" or an object with name, dumps and loads, got {serializer!r}'
        )
    name: object = getattr(serializer, "name", None)
    dumps: Any = getattr(serializer, "dumps", None)
    loads: Any = getattr(serializer, "loads", None)
    if not isinstance(name, str) or not callable(dumps) or not callable(loads):
        raise TypeError(
            'serializer must be "json", "raw", "pickle" or an object with name, dumps and loads,'
            f" got {type(serializer).__name__}"
        )
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isascii() or not name.isprintable() or ":" in name:
        raise ValueError(
            f"serializer.name must have 1 to {MAX_NAME_LENGTH} printable ASCII characters and no colon, got {name!r}"
        )
    return Codec(_header(name), cast(Any, dumps), cast(Any, loads))
