"""Measures the near cache beside other client-side caches of Redis: a hit, a miss, and an invalidation.

MOKA_PY_BENCH_SERVER names the server, as `ci/server redis-8` prints it. (redis-py's own cache refuses Redis before
7.4.) Without it there are no rows. All times are those of the wall clock, because several threads and the server work.

- A hit reads one of a thousand keys that are kept locally, beside all others.
- A miss reads a key that is on the server and not yet kept.
- An invalidation is the time from many writes by another client until the last of them is seen, for each of them.
"""

import asyncio
import contextlib
import functools
import importlib
import os
import time

import harness
import subjects as s

SERVER_VARIABLE = "MOKA_PY_BENCH_SERVER"
PREFIX = "near-bench"
OLD = 1
MISSES = 1_000
CHUNK = 1_000
# Another cache that takes longer to be filled is left out.
FILL_SECONDS = 90.0
# Async clients fill their caches by so many calls at the same time.
CONCURRENT = 50
# An invalidation that has not come by then never comes.
LOST_SECONDS = 5.0
POLL_SECONDS = 0.0001
WRITES = 1_000
# redis-py scans all entries for each invalidation: 13 ms with 10,000 entries.
SCANNED_ENTRIES, MIN_WRITES = 1_000_000, 4
MAX_ROUNDS = 7

PLAIN_GET, REDIS_PY, GLIDE, COREDIS, CASHEWS = "plain GET", "redis-py cache", "valkey-glide", "coredis", "cashews"

clock = time.perf_counter_ns


class TooSlow(Exception):
    """Filling a cache took too long."""


def name(key):
    return f"{PREFIX}:{key}"


# Sync subjects. Each is a context manager that gives a function of a key, which returns its value, and perhaps one that
# reads many keys. A key is a str of digits.


@contextlib.contextmanager
def ours(host, port, capacity):
    import redis

    from moka_py.near import NearCache

    with (
        redis.Redis(host=host, port=port) as client,
        NearCache(client, PREFIX, ttl=None, capacity=capacity, serializer="raw") as near,
    ):
        deadline = time.monotonic() + LOST_SECONDS
        near.get("0")
        while not near.is_coherent:
            if time.monotonic() > deadline:
                raise RuntimeError("the near cache does not become coherent")
            time.sleep(POLL_SECONDS)
        yield near.get, near.get_many


@contextlib.contextmanager
def plain_get(host, port, capacity):
    import redis

    with redis.Redis(host=host, port=port) as client:
        yield lambda key: client.get(name(key)), None


@contextlib.contextmanager
def redis_py(host, port, capacity):
    import redis
    from redis.cache import CacheConfig

    with redis.Redis(host=host, port=port, protocol=3, cache_config=CacheConfig(max_size=capacity)) as client:
        yield lambda key: client.get(name(key)), None


# Async subjects: the functions are coroutine functions.


@contextlib.asynccontextmanager
async def glide(host, port, capacity):
    import glide

    configuration = glide.GlideClientConfiguration(
        [glide.NodeAddress(host, port)],
        client_side_cache=importlib.import_module("glide_shared.cache").ClientSideCache.create(
            max_cache_kb=capacity, entry_ttl_ms=0, server_assisted=True
        ),
    )
    client = await glide.GlideClient.create(configuration)
    try:
        yield lambda key: client.get(name(key))
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def coredis(host, port, capacity):
    import coredis
    from coredis.patterns.cache import LRUCache

    async with coredis.Redis(host=host, port=port, cache=LRUCache(max_keys=capacity)) as client:
        yield lambda key: client.get(name(key))


@contextlib.asynccontextmanager
async def cashews(host, port, capacity):
    import cashews
    from cashews.backends.memory import Memory

    cache = cashews.Cache()
    # Else it would report no failure of its listener.
    cache.setup(
        f"redis://{host}:{port}/0",
        client_side=True,
        client_side_prefix=f"{PREFIX}:",
        local_cache=Memory(size=capacity),
        suppress=False,
    )
    await cache.init()
    try:
        yield cache.get
    finally:
        await cache.close()


SYNC = {s.OURS: ("redis", ours), PLAIN_GET: ("redis", plain_get), REDIS_PY: ("redis", redis_py)}
ASYNC = {GLIDE: ("glide", glide), COREDIS: ("coredis", coredis), CASHEWS: ("cashews", cashews)}


def read_all(get, keys):
    begin = clock()
    for key in keys:
        get(key)
    return (clock() - begin) / len(keys)


async def read_all_async(get, keys):
    begin = clock()
    for key in keys:
        await get(key)
    return (clock() - begin) / len(keys)


class Run:
    """Measures one subject with so many entries. `costs` has the figures of its rows."""

    def __init__(self, subject, client, address, entries, rounds, laps):
        self._subject = subject
        self._client = client
        self._address = address
        self._entries = entries
        self._rounds = rounds
        self._laps = laps
        self._needles = strings(range(0, entries, max(1, entries // harness.NEEDLES)))[: harness.NEEDLES]
        self._unread = iter(range(entries, entries + (rounds + 1) * MISSES))
        self._capacity = 2 * entries + (rounds + 1) * MISSES
        self._writes = WRITES
        if subject == REDIS_PY:
            self._writes = min(WRITES, max(MIN_WRITES, SCANNED_ENTRIES // entries))
        self._value = OLD
        self.costs = {"hit": [], "miss": [], "invalidation": []}

    def new_keys(self):
        return strings(next(self._unread) for _ in range(MISSES))

    def write(self):
        """Write keys as another client, and return the last of them with its new value."""
        self._value += 1
        written = [self._needles[position % len(self._needles)] for position in range(self._writes)]
        pipeline = self._client.pipeline(transaction=False)
        for key in written:
            pipeline.set(name(key), self._value)
        pipeline.execute()
        return written[-1], self._value

    def add(self, row, cost):
        self.costs[row].append(cost)

    def lost(self):
        print(f"{self._subject}: no invalidation came within {LOST_SECONDS:.0f} s", flush=True)

    def measure(self, open_subject):
        with open_subject(*self._address, self._capacity) as (get, get_many):
            fill(get, get_many, self._entries)
            read = harness.own_code(read_all)
            for _ in range(self._rounds):
                read(get, self._needles)
                self.add("hit", min(read(get, self._needles) for _ in range(self._laps)))
                self.add("miss", read(get, self.new_keys()))
                begin = clock()
                last, value = self.write()
                while int(get(last)) != value:
                    if clock() - begin > LOST_SECONDS * 1e9:
                        return self.lost()
                    time.sleep(POLL_SECONDS)
                self.add("invalidation", (clock() - begin) / self._writes)

    async def measure_async(self, open_subject):
        async with open_subject(*self._address, self._capacity) as get:
            await fill_async(get, self._entries)
            for _ in range(self._rounds):
                await read_all_async(get, self._needles)
                laps = [await read_all_async(get, self._needles) for _ in range(self._laps)]
                self.add("hit", min(laps))
                self.add("miss", await read_all_async(get, self.new_keys()))
                begin = clock()
                last, value = self.write()
                while int(await get(last)) != value:
                    if clock() - begin > LOST_SECONDS * 1e9:
                        return self.lost()
                    await asyncio.sleep(POLL_SECONDS)
                self.add("invalidation", (clock() - begin) / self._writes)


def strings(numbers):
    return [str(number) for number in numbers]


def chunks(entries):
    """Yield the keys of all entries in parts, for as long as filling may take."""
    deadline = time.monotonic() + FILL_SECONDS
    for start in range(0, entries, CHUNK):
        if time.monotonic() > deadline:
            raise TooSlow
        yield strings(range(start, min(start + CHUNK, entries)))


def fill(get, get_many, entries):
    for keys in chunks(entries):
        if get_many is not None:
            get_many(keys)
        else:
            for key in keys:
                get(key)


async def fill_async(get, entries):
    for keys in chunks(entries):
        for start in range(0, len(keys), CONCURRENT):
            await asyncio.gather(*map(get, keys[start : start + CONCURRENT]))


def store(client, count):
    """Give the server so many keys."""
    client.flushall()
    for start in range(0, count, CHUNK):
        client.mset({name(number): OLD for number in range(start, min(start + CHUNK, count))})


def measure(client, address, entries, options):
    """Return the figures of each row, by subject."""
    rounds = min(options.scale.rounds, MAX_ROUNDS)
    rows = {"hit": {}, "miss": {}, "invalidation": {}}
    for subject, (package, open_subject) in (SYNC | ASYNC).items():
        if harness.peer(package) is None:
            continue
        store(client, entries + (rounds + 1) * MISSES)
        run = Run(subject, client, address, entries, rounds, options.scale.laps)
        try:
            if subject in SYNC:
                run.measure(open_subject)
            else:
                asyncio.run(run.measure_async(open_subject))
        except Exception as error:
            if subject == s.OURS:
                raise
            reason = "it takes too long to fill" if isinstance(error, TooSlow) else f"{type(error).__name__}: {error}"
            print(f"{subject} is left out with {entries:,} entries: {reason}", flush=True)
            continue
        for row, costs in run.costs.items():
            # A plain GET keeps nothing.
            if costs and not (subject == PLAIN_GET and row == "invalidation"):
                rows[row][subject] = harness.Figure.of(costs)
    return rows


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("near", options)
    server = os.environ.get(SERVER_VARIABLE)
    if server is None or harness.peer("redis") is None:
        print(f"left out: it needs redis-py, and {SERVER_VARIABLE} must be the address of a server")
    else:
        import redis

        host, port = server.rsplit(":", 1)
        address = host, int(port)
        with redis.Redis(host=host, port=int(port)) as client:
            run = functools.partial(measure, client, address, options=options)
            for entries in (options.scale.entries, options.scale.large):
                for row, figures in run(entries).items():
                    report.add(f"near cache, {row}, {entries:,} entries", figures)
                report.table(s.OURS)
            client.flushall()
    report.close()


if __name__ == "__main__":
    main()
