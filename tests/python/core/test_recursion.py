"""Endless recursion through the cache ends in a RecursionError, and the cache is usable afterwards."""

import pytest
from helpers import DEBUG_BUILD, run_script

BEGIN = """
import sys
from moka_py import Moka, cached
cache = Moka(100_000)
class Compared:
    hash = 1
    def __hash__(self): return self.hash
    def __eq__(self, other): return self.act()
def no_error_but_this(call, error=RecursionError):
    try:
        call()
    except error:
        return
    raise AssertionError("no error")
def check(cache=cache):
    cache.set("after", 1)
    assert cache.get("after") == 1 and cache.get_with("more", int) == 0
    assert len(cache) == len(list(cache)) == cache.weighted_size()
"""

CALLS = {
    "eq of get": "cache.get(Compared())",
    "eq of set": "cache.set(Compared(), 1)",
    "eq of remove": "cache.remove(Compared())",
    "eq of setdefault": "cache.setdefault(Compared(), 1)",
    "eq of get_with": "cache.get_with(Compared(), int)",
    "eq of in": "Compared() in cache",
    "eq of get_many": "cache.get_many([Compared()])",
    "eq of a cached function": "function(Compared())",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_endless_recursion_through_eq_raises_recursion_error(call):
    run_script(
        BEGIN
        + f"""
function = cached()(lambda x: x)
cache.set(Compared(), 1)
function(Compared())
Compared.act = lambda self: {call}
no_error_but_this(lambda: {call})
Compared.act = lambda self: False
{call}
check()
"""
    )


def test_endless_recursion_through_hash_raises_recursion_error():
    run_script(
        BEGIN
        + """
class Hashed:
    def __hash__(self): return cache.get(Hashed(), 1)
no_error_but_this(lambda: cache.get(Hashed()))
check()
"""
    )


CALLBACKS = {
    "weigher": "own = Moka(9, weigher=lambda *_: (deep and own.set(1, 1)) or 1); call = lambda: own.set(1, 1)",
    "predicate": "own = Moka(9); own.set(1, 1); p = lambda *_: own.remove_if(p); call = lambda: own.remove_if(p)",
    "initializer": "own = Moka(9); f = lambda n: own.get_with(n, lambda: f(n + 1)); call = lambda: f(0)",
    "cached function": "f = cached()(lambda n: f(n + 1)); own = f.cache; call = lambda: f(0)",
    "shared function": "f = cached(wait_concurrent=True)(lambda n: f(n + 1)); own = f.cache; call = lambda: f(0)",
    "keys": "own = Moka(9); g = lambda: (own.get_many(g()) for _ in '1'); call = lambda: own.get_many(g())",
}


@pytest.mark.parametrize("callback", CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize("limit", [1_000, 1_000_000])
def test_endless_recursion_through_a_callback_raises_recursion_error(callback, limit):
    """With a high recursion limit of the interpreter, the limit of its C stack applies."""
    run_script(
        BEGIN
        + f"""
sys.setrecursionlimit({limit})
deep = True
{callback}
no_error_but_this(call)
deep = False
check(own)
"""
    )


SMALL_STACKS = {
    "get_with": "cache = Moka(9); f = lambda n: cache.get_with(n, lambda: f(n + 1))",
    "cached": "f = cached()(lambda n: f(n + 1))",
    "cached of two arguments": "f = cached()(lambda n, k=None: f(n + 1, 2))",
    "shared": "f = cached(wait_concurrent=True)(lambda n: f(n + 1))",
    "coroutine": """
@cached
async def later(n):
    return await later(n + 1)
f = lambda n: later(n).send(None)
""",
    "weigher": "own = Moka(9, weigher=lambda *_: f(0)); f = lambda n: own.set(1, 1)",
    "predicate": "own = Moka(9); own.set(1, 1); f = lambda *_: own.remove_if(f)",
}


@pytest.mark.parametrize("kind", SMALL_STACKS.values(), ids=SMALL_STACKS)
@pytest.mark.parametrize("kilobytes", [512, 2048])
def test_endless_recursion_in_a_thread_with_a_small_stack_raises(kind, kilobytes):
    run_script(
        f"""
import sys, threading
from moka_py import Moka, cached
sys.setrecursionlimit(1_000_000)
{kind}
raised = []
def run():
    for _ in range(2):
        try:
            f(0)
        except RecursionError as error:
            raised.append(error)
threading.stack_size({kilobytes} << 10)
thread = threading.Thread(target=run)
thread.start()
thread.join()
assert len(raised) == 2
"""
    )


@pytest.mark.parametrize("what", ["listener", "end of a value"])
def test_recursion_error_of_a_callback_without_a_caller_goes_to_the_hook(what):
    run_script(
        BEGIN
        + f"""
deep = True
sys.unraisablehook = lambda report: None
class Ends:
    def __del__(self): deep and cache.set(1, Ends())
if {what!r} == "listener":
    own = Moka(10, eviction_listener=lambda key, value, cause: deep and own.set(key, value))
    own.set(1, 1), own.set(1, 2)
    deep = False
    check(own)
else:
    cache.set(1, Ends()), cache.set(1, 1)
    deep = False
check()
"""
    )


@pytest.mark.skipif(DEBUG_BUILD, reason="a debug build allows fewer nested C calls than the shallow case needs")
def test_nested_computations_ten_thousand_deep_raise_or_succeed():
    """If the C stack is too small, the failed computations leave nothing behind, and shallower ones work."""
    run_script(
        BEGIN
        + """
sys.setrecursionlimit(1_000_000)
def ask(number, last):
    return cache.get_with(number, lambda: ask(number + 1, last) if number < last else "end")
try:
    assert ask(0, 10_000) == "end"
except RecursionError:
    assert len(cache) == 0
assert ask(0, 150) == "end" and len(cache) == 151
check()
"""
    )


@pytest.mark.parametrize("kind", ["(inner,)", "frozenset([inner])"])
def test_keys_nested_a_hundred_thousand_deep_raise_or_succeed(kind):
    run_script(
        BEGIN
        + f"""
def nested():
    inner = ()
    for _ in range(100_000):
        inner = {kind}
    return inner
function = cached()(lambda x: 1)
for call in (lambda: cache.get(nested()), lambda: function(nested())):
    for _ in range(2):
        try:
            call()
            cache.set(nested(), 1)
        except RecursionError:
            pass
cache.clear()
check()
"""
    )


@pytest.mark.parametrize("between", ["function", "partial(function)"])
def test_cached_function_over_another_forty_thousand_deep_is_freed(between):
    run_script(
        f"""
from functools import partial
from moka_py import cached
function = partial(int)
for _ in range(40_000):
    function = cached({between})
del function
"""
    )


# Each expression makes a key that equals the previous one and is another object.
BUILTIN_KEYS = {
    "int": "int('9' * 30)",
    "negative int": "-int('9' * 30)",
    "tuple": "(int('9' * 30), 'x')",
    "tuple in a tuple": "((int('9' * 30),), 'x')",
    "int and float": "(int(2**70), float(2**70))[next(turn) % 2]",
    "int and float in a tuple": "((int(2**70), float(2**70))[next(turn) % 2],)",
}

CALLS_WITH_A_BUILTIN_KEY = {
    "set": "cache.set(key(), 1)",
    "setitem": "cache[key()] = 1",
    "get": "cache.get(key())",
    "remove": "cache.remove(key()); cache.set(key(), 1)",
    "get_with": "cache.get_with(key(), int)",
    "get_with after remove": "cache.remove(key()); cache.get_with(key(), int)",
    "setdefault": "cache.setdefault(key(), 1)",
    "update": "cache.update([(key(), 1)])",
    "cached function": "function(key())",
    "cached function of two": "function(key(), key())",
    "cached function with a keyword": "function(key(), y=key())",
    "shared function": "shared(key())",
    "shared function of two": "shared(key(), key())",
    "method without its instance": "weak.look(key())",
}


@pytest.mark.parametrize("key", BUILTIN_KEYS.values(), ids=BUILTIN_KEYS)
def test_key_at_the_recursion_limit_is_stored_once(key):
    """The interpreter compares ints by a call that fails at the limit. A failure must not mean "not equal"."""
    run_script(
        BEGIN
        + f"""
import itertools
turn = itertools.count()
sys.setrecursionlimit(1_000_000)
key = lambda: {key}
function = cached()(lambda x, y=0: 1)
shared = cached(wait_concurrent=True)(lambda x, y=0: 1)
class Weak:
    @cached(weak_self=True)
    def look(self, x): return 1
weak = Weak()
def deep(call):
    call()
    return [*map(deep, (call,))]
def deep_by_pairs(call):
    call()
    return max((1, 2), key=lambda _: deep_by_pairs(call))
def deep_by_cache(call):
    call()
    return own.get_with(next(turn) + 0.5, lambda: deep_by_cache(call))
for code in {list(CALLS_WITH_A_BUILTIN_KEY.values())!r}:
    own = Moka(100_000)
    exec("def call(): " + code)
    for dive in deep, deep_by_pairs, deep_by_cache:
        call()
        no_error_but_this(lambda: dive(call))
        for each in cache, function.cache, shared.cache, Weak.look.cache:
            kept = list(each)
            assert len(each) == len(kept) == each.weighted_size() == len(set(kept)), (code, dive, kept)
        call()
check()
"""
    )
