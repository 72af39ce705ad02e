"""Reads the keys of a file: one a line, or a column of a CSV file; plain, or packed with gzip or xz."""

import csv
import io
import itertools
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from gzip import GzipFile
from typing import BinaryIO, Protocol, cast

from moka_py._moka_py import _Trace

_CHUNK_BYTES = 1 << 20
_KEYS_PER_CALL = 4096
_MAX_FIELD_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 24
_MAX_SHOWN_COLUMNS = 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The first bytes of files that are neither text nor unpacked here.
_OTHER_FORMATS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
_MAX_MAGIC_BYTES = 6
# A byte is a character of its own in it, so keys come out of the CSV reader as the bytes that they were.
_BYTES_AS_TEXT = "latin-1"

# Is called after each chunk with the part of the file that is read, from 0 to 1, if that is known.
OnChunk = Callable[[float | None], None]


class UnreadableError(Exception):
    """The file cannot be read. The message says why and has the file as its subject."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Source:
    """A file that counts the bytes that were read. Its first bytes can be looked at before."""

    def __init__(self, file: BinaryIO, size: int | None) -> None:
        self._file = file
        self.size = size
        self.beginning = file.read(_MAX_MAGIC_BYTES)
        self._unread = self.beginning
        self.bytes_read = 0

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            chunk, self._unread = self._unread + self._file.read(), b""
        else:
            chunk, self._unread = self._unread[:size], self._unread[size:]
            chunk += self._file.read(size - len(chunk))
        self.bytes_read += len(chunk)
        return chunk

    def unpacked(self) -> _Readable:
        if self.beginning.startswith(b"\x1f\x8b"):
            return GzipFile(fileobj=cast(BinaryIO, self), mode="rb")
        if self.beginning.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMAFile(cast(BinaryIO, self))
        for magic, name in _OTHER_FORMATS.items():
            if self.beginning.startswith(magic):
                raise UnreadableError(f"is packed with {name}: only text, gzip and xz are read")
        return self


def read_keys(file: str, column: str | None, trace: _Trace, on_chunk: OnChunk) -> None:
    """Record all keys of a file in a trace.

    Args:
        file: A path, or `-` for standard input.
        column: The column of the CSV file that has the keys, or `None` if each line is a key.
        trace: Where the keys go.
        on_chunk: Is called after each chunk that was read.

    Raises:
        UnreadableError: The file cannot be opened, unpacked or understood, or has no keys.
    """
    try:
        if file == "-":
            if sys.stdin is None:
                raise UnreadableError("is closed")
            _read(_Source(sys.stdin.buffer, None), column, trace, on_chunk)
        else:
            with open(file, "rb") as opened:
                status = os.fstat(opened.fileno())
                _read(_Source(opened, status.st_size or None), column, trace, on_chunk)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UnreadableError(f"is broken: {error}") from error
    except OSError as error:
        # gzip raises an OSError without an error number for a broken file.
        raise UnreadableError(error.strerror or f"is broken: {error}") from error
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    if not trace.accesses:
        raise UnreadableError("has no keys")


def _read(source: _Source, column: str | None, trace: _Trace, on_chunk: OnChunk) -> None:
    if not source.beginning:
        raise UnreadableError("is empty")
    chunks = _chunks(source, on_chunk)
    if column is None:
        for chunk in chunks:
            trace.feed_lines(chunk)
        trace.finish_lines()
    else:
        for keys in _column(chunks, column):
            trace.feed_keys(keys)


def _chunks(source: _Source, on_chunk: OnChunk) -> Iterator[bytes]:
    text = source.unpacked()
    is_first = True
    while chunk := text.read(_CHUNK_BYTES):
        # Images and archives have lines, too, and hit ratios of these would mean nothing. Text has no NUL byte.
        if is_first and b"\0" in chunk:
            raise UnreadableError("is no text: it has a NUL byte, as binary files and UTF-16 have")
        is_first = False
        yield chunk
        on_chunk(source.bytes_read / source.size if source.size else None)


def _column(chunks: Iterator[bytes], name: str) -> Iterator[list[bytes]]:
    """Yield the keys of a column in batches. A row without the column has an empty key."""
    csv.field_size_limit(_MAX_FIELD_BYTES)
    rows = filter(None, csv.reader(itertools.chain.from_iterable(_lines(chunks))))
    try:
        header = [_as_bytes(field) for field in next(rows, [])]
        if os.fsencode(name) not in header:
            raise UnreadableError(_no_column(name, header))
        index = header.index(os.fsencode(name))
        while batch := list(itertools.islice(rows, _KEYS_PER_CALL)):
            yield [_as_bytes(row[index]) if index < len(row) else b"" for row in batch]
    except csv.Error as error:
        raise UnreadableError(f"cannot be read as CSV: {error}") from error


def _lines(chunks: Iterator[bytes]) -> Iterator[list[str]]:
    """Yield the lines of each chunk, with their ends, and each byte as a character."""
    partial = ""
    for number, chunk in enumerate(chunks):
        text = (chunk if number else chunk.removeprefix(_BYTE_ORDER_MARK)).decode(_BYTES_AS_TEXT)
        lines = list(io.StringIO(partial + text, newline=""))
        # A "\r" at the end may be half of a line end.
        partial = "" if not lines or lines[-1].endswith("\n") else lines.pop()
        if len(partial) > _MAX_LINE_BYTES:
            raise UnreadableError(f"has a line longer than {_MAX_LINE_BYTES} bytes")
        yield lines
    if partial:
        yield [partial]


def _as_bytes(field: str) -> bytes:
    return field.encode(_BYTES_AS_TEXT)


def _no_column(name: str, header: list[bytes]) -> str:
    shown = ", ".join(field.decode(errors="replace") for field in header[:_MAX_SHOWN_COLUMNS])
    more = ", ..." if len(header) > _MAX_SHOWN_COLUMNS else ""
    return f'has no column "{name}"; its header is {shown}{more}'
