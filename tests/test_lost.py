"""Nothing is lost: what `stress/lost.py` counts over millions of operations, over some thousands."""

import os
from pathlib import Path

from helpers import run_script

LOST = Path(__file__).parents[1] / "stress" / "lost.py"


def test_thousands_of_operations_lose_no_object():
    script = f"""
        import runpy, sys
        sys.argv = ["lost.py", "--operations", "30_000"]
        runpy.run_path({os.fspath(LOST)!r}, run_name="__main__")
    """
    assert " 0 alive" in run_script(script, timeout=120)
