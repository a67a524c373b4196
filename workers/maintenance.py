"""Maintenance, as this node knows of it: while a cluster is paused or suspended, no watch ends because a service is not healthy.

Who works on a server on purpose takes it down, and a watch hook that ended would make CLUSTERPRO move the group in the middle of that work.
So the watch loop keeps `<node folder>/maintenance` for the hooks to read: `reason` (paused, suspended), `boot`, and `mono`, its monotonic
clock when it wrote. The word comes from Redis (statemachines.wire.maintenance, written by the orchestrator) or from this node's
own look at the cluster manager.

**Maintenance must never last by accident**: it would prevent a failover for ever. So the file is believed for `FRESH_S` only, and only in
the boot that it was written in; with Redis or the worker gone it is no longer written, and a minute later the guide's rule holds
again. What cannot be read, or is from the future, is no maintenance. Standard library only.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from workers import files

FRESH_S = 60.0
"""How long a word that nobody repeats is believed."""

REASONS = ("paused", "suspended")


class Answer(NamedTuple):
    """What Redis said; no Answer at all means that it said nothing."""

    reason: str | None
    """None: no maintenance."""


def path_of(node_folder: Path) -> Path:
    return node_folder / "maintenance"


def reason_of(node_folder: Path, boot: str, now: float) -> str | None:
    """Why this node is in maintenance at monotonic time `now` (s), or None: it is not."""
    fields = files.read_fields(path_of(node_folder)) or {}
    mono = files.to_float(fields.get("mono"))
    if fields.get("boot") != boot or fields.get("reason") not in REASONS or mono is None:
        return None
    return fields["reason"] if 0 <= now - mono < FRESH_S else None


class Keeper:
    """Keeps the file. One per node: the watch loop's."""

    def __init__(self, node_folder: Path, boot: str) -> None:
        self._path, self._boot = path_of(node_folder), boot
        self._central: Answer | None = None
        """The last thing that Redis said in this process's life."""

    def step(self, answer: Answer | None, *, suspended_here: bool) -> None:
        """Write, remove or leave the file, after Redis was asked (None: it did not answer) and the manager's view was looked at.

        Without an answer the file is left to age: whether maintenance is over, nobody here knows.
        """
        self._central = answer or self._central
        reason = answer.reason if answer is not None else None
        if reason is not None or suspended_here:
            self._write(reason or "suspended")
        elif self._central is not None and self._central.reason is None:
            self._remove()

    def _write(self, reason: str) -> None:
        try:
            files.write_aside(self._path, files.to_text({"reason": reason, "boot": self._boot, "mono": time.monotonic()}), flush=False)
        except OSError:
            pass  # a disk that takes nothing: the guide's rule holds

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            pass  # it ages
