"""`python -m moka_py simulate` prints the hit ratios that the cache itself has on a file of keys."""

import gzip
import importlib.util
import json
import lzma
import random
import signal
import subprocess
import sys

import pytest

from moka_py import Moka
from moka_py.cli.keys import _column

METHODS = ("tiny_lfu", "lru", "optimum")


def simulate(*args, stdin=None, expected=0):
    """Run the command. Return its output, or its error line."""
    command = [sys.executable, "-P", "-W", "error", "-m", "moka_py", "simulate", *map(str, args)]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=100)
    assert result.returncode == expected, result.stderr
    out, err = result.stdout.decode(), result.stderr.decode()
    if expected:
        assert out == "" and err.count("\n") == 1, (out, err)
        return err
    assert err == ""
    return out


def some_keys(count, seed=1):
    """Return keys of which low ones are frequent, with an occasional scan."""
    dice = random.Random(seed)
    for number in range(count):
        yield f"key {int(dice.paretovariate(0.6)) % 5000}" if number % 4000 < 3000 else f"scan {number}"


def replay(keys, capacity, policy):
    """Return the hit ratio of the cache itself, in percent."""
    cache = Moka(capacity, policy=policy)
    hits = 0
    for key in keys:
        if cache.get(key) is None:
            cache.set(key, True)
        else:
            hits += 1
    return 100 * hits / len(keys)


@pytest.fixture(scope="module")
def keys():
    return list(some_keys(40_000))


@pytest.fixture
def file(tmp_path, keys):
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(keys))
    return path


def test_hit_ratios_equal_those_of_the_cache(file, keys):
    found = json.loads(simulate(file, "--capacities", "2000,200,500", "--json"))
    assert (found["accesses"], found["distinct_keys"], found["sample"]) == (len(keys), len(set(keys)), None)
    assert [row["capacity"] for row in found["hit_ratios"]] == [200, 500, 2000]
    for row in found["hit_ratios"]:
        for policy in ("tiny_lfu", "lru"):
            # The hash seed differs between processes, which changes the sketch and so up to 0.4 points here.
            differs = abs(row[policy] - replay(keys, row["capacity"], policy))
            assert differs <= (1 if policy == "tiny_lfu" else 1e-3), (row, policy)
        assert row["optimum"] >= max(row["tiny_lfu"], row["lru"])


def test_table_has_a_row_for_each_capacity(file, keys):
    lines = simulate(file).splitlines()
    assert lines[0] == f"{file}: {len(keys):,} accesses, {len(set(keys)):,} distinct keys"
    head = next(number for number, line in enumerate(lines) if line.split() == ["capacity", *METHODS])
    rows = [line.split() for line in lines[head + 1 :]]
    capacities = [int(row[0].replace(",", "")) for row in rows]
    assert capacities == sorted(capacities) and capacities[-1] >= len(set(keys))
    assert all(len(row) == 4 and 0 <= float(cell) <= 100 for row in rows for cell in row[1:])
    assert len({len(line) for line in lines[head:]}) == 1, "the columns are aligned"


def test_compressed_files_and_standard_input_give_the_same_result(tmp_path, file):
    text = file.read_bytes()
    expected = json.loads(simulate(file, "--json"))
    for name, packed in (("a.gz", gzip.compress(text)), ("b", lzma.compress(text)), ("c.txt", gzip.compress(text))):
        path = tmp_path / name
        path.write_bytes(packed)
        for found in (simulate(path, "--json"), simulate("-", "--json", stdin=packed)):
            assert json.loads(found)["hit_ratios"] == expected["hit_ratios"]
    assert json.loads(simulate("-", "--json", stdin=text))["hit_ratios"] == expected["hit_ratios"]


def test_csv_column_can_be_chosen_by_name(tmp_path, keys):
    path = tmp_path / "log.csv"
    path.write_text("time,cache key,size\r\n" + "".join(f'{number},"{key}",7\r\n' for number, key in enumerate(keys)))
    plain = tmp_path / "plain"
    plain.write_text("\n".join(keys))
    found = json.loads(simulate(path, "--column", "cache key", "--json"))
    assert found["hit_ratios"] == json.loads(simulate(plain, "--json"))["hit_ratios"]


def test_csv_keys_are_those_of_the_file_whatever_their_quotes_and_line_ends():
    rows = [b"2,b", b"3,", b"4,a", b"5", b"", b'6,"b"', b'7,"x\ny"', b'8,"a ""b"", c"', b"9,\xff\xc3", b"10,\xff\xc3"]
    for end in (b"\n", b"\r\n", b"\r"):
        for beginning in (b"", b"\xef\xbb\xbf"):
            text = beginning + end.join([b'time,"the key"', b"1,a", *rows])
            found = json.loads(simulate("-", "--column", "the key", "--json", stdin=text))
            assert (found["accesses"], found["distinct_keys"], found["empty"]) == (8, 5, 2)


def test_csv_rows_may_end_anywhere_in_a_chunk():
    text = b'time,"the key"\r\n1,a\r\n2,"b\r\n\n""c"\r\n3,\r\n4,a'
    for size in range(1, len(text) + 1):
        chunks = iter([text[at : at + size] for at in range(0, len(text), size)])
        assert [key for keys in _column(chunks, "the key") for key in keys] == [b"a", b'b\r\n\n"c', b"", b"a"], size


def test_a_csv_field_or_line_that_is_far_too_long_is_refused():
    field = b"key\n" + b"x" * (1 << 20)
    assert simulate("-", "--column", "key", "--json", stdin=field)
    error = simulate("-", "--column", "key", stdin=field + b"x", expected=2)
    assert "standard input: cannot be read as CSV: field larger than field limit (1048576)" in error
    error = simulate("-", "--column", "key", stdin=b"key\n" + b"x," * (9 << 20), expected=2)
    assert "standard input: has a line longer than 16777216 bytes" in error


def test_sampling_is_reported_and_close_to_the_full_result(file):
    options = (file, "--capacities", "1000,3000", "--json")
    exact = json.loads(simulate(*options, "--exact"))
    sampled = json.loads(simulate(*options, "--sample", "4000"))
    assert exact["sample"] is None and sampled["sample"]["keys"] <= 4000 and sampled["sample"]["rate"] < 1
    for whole, part in zip(exact["hit_ratios"], sampled["hit_ratios"], strict=True):
        assert all(abs(whole[method] - part[method]) < 5 for method in METHODS), (whole, part)
    assert "sampled: 1 key in " in simulate(file, "--sample", "4000")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is installed")
def test_chart_option_without_matplotlib_names_the_package_to_install(tmp_path, file):
    error = simulate(file, "--plot", tmp_path / "chart.svg", expected=2)
    assert "argument --plot: needs matplotlib: pip install" in error
    assert not (tmp_path / "chart.svg").exists()


@pytest.mark.parametrize(
    ("args", "text", "error"),
    [
        (["missing"], None, "missing: No such file or directory"),
        (["."], None, ".: Is a directory"),
        (["-"], b"", "standard input: is empty"),
        (["-"], b"\n\n", "standard input: has no keys"),
        (["-"], gzip.compress(b"a\n" * 1000, mtime=0)[:-4], "standard input: is broken: "),
        (["-"], lzma.compress(b"a\n" * 1000)[:-4], "standard input: is broken: "),
        (["-"], b"BZh9xxxx", "standard input: is packed with bzip2"),
        (["-"], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\n", "standard input: is no text: it has a NUL byte"),
        (["-"], gzip.compress(b"keys.txt\0\0\na\n", mtime=0), "standard input: is no text: it has a NUL byte"),
        (["-", "--column", "a"], "a,b\n1,2\n".encode("utf-16"), "standard input: is no text: it has a NUL byte"),
        (
            ["-", "--column", "key"],
            b"time,size\n1,2\n",
            'standard input: has no column "key"; its header is time, size',
        ),
        (["-", "--capacities", "10,0"], b"a\n", "argument --capacities: must be a whole number of at least 1, got '0'"),
        (
            ["-", "--capacities", "ten"],
            b"a\n",
            "argument --capacities: must be a whole number of at least 1, got 'ten'",
        ),
        (["-", "--plot", "chart.gif"], b"a\n", "argument --plot: must end in .svg or .png, got 'chart.gif'"),
        (["-", "--sample", "5", "--exact"], b"a\n", "not allowed with argument"),
        ([], b"", "the following arguments are required: KEYS_FILE"),
    ],
    ids=str,
)
def test_user_error_is_one_line(args, text, error):
    assert error in simulate(*args, stdin=text or b"", expected=2)


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_closed_pipe_ends_the_command_quietly(file):
    command = [sys.executable, "-P", "-m", "moka_py", "simulate", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == -signal.SIGPIPE
    process.stderr.close()


def test_help_and_version_are_printed():
    command = [sys.executable, "-P", "-m", "moka_py"]
    for args, text in ((["simulate", "--help"], b"KEYS_FILE"), (["--version"], b"moka_py ")):
        assert text in subprocess.run([*command, *args], capture_output=True, check=True).stdout
