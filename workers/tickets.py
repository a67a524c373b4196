"""Tickets: the fence between the two parties that may run a verb on a node (NODE.md, N1-N9; read that page first).

A ticket is one call of a start or stop script. Its file's *name* is its state, so that a batch file can read it, and every change of state
is one rename: who renames first has it, who finds the name gone looks again.

    tickets/<T>.open | .worker | .busy-<N>-<PID>-<BORN> | .script | .script-<N> | .done | .void      the ticket, exactly one of these
    tickets/<T>.pulse      sign of life of a batch file to its hook (workers/hooks/common.py)
    tickets/<T>.alive      sign of life of the script's side: content a counter, modified every second
    tickets/<T>.verdict    the orchestrator's word: 40 or 75

T is `<boot>-<group>-<seq>-start|stop`; the boot id has no `-` and seq is digits, so that a group's own `-` does no harm.
Standard library only: hooks and launchers import this.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Literal, NamedTuple

from workers import files, journal

Kind = Literal["start", "stop"]
State = Literal["open", "worker", "busy", "script", "done", "void"]

ALIVE_LIMIT_S = 2.0
"""Nobody claims a ticket whose sign of life is older (N7)."""

_ID = re.compile(r"(?P<boot>[A-Za-z0-9]+)-(?P<group>.+)-(?P<seq>[0-9]+)-(?P<kind>start|stop)")
_STATE = re.compile(r"(?P<word>open|worker|done|void)|busy-(?P<busy>\d+)-(?P<pid>\d+)-(?P<born>[0-9A-Za-z]+)|script(?:-(?P<script>\d+))?")
_WORDS: dict[str, State] = {"open": "open", "worker": "worker", "done": "done", "void": "void"}
_SIDECARS = (".alive", ".verdict", ".pulse")

RENAME_TRIES = 50 if sys.platform == "win32" else 1
"""A batch file that reads a ticket holds it for a moment, and Windows renames no file that is held: look again for a second."""

_RENAME_PAUSE_S = 0.02

ORPHANS_KEPT_S = 86400.0
"""What belongs to no ticket (a script was killed while it made one) is cleared away after a day."""


class Command(NamedTuple):
    """One line of the ticket's list, which is the law: nobody runs anything else for it."""

    n: int
    service: str
    verb: str


class Ticket(NamedTuple):
    """A ticket in the state in which it was seen; by the time one acts it may have another."""

    path: Path
    id: str
    boot: str
    group: str
    seq: int
    kind: Kind
    state: State
    n: int | None = None
    """The command under way (busy, and script while its command runs)."""
    pid: int | None = None
    born: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "void")

    def commands(self) -> list[Command]:
        """The ticket's list in execution order; empty when the file was renamed meanwhile or is damaged."""
        return commands_of(files.read_fields(self.path) or {})


class Verdict(NamedTuple):
    code: int
    reason: str


def commands_of(fields: dict[str, str]) -> list[Command]:
    """The commands in a ticket's content; a list that is not whole counts as empty, for half of it is not what the script asked."""
    count = files.to_int(fields.get("commands")) or 0
    if count > len(fields):
        return []  # a damaged number: nobody may be kept busy by counting up to it
    commands = [Command(n, fields.get(f"{n}.service", ""), fields.get(f"{n}.verb", "")) for n in range(1, count + 1)]
    return commands if all(command.service and command.verb for command in commands) else []


def folder_of(node_folder: Path) -> Path:
    return node_folder / "tickets"


def parse(path: Path) -> Ticket | None:
    """The ticket that a file name tells of; None for sidecars, half-written files and strangers."""
    name, _, suffix = path.name.rpartition(".")
    identity, state = _ID.fullmatch(name), _STATE.fullmatch(suffix)
    if identity is None or state is None:
        return None
    kind: Kind = "start" if identity["kind"] == "start" else "stop"
    common = (path, name, identity["boot"], identity["group"], int(identity["seq"]), kind)
    if state["busy"]:
        return Ticket(*common, "busy", int(state["busy"]), int(state["pid"]), state["born"])
    if state["word"]:
        return Ticket(*common, _WORDS[state["word"]])
    return Ticket(*common, "script", files.to_int(state["script"]))


def listing(node_folder: Path) -> list[Ticket]:
    """All tickets on the disk, oldest first. One that is being renamed at this moment can be missing or be there twice."""
    try:
        paths = list(folder_of(node_folder).iterdir())
    except OSError:
        return []
    found = map(parse, paths)
    return sorted((ticket for ticket in found if ticket is not None), key=lambda ticket: ticket.seq)


def find(node_folder: Path, ticket: str) -> Ticket | None:
    """The ticket in its present state; None: it is not on the disk.

    A folder that is read while a name in it changes may show neither name, so an absence is looked at three times.
    """
    for attempt in range(3):
        if attempt:
            time.sleep(0.005)
        for found in listing(node_folder):
            if found.id == ticket and found.path.exists():
                return found
    return None


def has_twin(node_folder: Path, ticket: Ticket) -> bool:
    """Whether the ticket is on the disk under another name too. Renames never make that; a damaged disk may, and then a rename decides
    nothing (N2): the script and the worker could each have one."""
    twins = [other.path for other in listing(node_folder) if other.id == ticket.id and other.path != ticket.path]
    return any(path.exists() and ticket.path.exists() for path in twins)


def _rename(ticket: Ticket, state: str) -> Ticket | None:
    """N2: one rename decides. None: it has another name by now (look again), or the disk refuses."""
    target = ticket.path.with_name(f"{ticket.id}.{state}")
    for attempt in range(RENAME_TRIES):
        try:
            ticket.path.rename(target)
        except PermissionError:
            if attempt + 1 < RENAME_TRIES and ticket.path.exists():
                time.sleep(_RENAME_PAUSE_S)
                continue
            return None
        except OSError:
            return None
        return parse(target)
    return None


def claim(ticket: Ticket, n: int, pid: int, born: str) -> Ticket | None:
    """Take an `open` or `worker` ticket for command n, which process (`pid`, `born`) will run; None: somebody else was faster."""
    if ticket.state not in ("open", "worker"):
        return None
    return _rename(ticket, f"busy-{n}-{pid}-{born}")


def release(busy: Ticket) -> Ticket | None:
    """Give a busy ticket back; None: it no longer has that name, so it is not ours to write about (N3)."""
    return _rename(busy, "worker") if busy.state == "busy" else None


def alive_path(node_folder: Path, ticket: str) -> Path:
    return folder_of(node_folder) / f"{ticket}.alive"


def is_alive(node_folder: Path, ticket: str, limit_s: float = ALIVE_LIMIT_S) -> bool:
    """Whether the script's side gave a sign of life in the last `limit_s` seconds (N7).

    A sign from the future (the wall clock was set back) counts as none until the next one.
    """
    try:
        return abs(time.time() - alive_path(node_folder, ticket).stat().st_mtime) <= limit_s
    except OSError:
        return False


def write_verdict(node_folder: Path, ticket: str, code: int, reason: str) -> bool:
    """Lay the orchestrator's word beside the ticket (N9: never into it). False: the ticket is over or gone, and nobody would read it.

    Raises:
        OSError: it cannot be written.
    """
    found = find(node_folder, ticket)
    if found is None or found.is_over:
        return False
    files.write_aside(folder_of(node_folder) / f"{ticket}.verdict", files.to_text({"code": code, "reason": reason}))
    return True


def read_verdict(node_folder: Path, ticket: str) -> Verdict | None:
    """The orchestrator's word; None: there is none, or none that the hooks know (40 and 75)."""
    fields = files.read_fields(folder_of(node_folder) / f"{ticket}.verdict")
    code = files.to_int(fields.get("code")) if fields else None
    return Verdict(code, (fields or {}).get("reason", "")) if code in (40, 75) else None


def prune(node_folder: Path, keep: int = 50) -> int:
    """Remove what is over, all but the newest `keep`, with journals and sidecars; returns how many tickets were removed.

    The ticket's own name goes last: a crash in between leaves a ticket that is removed next time, never a journal without one.
    """
    over = [ticket for ticket in listing(node_folder) if ticket.is_over]
    doomed = over[: max(0, len(over) - keep)]
    for ticket in doomed:
        journal.forget(node_folder, ticket.id)
        for suffix in _SIDECARS:
            files.remove(ticket.path.with_name(ticket.id + suffix))
        files.remove(ticket.path)
    for path in _orphans(node_folder):
        files.remove(path)
    return len(doomed)


def _orphans(node_folder: Path) -> list[Path]:
    """Journals and sidecars that are old and whose ticket is not on the disk."""
    listed = {ticket.id for ticket in listing(node_folder)}
    sidecars = [path for path in folder_of(node_folder).iterdir() if path.suffix in _SIDECARS]
    written = [path for path in journal.folder_of(node_folder).iterdir() if not path.name.startswith(files.ASIDE)]
    orphans = [(path, path.name.split(".")[0]) for path in (*sidecars, *written)]
    old = [(path, ticket) for path, ticket in orphans if ticket not in listed and time.time() - path.stat().st_mtime > ORPHANS_KEPT_S]
    return [path for path, ticket in old if find(node_folder, ticket) is None]
