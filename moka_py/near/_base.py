"""What `NearCache` and `AsyncNearCache` have in common: options, the tier, and the life of a near cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moka_py._moka_py import _NearLookup
from moka_py.near._client import Server
from moka_py.near._operations import Operations
from moka_py.near._options import Default, Duration, Options, TierKey, milliseconds, namespace_prefix, tier_key
from moka_py.near._serializers import make_codec
from moka_py.near._stats import NearStats
from moka_py.near._tier import ABSENT, MISSING, attach

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")


class NearCacheBase(_NearLookup[V]):
    """A near cache without the methods that ask the server."""

    def _set_up(self, server: Server, probe_client: object, namespace: str, options: Options) -> None:
        """Give the near cache its tier.

        Args:
            server: The server of the user's client.
            probe_client: The synchronous client by which the listener writes its probe.
            namespace: The namespace, unchecked.
            options: The checked options.
        """
        prefix = namespace_prefix(namespace)
        codec = make_codec(options.serializer)
        self._options = options
        self._errors = server.package.error
        self._tier, self._detach = attach(self, probe_client, server, prefix, options)
        self._operations = Operations(self._tier, codec)
        self._bind(self._tier.local, options.copy)

    @property
    def is_coherent(self) -> bool:
        """Whether local entries may answer now. If not, each call asks the server."""
        if self._is_closed:
            return False
        self._tier.begin_call()
        return self._tier.is_coherent

    def stats(self) -> NearStats:
        """Return the counts of the namespace in this process.

        Returns:
            A `NearStats`, which says what each count means.
        """
        return self._tier.stats()

    def _end(self) -> None:
        """Close the near cache, which has an effect once."""
        if self._close():
            self._detach()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the near cache is closed")

    def _lifetime(self, ttl: Duration | Default | None) -> int | None:
        """Return the milliseconds that a value lives on the server, or None."""
        if isinstance(ttl, Default):
            return self._options.ttl
        return None if ttl is None else milliseconds("ttl", ttl)

    def _copy(self, value: Any) -> Any:
        """Return what a caller gets of a value that the tier or another caller has, too."""
        copy = self._options.copy
        return value if copy is None else copy(value)

    def _split(self, names: dict[Any, TierKey], fresh: bool) -> tuple[dict[TierKey, Any], list[TierKey]]:
        """Return the local values of keys, and the keys that the server must be asked for.

        Args:
            names: The keys as the caller gave them, with their tier keys.
            fresh: Whether to ask the server for all of them.
        """
        distinct = dict.fromkeys(names.values())
        found: dict[TierKey, Any] = {}
        if not fresh:
            local = {name: self._tier.look_up(name) for name in distinct}
            found = {name: value for name, value in local.items() if value is not MISSING}
        return found, [name for name in distinct if name not in found]

    def _stale_many(self, missing: list[TierKey], fresh: bool) -> dict[TierKey, Any]:
        """Return the local values of keys that may be used after an error of the client."""
        stale = {} if fresh else {name: self._operations.stale(name) for name in missing}
        return {name: value for name, value in stale.items() if value is not MISSING}

    def _values_of(self, names: dict[Any, TierKey], found: dict[TierKey, Any]) -> dict[Any, V]:
        """Return the values for the caller, by the keys as the caller gave them, without absent keys."""
        values = ((key, found.get(name, ABSENT)) for key, name in names.items())
        return {key: self._copy(value) for key, value in values if value is not ABSENT}

    def _payloads(self, entries: Any) -> list[tuple[TierKey, bytes]]:
        """Return pairs of a key and the payload of its value, from a mapping or an iterable of pairs."""
        pairs = iterate("entries", entries.items() if isinstance(entries, Mapping) else entries)
        return [(tier_key(key), self._operations.codec.encode(value)) for key, value in pairs]


def iterate(name: str, values: Any) -> Iterator[Any]:
    """Return an iterator, or raise a TypeError that names the argument."""
    try:
        return iter(values)
    except TypeError:
        raise TypeError(f"{name} must be an iterable, got {type(values).__name__}") from None
