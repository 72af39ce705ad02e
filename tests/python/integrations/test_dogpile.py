"""The backends for dogpile.cache: dogpile's own generic suites, and what they do not test."""

import tempfile
import threading

import pytest

pytest.importorskip("dogpile.cache", reason="dogpile.cache is not installed")

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE, CacheBackend
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

from moka_py import Moka
from moka_py.integrations.dogpile import MokaBackend, MokaProxy
from moka_py.testing import ManualClock

WAIT_SECONDS = 60


class TestMokaBackendSuite(_GenericBackendTestSuite):
    # The name of the entry point.
    backend = "moka_py"
    config_args = {"arguments": {"capacity": 1000}}


class TestMokaBackendSerializerSuite(_GenericSerializerTestSuite, TestMokaBackendSuite):
    pass


class TestMokaPickleBackendSuite(TestMokaBackendSuite):
    backend = "moka_py_pickle"


class ProxySuite(_GenericBackendTestSuite):
    """The suites with a proxy in front of each backend and each region."""

    def _backend(self):
        self._backend_inst = MokaProxy(Moka(1000)).wrap(super()._backend())
        return self._backend_inst

    def _region(self, backend=None, region_args=(), config_args=()):
        wrap = [MokaProxy(Moka(1000))]
        return super()._region(backend, dict(region_args), {"wrap": wrap, **dict(config_args)})


class TestMokaProxySuite(ProxySuite):
    backend = "dogpile.cache.memory"
    backend_argument_names = ["cache_dict"]
    config_args = {"arguments": {}}


class TestMokaProxySerializerSuite(_GenericSerializerTestSuite, TestMokaProxySuite):
    pass


class TestMokaProxyOfSerializedValuesSuite(ProxySuite):
    backend = "dogpile.cache.memory_pickle"
    backend_argument_names = ["cache_dict"]
    config_args = {"arguments": {}}


class TestMokaProxyOfFileSuite(_GenericMutexTestSuite, ProxySuite):
    """A backend that has a mutex, and stores only bytes."""

    backend = "dogpile.cache.dbm"

    @classmethod
    def setup_class(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.config_args = {"arguments": {"filename": f"{cls.folder.name}/values"}}
        super().setup_class()

    @classmethod
    def teardown_class(cls):
        cls.folder.cleanup()


def test_strings_of_a_configuration_file_make_the_cache():
    config = {
        "cache.backend": "moka_py_pickle",
        "cache.expiration_time": "60",
        "cache.arguments.capacity": "3",
        "cache.arguments.ttl": "1.5",
        "cache.arguments.policy": "lru",
    }
    cache = make_region().configure_from_config(config, "cache.").backend.cache
    assert (cache.capacity, cache.ttl, cache.policy) == (3, 1.5, "lru")


def test_arguments_make_the_cache():
    clock = ManualClock()
    with clock:
        backend = MokaBackend({"capacity": 2, "policy": "lru", "ttl": 60, "of_other_backends": 1})
    assert (backend.cache.capacity, backend.cache.policy, backend.cache.ttl) == (2, "lru", 60)
    backend.set("a", b"1")
    clock.advance(60)
    assert backend.get("a") is NO_VALUE


def test_a_cache_of_the_program_is_used():
    cache = Moka(10)
    region = make_region().configure("moka_py", arguments={"cache": cache})
    region.set("a", 1)
    assert list(cache) == ["a"]


@pytest.mark.parametrize("arguments", [{}, {"capacity": 1, "cache": Moka(1)}, {"ttl": 1}])
def test_arguments_without_one_source_of_the_cache_are_an_error(arguments):
    with pytest.raises(ValueError, match="either 'cache' or 'capacity'"):
        MokaBackend(arguments)


@pytest.mark.parametrize("make", [lambda cache: MokaBackend({"cache": cache}), MokaProxy])
def test_a_cache_of_the_wrong_kind_is_an_error(make):
    with pytest.raises(TypeError, match="cache must be a Moka, got dict"):
        make({})


def test_values_of_the_plain_backend_are_shared_and_those_of_the_pickle_backend_are_copies():
    value = ["a"]
    for name, is_shared in (("moka_py", True), ("moka_py_pickle", False)):
        region = make_region().configure(name, arguments={"capacity": 10})
        region.set("key", value)
        assert (region.get("key") is value) is is_shared
        assert region.get("key") == value


class Remote(CacheBackend):
    """A backend that records its calls, and runs `before` or `after` once around the next one."""

    def __init__(self, arguments=()):
        self.values = {}
        self.calls = []
        self.before = self.after = None

    def call(self, name, keys, code):
        self.calls.append((name, tuple(keys)))
        before, self.before = self.before, None
        after, self.after = self.after, None
        if before:
            before()
        result = code()
        if after:
            after()
        return result

    def get(self, key):
        return self.call("get", [key], lambda: self.values.get(key, NO_VALUE))

    def get_multi(self, keys):
        return self.call("get_multi", keys, lambda: [self.values.get(key, NO_VALUE) for key in keys])

    def set(self, key, value):
        self.call("set", [key], lambda: self.values.update({key: value}))

    def set_multi(self, mapping):
        self.call("set_multi", mapping, lambda: self.values.update(mapping))

    def delete(self, key):
        self.call("delete", [key], lambda: self.values.pop(key, None))

    def delete_multi(self, keys):
        self.call("delete_multi", keys, lambda: [self.values.pop(key, None) for key in keys])


@pytest.fixture
def remote():
    return Remote()


@pytest.fixture
def proxy(remote):
    return MokaProxy(Moka(100)).wrap(remote)


def test_proxy_asks_the_backend_once_for_each_key(remote, proxy):
    remote.values = {"a": 1, "b": 2, "c": 3}
    assert [proxy.get("a"), proxy.get("a"), proxy.get_serialized("a")] == [1, 1, 1]
    assert proxy.get_multi(["a", "b", "c", "b"]) == [1, 2, 3, 2]
    assert proxy.get_multi(["a", "b", "c"]) == [1, 2, 3]
    assert remote.calls == [("get", ("a",)), ("get_multi", ("b", "c"))]


def test_proxy_does_not_keep_the_absence_of_a_value(remote, proxy):
    assert proxy.get("a") is NO_VALUE
    assert proxy.get_multi(["a", "b"]) == [NO_VALUE, NO_VALUE]
    remote.values = {"a": 1, "b": 2}
    assert proxy.get("a") == 1
    assert proxy.get_multi(["a", "b"]) == [1, 2]


WRITES = {
    "set": lambda proxy: proxy.set("a", 2),
    "set_serialized": lambda proxy: proxy.set_serialized("a", 2),
    "set_multi": lambda proxy: proxy.set_multi({"a": 2}),
    "set_serialized_multi": lambda proxy: proxy.set_serialized_multi({"a": 2}),
    "delete": lambda proxy: proxy.delete("a"),
    "delete_multi": lambda proxy: proxy.delete_multi(iter(["a"])),
}
READS = {
    "get": lambda proxy: proxy.get("a"),
    "get_serialized": lambda proxy: proxy.get_serialized("a"),
    "get_multi": lambda proxy: proxy.get_multi(["a"])[0],
    "get_serialized_multi": lambda proxy: proxy.get_serialized_multi(["a"])[0],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_read_after_a_write_sees_it(remote, proxy, write, read):
    remote.values = {"a": 1}
    assert read(proxy) == 1
    write(proxy)
    assert read(proxy) == remote.values.get("a", NO_VALUE) != 1


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_value_that_was_read_before_a_write_is_not_kept_after_it(remote, proxy, write, read):
    remote.values = {"a": 1}
    # The backend has answered, and the answer is on its way when another thread writes.
    remote.after = lambda: in_a_thread(write, proxy)
    assert read(proxy) == 1
    assert read(proxy) == remote.values.get("a", NO_VALUE) != 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_read_during_a_write_is_not_kept_after_it(remote, proxy, write):
    remote.values = {"a": 1}
    remote.before = lambda: READS["get"](proxy)
    write(proxy)
    assert READS["get"](proxy) == remote.values.get("a", NO_VALUE) != 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_raises_removes_the_key_too(remote, proxy, write):
    def fail():
        raise ConnectionError

    remote.values = {"a": 1}
    assert proxy.get("a") == 1
    remote.after = fail
    with pytest.raises(ConnectionError):
        write(proxy)
    assert proxy.get("a") == remote.values.get("a", NO_VALUE) != 1


def in_a_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_threads_that_miss_a_key_share_one_read(remote, proxy):
    remote.values = {"a": 1}
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert go_on.wait(WAIT_SECONDS)

    remote.before = wait
    results = []
    first = threading.Thread(target=lambda: results.append(proxy.get("a")))
    first.start()
    assert begun.wait(WAIT_SECONDS)
    second = threading.Thread(target=lambda: results.append(proxy.get("a")))
    second.start()
    # Both threads have counted their miss.
    while proxy.cache._counts().misses < 2:
        pass
    go_on.set()
    for thread in (first, second):
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert results == [1, 1]
    assert remote.calls == [("get", ("a",))]


def test_get_multi_does_not_raise_the_error_of_another_thread(remote, proxy):
    begun, go_on = threading.Event(), threading.Event()

    def wait_and_fail():
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        raise ConnectionError

    remote.values = {"a": 1}
    remote.before = wait_and_fail
    results = []

    def get():
        with pytest.raises(ConnectionError):
            proxy.get("a")
        results.append("raised")

    threads = [threading.Thread(target=get)]
    threads[0].start()
    assert begun.wait(WAIT_SECONDS)
    threads.append(threading.Thread(target=lambda: results.append(proxy.get_multi(["a"]))))
    threads[1].start()
    # It has its value, and waits for the other thread to keep it.
    while proxy.cache._counts().misses < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert sorted(results, key=str) == [[1], "raised"]


def test_ttl_of_the_proxy_bounds_how_old_a_value_is(remote):
    with ManualClock() as clock:
        proxy = MokaProxy(Moka(10, ttl=5)).wrap(remote)
        remote.values = {"a": 1}
        assert proxy.get("a") == 1
        # Another process writes.
        remote.values = {"a": 2}
        clock.advance(4.9)
        assert proxy.get("a") == 1
        clock.advance(0.1)
        assert proxy.get("a") == 2


def test_a_region_computes_once_behind_the_proxy():
    region = make_region().configure("dogpile.cache.memory", wrap=[MokaProxy(Moka(100))])
    computed = []

    @region.cache_on_arguments()
    def double(number):
        computed.append(number)
        return 2 * number

    assert [double(2), double(2), double(3)] == [4, 4, 6]
    assert computed == [2, 3]
    double.invalidate(2)
    assert double(2) == 4
    assert computed == [2, 3, 2]
