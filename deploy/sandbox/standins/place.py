"""Where things are in a sandbox, as one node sees it: settings, ports, folders, faults, records.

``<base>/sandbox.json`` is written by the driver and read by everybody else; a ``Place`` is that file seen from ``<base>/<node>``.
"""

from __future__ import annotations

import json
import os
import socket
import time

from . import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOOPBACK = "127.0.0.1"
DATABASE_HOST = "dbhost"
"""The machine outside the cluster that has a remote DBMS."""


class Place:
    """One node's folder in a sandbox.

    Attributes:
        node: the node's name, which is also the name of its folder.
        base: the sandbox's folder.
        settings: the content of ``sandbox.json``.
        ports: this node's ports by name: server, agent, metadata, dbms, control, rest (TCP), heartbeat (UDP).
        disk: where the switchable disk is while it is attached.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.base, self.node = os.path.split(self.folder)
        with open(os.path.join(self.base, "sandbox.json"), encoding="utf-8") as file:
            self.settings: dict[str, Any] = json.load(file)
        self.ports: dict[str, int] = (self.settings["nodes"] | self.settings["machines"])[self.node]
        self.disk = self.path("disk")
        self.metadata = os.path.join(self.disk, "metadata", "metadata.db")

    def path(self, *parts: str) -> str:
        """A path inside the node's folder."""
        return os.path.join(self.folder, *parts)

    def fault(self, name: str) -> str | None:
        """The content of a fault that is set on this node, or on the whole sandbox; None where it is not set."""
        for folder in (self.folder, self.base):
            try:
                with open(os.path.join(folder, "faults", name), encoding="utf-8") as file:
                    return file.read().strip()
            except FileNotFoundError:
                continue
        return None

    def fault_seconds(self, name: str) -> float:
        """A fault that is a number of seconds; 0 where it is not set."""
        return float(self.fault(name) or 0)

    def attached(self) -> bool:
        """Whether this node has the switchable disk."""
        return os.path.islink(self.disk)

    def database_port(self) -> int | None:
        """The port of the DBMS that this node's agent connects to; None: the sandbox has none."""
        match self.settings["databases"]:
            case "local":
                return self.ports["dbms"]
            case "remote":
                return int(self.settings["machines"][DATABASE_HOST]["dbms"])
        return None

    def folder_on_disk(self, name: str) -> str:
        """The path of a folder on the switchable disk, made if it is not there yet.

        Raises:
            FileNotFoundError: this node does not have the disk.
        """
        path = os.path.join(self.disk, name)
        try:
            os.mkdir(path)  # one level only: nobody may make up a disk that is not there
        except FileExistsError:
            pass
        return path

    def record(self, name: str, what: str, **fields: Any) -> None:
        """Append to ``records/<name>.jsonl``, with the time of now and this node's name."""
        records.append(
            os.path.join(self.base, "records", f"{name}.jsonl"), {"time": time.time(), "node": self.node, "what": what, **fields}
        )


def ask(port: int, line: str, timeout_s: float = 10.0) -> str:
    """Send one line to a loopback port and give back the one line of the answer, '' if it hung up instead.

    Raises:
        OSError: nobody listens there, or no answer came within ``timeout_s`` seconds.
    """
    with socket.create_connection((LOOPBACK, port), timeout_s) as connection:
        connection.sendall(line.encode() + b"\n")
        with connection.makefile("rb") as stream:
            return stream.readline().decode().rstrip("\n")


def ask_json(port: int, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """As ``ask``, with JSON objects.

    Raises:
        OSError: as ``ask``; also where the other side hung up without a word.
    """
    answer = ask(port, json.dumps(request, ensure_ascii=False), timeout_s)
    if not answer:
        raise ConnectionError("the connection was closed without an answer")
    result: dict[str, Any] = json.loads(answer)
    return result
