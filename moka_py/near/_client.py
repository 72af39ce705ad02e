"""What the near cache needs of a client of redis-py or valkey-py: its package, its server, its settings.

How it works: the package is the one whose client class the client has. The settings are those of its connection pool,
so that the listener connects as the client does. Only here are names of the packages that they do not document:
`connection_pool.connection_kwargs`, and the pure-Python RESP3 parser. (hiredis would turn the GIL on in CPython 3.13t,
and the parser of libvalkey cannot report invalidations.)
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class SyncClient(Protocol):
    """A client such as `redis.Redis` or `valkey.Valkey`."""

    connection_pool: Any

    def execute_command(self, *args: Any, **options: Any) -> Any: ...
    def pipeline(self, transaction: bool = ...) -> Any: ...


class AsyncClient(Protocol):
    """A client such as `redis.asyncio.Redis` or `valkey.asyncio.Valkey`."""

    connection_pool: Any

    def execute_command(self, *args: Any, **options: Any) -> Any: ...
    def pipeline(self, transaction: bool = ...) -> Any: ...


# Not all versions of the packages have an error class of its own for it.
FULL_POOL = ("Too many connections", "No connection available.")


class Package:
    """The classes of redis-py or valkey-py that the near cache uses."""

    def __init__(self, name: str) -> None:
        self.name = name
        root: Any = importlib.import_module(name)
        aio: Any = importlib.import_module(f"{name}.asyncio")
        errors: Any = root.exceptions
        client_name, error_name = {"redis": ("Redis", "RedisError"), "valkey": ("Valkey", "ValkeyError")}[name]
        self.client_class: type[Any] = getattr(root, client_name)
        self.async_client_class: type[Any] = getattr(aio, client_name)
        self.connection_module: Any = importlib.import_module(f"{name}.connection")
        self.async_connection_module: Any = importlib.import_module(f"{name}.asyncio.connection")
        self.parser: type[Any] = importlib.import_module(f"{name}._parsers")._RESP3Parser
        if not hasattr(self.parser, "set_invalidation_push_handler"):
            raise ImportError("moka_py.near needs redis-py 5.1 or later, or valkey-py 6 or later")

        self.error: type[Exception] = getattr(errors, error_name)
        """The base class of the errors of the client and of the server."""
        self.connection_error: type[Exception] = errors.ConnectionError
        self.response_error: type[Exception] = errors.ResponseError
        """An error reply of the server."""
        self.no_script_error: type[Exception] = errors.NoScriptError
        self.no_permission_error: type[Exception] = errors.NoPermissionError
        self.connection_errors: tuple[type[Exception], ...] = (errors.ConnectionError, errors.TimeoutError)
        """After one of these the server counts as failing."""

        clusters = [getattr(root, f"{client_name}Cluster"), getattr(aio, f"{client_name}Cluster")]
        sentinel: Any = importlib.import_module(f"{name}.sentinel")
        async_sentinel: Any = importlib.import_module(f"{name}.asyncio.sentinel")
        self.cluster_classes = tuple(clusters)
        self.sentinel_classes = (
            sentinel.Sentinel,
            sentinel.SentinelConnectionPool,
            async_sentinel.Sentinel,
            async_sentinel.SentinelConnectionPool,
        )
        pipelines = [importlib.import_module(f"{name}{part}.client").Pipeline for part in ("", ".asyncio")]
        self.pipeline_classes = tuple(pipelines)

    def is_server_failure(self, error: BaseException) -> bool:
        """Return whether an error means that the server did not answer. A pool without a free connection does not."""
        return isinstance(error, self.connection_errors) and str(error) not in FULL_POOL


def reply_options(command: Sequence[str | bytes | int]) -> dict[str, Any]:
    """Return the options by which a client returns the reply of a command undecoded, and as the server sent it."""
    if command[0] == "SET" and "GET" in command:
        return {"NEVER_DECODE": [], "get": True}
    return {"NEVER_DECODE": []}


_packages: dict[str, Package] = {}


def _package_of(client: object) -> Package | None:
    for kind in type(client).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("redis", "valkey"):
            if name not in _packages:
                _packages[name] = Package(name)
            return _packages[name]
    return None


class Server(NamedTuple):
    """The server of a client, and how to connect to it."""

    package: Package
    address: tuple[Any, ...]
    """The host and port or the path of the socket, and the database. It is the same for clients of the same server."""
    connection_class: type[Any]
    """A class of synchronous connections."""
    settings: dict[str, Any]
    """The arguments of the connection class, as the client has them."""

    def connect_arguments(self, timeout: float) -> dict[str, Any]:
        """Return the arguments of a connection that speaks RESP3. Each step of it takes at most `timeout` seconds."""
        arguments = {
            **self.settings,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "protocol": 3,
            "parser_class": self.package.parser,
            "decode_responses": False,
            "health_check_interval": 0,
            "retry": None,
            "retry_on_timeout": False,
            "retry_on_error": [],
        }
        configuration = getattr(self.package.connection_module, "MaintNotificationsConfig", None)
        if configuration is not None:
            arguments["maint_notifications_config"] = configuration(enabled=False)
        accepted = _accepted_arguments(self.connection_class)
        return {name: value for name, value in arguments.items() if name in accepted}

    def make_sync_client(self) -> SyncClient:
        """Return a synchronous client with the settings of this one, for the probe of the listener."""
        accepted = _accepted_arguments(self.connection_class)
        settings = {name: value for name, value in self.settings.items() if name in accepted and name != "retry"}
        pool = self.package.connection_module.ConnectionPool(connection_class=self.connection_class, **settings)
        client: SyncClient = self.package.client_class(connection_pool=pool)
        return client


# They belong to the pool and to the client, or name the old place of a server that has moved.
_NOT_FOR_LISTENER = {
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "maintenance_state",
    "maintenance_notification_hash",
    "oss_cluster_maint_notifications_handler",
    "orig_host_address",
    "orig_socket_timeout",
    "orig_socket_connect_timeout",
    "event_dispatcher",
    "command_packer",
    "encoder_class",
    "cache_enabled",
    "client_cache",
}


def _accepted_arguments(connection_class: type[Any]) -> set[str]:
    accepted: set[str] = set()
    for kind in connection_class.__mro__:
        if "__init__" in vars(kind) and kind is not object:
            accepted.update(inspect.signature(vars(kind)["__init__"]).parameters)
    return accepted - {"self", "args", "kwargs"}


def _sync_connection_class(package: Package, connection_class: type[Any]) -> type[Any]:
    """Return the class of synchronous connections that corresponds to the one of a pool."""
    if issubclass(connection_class, package.connection_module.AbstractConnection):
        return connection_class
    for name in ("SSLConnection", "UnixDomainSocketConnection", "Connection"):
        if issubclass(connection_class, getattr(package.async_connection_module, name)):
            kind: type[Any] = getattr(package.connection_module, name)
            return kind
    raise ValueError(f"client must connect by TCP or a Unix socket, got connections of {connection_class.__name__}")


def server_of(client: object, *, is_async: bool) -> Server:
    """Return the server of a client.

    Raises:
        TypeError: It is no client, or a synchronous one in place of an asynchronous one, or the reverse.
        ValueError: It has a cache of its own, or is a client of a cluster or of Sentinel.
    """
    package = _package_of(client)
    wanted = "redis.asyncio.Redis or valkey.asyncio.Valkey" if is_async else "redis.Redis or valkey.Valkey"
    got = f"{type(client).__module__}.{type(client).__qualname__}"
    if package is None:
        raise TypeError(f"client must be a {wanted}, got {got}")
    if isinstance(client, package.cluster_classes):
        raise ValueError(f"client must be a client of one server, got one of a cluster: {got}")
    pool: Any = getattr(client, "connection_pool", None)
    if isinstance(client, package.sentinel_classes) or isinstance(pool, package.sentinel_classes):
        raise ValueError(f"client must be a client of one server, got one of Sentinel: {got}")
    kind = package.async_client_class if is_async else package.client_class
    if not isinstance(client, kind) or isinstance(client, package.pipeline_classes):
        raise TypeError(f"client must be a {wanted}, got {got}")
    kwargs: dict[str, Any] = dict(pool.connection_kwargs)
    if getattr(pool, "cache", None) is not None or kwargs.get("cache_enabled") or kwargs.get("client_cache"):
        raise ValueError("client must not have a cache of its own, which would hide writes from the near cache")
    connection_class = _sync_connection_class(package, pool.connection_class)
    settings = {name: value for name, value in kwargs.items() if name not in _NOT_FOR_LISTENER}
    if is_async:
        # A coroutine function, and a parser for asyncio.
        for name in ("redis_connect_func", "valkey_connect_func", "parser_class"):
            settings.pop(name, None)
    database = int(kwargs.get("db") or 0)
    if issubclass(connection_class, package.connection_module.UnixDomainSocketConnection):
        address: tuple[Any, ...] = ("unix", str(kwargs.get("path", "")), database)
    else:
        address = ("tcp", str(kwargs.get("host", "localhost")).lower(), int(kwargs.get("port", 6379)), database)
    return Server(package, address, connection_class, settings)


# They belong to the pool of the old client, or name the old place of a server that has moved.
_NOT_FOR_NEW_POOL = _NOT_FOR_LISTENER - {"encoder_class", "maint_notifications_config"}


def make_async_client(client: AsyncClient) -> Any:
    """Return a client like an asynchronous one, with the same settings and with connections of its own."""
    pool = client.connection_pool
    settings = {name: value for name, value in pool.connection_kwargs.items() if name not in _NOT_FOR_NEW_POOL}
    if hasattr(pool, "timeout"):
        # Of a pool that waits for a free connection.
        settings["timeout"] = pool.timeout
    new: Any = type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **settings)
    kind: Any = type(client)
    return kind.from_pool(new)
