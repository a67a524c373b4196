"""The orchestrator's endpoint: who is answered, how it is kept from others, and that nobody holds it up (docs/security.md)."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.http import CONNECTIONS_MAX, Access, CannotListen, access_of, serve
from orchestrator.metrics import registry_of
from orchestrator.secretfiles import SecretError
from orchestrator.settings import ConfigurationError, load
from statemachines.configuration import OrchestratorSettings
from statemachines.states import new_state
from tests.cli.conftest import CONFIGURATION, Dcsup
from tests.conftest import wait_until
from tests.orchestrator.test_surface_http import ask

STATE: dict[str, Any] = {"clusters": {"demo": new_state("demo").model_dump(mode="json")}}
TOKEN = "CANARY-token-0123456789"
Serving = Callable[..., str]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """serving(access, state): an endpoint's address; it ends with the test."""
    closing: list[Callable[[], None]] = []

    def begin(access: Access | None = None, state: dict[str, Any] = STATE) -> str:
        url, close = serve("127.0.0.1:0", registry_of(dict, threading.Lock()), lambda: state, access)
        closing.append(close)
        return url

    yield begin
    for close in closing:
        close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl")
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=dcsup -addext"
    subprocess.run([*argv.split(), "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def connected(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname or "", place.port or 0), 30)


# --- who is answered ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer é"]
)
def test_without_the_token_nothing_is_told(serving: Serving, shown: str | None) -> None:
    """401 and how to ask; only that somebody is there is told to everybody."""
    url = serving(Access(TOKEN))
    headers = {} if shown is None else {"Authorization": shown}
    for path in ("/metrics", "/status", "/", "/nope"):
        answer, body = ask(url, path, **headers)
        assert (answer.status, answer.getheader("WWW-Authenticate")) == (401, 'Bearer realm="dcsup"')
        assert TOKEN.encode() not in body and b"demo" not in body
    assert ask(url, "/healthz", **headers)[0].status == 200


def test_with_the_token_everything_is_told(serving: Serving) -> None:
    """As Prometheus sends it with `authorization`."""
    url = serving(Access(TOKEN))
    assert json.loads(ask(url, "/status", Authorization=f"Bearer {TOKEN}")[1]) == STATE
    assert ask(url, "/metrics", Authorization=f"Bearer {TOKEN}")[0].status == 200
    assert ask(url, "/status", "POST", Authorization=f"Bearer {TOKEN}")[0].status == 405


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "[::]:9464", "192.0.2.7:9464", "monitor.example:9464", "127.0.0.1.example:1"])
def test_an_address_that_others_reach_must_be_meant(tmp_path: Path, listen: str) -> None:
    """Neither token nor `open`: a mistake with its line and the ways out. With one of them it may be."""
    file = tmp_path / "dcsup.toml"
    text = CONFIGURATION.format(url="redis://localhost").replace("127.0.0.1:0", listen)
    file.write_text(text)
    with pytest.raises(ConfigurationError) as told:
        load(file)
    [mistake] = told.value.mistakes
    assert (mistake.line, mistake.where) == (4, "orchestrator.listen")
    assert "token_file" in str(mistake.expected) and "open = true" in str(mistake.expected)
    for more in ("open = true", 'token_file = "t"', 'token_env = "T"'):
        file.write_text(text.replace("[clusters.demo]", f"{more}\n[clusters.demo]", 1))
        assert load(file).orchestrator.listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:9464", "localhost:9464"])
def test_this_machine_alone_needs_no_token(tmp_path: Path, listen: str) -> None:
    """Loopback, which is the default."""
    file = tmp_path / "dcsup.toml"
    file.write_text(CONFIGURATION.format(url="redis://localhost").replace("127.0.0.1:0", listen))
    assert load(file).orchestrator.listen == listen
    assert OrchestratorSettings().listen.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('token_file = "a"\ntoken_env = "B"', "orchestrator.token_env"),
        ('token_env = "B"\nopen = true', "orchestrator.open"),
        ('key_file = "k"', "orchestrator.key_file"),
    ],
)
def test_settings_that_do_not_go_together_are_told(tmp_path: Path, lines: str, where: str) -> None:
    """Two tokens, a token that is not asked for, a key without its certificate."""
    file = tmp_path / "dcsup.toml"
    file.write_text(CONFIGURATION.format(url="redis://localhost").replace("[clusters.demo]", f"{lines}\n[clusters.demo]", 1))
    with pytest.raises(ConfigurationError) as told:
        load(file)
    assert [one.where for one in told.value.mistakes] == [where]


def test_a_token_or_certificate_that_cannot_be_used_is_told(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """Which file it is and what to do; never what is in it."""
    with pytest.raises(SecretError, match=r"orchestrator\.token_file: the file .*none cannot be read"):
        access_of(OrchestratorSettings(token_file=str(tmp_path / "none")))
    with pytest.raises(SecretError, match=r"orchestrator\.token_env: the environment variable DCSUP_NO_TOKEN"):
        access_of(OrchestratorSettings(token_env="DCSUP_NO_TOKEN"))
    bad = tmp_path / "bad.pem"
    bad.write_text("CANARY")
    for cert, key in ((bad, None), (tmp_path / "none", None), (certificate[0], None), (certificate[0], bad)):
        with pytest.raises(CannotListen, match="cannot be used") as told:
            access_of(OrchestratorSettings(cert_file=str(cert), key_file=None if key is None else str(key)))
        assert str(cert) in str(told.value) and "CANARY" not in str(told.value)


# --- TLS ----------------------------------------------------------------------------------------------------------------------------------


def test_with_a_certificate_only_tls_is_spoken(serving: Serving, certificate: tuple[Path, Path]) -> None:
    """Who trusts it is answered; who does not, or speaks plainly, is not."""
    cert, key = certificate
    url = serving(access_of(OrchestratorSettings(cert_file=str(cert), key_file=str(key))))
    place = urlsplit(url)
    assert place.scheme == "https"
    trusting = ssl.create_default_context(cafile=str(cert))
    connection = HTTPSConnection(place.hostname or "", place.port, timeout=30, context=trusting)
    connection.request("GET", "/status")
    assert json.loads(connection.getresponse().read()) == STATE
    connection.close()
    stranger = HTTPSConnection(place.hostname or "", place.port, timeout=30, context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.request("GET", "/status")
    stranger.close()
    with connected(url) as plain:
        plain.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        assert b"demo" not in _everything(plain)


def _everything(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionError:
        pass
    return found


# --- nobody holds it up -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
def test_many_silent_clients_do_not_hold_it_up(serving: Serving, certificate: tuple[Path, Path], secured: bool) -> None:
    """More than it serves at once, none of which says a word (with TLS: not even the first of the handshake): the next one is answered,
    and the oldest ones are let go."""
    cert, key = certificate
    url = serving(access_of(OrchestratorSettings(cert_file=str(cert), key_file=str(key))) if secured else None)
    silent = [connected(url) for _ in range(2 * CONNECTIONS_MAX)]
    try:
        if secured:
            place = urlsplit(url)
            connection = HTTPSConnection(place.hostname or "", place.port, timeout=30, context=ssl.create_default_context(cafile=str(cert)))
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()
        else:
            assert ask(url, "/healthz")[0].status == 200
        assert _everything(silent[0]) == b""
    finally:
        for one in silent:
            one.close()


def test_an_endless_request_is_ended(serving: Serving) -> None:
    """A client that dribbles one header after the other is cut off after the limit, however busy it is."""
    url = serving(Access(limit_s=0.5))
    with connected(url) as dribbling:
        dribbling.sendall(b"GET /status HTTP/1.0\r\n")
        ended = threading.Event()

        def dribble() -> None:
            try:
                while not ended.wait(0.05):
                    dribbling.sendall(b"X: y\r\n")
            except OSError:
                ended.set()

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            assert ended.wait(30)
        finally:
            ended.set()
            thread.join()


def test_an_answer_that_is_not_read_is_ended(serving: Serving) -> None:
    """A client that asks and then does not listen costs a thread until the limit, and no longer."""
    url = serving(Access(limit_s=0.5), {"clusters": {"demo": "x" * 30_000_000}})
    before = threading.active_count()
    with connected(url) as deaf:
        deaf.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        wait_until(lambda: threading.active_count() > before, "its thread")
        wait_until(lambda: threading.active_count() == before, "its thread's end")


# --- the commands -------------------------------------------------------------------------------------------------------------------------


def test_the_commands_show_the_token_and_know_the_certificate(
    dcsup: Dcsup, serving: Serving, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """`dcsup status` with Redis gone, from an endpoint with token and TLS. With another token, or a certificate that it does not know, it
    says which of the two it is."""
    cert, key = certificate
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    settings = OrchestratorSettings(token_file=str(token), cert_file=str(cert), key_file=str(key))
    listen = serving(access_of(settings)).removeprefix("https://")
    file = tmp_path / "dcsup.toml"

    def written(token_file: Path, ca_file: Path | None = None) -> Path:
        lines = f'token_file = "{token_file}"\ncert_file = "{cert}"\n' + (f'ca_file = "{ca_file}"\n' if ca_file else "")
        text = CONFIGURATION.format(url="redis://127.0.0.1:1").replace("127.0.0.1:0", listen)
        file.write_text(text.replace("[clusters.demo]", f"{lines}[clusters.demo]", 1))
        return file

    answer = dcsup("status", "--config", written(token), "--json")
    assert (answer.code, json.loads(answer.out)) == (0, STATE)
    other = tmp_path / "other"
    other.write_text("another")
    answer = dcsup("status", "--config", written(other), "--json")
    assert answer.code == 3 and "wants another token" in answer.err and TOKEN not in answer.err
    answer = dcsup("status", "--config", written(token, _stranger(tmp_path)), "--json")
    assert answer.code == 3 and "is not trusted" in answer.err
    assert dcsup("status", "--config", written(tmp_path / "none")).code == 2


def _stranger(folder: Path) -> Path:
    """Another certificate."""
    path = folder / "stranger.pem"
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=other -keyout /dev/null -out"
    subprocess.run([*argv.split(), path], check=True, capture_output=True)
    return path
