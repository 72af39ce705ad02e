"""Instruments for OpenTelemetry: `observe_caches`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from moka_py import VERSION
from moka_py.integrations._metrics import METRICS, Metric, Sources, _Source


def observe_caches(
    caches: Mapping[str, _Source] | None = None, *, functions: str | bool = True, meter: Meter | None = None
) -> None:
    """Make observable instruments for the statistics of caches, with the attribute `cache`.

    The counters are `moka.requests` (attribute `result`), `moka.removals` (`cause`), `moka.loads` (`result`) and
    `moka.load_seconds`. The gauges are `moka.entries`, `moka.weight` and `moka.capacity`. A collection reads them
    without maintenance: it removes no entry and calls no listener.

    Call it once, since a meter does not forget its instruments.

    Args:
        caches: A mapping of names to caches, near caches and cached functions. Each collection reads it, so it may
            change later.
        functions: Whether the cached functions of the process are observed, too, each under its module and its
            qualified name, such as "shop.prices.price". The name of a package means only those of the package. The
            counts of functions with equal names are summed.
        meter: The meter that makes the instruments. None means the meter "moka_py" of the global provider.

    Raises:
        TypeError: If an argument is of the wrong kind, or a value of caches is none of these.
    """
    sources = Sources(caches, functions)
    if meter is None:
        meter = get_meter("moka_py", VERSION)
    elif not isinstance(meter, Meter):
        raise TypeError(f"meter must be a Meter or None, got {type(meter).__name__}")
    for metric in METRICS:
        create = meter.create_observable_counter if metric.is_counter else meter.create_observable_gauge
        create(f"moka.{metric.name}", [_Callback(metric, sources)], metric.unit, metric.description)


class _Callback:
    """Reads one metric of all caches."""

    def __init__(self, metric: Metric, sources: Sources) -> None:
        self._metric = metric
        self._sources = sources

    def __call__(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, readings in self._sources.read().items():
            for label, value in self._metric.sums(readings):
                attributes = {"cache": name}
                if self._metric.label:
                    attributes[self._metric.label] = label
                yield Observation(value, attributes)
