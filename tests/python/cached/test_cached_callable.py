"""The callable that `cached` returns: how it treats arguments, and how it behaves as an object."""

import copy
import functools
import gc
import inspect
import itertools
import pickle
import random
import sys
import sysconfig
import weakref

import pytest
from cached_helpers import both_wait_modes
from helpers import BackgroundCollector, Key, Value, collect, run_script, run_threads

from moka_py import cached


class Failure(Exception):
    pass


@cached
def documented(first: int, second: str = "x", *, third: float = 1.0) -> tuple[int, str]:
    """What it is for."""
    return first, second


# Arguments that are equal but of different types, unequal but of equal hash, long and short.
VALUES = [
    0,
    1,
    1.0,
    True,
    -1,
    -2,
    2**61 - 1,
    2**70,
    "a",
    "b",
    "é",
    b"a",
    None,
    (),
    (1,),
    (1.0,),
    ("a", 1),
    Key("k", 1),
    Key("l", 1),
    frozenset({1}),
    int,
]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_every_call_hits_or_misses_as_in_lru_cache(seed, typed):
    dice = random.Random(seed)

    def function(*args, **kwargs):
        return object()

    size = dice.choice([None, 1, 5, 40])
    theirs = functools.lru_cache(size, typed)(function)
    ours = cached(size, typed, policy="lru")(function)
    for _ in range(3000):
        args = dice.choices(VALUES, k=dice.choice([0, 1, 1, 2, 2, 3, 9]))
        names = dice.sample(["p", "q", "r"], dice.choice([0, 0, 0, 1, 2]))
        kwargs = {name: dice.choice(VALUES) for name in names}
        theirs(*args, **kwargs)
        kept = ours.cache_contains(*args, **kwargs)
        hits = ours.cache_info().hits
        ours(*args, **kwargs)
        assert (ours.cache_info().hits == hits + 1) == kept, seed
        assert ours.cache_info() == theirs.cache_info(), (seed, args, kwargs)


@both_wait_modes
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        (("s",), {}),
        ((1.5,), {}),
        ((1, 2), {}),
        ((1,), {"k": 2}),
        (tuple(range(20)), {"a": 1, "b": 2}),
    ],
    ids=str,
)
def test_function_gets_the_arguments_and_its_result_is_returned_unchanged(args, kwargs, wait):
    results = []

    @cached(wait_concurrent=wait)
    def function(*args, **kwargs):
        results.append((args, kwargs))
        return results[-1]

    first = function(*args, **kwargs)
    assert first == (args, kwargs)
    assert function(*args, **kwargs) is first
    assert len(results) == 1
    assert function.cache_invalidate(*args, **kwargs) is True
    assert function.cache_invalidate(*args, **kwargs) is False
    assert function(*args, **kwargs) is not first


def test_hit_leaves_reference_counts_balanced():
    argument, other = Value(), Value()

    @cached
    def function(*args, **kwargs):
        return Value()

    calls = [
        lambda: function(argument),
        lambda: function(argument, other),
        lambda: function(argument, k=other),
        lambda: function.cache_contains(argument, k=other),
    ]
    for call in calls:
        call()
    before = sys.getrefcount(argument), sys.getrefcount(other)
    for call, _ in itertools.product(calls, range(1000)):
        call()
    assert (sys.getrefcount(argument), sys.getrefcount(other)) == before
    references = [weakref.ref(function(argument)), weakref.ref(function(argument, other))]
    function.cache_clear()
    function.cache.run_pending_tasks()
    assert not any(reference() for reference in references)
    assert sys.getrefcount(argument) < before[0]


def test_each_argument_is_hashed_once_per_call():
    class Counting:
        hashed = 0

        def __hash__(self):
            Counting.hashed += 1
            return 7

        def __eq__(self, other):
            return isinstance(other, Counting)

    for wait in (False, True):
        function = cached(wait_concurrent=wait)(lambda *args, **kwargs: 1)
        for call in (lambda: function(Counting()), lambda: function(1, k=Counting()), lambda: function(Counting(), 2)):
            for _ in range(3):
                Counting.hashed = 0
                call()
                assert Counting.hashed == 1


@both_wait_modes
def test_errors_of_arguments_are_raised_and_nothing_is_kept(wait):
    class Bad:
        def __init__(self, fails):
            self.fails = fails

        def __hash__(self):
            if self.fails == "hash":
                raise Failure
            return 3

        def __eq__(self, other):
            if "eq" in (self.fails, getattr(other, "fails", None)):
                raise Failure
            return True

    calls = []
    function = cached(wait_concurrent=wait)(lambda *args, **kwargs: calls.append(args))
    for args, kwargs in [
        ((Bad("hash"),), {}),
        ((1, Bad("hash")), {}),
        ((1,), {"k": Bad("hash")}),
        (([],), {}),
        ((1, {}), {}),
    ]:
        with pytest.raises((Failure, TypeError)) as caught:
            function(*args, **kwargs)
            assert caught.value.__context__ is None
    assert calls == [] and function.cache_info()[:2] == (0, 0)
    function(Bad(None))
    with pytest.raises(Failure) as caught:
        function(Bad("eq"))
    assert caught.value.__context__ is None
    assert len(calls) == 1 and function.cache_info().currsize == 1


@both_wait_modes
def test_exception_is_not_kept_and_has_no_context(wait):
    calls = []

    @cached(wait_concurrent=wait)
    def function(x, y=0):
        calls.append(x)
        raise Failure(x)

    for _ in range(3):
        with pytest.raises(Failure) as caught:
            function(1, y=2)
        assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert calls == [1, 1, 1]
    assert function.cache_info().currsize == 0


def test_key_function_makes_the_key():
    calls = []

    @cached(key=lambda text, *rest, **named: text.lower())
    def function(text, *rest, **named):
        calls.append(text)
        return text

    assert function("A") == "A" and function("a", 1, more=2) == "A" and calls == ["A"]
    assert function.cache_contains("a", 5) and list(function.cache) == ["a"]
    assert function.cache_invalidate("A") and function("a") == "a"
    for bad in (lambda text: [], lambda text: 1 / 0):
        with pytest.raises((TypeError, ZeroDivisionError)):
            cached(key=bad)(function)("x")
    with pytest.raises(TypeError, match="key must be callable or None, got int"):
        cached(key=1)


def test_cached_function_behaves_as_a_function_object():
    assert documented.__name__ == "documented" and documented.__doc__ == "What it is for."
    assert documented.__module__ == __name__ and documented.__wrapped__ is not documented
    assert documented.__annotations__ == documented.__wrapped__.__annotations__
    assert inspect.signature(documented) == inspect.signature(documented.__wrapped__)
    assert callable(documented) and not inspect.iscoroutinefunction(documented)
    assert copy.copy(documented) is copy.deepcopy(documented) is documented
    assert pickle.loads(pickle.dumps(documented)) is documented
    assert weakref.ref(documented)() is documented
    documented.mark = 5
    assert documented.mark == 5 and documented.__dict__["mark"] == 5
    del documented.mark
    with pytest.raises(AttributeError):
        _ = documented.mark
    assert "documented" in repr(documented)
    with pytest.raises(TypeError):
        type(documented)()


def test_methods_of_all_kinds_can_be_cached():
    class Thing:
        calls = 0

        @cached
        def method(self, x):
            Thing.calls += 1
            return self, x

        @staticmethod
        @cached
        def static(x):
            return x

        @classmethod
        @cached
        def of_class(cls, x):
            return cls, x

    one, other = Thing(), Thing()
    assert one.method(1) == (one, 1) and one.method(1) == (one, 1) and other.method(1) == (other, 1)
    assert Thing.calls == 2 and Thing.method(one, 1) == (one, 1) and Thing.calls == 2
    bound = one.method
    assert bound.__self__ is one and bound(1) == (one, 1) and bound.cache_info().hits == 3
    assert Thing.static(3) == one.static(3) == 3 and Thing.of_class(4) == one.of_class(4) == (Thing, 4)
    assert Thing.method.cache_contains(one, 1) and Thing.method.cache_invalidate(other, 1)


@pytest.mark.parametrize(
    "function", [len, functools.partial(max, 5), int, str.upper, lambda x: x], ids=lambda it: type(it).__name__
)
def test_any_callable_can_be_cached(function):
    wrapped = cached(function)
    argument = "7" if function in (len, int, str.upper) else 7
    assert wrapped(argument) == wrapped(argument) == function(argument)
    assert wrapped.cache_info()[:2] == (1, 1)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 defers these reference counts itself")
def test_module_level_function_is_immortal_on_free_threaded_3_13():
    @cached
    def nested():
        pass

    is_counted = not sysconfig.get_config_var("Py_GIL_DISABLED")
    for function, expected in ((documented, is_counted), (nested, True), (cached(len), True)):
        before = sys.getrefcount(function)
        more = [function] * 10
        assert (sys.getrefcount(function) == before + len(more)) is expected


def test_clear_releases_the_results_of_a_module_level_function():
    value = weakref.ref(kept := Value())
    assert documented(kept)[0] is kept
    del kept
    documented.cache_clear()
    gc.collect()
    assert value() is None


def test_cycles_through_a_cached_function_are_collected():
    references = []

    def make(kind):
        @cached
        def function(x):
            return function, x

        references.append(weakref.ref(function))
        if kind == "value":
            function(function)
        elif kind == "attribute":
            function.me = [function]
        elif kind == "method":
            function.cache.set("info", function.cache_info)

    for kind in ("closure", "value", "attribute", "method"):
        make(kind)
    collect()
    assert [reference() for reference in references] == [None] * 4


def test_recursion_reaches_the_depth_of_lru_cache():
    out = run_script(
        """
        import functools, sys
        from moka_py import cached

        def deepest(decorator):
            @decorator
            def down(number):
                reached[0] = max(reached[0], number)
                return down(number + 1)

            reached = [0]
            try:
                down(0)
            except RecursionError:
                pass
            return reached[0]

        for limit in (1000, 50_000):
            sys.setrecursionlimit(limit)
            decorators = functools.lru_cache(None), cached(None), cached(None, wait_concurrent=True)
            print(*map(deepest, decorators))
        """
    )
    for line in out.splitlines():
        theirs, ours, shared = map(int, line.split())
        # A shared call counts as several calls. Its frames take twice the C stack, and even more in a wheel for tests,
        # which is not optimized across crates.
        assert ours >= theirs * 0.95 and shared > theirs * 0.3, out


def test_cached_function_works_until_the_end_of_the_interpreter():
    out = run_script(
        """
        import builtins
        from moka_py import cached

        alone = cached(lambda *args, **kwargs: args)
        shared = cached(wait_concurrent=True)(lambda *args, **kwargs: args)
        keyed = cached(key=lambda *args, **kwargs: (args, *kwargs))(lambda *args, **kwargs: args)
        weighed = cached(weigher=lambda key, value: 1)(lambda *args, **kwargs: args)

        class Late:
            def __del__(self, functions=(alone, shared, keyed, weighed), print=print, TypeError=TypeError):
                for function in functions:
                    calls = 0
                    for _ in range(2):
                        calls += (function(1), function(2.5), function(1, 2), function(1, k=2)).count((1,))
                    try:
                        function([])
                    except TypeError:
                        calls += 1
                    print(calls, function.cache_info()[:2], function.cache_contains(1, 2))

        # Among the last that go.
        builtins.late = Late()
        """
    )
    assert out.splitlines() == ["5 (4, 4) True"] * 4


def test_threads_can_call_clear_and_read_counts_concurrently(fast_switches):
    @cached(maxsize=50)
    def function(x, *rest, **named):
        return [x]

    def work(thread):
        dice = random.Random(thread)
        for number in range(4000):
            x = dice.randrange(80)
            match dice.randrange(12):
                case 0:
                    function.cache_invalidate(x)
                case 1:
                    function.cache_contains(x, 1)
                case 2 if number % 40 == 0:
                    function.cache_clear()
                case 3:
                    assert function(Key(x, x % 7)) == [Key(x, 0)]
                case 4:
                    assert function(x, k=number % 5) == [x]
                case 5:
                    assert function(x, 1.5) == [x]
                case _:
                    assert function(x) == [x]
            if number % 100 == 0:
                collector.step()

    with BackgroundCollector() as collector:
        run_threads(*(lambda thread=thread: work(thread) for thread in range(4)))
    info = function.cache_info()
    assert info.currsize <= 50 and info.currsize == len(function.cache)


def test_clear_during_a_run_keeps_its_result_out():
    @cached
    def function(x):
        function.cache_clear()
        return x

    assert function(1) == 1
    assert not function.cache_contains(1) and function.cache_info() == (0, 0, 128, 0)


def test_counts_of_cached_calls_by_threads_add_up():
    function = cached(maxsize=None)(lambda x: x)
    run_threads(*(lambda: [function(number % 10) for number in range(5000)] for _ in range(4)))
    info = function.cache_info()
    assert info.hits + info.misses == 20_000 and 10 <= info.misses <= 40
    gc.collect()
