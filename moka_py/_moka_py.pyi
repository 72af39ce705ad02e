from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, KeysView, MutableMapping, ValuesView
from datetime import timedelta
from types import GenericAlias
from typing import Any, Generic, Literal, Protocol, Self, final, overload, type_check_only

from typing_extensions import TypeVar, disjoint_base

from moka_py._stats import Stats

__all__ = [
    "VERSION",
    "Moka",
    "_CachedFunction",
    "_Made",
    "_ManualClock",
    "_Memo",
    "_Owner",
    "_OwnerRegistry",
    "_Run",
    "_Trace",
    "_cached_function",
]

# Keys and values are `Any` where nothing tells their types, as in `Moka(100)`.
_K = TypeVar("_K", bound=Hashable, default=Any)
_V = TypeVar("_V", default=Any)
_V_co = TypeVar("_V_co", covariant=True, default=Any)
_D = TypeVar("_D")

type _Cause = Literal["expired", "explicit", "replaced", "size"]
type _Duration = float | timedelta
type _Policy = Literal["tiny_lfu", "lru"]
type _Method = Literal["tiny_lfu", "lru", "optimum"]

@type_check_only
class _KeysAndGetItem(Protocol[_K, _V_co]):
    def keys(self) -> Iterable[_K]: ...
    def __getitem__(self, key: _K, /) -> _V_co: ...

VERSION: str
"""The version of the package, such as "0.1.0"."""

@disjoint_base
class Moka(MutableMapping[_K, _V], Generic[_K, _V]):
    """An in-process cache with a bound on what it holds and deadlines for it, which threads share.

    It is a mutable mapping. Keys are hashable and compared as `dict` compares them; keys and values are held by
    reference. Every method may be called from any thread. There is no background thread: what is due leaves during
    some call, and no call returns an entry past its deadline.

    Copy it by `dict(cache.items())`. `dict(cache)` and `{**cache}` ask for the keys first and for each value after
    that, so they raise KeyError if an entry leaves in between.

    An exception of a key's `__hash__` or `__eq__`, of the weigher or of an initializer comes out of the call that
    met it, and the cache is as before. An unhashable key is a `TypeError` in every method that takes a key.

    `Moka[str, int]` is an alias, as `dict[str, int]` is, and makes a cache too. A cache equals only itself, and can be
    hashed, weakly referenced and subclassed, but neither copied nor pickled (`TypeError`).

    A subclass may have an `__init__` with other arguments, which calls `super().__init__` with those of the cache. If
    it does not, an insert raises RuntimeError, unless the arguments of the subclass are those of a cache themselves.
    """

    # A subclass that overrides `__init__` may take any arguments.
    def __new__(cls, *args: Any, **keywords: Any) -> Self: ...
    def __init__(
        self,
        capacity: int,
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
        eviction_listener: Callable[[_K, _V, _Cause], object] | None = None,
        policy: _Policy = "tiny_lfu",
        weigher: Callable[[_K, _V], int] | None = None,
    ) -> None:
        """Make an empty cache.

        capacity is the most that all entries may weigh together, at least 0. An entry weighs 1 unless there is a
        weigher, so without one it is the number of entries. Memory is taken as entries come, not by the capacity.

        ttl is how long an entry lives after it was set, tti how long after it was last set or got; the sooner
        deadline counts. Both are seconds or a timedelta, positive, at most 1,000 years. The clock is a steady one,
        which no change of the date moves. Whether it goes on while the machine is suspended depends on the machine.

        eviction_listener(key, value, cause) is called once for each entry that leaves, after the fact, on the
        thread whose call removed it and with no lock held: it may use the cache. The causes are "expired" (past its
        deadline), "explicit" (removed by `remove`, `pop`, `del`, `clear` and their like), "replaced" (set again) and
        "size" (evicted, or heavier than the whole capacity). What it returns is ignored, and what it raises goes to
        `sys.unraisablehook`.

        policy says which entry leaves when the cache is full: under "tiny_lfu" one that is used rarely, under "lru"
        the one whose last use is longest ago.

        weigher(key, value) is called once for each insert, on the calling thread, with no lock held, and returns
        the entry's weight: an int of at least 0, where more than 2**32 - 1 counts as that. From `set` and its like
        it may raise what it wants; other than an int is a `TypeError`, a negative one a `ValueError`, and the cache
        is as before.

        Raises TypeError for an argument of the wrong kind; ValueError for a duration that is not positive and
        finite or is out of range, and for an unknown policy. A capacity below 0 or of 2**64 or more is an
        OverflowError that is also a ValueError.
        """

    def __class_getitem__(cls, parameters: Any) -> GenericAlias:
        """Return an alias of the class, so that `Moka[str, int](100)` makes a cache."""

    @property
    def capacity(self) -> int:
        """The most that all entries may weigh together."""

    @property
    def policy(self) -> _Policy:
        """The name of the eviction policy."""

    @property
    def ttl(self) -> float | None:
        """Seconds that an entry lives after it was set, or None."""

    @property
    def tti(self) -> float | None:
        """Seconds that an entry lives after its last use, or None."""

    @overload
    def get(self, key: _K, default: None = None) -> _V | None:
        """Return the value of the key, or default if it has none. This is an access, which restarts the entry's
        tti."""

    @overload
    def get(self, key: _K, default: _V) -> _V: ...
    @overload
    def get(self, key: _K, default: _D) -> _V | _D: ...
    def set(self, key: _K, value: _V, ttl: _Duration | None = None, tti: _Duration | None = None) -> None:
        """Put the value in, in place of one that the key may have.

        ttl and tti are for this entry, in seconds or as a timedelta; they shorten those of the cache and never
        lengthen them. Setting a key again restarts its deadlines and forgets what was given before.

        The entry stays until its deadline, its removal, or its eviction by a later insert. Only one that alone
        outweighs the capacity is not kept, and an older value of its key does not stay behind either.

        Raises ValueError for a duration that is not positive or out of range, TypeError for one that is none; then,
        as said in the class's docstring, what the key or the weigher raises. Every error leaves the cache as it
        was.
        """

    def get_with(
        self,
        key: _K,
        initializer: Callable[[], _V],
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
    ) -> _V:
        """Return the value of the key; if it has none, call initializer(), put its result in and return it.

        Of several threads that ask for a key at once, one calls its initializer and the others wait for the result.
        If it raises, nothing is cached, and those that waited raise a copy of the exception, so that the traceback of
        each has its own frames. (After KeyboardInterrupt and the like only the one raises: another takes its place.)
        The waiting can be interrupted by a signal.

        A `set`, a removal or a `clear` during the computation wins: the result goes to the callers, but is not
        cached over it. ttl and tti are for the new entry, as in `set`; a hit ignores them.

        Raises RuntimeError for two waits that would never end: an initializer that asks for its own key, and threads
        that wait for one another's keys in a circle. Other waits are not seen: if an initializer waits for a thread of
        an executor that asks for the same key, both wait for ever. TypeError if initializer is not callable; else as
        `set`.
        """

    @overload
    def remove(self, key: _K, default: None = None) -> _V | None:
        """Take the entry of the key out and return its value, or default if it has none."""

    @overload
    def remove(self, key: _K, default: _V) -> _V: ...
    @overload
    def remove(self, key: _K, default: _D) -> _V | _D: ...
    def clear(self) -> None:
        """Take every entry out. The listener hears of each."""

    def count(self) -> int:
        """Return how many entries there are, which is exact: what is due is removed first."""

    def weighted_size(self) -> int:
        """Return what all entries weigh together, which is exact. Without a weigher it equals `count()`."""

    def run_pending_tasks(self) -> None:
        """Finish now what is due: expire entries, and let go of values that have left.

        Other calls do this in small steps. It is of use before measuring memory or waiting for a destructor.
        """

    def stats(self) -> Stats:
        """Return what the cache counted since it was made or last reset: hits, misses, what came, what left and why,
        and loads. `Stats` says what each means.

        What is due is removed first. The counts are exact when no call on the cache is under way.
        """

    def reset_stats(self) -> None:
        """Count anew. The entries stay, and so do `weight` and `count`. Calls that are under way meanwhile may count
        before or after it."""

    def get_many(self, keys: Iterable[_K]) -> dict[_K, _V]:
        """Return the values of those keys that have one, in a dict, in the order in which they were asked for.

        Each is an access, as `get` is. If a key cannot be hashed or compared its exception comes out, and those
        before it have been accesses nevertheless.
        """

    def set_many(
        self,
        entries: _KeysAndGetItem[_K, _V] | Iterable[tuple[_K, _V]],
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
    ) -> None:
        """Set each pair of a mapping or of an iterable of pairs, one after the other, each as `set` does.

        ttl and tti are for each of these entries. They are checked before anything is set. Where the key or the
        weigher of a pair raises, or there is no pair, that comes out, and what was set before it stays.
        """

    def remove_many(self, keys: Iterable[_K]) -> int:
        """Take the entries of the keys out and return how many there were.

        If a key cannot be hashed or compared its exception comes out, and what was removed before it stays removed.
        """

    def remove_if(self, predicate: Callable[[_K, _V], object]) -> int:
        """Take each entry out for which predicate(key, value) is true, and return how many those were.

        The predicate is called with no lock held, so it may use the cache, and other threads go on. An entry that
        comes meanwhile may be asked about or not; one that gets another value after the predicate saw it stays. This
        is no access to any of them. What the predicate raises comes out and ends the call; what was removed
        until then stays removed.
        """

    def expires_in(self, key: _K) -> float | None:
        """Return the seconds that the entry of the key has left, or None if it has no deadline or there is no such
        entry. This is no access."""

    def __getitem__(self, key: _K, /) -> _V:
        """Return the value of the key; raise KeyError if it has none. This is an access, as `get` is."""

    def __setitem__(self, key: _K, value: _V, /) -> None:
        """Put the value in, as `set(key, value)` does."""

    def __delitem__(self, key: _K, /) -> None:
        """Take the entry of the key out; raise KeyError if there is none."""

    def __contains__(self, key: object, /) -> bool:
        """Say whether the key has a value. This is no access: it restarts no tti and counts for no policy."""

    def __len__(self) -> int:
        """Return how many entries there are, as `count()` does. An empty cache is false."""

    def __iter__(self) -> Iterator[_K]:
        """Iterate over the keys, in no particular order.

        The cache may change meanwhile, which never raises: each entry that stays throughout is yielded once, and
        one that comes or goes may be or not. This is no access to any of them.
        """

    def keys(self) -> KeysView[_K]:
        """Return a live view of the keys. Iterating over it and `in` are no accesses."""

    def values(self) -> ValuesView[_V]:
        """Return a live view of the values. Iterating over it and `in` are no accesses."""

    def items(self) -> ItemsView[_K, _V]:
        """Return a live view of the pairs of key and value. Iterating over it and `in` are no accesses."""

    @overload
    def pop(self, key: _K) -> _V:
        """Take the entry of the key out and return its value; if there is none, return default, or raise KeyError
        where none was given."""

    @overload
    def pop(self, key: _K, default: _V) -> _V: ...
    @overload
    def pop(self, key: _K, default: _D) -> _V | _D: ...
    def popitem(self) -> tuple[_K, _V]:
        """Take some entry out and return its key and value; raise KeyError if there is none."""

    @overload
    def setdefault(self: Moka[_K, _D | None], key: _K, default: None = None) -> _D | None:
        """Return the value of the key; if it has none, put default in and return it. Of several threads at once,
        all return the same value."""

    @overload
    def setdefault(self, key: _K, default: _V) -> _V: ...
    @overload
    def update(self, other: _KeysAndGetItem[_K, _V], /) -> None:
        """Set each pair of a mapping or of an iterable of pairs, and each keyword argument."""

    @overload
    def update(self: Moka[str, _V], other: _KeysAndGetItem[str, _V], /, **pairs: _V) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[_K, _V]], /) -> None: ...
    @overload
    def update(self: Moka[str, _V], other: Iterable[tuple[str, _V]], /, **pairs: _V) -> None: ...
    @overload
    def update(self: Moka[str, _V], **pairs: _V) -> None: ...
    def __eq__(self, other: object, /) -> bool:
        """Say whether it is the same cache."""

    def __hash__(self) -> int:
        """Return a hash of the identity."""

    # For the views of `_views.py`: no accesses either.
    def _items_iter(self) -> Iterator[tuple[_K, _V]]: ...
    def _values_iter(self) -> Iterator[_V]: ...
    def _peek(self, key: _K, default: _D) -> _V | _D: ...

@final
class _Made:
    """The key of a call of a cached function, hashed."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def own_key_error(self) -> str: ...

@final
class _Run:
    """A run of a cached function, which ends with this object at the latest."""

    def is_superseded(self) -> bool: ...

@final
class _Memo:
    """What a cached function has besides its code: the cache and the counts."""

    def __new__(
        cls,
        function: Callable[..., Any],
        cache: Moka[Any, Any],
        info: Callable[[int, int, int], Any],
        *,
        typed: bool,
        shared: bool,
        make_key: Callable[..., Any] | None,
        owners: _OwnerRegistry | None,
        make_owner: Callable[[object], _Owner] | None,
        awaited: Callable[[Any], Any] | None,
        share: Callable[..., Any] | None,
    ) -> Self: ...
    def cache_info(self) -> Any: ...
    def cache_clear(self) -> None: ...
    def cache_invalidate(self, *args: Any, **keywords: Any) -> bool: ...
    def cache_contains(self, *args: Any, **keywords: Any) -> bool: ...
    def _hit(self) -> None: ...
    def _miss(self) -> None: ...
    def _begin_load(self) -> int: ...
    def _end_load(self, since: int, is_failure: bool) -> None: ...
    def _begin(self, made: _Made) -> _Run | tuple[Any]: ...
    def _begin_hashed(self, key: Any, hash: int) -> int | tuple[Any]: ...
    def _keep(self, made: _Made, value: Any, run: _Run) -> None: ...
    def _keep_hashed(self, key: Any, hash: int, value: Any, number: int) -> None: ...
    def _share(self, key: Any, hash: int, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...
    def _like_a_function(self, own: dict[str, Any], name: str) -> Any: ...
    def _share_later(self, key: Any, hash: int, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...

@final
class _Owner:
    """What stands for an instance in the keys of a method that does not keep it alive; equal only to itself."""

    def __new__(cls, reference: Any) -> Self: ...
    def _is_of(self, instance: object) -> bool: ...
    def _is_gone(self) -> bool: ...
    def _forget(self, cache: Moka[Any, Any]) -> None: ...

@final
class _OwnerRegistry:
    """The owners of one method's instances, by address."""

    def __new__(cls) -> Self: ...
    def _get_or_insert(self, address: int, owner: _Owner) -> _Owner: ...
    def _replace(self, address: int, owner: _Owner) -> None: ...
    def _remove(self, address: int, owner: _Owner) -> bool: ...
    def _items(self) -> list[tuple[int, _Owner]]: ...

@final
class _ManualClock:
    """A clock for tests, which stands still. Caches that its thread makes inside of `with` go by it for good."""

    def __new__(cls) -> Self: ...
    def advance(self, nanos: int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_args: object) -> None: ...

@final
class _Trace:
    """The keys of a text, replayed for `python -m moka_py simulate`; for one thread at a time."""

    def __new__(cls, *, column: bytes | None, most_keys: int | None, exact: bool) -> Self: ...
    def feed(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...
    def hit_ratio(self, method: _Method, capacity: int) -> float | None: ...
    @property
    def accesses(self) -> int: ...
    @property
    def kept_accesses(self) -> int: ...
    @property
    def distinct(self) -> int: ...
    @property
    def kept_keys(self) -> int: ...
    @property
    def empty(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def least_capacity(self) -> int: ...

_CachedFunction: type
"""What `_cached_function` makes."""

def _cached_function(memo: _Memo, for_ever: bool) -> Any: ...
