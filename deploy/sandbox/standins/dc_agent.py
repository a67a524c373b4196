"""The DataCoordinator agent: keeps what it must hand over in its shared folder on the switchable disk.

``STATUS`` -> ``healthy`` | ``starting``; ``STOP <verb>`` ends it. What start and recover, stop and faststop mean for an agent the
guide does not say; the shared folder's ``handover.jsonl`` keeps which verb it was, where, and when.
"""

from __future__ import annotations

import os
import time

from . import records
from .dc_daemon import Daemon
from .place import Place


class Agent(Daemon):
    """The daemon."""

    component = "agent"

    def begin(self) -> None:
        """Take over the shared folder."""
        self._note(self.verb)

    def answer(self, line: str) -> str:
        """Answer one line of the protocol."""
        word, _, verb = line.partition(" ")
        if word == "STOP":
            self._stop(verb)
        if word != "STATUS":
            return "ERROR unknown request"
        if self.place.fault("unhealthy-agent") is not None:
            return "not healthy"
        return "healthy" if self.healthy else "starting"

    def _stop(self, verb: str) -> None:
        self.ending.set()
        time.sleep(self.place.fault_seconds("stop-seconds-agent"))
        self._note(verb)
        self.end(verb)

    def _note(self, verb: str) -> None:
        folder = self.place.folder_on_disk("agent")
        records.append(os.path.join(folder, "handover.jsonl"), {"time": time.time(), "node": self.place.node, "verb": verb})


def main(argv: list[str]) -> int:
    """Serve: node folder, verb, descriptor of the inherited lock (kept open by inheritance)."""
    return Agent(Place(argv[0]), argv[1]).serve()
