"""A progress bar on a terminal, for what takes long."""

from shutil import get_terminal_size
from types import TracebackType
from typing import Self, TextIO

_WIDTH = 30


class Progress:
    """Shows nothing where the stream is no terminal, or before it is said to be worth it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self.is_worth_it = False
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def show(self, what: str, part: float | None, detail: str) -> None:
        """Tell what is under way, the part of it that is done, from 0 to 1, where that is known, and a word more."""
        if self._stream is None or not self.is_worth_it:
            return
        bar = ""
        if part is not None:
            full = round(_WIDTH * min(part, 1))
            bar = f" [{'#' * full}{'.' * (_WIDTH - full)}] {min(part, 1):4.0%}"
        line = f"{what}{bar}  {detail}"[: get_terminal_size().columns - 1]
        if line != self._shown:
            self._shown = line
            self._write(f"\r\x1b[K{line}")

    def close(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._shown = ""
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The terminal has gone, which is no reason to stop.
            self._stream = None
