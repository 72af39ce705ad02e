"""A server for the near cache, and a summary of how many tests of each framework's own suite passed."""

import pytest
from near.real_server import PROGRAM_VARIABLE, RealServer, find_program

_counts = []


def pytest_configure(config):
    config.addinivalue_line("markers", "time_intensive: a mark of the suites of dogpile.cache")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.when == "call":
        _counts.extend(value for name, value in report.user_properties if name == "suite")


def pytest_terminal_summary(terminalreporter):
    for line in sorted(_counts):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def server():
    """Return the address of a real server. Each process of pytest has its own."""
    pytest.importorskip("redis", reason="redis is not installed")
    program = find_program()
    if program is None:
        pytest.skip(
            f"there is no redis-server: set {PROGRAM_VARIABLE} to the path that `ci/server --program redis` prints"
        )
    with RealServer(program) as running:
        yield running.url
