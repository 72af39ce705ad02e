"""What kind of object a cache is: its constructor, attributes, identity, subclasses, and what it refuses."""

import copy
import inspect
import pickle
import weakref
from collections.abc import MutableMapping
from datetime import timedelta

import pytest
from helpers import Events, collect

from moka_py import Moka


def test_constructor_takes_all_by_position():
    events = Events()
    cache = Moka(10, 100.0, 50, events, "lru", lambda key, value: 3)
    cache.set("a", 1)
    cache.remove("a")
    assert (cache.capacity, cache.ttl, cache.tti, cache.policy) == (10, 100.0, 50.0, "lru")
    assert events == [("a", 1, "explicit")]


def test_constructor_takes_all_by_name():
    cache = Moka(capacity=10, ttl=1, tti=None, eviction_listener=None, policy="tiny_lfu", weigher=lambda key, value: 3)
    cache.set("a", 1)
    assert cache.weighted_size() == 3


@pytest.mark.parametrize(
    ("member", "parameters"),
    [
        (Moka, "capacity ttl tti eviction_listener policy weigher"),
        (Moka.get, "self key default"),
        (Moka.set, "self key value ttl tti"),
        (Moka.get_with, "self key initializer ttl tti"),
        (Moka.remove, "self key default"),
        (Moka.expires_in, "self key"),
        (Moka.get_many, "self keys"),
        (Moka.set_many, "self entries ttl tti"),
        (Moka.remove_many, "self keys"),
        (Moka.remove_if, "self predicate"),
        (Moka.stats, "self"),
        (Moka.reset_stats, "self"),
    ],
)
def test_signatures_can_be_asked_for(member, parameters):
    assert list(inspect.signature(member).parameters) == parameters.split()


def test_members_have_a_docstring():
    names = [name for name in vars(Moka) if not name.startswith("_")]
    assert [name for name in names if not getattr(Moka, name).__doc__] == []


def test_attributes_of_a_plain_cache():
    cache = Moka(7)
    assert (cache.capacity, cache.policy, cache.ttl, cache.tti) == (7, "tiny_lfu", None, None)


@pytest.mark.parametrize("two", [2, 2.0, timedelta(seconds=2), timedelta(milliseconds=2000)])
def test_durations_read_as_float_seconds(two):
    cache = Moka(7, ttl=two, tti=two)
    assert (cache.ttl, cache.tti) == (2.0, 2.0)
    assert type(cache.ttl) is type(cache.tti) is float


@pytest.mark.parametrize("name", ["capacity", "policy", "ttl", "tti"])
def test_attributes_are_read_only(name):
    cache = Moka(7)
    with pytest.raises(AttributeError):
        setattr(cache, name, 1)
    with pytest.raises(AttributeError):
        delattr(cache, name)


def test_empty_cache_is_false():
    cache = Moka(10)
    assert not cache
    cache.set("a", 1)
    assert cache


def test_equality_is_identity():
    one, other = Moka(10), Moka(10)
    assert one == one
    assert one != other
    assert one != {}
    assert not one == {}
    assert len({one, other, one}) == 2


def test_a_cache_can_be_a_key_of_itself():
    cache = Moka(10)
    cache.set(cache, cache)
    assert cache.get(cache) is cache


def test_repr_names_the_class():
    assert "Moka" in repr(Moka(10))


def test_repr_of_a_cache_in_itself_ends():
    cache = Moka(10)
    cache.set("self", cache)
    assert isinstance(repr(cache), str)


def test_generic_alias_is_the_class():
    assert Moka[str, int] is Moka


def test_weak_reference_dies_with_the_cache():
    cache = Moka(10)
    reference = weakref.ref(cache)
    assert reference() is cache
    del cache
    collect()
    assert reference() is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused(protocol):
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(Moka(10), protocol)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copy_is_refused(how):
    with pytest.raises(TypeError, match="Moka"):
        how(Moka(10))


def test_subclass_adds_methods_and_attributes():
    class Named(Moka):
        kind = "named"

        def double(self, key):
            return 2 * self.get(key)

    cache = Named(10)
    cache.title = "mine"
    cache.set("a", 2)
    assert (cache.double("a"), cache.kind, cache.title) == (4, "named", "mine")


def test_subclass_with_its_own_constructor():
    class Counting(Moka):
        def __new__(cls, *args, **kwargs):
            return super().__new__(cls, 10)

        def __init__(self, start):
            self.misses = start

    cache = Counting(5)
    assert (cache.capacity, cache.misses) == (10, 5)


def test_subclass_passes_arguments_on_in_init():
    class Counting(Moka):
        def __init__(self, capacity, *, ttl=None):
            super().__init__(capacity, ttl=ttl)
            self.misses = 0

    cache = Counting(10, ttl=5)
    assert (cache.capacity, cache.ttl, cache.misses) == (10, 5.0, 0)


def test_subclass_of_the_generic_alias():
    class Typed(Moka[str, int]):
        pass

    assert issubclass(Typed, Moka)
    assert Typed(10).capacity == 10


def test_subclass_that_is_an_abstract_mapping_too():
    class Both(Moka, MutableMapping):
        pass

    cache = Both(10)
    cache["a"] = 1
    assert dict(cache.items()) == {"a": 1}


def test_subclass_is_refused_by_pickle_and_copy_too():
    class Sub(Moka):
        pass

    with pytest.raises(TypeError):
        pickle.dumps(Sub(10))
    with pytest.raises(TypeError):
        copy.copy(Sub(10))
