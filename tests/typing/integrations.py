"""Uses of the integrations that a type checker must accept or reject. The code is checked and never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type
from weakref import WeakValueDictionary

from dogpile.cache import make_region
from opentelemetry.metrics import get_meter
from prometheus_client import CollectorRegistry

from moka_py import Moka, cached
from moka_py.integrations import django, flask_caching
from moka_py.integrations.dogpile import MokaBackend, MokaProxy
from moka_py.integrations.opentelemetry import observe_caches
from moka_py.integrations.prometheus import MokaCollector

cache: Moka[str, int] = Moka(100)


@cached
def function(x: int) -> int:
    return x


class Shop:
    @cached
    def price(self, item: str) -> int:
        return 1


MokaCollector({"cache": cache, "function": function, "method": Shop().price}, registry=CollectorRegistry())
MokaCollector(WeakValueDictionary({"cache": cache}))
MokaCollector(functions="shop")
observe_caches({"cache": cache}, functions=False, meter=get_meter("shop"))
MokaCollector({"cache": {}})  # type: ignore[dict-item]
MokaCollector(functions=None)  # type: ignore[arg-type]
observe_caches(meter="shop")  # type: ignore[arg-type]

make_region().configure("moka_py", arguments={"capacity": 100}, wrap=[MokaProxy(Moka(10))])
assert_type(MokaBackend({"capacity": 1}).cache, Moka[str, Any])
MokaProxy({})  # type: ignore[arg-type]

of_django = django.MokaCache("location", {})
assert_type(of_django.add("key", 1, timeout=None), bool)
assert_type(of_django.incr("key"), int)
assert_type(of_django.moka, Moka[str, Any])
of_django.set("key", 1, timeout="1")  # type: ignore[arg-type]

near = django.NearCache("redis://localhost", {"KEY_PREFIX": "shop"})
assert_type(near.near.stats().local.hits, int)
MokaCollector({"near": near.near})

of_flask = flask_caching.MokaCache(threshold=10, policy="lru")
assert_type(of_flask.inc("key"), int | None)
assert_type(of_flask.moka, Moka[str, Any])
flask_caching.MokaCache(policy="fifo")  # type: ignore[arg-type]
