"""What an orchestrator answers over HTTP: `/metrics`, `/status`, `/healthz`.

It reads memory only, so it answers while Redis is gone, which is when people ask. It is for this machine (loopback) unless the
site says otherwise, with a token and TLS where it wants them (`Access`); it changes nothing, whoever asks. `/healthz` says only that
somebody is there, and needs no token.

Whoever is slow, or never ends, holds up nobody: each connection has a thread, answers one request and is ended after `REQUEST_LIMIT_S`
in any case; of more than `CONNECTIONS_MAX` at a time the oldest ones are ended. A TLS handshake is made in that thread too.
"""

from __future__ import annotations

import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.registry import CollectorRegistry

from orchestrator.said import Said, say
from orchestrator.secretfiles import token_of
from statemachines.configuration import OrchestratorSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SILENCE_S = 10.0
"""A client that sends nothing for so long is let go."""

REQUEST_LIMIT_S = 30.0
"""For a whole request with its answer, however busily it dribbles."""

CONNECTIONS_MAX = 64


@dataclass(frozen=True)
class Access:
    """Who is answered, and how it is kept from others."""

    token: str | None = None
    """What must be shown as `Authorization: Bearer ...`; None: nothing."""
    tls: ssl.SSLContext | None = None
    limit_s: float = REQUEST_LIMIT_S


class CannotListen(Exception):
    """The address cannot be used; `said` tells why, for the operator (exit code 2)."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


def access_of(settings: OrchestratorSettings) -> Access:
    """What the configuration says of token and certificate, read.

    Raises:
        SecretError: the token is not where it should be.
        CannotListen: certificate or key cannot be used.
    """
    return Access(token_of(settings), _tls_of(settings.cert_file, settings.key_file) if settings.cert_file is not None else None)


def _tls_of(cert_file: str, key_file: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, password=lambda: "")  # an encrypted key is an error: nobody is there to be asked
    except OSError as error:
        reason = error.strerror or getattr(error, "reason", "") or type(error).__name__
        said = say(
            "certificate {cert} and key {key} cannot be used ({reason}); give PEM files, the key without a password",
            cert=cert_file, key=key_file or cert_file, reason=reason,
        )  # fmt: skip
        raise CannotListen(said) from None
    return context


def serve(
    listen: str, registry: CollectorRegistry, status: Callable[[], dict[str, Any]], access: Access | None = None
) -> tuple[str, Callable[[], None]]:
    """Answers at `host:port` from threads of its own until the returned function is called.

    Args:
        listen: port 0 takes a free one.
        registry: what `/metrics` shows, as Prometheus text or OpenMetrics, whichever is asked for.
        status: what `/status` shows, JSON values; like the registry it must not wait for Redis.
        access: who is answered; None: whoever reaches the address.

    Returns:
        The address (`http://host:port`, with TLS `https://`), and what ends it.

    Raises:
        CannotListen: the port is taken, the address is not of this machine, or not an address.
    """
    access = access if access is not None else Access()
    host, _, port = listen.rpartition(":")
    application = _guarded(_application(registry, status), access.token)
    try:
        server = make_server(host.strip("[]"), int(port), application, _class_for(host), _QuietHandler)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        said = say("cannot listen on {listen}: {reason}; set another address in [orchestrator] listen", listen=listen, reason=reason)
        raise CannotListen(said) from error
    server.access = access
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return f"{'https' if access.tls is not None else 'http'}://{host}:{server.server_port}", close


def status_body(status: dict[str, Any]) -> bytes:
    """`/status`; what is under `clusters` is what `dcsup status --json` prints."""
    return (json.dumps(status, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * CONNECTIONS_MAX
    """Connections that wait to be accepted; the library's 5 would make a burst of them wait for seconds."""
    access = Access()

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[int, tuple[float, socket.socket]] = {}
        """Connections by their first socket's identity, oldest first: when each began, and the socket that is in use now."""
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """As the base class does it, but without asking a name server for this machine's name: that one may hang."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A connection came: it gets a thread, and if they are too many the oldest one goes."""
        with self._lock:
            self._open[id(request)] = (time.monotonic(), request)
            too_many = list(self._open.values())[:-CONNECTIONS_MAX]
        for _, connection in too_many:
            _cut(connection)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called several times a second: connections end that had their time."""
        with self._lock:
            overdue = [connection for began, connection in self._open.values() if time.monotonic() - began > self.access.limit_s]
        for connection in overdue:
            _cut(connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: its handshake, if there is one, and its one request."""
        if self.access.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_SILENCE_S)
        with self.access.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
            with self._lock:
                self._open[id(request)] = (self._open[id(request)][0], secured)
            secured.do_handshake()
            super().finish_request(secured, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is no event."""


def _cut(connection: socket.socket) -> None:
    """End a connection under its thread's feet: that one wakes up with an error, and closes it."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which would touch what the thread is using
    except OSError:
        pass  # it has ended


class _Server6(_Server):
    address_family = socket.AF_INET6


def _class_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _QuietHandler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Every scrape in the log would bury what matters."""


def _guarded(application: WSGIApplication, token: str | None) -> WSGIApplication:
    """The application for those who show the token."""
    if token is None:
        return application
    wanted = b"Bearer " + token.encode()

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        shown = str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1", "replace")
        if environ.get("PATH_INFO") == "/healthz" or hmac.compare_digest(shown, wanted):
            return application(environ, start_response)
        body, challenge = b"a token is wanted: Authorization: Bearer ...\n", ("WWW-Authenticate", 'Bearer realm="dcsup"')
        return _answer(environ, start_response, "401 Unauthorized", body, "text/plain", challenge)

    return guarded


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


def _answer(
    environ: WSGIEnvironment, start_response: StartResponse, code: str, body: bytes, kind: str, *more: tuple[str, str]
) -> list[bytes]:
    start_response(code, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), *more])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
