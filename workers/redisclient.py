"""The one way in which dcsup gets a connection to Redis, on nodes and (handed in by the CLI) in orchestrators.

redis-py's own retries are switched off: a command that is sent again after a timeout may run twice (an XADD did: two entries
by one call). Whoever holds the connection has its own back-off and knows what a repetition means.

Each connection begins anew with what may have changed since the last one: the embedded server's socket, the password's file, and which
server the Sentinels call the master. A server that turns out to be a replica is left at once (`ReadOnlyError`, then a new connection).

What goes wrong while connecting says what to do about it: which file, which setting. No sentence ever quotes a password.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Connection, ConnectionPool, CredentialProvider, Redis, RedisError, SSLConnection, UnixDomainSocketConnection
from redis import ConnectionError as NoConnection
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

from statemachines.addresses import host_and_port_of
from statemachines.configuration import RedisSettings
from workers.messages import mark
from workers.secretfiles import read_secret

TIMEOUT_S = 2.0
SENTINEL_TIMEOUT_S = 0.5
"""A Sentinel answers in milliseconds or is not there: then the next one is asked."""


class Unusable(ValueError):
    """What [redis] names cannot be used, and waiting will not help. `template` and `values` are for whoever translates it."""

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(template.format(**values))
        self.template, self.values = template, values


class Unreachable(NoConnection):
    """No connection now, with its reason and remedy; a new try may succeed. `template` and `values` as in `Unusable`."""

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(template.format(**values))
        self.template, self.values = template, values


def client_of(settings: RedisSettings, timeout_s: float = TIMEOUT_S, *, name: str | None = None) -> Redis:
    """A client for what the [redis] table names; nothing is sent yet.

    Args:
        settings: the table.
        timeout_s: bounds every answer, and connecting (which takes 2 s at most; longer only where Sentinels do not answer).
        name: what `CLIENT LIST` calls it.

    Raises:
        ValueError: a file that it names cannot be used, or the address is none.
    """
    _check_tls_files(settings)
    options = _options(timeout_s) | ({"client_name": name} if name is not None else {})
    if settings.embedded is not None:
        return Redis.from_pool(ConnectionPool(connection_class=_EmbeddedConnection, folder=settings.embedded, **options))
    options |= _credentials(settings.username, settings.password_file, settings.password_env, "redis.password") | _tls(settings)
    if settings.url is not None:
        return _client(settings.url, options)
    kind = _FoundTlsConnection if settings.tls else _FoundConnection
    return Redis.from_pool(ConnectionPool(connection_class=kind, find=_finder(settings, timeout_s), **options))


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; nothing is sent yet.

    `timeout_s` bounds connecting and every answer. Values come back as bytes, as RQ needs them.

    Raises:
        ValueError: the address has another form.
    """
    return _client(url, _options(timeout_s))


def _client(url: str, options: dict[str, Any]) -> Redis:
    try:
        named: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:
        raise Unusable(mark("the address in [redis] url cannot be used")) from None
    if "credential_provider" in options and "username" in named:
        options["credential_provider"].username = named.pop("username")
    kind = {SSLConnection: _TlsConnection, UnixDomainSocketConnection: _SocketConnection}.get(
        named.pop("connection_class", Connection), _PlainConnection
    )
    return Redis.from_pool(ConnectionPool(connection_class=kind, **{**options, **named}))


def _options(timeout_s: float) -> dict[str, Any]:
    """`driver_info`: CLIENT SETINFO is not said; it is newer than Redis 7.0, so no user there could be allowed to say it."""
    limits = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, TIMEOUT_S)}
    return limits | {"retry": Retry(NoBackoff(), 0), "driver_info": None}


# --- who we are ---------------------------------------------------------------------------------------------------------------------------


class _Credentials(CredentialProvider):
    """Name and password as they are at this moment."""

    def __init__(self, username: str | None, read: Callable[[], str]) -> None:
        self.username, self._read = username, read

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._read()
        except ValueError as error:  # it was there when this process began; it may be there again
            raise Unreachable("{why}", why=str(error)) from None
        return (password,) if self.username is None else (self.username, password)


def _credentials(username: str | None, file: str | None, env: str | None, where: str) -> dict[str, Any]:
    if file is None and env is None:
        return {}
    where = f"{where}_file" if file is not None else f"{where}_env"

    def read() -> str:
        return read_secret(file, env, where)

    read()
    return {"credential_provider": _Credentials(username, read)}


def _tls(settings: RedisSettings) -> dict[str, Any]:
    if not settings.speaks_tls:
        return {}
    return {
        "ssl_ca_certs": settings.ca_file, "ssl_certfile": settings.cert_file, "ssl_keyfile": settings.key_file,
        "ssl_password": "",  # a key with a pass phrase fails; without this, OpenSSL would ask the terminal for it
    }  # fmt: skip


def _check_tls_files(settings: RedisSettings) -> None:
    """Files that cannot be read, or are something else, are told by name here; redis-py would not say which one it means.

    Raises:
        Unusable: one of them cannot be used.
    """
    for key in ("ca_file", "cert_file", "key_file"):
        _check_readable(f"redis.{key}", getattr(settings, key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except ssl.SSLError:
            text = mark("redis.ca_file: {file} holds no certificate; it must be the authority's, in PEM form")
            raise Unusable(text, file=settings.ca_file) from None
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except ssl.SSLError:
            text = mark("redis.cert_file: {file} and its key do not fit; both in PEM form, the key without a pass phrase")
            raise Unusable(text, file=settings.cert_file) from None


def _check_readable(where: str, file: str | None) -> None:
    try:
        if file is not None:
            Path(file).open("rb").close()
    except OSError as error:
        text = mark("{where}: the file {file} cannot be read ({reason}); put it there, readable by this user")
        raise Unusable(text, where=where, file=file, reason=error.strerror or type(error).__name__) from None


# --- where Redis is -----------------------------------------------------------------------------------------------------------------------


def _finder(settings: RedisSettings, timeout_s: float) -> Callable[[], tuple[str, int]]:
    """Asks the Sentinels, one after the other, for the master's address."""
    options = _options(min(timeout_s, SENTINEL_TIMEOUT_S)) | _tls(settings)
    options |= _credentials(
        settings.sentinel_username, settings.sentinel_password_file, settings.sentinel_password_env, "redis.sentinel_password"
    )
    kind, master = _TlsConnection if settings.tls else _PlainConnection, str(settings.sentinel_master)
    sentinels = [
        Redis.from_pool(ConnectionPool(connection_class=kind, host=host, port=port, **options))
        for host, port in map(host_and_port_of, settings.sentinels or ())
    ]

    def find() -> tuple[str, int]:
        heard = []
        for one in list(sentinels):
            try:
                state: Any = one.sentinel_master(master)
            except RedisError as error:
                heard.append(str(error))
                continue
            if state["is_master"] and not state["is_sdown"] and not state["is_odown"]:
                sentinels.remove(one)
                sentinels.insert(0, one)  # asked first the next time
                return str(state["ip"]), int(state["port"])
            heard.append(f"{state['ip']}:{state['port']} is down")
        text = mark("no Sentinel of {places} names a master '{master}' that is up ({why})")
        raise Unreachable(text, places=", ".join(settings.sentinels or ()), master=master, why="; ".join(dict.fromkeys(heard)))

    return find


class _Careful:
    """What every connection of ours does beside connecting."""

    def _connect(self) -> socket.socket:
        try:
            return super()._connect()  # type: ignore[misc, no-any-return]
        except OSError as error:
            raise _explained(error, self) or error from None

    def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            super().on_connect_check_health(check_health=check_health)  # type: ignore[misc]
        except NoConnection as error:
            raise _explained(error.__context__, self) or _closed(error, self) or error from None

    def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return super().read_response(*args, **named)  # type: ignore[misc]
        except ReadOnlyError:
            self.disconnect()  # type: ignore[attr-defined]
            raise


class _PlainConnection(_Careful, Connection):
    pass


class _TlsConnection(_Careful, SSLConnection):
    pass


class _SocketConnection(_Careful, UnixDomainSocketConnection):
    pass


class _EmbeddedConnection(_SocketConnection):
    """To the server in a data folder, whose file `socket` says where it listens: looked up anew for each connection, for a
    restarted server may listen elsewhere."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._folder = folder

    def _connect(self) -> socket.socket:
        self.path = (Path(self._folder) / "socket").read_text("utf-8").rstrip("\n")  # an OSError here is "cannot connect" to redis-py
        return super()._connect()


class _Found:
    """To the server that the Sentinels name now."""

    def __init__(self, find: Callable[[], tuple[str, int]], **options: Any) -> None:
        super().__init__(**options)
        self._find = find

    def _connect(self) -> socket.socket:
        self.host, self.port = self._find()
        return super()._connect()  # type: ignore[misc, no-any-return]


class _FoundConnection(_Found, _PlainConnection):
    pass


class _FoundTlsConnection(_Found, _TlsConnection):
    pass


# --- why there is no connection -----------------------------------------------------------------------------------------------------------

_EXPIRED, _NOT_YET, _OTHER_HOST = (10,), (9,), (62, 64)
"""OpenSSL's verify codes: certificate has expired, is not yet valid, hostname or IP address mismatch."""

_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSES_CERTIFICATE = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REVOKED")


def _explained(error: BaseException | None, connection: Any) -> Unreachable | None:
    """What an error means for the operator, where TLS has to do with it; None: it has not."""
    host, where = getattr(connection, "host", ""), connection._host_error()
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(_about_its_certificate(error.verify_code), where=where, host=host)
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return Unreachable(mark("{where} does not answer in TLS; is it the port for TLS?"), where=where)
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return None
    reason = error.reason or str(error)
    if any(word in reason for word in _REFUSES_CERTIFICATE):
        return Unreachable(mark("{where} does not accept the certificate in redis.cert_file ({reason})"), where=where, reason=reason)
    if any(word in reason for word in _WANTS_CERTIFICATE):
        return Unreachable(mark("{where} wants a client certificate: set cert_file and key_file in [redis]"), where=where)
    return Unreachable(mark("{where} and we do not agree on TLS ({reason}); is it the port for TLS?"), where=where, reason=reason)


def _about_its_certificate(code: int) -> str:
    if code in _EXPIRED:
        return mark("the certificate of {where} has expired; give that server a new one")
    if code in _NOT_YET:
        return mark("the certificate of {where} is not valid yet; is this machine's clock right?")
    if code in _OTHER_HOST:
        return mark("the certificate of {where} is not for '{host}'; use the name that it is for, or have that name put into it")
    return mark("the certificate of {where} is from an authority that is not trusted here; name the right one with ca_file in [redis]")


def _closed(error: NoConnection, connection: Any) -> Unreachable | None:
    """Whoever hangs up before the first answer often expected TLS, or another certificate. None: that is not what happened."""
    if isinstance(connection, UnixDomainSocketConnection) or not _is_hang_up(error):
        return None
    where = connection._host_error()
    if not isinstance(connection, SSLConnection):
        return Unreachable(mark("{where} hung up at the first word; if that is a port for TLS, write rediss:// or tls = true"), where=where)
    if connection.certfile is None:
        wants = mark("{where} hung up at the first word; if it wants a client certificate, set cert_file and key_file in [redis]")
        return Unreachable(wants, where=where)
    return Unreachable(mark("{where} hung up at the first word; does it accept the certificate in redis.cert_file?"), where=where)


def _is_hang_up(error: NoConnection) -> bool:
    """The same exception also carries words of the server's, such as that it has too many clients."""
    return isinstance(error.__context__, OSError) or str(error).startswith("Connection closed by server")
