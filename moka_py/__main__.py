"""Runs the commands of the package: `python -m moka_py --help`."""

from moka_py.cli.main import run

if __name__ == "__main__":
    run()
