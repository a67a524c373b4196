"""A DBMS whose user database an agent reads and writes (G2, G24): no part of DataCoordinator.

Where the agent's machine has it too (*local*), it is in the failover group, its data lies on the switchable disk, and it is started before
the agent and stopped after it. A *remote* one runs on a machine of its own, outside the cluster, with a disk of its own.
Requests: ``ping``, ``write``, ``stop`` (``db_daemon.py``).
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from .db_daemon import DatabaseServer, connect
from .place import Place

FOLDER, FILE = "dbms", "user.db"
SCHEMA = "CREATE TABLE IF NOT EXISTS writes (text TEXT NOT NULL, node TEXT NOT NULL, time REAL NOT NULL);"


class Dbms(DatabaseServer):
    """The daemon."""

    component = "dbms"

    def open(self) -> sqlite3.Connection:
        """Open the user database, a new one the first time."""
        return connect(os.path.join(self.place.folder_on_disk(FOLDER), FILE), SCHEMA)

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        match request["op"]:
            case "ping":
                return {}
            case "write":
                self.database.execute("INSERT INTO writes VALUES (?, ?, ?)", (request["text"], request["node"], request["time"]))
                return {}
        return super().perform(request)


def main(argv: list[str]) -> int:
    """Serve: node folder, verb (not used), descriptor of the inherited lock (kept open by inheritance)."""
    return Dbms(Place(argv[0]), argv[1]).serve()
