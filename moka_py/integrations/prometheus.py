"""A collector for prometheus_client: `MokaCollector`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moka_py.integrations._metrics import METRICS, Sources, _Source
from moka_py.integrations._metrics import Metric as _Metric


class MokaCollector(Collector):
    """Shows the statistics of caches to Prometheus, by the label `cache`.

    The counters are `moka_requests_total{cache, result}`, `moka_removals_total{cache, cause}`,
    `moka_loads_total{cache, result}` and `moka_load_seconds_total{cache}`. The gauges are `moka_entries`, `moka_weight`
    and `moka_capacity`. A scrape reads them without maintenance: it removes no entry and calls no listener.

    Args:
        caches: A mapping of names to caches, near caches and cached functions. Each scrape reads it, so it may
            change later.
        functions: Whether the cached functions of the process are shown, too, each under its module and its
            qualified name, such as "shop.prices.price". The name of a package means only those of the package. The
            counts of functions with equal names are summed.
        registry: Where the collector is registered, or None.

    Raises:
        TypeError: If an argument is of the wrong kind, or a value of caches is none of these.
    """

    def __init__(
        self,
        caches: Mapping[str, _Source] | None = None,
        *,
        functions: str | bool = True,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._sources = Sources(caches, functions)
        if registry is not None:
            registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterable[Metric]:
        readings = self._sources.read()
        for metric in METRICS:
            family = _family(metric)
            for name, of_name in readings.items():
                for label, value in metric.sums(of_name):
                    family.add_metric([name, label] if metric.label else [name], value)
            yield family


def _family(metric: _Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
    return kind(
        f"moka_{metric.name}", metric.description, labels=["cache", metric.label] if metric.label else ["cache"]
    )
