"""What a client sees, on real sockets: who takes connections, who refuses, who hangs; and what of it the leader tells."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from orchestrator import endpoints
from orchestrator.embedded import EmbeddedRedis
from orchestrator.endpoints import Endpoints, Names, Seen, Telling
from orchestrator.observing import Dated, endpoint_differences, envelopes
from statemachines import wire
from statemachines.configuration import EndpointSettings
from statemachines.facts import EndpointChanged, Envelope, parse_body
from statemachines.states import EndpointStatus, new_state
from tests.conftest import wait_until
from tests.orchestrator.engine import C, Site, leading, settings

LOOPBACK = "127.0.0.1"


class Door:
    """A TCP server on a port that stays the same while it is open and shut."""

    def __init__(self, *, hang_up: bool = False) -> None:
        self._hang_up = hang_up
        self._taken: list[socket.socket] = []
        self._kept = socket.socket()  # bound and never listening: the port stays ours, and connects to it are refused
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._kept.bind((LOOPBACK, 0))
        self.port: int = self._kept.getsockname()[1]
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._listener.bind((LOOPBACK, self.port))
        self._listener.listen(64)
        self._server = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._server.start()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken, _ = listener.accept()
                if self._hang_up:
                    taken.close()
                else:
                    self._taken.append(taken)

    def shut(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # ends a waiting accept
            self._server.join()
            self._listener.close()
            self._listener = None
        while self._taken:
            self._taken.pop().close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._kept.close()


@contextmanager
def hanging() -> Iterator[int]:
    """A port whose connects are neither made nor refused: its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def endpoint(port: int, name: str = "e", **more: Any) -> EndpointSettings:
    return EndpointSettings.model_validate({"name": name, "host": LOOPBACK, "port": port, "interval": 0.1, "limit": "20s"} | more)


@pytest.fixture
def probes() -> Iterator[Endpoints]:
    found = Endpoints()
    yield found
    found.close()


def becomes(probes: Endpoints, up: bool, name: str = "e") -> Seen:
    def found() -> Seen | None:
        seen = probes.seen().get((C, name))
        return seen if seen is not None and seen.up == up else None

    return wait_until(found, f"endpoint {name} is {'up' if up else 'down'}")  # type: ignore[return-value]


# --- probing --------------------------------------------------------------------------------------------------------------------------


def test_an_endpoint_goes_down_and_comes_back(probes: Endpoints) -> None:
    """What listens is up, what refuses is down with that word, and the change is dated between the probes around it."""
    with Door() as door:
        door.open()
        probes.watch({(C, "e"): endpoint(door.port)})
        first = becomes(probes, True)
        assert first.reason == ""
        door.shut()
        down = becomes(probes, False)
        assert down.reason in ("refused", "closed at once", "reset")  # the latter two, if a connection was held just then
        assert first.mono_s <= down.mono_s <= time.monotonic()
        assert down.within_s > 0
        door.open()
        assert becomes(probes, True).mono_s > down.mono_s


def test_a_connect_that_hangs_is_down_after_the_limit(probes: Endpoints) -> None:
    """Neither made nor refused within the limit: no client gets in, since that connect began."""
    with hanging() as port:
        probes.watch({(C, "e"): endpoint(port, limit=0.3)})
        seen = becomes(probes, False)
    assert seen.reason == "no answer within 0.3 s"


def test_a_connection_that_is_closed_at_once_is_none(probes: Endpoints) -> None:
    """A relay with nobody behind it takes connections and ends them: a client has nothing of that."""
    with Door(hang_up=True) as door:
        door.open()
        probes.watch({(C, "e"): endpoint(door.port)})
        assert becomes(probes, False).reason in ("closed at once", "reset")


def test_a_server_that_speaks_first_is_up(probes: Endpoints) -> None:
    """Some greet; and then end it or not."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    taken, _ = server.accept()
                    taken.sendall(b"hello")
                    taken.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        probes.watch({(C, "e"): endpoint(server.getsockname()[1])})
        becomes(probes, True)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_every_address_of_a_name_is_tried(probes: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two addresses, of which the first refuses: clients go on to the second, and so do we."""

    def both(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", LOOPBACK)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with Door() as door:
        door.open()
        probes.watch({(C, "e"): endpoint(door.port, host="twofold.example")})
        becomes(probes, True)


def test_a_name_that_nobody_knows_is_down_with_that_reason(probes: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is asked for again."""

    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Door() as door:
        door.open()
        probes.watch({(C, "e"): endpoint(door.port, host="nobody.example")})
        assert becomes(probes, False).reason == "the name is not resolved: Name or service not known"
        monkeypatch.undo()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, 0))])
        becomes(probes, True)


def test_a_resolver_that_hangs_stops_nobody_else(probes: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that is not answered for is down after its limit; the others go on; one question is asked, not one a probe."""
    answer, asked = threading.Event(), []

    def stuck(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answer.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    with Door() as door:
        door.open()
        probes.watch({(C, "n"): endpoint(door.port, "n", host="stuck.example", limit=0.2), (C, "e"): endpoint(door.port)})
        becomes(probes, True)
        assert becomes(probes, False, "n").reason == "the name is not resolved: no answer"
        assert asked == ["stuck.example"]
        answer.set()
        becomes(probes, True, "n")


def test_an_address_that_was_found_outlives_its_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name server is gone, clients still know the address, and so do we."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, 0))])
    found = wait_until(lambda: names.find("known.example", 0.0), "the name is resolved")
    asked = threading.Event()

    def gone(*_: Any, **__: Any) -> list[Any]:
        asked.set()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", gone)
    assert names.find("known.example", endpoints.RESOLVE_EVERY_S) == found
    assert asked.wait(30)
    assert names.find("known.example", endpoints.RESOLVE_EVERY_S) == found


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EADDRNOTAVAIL])
def test_our_own_want_says_nothing_about_the_endpoint(probes: Endpoints, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Without a free file or port nothing can be tried: what was known stays, and it goes on when there is one again."""
    with Door() as door:
        door.open()
        probes.watch({(C, "e"): endpoint(door.port)})
        becomes(probes, True)
        tried = threading.Semaphore(0)

        def none(*_: Any) -> Any:
            tried.release()
            return None, code

        monkeypatch.setattr(endpoints, "_connect", none)
        for _ in range(3):
            assert tried.acquire(timeout=30)
        assert probes.seen()[C, "e"].up
        monkeypatch.undo()
        door.shut()
        becomes(probes, False)


def test_two_hundred_endpoints_of_which_some_hang(probes: Endpoints) -> None:
    """Every one is told as it is; those that hang or refuse delay no other."""
    with ExitStack() as stack:
        doors = [stack.enter_context(Door()) for _ in range(60)]
        for door in doors[:50]:
            door.open()
        stuck = stack.enter_context(hanging())
        ports = [doors[number % 50].port for number in range(140)] + [door.port for door in doors[50:]] * 3 + [stuck] * 30
        wanted = {
            (C, f"e{n}"): endpoint(port, f"e{n}", interval=0.5, limit=("20s" if port != stuck else 0.5)) for n, port in enumerate(ports)
        }
        assert len(wanted) == 200
        probes.watch(wanted)
        wait_until(lambda: len(probes.seen()) == 200, "all have been seen")
        wait_until(lambda: [probes.seen()[C, f"e{n}"].up for n in range(200)] == [True] * 140 + [False] * 60, "all are told as they are")
        doors[0].shut()
        wait_until(lambda: not probes.seen()[C, "e0"].up and not probes.seen()[C, "e50"].up, "a change is seen among them")
        assert probes.seen()[C, "e1"].up
        assert {probes.seen()[C, f"e{n}"].reason for n in range(170, 200)} == {"no answer within 0.5 s"}


def test_more_hanging_ones_than_may_be_open_only_take_turns(probes: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound of open connects the others come later, and a good one among them is never called down."""
    monkeypatch.setattr(endpoints, "OPEN_MAX", 3)
    with Door() as door, hanging() as stuck:
        door.open()
        wanted = {(C, f"h{n}"): endpoint(stuck, f"h{n}", limit=0.2) for n in range(9)} | {(C, "e"): endpoint(door.port)}
        probes.watch(wanted)
        wait_until(lambda: len(probes.seen()) == 10, "each had its turn")
        assert becomes(probes, True)
        assert [key for key, seen in probes.seen().items() if seen.up] == [(C, "e")]


def test_only_what_is_wanted_is_probed(probes: Endpoints) -> None:
    """What is not wanted any more is not known any more, and its connect under way is given up."""
    with Door() as door, hanging() as stuck:
        door.open()
        one, other = endpoint(door.port), endpoint(stuck, "h", limit=60.0)
        probes.watch({(C, "e"): one, (C, "h"): other})
        becomes(probes, True)
        probes.watch({(C, "e"): one})
        assert probes.seen().keys() == {(C, "e")}
        probes.watch({})
        assert probes.seen() == {}


# --- what counts ----------------------------------------------------------------------------------------------------------------------


def told(*results: tuple[float, bool]) -> list[tuple[float, bool, float]]:
    """(when, what, since when) is shown, looking ten times a second, of probes at these seconds."""
    telling, shown, waiting = Telling(), list[tuple[float, bool, float]](), list(results)
    for tenth in range(100):
        now_s = tenth / 10
        while waiting and waiting[0][0] <= now_s:
            at_s, up = waiting.pop(0)
            telling.note(Seen(up, at_s))
        seen = telling.look(now_s)
        if seen is not None and (not shown or shown[-1][1] != seen.up):
            shown.append((now_s, seen.up, seen.mono_s))
    return shown


def test_a_single_failure_counts() -> None:
    """Also when the next probe is good before anybody looked: down and up, each with its own time."""
    assert told((0.0, True), (3.0, False), (3.05, True)) == [(0.0, True, 0.0), (3.0, False, 3.0), (4.0, True, 3.05)]


def test_flapping_is_one_outage_and_no_flood() -> None:
    """Good and bad ones in turn, ten a second: at most one change a second, from the first failure to the last."""
    flapping = [(2.0 + n / 10, n % 2 == 1) for n in range(40)]
    shown = told((0.0, True), *flapping)
    assert [up for _, up, _ in shown[:2]] == [True, False]
    assert shown[1][2] == 2.0
    assert shown[-1][1]
    assert shown[-1][2] == flapping[-1][0]
    moments = [when for when, _, _ in shown]
    assert all(later - sooner >= endpoints.CHANGE_EVERY_S for sooner, later in pairwise(moments))


def test_a_failure_before_anybody_looked_is_kept() -> None:
    """Whatever order the first probes come in: what is told last is what was seen last, and no failure is left out."""
    telling = Telling()
    for at_s, up in ((0.0, True), (0.1, False), (0.2, True), (0.3, False), (0.4, True)):
        telling.note(Seen(up, at_s))
    looks = [telling.look(float(now_s)) for now_s in range(5)]
    assert [(one.up, one.mono_s) for one in looks if one] == [(True, 0.0), (False, 0.1), (True, 0.4), (True, 0.4), (True, 0.4)]


# --- what the leader tells ------------------------------------------------------------------------------------------------------------


def test_differences_are_dated_on_redis_time() -> None:
    """What the state does not know, or has otherwise, is told with the moment it was seen; never before what the state has already."""
    state = new_state(C)
    seen = {"e": Seen(False, 95.0, 1.0, "refused")}
    [(key, found)] = endpoint_differences(state, seen, 1_000_000, 100.0).items()
    assert key == ("endpoint", "e", "down")
    assert found == Dated(EndpointChanged(endpoint="e", up=False, reason="refused"), 995_000.0, 1000.0)
    state.endpoints["e"] = EndpointStatus(up=True, since_ms=999_000.0)
    [found] = endpoint_differences(state, seen, 1_000_000, 100.0).values()
    assert isinstance(found, Dated) and found.at_ms == 999_000.0
    state.endpoints["e"] = EndpointStatus(up=False, since_ms=1.0)
    assert endpoint_differences(state, seen, 1_000_000, 100.0) == {}
    [text] = envelopes(state, wire.LEADER_INBOX, "me", [found])
    envelope = Envelope.model_validate_json(text)
    assert (envelope.at_ms, envelope.at_error_ms, envelope.clock) == (999_000.0, 1000.0, "mono")
    assert parse_body(envelope, wire.LEADER_INBOX) == found.fact


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


def changes(site: Site) -> list[bool]:
    return [entry.data["up"] for entry in site.log() if entry.type == "EndpointChanged"]


def test_changes_become_facts_and_the_state(site: Site) -> None:
    """The first observation, then each change, once each; a new leader tells nothing that is known already."""
    with Door() as door:
        door.open()
        configured = settings(endpoints=[{"name": "e", "host": LOOPBACK, "port": door.port, "interval": "0.1s", "limit": "20s"}])
        with leading(site.url, clusters={C: configured}):
            wait_until(lambda: changes(site) == [True], "it is up")
            door.shut()
            wait_until(lambda: changes(site) == [True, False], "it is down")
            assert not site.folded().endpoints["e"].up
        door.open()
        with leading(site.url, "another", clusters={C: configured}):
            wait_until(lambda: changes(site) == [True, False, True], "the next leader sees that it is up")
            door.shut()
            wait_until(lambda: changes(site) == [True, False, True, False], "and that it is down")
        with leading(site.url, "third", clusters={C: configured}):
            wait_until(lambda: site.count("LeadTaken") == 3, "a third one leads")
            door.open()
            wait_until(lambda: changes(site)[-1], "it is up again")
    assert changes(site) == [True, False, True, False, True]
    dated = [entry.evidence["at_ms"] for entry in site.log() if entry.type == "EndpointChanged" and entry.evidence]
    assert dated == sorted(dated)


def test_only_the_leader_probes(site: Site) -> None:
    """A standby connects to nothing; when the leader leaves, it does."""
    with Door() as door:
        door.open()
        configured = settings(endpoints=[{"name": "e", "host": LOOPBACK, "port": door.port, "interval": "0.1s", "limit": "20s"}])
        with leading(site.url, clusters={C: configured}):
            wait_until(lambda: changes(site) == [True], "the first one probes")
            with leading(site.url, "standby", clusters={C: configured}) as standby:
                wait_until(lambda: standby._next_sweep > 0, "the standby has looked around")
                assert standby._endpoints.seen() == {}
