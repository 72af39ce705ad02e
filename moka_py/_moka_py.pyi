from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    MutableMapping,
    ValuesView,
)
from datetime import timedelta
from types import GenericAlias
from typing import Any, Generic, Literal, Protocol, Self, final, overload, type_check_only

from typing_extensions import TypeVar, disjoint_base

from moka_py._cached import CachedFunction, CachedMethod
from moka_py._stats import Stats
from moka_py.near._options import Default

__all__ = [
    "VERSION",
    "ManualClock",
    "Moka",
    "_CachedFunction",
    "_CachedRun",
    "_CachedState",
    "_CallKey",
    "_Fill",
    "_LocalTier",
    "_NearLookup",
    "_Owner",
    "_OwnerRegistry",
    "_RefreshClaim",
    "_RefreshJob",
    "_Trace",
    "_cached_function",
    "_end_many",
    "_error_nanos",
    "_keep_many",
    "_look_up_many",
    "_read_loaded",
]

# Keys and values are `Any` where nothing tells their types, as in `Moka(100)`.
_K = TypeVar("_K", bound=Hashable, default=Any)
_V = TypeVar("_V", default=Any)
_V_co = TypeVar("_V_co", covariant=True, default=Any)
_D = TypeVar("_D")

type _Cause = Literal["expired", "explicit", "replaced", "size"]
type _Duration = float | timedelta
# A function of key and value returns the duration, or None for no deadline.
type _Ttl[K, V] = _Duration | Callable[[K, V], _Duration | None]
type _Policy = Literal["tiny_lfu", "lru"]
type _Method = Literal["tiny_lfu", "lru", "optimum"]

@type_check_only
class _KeysAndGetItem(Protocol[_K, _V_co]):
    def keys(self) -> Iterable[_K]: ...
    def __getitem__(self, key: _K, /) -> _V_co: ...

@type_check_only
class _Executor(Protocol):
    def submit(self, job: Callable[[], object], /) -> object: ...

VERSION: str
"""The version of the package, such as "0.1.0"."""

@disjoint_base
class Moka(MutableMapping[_K, _V], Generic[_K, _V]):
    """An in-process cache with a bounded total weight and deadlines, which threads use in parallel.

    It is a mutable mapping. Keys are hashable, and compared as `dict` compares them. Keys and values are held by
    reference. Every method can be called from any thread. There is no background thread: each call expires some of
    the entries that are due, and no call returns an entry past its deadline.

    Args:
        capacity: The most that all entries may weigh together, at least 0. An entry weighs 1 unless there is a
            weigher, so without one it is the number of entries. Memory is allocated as entries are added.
        ttl: How long an entry lives after it was set, in seconds or as a timedelta. It is positive and at most 1,000
            years. The clock is steady: no change of the date affects it. Whether it runs while the machine is
            suspended depends on the system. A function is called as `ttl(key, value)` once for each insert, beside the
            weigher, on the calling thread, with no lock held. It returns a duration, or None for no deadline. If it
            returns zero or less, the entry is not kept: the caller has the value, and the listener is called with the
            cause "expired". If it raises, or returns an object of another kind (TypeError), NaN or more than 1,000
            years (ValueError), the insert raises, and the cache is as before.
        tti: How long an entry lives after it was last set or got, in seconds or as a timedelta. The earlier deadline
            counts.
        eviction_listener: Called as `eviction_listener(key, value, cause)` once for each removed entry, after the
            removal, on the thread whose call removed it, with no lock held. It may use the cache. The causes are
            "expired" (past its deadline, or not kept by a ttl function), "explicit" (removed by `remove`, `pop`, `del`,
            `clear` and the like), "replaced" (set again) and "size" (evicted, or heavier than the capacity). Its result
            is ignored, and its exceptions go to `sys.unraisablehook`. It is not called for the entries of a cache that
            is destroyed.
        policy: Which entry is evicted when the cache is full: under "tiny_lfu" one that is used rarely, under "lru"
            the one whose last use is longest ago.
        weigher: Called as `weigher(key, value)` once for each insert, on the calling thread, with no lock held. It
            returns the weight of the entry, an int of at least 0. More than 2**32 - 1 counts as 2**32 - 1. If it
            raises, or returns another kind of object (TypeError) or a negative int (ValueError), the insert raises,
            and the cache is as before.
        long_lived: Whether the cache lives as long as the program, as one at the level of a module does. On the
            free-threaded build the threads that use it then do not count references to it, which makes them faster.
            Such a cache is never freed on CPython 3.13t, so make only as many as the program's text names; `clear`
            releases what it holds. On 3.14t the collector frees it. On the build with the GIL this has no effect.
        refresh: After how long a value is computed anew, like ttl, and less than ttl. If `get_with` finds a value that
            was set longer ago, it returns that value and one computation of the key starts. `get` never starts one.
            Without an executor the call that starts it computes, and returns the new value. A failure keeps the old
            value and goes to `sys.unraisablehook`. The next attempt comes a tenth of refresh later at the soonest. ttl
            stays the end of the old value.
        executor: Computes the values anew. `executor.submit(job)` is called with a function without arguments, which
            must run in this process, as in a `concurrent.futures.ThreadPoolExecutor`. The cache does not shut it down.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a duration is not positive and finite, or is out of range, if refresh is not less than ttl, if
            there is an executor without refresh, and for an unknown policy. For a capacity below 0 or of 2**64 or more
            the exception is an OverflowError, too.

    An exception of a key's `__hash__` or `__eq__`, of the weigher, of a ttl function or of an initializer leaves the
    call unchanged, and the cache is as before. Each method that takes a key raises TypeError if the key is not
    hashable.

    Copy a cache by `dict(cache.items())`. `dict(cache)` and `{**cache}` ask for the keys first and for each value
    after that, so they raise KeyError if an entry is removed meanwhile. A cache equals only itself. It can be hashed,
    weakly referenced and subclassed, but neither copied nor pickled (TypeError). `Moka[str, int]` is an alias, as
    `dict[str, int]` is, and makes a cache, too.

    A subclass may have an `__init__` with other arguments, which calls `super().__init__` with those of the cache. If
    it does not call it, inserts raise RuntimeError, unless the arguments of the subclass make a cache themselves.
    """

    # A subclass that overrides `__init__` may take any arguments.
    def __new__(cls, *args: Any, **keywords: Any) -> Self: ...
    def __init__(
        self,
        capacity: int,
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
        eviction_listener: Callable[[_K, _V, _Cause], object] | None = None,
        policy: _Policy = "tiny_lfu",
        weigher: Callable[[_K, _V], int] | None = None,
        long_lived: bool = False,
        refresh: _Duration | None = None,
        executor: _Executor | None = None,
    ) -> None: ...
    def __class_getitem__(cls, parameters: Any) -> GenericAlias:
        """Return an alias of the class for type checkers. `Moka[str, int](100)` makes a cache."""

    @property
    def capacity(self) -> int:
        """The most that all entries may weigh together."""

    @property
    def policy(self) -> _Policy:
        """The name of the eviction policy: "tiny_lfu" or "lru"."""

    @property
    def ttl(self) -> float | Callable[[_K, _V], _Duration | None] | None:
        """Seconds that an entry lives after it was set, the function that returns them, or None for no such limit."""

    @property
    def tti(self) -> float | None:
        """Seconds that an entry lives after it was last set or got, or None if there is no such limit."""

    @property
    def refresh(self) -> float | None:
        """Seconds after its `set` at which a value is computed anew, or None if it is not."""

    @overload
    def get(self, key: _K, default: None = None) -> _V | None:
        """Return the value of a key. This counts as an access and restarts the entry's tti.

        Args:
            key: The key.
            default: The result if the key has no value.

        Returns:
            The value, or default.
        """

    @overload
    def get(self, key: _K, default: _V) -> _V: ...
    @overload
    def get(self, key: _K, default: _D) -> _V | _D: ...
    def set(self, key: _K, value: _V, ttl: _Ttl[_K, _V] | None = None, tti: _Duration | None = None) -> None:
        """Store a value. It replaces a value that the key has.

        The entry stays until its deadline, its removal, or its eviction by a later insert. If it alone outweighs the
        capacity, or a ttl function returns zero or less for it, it is not kept, and an older value of the key is
        removed, too.

        Args:
            key: The key.
            value: The value.
            ttl: How long this entry lives after it was set, in seconds or as a timedelta, or a function of key and
                value that returns it, as for the cache. It shortens the ttl of the cache and never lengthens it. The
                next `set` of the key does not inherit it.
            tti: How long this entry lives after it was last set or got, in seconds or as a timedelta.

        Raises:
            TypeError: If a duration, or the result of a ttl function, is of the wrong kind.
            ValueError: If a duration is not positive or out of range, or the result of a ttl function is out of range.
        """

    @overload
    def peek(self, key: _K, default: None = None) -> _V | None:
        """Return the value of a key. This does not count as an access, a hit or a miss.

        Args:
            key: The key.
            default: The result if the key has no value.

        Returns:
            The value, or default.
        """

    @overload
    def peek(self, key: _K, default: _V) -> _V: ...
    @overload
    def peek(self, key: _K, default: _D) -> _V | _D: ...
    def touch(self, key: _K, ttl: _Duration | None = None, tti: _Duration | None = None) -> bool:
        """Restart the deadlines of an entry, or give it new ones.

        Both deadlines start anew, now. A duration that is not given stays the one that the entry has. This counts as
        an access, but neither as a hit nor as a miss. It is not a write: a load in flight is still stored.

        Args:
            key: The key.
            ttl: How long the entry lives from now on, in seconds or as a timedelta, within the ttl of the cache. If
                that is a function, it is not called, and the entry stays within the ttl that it has.
            tti: How long the entry lives after it was last set or got, in seconds or as a timedelta.

        Returns:
            Whether the key has a value.

        Raises:
            TypeError: If a duration is neither a number nor a timedelta. ttl cannot be a function here.
            ValueError: If a duration is not positive or out of range.
        """

    @overload
    def set_with(
        self,
        key: _K,
        function: Callable[[_V | None], _V],
        default: None = None,
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
    ) -> _V:
        """Change the value of a key atomically: store `function(value)`, or `function(default)` if it has no value.

        The function is called with no lock held, so it may use the cache. If the entry has another value afterwards,
        the result is dropped and the function is called again with that value. So it should have no effects of its own,
        such as a change of the value in place, and must not write to this key. If it raises, nothing is changed.

        The deadlines of a present entry stay, unless ttl or tti is given: then both start anew, and a duration that is
        not given stays the one that the entry has. So the ttl function of the cache is called only if the key has no
        value. This counts as an access, but neither as a hit nor as a miss. Like a `set`, it keeps the results of
        loads in flight out of the cache.

        Args:
            key: The key.
            function: Called with the value. Its result is the new value.
            default: The argument of function if the key has no value.
            ttl: How long the entry lives from now on, as in `touch`.
            tti: How long the entry lives after it was last set or got, as in `touch`.

        Returns:
            The new value.

        Raises:
            TypeError: If function is not callable, or a duration is neither a number nor a timedelta. ttl cannot be a
                function here.
            ValueError: If a duration is not positive or out of range.
        """

    @overload
    def set_with(
        self,
        key: _K,
        function: Callable[[_V], _V],
        default: _V,
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
    ) -> _V: ...
    @overload
    def set_with(
        self,
        key: _K,
        function: Callable[[_V | _D], _V],
        default: _D,
        ttl: _Duration | None = None,
        tti: _Duration | None = None,
    ) -> _V: ...
    def get_with(
        self,
        key: _K,
        initializer: Callable[[], _V],
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
    ) -> _V:
        """Return the value of a key; if it has none, compute it by `initializer()` and store it.

        If several threads ask for a key at the same time, one calls its initializer and the others wait for the
        result. If it raises, or the weigher or a ttl function does, nothing is stored, and each thread that waited
        raises a copy of the exception. The copies keep the traceback of each thread apart. After KeyboardInterrupt and
        the like only that thread raises, and another takes its place. A signal interrupts the wait.

        A `set`, a removal or a `clear` during the computation wins: the callers get the result, but it is not stored.

        In a cache with `refresh`, a value that was set longer ago than that is computed anew, by the initializer, ttl
        and tti of the call that finds it. Meanwhile all other calls get the old value. The new one is stored as by
        `set`. If the computation fails, that call gets the old value too, or the error if the old value has expired.

        Args:
            key: The key.
            initializer: Called without arguments if the key has no value. Its result is the value.
            ttl: How long a new entry lives, as in `set`. A hit ignores it.
            tti: How long a new entry lives after it was last set or got, as in `set`. A hit ignores it.

        Returns:
            The value.

        Raises:
            RuntimeError: If the wait would never end: an initializer asks for its own key, or threads wait for each
                other's keys in a circle. Other waits are not detected: if an initializer waits for a thread of an
                executor that asks for the same key, both wait for ever.
            TypeError: If initializer is not callable or returns a coroutine, which is closed, or a duration, or the
                result of a ttl function, is of the wrong kind.
            ValueError: If a duration is not positive or out of range, or the result of a ttl function is out of range.
        """

    def aget_with(
        self,
        key: _K,
        initializer: Callable[[], Awaitable[_V]],
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
    ) -> Coroutine[Any, Any, _V]:
        """Return, when awaited, the value of a key; if it has none, compute it by `await initializer()` and store it.

        If there is a value, awaiting does not suspend. Else one task of the event loop computes it, and all calls of
        this loop that ask for the key at the same time wait for the task. It sees the context variables of the first
        caller. If it raises, nothing is stored, and each other waiter raises a copy of the exception. A waiter that is
        cancelled leaves the others alone. When the last one is cancelled, so is the task.

        It never waits for a `get_with` of a thread, or for the task of another event loop. Each computes the value.

        A `set`, a removal or a `clear` during the computation wins: the callers get the result, but it is not stored.

        Args:
            key: The key.
            initializer: Called without arguments if the key has no value. What awaiting its result returns is the
                value.
            ttl: How long a new entry lives, as in `set`. A hit ignores it.
            tti: How long a new entry lives after it was last set or got, as in `set`. A hit ignores it.

        Returns:
            A coroutine that returns the value.

        Raises:
            RuntimeError: When awaited, if the wait would never end: an initializer asks for its own key, or tasks wait
                for each other's keys in a circle. The cache sees tasks that await each other directly. Also if there
                is no value, and no asyncio event loop is running.
            TypeError: If initializer is not callable, or a duration is of the wrong kind; and when awaited, if
                initializer returns no awaitable, or the result of a ttl function is of the wrong kind.
            ValueError: If a duration is not positive or out of range; and when awaited, if the result of a ttl function
                is out of range.
        """

    @overload
    def remove(self, key: _K, default: None = None) -> _V | None:
        """Remove the entry of a key and return its value.

        Args:
            key: The key.
            default: The result if the key has no value.

        Returns:
            The value, or default.
        """

    @overload
    def remove(self, key: _K, default: _V) -> _V: ...
    @overload
    def remove(self, key: _K, default: _D) -> _V | _D: ...
    def clear(self) -> None:
        """Remove all entries. The listener is called for each.

        The result of a load in flight is not stored.
        """

    def resize(self, capacity: int) -> None:
        """Change the capacity. The cache fits it when the call returns.

        If the entries weigh more than the new capacity, some are evicted as the policy chooses, in steps. The listener
        gets the cause "size". Other threads go on between the steps, and their writes obey the new capacity from the
        begin of the call. If several calls overlap, the capacity that was set last holds. If a signal handler raises,
        the eviction is completed before the call raises.

        With a capacity of 0 the cache becomes empty and keeps nothing, also no entry of weight 0.

        The shards of the free-threaded build stay as they are. So does the eviction by recency alone in a cache that
        was made for fewer than 8 entries. Make a cache large, and resize it down.

        Args:
            capacity: The most that all entries may weigh together, at least 0.

        Raises:
            TypeError: If capacity is not an int.
            ValueError: If capacity is below 0, or 2**64 or more. The exception is an OverflowError, too.
        """

    def count(self) -> int:
        """Return the exact number of entries. Entries that are due are removed first."""

    def weighted_size(self) -> int:
        """Return the exact total weight of all entries. Without a weigher it equals `count()`."""

    def run_pending_tasks(self) -> None:
        """Do all pending work: remove the entries that are due, and release removed values.

        Other calls do this in small steps. Use it before you measure memory or wait for a destructor.
        """

    def stats(self) -> Stats:
        """Return the counts since the cache was made or last reset: accesses, inserts, removals by cause, and loads.

        Entries that are due are removed first. The counts are exact if no other call on the cache is in flight.

        Returns:
            A `Stats`, which says what each count means.
        """

    def reset_stats(self) -> None:
        """Set all counts to 0. The entries stay, and so do `weight` and `count`.

        Calls that are in flight may count before or after it.
        """

    def get_many(self, keys: Iterable[_K]) -> dict[_K, _V]:
        """Return the values of several keys. Each key that is found counts as an access, as in `get`.

        If a key cannot be hashed or compared, its exception ends the call. The keys before it have been accessed.

        Args:
            keys: The keys, an iterable.

        Returns:
            A dict of the keys that have a value, in the order of `keys`.
        """

    def get_many_with(
        self,
        keys: Iterable[_K],
        load: Callable[[list[_K]], _KeysAndGetItem[_K, _V]],
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
    ) -> dict[_K, _V]:
        """Return the values of several keys; load all that have none by one call of `load(missing)`, and store them.

        Each key that is found counts as an access, as in `get`. `load` is called at most once, with nothing held. If
        another thread computes a key already, by this method or by `get_with`, this call does not load the key. It
        waits for the result, but only after its own load. So two such calls never wait for each other. Threads that ask
        for a key which this call loads wait for it. A signal interrupts the wait.

        If `load` leaves a key out, the key is not stored and not in the result. A thread that waits for it in
        `get_with` calls its own initializer. A key whose computation by another thread was interrupted is also not in
        the result. If that computation raised, this call raises a copy of the exception.

        The weigher and the ttl functions are called for all loaded values before the first is stored. If they or `load`
        raise, nothing is stored, and each thread that waits for one of these keys raises a copy of the exception. A
        `set`, a removal or a `clear` of a key during the load wins, as in `get_with`.

        `load` may return more keys. They are stored too, unless they have a value or are being computed.

        Args:
            keys: The keys, an iterable. Equal keys count once.
            load: Called with a list of the keys to load, each once, in the order of `keys`. It returns a mapping of
                keys to values.
            ttl: How long each loaded entry lives, as in `set`.
            tti: How long each loaded entry lives after it was last set or got, as in `set`.

        Returns:
            A dict of all values that were found or loaded, also of those that were not stored: first the keys asked
            for, in their order, then the others that `load` returned.

        Raises:
            RuntimeError: If a wait would never end, as in `get_with`.
            TypeError: If keys is not iterable, load is not callable or returns no mapping, or a duration is of the
                wrong kind.
            ValueError: If a duration is not positive or out of range, or the result of a ttl function is out of range.
        """

    def aget_many_with(
        self,
        keys: Iterable[_K],
        load: Callable[[list[_K]], Awaitable[_KeysAndGetItem[_K, _V]]],
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
    ) -> Coroutine[Any, Any, dict[_K, _V]]:
        """Return, when awaited, the values of several keys, as `get_many_with` does, by one `await load(missing)`.

        One task of the event loop runs `load`. Calls of this loop that ask for one of its keys wait for the task, and
        those of `aget_with` whose key it leaves out call their own initializers. If another task of this loop computes
        a key already, the call does not load the key. It waits for that task, but only after its own load.
        Cancellation is as in `aget_with`: the task is cancelled with its last waiter, for any of its keys.

        It never waits for a thread, or for the task of another event loop.

        Args:
            keys: The keys, an iterable. Equal keys count once.
            load: Called with a list of the keys to load, each once, in the order of `keys`. What awaiting its result
                returns is a mapping of keys to values. It may leave out keys, and have others.
            ttl: How long each loaded entry lives, as in `set`.
            tti: How long each loaded entry lives after it was last set or got, as in `set`.

        Returns:
            A coroutine that returns a dict of all values that were found or loaded, also of those that were not stored:
            first the keys asked for, in their order, then the others that `load` returned.

        Raises:
            RuntimeError: When awaited, if a wait would never end, as in `aget_with`. Also if a key has no value, and no
                asyncio event loop is running.
            TypeError: If load is not callable, or a duration is of the wrong kind; and when awaited, if keys is not
                iterable, load returns no awaitable of a mapping, or the result of a ttl function is of the wrong kind.
            ValueError: If a duration is not positive or out of range; and when awaited, if the result of a ttl function
                is out of range.
        """

    def set_many(
        self,
        entries: _KeysAndGetItem[_K, _V] | Iterable[tuple[_K, _V]],
        ttl: _Ttl[_K, _V] | None = None,
        tti: _Duration | None = None,
    ) -> None:
        """Store several entries, one after the other, each as `set` does.

        If the key, the weigher or a ttl function of a pair raises, or an element is not a pair, the exception ends the
        call. The entries before it stay.

        Args:
            entries: A mapping, or an iterable of pairs of a key and a value.
            ttl: How long each of these entries lives, as in `set`. It is checked before anything is stored, and a
                function is called once for each pair, as that is stored.
            tti: How long each of these entries lives after it was last set or got.

        Raises:
            TypeError: If entries is neither a mapping nor an iterable of pairs, or a duration is of the wrong kind.
            ValueError: If a duration is not positive or out of range, the result of a ttl function is out of range, or
                an element does not have two items.
        """

    def remove_many(self, keys: Iterable[_K]) -> int:
        """Remove the entries of several keys.

        If a key cannot be hashed or compared, its exception ends the call. The entries before it stay removed.

        Args:
            keys: The keys, an iterable.

        Returns:
            The number of entries removed.
        """

    def remove_if(self, predicate: Callable[[_K, _V], object]) -> int:
        """Remove each entry for which `predicate(key, value)` is true.

        The predicate is called with no lock held, so it may use the cache, and other threads go on. It may or may not
        be called for an entry that is added meanwhile. An entry that gets another value after the predicate saw it
        stays. This does not count as an access. An exception of the predicate ends the call; the entries removed
        before it stay removed.

        Args:
            predicate: Called with the key and the value of each entry.

        Returns:
            The number of entries removed.

        Raises:
            TypeError: If predicate is not callable.
        """

    def hottest(self, limit: int | None = None) -> list[tuple[_K, _V]]:
        """Return the entries in the order of the policy, beginning with the one that it would keep longest.

        Under "lru" the entry that was used last comes first. Under "tiny_lfu" the entries are in the order of the
        policy's estimate of how often each was used of late, and where that is the same, an entry that the policy
        protects and one that was used later come first. With the GIL, and below a capacity of 2,048, the cache has one
        shard, and the order is exact. The order over several shards is an estimate: each has its own clock and counts.

        This does not count as an access. Expired entries are left out. No lock is held for more than 256 entries at a
        time, so an entry that other threads use or add meanwhile may have its old place or its new one, or be missing.

        Args:
            limit: The most entries to return, at least 0, or None for all.

        Returns:
            A list of pairs of a key and a value.

        Raises:
            TypeError: If limit is neither an int nor None.
            ValueError: If limit is below 0.
        """

    def coldest(self, limit: int | None = None) -> list[tuple[_K, _V]]:
        """Return the entries in the order of the policy, beginning with the one that it would keep shortest.

        It is the order of `hottest`, from its end.

        Args:
            limit: The most entries to return, at least 0, or None for all.

        Returns:
            A list of pairs of a key and a value.

        Raises:
            TypeError: If limit is neither an int nor None.
            ValueError: If limit is below 0.
        """

    def expires_in(self, key: _K) -> float | None:
        """Return how long the entry of a key still lives. This does not count as an access.

        Args:
            key: The key.

        Returns:
            Seconds, or None if the entry has no deadline or there is no such entry.
        """

    def next_deadline(self) -> float | None:
        """Return how long no entry becomes due, so that a program can call `run_pending_tasks()` then.

        It is never later than the earliest deadline of the entries, and may be earlier: ask again then. It is 0.0 if
        an entry is due, or is within 0.1 ms.

        Returns:
            Seconds, or None if no entry has a deadline.
        """

    def __getitem__(self, key: _K, /) -> _V:
        """Return the value of a key, or raise KeyError. This counts as an access, as `get` does."""

    def __setitem__(self, key: _K, value: _V, /) -> None:
        """Store a value, as `set(key, value)` does."""

    def __delitem__(self, key: _K, /) -> None:
        """Remove the entry of a key, or raise KeyError."""

    def __contains__(self, key: object, /) -> bool:
        """Return whether a key has a value. This does not count as an access."""

    def __len__(self) -> int:
        """Return the number of entries, as `count()` does. An empty cache is false."""

    def __iter__(self) -> Iterator[_K]:
        """Iterate over the keys, in no particular order.

        The cache may change meanwhile, which never raises. Each entry that stays throughout is yielded once; one that
        is added or removed may be or not. This does not count as an access.
        """

    def keys(self) -> KeysView[_K]:
        """Return a live view of the keys. Its iteration and `in` do not count as accesses."""

    def values(self) -> ValuesView[_V]:
        """Return a live view of the values. Its iteration and `in` do not count as accesses."""

    def items(self) -> ItemsView[_K, _V]:
        """Return a live view of the pairs of key and value. Its iteration and `in` do not count as accesses."""

    @overload
    def pop(self, key: _K) -> _V:
        """Remove the entry of a key and return its value.

        Args:
            key: The key.
            default: The result if the key has no value.

        Returns:
            The value, or default.

        Raises:
            KeyError: If the key has no value and no default is given.
        """

    @overload
    def pop(self, key: _K, default: _V) -> _V: ...
    @overload
    def pop(self, key: _K, default: _D) -> _V | _D: ...
    def popitem(self) -> tuple[_K, _V]:
        """Remove some entry and return it.

        Returns:
            The key and the value.

        Raises:
            KeyError: If the cache is empty.
        """

    @overload
    def setdefault(self: Moka[_K, _D | None], key: _K, default: None = None) -> _D | None:
        """Return the value of a key; if it has none, store default and return it.

        If several threads do so at the same time, all return the same value. This counts as an access.

        Args:
            key: The key.
            default: The value to store.

        Returns:
            The value of the key.
        """

    @overload
    def setdefault(self, key: _K, default: _V) -> _V: ...
    @overload
    def update(self, other: _KeysAndGetItem[_K, _V], /) -> None:
        """Store each pair of a mapping or of an iterable of pairs, then each keyword argument.

        Args:
            other: A mapping, or an iterable of pairs of a key and a value.
            **pairs: Values by name; the name is the key.
        """

    @overload
    def update(self: Moka[str, _V], other: _KeysAndGetItem[str, _V], /, **pairs: _V) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[_K, _V]], /) -> None: ...
    @overload
    def update(self: Moka[str, _V], other: Iterable[tuple[str, _V]], /, **pairs: _V) -> None: ...
    @overload
    def update(self: Moka[str, _V], **pairs: _V) -> None: ...
    def __eq__(self, other: object, /) -> bool:
        """Return whether it is the same cache."""

    def __hash__(self) -> int:
        """Return a hash of the identity."""

    # For the views of `_views.py`. They do not count as accesses.
    def _items_iter(self) -> Iterator[tuple[_K, _V]]: ...
    def _values_iter(self) -> Iterator[_V]: ...
    # For the metrics of `integrations`: as `stats`, but it removes nothing, so entries that are due count too.
    def _counts(self) -> Stats: ...

@final
class _CallKey:
    """The key of a call of a cached function or of `aget_with`, with its hash."""

    @property
    def key(self) -> Any: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def own_key_error(self) -> str: ...

@final
class _CachedRun:
    """A run that several coroutines share. It ends with this object at the latest."""

    @staticmethod
    def begin(
        cache: Moka[Any, Any], key: _CallKey, state: _CachedState | None, ttl: Any, tti: Any, /
    ) -> _CachedRun | tuple[Any]: ...
    def is_superseded(self) -> bool: ...
    def begin_load(self) -> int: ...
    def end_load(self, start: int) -> None: ...
    def fail(self, start: int, error: BaseException) -> None: ...
    def complete(self, start: int, value: Any) -> None: ...

@final
class _RefreshJob:
    """A refresh that an executor computes. It computes once, however often it is called."""

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...

@final
class _RefreshClaim:
    """A refresh that Python code computes for a coroutine. If it is dropped before its end, it counts as cancelled."""

    def begin(self) -> bool: ...
    def is_superseded(self) -> bool: ...
    def complete(self, value: Any) -> None: ...
    def fail(self) -> None: ...
    def cancel(self) -> None: ...
    def is_value_live(self) -> bool: ...
    def report(self, exception: BaseException, function: Any) -> None: ...

@final
class _CachedState:
    """The options of a cached function, and its cache."""

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
        is_async: bool,
        error_types: tuple[type[Exception], ...] | None,
        error_nanos: int,
    ) -> Self: ...
    def cache_info(self) -> Any: ...
    def cache_clear(self) -> None: ...
    def cache_invalidate(self, *args: Any, **keywords: Any) -> bool: ...
    def cache_contains(self, *args: Any, **keywords: Any) -> bool: ...
    def cache_set(self, value: Any, /, *args: Any, **keywords: Any) -> None: ...
    def _record_hit(self) -> None: ...
    def _record_miss(self) -> None: ...
    def _begin_load(self) -> int: ...
    def _end_load(self, start: int, is_failure: bool) -> None: ...
    def _begin_refresh(self, *args: Any, **keywords: Any) -> _CachedRun | None: ...

@final
class _Owner:
    """Stands for an instance in the keys of a method that does not keep it alive. It equals only itself."""

    def __new__(cls, reference: Any) -> Self: ...
    def _is_of(self, instance: object) -> bool: ...
    def _is_gone(self) -> bool: ...
    def _remove_entries(self, cache: Moka[Any, Any]) -> None: ...

@final
class _OwnerRegistry:
    """The owners of one method's instances, by address."""

    def __new__(cls) -> Self: ...
    def _get_or_insert(self, address: int, owner: _Owner) -> _Owner: ...
    def _replace(self, address: int, owner: _Owner) -> None: ...
    def _remove(self, address: int, owner: _Owner) -> bool: ...
    def _items(self) -> list[tuple[int, _Owner]]: ...

@final
class ManualClock:
    """A clock for tests, which stands still until the test advances it. It is a context manager.

    All caches that are made while it is entered, in any thread, use it for good, also those of cached functions. It can
    be entered again. The times in `Stats`, which measure real work, do not follow it.

    Args:
        caches: Existing caches and cached functions, which use the clock in the `with` block. Their time stops when it
            is entered. At the end of the block it goes on from there, and it never goes back.

    Raises:
        TypeError: If caches is not an iterable of caches and cached functions.
        RuntimeError: In `with`, if a clock is entered already, in any thread.
    """

    def __new__(
        cls, caches: Iterable[Moka[Any, Any] | CachedFunction[..., Any] | CachedMethod[..., Any]] | None = None
    ) -> Self: ...
    def advance(self, seconds: _Duration) -> None:
        """Move the clock on, which makes entries expire.

        Args:
            seconds: How far, in seconds or as a timedelta. It is positive.

        Raises:
            OverflowError: If the clock would pass 144 years.
            TypeError: If seconds is neither a number nor a timedelta.
            ValueError: If seconds is not positive or out of range.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *_args: object) -> None: ...

@final
class _Trace:
    """The keys of a file, replayed for `python -m moka_py simulate`. One thread at a time may use it."""

    def __new__(cls, *, max_keys: int | None, exact: bool) -> Self: ...
    def feed_lines(self, chunk: bytes) -> None: ...
    def finish_lines(self) -> None: ...
    def feed_keys(self, keys: list[bytes]) -> None: ...
    def hit_ratio(self, method: _Method, capacity: int) -> float | None: ...
    @property
    def accesses(self) -> int: ...
    @property
    def sampled_accesses(self) -> int: ...
    @property
    def distinct_keys(self) -> int: ...
    @property
    def sampled_keys(self) -> int: ...
    @property
    def empty_keys(self) -> int: ...
    @property
    def sampling_rate(self) -> float: ...
    @property
    def min_capacity(self) -> int: ...

@final
class _LocalTier:
    """The entries of a near cache in this process, and how long they may answer."""

    def __new__(cls, cache: Moka[str | bytes, Any], absent: object) -> Self: ...
    @property
    def live_until(self) -> int: ...
    def set_live_until(self, instant: int) -> None: ...
    def now(self) -> int: ...
    def is_live(self) -> bool: ...
    def look_up(self, key: str | bytes, missing: object) -> Any: ...
    def begin_fill(self, key: str | bytes) -> _Fill | None: ...

@final
class _Fill:
    """A value on its way from the server into the local tier."""

    def finish(self, value: object, lifetime: int | None = None) -> bool: ...
    def is_superseded(self) -> bool: ...

@disjoint_base
class _NearLookup(Generic[_V]):
    """The base class of near caches, whose `get` is native."""

    def __new__(cls, *args: Any, **keywords: Any) -> Self: ...
    def __class_getitem__(cls, parameters: Any) -> GenericAlias: ...
    @overload
    def get(self, key: str | bytes | int, default: None = None, *, fresh: bool = False) -> _V | None:
        """Return the value of a key, from this process or from the server.

        Args:
            key: A str, bytes or int. It is what it is on the server: 1, "1" and b"1" are one key.
            default: The result if the key has no value.
            fresh: Whether to ask the server in any case.

        Returns:
            The value, or default.

        Raises:
            TypeError: If the key is of another type.
            ValueError: If the near cache is closed.
            Exception: The error of the client, unless `on_error="miss"`.
        """

    @overload
    def get(self, key: str | bytes | int, default: _V, *, fresh: bool = False) -> _V: ...
    @overload
    def get(self, key: str | bytes | int, default: _D, *, fresh: bool = False) -> _V | _D: ...
    def get_with(
        self,
        key: str | bytes | int,
        initializer: Callable[[], _V],
        ttl: _Duration | Default | None = ...,
        *,
        across: bool = True,
        lease: _Duration = 30.0,
        fresh: bool = False,
    ) -> _V:
        """Return the value of a key; if it has none, compute it by `initializer()` and store it on the server.

        The result is what the serializer makes of the stored payload. If a key is set or removed during the
        computation, the result is returned but not stored.

        Args:
            key: The key.
            initializer: Called without arguments if the key has no value.
            ttl: How long a new value lives, as in `set`.
            across: Whether processes compute a key only once. A token is then in the place of the value until it is
                there, and the other processes wait. It saves work, and does not exclude that two processes compute.
            lease: How long the token lives, and other calls wait for its value at most: seconds or a `timedelta`.
            fresh: Whether to ask the server in any case, and to join no computation that began before the call.

        Returns:
            The value.

        Raises:
            TypeError: If an argument is of a wrong type, or the initializer returns a coroutine.
            ValueError: If a duration is not positive.
            RuntimeError: If the initializer asks for its own key.
            Exception: The error of the initializer or of the serializer. An error of the client does not leave the
                call: the initializer runs, and its result is not stored.
        """

    def _look_up(self, key: object, missing: _D, absent: _D | None = None) -> _V | _D: ...
    def _bind(self, tier: _LocalTier, copy: Callable[[Any], Any] | None = None) -> None: ...
    def _close(self) -> bool: ...
    @property
    def _is_closed(self) -> bool: ...

_CachedFunction: type
"""The type of cached functions."""

def _cached_function(state: _CachedState, is_permanent: bool) -> Any: ...
def _look_up_many(
    cache: Moka[Any, Any], keys: Iterable[Any], absent: object, /
) -> tuple[dict[Any, Any], list[_CallKey]]: ...
def _read_loaded(loaded: Any, /) -> dict[Any, Any]: ...
def _keep_many(
    cache: Moka[Any, Any], runs: dict[_CallKey, _CachedRun], loaded: dict[Any, Any], ttl: Any, tti: Any, /
) -> None: ...
def _end_many(runs: dict[_CallKey, _CachedRun], /) -> None: ...
def _error_nanos(error_ttl: Any) -> int: ...
