"""An installation with a Redis of its own, as `dcsup render redis` and its README set it up: server, users, each machine's dcsup.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.cli import main
from tests.security.certificates import Authority
from tests.security.servers import Server

CLUSTERS = {"c1": ("n1", "n2"), "c2": ("n1", "m")}
CLUSTER = """\
[clusters.{name}]
mode = "supervise"
group = "g1"
nodes = [{nodes}]
node_ttl = "2s"
services = [{{ name = "agent", kind = "agent" }}, {{ name = "server", kind = "server" }}]
watch = {{ profile = "fast" }}
"""
TABLES = "".join(CLUSTER.format(name=name, nodes=", ".join(f'"{node}"' for node in nodes)) for name, nodes in CLUSTERS.items())
ADMIN = "user admin on nopass ~* &* +@all\n"
"""The administrator of the tests' servers: what is rendered leaves `default` off."""


def render(folder: Path, redis_table: str, *options: str) -> Path:
    """The rendered folder for two clusters and this [redis] table."""
    config, out = folder / "site.toml", folder / "rendered"
    config.write_text(f"[redis]\n{redis_table}\n{TABLES}")
    assert main(["render", "redis", "--config", str(config), "--out", str(out), *options]) == 0
    return out


def server_of(out: Path, folder: Path, port: int, binary: Path | None = None) -> Server:
    """The server with the rendered files; what the README has changed by hand is changed here: the folder."""
    lines = (out / "redis" / "redis.conf").read_text().replace("/etc/redis", str(folder)).replace("bind 127.0.0.1 -::1", "bind 127.0.0.1")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text((out / "redis" / "users.acl").read_text() + ADMIN)
    return Server(folder, lines, port, binary)


def put_certificates(out: Path, server: Server, authority: Authority) -> None:
    """Where the README wants them: on the server, and on each machine."""
    folder = server.folder / "tls"
    folder.mkdir()
    _put(authority, "redis", folder)
    for machine in out.glob("*/redis.toml"):
        _put(authority, "dcsup", machine.parent)
    files = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "redis.crt", "ssl_keyfile": "redis.key"}
    server.tls = {"ssl": True} | {option: str(folder / name) for option, name in files.items()}


def _put(authority: Authority, name: str, folder: Path) -> None:
    for file in (authority.ca, *authority.issue(name)):
        shutil.copy(file, folder)


def tables_of(out: Path, machine: str) -> str:
    """What belongs into the machine's dcsup.toml, its files where they were rendered."""
    return (out / machine / "redis.toml").read_text().replace("/etc/dcsup", str(out / machine))


def redis_of(out: Path, machine: str) -> dict[str, Any]:
    """The machine's [redis] table."""
    table: dict[str, Any] = tomllib.loads(tables_of(out, machine))["redis"]
    return table


def dcsup(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    """A dcsup process; both outputs go into the log."""
    argv = [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]
    with log.open("ab") as file:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "DCSUP_LOG": "json"})
