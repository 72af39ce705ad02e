"""`python -m moka_py simulate` as a process, with real traces, a terminal, signals, pipes, and the chart."""

import gzip
import importlib.util
import json
import lzma
import os
import pty
import random
import signal
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from traces import ROWS, accesses, hits_of, load_module

from moka_py import Moka

RUN = [sys.executable, "-P", "-W", "error", "-m", "moka_py", "simulate"]
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None

# Code before the command. It restores SIGINT, which a process that a shell starts in the background ignores.
BEFORE = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nsys.argv[0] = 'moka_py'\n"
AFTER = "\nimport runpy\nrunpy.run_module('moka_py', run_name='__main__', alter_sys=True)\n"


def run(*arguments, **options):
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*RUN, *arguments], timeout=100, **options)


def text_of(keys):
    return "".join(f"{key}\n" for key in keys).encode()


def skewed(count, keys):
    dice = random.Random(1)
    return [int(keys * dice.random() ** 4) for _ in range(count)]


@pytest.fixture(scope="module")
def web12(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "web12.txt"
    path.write_bytes(text_of(accesses("web12")))
    return path


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "keys.txt"
    path.write_bytes(text_of(skewed(1_200_000, 100_000)))
    assert path.stat().st_size > 5 << 20
    return path


def mean_of_the_cache(keys, capacity, policy):
    """Return the hit ratio of the cache in percent, as a mean over hash seeds. Single runs differ by up to a point."""
    runs = 24 if policy == "tiny_lfu" else 1
    hits = 0
    for number in range(runs):
        hits += hits_of(Moka(capacity, policy=policy), [key + number * 10_000_019 for key in keys])
    return 100 * hits / (runs * len(keys))


@pytest.mark.parametrize("name", ["web12", "sprite", "2_pools"])
def test_hit_ratios_of_real_traces_equal_those_of_the_cache(tmp_path, name):
    keys, capacities = accesses(name), [capacity for trace, capacity in ROWS if trace == name]
    path = tmp_path / name
    path.write_bytes(text_of(keys))
    result = run(path, "--json", "--capacities", ",".join(map(str, capacities)))
    for row in json.loads(result.stdout)["hit_ratios"]:
        for policy in ("tiny_lfu", "lru"):
            own = mean_of_the_cache(keys, row["capacity"], policy)
            assert abs(row[policy] - own) <= 0.5, (row, policy, own)


def test_optimum_equals_that_of_an_independent_program(web12):
    replay = load_module("replay")
    keys = accesses("web12")
    result = run(web12, "--json", "--capacities", "1,10,100,500,2000,100000")
    for row in json.loads(result.stdout)["hit_ratios"]:
        expected = 100 * replay.optimum(row["capacity"], keys) / len(keys)
        assert row["optimum"] == pytest.approx(expected, abs=1e-3)
        assert row["optimum"] >= max(row["tiny_lfu"], row["lru"])


def test_two_runs_print_the_same(web12):
    assert run(web12).stdout == run(web12).stdout != b""


def test_slow_pipe_is_read_to_its_end():
    with subprocess.Popen([*RUN, "-", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for byte in gzip.compress(b"one\ntwo\none\n"):
            process.stdin.write(bytes([byte]))
            process.stdin.flush()
        process.stdin.close()
        assert json.load(process.stdout)["accesses"] == 3


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_corrupt_compressed_file_is_an_error(tmp_path, pack):
    noise = random.Random(1).randbytes
    whole = pack(text_of(noise(8).hex() for _ in range(5000)))
    middle = len(whole) // 2
    garbled = whole[:middle] + noise(200) + whole[middle + 200 :]
    for content in (whole[:middle], garbled, whole[:6], whole[:12], whole[:-1]):
        path = tmp_path / "keys"
        path.write_bytes(content)
        result = run(path)
        assert result.returncode == 2 and not result.stdout
        assert result.stderr.startswith(f"python -m moka_py simulate: error: {path}: is broken: ".encode())
        assert result.stderr.count(b"\n") == 1


def test_empty_file_and_file_without_keys_have_different_errors(tmp_path):
    path = tmp_path / "keys"
    for content, text in ((b"", "is empty"), (b"a,b\n", "has no keys"), (b"\n", 'has no column "a"; its header is ')):
        path.write_bytes(content)
        assert run(path, "--column", "a").stderr.decode().endswith(f"{path}: {text}\n")


def test_full_disk_is_an_error(web12):
    with open("/dev/full", "wb") as full:
        result = run(web12, "--capacities", "10", stdout=full)
    assert result.returncode == 2
    assert result.stderr == b"python -m moka_py: error: standard output: No space left on device\n"


def test_file_name_that_is_not_valid_unicode_is_accepted(tmp_path):
    path = os.fsencode(tmp_path / "keys") + b"\xff\xc3"
    Path(os.fsdecode(path)).write_bytes(b"a\nb\n")
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "1"}):
        result = run(path, env={**os.environ, **environment})
        assert b"2 accesses, 2 distinct keys" in result.stdout, result.stderr


class Terminal:
    """A run of the command whose stderr is a terminal."""

    def __init__(self, *arguments):
        self.end, other = pty.openpty()
        command = [sys.executable, "-P", "-c", BEFORE + AFTER, "simulate", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=other)
        os.close(other)
        self.seen = b""

    def read(self, until=None):
        """Return the output up to a word, or up to the end of the command."""
        while until is None or until not in self.seen:
            try:
                chunk = os.read(self.end, 1 << 16)
            except OSError:
                # The other end is closed.
                chunk = b""
            if not chunk:
                assert until is None, self.seen
                break
            self.seen += chunk
        return self.seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdout.close()
        self.process.wait(60)
        os.close(self.end)


def test_progress_is_shown_on_a_terminal(long_file):
    with Terminal(long_file, "--capacities", "10") as terminal:
        shown = terminal.read()
        assert b"reading [####" in shown and b"replaying [" in shown and b"capacity 10" in shown
        # At the end the progress line is erased.
        assert shown.endswith(b"\r\x1b[K")
        assert b"\x1b" not in terminal.process.stdout.read()
        assert terminal.process.wait(60) == 0


def test_progress_is_shown_only_on_a_terminal(long_file, web12):
    assert run(long_file, "--capacities", "10").stderr == b""
    with Terminal(web12, "--capacities", "10") as terminal:
        assert terminal.read() == b""


def test_ctrl_c_during_replays_ends_the_command_quietly(long_file):
    many = ",".join(str(capacity) for capacity in range(1000, 3000))
    with Terminal(long_file, "--capacities", many) as terminal:
        terminal.read(until=b"replaying")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == -signal.SIGINT
        assert b"Traceback" not in terminal.read()
        assert terminal.process.stdout.read() == b""


def test_signal_handler_runs_during_a_replay():
    program = """
import signal
from moka_py._moka_py import _Trace

trace = _Trace(max_keys=None, exact=True)
chunk = b"".join(b"%d\\n" % (key * key % 99991) for key in range(1000000))
for _ in range(10):
    trace.feed_lines(chunk)
trace.finish_lines()

def handle(*_):
    raise RuntimeError("the handler's own")

signal.signal(signal.SIGVTALRM, handle)
for method in ("tiny_lfu", "lru", "optimum"):
    # Of processor time, so a busy machine changes nothing.
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
    try:
        trace.hit_ratio(method, 1000)
    except RuntimeError as error:
        assert str(error) == "the handler's own"
        continue
    raise AssertionError(method)
"""
    command = [sys.executable, "-P", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr


def test_error_without_matplotlib_names_the_package_to_install(web12, tmp_path):
    program = f"{BEFORE}sys.modules['matplotlib'] = None{AFTER}"
    command = [sys.executable, "-P", "-c", program, "simulate", web12, "--plot", tmp_path / "chart.svg"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and not result.stdout and result.stderr.count("\n") == 1
    assert result.stderr.endswith("needs matplotlib: pip install matplotlib\n")


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("capacities", [[], ["--capacities", "2000,3000,4000"]], ids=["series", "narrow"])
def test_chart_is_drawn_in_addition_to_the_table(web12, tmp_path, suffix, capacities):
    chart = tmp_path / f"chart{suffix}"
    result = run(web12, *capacities, "--plot", chart)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert result.stdout == run(web12, *capacities).stdout
    if suffix == ".png":
        assert chart.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        return
    text = chart.read_text()
    xml.etree.ElementTree.fromstring(text)
    words = ["tiny_lfu", "lru", "optimum", "95,607 accesses", "web12.txt", "2,000"]
    assert all(f"<!-- {word}" in text for word in words)


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_empty_chart_is_an_error_after_the_table(web12, tmp_path):
    result = run(web12, "--sample", "1000", "--capacities", "2", "--plot", tmp_path / "chart.svg")
    assert result.returncode == 2 and b"too small to tell" in result.stdout
    assert result.stderr.endswith(b"argument --plot: the sample is too small for every capacity\n")
    assert not (tmp_path / "chart.svg").exists()


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_chart_that_cannot_be_written_is_an_error_after_the_table(web12, tmp_path):
    (tmp_path / "full.svg").symlink_to("/dev/full")
    result = run(web12, "--capacities", "10", "--plot", tmp_path / "full.svg")
    assert result.returncode == 2 and b"optimum" in result.stdout
    assert result.stderr.endswith(b"full.svg: No space left on device\n") and result.stderr.count(b"\n") == 1
