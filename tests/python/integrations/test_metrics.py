"""Metrics of caches and of cached functions, for Prometheus and for OpenTelemetry."""

import functools
import gc
import threading
import weakref

import pytest

from moka_py import Moka, cached
from moka_py.integrations import _metrics
from moka_py.testing import ManualClock

WAIT_SECONDS = 60


def fill(cache, clock):
    """Make each count of a cache with a capacity of 3 differ."""
    cache.update(a=1, b=2, c=3)
    cache.set("a", 2)
    for key in "aaaxx":
        cache.get(key)
    cache.set("d", 4)
    cache.remove("a")
    cache.get_with("e", lambda: clock.advance(1) or 5)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.get_with("f", lambda: 1 / 0)
    cache.set("g", 7, ttl=1)
    clock.advance(1)
    cache.run_pending_tasks()


@pytest.fixture
def clock():
    with ManualClock() as clock:
        yield clock


@pytest.fixture
def users(clock):
    cache = Moka(3, policy="lru")
    fill(cache, clock)
    return cache


def expected(name, cache):
    """The samples of a cache by the names that Prometheus uses."""
    stats = cache.stats()
    return {
        ("moka_requests_total", name, "hit"): stats.hits,
        ("moka_requests_total", name, "miss"): stats.misses,
        ("moka_removals_total", name, "expired"): stats.expirations,
        ("moka_removals_total", name, "explicit"): stats.removals,
        ("moka_removals_total", name, "replaced"): stats.replacements,
        ("moka_removals_total", name, "size"): stats.evictions,
        ("moka_loads_total", name, "success"): stats.loads - stats.load_failures,
        ("moka_loads_total", name, "failure"): stats.load_failures,
        ("moka_load_seconds_total", name): stats.load_seconds,
        ("moka_entries", name): stats.count,
        ("moka_weight", name): stats.weight,
        ("moka_capacity", name): cache.capacity,
    }


def test_counts_of_the_fixture_are_all_there(users):
    stats = users.stats()
    assert (stats.hits, stats.misses, stats.replacements, stats.removals) == (3, 5, 1, 1)
    assert (stats.loads, stats.load_failures, stats.expirations) == (3, 2, 1)
    assert stats.evictions == 2 and stats.count == 2


# --- Prometheus ---


@pytest.fixture
def registry():
    prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def collect(registry):
    """Return a function that makes a collector, and one that scrapes it from a real HTTP endpoint."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    from prometheus_client import start_http_server
    from prometheus_client.parser import text_string_to_metric_families

    from moka_py.integrations.prometheus import MokaCollector

    server, thread = start_http_server(0, "127.0.0.1", registry)

    def scrape():
        text = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", timeout=WAIT_SECONDS).raise_for_status().text
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = dict(sample.labels)
                key = (sample.name, labels.pop("cache"), *labels.values())
                assert key not in samples
                samples[key] = sample.value
        return samples

    def make(*args, **keywords):
        MokaCollector(*args, **keywords, registry=registry)
        return scrape

    yield make
    server.shutdown()
    server.server_close()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_scrape_shows_each_count(users, collect):
    assert collect({"users": users}, functions=False)() == expected("users", users)


def test_scrape_has_the_types_and_labels_of_the_documentation(users, registry, collect):
    collect({"users": users}, functions=False)
    families = {family.name: family for family in registry.collect()}
    assert {name: family.type for name, family in families.items()} == {
        "moka_requests": "counter",
        "moka_removals": "counter",
        "moka_loads": "counter",
        "moka_load_seconds": "counter",
        "moka_entries": "gauge",
        "moka_weight": "gauge",
        "moka_capacity": "gauge",
    }
    labels = {tuple(sample.labels) for family in families.values() for sample in family.samples}
    assert labels == {("cache", "result"), ("cache", "cause"), ("cache",)}


def test_scrape_does_no_maintenance_and_calls_no_listener(clock, collect):
    removed = []
    cache = Moka(10, ttl=1, eviction_listener=lambda *event: removed.append(event))
    cache.update(a=1, b=2)
    scrape = collect({"cache": cache}, functions=False)
    clock.advance(60)
    samples = scrape()
    assert (samples["moka_entries", "cache"], samples["moka_removals_total", "cache", "expired"]) == (2, 0)
    assert removed == []
    cache.run_pending_tasks()
    samples = scrape()
    assert (samples["moka_entries", "cache"], samples["moka_removals_total", "cache", "expired"]) == (0, 2)
    assert len(removed) == 2


def test_scrape_does_not_wait_for_a_load(collect):
    cache = Moka(10)
    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=cache.get_with, args=("a", lambda: begun.set() or go_on.wait(WAIT_SECONDS)))
    thread.start()
    assert begun.wait(WAIT_SECONDS)
    samples = collect({"cache": cache}, functions=False)()
    go_on.set()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert samples["moka_requests_total", "cache", "miss"] == 1
    assert samples["moka_loads_total", "cache", "success"] == 0


def test_mapping_may_change_between_scrapes(users, collect):
    caches = {"users": users}
    scrape = collect(caches, functions=False)
    caches["pages"] = Moka(5)
    del caches["users"]
    assert scrape() == expected("pages", caches["pages"])


def test_reset_of_statistics_is_a_counter_reset(users, collect):
    scrape = collect({"users": users}, functions=False)
    users.reset_stats()
    samples = scrape()
    assert samples == expected("users", users)
    assert {value for (name, *_), value in samples.items() if name.endswith("_total")} == {0}
    assert samples["moka_entries", "users"] == 2


def make_function(maxsize=5):
    @cached(maxsize=maxsize)
    def function(x):
        return x

    return function


NAME = f"{__name__}.make_function.<locals>.function"


def test_cached_functions_are_shown_by_their_qualified_name_and_equal_names_are_summed(collect):
    functions = [make_function(), make_function()]
    for function, calls in zip(functions, (2, 3), strict=True):
        for _ in range(calls):
            function(1)
    samples = collect(functions=__name__)()
    assert {name for _, name, *_ in samples} == {NAME}
    assert samples["moka_requests_total", NAME, "hit"] == 3
    assert samples["moka_requests_total", NAME, "miss"] == 2
    assert samples["moka_loads_total", NAME, "success"] == 2
    assert (samples["moka_entries", NAME], samples["moka_capacity", NAME]) == (2, 10)


class Doubler:
    """A callable object, which has no name."""

    def __call__(self, x):
        return 2 * x


def test_partials_and_callable_objects_are_shown_by_the_name_of_the_function_or_class(collect):
    partial = functools.partial(functools.partial(make_function), 4)
    functions = [cached(partial), cached(functools.partial(Doubler())), cached(Doubler())]
    samples = collect()()
    assert samples["moka_entries", f"{__name__}.make_function"] == 0
    assert samples["moka_capacity", f"{__name__}.Doubler"] == sum(function.cache.capacity for function in functions[1:])


def test_cache_of_a_weak_mapping_may_die_during_scrapes(registry):
    from moka_py.integrations.prometheus import MokaCollector

    caches = weakref.WeakValueDictionary()
    collector = MokaCollector(caches, functions=__name__, registry=registry)
    end = threading.Event()

    def make_and_drop():
        while not end.is_set():
            for number in range(10):
                caches[str(number)] = cache = Moka(5, weigher=lambda key, value: 1)
                cache[number] = number
                make_function()(number)

    thread = threading.Thread(target=make_and_drop)
    thread.start()
    try:
        for _ in range(200):
            for family in collector.collect():
                assert all(sample.value in (0, 1, 5) for sample in family.samples if sample.labels["cache"].isdigit())
    finally:
        end.set()
        thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    gc.collect()
    assert not [sample for family in collector.collect() for sample in family.samples]


def test_cache_that_is_added_during_a_scrape_does_not_end_it(collect):
    class Growing(dict):
        """The first time its items are read, a cache is added meanwhile, as by another thread."""

        def items(self):
            for item in super().items():
                yield item
                self.setdefault("second", Moka(2))

    samples = collect(Growing(first=Moka(1)))()
    assert (samples["moka_capacity", "first"], samples["moka_capacity", "second"]) == (1, 2)


def test_mapping_that_always_raises_ends_a_scrape_with_its_error(registry):
    from moka_py.integrations.prometheus import MokaCollector

    class Broken(dict):
        def items(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        MokaCollector(Broken(), registry=registry)


def test_function_that_is_gone_is_shown_no_longer(collect):
    function = make_function()
    scrape = collect(functions=__name__)
    assert ("moka_entries", NAME) in scrape()
    del function
    gc.collect()
    assert scrape() == {}


def test_cached_functions_and_methods_can_have_a_name_of_their_own(collect):
    class Shop:
        @cached(maxsize=4)
        def price(self, item):
            return item

    shop = Shop()
    shop.price(1)
    samples = collect({"function": Shop.price, "method": shop.price}, functions=False)()
    for name in ("function", "method"):
        assert (samples["moka_entries", name], samples["moka_capacity", name]) == (1, 4)


def test_near_caches_of_threads_and_of_asyncio_are_shown(collect):
    pytest.importorskip("redis", reason="redis is not installed")
    import redis.asyncio

    from moka_py.near import AsyncNearCache, NearCache

    options = {"ttl": 1, "capacity": 5}
    # They open no connection before their first call.
    near = {
        "sync": NearCache(redis.Redis(), "sync", **options),
        "async": AsyncNearCache(redis.asyncio.Redis(), "async", **options),
    }
    samples = collect(near, functions=False)()
    for name in near:
        assert (samples["moka_entries", name], samples["moka_capacity", name]) == (0, 5)


def test_all_functions_are_shown_by_default_and_none_with_false(collect, registry):
    function = make_function()
    assert ("moka_entries", NAME) in collect()()
    assert function.cache.count() == 0


def test_unbounded_cache_has_no_capacity(collect):
    function = make_function(maxsize=None)
    function(1)
    samples = collect(functions=__name__)()
    assert ("moka_capacity", NAME) not in samples
    assert samples["moka_weight", NAME] == 1


def test_collector_registers_once_and_can_stay_unregistered(collect, registry):
    from moka_py.integrations.prometheus import MokaCollector

    collect({})
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        MokaCollector({}, registry=registry)
    assert len(list(MokaCollector({}, registry=None).collect())) == 7


def test_collector_can_be_unregistered_and_registered_again(users, registry):
    from moka_py.integrations.prometheus import MokaCollector

    for _ in range(2):
        collector = MokaCollector({"users": users}, functions=False, registry=registry)
        assert registry.get_sample_value("moka_entries", {"cache": "users"}) == 2
        registry.unregister(collector)
        assert list(registry.collect()) == []


# --- Arguments ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "caches must be a mapping of names to caches or None, got list"),
        (({"a": {}},), "caches\\['a'\\] must be a Moka, a near cache or a cached function, got dict"),
        (({"a": len},), "caches\\['a'\\] must be a Moka, a near cache or a cached function, got builtin"),
        (({1: Moka(1)},), "a name in caches must be a str, got int"),
        ((None, None), "functions must be a bool or the name of a package, got NoneType"),
    ],
)
def test_wrong_argument_is_an_error_that_names_it(arguments, message):
    with pytest.raises(TypeError, match=message):
        _metrics.Sources(*arguments, *([False] if len(arguments) == 1 else []))


# --- OpenTelemetry ---


@pytest.fixture
def reader():
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    reader.meter = provider.get_meter("test")
    yield reader
    provider.shutdown()


def collected(reader):
    data = reader.get_metrics_data()
    if data is None:
        return {}, {}
    [resource] = data.resource_metrics
    [scope] = resource.scope_metrics
    samples, metrics = {}, {}
    for metric in scope.metrics:
        metrics[metric.name] = metric
        for point in metric.data.data_points:
            attributes = dict(point.attributes)
            samples[(metric.name, attributes.pop("cache"), *attributes.values())] = point.value
    return samples, metrics


def with_dots(samples):
    return {
        (name.removesuffix("_total").replace("moka_", "moka."), *labels): value
        for (name, *labels), value in samples.items()
    }


def test_instruments_show_each_count(users, reader):
    from moka_py.integrations.opentelemetry import observe_caches

    observe_caches({"users": users}, functions=False, meter=reader.meter)
    samples, metrics = collected(reader)
    assert samples == with_dots(expected("users", users))
    assert {name for name, metric in metrics.items() if getattr(metric.data, "is_monotonic", False)} == {
        "moka.requests",
        "moka.removals",
        "moka.loads",
        "moka.load_seconds",
    }
    assert metrics["moka.load_seconds"].unit == "s"


def test_collection_does_no_maintenance_and_calls_no_listener(clock, reader):
    from moka_py.integrations.opentelemetry import observe_caches

    removed = []
    cache = Moka(10, ttl=1, eviction_listener=lambda *event: removed.append(event))
    cache["a"] = 1
    observe_caches({"cache": cache}, functions=False, meter=reader.meter)
    clock.advance(60)
    assert collected(reader)[0]["moka.entries", "cache"] == 1
    assert removed == []


def test_reset_of_statistics_resets_the_counters_of_the_instruments(users, reader):
    from moka_py.integrations.opentelemetry import observe_caches

    observe_caches({"users": users}, functions=False, meter=reader.meter)
    assert collected(reader)[0]["moka.requests", "users", "hit"] == 3
    users.reset_stats()
    assert collected(reader)[0] == with_dots(expected("users", users))
    users.get("e")
    assert collected(reader)[0]["moka.requests", "users", "hit"] == 1


def test_instruments_sum_functions_of_equal_names(reader):
    from moka_py.integrations.opentelemetry import observe_caches

    functions = [make_function(), make_function()]
    for function in functions:
        function(1)
    observe_caches(functions=__name__, meter=reader.meter)
    samples, _ = collected(reader)
    assert (samples["moka.entries", NAME], samples["moka.requests", NAME, "miss"]) == (2, 2)


def test_global_meter_is_the_default(users, monkeypatch):
    pytest.importorskip("opentelemetry", reason="opentelemetry-api is not installed")
    import moka_py
    from moka_py.integrations import opentelemetry

    asked = []
    real = opentelemetry.get_meter
    monkeypatch.setattr(opentelemetry, "get_meter", lambda *args: asked.append(args) or real(*args))
    opentelemetry.observe_caches({"users": users})
    assert asked == [("moka_py", moka_py.VERSION)]
    with pytest.raises(TypeError, match="meter must be a Meter or None, got str"):
        opentelemetry.observe_caches(meter="shop")


def test_instruments_have_the_names_of_the_collector_when_prometheus_scrapes_them(users):
    exporter = pytest.importorskip(
        "opentelemetry.exporter.prometheus", reason="opentelemetry-exporter-prometheus is not installed"
    )
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import REGISTRY

    from moka_py.integrations.opentelemetry import observe_caches

    reader = exporter.PrometheusMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    observe_caches({"users": users}, functions=False, meter=provider.get_meter("test"))
    samples = {
        (sample.name, *(value for name, value in sample.labels.items() if not name.startswith("otel_"))): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("moka_")
    }
    provider.shutdown()
    assert samples == expected("users", users)
