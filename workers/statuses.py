"""What the watch job last saw of each service: `watch/<service>.status`, written by the worker, read by hooks and launcher.

A status is only as good as it is fresh, and freshness is judged on the monotonic clock, which all processes of one boot share. A status of
another boot says nothing. Standard library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from workers import files, processes

FRESH_S = 5.0
"""A poll that ended within the last 5 s counts as fresh (NODE.md; DESIGN.md, "Hooks")."""


class Status(NamedTuple):
    service: str
    status: str
    """healthy, unhealthy or unknown: what the last poll that ended said."""
    verified: bool
    ticket: str
    """The start whose command had ended ok before the polls behind `verified` began; empty: none."""
    polling: bool
    """A poll is under way; `mono_started` is then its beginning, everything else is of the one before."""
    boot: str
    mono: float | None
    """The monotonic clock at the end of the last poll, s."""
    mono_started: float | None
    last_started: float | None
    """The monotonic clock at the beginning of the last poll that ended, s: what it said is about that moment or a later one."""
    written: float | None
    next: float | None
    """When the next poll is planned, s; optional."""
    pid: int | None
    born: str
    """The process that polls; optional. When it is gone, no poll is under way whatever the file says."""

    def age_s(self, now: float) -> float:
        """Seconds since the last poll ended; infinite when none did, or not in this boot's time."""
        return now - self.mono if self.mono is not None and self.mono <= now else float("inf")

    def is_moving(self, now: float, poll_limit_s: float) -> bool:
        """Whether somebody is polling: a poll is under way within its limit, one ended just now, or the next is due soon."""
        if self.pid is not None and not processes.alive(self.pid, self.born):
            return False
        if self.polling and self.mono_started is not None and 0 <= now - self.mono_started < poll_limit_s + FRESH_S:
            return True
        return self.age_s(now) < FRESH_S or (self.next is not None and now < self.next + FRESH_S)


def path_of(node_folder: Path, service: str) -> Path:
    return node_folder / "watch" / f"{service}.status"


def code_path_of(node_folder: Path, service: str) -> Path:
    """Where the watch hook leaves the code with which the watch script must end."""
    return node_folder / "watch" / f"{service}.code"


def read(node_folder: Path, service: str, boot: str) -> Status | None:
    """The service's status in this boot; None: there is none (yet)."""
    fields = files.read_fields(path_of(node_folder, service))
    if fields is None or fields.get("boot") != boot:
        return None
    polling, began = fields.get("polling") == "1", files.to_float(fields.get("mono_started"))
    last = files.to_float(fields["last_started"]) if "last_started" in fields else None if polling else began
    return Status(
        service=service, status=fields.get("status", "unknown"), verified=fields.get("verified") == "1", ticket=fields.get("ticket", ""),
        polling=polling, boot=boot, mono=files.to_float(fields.get("mono")), mono_started=began,
        last_started=last, written=files.to_float(fields.get("written")), next=files.to_float(fields.get("next")),
        pid=files.to_int(fields.get("pid")), born=fields.get("born", ""),
    )  # fmt: skip
