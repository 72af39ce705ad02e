"""The entry point of `python -m moka_py`."""

import argparse
import os
import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

from moka_py import VERSION
from moka_py.cli import simulate


class Parser(argparse.ArgumentParser):
    """A parser that prints an error as one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main() -> None:
    """Parse the command line and run the command that it names."""
    parser = Parser(prog="python -m moka_py", description="Commands for moka_py, an in-process cache.")
    parser.add_argument("--version", action="version", version=f"moka_py {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    simulate.add_to(commands)
    if isinstance(sys.stdout, TextIOWrapper):
        # The name of a file may have bytes that the encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = parser.parse_args()
        options.run(options)
    finally:
        # If the output cannot be written, the error is raised here and not at exit.
        if sys.stdout is not None:
            sys.stdout.flush()


def exit_by_signal(number: signal.Signals) -> NoReturn:
    """End the process by the default action of a signal, so that a shell sees the cause."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # The signal may be blocked.
    os._exit(128 + number)


def run() -> None:
    """Run a command. An interrupt or a closed pipe ends the process by its signal."""
    try:
        main()
    except KeyboardInterrupt:
        exit_by_signal(signal.SIGINT)
    except BrokenPipeError:
        exit_by_signal(signal.SIGPIPE)
    except OSError as error:
        print(f"python -m moka_py: error: standard output: {error.strerror}", file=sys.stderr)
        # A normal exit would try to write the rest of the output again.
        os._exit(2)
