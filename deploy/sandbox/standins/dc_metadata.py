"""The metadata DB server, with the schedules and what clients write (``db_daemon.py`` has the protocol).

Requests: ``ping``, ``read``, ``apply``, ``replace``, ``run``, ``write``, ``stop``.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from .db_daemon import DatabaseServer, connect
from .place import Place

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS schedules (name TEXT PRIMARY KEY, startup_mode TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (schedule TEXT NOT NULL, node TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS writes (text TEXT NOT NULL, node TEXT NOT NULL, time REAL NOT NULL);
"""
DEFAULT_SCHEDULES = (
    ("auto-started-1", "auto", "started"),
    ("manual-started-2", "manual", "started"),
    ("auto-stopped-3", "auto", "stopped"),
    ("manual-stopped-4", "manual", "stopped"),
    ("auto-started-sabotaged-5", "auto", "started"),
    ("manual-stopped-surprise-6", "manual", "stopped"),
    ("夜間バックアップ-7", "manual", "started"),
)
RUNS_KEPT = 20_000


def open_database(path: str) -> sqlite3.Connection:
    """Open the metadata DB, making its tables and the default schedules if it is new.

    Raises:
        sqlite3.Error: the file cannot be opened, as on a node which does not have the disk.
    """
    connection = connect(path, SCHEMA)
    if connection.execute("INSERT OR IGNORE INTO meta VALUES ('last_stop', 'none')").rowcount:
        replace_schedules(connection, DEFAULT_SCHEDULES)
    return connection


def replace_schedules(connection: sqlite3.Connection, schedules: Any) -> None:
    """Make ``schedules`` (name, startup mode, state) the whole list."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM schedules")
    connection.executemany("INSERT INTO schedules VALUES (?, ?, ?)", schedules)
    connection.execute("COMMIT")


class MetadataServer(DatabaseServer):
    """The daemon around the file."""

    component = "metadata"

    def __init__(self, place: Place, verb: str) -> None:
        super().__init__(place, verb)
        self._since_pruned = 0

    def open(self) -> sqlite3.Connection:
        """Open the metadata DB."""
        self.place.folder_on_disk("metadata")
        return open_database(self.place.metadata)

    def check_disk(self) -> None:
        """As any daemon, unless the fault ``disk-held`` has it keep its files open: then it stays, though the disk is gone by force."""
        if self.place.fault("disk-held") is None:
            super().check_disk()

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        match request["op"]:
            case "ping":
                return {}
            case "read":
                return self._read()
            case "apply":
                self._apply(request["states"], request["last_stop"])
            case "replace":
                replace_schedules(self.database, request["schedules"])
            case "run":
                self._run([(name, request["node"], request["time"]) for name in request["schedules"]])
            case "write":
                self.database.execute("INSERT INTO writes VALUES (?, ?, ?)", (request["text"], request["node"], request["time"]))
            case _:
                return super().perform(request)
        return {}

    def _read(self) -> dict[str, Any]:
        rows = self.database.execute("SELECT name, startup_mode, state FROM schedules ORDER BY rowid").fetchall()
        last_stop = self.database.execute("SELECT value FROM meta WHERE key = 'last_stop'").fetchone()[0]
        return {"schedules": rows, "last_stop": last_stop}

    def _apply(self, states: dict[str, str], last_stop: str) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("UPDATE schedules SET state = ? WHERE name = ?", [(state, name) for name, state in states.items()])
        self.database.execute("UPDATE meta SET value = ? WHERE key = 'last_stop'", (last_stop,))
        self.database.execute("COMMIT")

    def _run(self, rows: list[tuple[str, str, float]]) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
        self._since_pruned += len(rows)
        if self._since_pruned > RUNS_KEPT // 4:  # a sandbox may stay up for weeks
            self.database.execute("DELETE FROM runs WHERE rowid <= (SELECT max(rowid) FROM runs) - ?", (RUNS_KEPT,))
            self._since_pruned = 0
        self.database.execute("COMMIT")


def main(argv: list[str]) -> int:
    """Serve: node folder, verb (not used), descriptor of the inherited lock (kept open by inheritance)."""
    return MetadataServer(Place(argv[0]), argv[1]).serve()
