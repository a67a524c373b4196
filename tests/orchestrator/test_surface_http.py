"""What an orchestrator answers over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest

from orchestrator.http import CannotListen, serve, status_body
from orchestrator.metrics import Live, Projection, registry_of
from statemachines.states import new_state

STATE = {"clusters": {"demo": new_state("demo").model_dump(mode="json"), "b": {"名前": 1}}}


@pytest.fixture
def url() -> Iterator[str]:
    live = {"demo": Live(new_state("demo"), Projection("demo"), True, 0.0)}
    where, close = serve("127.0.0.1:0", registry_of(lambda: live, threading.Lock()), lambda: STATE)
    yield where
    close()


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_metrics_in_both_formats(url: str) -> None:
    """Prometheus text by default, OpenMetrics when it is asked for."""
    answer, body = ask(url, "/metrics")
    assert answer.status == 200
    assert b'dcsup_leader{cluster="demo"} 1.0' in body
    answer, body = ask(url, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in (answer.getheader("Content-Type") or "")
    assert body.endswith(b"# EOF\n")


def test_status_is_json(url: str) -> None:
    """Sorted, with Japanese as it is."""
    answer, body = ask(url, "/status")
    assert answer.getheader("Content-Type") == "application/json; charset=utf-8"
    assert body == status_body(STATE)
    assert json.loads(body) == STATE


def test_the_rest(url: str) -> None:
    """A liveness answer, HEAD, and clear refusals; nothing can be changed here."""
    assert ask(url, "/healthz")[1] == b'{"ok":true}\n'
    answer, body = ask(url, "/status", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert ask(url, "/nope")[0].status == 404
    assert ask(url, "/status", "POST")[0].status == 405


def test_slow_clients_do_not_keep_others_waiting(url: str) -> None:
    """Each request has a thread; a client that says nothing holds up nobody, nor the end."""
    place = urlsplit(url)
    silent = [socket.create_connection((place.hostname or "", place.port or 0)) for _ in range(5)]
    try:
        assert ask(url, "/healthz")[0].status == 200
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:x", "127.0.0.1:70000", "192.0.2.1:0"])
def test_an_address_that_cannot_be_used(listen: str) -> None:
    """Said with the address and where to set another."""
    with pytest.raises(CannotListen, match="set another address in"):
        serve(listen, registry_of(dict, threading.Lock()), dict)


def test_a_port_in_use_is_refused(url: str) -> None:
    """Two orchestrators on one port: the second is told; after the first has gone the port is free again."""
    listen = url.removeprefix("http://")
    with pytest.raises(CannotListen, match="cannot listen on "):
        serve(listen, registry_of(dict, threading.Lock()), dict)


def test_ipv6() -> None:
    """`[::1]:0` works where the machine has it."""
    try:
        where, close = serve("[::1]:0", registry_of(dict, threading.Lock()), dict)
    except CannotListen:
        pytest.skip("no IPv6 here")
    assert ask(where, "/healthz")[0].status == 200
    close()
