"""Looking at a node: real commands, sockets and folders; never an error, never a wait, never a change."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded import EmbeddedRedis
from statemachines.configuration import Configuration
from workers import inspection

SECRET = "CANARY-redis"


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def program(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def configuration(folder: Path, port: int, redis_url: str, **node: Any) -> Configuration:
    command = program(folder, "dcserver", "touch " + str(folder / "was-run"))
    return Configuration.model_validate(
        {
            "redis": {"url": redis_url},
            "clusters": {
                "pair": {
                    "group": "g",
                    "nodes": ["nodea", "nodeb"],
                    "services": [{"name": "server", "kind": "server"}],
                    "metadata": {"port": port},
                    "endpoints": [{"name": "server", "host": "127.0.0.1", "port": port}],
                }
            },
            "node": {
                "name": "nodea",
                "cluster": "pair",
                "folder": str(folder / "node"),
                "services": {"server": {"command": [command], "status": [command]}},
                **node,
            },
        }
    )


def test_what_is_there_is_seen(tmp_path: Path, listening: int) -> None:
    """Ports, endpoints, commands, tools, dcsup called as the scripts call it, Redis and its clock."""
    with EmbeddedRedis(tmp_path / "redis") as engine:
        tools = [program(tmp_path, name, "exit 0") for name in ("clplogcmd", "armsleep")]
        meta = program(tmp_path, "meta", "exit 3")
        dcsup = [sys.executable, "-m", "orchestrator.cli"]
        seen = inspection.inspect(
            configuration(tmp_path, listening, engine.url, dcsup=dcsup, clp_bin=str(tmp_path), metadata_status=[meta]),
            limit_s=60,
        )
    assert len(tools) == 2
    assert (seen["name"], seen["cluster"]) == ("nodea", "pair")
    assert seen["metadata_listening"] is True
    assert seen["metadata_running"] is False
    assert seen["endpoints"] == {"server": True}
    assert seen["commands"]["server"]["exists"] is True
    assert seen["tools"] == {"clplogcmd": True, "armsleep": True, "armbcast": False}
    assert seen["dcsup"]["callable"] is True
    assert seen["redis"]["reachable"] is True
    assert isinstance(seen["redis"]["clock_s"], float)
    assert seen["folder"] == {"path": str(tmp_path / "node"), "exists": False, "writable": True, "local": seen["folder"]["local"]}
    if sys.platform != "win32":
        assert "services" not in seen


def test_looking_changes_nothing(tmp_path: Path, listening: int) -> None:
    """No command of the site is run, no folder is made."""
    before = configuration(tmp_path, listening, "redis://127.0.0.1:1", dcsup=[program(tmp_path, "dcsup", "exit 75")])
    files = sorted(tmp_path.iterdir())
    inspection.inspect(before, limit_s=60)
    assert sorted(tmp_path.iterdir()) == files


def test_what_is_not_there_is_said_and_secrets_are_not(tmp_path: Path) -> None:
    """A closed port and a silent Redis are answers; why it is silent never quotes the address."""
    silent = configuration(tmp_path, closed_port(), f"redis://user:{SECRET}@127.0.0.1:{closed_port()}/0", dcsup=[str(tmp_path / "none")])
    seen = inspection.inspect(silent, limit_s=60)
    assert seen["metadata_listening"] is False
    assert seen["redis"] == {"reachable": False, "why": "ConnectionError"}
    assert seen["dcsup"]["callable"] is False
    assert SECRET not in str(seen)


def test_a_bad_address_is_an_answer_too(tmp_path: Path) -> None:
    """One that redis-py does not understand, a password file that is not there: never an exception, never the password."""
    odd = configuration(tmp_path, closed_port(), f"redis://user:{SECRET}@nowhere.invalid:1/0?db=x&socket_timeout={SECRET}")
    seen = inspection.inspect(odd, limit_s=60)
    assert SECRET not in str(seen)
    assert seen["redis"]["reachable"] is False
    redis = odd.redis.model_copy(update={"url": "redis://127.0.0.1:1/0", "password_file": str(tmp_path / "none")})
    seen = inspection.inspect(odd.model_copy(update={"redis": redis}), limit_s=60)
    assert seen["redis"] == {"reachable": False, "why": "ValueError"}


def test_permissions_are_seen(tmp_path: Path) -> None:
    """Of the configuration's file, the node folder and the secrets that it names."""
    open_file = tmp_path / "node.key"
    open_file.write_text("k" * 64)
    open_file.chmod(0o644)
    config = tmp_path / "dcsup.toml"
    config.touch()
    told = configuration(tmp_path, closed_port(), "redis://127.0.0.1:1", key={"file": str(open_file)})
    seen = {one["path"]: one for one in inspection.inspect(told, 60, str(config))["permissions"]}
    assert seen[str(config)]["kind"] == "settings"
    assert seen[str(open_file)]["kind"] == "secret"
    assert "everyone" in seen[str(open_file)]["readers"]


def test_a_look_that_hangs_or_breaks_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are still told, and nobody waits for it beyond the limit."""

    def hangs(_folder: str) -> None:
        time.sleep(600)

    def breaks(*_arguments: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(inspection, "_folder", hangs)
    monkeypatch.setattr(inspection, "_tools", breaks)
    began = time.monotonic()
    seen = inspection.inspect(configuration(tmp_path, closed_port(), "redis://127.0.0.1:1"), limit_s=10)
    assert time.monotonic() - began < 120
    assert "folder" not in seen and "tools" not in seen
    assert seen["metadata_listening"] is False
    assert SECRET not in str(seen)


def test_windows_services_are_read_from_the_numbers() -> None:
    """G30, G33: `sc` prints words in the system's language and numbers in none."""
    printed = """\
[SC] QueryServiceConfig SUCCESS

SERVICE_NAME: DataCoordinatorRA Meta DB server
        TYPE               : 10  WIN32_OWN_PROCESS
        START_TYPE         : {start}
        ERROR_CONTROL      : 1   NORMAL
        SERVICE_START_NAME : .\\necsys
"""
    assert inspection.parse_sc_qc(printed.format(start="3   DEMAND_START")) == {"startup": "manual", "account": ".\\necsys"}
    assert inspection.parse_sc_qc(printed.format(start="2   自動"))["startup"] == "auto"
    assert inspection.parse_sc_qc(printed.format(start="9"))["startup"] == "unknown"
    assert inspection.parse_sc_qc("[SC] OpenService FAILED 1060:") == {}
    assert inspection.parse_sc_query("        STATE              : 4  RUNNING \n") == {"state": "running"}
    assert inspection.parse_sc_query("        STATE              : 2  START_PENDING \n") == {"state": "other"}
    assert inspection.parse_sc_query("") == {}
