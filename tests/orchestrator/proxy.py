"""A Redis behind a door that can be shut at the worst moment: between a command's effect and its answer, or before it arrives."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote


class Door:
    """Passes bytes between its own socket and a server's, until told to cut.

    `cut_answer(word)`: the next request that contains `word` reaches the server; when the server has answered, both sides are closed and
    the answer is thrown away. `cut_request(word)`: the request does not even arrive.
    """

    def __init__(self, url: str) -> None:
        self._target = unquote(url.removeprefix("unix://"))
        self._folder = tempfile.TemporaryDirectory(prefix="dcsup-door-")
        path = Path(self._folder.name) / "s"
        self.url = "unix://" + quote(str(path))
        self.cuts = 0
        self._answer_word: bytes | None = None
        self._request_word: bytes | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._start(self._accept)

    def cut_answer(self, word: bytes) -> None:
        self._answer_word = word

    def cut_request(self, word: bytes) -> None:
        self._request_word = word

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            self._open += [client, server]
            doomed = threading.Event()
            self._start(self._requests, client, server, doomed)
            self._start(self._answers, server, client, doomed)

    def _requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        while data := _receive(client):
            if self._request_word is not None and self._request_word in data:
                self._request_word = None
                self.cuts += 1
                break
            if self._answer_word is not None and self._answer_word in data:
                self._answer_word = None
                doomed.set()
            if not _send(server, data):
                break
        _shut(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        while data := _receive(server):
            if doomed.is_set():
                self.cuts += 1
                break
            if not _send(client, data):
                break
        _shut(client, server)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        _shut(*self._open)
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()
        self._folder.cleanup()


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 20)
    except OSError:
        return b""


def _send(target: socket.socket, data: bytes) -> bool:
    try:
        target.sendall(data)
    except OSError:
        return False
    return True


def _shut(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
