"""No read is older than its bound, while servers, networks and processes fail.

`stress/near` checks the same for longer. The other tests check the checker: it rejects histories with a read that is
too old, and finds the bug of each cache in `buggy_near_caches.py`.
"""

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

STRESS = str(ROOT / "stress" / "near")
sys.path.insert(0, STRESS)
try:
    import history
    from buggy_near_caches import BUGS
    from staleness_checker import check, describe
finally:
    sys.path.remove(STRESS)

# As in conftest.py.
PROTOCOL_VARIABLE = "MOKA_PY_PROTOCOL"
BOUND_MS = 100
TTL_MS = 1000
KEY, EXPIRING_KEY = 1, 2
KINDS = {
    "set": history.SET,
    "load": history.LOAD,
    "remove": history.RESET,
    "read": history.READ,
    "fresh": history.FRESH_READ,
    "get_with": history.LOADING_READ,
}


def milliseconds(number):
    return number * 1_000_000


def problems(*lines, key=KEY):
    """Return what the checker says about calls such as `"0-10 set 1"`, `"20- remove"` or `"30-31 read 1 after 25"`.

    A call without an end has raised. The number after `after` is the end of the last own write before it. The number
    after `by` is that of the process.
    """
    records = []
    for line in lines:
        found = re.fullmatch(r"(\d+)-(\d*) (\w+) ?(\d*)(?: after (\d+))?(?: by (\d+))?", line)
        begin, end, kind, value, floor, process = found.groups()
        end = milliseconds(int(end)) if end else history.NEVER
        numbers = (int(value or 0), milliseconds(int(begin)), end, milliseconds(int(floor or 0)), int(process or 1))
        records.append(history.Record(KINDS[kind], key, *numbers))
    found, _ = check(records, milliseconds(BOUND_MS), {EXPIRING_KEY: milliseconds(TTL_MS)})
    assert all(describe(each, 0) for each in found)
    return [what for what, _ in found]


OVERWRITTEN = "a value was read in spite of a later write or removal"
WRITTEN = "a key that was written was absent"


def test_a_read_may_be_as_old_as_the_bound_and_not_older():
    assert problems("0-10 set 1", "20-30 set 2", "129-131 read 1") == []
    assert problems("0-10 set 1", "20-30 set 2", "131-132 read 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-30 set 2", "131-132 get_with 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-30 remove", "131-132 read 1") == [OVERWRITTEN]


def test_a_read_that_overlaps_the_write_may_return_either_value():
    assert problems("0-10 set 1", "20-300 set 2", "299-301 fresh 1", "299-301 fresh 2") == []


def test_a_fresh_read_may_not_be_old():
    assert problems("0-10 set 1", "20-30 set 2", "29-32 fresh 1") == []
    assert problems("0-10 set 1", "20-30 set 2", "31-32 fresh 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-30 remove", "31-32 fresh 1") == [OVERWRITTEN]


def test_fresh_reads_may_not_go_back():
    assert problems("0-10 set 1", "20-90 set 2", "30-40 fresh 2", "41-50 fresh 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-90 set 2", "30-42 fresh 2", "41-50 fresh 1") == []
    lines = ("0-9 set 1", "0-9 set 2", "10-11 fresh 1", "12-13 fresh 2", "14-15 fresh 1")
    assert "an overwritten value was read" in problems(*lines, "16-17 fresh 2")


def test_a_read_sees_what_its_own_process_wrote_before():
    assert problems("0-10 set 1", "20-30 set 2", "40-41 read 1") == []
    assert problems("0-10 set 1", "20-30 set 2", "40-41 read 1 after 30") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-30 remove", "40-41 read 1 after 30") == [OVERWRITTEN]


def test_a_write_that_raised_may_be_executed_at_any_later_time_or_never():
    assert problems("0-10 set 1", "20- set 2", "900-901 fresh 1") == []
    assert problems("0-10 set 1", "20- set 2", "800-801 fresh 1", "900-901 fresh 2") == []
    assert problems("0-10 set 1", "20- set 2", "800-801 fresh 2", "900-901 fresh 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20- remove", "900-901 fresh 1", "902-903 fresh") == []


def test_a_key_may_be_absent_only_if_a_removal_can_have_come_last():
    assert problems("0-1 fresh", "5-10 set 1", "109-111 read") == []
    assert problems("5-10 set 1", "111-112 read") == [WRITTEN]
    assert problems("5-10 set 1", "11-12 fresh") == [WRITTEN]
    assert problems("5-10 set 1", "20-30 remove", "200-201 read") == []
    assert problems("5-10 set 1", "20- remove", "200-201 read") == []
    assert problems("5-10 set 1", "20-30 remove", "31-32 set 2", "200-201 read") == [WRITTEN]
    assert problems("5-10 set 1", "200-201 remove", "150-151 read") == [WRITTEN]
    assert problems("5-10 set 1", "150-151 read", "200-201 fresh 1") == [OVERWRITTEN, WRITTEN]


def test_a_value_that_nothing_wrote_is_wrong():
    assert problems("0-1 read 1") == ["a value was read that was never written"]
    assert problems("0-1 read 1", "2-3 set 1") == ["a value was read before it was written"]


def test_a_value_ends_at_its_deadline():
    assert problems("0-10 set 1", "1100-1101 read 1", key=EXPIRING_KEY) == []
    assert problems("0-10 set 1", "1111-1112 read 1", key=EXPIRING_KEY) == ["a value was read after its deadline"]
    assert problems("0-10 set 1", "500-501 read", key=EXPIRING_KEY) == []


def test_a_computed_value_counts_only_if_another_call_read_it():
    # The second caller joined the computation, whose result was not stored.
    assert problems("0-10 set 1", "20-40 load 2", "25-40 get_with 2", "500-501 fresh 1") == []
    assert problems("0-10 set 1", "20-40 load 2", "50-51 fresh 2", "500-501 fresh 1") == [OVERWRITTEN]
    assert problems("0-10 set 1", "20-40 load 2", "30-35 fresh 2 by 2", "500-501 fresh 1") == [OVERWRITTEN]


def test_a_computed_value_may_not_be_stored_over_a_later_write():
    stored = "a computed value was stored over a later write"
    assert problems("20-40 load 2", "30-35 remove", "46-47 fresh 2") == [stored]
    assert problems("20-40 load 2", "30-35 set 3", "136-137 read 2 by 2") == [stored]
    assert problems("20-40 load 2", "30-35 remove", "34-37 fresh 2 by 2") == []
    assert problems("20-40 load 2", "30- remove", "50-51 fresh 2") == []
    assert problems("20-40 load 2", "10-21 remove", "50-51 fresh 2") == []


def test_a_removal_of_all_keys_counts_for_each():
    record = history.Record(history.RESET, history.RESET_ALL, 0, milliseconds(20), milliseconds(30), 0, 0)
    write = history.Record(history.SET, KEY, 7, 0, milliseconds(10), 0, 1)
    read = history.Record(history.FRESH_READ, KEY, 7, milliseconds(31), milliseconds(32), 0, 1)
    found, worst = check([record, write, read], milliseconds(BOUND_MS), {})
    assert [what for what, _ in found] == [OVERWRITTEN]
    assert worst == milliseconds(1)


def test_a_log_keeps_the_first_and_the_last_of_equal_reads():
    log = history.Log(1)
    for begin in range(10):
        log.add_read(history.READ, KEY, 5, begin, begin + 1, 0)
    log.add_read(history.READ, KEY, 6, 20, 21, 0)
    log.add_read(history.READ, KEY, 6, 22, 23, 22)
    reads = [(each.value, each.begin, each.floor) for each in history.records(log.take())]
    assert reads == [(5, 0, 0), (5, 9, 0), (6, 20, 0), (6, 22, 22)]
    assert log.reads == 12 and len(log.take()) == 0


def run_check(server_program, client_package, *arguments):
    command = [sys.executable, "-P", STRESS, "--program", server_program, "--package", client_package.__name__]
    if PROTOCOL_VARIABLE in os.environ:
        command += ["--protocol", os.environ[PROTOCOL_VARIABLE]]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=110)


def test_no_read_is_older_than_its_bound(server_program, client_package):
    done = run_check(server_program, client_package, "--minutes", "0.1", "--round-seconds", "10")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds_the_bug_of_each_buggy_cache(server_program, client_package, bug):
    faults = "direction_held,direction_delayed,databases_flushed"
    arguments = ("--bug", bug, "--faults", faults, "--round-seconds", "5", "--minutes", "1", "--no-asyncio")
    done = run_check(server_program, client_package, *arguments)
    assert done.returncode == 1 and "problems; the round repeats with" in done.stdout, done.stdout + done.stderr
