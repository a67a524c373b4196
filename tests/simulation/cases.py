"""What may stand on a node's disk before a script is called, and what a hook may do before it ends: generated, for test_conformance.py.

The same `prepare` and `act` work on a real folder and on a simulated one. Standard library only: the real hook's stand-in imports this.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

BOOT, OTHER_BOOT, GROUP = "boot1", "boot0", "group-a"
NOBODY = 99_999_999
"""No process has this id."""

SHAPES = ("agent server", "server", "agent", "dbms server")
KINDS = {"agent": "agent", "server": "server", "dbms": "command"}
HOOK_CODES = (0, 40, 75, 1, 9, 127)


@dataclass(frozen=True)
class Older:
    """A ticket that is there already."""

    seq: int
    boot: str
    kind: str
    state: str
    """As in the file's name; `busy-1-LIVING`: of a living process."""
    entries: tuple[tuple[int, str], ...] = ()
    group: str = GROUP

    @property
    def name(self) -> str:
        return f"{self.boot}-{self.group}-{self.seq}-{self.kind}"


@dataclass(frozen=True)
class Case:
    """One call of a script, on one folder."""

    seed: int
    script: str = "start"
    services: str = "agent server"
    event: str = "START"
    disk: str = "SUCCESS"
    factor: str = ""
    previous: str = ""
    up: tuple[str, ...] = ()
    moods: dict[str, str] = field(default_factory=dict)
    """service -> fail, late, stubborn, mute: as the stand-ins of tests/protocol/bench.py behave"""
    older: tuple[Older, ...] = ()
    hook: tuple[str, ...] = ()
    """What the hook does: see `act`."""
    ending: str = "75"
    """How it ends: a code, `hang`, `killed`, `missing`."""
    bypass: bool = False
    has_boot: bool = True
    report_failure: bool = False
    told_to_end: bool = False
    """SIGTERM while the first verb of the plain sequence runs."""
    verbs: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        plain = {key: value for key, value in asdict(self).items() if value not in (None, "", (), {}, False, [])}
        return json.dumps(plain)


def generate(seed: int) -> Case:
    """The case of this seed."""
    dice = random.Random(seed)
    script = dice.choice(("start", "start", "stop", "stop", "watch"))
    services = dice.choice(SHAPES)
    names = services.split()
    if script == "watch":
        return _watch_case(seed, dice)
    event = dice.choices(("START", "FAILOVER", "RECOVER", "", "ODD"), (8, 6, 1, 1, 1))[0]
    return Case(
        seed, script, services, event, dice.choices(("SUCCESS", "FAILURE"), (12, 1))[0],
        dice.choice(("", "GROUPMOVE", "RESOURCERESTART")) if script == "stop" else "", dice.choice(("", "node2")),
        tuple(name for name in names if dice.random() < (0.2 if script == "start" else 0.7)),
        {name: _mood(dice, script) for name in names if dice.random() < 0.25},
        tuple(_older(dice, seq, names) for seq in range(1, dice.choice((1, 1, 2, 3)))),
        _hook(dice, names), dice.choices(("75", "0", "40", "1", "9", "killed", "missing", "hang"), (10, 4, 4, 3, 1, 2, 1, 1))[0],
        bypass=dice.random() < 0.1, has_boot=dice.random() > 0.05, report_failure=script == "stop" and dice.random() < 0.3,
        verbs={"agent_start_START": "recover"} if dice.random() < 0.15 else {},
    )  # fmt: skip


def _watch_case(seed: int, dice: random.Random) -> Case:
    ending = dice.choice(("75", "40", "40", "1", "killed", "missing", "hang"))
    hook = ("code:7",) if ending == "40" and dice.random() < 0.7 else ("code:x",) if dice.random() < 0.2 else ()
    return Case(seed, "watch", "server", up=(), hook=hook, ending=ending, bypass=dice.random() < 0.15, has_boot=dice.random() > 0.1)


def _mood(dice: random.Random, script: str) -> str:
    return dice.choice(("fail", "fail", "late", "mute") if script == "start" else ("fail", "fail", "stubborn", "mute"))


def _older(dice: random.Random, seq: int, names: list[str]) -> Older:
    state = dice.choice(
        (
            "open",
            "worker",
            f"busy-1-{NOBODY}-1",
            "busy-1-LIVING",
            "busy-1-STRANGER",
            "script",
            "script-1",
            "done",
            "void",
            "busy-2-99999999-1",
        )
    )
    entries = tuple((1, one) for one in ("start", "ok", "fail", "lost") if dice.random() < 0.3)
    return Older(
        seq, dice.choices((BOOT, OTHER_BOOT), (4, 1))[0], dice.choice(("start", "stop")), state, entries,
        dice.choices((GROUP, "group-b"), (8, 1))[0],
    )  # fmt: skip


def _hook(dice: random.Random, names: list[str]) -> tuple[str, ...]:
    """A few steps of a worker at work, cut off anywhere."""
    steps = ["worker"]
    for n, name in enumerate(names, start=1):
        end = dice.choice(("ok", "ok", "fail", "lost"))
        steps += [f"busy:{n}", f"start:{n}", *([f"toggle:{name}"] if dice.random() < 0.7 else []), f"{end}:{n}", "release"]
    cut = dice.choice((0, 0, 1, 2, 3, len(steps), dice.randint(0, len(steps))))
    both = ["lost:1", "ok:1"] if cut and dice.random() < 0.2 else []  # thought lost, and it wrote its own end after all
    return (*steps[:cut], *both, *(["void"] if dice.random() < 0.08 else []), *(["verdict"] if dice.random() < 0.2 else []))


# --- on a folder, real or simulated -------------------------------------------------------------------------------------------------------


def prepare(folder: Any, case: Case, living: Callable[[], tuple[int, str]]) -> None:
    """Put what is there before the call. `living` starts a process and tells its id and birth."""
    for name in ("tickets", "journal", "outbox", "watch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for older in case.older:
        listed = _listed(case.services.split(), older.kind)
        state, born = older.state, ""
        if state.endswith(("LIVING", "STRANGER")):
            pid, born = living()
            state = f"busy-1-{pid}-{born if state.endswith('LIVING') else '1'}"
        text = f"ticket={older.name}\nboot={older.boot}\ngroup={older.group}\nscript={older.kind}\nevent=START\ncommands={len(listed)}\n"
        text += "".join(f"{n}.service={service}\n{n}.verb={verb}\n" for n, (service, verb) in enumerate(listed, start=1))
        (folder / "tickets" / f"{older.name}.{state}").write_text(text)
        (folder / "tickets" / f"{older.name}.alive").write_text("0000000001\n")
        for n, entry in older.entries:
            _write_entry(folder, older.name, n, entry, listed, older.boot)
    if case.bypass:
        (folder / "dcsup.bypass").write_text("")


def _listed(services: list[str], kind: str) -> list[tuple[str, str]]:
    return [(service, kind) for service in (services if kind == "start" else services[::-1])]


def _write_entry(folder: Any, ticket: str, n: int, entry: str, listed: list[tuple[str, str]], boot: str) -> None:
    service, verb = listed[n - 1]
    text = f"ticket={ticket}\nn={n}\nservice={service}\nverb={verb}\nby=worker\npid={NOBODY}\nborn=1\nboot={boot}\nmono=1.5\nwall=1000.5\n"
    (folder / "journal" / f"{ticket}.{n}.{entry}").write_text(text)


def act(folder: Any, ticket: str, steps: tuple[str, ...], toggle: Callable[[str], None]) -> None:
    """What the worker and the hook do with the script's ticket before the hook ends.

    worker, busy:N, release, void   the ticket changes its state (busy: in a process that is gone)
    start:N, ok:N, fail:N, lost:N   the journal gets an entry
    toggle:SERVICE                  a command had its effect
    verdict, code:TEXT              the files beside ticket and watch
    """
    tickets = folder / "tickets"
    services: list[str] = []
    for step in steps:
        what, _, rest = step.partition(":")
        if what in ("worker", "busy", "release", "void"):
            new = {"busy": f"busy-{rest}-{NOBODY}-1", "release": "worker"}.get(what, what)
            now = next(
                path for path in tickets.iterdir() if path.name.startswith(f"{ticket}.") and not path.name.endswith((".alive", ".verdict"))
            )
            now.rename(tickets / f"{ticket}.{new}")
        elif what == "toggle":
            toggle(rest)
        elif what == "verdict":
            (tickets / f"{ticket}.verdict").write_text("code=75\nreason=test\n")
        elif what == "code":
            (folder / "watch" / "server.code").write_text(f"{rest}\n")
        else:
            services = services or _services_of(tickets, ticket)
            kind = ticket.rpartition("-")[2]
            _write_entry(folder, ticket, int(rest), what, [(service, kind) for service in services], BOOT)


def _services_of(tickets: Any, ticket: str) -> list[str]:
    path = next(path for path in tickets.iterdir() if path.name.startswith(f"{ticket}.") and not path.name.endswith((".alive", ".verdict")))
    pairs = [line.partition("=") for line in path.read_text().splitlines()]
    return [value for key, _, value in pairs if key.endswith(".service")]
