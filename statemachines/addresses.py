"""How the addresses of Redis are spelt: checked here, so that both sides refuse the same ones and nobody quotes a password in doing so."""

from __future__ import annotations

import re

_USER = r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:@/?#\[\]]+)"
_PORT = r"(?::0*(?P<port>[1-9][0-9]{0,4}))"
_URL = re.compile(rf"(?P<scheme>rediss?)://{_USER}{_HOST}?{_PORT}?(?:/[0-9]*)?(?P<query>\?[^#]*)?|unix://{_USER.replace('P<', 'P<unix_')}"
                  r"/[^?#]*(?P<unix_query>\?[^#]*)?")  # fmt: skip
_HOST_AND_PORT = re.compile(rf"(?P<host>{_HOST}){_PORT}?")
_PASSWORD_IN_QUERY = re.compile(r"[?&]password=")
_USER_IN_QUERY = re.compile(r"[?&]username=")
PORT_MAX = 65535
REDIS_PORT, SENTINEL_PORT = 6379, 26379


def redis_url(value: str) -> str:
    """The value, if it is a Redis URL. Characters such as `/`, `@` and `#` in a password are written as %2F, %40 and %23.

    Raises:
        ValueError: it is none; the words do not quote it.
    """
    found = _URL.fullmatch(value)
    if found is None or int(found["port"] or 1) > PORT_MAX:
        raise ValueError("an address such as redis://host:6379/0, rediss://... (TLS) or unix:///path/of/socket")
    return value


def without_user(url: str, *, tls: bool = False) -> str:
    """A Redis URL without name and password, and with `tls` as rediss://."""
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2] if "@" in rest.partition("?")[0] else rest
    return f"{'rediss' if tls and scheme == 'redis' else scheme}://{place.partition('?')[0]}"


def place_of(url: str) -> tuple[str, int] | None:
    """Host and port of a `redis://` or `rediss://` URL; None: it is a socket on this machine."""
    found = re.match(rf"rediss?://(?:[^@/]*@)?(?P<host>{_HOST})?{_PORT}?", url)
    return (found["host"] or "localhost", int(found["port"] or REDIS_PORT)) if found is not None else None


def speaks_tls(url: str) -> bool:
    return url.startswith("rediss://")


def holds_password(url: str) -> bool:
    """Whether a Redis URL has a password in it."""
    found = _URL.fullmatch(url)
    return found is not None and bool(found["password"] or found["unix_password"] or _PASSWORD_IN_QUERY.search(url))


def names_user(url: str) -> bool:
    """Whether a Redis URL names an ACL user."""
    found = _URL.fullmatch(url)
    return found is not None and bool(found["user"] or found["unix_user"] or _USER_IN_QUERY.search(url))


def host_and_port(value: str) -> str:
    """The value, if it is `host`, `host:port` or `[IPv6 address]:port`.

    Raises:
        ValueError: it is none.
    """
    found = _HOST_AND_PORT.fullmatch(value)
    if found is None or int(found["port"] or 1) > PORT_MAX:
        raise ValueError("a host and its port, such as sentinel1:26379 or [fe80::1]:26379")
    return value


def host_and_port_of(value: str, port: int = SENTINEL_PORT) -> tuple[str, int]:
    """The two parts of what `host_and_port` accepted; `port` where it names none."""
    found = _HOST_AND_PORT.fullmatch(value)
    assert found is not None
    return found["host"].strip("[]"), int(found["port"] or port)
