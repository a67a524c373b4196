"""DataCoordinator on one node: servers, agents and DBMSs with a start time, a `dcstatus`, and all the ways in which they let one down.

The model of GUIDE.md's commands: a start makes the service's process, which becomes healthy some time later; a stop ends it; `dcstatus` is
0 while it runs and is healthy. Nobody else makes or ends such a process, except a crash and the end of the node. What ran when is
recorded here and nowhere else (`VerbRun`, `Life`): checks compare dcsup's own words with these records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

from tests.simulation.engine import Kernel, Machine, Process

FOREVER_S = float("inf")
START_VERBS = ("start", "recover")
CODE_DOWN = 7
"""Of a dcstatus whose service is not healthy."""

CODE_FAILED = 3
CODE_NOT_FOUND = 127


@dataclass
class VerbRun:
    """One run of a verb, from its first to its last moment."""

    node: str
    ticket: str | None
    n: int
    service: str
    verb: str
    by: Literal["worker", "script"]
    began_s: float
    process: Process
    ended_s: float | None = None
    """None: it runs, or its process was killed."""
    code: int | None = None

    @property
    def is_under_way(self) -> bool:
        return self.ended_s is None and self.process.alive

    def __str__(self) -> str:
        end = f"{self.ended_s:.2f} code {self.code}" if self.ended_s is not None else "runs" if self.process.alive else "killed"
        return f"{self.node} {self.verb} {self.service} for {self.ticket}#{self.n} by {self.by} {self.began_s:.2f}-{end}"


@dataclass
class Life:
    """One life of a service's process."""

    node: str
    service: str
    began_s: float
    healthy_s: float
    run: VerbRun
    """Which run of a verb made it."""
    ended_s: float | None = None
    why: str = ""
    """stop, crash, node"""


class Answer(NamedTuple):
    """One question of `dcstatus`, when it began."""

    at_s: float
    service: str
    code: int | None
    """None: it hung."""
    asker: Process | None


class Pace(NamedTuple):
    """How long things take here, in seconds: least and most."""

    verb_s: tuple[float, float] = (0.5, 4.0)
    healthy_s: tuple[float, float] = (0.0, 6.0)
    """From the start verb's effect to the first good dcstatus."""
    status_s: tuple[float, float] = (0.05, 0.4)


@dataclass
class Moods:
    """What is wrong with one service at the moment; `heal` makes a new one."""

    fail_verbs: int = 0
    """So many verbs end with a code other than 0, without effect."""
    hang_verbs: int = 0
    slow_verbs: int = 0
    verb_missing: bool = False
    stubborn: bool = False
    """A stop ends with 0 and stops nothing."""
    status_hangs: bool = False
    status_slow_s: float = 0.0
    status_lies: int = 0
    """So many answers are bad though the service is well."""
    status_missing: bool = False
    never_healthy: bool = False
    late: bool = False
    """What is started now never becomes healthy."""


@dataclass
class SharedDisk:
    """What moves with the group: the server's schedules (G4-G6)."""

    running: dict[str, bool] = field(default_factory=lambda: {"daily": True, "hourly": True, "by-hand": False})
    automatic: tuple[str, ...] = ("daily", "hourly")
    last_stop: str | None = None

    def started(self, verb: str) -> None:
        if verb == "start" or self.last_stop == "stop":
            self.running = {name: name in self.automatic for name in self.running}
        self.last_stop = None

    def stopped(self, verb: str) -> None:
        self.last_stop = verb
        if verb == "stop":
            self.running = dict.fromkeys(self.running, False)


class Services:
    """All services of one node."""

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        kinds: dict[str, str],
        shared: SharedDisk,
        pace: Pace,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kernel, self.machine, self.kinds, self.shared, self.pace, self.told = kernel, machine, kinds, shared, pace, told
        self.runs: list[VerbRun] = []
        self.lives: list[Life] = []
        self.alive: dict[str, Life] = {}
        """Service -> its present life."""
        self.moods = {name: Moods() for name in kinds}
        self.answers: list[Answer] = []

    @property
    def _dice(self) -> Random:
        return self.kernel.dice

    def heal(self) -> None:
        """Nothing is wrong any more; what is down stays down."""
        self.moods = {name: Moods() for name in self.kinds}

    def is_healthy(self, service: str) -> bool:
        life = self.alive.get(service)
        return life is not None and self.kernel.now_s >= life.healthy_s and not self.moods[service].never_healthy

    def under_way(self) -> list[VerbRun]:
        return [run for run in self.runs if run.is_under_way]

    # --- its commands

    def run_verb(self, service: str, verb: str, ticket: str | None, n: int, by: Literal["worker", "script"]) -> int:
        """Run a verb in the current process; returns its exit code.

        Its effect comes in the middle, so that one that is killed may have had it.
        """
        process = self.kernel.current
        assert process is not None
        if self.moods[service].verb_missing:
            return CODE_NOT_FOUND
        run = VerbRun(self.machine.name, ticket, n, service, verb, by, self.kernel.now_s, process)
        self.runs.append(run)
        self.told(f"{verb} {service} begins, by {by}")
        mood = self.moods[service]
        fails = self._taken(mood, "fail_verbs")
        took_s = self._dice.uniform(*self.pace.verb_s) * (8 if self._taken(mood, "slow_verbs") else 1)
        if self._taken(mood, "hang_verbs"):
            self.kernel.sleep(10_000.0)
        self.kernel.sleep(took_s / 2)
        if not fails:
            self._effect(run)
        self.kernel.sleep(took_s / 2)
        run.ended_s, run.code = self.kernel.now_s, CODE_FAILED if fails else 0
        self.told(f"{verb} {service} ends with {run.code}")
        return run.code

    @staticmethod
    def _taken(mood: Moods, name: str) -> bool:
        left: int = getattr(mood, name)
        if left:
            setattr(mood, name, left - 1)
        return left > 0

    def _effect(self, run: VerbRun) -> None:
        now_s = self.kernel.now_s
        if run.verb in START_VERBS:
            if run.service in self.alive:
                return
            needs_s = FOREVER_S if self.moods[run.service].late else self._dice.uniform(*self.pace.healthy_s)
            life = Life(self.machine.name, run.service, now_s, now_s + needs_s, run)
            self.alive[run.service] = life
            self.lives.append(life)
            if self.kinds[run.service] == "server":
                self.shared.started(run.verb)
        elif not self.moods[run.service].stubborn:
            if self.kinds[run.service] == "server" and run.service in self.alive:
                self.shared.stopped(run.verb)
            self.end(run.service, "stop")

    def end(self, service: str, why: str) -> None:
        life = self.alive.pop(service, None)
        if life is not None:
            life.ended_s, life.why = self.kernel.now_s, why
            self.told(f"{service} is down: {why}")

    def end_all(self, why: str) -> None:
        for service in list(self.alive):
            self.end(service, why)

    # --- its questions

    def run(self, argv: Sequence[str]) -> tuple[float, int]:
        """How long a short command takes (infinite: it hangs) and its code: `dcstatus SERVICE`.

        Raises:
            OSError: there is no such command now.
        """
        service = argv[1]
        mood = self.moods[service]
        if mood.status_missing:
            raise OSError(2, "No such file or directory", argv[0])
        took_s = self._dice.uniform(*self.pace.status_s) + mood.status_slow_s
        code = 0 if self.is_healthy(service) else CODE_DOWN
        if code == 0 and self._taken(mood, "status_lies"):
            code = CODE_DOWN
        self.answers.append(Answer(self.kernel.now_s, service, None if mood.status_hangs else code, self.kernel.current))
        return (FOREVER_S if mood.status_hangs else took_s), code

    def schedules(self) -> str:
        """What the probe prints."""
        lines = [
            {"name": name, "startup_mode": "auto" if name in self.shared.automatic else "manual", "state": "started" if runs else "stopped"}
            for name, runs in self.shared.running.items()
        ]
        return "".join(json.dumps(line) + "\n" for line in lines)
