"""What an orchestrator answers over HTTP: `/metrics`, `/status`, `/healthz`.

It reads memory only, so it answers while Redis is gone, which is when people ask. It is for this machine (loopback) unless the
site says otherwise; it changes nothing, whoever asks.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.registry import CollectorRegistry

from orchestrator.said import Said, say

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SILENCE_S = 10.0
"""A client that sends nothing for so long is let go."""


class CannotListen(Exception):
    """The address cannot be used; `said` tells why, for the operator (exit code 2)."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


def serve(listen: str, registry: CollectorRegistry, status: Callable[[], dict[str, Any]]) -> tuple[str, Callable[[], None]]:
    """Answers at `host:port` from threads of its own until the returned function is called.

    Args:
        listen: port 0 takes a free one.
        registry: what `/metrics` shows, as Prometheus text or OpenMetrics, whichever is asked for.
        status: what `/status` shows, JSON values; like the registry it must not wait for Redis.

    Returns:
        The address (`http://host:port`), and what ends it.

    Raises:
        CannotListen: the port is taken, the address is not of this machine, or not an address.
    """
    host, _, port = listen.rpartition(":")
    try:
        server = make_server(host.strip("[]"), int(port), _application(registry, status), _class_for(host), _QuietHandler)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        said = say("cannot listen on {listen}: {reason}; set another address in [orchestrator] listen", listen=listen, reason=reason)
        raise CannotListen(said) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return f"http://{host}:{server.server_port}", close


def status_body(status: dict[str, Any]) -> bytes:
    """`/status`; what is under `clusters` is what `dcsup status --json` prints."""
    return (json.dumps(status, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """As the base class does it, but without asking a name server for this machine's name: that one may hang."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is no event."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _class_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _QuietHandler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Every scrape in the log would bury what matters."""


def _application(registry: CollectorRegistry, status: Callable[[], dict[str, Any]]) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(registry)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(environ, start_response, "405 Method Not Allowed", b"only GET and HEAD\n", "text/plain")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/status":
            return _answer(environ, start_response, "200 OK", status_body(status()), "application/json")
        if path == "/healthz":
            return _answer(environ, start_response, "200 OK", b'{"ok":true}\n', "application/json")
        return _answer(environ, start_response, "404 Not Found", b"/metrics, /status, /healthz\n", "text/plain")

    return application


def _answer(environ: WSGIEnvironment, start_response: StartResponse, code: str, body: bytes, kind: str) -> list[bytes]:
    start_response(code, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
