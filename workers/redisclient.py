"""The one way in which a node's processes get a connection to Redis.

redis-py's own retries are switched off: a command that is sent again after a timeout may run twice (an XADD did: two entries
by one call). Whoever holds the connection has its own back-off and knows what a repetition means.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from statemachines.configuration import RedisSettings

TIMEOUT_S = 2.0


def client_of(settings: RedisSettings, *, timeout_s: float = TIMEOUT_S) -> Redis:
    """A client for what the [redis] table names; nothing is sent yet.

    Raises:
        ValueError: the address is none.
    """
    if settings.url is not None:
        return connect(settings.url, timeout_s=timeout_s)
    pool = ConnectionPool(connection_class=_EmbeddedConnection, folder=str(settings.embedded), **_options(timeout_s))
    return Redis(connection_pool=pool)


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; nothing is sent yet.

    `timeout_s` bounds connecting and every answer. Values come back as bytes, as RQ needs them.

    Raises:
        ValueError: the address has another form.
    """
    return Redis.from_url(url, socket_connect_timeout=timeout_s, **_options(timeout_s))


def _options(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "retry": Retry(NoBackoff(), 0)}


class _EmbeddedConnection(UnixDomainSocketConnection):
    """To the server in a data folder, whose file `socket` says where it listens: looked up anew for each connection, for a
    restarted server may listen elsewhere."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._folder = folder

    def _connect(self) -> socket.socket:
        self.path = (Path(self._folder) / "socket").read_text("utf-8").rstrip("\n")  # an OSError here is "cannot connect" to redis-py
        return super()._connect()  # type: ignore[no-untyped-call, no-any-return]
