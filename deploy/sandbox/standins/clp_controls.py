"""What operators set for the whole cluster and not for one group: suspended or not, monitors suspended or not.

Every node has a copy and tells it with its heartbeats; the one with the highest serial number wins everywhere. While the cluster is
suspended no monitor acts, no node takes a group over, and no group is started, stopped or moved.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What is set, as of a serial number."""

    serial: int = 0
    suspended: bool = False
    monitors: tuple[str, ...] = ()
    """Suspended monitors, by ``clpmonctrl``."""


class Controls:
    """This node's copy."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._setting = Setting()

    @property
    def now(self) -> Setting:
        """What is set."""
        return self._setting

    def told(self, fields: dict[str, Any]) -> None:
        """Another node's copy: take it over where it is newer."""
        theirs = Setting(fields["serial"], fields["suspended"], tuple(fields["monitors"]))
        with self._guard:
            if theirs.serial > self._setting.serial:
                self._setting = theirs

    def plain(self) -> dict[str, Any]:
        """The copy as plain data."""
        return asdict(self._setting)

    def suspend(self, suspended: bool) -> None:
        """``clpcl --suspend`` and ``--resume``."""
        with self._guard:
            self._setting = Setting(self._setting.serial + 1, suspended, self._setting.monitors)

    def suspend_monitors(self, names: Iterable[str], suspended: bool) -> None:
        """``clpmonctrl -s`` and ``-r``."""
        with self._guard:
            kept = set(self._setting.monitors) - set(names)
            monitors = kept | set(names) if suspended else kept
            self._setting = Setting(self._setting.serial + 1, self._setting.suspended, tuple(sorted(monitors)))

    def shown(self, monitors: dict[str, str]) -> dict[str, str]:
        """The monitors' states as they are shown: what does not look has no other state."""
        now = self._setting
        return {name: "Suspend" if now.suspended or name in now.monitors else state for name, state in monitors.items()}
