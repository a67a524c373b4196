"""The node alone: Redis, orchestrator or worker gone at every point of a start and of a stop, and what the log tells afterwards.

One fault meets several nodes at once, each of whose calls was brought to another point and is held there (tests/faults/node_site.py).
A round: bring the calls to their points, take the part away, let the calls go on, see them end; give the part back, and read the log.

`DCSUP_ALL_CELLS=1` runs every cell, 3 x 7 of a start and 3 x 6 of a stop; without it the stop's are left to the worker, which is what a
stop is likeliest to be called for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.conftest import wait_until
from tests.faults.node_site import ACK_S, LIMIT_S, Installation, SiteNode, halted, installation
from workers.hooks.calls import NO_PROGRESS_S

Script = Literal["start", "stop"]

TARGETS = ("redis", "orchestrator", "worker")
POINTS: dict[Script, tuple[str, ...]] = {
    "start": ("before", "ticket", "queued", "taken", "begun", "ended", "unverified"),
    "stop": ("before", "ticket", "queued", "begun", "ended", "unverified"),
}
"""`taken`: claimed, and dcstatus is asked first, which only a start does. `ended`: the first command, and the next is not begun."""

ALL_CELLS = bool(os.environ.get("DCSUP_ALL_CELLS"))
ROUNDS: list[tuple[str, Script]] = [(target, "start") for target in TARGETS]
ROUNDS += [(target, "stop") for target in (TARGETS if ALL_CELLS else ("worker",))]

ORDER: dict[Script, tuple[str, str]] = {"start": ("agent", "server"), "stop": ("server", "agent")}
VERBS: dict[Script, list[str]] = {"start": ["agent start", "server recover"], "stop": ["server faststop", "agent stop"]}
STATES: dict[Script, str] = {"start": "running", "stop": "stopped"}


@dataclass
class Call:
    """One call of a script on one node, held at a point."""

    node: SiteNode
    script: Script
    point: str
    known: set[str] = field(default_factory=set)
    recorded: int = 0
    ticket: str = ""
    began: float = 0.0
    held_s: float = 0.0
    took_s: float = 0.0
    _reached: float = 0.0
    _halted: AbstractContextManager[None] | None = None

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
        self.process = self.node.begin(f"{self.script}.sh")

    def _prepare(self) -> None:
        if self.point == "ticket":
            self.node.gate.touch()
        elif self.point == "queued":
            self._halt()
        elif self.point == "taken":
            self.node.put(self.first, "ask-hold")
        elif self.point in ("begun", "ended"):
            self.node.put(self.first, "hold")
        elif self.point == "unverified":
            self.node.put(self.second, "late" if self.script == "start" else "stubborn")

    def _halt(self) -> None:
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
        self._halt()
        self.node.take(self.first, "hold")
        wait_until(lambda: self.node.entry(self.ticket, 1, "ok") and self.node.state_of(self.ticket) == "worker", "its end", LIMIT_S)
        settled = ("healthy", self.ticket) if self.script == "start" else ("unhealthy", "")

        def is_seen() -> bool:
            polled = self.node.polled(self.first)
            return (polled.get("status"), polled.get("ticket")) == settled

        wait_until(is_seen, "the poll that settles it", LIMIT_S)

    def release(self) -> None:
        """Let it go on; where its service is concerned, things take their course."""
        self.node.gate.unlink(missing_ok=True)
        self.node.take(self.first, "hold", "ask-hold")
        if self._halted is not None:
            self._halted.__exit__(None, None, None)
            self._halted = None
        if self.point == "unverified" and self.script == "start":
            self.node.put(self.second, "up")
        elif self.point == "unverified":
            self.node.take(self.second, "up")
        self.held_s = time.monotonic() - self._reached if self._reached else 0.0

    def see_end(self) -> None:
        assert self.process.wait(LIMIT_S) == 0, f"{self.point}: {(self.node.home / 'log').read_text()[-2000:]}"
        self.took_s = time.monotonic() - self.began - self.held_s
        self.ticket = self.ticket or self.node.await_ticket(self.known)
        self.node.take(self.second, "late", "stubborn")

    def verbs(self) -> list[str]:
        """What the stand-ins say that this call ran."""
        return self.node.verbs()[self.recorded :]


def bound_s(call: Call, undisturbed_s: float) -> float:
    """The issue's bound, and NODE.md's own where a command or poll was under way; and time for a machine that is busier than before."""
    under_way = call.point not in ("before", "ticket")
    return undisturbed_s + ACK_S + (2 * NO_PROGRESS_S if under_way else 0) + max(10.0, 2 * undisturbed_s)


def check_the_story(call: Call, told: list[str]) -> None:
    """What the log tells of the call: everything once, in order; and no command is issued that has ended or is nobody's any more."""
    happened = [words for words in told if not words.startswith(("issued", "fell-back"))]
    assert happened == ["called", "began 1", "ended 1 ok", "began 2", "ended 2 ok", "script 0"], call.point
    for n in (1, 2):
        issued = [at for at, words in enumerate(told) if words == f"issued {n}"]
        assert len(issued) <= 1
        assert all(at < told.index(f"ended {n} ok") for at in issued), call.point


class Rounds:
    """The installation, and how long the calls take when nothing is amiss."""

    def __init__(self, made: Installation) -> None:
        self.installation = made
        self.undisturbed_s: dict[Script, float] = {}
        for script in ("start", "stop"):
            calls = self._calls(script, [""] * len(made.nodes))
            self._bring(calls)
            self._see_ends(calls)
            self.undisturbed_s[script] = max(call.took_s for call in calls)
            self._settle(calls)

    def play(self, target: str, script: Script) -> list[Call]:
        """One round; returns its calls, judged."""
        if script == "stop" or not self._is_stopped():
            self.get_to("running" if script == "stop" else "stopped")
        calls = self._calls(script, POINTS[script])
        self._bring([call for call in calls if call.point != "before"])
        self.installation.take(target)
        for call in calls:
            if call.point == "before":
                call.begin()
            call.release()
        self._see_ends(calls)
        self.installation.give_back(target)
        self._settle(calls)
        return calls

    def _is_stopped(self) -> bool:
        return not any(path for node in self.installation.nodes for path in node.home.glob("*.up"))

    def get_to(self, state: str) -> None:
        """Call the scripts undisturbed, where that is needed to be in this state."""
        script: Script = "start" if state == "running" else "stop"
        if self._is_stopped() != (script == "start"):
            return
        calls = self._calls(script, [""] * len(self.installation.nodes))
        self._bring(calls)
        self._see_ends(calls)
        self._settle(calls)

    def _calls(self, script: Script, points: tuple[str, ...] | list[str]) -> list[Call]:
        return [Call(node, script, point) for node, point in zip(self.installation.nodes, points, strict=False)]

    def _bring(self, calls: list[Call]) -> None:
        for call in calls:
            call.begin()
        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(lambda call: call.reach(self.installation) if call.point else None, calls))

    @staticmethod
    def _see_ends(calls: list[Call]) -> None:
        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(Call.see_end, calls))

    def _settle(self, calls: list[Call]) -> None:
        for call in calls:
            wait_until(
                lambda call=call: self.installation.settled(call.node, call.ticket, STATES[call.script]),  # type: ignore[misc]
                f"the end of {call.point or 'an undisturbed call'} in the log: {self.installation.story(call.node, call.ticket)}",
                LIMIT_S,
            )


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    with installation(tmp_path_factory.mktemp("alone"), len(POINTS["start"])) as made:
        for node in made.nodes:
            node.configure(DCSUP_HOOK_SILENCE=60)  # the gate is the test's, and no hook that hangs
        yield Rounds(made)


@pytest.mark.parametrize(("target", "script"), ROUNDS, ids=lambda word: str(word))
def test_with_a_part_gone_at_any_point_the_call_ends_in_time_and_each_verb_ran_once(
    rounds: Rounds, target: str, script: Script, record_property: Callable[[str, object], None]
) -> None:
    """The bound of NODE.md, I7, and the log's story in order; afterwards no command is issued for what has ended, and no job is left."""
    calls = rounds.play(target, script)
    undisturbed_s = rounds.undisturbed_s[script]
    took = {call.point: round(call.took_s, 1) for call in calls}
    record_property(f"{script} without {target}, s (undisturbed {undisturbed_s:.1f})", str(took))
    for call in calls:
        assert call.verbs() == VERBS[script], call.point
        assert call.took_s <= bound_s(call, undisturbed_s), took
        check_the_story(call, rounds.installation.story(call.node, call.ticket))


