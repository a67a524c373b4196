"""The DataCoordinator server: answers clients, runs the schedules, and keeps its state in the metadata DB.

One line in, one line out: ``STATUS`` -> ``healthy`` | ``starting`` | a reason; ``WRITE <text>`` -> ``OK`` once it is stored;
``SCHEDULES`` -> a JSON list; ``SET <JSON list>`` replaces the schedules; ``STOP stop|faststop`` -> ``OK``, and the process ends.

Which schedules run after a start is decided here, once, when the start is over (G4-G7):

=============  =========  ==================================================
last stop      verb       started afterwards
=============  =========  ==================================================
faststop       recover    those that were started (G4)
stop           recover    the automatic ones, and no others (G5)
any            start      the automatic ones; the others stay as they were (G6)
none: died     recover    those that were started (G7, as G4)
=============  =========  ==================================================

Two faults touch it by name: ``schedules-not-resumed`` (these don't come back) and ``schedules-surprise`` (these start though
nobody asked), one name a line.
"""

from __future__ import annotations

import json
import time
from typing import Any

from .dc_daemon import Daemon
from .place import Place, ask_json

RUN_INTERVAL_S = 0.3
METADATA_TIMEOUT_S = 30.0
STOP_METADATA_TIMEOUT_S = 5.0


def states_after_start(schedules: list[tuple[str, str, str]], last_stop: str, verb: str) -> dict[str, str]:
    """The state of each schedule after ``verb``, by the rules above and without any fault."""
    if verb == "start":
        return {name: "started" if mode == "auto" else state for name, mode, state in schedules}
    if last_stop == "stop":
        return {name: "started" if mode == "auto" else "stopped" for name, mode, _ in schedules}
    return {name: state for name, _, state in schedules}


class Server(Daemon):
    """The daemon; ``_running`` is what it runs, the metadata DB what it would remember."""

    component = "server"

    def __init__(self, place: Place, verb: str) -> None:
        super().__init__(place, verb)
        self._running: list[str] = []

    def begin(self) -> None:
        """Wait for the metadata DB, which may have been launched a moment ago."""
        self._await_metadata(METADATA_TIMEOUT_S)

    def _await_metadata(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while problem := self._metadata_problem():
            if time.monotonic() > deadline:
                raise TimeoutError(problem)
            time.sleep(0.05)

    def ready(self) -> None:
        """Bring the schedules up, then be healthy and keep them running."""
        found = self._metadata("read")
        states = states_after_start([(row[0], row[1], row[2]) for row in found["schedules"]], found["last_stop"], self.verb)
        states |= dict.fromkeys(self._named("schedules-not-resumed", states), "stopped")
        states |= dict.fromkeys(self._named("schedules-surprise", states), "started")
        self._metadata("apply", states=states, last_stop="none")
        self._running = [name for name, state in states.items() if state == "started"]
        super().ready()
        self._run_schedules()

    def _named(self, fault: str, known: dict[str, str]) -> list[str]:
        return [name for name in (self.place.fault(fault) or "").splitlines() if name in known]

    def _run_schedules(self) -> None:
        while not self.ending.wait(RUN_INTERVAL_S):
            self.check_disk()
            try:
                self._metadata("run", schedules=self._running, node=self.place.node, time=time.time())
            except OSError:
                pass  # without its metadata DB nothing runs; STATUS says so, and the next round tries again

    def answer(self, line: str) -> str:
        """Answer one line of the protocol."""
        word, _, rest = line.partition(" ")
        match word:
            case "STATUS":
                return self._status()
            case "STOP":
                return self._stop(rest)
        if not self.healthy:
            return "ERROR starting"
        try:
            return self._serve_client(word, rest)
        except OSError as error:
            return f"ERROR {error}"

    def _serve_client(self, word: str, rest: str) -> str:
        match word:
            case "WRITE":
                self._metadata("write", text=rest, node=self.place.node, time=time.time())
                return "OK"
            case "SCHEDULES":
                return json.dumps(self._metadata("read")["schedules"], ensure_ascii=False)
            case "SET":
                schedules = json.loads(rest)
                self._metadata("replace", schedules=schedules)
                self._running = [name for name, _, state in schedules if state == "started"]
                return "OK"
        return "ERROR unknown request"

    def _status(self) -> str:
        if not self.healthy:
            return "starting"
        if self.place.fault("unhealthy-server") is not None:
            return "not healthy"
        return self._metadata_problem() or "healthy"

    def _stop(self, verb: str) -> str:
        self.ending.set()
        time.sleep(self.place.fault_seconds("stop-seconds-server"))
        try:
            self._remember_stop(verb)
        except OSError as error:
            self.place.record("daemons", "stop not remembered", component=self.component, reason=str(error))
        self.end(verb)
        return "OK"

    def _remember_stop(self, verb: str) -> None:
        if verb == "faststop" and not self.healthy:
            return  # a start that was not over has changed nothing, nor does its forced stop
        self._await_metadata(STOP_METADATA_TIMEOUT_S)
        names = [row[0] for row in self._metadata("read")["schedules"]]
        self._metadata("apply", states=dict.fromkeys(names, "stopped") if verb == "stop" else {}, last_stop=verb)

    def _metadata_problem(self) -> str:
        try:
            self._metadata("ping")
        except OSError as error:
            return f"metadata DB: {error}"
        return ""

    def _metadata(self, op: str, **fields: Any) -> dict[str, Any]:
        answer = ask_json(self.place.ports["metadata"], {"op": op, **fields}, 5.0)
        if not answer["ok"]:
            raise OSError(answer["error"])
        return answer


def main(argv: list[str]) -> int:
    """Serve: node folder, verb, descriptor of the inherited lock (kept open by inheritance)."""
    return Server(Place(argv[0]), argv[1]).serve()
