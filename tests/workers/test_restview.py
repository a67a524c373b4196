"""CLUSTERPRO's RESTful API as a source of the view, and for a move: whatever a server answers, or does not."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from statemachines.configuration import RestSettings
from statemachines.facts import FACT
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, NodeFixture, Reports, write_config
from workers import restview
from workers.restview import RestError, move, parse
from workers.views import View, ViewError
from workers.watch import Watch

NODES = ["n1", "n2"]
GOOD: dict[str, Any] = {
    "/cluster": {"cluster": {"name": "demo", "status": "Normal"}},
    "/servers": {"servers": [{"name": "N1", "status": "Online"}, {"name": "n2", "status": "Offline Pending"}]},
    "/groups": {
        "groups": [{"name": "other", "status": "Offline", "current": "None"}, {"name": "G1", "status": "Online", "current": "N1"}]
    },
    "/monitors": {"monitors": [{"name": "appliw1", "type": "appliw", "status": "Normal", "servers": []}]},
    "/resources": {"resources": [
        {"name": "fip1", "type": "fip", "status": "Online", "current": "n1", "group": "g1"},
        {"name": "fip2", "type": "fip", "status": "Offline", "current": "None", "group": "other"},
    ]},
}  # fmt: skip
SEEN = View("online", "n1", {"n1": "online", "n2": "offline-pending"}, {"appliw1": "normal"}, {"fip1": "online"}, False, False, "rest")
SECRET = "s3cret-パスワード"


class Api:
    """A server that answers what a test tells it to."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Any] = {path: (200, {**body, "result": {"code": 0, "message": ""}}) for path, body in GOOD.items()}
        self.asked: list[tuple[str, str, str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                api.asked.append((self.command, self.path, self.headers.get("Authorization", ""), self.rfile.read(length).decode()))
                answer = api.answers.get(self.path.removeprefix("/api/v1"), (404, {"result": {"code": 1, "message": "what?"}}))
                if callable(answer):
                    answer(self)
                else:
                    send(self, answer[0], json.dumps(answer[1]).encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    yield server
    server.close()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., RestSettings]:
    """settings(url, **more): the [node.rest] table."""
    (tmp_path / "password").write_text(SECRET + "\r\n", encoding="utf-8")

    def make(url: str, **more: Any) -> RestSettings:
        return RestSettings(url=url, user="dcsup", password_file=str(tmp_path / "password"), **more)

    return make


def asked(rest: RestSettings) -> subprocess.CompletedProcess[str]:
    """Run the asking process to its end."""
    return subprocess.run(
        restview.argv(rest, restview.VIEW), capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )  # fmt: skip


def view_of(rest: RestSettings) -> Any:
    done = asked(rest)
    assert done.stderr == ""
    assert SECRET not in done.stdout and base64.b64encode(SECRET.encode()).decode() not in done.stdout
    return parse(done.stdout, "g1", NODES)


def test_the_whole_view_is_read(api: Api, settings: Callable[..., RestSettings]) -> None:
    """Five questions with the account of the file, and the same view as clpstat gives."""
    reading = view_of(settings(api.url))
    assert (reading.view, reading.faults) == (SEEN, ())
    word = "Basic " + base64.b64encode(f"dcsup:{SECRET}".encode()).decode()
    assert [(method, path) for method, path, _, _ in api.asked] == [("GET", f"/api/v1{path}") for path in GOOD]
    assert {given for _, _, given, _ in api.asked} == {word}


def test_no_secret_in_the_command_line(settings: Callable[..., RestSettings]) -> None:
    """Everybody on the machine can see it."""
    assert SECRET not in " ".join(restview.argv(settings("http://127.0.0.1:1"), restview.VIEW))


def test_it_is_asked_without_what_is_installed(api: Api, settings: Callable[..., RestSettings]) -> None:
    """The asking process starts every few seconds: standard library only, no site-packages."""
    command = restview.argv(settings(api.url), restview.VIEW)
    assert command[1:3] == ["-I", "-S"]


@pytest.mark.parametrize(
    ("status", "suspended"),
    [
        ("Suspend", True),
        ("SUSPENDED", True),
        ("Normal", False),
        ("online", False),
        ("Caution", False),
        ("Dancing", None),
        ("Offline", None),
    ],
)
def test_whether_the_cluster_is_suspended(api: Api, settings: Callable[..., RestSettings], status: str, suspended: bool | None) -> None:
    """The cluster's status says so; a word that nobody knows leaves it open."""
    api.answers["/cluster"] = (200, {"cluster": {"name": "Suspend", "status": status}, "result": {"code": 0}})
    assert view_of(settings(api.url)).view.suspended is suspended


def line(path: str, body: Any) -> str:
    return json.dumps({"path": path, "body": body})


def lines(**changes: Any) -> str:
    """The asking process's output, with some bodies changed."""
    return "\n".join(line(path, changes.get(path[1:], body)) for path, body in GOOD.items())


@pytest.mark.parametrize(
    ("changes", "place", "seen"),
    [
        ({"groups": {"groups": []}}, "no group 'g1'", {"group_state": "unknown", "current": None, "resources": {"fip1": "online"}}),
        ({"groups": {"groups": "none"}}, "/groups: no 'groups'", {"group_state": "unknown", "servers": SEEN.servers}),
        ({"groups": {"groups": [7, {"name": "g1", "status": "Online", "current": "n2"}]}}, "groups[0] is no object", {"current": "n2"}),
        ({"groups": {"groups": [{"name": "g1", "status": 1}]}}, "groups[0].status", {"group_state": "unknown", "current": None}),
        ({"groups": {"groups": [{"name": "g1", "status": "Online"}]}}, "groups[0].current", {"group_state": "online", "current": None}),
        ({"groups": [1, 2]}, "/groups: no 'groups'", {"group_state": "unknown"}),
        ({"groups": None}, "/groups: no 'groups'", {"group_state": "unknown"}),
        ({"groups": {"result": {"code": 9, "message": "busy"}, **GOOD["/groups"]}}, "code 9: busy", {"group_state": "unknown"}),
        ({"servers": {"servers": [{"status": "Online"}]}}, "servers[0].name", {"servers": {}, "current": "n1"}),
        ({"servers": {"servers": [{"name": "n1"}]}}, "servers[0].status", {"servers": {"n1": "unknown"}}),
        ({"monitors": {"monitors": [{"name": "m", "status": []}]}}, "monitors[0].status", {"monitors": {"m": "unknown"}}),
        ({"resources": {"resource": []}}, "/resources: no 'resources'", {"resources": {}, "group_state": "online"}),
        ({"cluster": {"cluster": {}}}, "cluster.status", {"suspended": None, "group_state": "online"}),
    ],
)
def test_what_could_be_read_is_used_and_the_rest_is_said(changes: dict[str, Any], place: str, seen: dict[str, Any]) -> None:
    """Wrong types and missing fields cost their own part only, and are named."""
    reading = parse(lines(**changes), "g1", NODES)
    assert {key: getattr(reading.view, key) for key in seen} == seen
    assert any(place in fault for fault in reading.faults)


def test_two_places_of_one_group_are_a_double_activation() -> None:
    """Never hidden by taking the first."""
    twice = [{"name": "g1", "status": "Online", "current": name} for name in ("n1", "n2")]
    assert parse(lines(groups={"groups": twice}), "g1", NODES).view.double_activation


def test_a_name_that_begins_like_ours_is_not_ours() -> None:
    """The API cuts no names."""
    other = {"groups": [{"name": "failover-group-a", "status": "Online", "current": "n1"}]}
    assert parse(lines(groups=other), "failover-group-abc", NODES).view.group_state == "unknown"


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense", "[]", "7", '{"path": 7}', '{"path": "/groups"}', "[" * 100_000, lines()[:40]])
def test_nothing_to_read_is_no_view(text: str) -> None:
    """And no "all is well": the reasons are said."""
    with pytest.raises(ViewError, match="no answer in time"):
        parse(text, "g1", NODES)


def dribble(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def redirect(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 302, b"{}", Location="http://127.0.0.1:9/api/v1/groups")


def endless(handler: BaseHTTPRequestHandler) -> None:
    try:
        send(handler, 200, b"x" * (restview.BODY_LIMIT_BYTES + 10))
    except OSError:
        pass


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"groups": [')
    handler.close_connection = True


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-whatever\r\n\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (redirect, "HTTP status 302"), (endless, "larger than"), (cut_off, "not JSON"), (no_http, "BadStatusLine"),
        ((200, "text"), "no 'groups'"), ((401, {"result": {"code": 5, "message": "who are you"}}), "HTTP status 401, code 5: who are you"),
        ((503, []), "HTTP status 503"), (lambda handler: send(handler, 200, b"<html>"), "not JSON"),
        (lambda handler: send(handler, 200, b"\xff\xfe\x83"), "not JSON"), (lambda handler: send(handler, 200, b"[" * 200_000), "not JSON"),
    ],
)  # fmt: skip
def test_a_server_may_answer_anything(api: Api, settings: Callable[..., RestSettings], answer: Any, words: str) -> None:
    """No redirect is followed, no answer is read without bound, and one bad answer costs its own part only."""
    api.answers["/groups"] = answer
    reading = view_of(settings(api.url))
    assert (reading.view.group_state, reading.view.servers) == ("unknown", SEEN.servers)
    assert len(reading.faults) == 1
    assert words in reading.faults[0] and reading.faults[0].startswith("rest /groups: ")


def test_a_dribbling_server_is_left_at_the_time_limit(api: Api, settings: Callable[..., RestSettings]) -> None:
    """One byte at a time resets every socket's time-out; the process ends all the same, with what it had."""
    api.answers["/servers"] = dribble
    reading = view_of(settings(api.url, limit=1.5))
    assert reading.view.suspended is False
    assert "rest /servers: no answer in time" in reading.faults


def test_a_server_that_accepts_and_says_nothing(settings: Callable[..., RestSettings]) -> None:
    """Nor does it get an answer to its TLS greeting."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            done = asked(settings(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", limit=0.5))
            assert done.returncode == 0 and done.stderr == ""
            with pytest.raises(ViewError):
                parse(done.stdout, "g1", NODES)


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1", "https://", "http://127.0.0.1:abc", "http://127.0.0.1:99999", "http://[::1", "n1:29009"]
)
def test_an_address_that_is_none(settings: Callable[..., RestSettings], url: str) -> None:
    """Said in words, not in a traceback."""
    with pytest.raises(ViewError, match="url"):
        view_of(settings(url))


def test_nobody_listens(settings: Callable[..., RestSettings]) -> None:
    """The API is off by default."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ViewError, match="refused"):
        view_of(settings(f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("content", [None, b"", b"\r\n", b"x" * 5000])
def test_a_password_file_that_is_none(api: Api, settings: Callable[..., RestSettings], tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty or too large: nothing is asked, and the file is named."""
    rest = settings(api.url)
    (tmp_path / "password").unlink()
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    with pytest.raises(ViewError, match="password_file"):
        view_of(rest)
    assert api.asked == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed but itself, with its key."""
    path = tmp_path / "api.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl")
    wanted = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *wanted, *files], check=True, capture_output=True)
    return path


def test_tls(settings: Callable[..., RestSettings], certificate: Path, tmp_path: Path) -> None:
    """Trusted by ca_file, or on purpose not checked; else refused before the password is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server = Api(context)
    try:
        assert view_of(settings(server.url, ca_file=str(certificate))).view == SEEN
        assert view_of(settings(server.url, verify=False)).view == SEEN
        server.asked.clear()
        with pytest.raises(ViewError, match="CERTIFICATE_VERIFY_FAILED"):
            view_of(settings(server.url))
        for bad in (tmp_path / "nowhere.pem", tmp_path / "password"):
            with pytest.raises(ViewError, match="ca_file"):
                view_of(settings(server.url, ca_file=str(bad)))
        assert server.asked == []
    finally:
        server.close()


@pytest.mark.parametrize("request_text", [None, "", "{}", "[]", '{"rest": {}, "asks": [{"way": 1}]}'])
def test_a_request_that_is_none(request_text: str | None) -> None:
    """Exit code 2, no traceback."""
    command = restview.argv(RestSettings(url="", user="", password_file=""), [])[:-1]
    done = subprocess.run([*command, *([] if request_text is None else [request_text])], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_the_watch_sees_by_rest(node: NodeFixture, reports: Reports, api: Api, tmp_path: Path) -> None:
    """As its source of the view: told when it changes, failures too, without blocking anything."""
    (tmp_path / "password").write_text("x")
    extra = (
        f'view = "rest"\nview_interval = "100ms"\nrest = {{ url = "{api.url}", user = "u", password_file = "{tmp_path / "password"}", '
        'limit = "20s" }\nclpstat = ["false"]'
    )
    write_config(node, services="server", extra_node=extra)
    watch = Watch(node.settings(), BOOT, node.client, reports)
    try:
        wait_until(lambda: watch.step() or reports.of("ClusterViewed"), "the view")  # type: ignore[func-returns-value]
        told = reports.of("ClusterViewed")[0]
        FACT.validate_python({**told, "type": "ClusterViewed"})
        assert (told["by"], told["current"], told["suspended"]) == ("rest", "n1", False)
        api.answers.clear()
        wait_until(lambda: watch.step() or reports.of("ClusterViewFailed"), "the failure")  # type: ignore[func-returns-value]
        assert "HTTP status 404, code 1: what?" in reports.of("ClusterViewFailed")[0]["reason"]
        assert len(reports.of("ClusterViewed")) == 1
    finally:
        watch.discard()


# -- moving


def test_a_move_is_asked_for(api: Api, settings: Callable[..., RestSettings]) -> None:
    """To a server, or wherever the policy says; it returns when the API has accepted it."""
    api.answers["/groups/g1/move"] = (200, {"result": {"code": 0, "message": ""}})
    move(settings(api.url), "g1", "n2")
    move(settings(api.url + "/"), "g1", None)
    assert [(method, path, json.loads(body)) for method, path, _, body in api.asked] == [
        ("POST", "/api/v1/groups/g1/move", {"target": "n2"}), ("POST", "/api/v1/groups/g1/move", {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "words", "accepted"),
    [
        ((200, {"result": {"code": 17, "message": "group is not online"}}), "code 17: group is not online", False),
        ((404, {"result": {"code": 1, "message": "no such group"}}), "no such group", False),
        (redirect, "302", False), ((500, {}), "500", None), (cut_off, "not JSON", None), (no_http, "BadStatusLine", None),
        ((200, {}), "no result", None), ((200, []), "no result", None), ((200, {"result": "fine"}), "no result", None),
        ((200, {"result": {}}), "no result", None),
    ],
)  # fmt: skip
def test_a_move_that_is_not_accepted(
    api: Api, settings: Callable[..., RestSettings], answer: Any, words: str, accepted: bool | None
) -> None:
    """Refused, or nobody knows: the difference decides whether one may ask again."""
    api.answers["/groups/g1/move"] = answer
    with pytest.raises(RestError, match=words) as caught:
        move(settings(api.url), "g1", "n2")
    assert caught.value.accepted is accepted
    assert SECRET not in str(caught.value)


def test_a_move_whose_answer_does_not_come(api: Api, settings: Callable[..., RestSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit nobody knows whether it was accepted; where nobody listens it certainly was not."""
    monkeypatch.setattr(restview, "MOVE_LEAST_S", 1.0)
    api.answers["/groups/g1/move"] = dribble
    with pytest.raises(RestError, match="no answer within 1 s") as caught:
        move(settings(api.url, limit=1), "g1", "n2")
    assert caught.value.accepted is None
    with pytest.raises(RestError, match="refused") as caught:
        move(settings("http://127.0.0.1:1"), "g1", "n2")
    assert caught.value.accepted is False
