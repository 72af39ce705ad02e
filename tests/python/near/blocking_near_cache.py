"""`BlockingNearCache`: an `AsyncNearCache` behind the methods of `NearCache`, so that one test serves both.

Its coroutines run in the event loop of a `LoopThread`. Initializers run in threads, since those of the tests wait.
"""

import asyncio
import concurrent.futures
import importlib
import inspect
import threading

from moka_py.near import AsyncNearCache

TIME_LIMIT_SECONDS = 60.0

_SETTINGS = (
    "host",
    "port",
    "db",
    "username",
    "password",
    "socket_timeout",
    "socket_connect_timeout",
    "decode_responses",
    "client_name",
    "protocol",
    "retry_on_error",
)


class LoopThread:
    """A thread with an event loop. The end of its `with` block ends both."""

    def __init__(self, run=asyncio.run):
        self._run = run
        self._started = threading.Event()
        self.errors = []
        # They are closed at the end.
        self.clients = []

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, args=(self._main(),), name="event loop")
        self._thread.start()
        assert self._started.wait(TIME_LIMIT_SECONDS)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIME_LIMIT_SECONDS)
        assert not self._thread.is_alive(), "the event loop does not end"
        assert self.errors == []

    async def _main(self):
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()
        for client in self.clients:
            await client.aclose()

    def submit(self, coroutine):
        """Run a coroutine in the loop. Return a `concurrent.futures.Future`."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait_for(self, coroutine):
        """Run a coroutine in the loop, and return its result."""
        future = self.submit(coroutine)
        try:
            return future.result(TIME_LIMIT_SECONDS)
        except concurrent.futures.CancelledError:
            raise AssertionError("the coroutine was cancelled") from None


def like_sync_client(client):
    """Return a client of asyncio with the settings of a synchronous one."""
    name = type(client).__module__.partition(".")[0]
    aio = importlib.import_module(f"{name}.asyncio")
    retry = importlib.import_module(f"{name}.asyncio.retry").Retry
    backoff = importlib.import_module(f"{name}.backoff").NoBackoff
    kwargs = client.connection_pool.connection_kwargs
    options = {each: kwargs[each] for each in _SETTINGS if each in kwargs}
    if "path" in kwargs:
        options["unix_socket_path"] = kwargs["path"]
    options["retry"] = retry(backoff(), kwargs["retry"]._retries)
    options["max_connections"] = client.connection_pool.max_connections
    kind = getattr(aio, "Redis", None) or aio.Valkey
    if client.connection_pool.connection_class.__name__ == "SSLConnection":
        accepted = inspect.signature(kind).parameters
        options["ssl"] = True
        options |= {name: kwargs[name] for name in kwargs if name.startswith("ssl_") and name in accepted}
    return kind(**options)


class BlockingNearCache:
    """An `AsyncNearCache` whose methods wait for their coroutines."""

    def __init__(self, thread, client, *args, **options):
        self._thread = thread
        self.client = like_sync_client(client)
        thread.clients.append(self.client)
        self.near = AsyncNearCache(self.client, *args, **options)

    def __getattr__(self, name):
        attribute = getattr(self.near, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        def call(*args, **keywords):
            return self._thread.wait_for(attribute(*args, **keywords))

        return call

    def get_with(self, key, initializer, *args, **keywords):
        """Do what `NearCache.get_with` does. The initializer is a function, or a wrong argument of a test."""

        async def initialize():
            result = await asyncio.to_thread(initializer)
            return await result if inspect.isawaitable(result) else result

        given = initialize if callable(initializer) else initializer
        return self._thread.wait_for(self.near.get_with(key, given, *args, **keywords))

    def close(self):
        self._thread.wait_for(self.near.close())

    def __enter__(self):
        self._thread.wait_for(self.near.__aenter__())
        return self

    def __exit__(self, *_):
        self.close()
