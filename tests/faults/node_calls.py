"""One call of a start or stop script, brought to an exact point and held there (tests/faults/node_site.py says with what)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.conftest import wait_until
from tests.faults.node_site import LIMIT_S, Installation, SiteNode, halted

Script = Literal["start", "stop"]

POINTS: dict[Script, tuple[str, ...]] = {
    "start": ("before", "ticket", "queued", "taken", "begun", "ended", "unverified"),
    "stop": ("before", "ticket", "queued", "begun", "ended", "unverified"),
}
"""`taken`: claimed, and dcstatus is asked first, which only a start does. `ended`: the first command, and the next is not begun."""

ORDER: dict[Script, tuple[str, str]] = {"start": ("agent", "server"), "stop": ("server", "agent")}
VERBS: dict[Script, list[str]] = {"start": ["agent start", "server recover"], "stop": ["server faststop", "agent stop"]}
STATES: dict[Script, str] = {"start": "running", "stop": "stopped"}


@dataclass
class Call:
    """One call of a script on one node, held at a point."""

    node: SiteNode
    script: Script
    point: str = ""
    """One of POINTS; empty: it is not held."""
    known: set[str] = field(default_factory=set)
    recorded: int = 0
    ticket: str = ""
    began: float = 0.0
    held_s: float = 0.0
    took_s: float = 0.0
    _reached: float = 0.0
    _halted: AbstractContextManager[None] | None = None

    @property
    def _gate(self) -> Path:
        return self.node.home / f"gate-{self.script}"

    @property
    def first(self) -> str:
        return ORDER[self.script][0]

    @property
    def second(self) -> str:
        return ORDER[self.script][1]

    def begin(self) -> None:
        self.known = {ticket.id for ticket in self.node.tickets()}
        self.recorded = len(self.node.verbs())
        self._prepare()
        self.began = time.monotonic()
        self.process = self.node.begin(f"{self.script}.sh", CLP_FACTOR="GROUPSTOP" if self.script == "stop" else "")

    def _prepare(self) -> None:
        if self.point == "ticket":
            self._gate.touch()
        elif self.point == "queued":
            self.halt()
        elif self.point == "taken":
            self.node.put(self.first, "ask-hold")
        elif self.point in ("begun", "ended"):
            self.node.put(self.first, "hold")
        elif self.point == "unverified":
            self.node.put(self.second, "late" if self.script == "start" else "stubborn")

    def halt(self) -> None:
        """The RQ worker of the command queue stands still: what reaches it is not performed."""
        self._halted = halted(self.node.role("cmd"))
        self._halted.__enter__()

    def reach(self, installation: Installation) -> None:
        """Return when the call stands at its point."""
        self.ticket = self.node.await_ticket(self.known)
        if self.point == "queued":
            wait_until(lambda: installation.jobs(self.node), "the job", LIMIT_S)
        elif self.point == "taken":
            wait_until(lambda: self.node.state_of(self.ticket) == "busy", "the claim", LIMIT_S)
        elif self.point in ("begun", "ended"):
            wait_until(lambda: self.verbs() == VERBS[self.script][:1], "the first command", LIMIT_S)
            if self.point == "ended":
                self._finish_the_first()
        elif self.point == "unverified":
            wait_until(lambda: self.node.entry(self.ticket, 2, "ok"), "the last command's end", LIMIT_S)
        self._reached = time.monotonic()

    def _finish_the_first(self) -> None:
        self.halt()
        self.node.take(self.first, "hold")
        wait_until(lambda: self.node.entry(self.ticket, 1, "ok") and self.node.state_of(self.ticket) == "worker", "its end", LIMIT_S)
        settled = ("healthy", self.ticket) if self.script == "start" else ("unhealthy", "")

        def is_seen() -> bool:
            polled = self.node.polled(self.first)
            return (polled.get("status"), polled.get("ticket")) == settled

        wait_until(is_seen, "the poll that settles it", LIMIT_S)

    def release(self) -> None:
        """Let it go on; where its service is concerned, things take their course."""
        self._gate.unlink(missing_ok=True)
        self.node.take(self.first, "hold", "ask-hold")
        if self._halted is not None:
            self._halted.__exit__(None, None, None)
            self._halted = None
        if self.point == "unverified" and self.script == "start":
            self.node.put(self.second, "up")
        elif self.point == "unverified":
            self.node.take(self.second, "up")
        self.held_s = time.monotonic() - self._reached if self._reached else 0.0

    def see_end(self, code: int = 0) -> None:
        assert self.process.wait(LIMIT_S) == code, f"{self.point}: {(self.node.home / 'log').read_text()[-2000:]}"
        self.took_s = time.monotonic() - self.began - self.held_s
        self.ticket = self.ticket or self.node.await_ticket(self.known)
        self.node.take(self.second, "late", "stubborn")

    def verbs(self) -> list[str]:
        """What the stand-ins say that this call ran."""
        return self.node.verbs()[self.recorded :]


def bring(installation: Installation, calls: Sequence[Call]) -> None:
    """Begin the calls, and return when each stands at its point."""
    for call in calls:
        call.begin()
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(lambda call: call.reach(installation), calls))


def see_ends(calls: Sequence[Call], code: int = 0) -> None:
    """Wait for the scripts, side by side, so that each one's own time is known."""
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(lambda call: call.see_end(code), calls))


def settle(installation: Installation, calls: Sequence[Call]) -> None:
    """Until the log has told the calls' ends, the services are where the calls wanted them, and no job is left."""
    for call in calls:
        give_up = time.monotonic() + LIMIT_S
        while not installation.settled(call.node, call.ticket, STATES[call.script]):
            assert time.monotonic() < give_up, (
                f"{call.point or 'undisturbed'} {call.script}: {installation.story(call.node, call.ticket)}, "
                f"{installation.states(call.node)}, {installation.jobs(call.node)} jobs"
            )
            time.sleep(0.05)


def play(installation: Installation, script: Script, nodes: Sequence[SiteNode] | None = None) -> list[Call]:
    """A call on each node that nothing disturbs."""
    calls = [Call(node, script) for node in nodes or installation.nodes]
    bring(installation, calls)
    see_ends(calls)
    settle(installation, calls)
    return calls


def happened(told: list[str]) -> list[str]:
    """Of a story: what was done, without who decided it."""
    return [words for words in told if not words.startswith(("issued", "fell-back"))]


WHOLE = ["called", "began 1", "ended 1 ok", "began 2", "ended 2 ok", "script 0"]
"""What the log tells of a call that did all it was asked to, once and in order."""
