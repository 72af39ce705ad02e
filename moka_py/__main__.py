"""The commands of the package: `python -m moka_py --help`."""

import argparse
import os
import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

from moka_py import VERSION, _simulate


class Parser(argparse.ArgumentParser):
    """Tells of an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main() -> None:
    parser = Parser(prog="python -m moka_py", description="Commands for moka_py, an in-process cache.")
    parser.add_argument("--version", action="version", version=f"moka_py {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _simulate.add_to(commands)
    if isinstance(sys.stdout, TextIOWrapper):
        # A file may have a name that cannot be written as text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = parser.parse_args()
        options.run(options)
    finally:
        # Here, so that it is noticed in time if nobody takes it.
        if sys.stdout is not None:
            sys.stdout.flush()


def end_by(number: signal.Signals) -> NoReturn:
    """Ends as a program does that knows nothing of the signal, so that a shell sees why."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # It may be blocked.
    os._exit(128 + number)


def run() -> None:
    """Runs a command, and ends as programs do where it cannot go on."""
    try:
        main()
    except KeyboardInterrupt:
        end_by(signal.SIGINT)
    except BrokenPipeError:
        end_by(signal.SIGPIPE)
    except OSError as error:
        print(f"python -m moka_py: error: standard output: {error.strerror}", file=sys.stderr)
        # What could not be written would be tried once more.
        os._exit(2)


if __name__ == "__main__":
    run()
