"""Where a Redis is: a server, a socket, a TLS server, a master that sentinels name, or one node of a cluster."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
PREFIX = "tollgate"

_MOVES_FOLLOWED = 3


class RedisAddress(NamedTuple):
    """How to connect. `options` are those of a redis-py connection; with `sentinels`, `service` names the master.

    All keys begin with `prefix` in braces, the hash tag that keeps them on one node of a cluster.
    """

    name: str
    connection_class: type[AbstractConnection]
    options: dict[str, Any]
    prefix: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""

    async def connect(self, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
        """Open a connection to the node that holds our keys and takes writes, and have `protocol` read from it.

        redis-py opens it (sockets, TLS, passwords, databases). It ends when the writer's transport is closed; the
        writer must be kept until then. Raises RedisError or OSError.
        """
        options = dict(self.options)
        if self.sentinels:
            options["host"], options["port"] = await asyncio.to_thread(self._master)
        for _ in range(_MOVES_FOLLOWED):
            # Off the loop: redis-py looks up its own version on disk.
            connection = await asyncio.to_thread(self.connection_class, **options)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("EXISTS", f"{{{self.prefix}}}:probe")
                await connection.read_response()
            except MovedError as moved:
                await connection.disconnect(nowait=True)
                options["host"], options["port"] = moved.host or options["host"], moved.port
                continue
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            return _taken_over(connection, protocol)
        raise RedisError("the cluster sends us from node to node; it may be moving our keys")

    def _master(self) -> tuple[str, int]:
        """Ask the sentinels, one after the other, where the master is; blocks."""
        # One try each: the next sentinel is asked sooner than a dead one answers, and the wire tries all of them again.
        once = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
        sentinel = Sentinel(list(self.sentinels), sentinel_kwargs=once)  # type: ignore[no-untyped-call]
        try:
            host, port = sentinel.discover_master(self.service)  # type: ignore[no-untyped-call]
        finally:
            for client in sentinel.sentinels:
                client.close()
        return str(host), int(port)


def redis_address(url: str, *, timeout_s: float) -> RedisAddress:
    """Read a URL; ``?prefix=`` sets the keys' prefix, other options are those of redis-py. Raises ValueError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", PREFIX)
    if not prefix or any(sign in prefix for sign in "{}\t\n@"):
        raise ValueError(f"store.url: the prefix '{prefix}' cannot begin keys; use letters, digits, - and _")
    scheme = parts.scheme.replace("valkey", "redis")
    sentinels: tuple[tuple[str, int], ...] = ()
    service = ""
    netloc, path = parts.netloc, parts.path
    if scheme.endswith("+sentinel"):
        credentials, _, hosts = netloc.rpartition("@")
        sentinels = tuple(_host(host) for host in hosts.split(",") if host)
        service, _, database = path.strip("/").partition("/")
        if not sentinels or not service:
            raise ValueError(
                "store.url: a sentinel URL names its hosts and the service, host:26379,host2:26379/service"
            )
        scheme = scheme.removesuffix("+sentinel")
        netloc, path = f"{credentials}@localhost" if credentials else "localhost", f"/{database}"
    plain = urlunsplit((scheme, netloc, path, urlencode(options), ""))
    if scheme == "unix":
        plain = f"unix://{netloc}{path}" + (f"?{urlencode(options)}" if options else "")
    found: dict[str, Any] = dict(parse_url(plain))
    connection_class = found.pop("connection_class", Connection)
    # RESP2 has no push messages, so answers come strictly in the order of the commands; timeouts are the wire's.
    found.update(protocol=2, socket_timeout=None, socket_connect_timeout=timeout_s)
    return RedisAddress(_without_password(url), connection_class, found, prefix, sentinels, unquote(service))


def _taken_over(connection: AbstractConnection, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    """Take an open connection from redis-py, whose way of reading answers costs several times what ours does."""
    writer = connection._writer
    assert writer is not None
    writer.transport.set_protocol(protocol)
    # redis-py must not close what is ours now when it is collected.
    connection._reader = connection._writer = None
    return writer


def _host(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator:
        return text, SENTINEL_PORT
    if not port.isdigit():
        raise ValueError(f"store.url: '{port}' is not a port")
    return host.strip("[]"), int(port)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
