"""Imports of the package: in many threads, again, in a subinterpreter, and without its extension module."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_script

import moka_py


def test_many_threads_can_import_the_package_at_once():
    run_script(
        """
import sys, threading
sys.setswitchinterval(1e-6)
barrier, made = threading.Barrier(8), []
def work():
    barrier.wait(50)
    import moka_py
    from moka_py import Moka, cached
    cache = Moka(10)
    cache.set("a", 1)
    assert cache.get("a") == cached()(abs)(-1) == 1
    made.append((moka_py, Moka))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(made) == 8 and len(set(made)) == 1
"""
    )


def test_import_loads_only_the_modules_it_needs():
    run_script("""
import sys
import typing  # It imports `re` before CPython 3.13.
light = set(sys.modules)
import moka_py
heavy = {"asyncio", "dataclasses", "inspect", "logging", "re", "threading"}
imported = heavy & set(sys.modules) - light
assert not imported, imported
assert moka_py.cached(str)(1) == "1"
assert "asyncio" not in sys.modules
""")


def test_second_import_does_not_disturb_threads_that_use_the_first():
    run_script(
        """
import importlib, sys, threading
import moka_py
cache, ended = moka_py.Moka(50), []
def work():
    number = 0
    while not ended:
        number += 1
        cache.set(number % 70, [number]); cache.get(number % 70); cache.get_with(number % 90, list); cache.stats()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(20):
    for name in [name for name in sys.modules if name.startswith("moka_py")]:
        del sys.modules[name]
    import moka_py
    importlib.reload(moka_py)
    other = moka_py.Moka(5)
    other.set((1, 2), 3)
    assert other.get((1, 2)) == 3 and other.stats().inserts == 1
ended.append(True)
for thread in threads: thread.join()
assert len(cache) == len(list(cache)) <= 50
"""
    )


@pytest.mark.parametrize("config", ["legacy", "isolated"])
@pytest.mark.parametrize("first", ["import moka_py", ""])
def test_import_in_a_subinterpreter_raises_import_error(config, first):
    out = run_script(
        f"""
try:
    import _interpreters
except ImportError:
    print("ImportError: there are none here")
    raise SystemExit
{first}
other = _interpreters.create({config!r})
failed = _interpreters.run_string(other, '''
try:
    import moka_py
except ImportError as error:
    import os
    assert str(error), "it says why"
    os.write(1, f"ImportError: {{error}}\\\\n".encode())
''')
assert failed is None, failed
_interpreters.destroy(other)
try:
    import moka_py
except ImportError as error:
    assert {first!r} == "" and "the first that imports it" in str(error)
    print(f"ImportError: {{error}}")
    raise SystemExit
cache = moka_py.Moka(1)
cache.set(1, 2)
assert cache.get(1) == 2
"""
    )
    assert out.startswith("ImportError: ")


def test_collector_of_a_subinterpreter_does_not_visit_the_classes():
    # It would leave marks on the classes, which the collector of their own interpreter would take for its own. A debug
    # build of CPython 3.13t aborted at the end of such a program.
    run_script(
        """
try:
    import _interpreters
except ImportError:
    raise SystemExit
import moka_py, sys
other = _interpreters.create("legacy")
failed = _interpreters.run_string(other, f'''
import importlib.machinery, importlib.util
spec = importlib.machinery.PathFinder.find_spec("moka_py._moka_py", {moka_py.__path__!r})
module = importlib.util.module_from_spec(spec)
try:
    spec.loader.exec_module(module)
except ImportError:
    pass
else:
    raise AssertionError("it serves one interpreter")
classes = [name for name, kept in vars(module).items() if isinstance(kept, type)]
assert not classes, classes
''')
assert failed is None, failed
_interpreters.destroy(other)
"""
    )


def test_second_import_keeps_the_same_class():
    run_script(
        """
import importlib, sys
import moka_py
first = moka_py.Moka
for name in [name for name in sys.modules if name.startswith("moka_py")]:
    del sys.modules[name]
import moka_py
importlib.reload(moka_py)
for kind in (first, moka_py.Moka):
    cache = kind(10)
    cache.set((1, 2), "by way of __eq__")
    assert cache.get((1, 2)) == "by way of __eq__" and cache.get(key="absent", default=1) == 1
    assert list(cache.items()) == [((1, 2), "by way of __eq__")]
"""
    )


def test_import_error_explains_a_missing_extension_module(tmp_path):
    package = Path(moka_py.__file__).parent
    (tmp_path / "moka_py").mkdir()
    for file in package.glob("*.py"):
        shutil.copy(file, tmp_path / "moka_py")
    command = [sys.executable, "-c", "import sys; sys.path[0:0] = ['']; import moka_py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {tmp_path / 'moka_py'} has no extension module for this interpreter")
    assert last.endswith("run Python in another folder or with -P")
