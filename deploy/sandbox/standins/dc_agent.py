"""The DataCoordinator agent: keeps what it must hand over in its shared folder on the switchable disk, and connects to a DBMS.

``STATUS`` -> ``healthy`` | ``starting`` | a reason; ``WRITE <text>`` -> ``OK`` once the DBMS has it; ``STOP <verb>`` ends it. What start
and recover, stop and faststop mean for an agent the guide does not say; the shared folder's ``handover.jsonl`` keeps which verb it was,
where, and when. Where the sandbox has a DBMS (setting ``databases``), an agent that cannot reach it is not healthy.
"""

from __future__ import annotations

import os
import time
from typing import Any

from . import records
from .dc_daemon import Daemon
from .place import Place, ask_json

DATABASE_TIMEOUT_S = 30.0


class Agent(Daemon):
    """The daemon."""

    component = "agent"

    def begin(self) -> None:
        """Take over the shared folder, then wait for the DBMS.

        Raises:
            OSError: this node does not have the disk, or there is no DBMS.
        """
        self._note(self.verb)
        deadline = time.monotonic() + DATABASE_TIMEOUT_S
        while problem := self._database_problem():
            if self.ending.wait(0.05):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(problem)

    def answer(self, line: str) -> str:
        """Answer one line of the protocol."""
        word, _, rest = line.partition(" ")
        match word:
            case "STATUS":
                return self._status()
            case "STOP":
                self._stop(rest)
            case "WRITE" if self.healthy:
                return self._write(rest)
        return "ERROR unknown request" if self.healthy else "ERROR starting"

    def _status(self) -> str:
        if not self.healthy:
            return "starting"
        if self.place.fault("unhealthy-agent") is not None:
            return "not healthy"
        return self._database_problem() or "healthy"

    def _write(self, text: str) -> str:
        try:
            self._database("write", text=text, node=self.place.node, time=time.time())
        except OSError as error:
            return f"ERROR {error}"
        return "OK"

    def _stop(self, verb: str) -> None:
        self.ending.set()
        time.sleep(self.place.fault_seconds("stop-seconds-agent"))
        self._note(verb)
        self.end(verb)

    def _note(self, verb: str) -> None:
        folder = self.place.folder_on_disk("agent")
        records.append(os.path.join(folder, "handover.jsonl"), {"time": time.time(), "node": self.place.node, "verb": verb})

    def _database_problem(self) -> str:
        if self.place.database_port() is None:
            return ""
        try:
            self._database("ping")
        except OSError as error:
            return f"DBMS: {error}"
        return ""

    def _database(self, op: str, **fields: Any) -> None:
        port = self.place.database_port()
        if port is None:
            raise OSError("there is no DBMS")
        answer = ask_json(port, {"op": op, **fields}, 5.0)
        if not answer["ok"]:
            raise OSError(answer["error"])


def main(argv: list[str]) -> int:
    """Serve: node folder, verb, descriptor of the inherited lock (kept open by inheritance)."""
    return Agent(Place(argv[0]), argv[1]).serve()
