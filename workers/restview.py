"""CLUSTERPRO's RESTful API (CLUSTERPRO.md, section 4): the same view as `clpstat` gives, and the way to move a group.

Two parts in one file, because one is the other's answer:

- **Asking** is a process of its own (`python -I -S restview.py REQUEST`, started like a poll): the watch loop must not stand still for a
  server that dribbles bytes, resolves slowly or never ends its TLS handshake, and a process can always be ended. It prints one JSON
  line per answer, `{"path": ..., "body": {...}}` or `{"path": ..., "error": "..."}`, and ends by itself at the time limit.
- **Reading** these lines (`parse`) takes what makes sense and names the place of what does not.

The password comes from a file, goes into one header, and is in no argument, log or error. Redirects are not followed, for they would
take it elsewhere. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if not __package__:  # started by path in isolated mode, where the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workers.views import Reading, View, ViewError, known, state_of

if TYPE_CHECKING:
    import http.client

    from statemachines.configuration import RestSettings

BODY_LIMIT_BYTES = 1_000_000
"""Of one answer. A cluster with a thousand monitors needs a fifth of it."""

PASSWORD_LIMIT_BYTES = 4096
MOVE_LEAST_S = 30.0
"""A move is accepted, not performed, within this; the API may have more to do before it says so."""

START_S = 5.0
"""What a process may need to begin and to end, beyond its own time limit."""


class Ask(NamedTuple):
    """One request: path below /api/v1, and the body of a POST."""

    path: str
    body: dict[str, Any] | None = None


VIEW = (Ask("/cluster"), Ask("/servers"), Ask("/groups"), Ask("/monitors"), Ask("/resources"))
"""What a view needs."""


class RestError(ValueError):
    """The API did not do what it was asked for, in words for an operator.

    `accepted`: False: certainly not; None: nobody knows, so do not simply ask again.
    """

    def __init__(self, words: str, accepted: bool | None) -> None:
        super().__init__(words)
        self.accepted = accepted


# -- by the asking process's caller


def argv(rest: RestSettings, asks: Iterable[Ask], limit_s: float | None = None) -> list[str]:
    """The command that asks; its only argument holds no secret."""
    settings = {**rest.model_dump(), "limit": limit_s or rest.limit}
    request = json.dumps({"rest": settings, "asks": [ask._asdict() for ask in asks]})
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), request]


def output_of(output: str, error: str) -> str:
    """What an asking process printed (`error`: how its run ended, workers/runs.py).

    Raises:
        ViewError: it could not be run.
    """
    if error and error != "limit":
        raise ViewError(error)
    return output


def move(rest: RestSettings, group: str, to: str | None) -> None:
    """Ask the API to move `group` to server `to` (None: wherever the failover policy says).

    Returns when the request is accepted; the move itself goes on (poll the view to see where the group is).

    Raises:
        RestError: it was not accepted, or nobody knows whether it was.
    """
    from urllib.parse import quote

    limit_s = max(rest.limit, MOVE_LEAST_S)
    ask = Ask(f"/groups/{quote(group, safe='')}/move", {} if to is None else {"target": to})
    try:
        done = subprocess.run(
            argv(rest, [ask], limit_s), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=limit_s + START_S, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RestError(f"{ask.path}: no answer within {limit_s:g} s", accepted=None) from None
    except OSError as error:
        raise RestError(f"cannot ask the RESTful API: {error}", accepted=False) from None
    _judge_move(ask.path, list(_documents(done.stdout.decode("utf-8", "replace"))), limit_s)


def _judge_move(path: str, answers: list[dict[str, Any]], limit_s: float) -> None:
    if not answers:
        raise RestError(f"{path}: no answer within {limit_s:g} s", accepted=None)
    answer = answers[0]
    if "error" in answer:
        raise RestError(f"{path}: {answer['error']}", accepted=None if answer.get("sent") else False)
    body = answer["body"]
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, dict) or "code" not in result:
        raise RestError(f"{path}: the answer has no result", accepted=None)
    if (words := _result_fault(body)) is not None:
        raise RestError(f"{path}: {words}", accepted=False)


# -- reading


def parse(text: str, group: str, nodes: Sequence[str]) -> Reading:
    """The view of `group` in what the asking process printed.

    `nodes` are the configured names; servers are called by them in any case of letters, else as the API does, in lower case.

    Raises:
        ViewError: nothing could be read, and why.
    """
    answers = {answer["path"]: answer for answer in _documents(text)}
    answer = _Answers(answers, group, nodes)
    view = answer.view()
    if not answer.read:
        raise ViewError("; ".join(dict.fromkeys(answer.faults)))
    return Reading(view, tuple(dict.fromkeys(answer.faults)))


def _documents(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a process that was ended in the middle of a line
        if isinstance(document, dict) and isinstance(document.get("path"), str) and ("body" in document or "error" in document):
            yield document


def _result_fault(body: Any) -> str | None:
    """What the answer's own result says is wrong."""
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, dict) or result.get("code") in (0, "0"):
        return None
    return f"code {str(result.get('code'))[:20]}: {str(result.get('message', ''))[:200]}"


class _Answers:
    """The answers to VIEW; reading them collects the faults."""

    def __init__(self, answers: dict[str, dict[str, Any]], group: str, nodes: Sequence[str]) -> None:
        self._answers, self._group, self._nodes = answers, group, nodes
        self.faults: list[str] = []
        self.read = False
        """Whether any of them said something."""

    def view(self) -> View:
        suspended = self._suspended()
        servers = {known(name, self._nodes): state_of(item) for name, item in self._states("servers")}
        group_state, active = self._group_view()
        monitors = {name: state_of(state) for name, state in self._states("monitors")}
        resources = {name: state_of(state) for name, state in self._states("resources", of_group=True)}
        return View(group_state, active[0] if active else None, servers, monitors, resources, suspended, len(active) > 1, "rest")

    def _part(self, name: str, kind: type) -> Any:
        """The answer's part `name`, or None with a fault."""
        answer = self._answers.get(f"/{name}")
        if answer is None or "error" in answer:
            self.faults.append(f"rest /{name}: {'no answer in time' if answer is None else str(answer['error'])[:300]}")
            return None
        if (words := _result_fault(answer["body"])) is not None:
            self.faults.append(f"rest /{name}: {words}")
            return None
        part = answer["body"].get(name) if isinstance(answer["body"], dict) else None
        if not isinstance(part, kind):
            self.faults.append(f"rest /{name}: no '{name}' of the expected form")
            return None
        self.read = True
        return part

    def _suspended(self) -> bool | None:
        cluster = self._part("cluster", dict)
        status = self._text(cluster, "status", "cluster") if cluster is not None else None
        state = state_of(status.capitalize()) if status is not None else "unknown"
        if state == "suspend":
            return True
        return False if state in ("online", "normal", "caution", "error") else None

    def _items(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The dictionaries of a list, each with its place."""
        for n, item in enumerate(self._part(name, list) or []):
            if isinstance(item, dict):
                yield f"{name}[{n}]", item
            else:
                self.faults.append(f"rest /{name}: {name}[{n}] is no object")

    def _text(self, item: dict[str, Any], key: str, place: str) -> str | None:
        value = item.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.faults.append(f"rest: {place}.{key} is missing or no text")
        return None

    def _states(self, name: str, *, of_group: bool = False) -> Iterator[tuple[str, str]]:
        for place, item in self._items(name):
            if of_group and known(str(item.get("group", "")), [self._group]) != self._group:
                continue
            title, status = self._text(item, "name", place), self._text(item, "status", place)
            if title is not None:
                yield title, status or ""

    def _group_view(self) -> tuple[str, list[str]]:
        """State of our group, and the servers on which it is."""
        before = len(self.faults)
        ours = [(place, item) for place, item in self._items("groups") if known(str(item.get("name", "")), [self._group]) == self._group]
        if not ours and len(self.faults) == before:
            self.faults.append(f"rest /groups: no group '{self._group}'")
        states = [state_of(self._text(item, "status", place) or "") for place, item in ours]
        places = [self._text(item, "current", place) for place, item in ours]
        active = [known(place, self._nodes) for place in places if place is not None and place.lower() != "none"]
        return (states[0] if states else "unknown"), list(dict.fromkeys(active))


# -- asking: what the process does


def main(arguments: list[str]) -> int:
    """Ask everything in the request, one line each. Exit codes: 0 asked, 2 the request is none or the settings cannot be used."""
    try:
        request = json.loads(arguments[0])
        rest, asks = request["rest"], [Ask(**ask) for ask in request["asks"]]
        limit_s = float(rest["limit"])
    except (ValueError, TypeError, KeyError, IndexError):
        return 2
    _end_after(limit_s)
    until = time.monotonic() + limit_s
    for ask in asks:
        _print(ask.path, _answer(rest, ask, until))
    return 0


def _end_after(limit_s: float) -> None:
    """End this process then, whatever it waits for: no time-out of a socket bounds a name that resolves slowly, or a byte a second."""
    import os

    def end() -> None:
        time.sleep(limit_s)
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def _print(path: str, answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"path": path, **answer}) + "\n")
    sys.stdout.flush()


def _answer(rest: dict[str, Any], ask: Ask, until: float) -> dict[str, Any]:
    """`{"body": ...}`, or `{"error": ..., "sent": whether the server may have the request}`."""
    sent = False
    try:
        headers = {"Accept": "application/json", "Authorization": _authorization(rest), "Connection": "close"}
        connection = _connection(rest, max(0.1, until - time.monotonic()))
        connection.connect()
        sent = True
        return _exchange(connection, rest, ask, headers)
    except OSError as error:
        return {"error": f"{error.strerror or type(error).__name__}", "sent": sent}
    except Exception as error:  # a server may say anything; an operator wants words and no traceback
        return {"error": _words(error), "sent": sent}


def _words(error: Exception) -> str:
    return str(error)[:200] if isinstance(error, RestError) else type(error).__name__


def _authorization(rest: dict[str, Any]) -> str:
    import base64

    try:
        with Path(rest["password_file"]).open("rb") as file:
            content = file.read(PASSWORD_LIMIT_BYTES + 1)
    except OSError as error:
        raise RestError(f"password_file {rest['password_file']}: {error.strerror}", accepted=False) from None
    password = content.removeprefix(b"\xef\xbb\xbf").splitlines()[0] if content.strip() else b""
    if not password or len(content) > PASSWORD_LIMIT_BYTES:
        raise RestError(f"password_file {rest['password_file']}: holds no password in its first line", accepted=False)
    return "Basic " + base64.b64encode(rest["user"].encode() + b":" + password).decode("ascii")


def _connection(rest: dict[str, Any], timeout_s: float) -> http.client.HTTPConnection:
    import http.client
    from urllib.parse import urlsplit

    try:
        url = urlsplit(rest["url"])
        host, port = url.hostname, url.port
    except ValueError as error:
        raise RestError(f"url: {error}", accepted=False) from None
    if url.scheme not in ("http", "https") or not host:
        raise RestError("url: is not http://host:port or https://host:port", accepted=False)
    if url.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=_tls(rest))


def _tls(rest: dict[str, Any]) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=rest["ca_file"])
    except OSError as error:
        raise RestError(f"ca_file {rest['ca_file']}: {error.strerror or 'holds no certificate'}", accepted=False) from None
    if not rest["verify"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _exchange(connection: http.client.HTTPConnection, rest: dict[str, Any], ask: Ask, headers: dict[str, str]) -> dict[str, Any]:
    from urllib.parse import urlsplit

    prefix = urlsplit(rest["url"]).path.rstrip("/").removesuffix("/api/v1")
    body = None if ask.body is None else json.dumps(ask.body)
    try:
        more = {} if body is None else {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", f"{prefix}/api/v1{ask.path}", body, {**headers, **more})
        response = connection.getresponse()
        content = response.read(BODY_LIMIT_BYTES + 1)
    finally:
        connection.close()
    return _judged(response.status, content)


def _judged(status: int, content: bytes) -> dict[str, Any]:
    if len(content) > BODY_LIMIT_BYTES:
        return {"error": f"the answer is larger than {BODY_LIMIT_BYTES} bytes", "sent": True}
    try:
        body = json.loads(content.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        body = None
    if not 200 <= status < 300:
        words = _result_fault(body)
        return {"error": f"HTTP status {status}" + (f", {words}" if words else ""), "sent": status >= 500}
    return {"body": body} if body is not None else {"error": "the answer is not JSON", "sent": True}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
