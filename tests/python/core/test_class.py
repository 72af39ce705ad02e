"""A cache as an object: its constructor, attributes, identity and subclasses, and the operations it refuses."""

import contextlib
import copy
import inspect
import pickle
import re
import threading
import types
import typing
import weakref
from collections.abc import MutableMapping
from datetime import timedelta

import pytest
from helpers import Events, collect

from moka_py import Moka


def test_constructor_takes_every_argument_by_position():
    events = Events()
    cache = Moka(10, 100.0, 50, events, "lru", lambda key, value: 3, False)
    cache.set("a", 1)
    cache.remove("a")
    assert (cache.capacity, cache.ttl, cache.tti, cache.policy) == (10, 100.0, 50.0, "lru")
    assert events == [("a", 1, "explicit")]


def test_constructor_takes_every_argument_by_name():
    cache = Moka(capacity=10, ttl=1, tti=None, eviction_listener=None, policy="tiny_lfu", weigher=lambda key, value: 3)
    cache.set("a", 1)
    assert cache.weighted_size() == 3


@pytest.mark.parametrize(
    ("member", "parameters"),
    [
        (Moka, "capacity ttl tti eviction_listener policy weigher long_lived refresh executor"),
        (Moka.get, "self key default"),
        (Moka.set, "self key value ttl tti"),
        (Moka.get_with, "self key initializer ttl tti"),
        (Moka.remove, "self key default"),
        (Moka.expires_in, "self key"),
        (Moka.peek, "self key default"),
        (Moka.touch, "self key ttl tti"),
        (Moka.set_with, "self key function default ttl tti"),
        (Moka.next_deadline, "self"),
        (Moka.get_many, "self keys"),
        (Moka.get_many_with, "self keys load ttl tti"),
        (Moka.set_many, "self entries ttl tti"),
        (Moka.remove_many, "self keys"),
        (Moka.remove_if, "self predicate"),
        (Moka.stats, "self"),
        (Moka.reset_stats, "self"),
    ],
)
def test_inspect_finds_the_signature_of_each_member(member, parameters):
    assert list(inspect.signature(member).parameters) == parameters.split()


def test_every_member_has_a_docstring():
    names = [name for name in vars(Moka) if not name.startswith("_")]
    assert [name for name in names if not getattr(Moka, name).__doc__] == []


def test_plain_cache_has_default_attributes():
    cache = Moka(7)
    assert (cache.capacity, cache.policy, cache.ttl, cache.tti) == (7, "tiny_lfu", None, None)


@pytest.mark.parametrize("two", [2, 2.0, timedelta(seconds=2), timedelta(milliseconds=2000)])
def test_durations_are_float_seconds(two):
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


def test_empty_cache_is_falsy():
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


def test_cache_can_be_a_key_of_itself():
    cache = Moka(10)
    cache.set(cache, cache)
    assert cache.get(cache) is cache


def test_repr_names_the_class():
    assert "Moka" in repr(Moka(10))


def test_repr_of_a_cache_that_holds_itself_terminates():
    cache = Moka(10)
    cache.set("self", cache)
    assert isinstance(repr(cache), str)


def test_class_shows_its_type_parameters():
    alias = Moka[int, str]
    assert type(alias) is types.GenericAlias
    assert (typing.get_origin(alias), typing.get_args(alias)) == (Moka, (int, str))
    assert alias == Moka[int, str] and hash(alias) == hash(Moka[int, str]) and alias != Moka[int, int]
    assert repr(alias) == "moka_py.Moka[int, str]"
    assert typing.get_args(Moka[int]) == (int,)
    assert pickle.loads(pickle.dumps(alias)) == alias


def test_generic_alias_makes_a_cache():
    cache = Moka[int, str](10, ttl=5)
    assert type(cache) is Moka
    assert (cache.capacity, cache.ttl) == (10, 5.0)
    with pytest.raises(TypeError, match="capacity must be an int, got str"):
        Moka[int, str]("10")


def test_type_variables_of_a_subclass_are_replaced():
    Key = typing.TypeVar("Key")

    class ByText(Moka[str, Key]):
        pass

    alias = Moka[str, Key]
    assert alias.__parameters__ == (Key,)
    assert alias[int] == Moka[str, int]
    assert types.get_original_bases(ByText) == (alias,)
    assert typing.get_origin(ByText[int]) is ByText
    assert type(ByText[int](10)) is ByText


def test_weak_reference_dies_with_the_cache():
    cache = Moka(10)
    reference = weakref.ref(cache)
    assert reference() is cache
    del cache
    collect()
    assert reference() is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_a_cache_is_refused(protocol):
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(Moka(10), protocol)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copying_a_cache_is_refused(how):
    with pytest.raises(TypeError, match="Moka"):
        how(Moka(10))


def test_subclass_can_add_methods_and_attributes():
    class Named(Moka):
        kind = "named"

        def double(self, key):
            return 2 * self.get(key)

    cache = Named(10)
    cache.title = "mine"
    cache.set("a", 2)
    assert (cache.double("a"), cache.kind, cache.title) == (4, "named", "mine")


def test_subclass_can_define_new_and_init():
    class Counting(Moka):
        def __new__(cls, *args, **kwargs):
            return super().__new__(cls, 10)

        def __init__(self, start):
            self.misses = start

    cache = Counting(5)
    assert (cache.capacity, cache.misses) == (10, 5)


def test_subclass_can_pass_arguments_on_in_init():
    class Counting(Moka):
        def __init__(self, capacity, *, ttl=None):
            super().__init__(capacity, ttl=ttl)
            self.misses = 0

    cache = Counting(10, ttl=5)
    assert (cache.capacity, cache.ttl, cache.misses) == (10, 5.0, 0)


def test_subclass_can_take_other_arguments():
    class Named(Moka):
        def __init__(self, capacity, name):
            super().__init__(capacity, ttl=5)
            self.name = name

    for cache in (Named(10, "a"), Named(capacity=10, name="a")):
        assert (cache.capacity, cache.ttl, cache.name) == (10, 5.0, "a")
        cache["key"] = "value"
        assert cache["key"] == "value" and len(cache) == 1


def test_subclass_can_compute_its_capacity():
    class Doubled(Moka[str, int]):
        def __init__(self, capacity, policy="lru"):
            super().__init__(2 * capacity, policy=policy)

    cache = Doubled(10)
    assert (cache.capacity, cache.policy) == (20, "lru")
    assert Doubled(10, "tiny_lfu").policy == "tiny_lfu"


def test_subclass_of_a_subclass_can_take_other_arguments():
    class Hundred(Moka):
        def __init__(self, name):
            super().__init__(100)
            self.name = name

    class Weighed(Hundred):
        def __init__(self):
            super().__init__("weighed")

    class Plain(Hundred):
        pass

    assert (Weighed().capacity, Weighed().name) == (100, "weighed")
    assert (Plain("plain").capacity, Plain("plain").name) == (100, "plain")


def test_subclass_that_never_calls_the_constructor_raises_on_use():
    class Short(Moka):
        def __init__(self, name):
            self.name = name

    cache = Short("a")
    text = "must call super().__init__(capacity, ...)"
    inserts = [
        lambda: cache.set("key", 1),
        lambda: cache.set("key", 1, ttl=5),
        lambda: cache.__setitem__("key", 1),
        lambda: cache.setdefault("key", 1),
        lambda: cache.get_with("key", lambda: 1),
        lambda: cache.set_many({"key": 1}),
        lambda: cache.update(key=1),
    ]
    for insert in inserts:
        with pytest.raises(RuntimeError, match=re.escape(text)):
            insert()
    assert (cache.get("key"), "key" in cache, list(cache), len(cache)) == (None, False, [], 0)
    assert (cache.remove("key"), cache.expires_in("key"), cache.capacity) == (None, None, 0)
    assert cache.stats().inserts == 0 and "Short" in repr(cache)
    cache.clear(), cache.run_pending_tasks()
    with pytest.raises(KeyError):
        cache.popitem()
    Moka.__init__(cache, 10)
    cache["key"] = 1
    assert (cache["key"], cache.capacity) == (1, 10)


def test_second_constructor_call_changes_nothing():
    class Named(Moka):
        def __init__(self, name, capacity=10):
            super().__init__(capacity)

    for cache in (Moka(10), Named("a")):
        cache["key"] = 1
        cache.__init__(20)
        assert (cache.capacity, cache["key"]) == (10, 1)


def test_arguments_of_init_win_over_arguments_of_new():
    class Careless(Moka):
        def __init__(self, capacity, ttl=None):
            pass

    class Late(Moka):
        def __init__(self, capacity):
            self["early"] = 1
            super().__init__(2 * capacity)

    assert (Careless(10, ttl=5).capacity, Careless(10, ttl=5).ttl) == (10, 5.0)
    cache = Late(10)
    assert (cache.capacity, list(cache)) == (20, [])


def test_wrong_arguments_from_a_subclass_are_refused():
    class Named(Moka):
        def __init__(self, capacity, name, **options):
            super().__init__(capacity, **options)

    with pytest.raises(ValueError, match="capacity must be at least 0, got -1"):
        Named(-1, "a")
    with pytest.raises(ValueError, match="ttl must be positive and finite, got 0"):
        Named(1, "a", ttl=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'maxsize'"):
        Named(1, "a", maxsize=1)
    with pytest.raises(TypeError, match="name"):
        Named(1)


def test_subclass_can_define_new_alone():
    class Ten(Moka):
        def __new__(cls, name):
            cache = super().__new__(cls, 10)
            cache.name = name
            return cache

    assert (Ten("a").capacity, Ten("a").name) == (10, "a")


def test_instance_made_by_new_alone_works_when_its_arguments_suffice():
    with pytest.raises(TypeError, match="capacity"):
        Moka.__new__(Moka)
    assert Moka.__new__(Moka, 10).capacity == 10

    class Named(Moka):
        def __init__(self, name):
            super().__init__(10)

    cache = Named.__new__(Named)
    assert (len(cache), cache.get("key")) == (0, None)
    with pytest.raises(RuntimeError, match="the cache was not made"):
        cache["key"] = 1
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(cache)


@pytest.mark.parametrize("is_made", [True, False])
def test_cycle_through_a_subclass_with_its_own_constructor_is_collected(is_made):
    class Node(Moka):
        def __init__(self, capacity, name):
            self.early = self
            if is_made:
                super().__init__(capacity, eviction_listener=lambda *_, node=self: node.name)
                self["self"] = self
            self.name = name

    reference = weakref.ref(Node(10, "a"))
    collect()
    assert reference() is None


@pytest.mark.parametrize("argument", [50, "no capacity"])
def test_threads_can_use_a_cache_during_its_construction(argument):
    class Shared(Moka):
        def __init__(self, _argument):
            barrier = threading.Barrier(4)
            threads = [threading.Thread(target=run, args=(self, barrier)) for run in (use, use, make, make)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def use(cache, barrier):
        barrier.wait(30)
        for number in range(200):
            with contextlib.suppress(RuntimeError):
                cache.set(number, object())
            cache.get(number)
            cache.pop(number - 2, None)
            len(cache)

    def make(cache, barrier):
        barrier.wait(30)
        Moka.__init__(cache, 30)

    for _ in range(20):
        cache = Shared(argument)
        assert cache.capacity == 30 and len(cache) <= 30


def test_generic_alias_can_be_subclassed():
    class Typed(Moka[str, int]):
        pass

    assert issubclass(Typed, Moka)
    assert Typed(10).capacity == 10


def test_subclass_can_inherit_from_mutable_mapping_too():
    class Both(Moka, MutableMapping):
        pass

    cache = Both(10)
    cache["a"] = 1
    assert dict(cache.items()) == {"a": 1}


def test_subclass_cannot_be_pickled_or_copied():
    class Sub(Moka):
        pass

    with pytest.raises(TypeError):
        pickle.dumps(Sub(10))
    with pytest.raises(TypeError):
        copy.copy(Sub(10))
