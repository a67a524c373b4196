"""Servers of the tests' own, as a site would run them: with a configuration file, on a TCP port, with users, TLS, Sentinels."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.embedded import find_server
from tests.conftest import wait_until


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


class Server:
    """One server process over a folder of its own."""

    def __init__(self, folder: Path, lines: str, port: int, binary: Path | None = None, *, sentinel: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        self.config = folder / "server.conf"
        self.config.write_text(f"dir {folder}\nlogfile {folder}/server.log\n{lines}")
        self.argv = [str(binary or find_server()), str(self.config), *(["--sentinel"] if sentinel else [])]
        self.process: subprocess.Popen[bytes] | None = None
        self.tls: dict[str, Any] = {}
        """What a client needs besides, where the server speaks TLS."""

    def start(self) -> Server:
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens, f"the server of {self.folder} listens: {self.words()}")
        return self

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def words(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def client(self, **options: Any) -> redis.Redis:
        """A client beside the product's own, as an administrator has one."""
        return redis.Redis("127.0.0.1", self.port, socket_timeout=30, retry=Retry(NoBackoff(), 0), **self.tls, **options)


@contextmanager
def listening(folder: Path, lines: str, port: int, binary: Path | None = None, *, sentinel: bool = False) -> Iterator[Server]:
    """A running server whose `lines` say everything."""
    server = Server(folder, lines, port, binary, sentinel=sentinel)
    try:
        yield server.start()
    finally:
        server.kill()


@contextmanager
def serving(folder: Path, lines: str = "", *, binary: Path | None = None, sentinel: bool = False) -> Iterator[Server]:
    """A running server without TLS, that keeps nothing on disk unless `lines` say so."""
    port = free_port()
    whole = f'port {port}\nbind 127.0.0.1\nsave ""\n{lines}'
    with listening(folder, whole, port, binary, sentinel=sentinel) as server:
        yield server


def debian_redis() -> Path | None:
    """The distribution's server, which speaks TLS (the bundled one does not)."""
    found = shutil.which("redis-server")
    return Path(found) if found is not None else None
