"""A database server: owns one SQLite file on its machine's switchable disk and speaks JSON lines over TCP.

A request is ``{"op": <name>, ...}``, the answer ``{"ok": true, ...}`` or ``{"ok": false, "error": <text>}``; the bare line ``STATUS`` is
answered with ``healthy`` or ``starting``. One process on the active node has the file open; every request looks first whether the
disk is still there. Who comes of it: the metadata DB (``dc_metadata.py``) and the DBMS that an agent connects to (``dbms.py``).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import Any

from .dc_daemon import Daemon
from .place import Place


class DatabaseServer(Daemon):
    """The daemon around the file; subclasses open it and carry out requests."""

    def __init__(self, place: Place, verb: str) -> None:
        super().__init__(place, verb)
        self._guard = threading.Lock()
        self.database: sqlite3.Connection  # opened by begin; nothing is asked of it before that is over

    def open(self) -> sqlite3.Connection:
        """Open the file.

        Raises:
            OSError: this node does not have the disk.
            sqlite3.Error: the file cannot be opened.
        """
        raise ValueError("which file?")

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and give the fields of its answer."""
        raise ValueError(f"unknown op {request['op']}")

    def begin(self) -> None:
        """Open the file.

        Raises:
            OSError: this node does not have the disk, or the file cannot be opened.
        """
        try:
            self.database = self.open()
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def answer(self, line: str) -> str:
        """Answer one request."""
        self.check_disk()
        if line == "STATUS":
            return self._status()
        request = json.loads(line)
        if request["op"] == "stop":
            self.end("stopped")
        if not self.healthy:
            return json.dumps({"ok": False, "error": "starting"})
        try:
            with self._guard:
                return json.dumps({"ok": True, **self.perform(request)}, ensure_ascii=False)
        except sqlite3.Error as error:
            return json.dumps({"ok": False, "error": str(error)})

    def _status(self) -> str:
        if self.place.fault(f"unhealthy-{self.component}") is not None:
            return "not healthy"
        return "healthy" if self.healthy else "starting"


def connect(path: str, schema: str) -> sqlite3.Connection:
    """Open a database file, making its tables if it is new.

    Raises:
        sqlite3.Error: the file cannot be opened, as on a node which does not have the disk.
    """
    # Nobody cuts this machine's power, only processes are killed: without fsync a committed row is safe all the same.
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.executescript(schema)
    return connection
