"""Runs `stress/torture/leaks.py` for some thousands of operations."""

import os

from helpers import ROOT, run_script

LEAKS = ROOT / "stress" / "torture" / "leaks.py"


def test_thousands_of_operations_leak_no_object():
    script = f"""
        import runpy, sys
        sys.argv = ["leaks.py", "--operations", "30_000"]
        runpy.run_path({os.fspath(LEAKS)!r}, run_name="__main__")
    """
    assert " 0 alive" in run_script(script, timeout=120)
