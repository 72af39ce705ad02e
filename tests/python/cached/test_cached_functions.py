"""`cached_functions`: a list of the live cached functions, of all modules or of one package."""

import functools
import re
import subprocess
import sys
import textwrap
import threading
import types
import weakref

import pytest
from helpers import ROOT, collect, count_alive, run_threads

from moka_py import CachedFunction, cached, cached_functions


def make(module, name="function"):
    """Return a cached function of a module of that name."""

    def function(x):
        return (name, x)

    function.__module__ = module
    return cached(maxsize=10)(function)


def test_list_has_the_functions_of_all_modules_in_the_order_of_their_making():
    made = [make("first"), make("second"), make("first.inner")]
    found = cached_functions()
    assert [function for function in found if function in made] == made
    assert all(isinstance(function, CachedFunction) for function in found)
    assert cached_functions(None) == found and cached_functions() is not found


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("shop", ["shop", "shop.cart", "shop.cart.items"]),
        ("shop.cart", ["shop.cart", "shop.cart.items"]),
        ("shop.cart.items", ["shop.cart.items"]),
        ("shopping", ["shopping"]),
        ("sho", []),
        ("cart", []),
        ("shop.", []),
        ("", []),
        ("shop.cart.items.more", []),
    ],
)
def test_functions_of_a_package_are_those_of_its_module_and_of_all_inside_it(package, expected):
    made = [make(module) for module in ("shop", "shop.cart", "shopping", "shop.cart.items", "workshop.shop")]
    assert [function.__module__ for function in cached_functions(package)] == expected
    assert len(made) == 5


def test_each_kind_of_cached_function_is_listed():
    @cached
    def plain():
        pass

    @cached
    async def later():
        pass

    class Thing:
        @cached(weak_self=True)
        def method(self):
            pass

        @staticmethod
        @cached(wait_concurrent=True)
        def static():
            pass

    found = cached_functions(__name__)
    assert [function in found for function in (plain, later, Thing.method, Thing.static)] == [True] * 4
    length, of_partial = cached(len), cached(functools.partial(int, "1"))
    assert length in cached_functions("builtins") and of_partial in cached_functions("functools")


def test_function_without_a_module_is_in_no_package():
    function = make("shop.nothing")
    function.__module__ = None
    assert function in cached_functions() and function not in cached_functions("shop")


def test_functions_are_held_weakly():
    functions = [make("weak.module") for _ in range(10)]
    alive = [weakref.ref(function) for function in functions]
    assert cached_functions("weak") == functions
    del functions[5:]
    collect()
    assert cached_functions("weak") == functions and count_alive(alive) == 5
    functions.clear()
    collect()
    assert cached_functions("weak") == [] and count_alive(alive) == 0


def test_functions_in_cycles_are_held_weakly():
    for _ in range(10):
        function = make("cyclic")
        function.itself = function
    del function
    collect()
    assert cached_functions("cyclic") == []


@pytest.mark.parametrize("package", [1, b"shop", ["shop"], types.ModuleType("shop")], ids=lambda it: type(it).__name__)
def test_package_of_a_wrong_type_is_refused(package):
    text = f"package must be a str or None, got {type(package).__name__}"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        cached_functions(package)


def test_function_is_listed_when_it_is_complete():
    ended, seen = threading.Event(), []

    def produce():
        kept = [make("complete") for _ in range(300)]
        ended.set()
        return kept

    def clear():
        while not ended.is_set():
            for function in cached_functions("complete"):
                function.cache_clear()
                seen.append(function.__name__)

    run_threads(produce, clear)
    assert set(seen) <= {"function"}


def test_threads_can_list_functions_while_others_make_and_drop_them():
    stays = make("busy.stays")

    def make_and_drop():
        for _ in range(300):
            kept = make("busy.goes")
            kept.itself = kept if _ % 3 == 0 else None
            assert kept in cached_functions("busy")

    def watch():
        for _ in range(300):
            found = cached_functions("busy")
            assert stays in found and found.count(stays) == 1

    run_threads(make_and_drop, make_and_drop, watch)
    collect()
    assert cached_functions("busy") == [stays]


def test_fixture_of_the_documentation_clears_the_functions_of_a_package(tmp_path):
    page = (ROOT / "ci/site/operating.md").read_text(encoding="utf-8")
    (fixture,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "pytest.fixture" in block and "cached_functions" in block
    ]
    (tmp_path / "conftest.py").write_text(fixture)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    function = "from moka_py import cached\nruns = []\n@cached\ndef look(x):\n    runs.append(x)\n"
    (tmp_path / "shop/prices.py").write_text(function)
    (tmp_path / "other.py").write_text(function)
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import other, pytest, shop.prices

        @pytest.mark.parametrize("number", [1, 2, 3])
        def test_it(number):
            shop.prices.look(0), other.look(0)
            assert (len(shop.prices.runs), len(other.runs)) == (number, 1)
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
