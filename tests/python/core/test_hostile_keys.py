"""Keys that raise or return nonsense: the caller gets the user's error, and the cache is unchanged (law 10)."""

import time

import pytest
from helpers import (
    CALLS_WITH_KEY,
    IMMEDIATELY_DUE,
    MAINTENANCE_DELAY,
    MISSING,
    CallbackKey,
    Events,
    Key,
    contents,
    observable_state,
)

from moka_py import Moka

every_call = pytest.mark.parametrize("call", CALLS_WITH_KEY.values(), ids=CALLS_WITH_KEY)


class Unusual(BaseException):
    pass


ERRORS = [
    ZeroDivisionError("mine"),
    KeyError("a"),
    AttributeError("x"),
    KeyboardInterrupt(),
    StopIteration(),
    Unusual(),
]


def raiser(error):
    def act():
        raise error

    return act


@every_call
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_eq_is_raised_and_changes_nothing(call, error):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set(Key("a", 1), "old")
    cache.set("other", 1)
    before = observable_state(cache)
    key = CallbackKey("a", 1)
    key.on_eq = raiser(error)
    with pytest.raises(type(error)) as caught:
        call(cache, key)
    assert caught.value is error
    assert (observable_state(cache), events) == (before, [])
    key.on_eq = None
    call(cache, key)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_eq_with_an_in_flight_key_is_raised(error):
    cache, asking = Moka(10), CallbackKey("b", 1)
    asking.on_eq = raiser(error)

    def compute():
        with pytest.raises(type(error)) as caught:
            cache.get_with(asking, list)
        assert caught.value is error
        return "computed"

    assert cache.get_with(Key("a", 1), compute) == "computed"
    assert contents(cache) == {Key("a", 1): "computed"}


def test_error_of_eq_after_the_computation_is_raised_and_no_waiter_hangs():
    cache, key = Moka(10), CallbackKey("b", 1)
    error = ZeroDivisionError("mine")

    def compute():
        cache.set(Key("a", 1), "old")
        key.on_eq = raiser(error)
        return "computed"

    with pytest.raises(ZeroDivisionError) as caught:
        cache.get_with(key, compute)
    assert caught.value is error
    key.on_eq = None
    assert cache.get_with(key, lambda: "anew") == "anew"


class BadHash:
    def __init__(self, error):
        self.error = error

    def __hash__(self):
        raise self.error


@every_call
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_of_hash_is_raised_and_changes_nothing(call, error):
    events = Events()
    cache = Moka(10, eviction_listener=events)
    cache.set("a", "old")
    before = observable_state(cache)
    with pytest.raises(type(error)) as caught:
        call(cache, BadHash(error))
    assert caught.value is error
    assert (observable_state(cache), events) == (before, [])


@every_call
def test_hash_that_is_not_an_int_is_a_type_error(call):
    class Odd:
        def __hash__(self):
            return "hash"

    cache = Moka(10)
    with pytest.raises(TypeError):
        call(cache, Odd())


class FixedEq(Key):
    """A key whose `__eq__` returns a given object."""

    __hash__ = Key.__hash__

    def __init__(self, answer):
        super().__init__("a", 1)
        self.answer = answer

    def __eq__(self, other):
        return self.answer


@pytest.mark.parametrize("truth", ["yes", 2, [0], object(), True])
def test_truthy_result_of_eq_means_equal(truth):
    cache = Moka(10)
    cache.set(FixedEq(truth), 1)
    assert cache.get(FixedEq(truth)) == 1
    cache.set(FixedEq(truth), 2)
    assert len(cache) == 1


@pytest.mark.parametrize("falsehood", ["", 0, [], None, False, NotImplemented])
def test_falsy_result_of_eq_means_unequal(falsehood):
    cache = Moka(10)
    cache.set(FixedEq(falsehood), 1)
    assert cache.get(FixedEq(falsehood), MISSING) is MISSING
    cache.set(FixedEq(falsehood), 2)
    assert len(cache) == 2


@every_call
def test_error_of_the_truth_value_of_eq_is_raised(call):
    class NoTruth:
        def __bool__(self):
            raise ZeroDivisionError("no truth")

    cache = Moka(10)
    cache.set(FixedEq(NoTruth()), "old")
    before = observable_state(cache)[2:]
    with pytest.raises(ZeroDivisionError, match="no truth"):
        call(cache, FixedEq(NoTruth()))
    assert observable_state(cache)[2:] == before


@pytest.mark.parametrize("name", ["get", "set", "remove"])
def test_error_of_the_call_survives_finalizers_of_values(name, unraisable):
    """The values that a failing call drops may run finalizers, even ones that raise."""

    class Failing:
        def __del__(self):
            try:
                raise KeyError
            except KeyError:
                pass
            raise ValueError("of the value")

    class Raising(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            raise ZeroDivisionError("of the key")

    cache = Moka(10)
    cache.set("due", Failing(), ttl=IMMEDIATELY_DUE)
    cache.set(Raising("a", 1), 1)
    time.sleep(MAINTENANCE_DELAY)
    call = {
        "get": lambda: cache.get(Raising("b", 1)),
        "set": lambda: cache.set(Raising("b", 1), 1),
        "remove": lambda: cache.remove(Raising("b", 1)),
    }[name]
    with pytest.raises(ZeroDivisionError, match="of the key"):
        call()
    cache.run_pending_tasks()
    assert [type(error) for error in unraisable] == [ValueError]
