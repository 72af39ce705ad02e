"""Runs all benchmarks on this interpreter, or those of `--only`, each in its own process."""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("single_thread", "cached", "threads", "tail", "memory", "start_up", "growth", "near", "integrations")


def run(part, arguments):
    """Returns the result of a part, or `None` if it failed or hung. The other parts still run."""
    # Peers must not turn the GIL on.
    flags = ["-X", "gil=0"] if sysconfig.get_config_var("Py_GIL_DISABLED") else []
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, *flags, str(HERE / f"{part}.py"), "--json", file.name, *arguments]
        try:
            subprocess.run(command, check=True, timeout=900)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{part}: {error}", file=sys.stderr)
            return None
        return json.loads(Path(file.name).read_text())


def main():
    parser = argparse.ArgumentParser(prog="stress/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="run only this part; may be given several times")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file as well")
    options, others = parser.parse_known_args()
    gathered, failed = None, []
    for part in options.only or PARTS:
        result = run(part, others)
        if result is None:
            failed.append(part)
        elif gathered is None:
            gathered = result
        else:
            gathered["rows"] += result["rows"]
    if options.json and gathered:
        Path(options.json).write_text(json.dumps(gathered, indent=1) + "\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
