"""The RESTful API of one node (CLUSTERPRO.md, section 4): ``/api/v1/...`` by HTTP with Basic authentication, on loopback.

Reads: ``cluster``, ``servers``, ``groups``, ``resources``, ``monitors``, each with or without a name behind it. Orders (POST, JSON):
``groups/<g>/start|stop|move``, ``cluster/suspend|resume``, ``monitors/<m>/suspend|resume``. Every answer has ``result`` with ``code``
(0: good) and ``message``. As with the product an order is answered when it is accepted, not when it is done; what came of it is to be
seen by reading.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .place import LOOPBACK, Place

PREFIX = "/api/v1/"
Ask = Callable[[dict[str, Any]], dict[str, Any]]


class Problem(Exception):
    """The request cannot be answered: HTTP status, code and text."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


def serve(place: Place, ask: Ask) -> None:
    """Serve the API from a thread of its own.

    Args:
        place: this node; ``rest_user`` and ``rest_password`` of its settings are the account.
        ask: carries out a request of the control protocol and gives the fields of its answer; ValueError where it cannot.
    """
    api = _Api(place, ask)
    server = _Server((LOOPBACK, place.ports["rest"]), lambda *arguments: _Handler(api, *arguments))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Api:
    """What the paths mean."""

    def __init__(self, place: Place, ask: Ask) -> None:
        self._place = place
        self._ask = ask
        account = f"{place.settings['rest_user']}:{place.settings['rest_password']}"
        self._word = "Basic " + base64.b64encode(account.encode()).decode()

    def allowed(self, word: str | None) -> bool:
        """Whether an Authorization header is that of the account."""
        return word == self._word

    def read(self, path: str) -> dict[str, Any]:
        """Answer a GET."""
        kind, _, name = path.partition("/")
        content = self._contents().get(kind)
        if content is None:
            raise Problem(404, 3, f"{path} is not known")
        if kind == "cluster":
            return {"cluster": content}
        rows = [row for row in content if name in ("", row["name"])]
        if name and not rows:
            raise Problem(404, 4, f"{name} does not exist")
        return {kind: rows}

    def _contents(self) -> dict[str, Any]:
        status = self._ask({"op": "status"})
        view = status["view"]
        group, current = self._place.settings["group"], view["owner"] or "None"
        state = "Suspend" if status["suspended"] else "Normal"
        return {
            "cluster": {"name": self._place.settings["cluster"], "status": state},
            "servers": [{"name": name, "status": word} for name, word in status["servers"].items()],
            "groups": [
                {"name": group, "status": view["state"], "current": current, "resources": [{"name": name} for name in view["resources"]]}
            ],
            "resources": [
                {"name": name, "type": kind_of(name), "status": word, "current": current, "group": group}
                for name, word in view["resources"].items()
            ],
            "monitors": [self._monitor(name, word, status) for name, word in view["monitors"].items()],
        }

    @staticmethod
    def _monitor(name: str, word: str, status: dict[str, Any]) -> dict[str, Any]:
        owner = status["view"]["owner"]
        always = name == "userw"
        servers = [{"name": node, "status": word if always or node == owner else "Offline"} for node in status["nodes"]]
        return {"name": name, "type": kind_of(name), "status": word, "servers": servers}

    def order(self, path: str, body: dict[str, Any]) -> None:
        """Accept a POST; what it asks for is done by and by."""
        match path.split("/"):
            case ["groups", group, "start" | "stop" | "move" as op] if group == self._place.settings["group"]:
                self._begin(self._group_request(op, body.get("target")))
            case ["cluster", "suspend" | "resume" as op]:
                self._begin({"op": op})
            case ["monitors", name, "suspend" | "resume" as op]:
                self._begin({"op": "monitors", "names": [name], "suspended": op == "suspend"})
            case _:
                raise Problem(404, 3, f"{path} is not known")
        self._place.record("cluster", "api-request", path=path, body=body)

    def _group_request(self, op: str, target: str | None) -> dict[str, Any]:
        status = self._ask({"op": "status"})
        if status["suspended"]:
            raise Problem(500, 6, "The cluster is suspended.")
        if target is not None and target not in self._place.settings["nodes"]:
            raise Problem(400, 5, f"Server {target} does not exist.")
        if op == "move":
            return {"op": op, "destination": target}
        return {"op": op, "host": target}

    def _begin(self, request: dict[str, Any]) -> None:
        threading.Thread(target=self._perform, args=(request,), daemon=True).start()

    def _perform(self, request: dict[str, Any]) -> None:
        try:
            self._ask(request)
        except (OSError, ValueError) as reason:
            self._place.record("cluster", "api-failed", request=request, reason=str(reason))


def kind_of(name: str) -> str:
    """The product's type of a resource or monitor, told by how it is called here: ``appli-server`` -> ``appli``, ``sd1`` -> ``sd``."""
    return name.partition("-")[0].rstrip("0123456789")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, api: _Api, *arguments: Any) -> None:
        self._api = api
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer a read."""
        self._answer(self._api.read)

    def do_POST(self) -> None:
        """Answer an order."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(lambda path: self._order(path, raw))

    def _order(self, path: str, raw: bytes) -> dict[str, Any]:
        try:
            body = json.loads(raw or b"{}")
        except ValueError as error:
            raise Problem(400, 2, "the body is no JSON") from error
        self._api.order(path, body if isinstance(body, dict) else {})
        return {}

    def _answer(self, content: Callable[[str], dict[str, Any]]) -> None:
        try:
            self._send(200, {**content(self._path()), "result": {"code": 0, "message": ""}})
        except Problem as problem:
            self._send(problem.status, {"result": {"code": problem.code, "message": str(problem)}})

    def _path(self) -> str:
        if not self._api.allowed(self.headers.get("Authorization")):
            raise Problem(401, 1, "Authentication failed.")
        path = self.path.partition("?")[0]
        if not path.startswith(PREFIX):
            raise Problem(404, 3, f"{path} is not known")
        return path.removeprefix(PREFIX).strip("/")

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="EXPRESSCLUSTER"')
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""
