"""What a client sees: whether the addresses of server and agents take connections, seen from where this orchestrator runs.

Each configured endpoint (floating IP and port) is connected to and closed again, every `interval`. A connect that is refused, finds no
route, is not made within `limit` (half open, hanging: a packet filter, a frozen machine), or is closed by the other side at once (a relay
that has nobody behind it) is a failure; a client would have seen the same. That nothing could be tried for a reason of our own (no free
file, no free port) is no answer and changes nothing.

**One thread** of its own does it for all clusters, with sockets that never block, so the loop that supervises waits for none of it: it
only takes what was seen (`Endpoints.seen`). One connect is under way per endpoint at most, and `OPEN_MAX` in all; where more hang at the
same time, the others come later and nothing else. Measured: 200 endpoints once a second cost 5 % of a core.
Names are resolved by threads of their own, for a resolver cannot be interrupted: one a name at most, `RESOLVERS_MAX` in all. An address
that was found is used until a newer one is; a name that was never found within the limit is a failure with that reason.

**What counts.** A single failure counts, for a client may have been hit by it. But flapping must not flood the log: of one endpoint at
most one change a second is shown, and failures between are neither lost nor repeated: they are told as one outage that lasts until a
success that no failure followed before it was told.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from statemachines.configuration import EndpointSettings

log = structlog.get_logger()

CHANGE_EVERY_S = 1.0
"""What is shown of an endpoint stands at least so long."""

OPEN_MAX = 200
"""Connects under way at the same time; what one process may have open is limited, on Windows to 512 in one wait."""

HELD_S = 0.25
"""A connection that the other side ends within this time, though nothing was said, was none to a client."""

RESOLVERS_MAX = 16
RESOLVE_EVERY_S = 60.0
"""How long an address is used before its name is asked for again."""

TICK_S = 0.02
"""How exactly a probe's time is kept."""

IDLE_S = 0.25
"""The longest wait: so soon an endpoint that is new, or no more wanted, is noticed."""

Key = tuple[str, str]
"""Cluster and name of an endpoint."""

Address = tuple[int, tuple[Any, ...]]
"""Address family, and where to connect to as `socket.connect` takes it."""


def _codes(*names: str) -> frozenset[int]:
    """The error numbers that this platform has under these names (Windows has its own for sockets)."""
    spelled = (prefixed for name in names for prefixed in (name, f"WSA{name}"))
    return frozenset(getattr(errno, name) for name in spelled if hasattr(errno, name))


_UNDER_WAY = _codes("EINPROGRESS", "EWOULDBLOCK", "EALREADY")
_OUR_OWN = _codes("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EADDRINUSE", "EACCES", "EPERM")
"""Why we could not even try: says nothing about the endpoint."""

_WORDS = {
    **dict.fromkeys(_codes("ECONNREFUSED"), "refused"),
    **dict.fromkeys(_codes("ETIMEDOUT"), "no answer"),
    **dict.fromkeys(_codes("EHOSTUNREACH", "EHOSTDOWN"), "no route to the host"),
    **dict.fromkeys(_codes("ENETUNREACH", "ENETDOWN"), "no route to the network"),
    **dict.fromkeys(_codes("ECONNRESET", "ECONNABORTED"), "reset"),
}


def _reason(code: int) -> str:
    return _WORDS.get(code) or os.strerror(code)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client would have found."""

    up: bool
    mono_s: float
    """time.monotonic(): of a failure when that connect began, of a success when it was made."""
    within_s: float = 0.0
    """The change happened at most so long before: the last probe that found it otherwise."""
    reason: str = ""


@dataclass(slots=True)
class Telling:
    """What of one endpoint's probes is shown: no failure is left out, and at most one change a second."""

    shown: Seen | None = None
    _since_s: float = 0.0
    _waiting: list[Seen] = field(default_factory=list)

    def note(self, seen: Seen) -> None:
        """One probe's result."""
        newest = self._waiting[-1] if self._waiting else self.shown
        if newest is not None and newest.up == seen.up:
            return
        if self._waiting and newest is not None and newest.up and (self.shown is not None or len(self._waiting) > 1):
            self._waiting.pop()  # a success that nobody was told of, between two failures
        else:
            self._waiting.append(seen)

    def look(self, now_s: float) -> Seen | None:
        """What is shown now; None: nothing is known yet."""
        if self._waiting and (self.shown is None or now_s - self._since_s >= CHANGE_EVERY_S):
            self.shown, self._since_s = self._waiting.pop(0), now_s
        return self.shown


class Names:
    """Host names as addresses, without ever waiting for a resolver."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, list[Address] | str] = {}
        self._asked_s: dict[str, float] = {}
        self._asking: set[str] = set()

    def find(self, host: str, now_s: float) -> list[Address] | str | None:
        """Addresses with port 0; a reason why there are none; or None while that is not known."""
        if (address := _literal(host)) is not None:
            return [address]
        with self._lock:
            stale = now_s - self._asked_s.get(host, -RESOLVE_EVERY_S) >= RESOLVE_EVERY_S or isinstance(self._found.get(host), str)
            if stale and host not in self._asking and len(self._asking) < RESOLVERS_MAX:
                self._asking.add(host)
                self._asked_s[host] = now_s
                threading.Thread(target=self._ask, args=(host,), name=f"resolve {host}", daemon=True).start()
            return self._found.get(host)

    def _ask(self, host: str) -> None:
        try:
            found: list[Address] | str = _distinct(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found = f"the name is not resolved: {getattr(error, 'strerror', None) or error}"
        with self._lock:
            self._asking.discard(host)
            if not isinstance(found, str) or not isinstance(self._found.get(host), list):
                self._found[host] = found


def _literal(host: str) -> Address | None:
    """The address that `host` itself is."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return (socket.AF_INET, (host, 0)) if version == 4 else (socket.AF_INET6, (host, 0, 0, 0))


def _distinct(found: Iterable[tuple[int, int, int, str, tuple[Any, ...]]]) -> list[Address]:
    return [*dict.fromkeys((family, place) for family, _type, _protocol, _name, place in found)]


@dataclass(slots=True)
class _Probe:
    """One endpoint, and the connect to it that is under way."""

    settings: EndpointSettings
    due_s: float
    telling: Telling = field(default_factory=Telling)
    last_s: float | None = None
    """When the last probe that gave an answer began."""
    begun_s: float = 0.0
    addresses: list[Address] = field(default_factory=list)
    """Those not tried yet: a client tries one after the other."""
    socket: socket.socket | None = None
    made_s: float | None = None
    """When the connection was made that is held for a moment now."""

    @property
    def limit_s(self) -> float:
        return self.begun_s + self.settings.limit if self.made_s is None else self.made_s + HELD_S

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Endpoints:
    """Probes endpoints while they are wanted. Safe to call from any thread; nothing waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while the table of probes or what is shown of one changes; never during a connect."""
        self._wanted: dict[Key, EndpointSettings] = {}
        self._probes: dict[Key, _Probe] = {}
        self._names = Names()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._said_why = ""

    def watch(self, wanted: Mapping[Key, EndpointSettings]) -> None:
        """Probe these and no others from now on. One that stays as it is goes on; one that is new knows nothing yet."""
        if wanted == self._wanted:
            return
        with self._lock:
            self._wanted = dict(wanted)
            kept = {key: probe for key, probe in self._probes.items() if wanted.get(key) == probe.settings}
            self._probes = kept | _fresh([(key, one) for key, one in wanted.items() if key not in kept])
        if wanted and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="endpoints", daemon=True)
            self._thread.start()

    def seen(self) -> dict[Key, Seen]:
        """What is to be told of each endpoint now; one that gave no answer yet is absent."""
        now_s = time.monotonic()
        with self._lock:
            looked = {key: probe.telling.look(now_s) for key, probe in self._probes.items()}
        return {key: seen for key, seen in looked.items() if seen is not None}

    def close(self) -> None:
        """Probe nothing any more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    # --- in the thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        open_probes: dict[Key, _Probe] = {}
        with selectors.DefaultSelector() as selector:
            while not self._closing.is_set():
                try:
                    self._round(selector, open_probes)
                except Exception:
                    log.exception("probing endpoints failed, and goes on")
                    self._closing.wait(1.0)
            for probe in open_probes.values():
                probe.close()

    def _round(self, selector: selectors.BaseSelector, open_probes: dict[Key, _Probe]) -> None:
        probes = self._probes  # replaced as a whole when others are wanted, never changed
        self._abandon(selector, open_probes, probes)
        now_s = time.monotonic()
        due = [(key, probe) for key, probe in probes.items() if probe.due_s <= now_s and key not in open_probes]
        for key, probe in sorted(due, key=lambda item: item[1].due_s):
            if len(open_probes) < OPEN_MAX and self._begin(selector, probe, now_s):
                open_probes[key] = probe
        self._wait(selector, open_probes, _next_s(probes, open_probes))
        self._expire(selector, open_probes)

    def _abandon(self, selector: selectors.BaseSelector, open_probes: dict[Key, _Probe], probes: dict[Key, _Probe]) -> None:
        """Those that nobody wants any more."""
        for key in [key for key, probe in open_probes.items() if probes.get(key) is not probe]:
            _let_go(selector, open_probes.pop(key))

    def _begin(self, selector: selectors.BaseSelector, probe: _Probe, now_s: float) -> bool:
        """Begin to connect; True: it is under way."""
        found = self._names.find(probe.settings.host, now_s)
        if found is None and now_s - probe.due_s <= probe.settings.limit:
            return False  # as soon as its name is resolved
        probe.begun_s, probe.made_s = (probe.due_s if found is None else now_s), None
        probe.due_s = now_s + probe.settings.interval
        if found is None or isinstance(found, str):
            self._answered(probe, found or "the name is not resolved: no answer")
            return False
        probe.addresses = [(family, (place[0], probe.settings.port, *place[2:])) for family, place in found]
        return self._go_on(selector, probe, "")

    def _go_on(self, selector: selectors.BaseSelector, probe: _Probe, reason: str) -> bool:
        """Try the next address; True: that is under way."""
        while probe.addresses:
            probe.socket, code = _connect(*probe.addresses.pop(0))
            if probe.socket is not None:
                selector.register(probe.socket, selectors.EVENT_WRITE, probe)
                return True
            if code in _OUR_OWN:
                self._could_not_try(probe, code)
                return False
            reason = _reason(code)
        self._answered(probe, reason or "no address")
        return False

    def _wait(self, selector: selectors.BaseSelector, open_probes: dict[Key, _Probe], until_s: float) -> None:
        """Take answers as they come, until something else is to be done."""
        while (left_s := until_s - time.monotonic()) > 0 and not self._closing.is_set():
            if not selector.get_map():  # Windows cannot wait for nothing
                self._closing.wait(left_s)
                return
            self._take(selector, open_probes, left_s)

    def _take(self, selector: selectors.BaseSelector, open_probes: dict[Key, _Probe], timeout_s: float) -> None:
        ready = {id(key.data) for key, _ in selector.select(timeout_s)}
        for key in [key for key, probe in open_probes.items() if id(probe) in ready]:
            probe = open_probes[key]
            under_way = self._connected(selector, probe) if probe.made_s is None else self._held(selector, probe)
            if not under_way:
                del open_probes[key]

    def _connected(self, selector: selectors.BaseSelector, probe: _Probe) -> bool:
        """The connect has ended; True: something is still under way."""
        assert probe.socket is not None
        code = _result(probe.socket)
        if code == 0:
            probe.made_s = time.monotonic()
            selector.modify(probe.socket, selectors.EVENT_READ, probe)
            return True
        _let_go(selector, probe)
        return self._go_on(selector, probe, _reason(code))

    def _held(self, selector: selectors.BaseSelector, probe: _Probe) -> bool:
        """The other side says something, or ends the connection."""
        assert probe.socket is not None
        try:
            reason = "" if probe.socket.recv(1) else "closed at once"
        except OSError as error:
            reason = _reason(error.errno or 0)
        _let_go(selector, probe)
        self._answered(probe, reason)
        return False

    def _expire(self, selector: selectors.BaseSelector, open_probes: dict[Key, _Probe]) -> None:
        """Connects that hang, and connections that were held long enough. Answers are taken first: had this process stood still, they
        would have come in time."""
        now_s = time.monotonic()
        if not any(probe.limit_s <= now_s for probe in open_probes.values()):
            return
        if selector.get_map():
            self._take(selector, open_probes, 0.0)
        for key in [key for key, probe in open_probes.items() if probe.limit_s <= now_s]:
            probe = open_probes.pop(key)
            _let_go(selector, probe)
            self._answered(probe, "" if probe.made_s is not None else f"no answer within {probe.settings.limit:g} s")

    def _answered(self, probe: _Probe, reason: str) -> None:
        """`reason`: why it is a failure; empty: it is none."""
        at_s = probe.begun_s if reason or probe.made_s is None else probe.made_s
        within_s = max(0.0, at_s - probe.last_s) if probe.last_s is not None else 0.0
        with self._lock:
            probe.telling.note(Seen(not reason, at_s, within_s, reason))
        probe.last_s = probe.begun_s

    def _could_not_try(self, probe: _Probe, code: int) -> None:
        why = os.strerror(code)
        if why != self._said_why:  # it is the same for all of them, again and again
            self._said_why = why
            log.warning("an endpoint could not be probed", endpoint=probe.settings.name, reason=why)


def _fresh(new: list[tuple[Key, EndpointSettings]]) -> dict[Key, _Probe]:
    """Their first probes are spread over a second, so that they do not all come at once for ever."""
    now_s = time.monotonic()
    return {key: _Probe(one, now_s + min(one.interval, 1.0) * place / len(new)) for place, (key, one) in enumerate(new)}


def _next_s(probes: dict[Key, _Probe], open_probes: dict[Key, _Probe]) -> float:
    """When something is to be done, answers apart."""
    now_s = time.monotonic()
    moments = [probe.limit_s if key in open_probes else probe.due_s for key, probe in probes.items()]
    return min(max(min(moments, default=now_s + IDLE_S), now_s + TICK_S), now_s + IDLE_S)


def _connect(family: int, place: tuple[Any, ...]) -> tuple[socket.socket | None, int]:
    """Begin to connect: the socket (it has ended, or not yet), or None and the error number."""
    connecting = None
    try:
        connecting = socket.socket(family, socket.SOCK_STREAM)
        connecting.setblocking(False)
        code = connecting.connect_ex(place)
    except OSError as error:
        code = error.errno or errno.EINVAL
    if connecting is not None and code not in _UNDER_WAY and code != 0:
        connecting.close()
        connecting = None
    return connecting, code


def _result(connecting: socket.socket) -> int:
    """0: connected. A socket that found itself (its own port was the free one it was given) found nobody."""
    code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    try:
        itself = connecting.getsockname() == connecting.getpeername()
    except OSError:  # ended already by the other side: that shows when something is read
        itself = False
    return code or (errno.ECONNREFUSED if itself else 0)


def _let_go(selector: selectors.BaseSelector, probe: _Probe) -> None:
    if probe.socket is not None:
        selector.unregister(probe.socket)
        probe.close()
