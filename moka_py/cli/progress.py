"""A progress bar on a terminal."""

from shutil import get_terminal_size
from types import TracebackType
from typing import Self, TextIO

_BAR_WIDTH = 30


class Progress:
    """A progress bar, which is shown only on a terminal and only once `is_enabled` is set."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self.is_enabled = False
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def show(self, task: str, done: float | None, detail: str) -> None:
        """Show the name of the task, the part of it that is done, from 0 to 1, if it is known, and a detail."""
        if self._stream is None or not self.is_enabled:
            return
        bar = ""
        if done is not None:
            filled = round(_BAR_WIDTH * min(done, 1))
            bar = f" [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {min(done, 1):4.0%}"
        line = f"{task}{bar}  {detail}"[: get_terminal_size().columns - 1]
        if line != self._shown:
            self._shown = line
            self._write(f"\r\x1b[K{line}")

    def close(self) -> None:
        """Erase the bar."""
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
            # The terminal was closed. That does not end the command.
            self._stream = None
