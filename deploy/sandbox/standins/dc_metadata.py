"""The metadata DB server: owns the SQLite file on the switchable disk and speaks JSON lines over TCP.

A request is ``{"op": <name>, ...}``, the answer ``{"ok": true, ...}`` or ``{"ok": false, "error": <text>}``. One process on the active
node has the file open; every request looks first whether the disk is still there.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import Any

from .dc_daemon import Daemon
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
    # Nobody cuts this machine's power, only processes are killed: without fsync a committed row is safe all the same.
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.executescript(SCHEMA)
    if connection.execute("INSERT OR IGNORE INTO meta VALUES ('last_stop', 'none')").rowcount:
        replace_schedules(connection, DEFAULT_SCHEDULES)
    return connection


def replace_schedules(connection: sqlite3.Connection, schedules: Any) -> None:
    """Make ``schedules`` (name, startup mode, state) the whole list."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM schedules")
    connection.executemany("INSERT INTO schedules VALUES (?, ?, ?)", schedules)
    connection.execute("COMMIT")


class MetadataServer(Daemon):
    """The daemon around the file."""

    component = "metadata"

    def __init__(self, place: Place, verb: str) -> None:
        super().__init__(place, verb)
        self._guard = threading.Lock()
        self._since_pruned = 0
        self._database: sqlite3.Connection  # opened by begin; nothing is asked of it before that is over

    def begin(self) -> None:
        """Open the file.

        Raises:
            OSError: this node does not have the disk, or the file cannot be opened.
        """
        self.place.folder_on_disk("metadata")
        try:
            self._database = open_database(self.place.metadata)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def answer(self, line: str) -> str:
        """Answer one request."""
        self.check_disk()
        request = json.loads(line)
        if request["op"] == "stop":
            self.end("stopped")
        if not self.healthy:
            return json.dumps({"ok": False, "error": "starting"})
        try:
            with self._guard:
                return json.dumps({"ok": True, **self._perform(request)}, ensure_ascii=False)
        except sqlite3.Error as error:
            return json.dumps({"ok": False, "error": str(error)})

    def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "ping":
                return {}
            case "read":
                return self._read()
            case "apply":
                self._apply(request["states"], request["last_stop"])
            case "replace":
                replace_schedules(self._database, request["schedules"])
            case "run":
                self._run([(name, request["node"], request["time"]) for name in request["schedules"]])
            case "write":
                self._database.execute("INSERT INTO writes VALUES (?, ?, ?)", (request["text"], request["node"], request["time"]))
            case unknown:
                raise sqlite3.Error(f"unknown op {unknown}")
        return {}

    def _read(self) -> dict[str, Any]:
        rows = self._database.execute("SELECT name, startup_mode, state FROM schedules ORDER BY rowid").fetchall()
        last_stop = self._database.execute("SELECT value FROM meta WHERE key = 'last_stop'").fetchone()[0]
        return {"schedules": rows, "last_stop": last_stop}

    def _apply(self, states: dict[str, str], last_stop: str) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("UPDATE schedules SET state = ? WHERE name = ?", [(state, name) for name, state in states.items()])
        self._database.execute("UPDATE meta SET value = ? WHERE key = 'last_stop'", (last_stop,))
        self._database.execute("COMMIT")

    def _run(self, rows: list[tuple[str, str, float]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
        self._since_pruned += len(rows)
        if self._since_pruned > RUNS_KEPT // 4:  # a sandbox may stay up for weeks
            self._database.execute("DELETE FROM runs WHERE rowid <= (SELECT max(rowid) FROM runs) - ?", (RUNS_KEPT,))
            self._since_pruned = 0
        self._database.execute("COMMIT")


def main(argv: list[str]) -> int:
    """Serve: node folder, verb (not used), descriptor of the inherited lock (kept open by inheritance)."""
    return MetadataServer(Place(argv[0]), argv[1]).serve()
