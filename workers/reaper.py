"""Tickets whose launcher is gone: write down that its command is lost, and give the ticket back (NODE.md N3, N4).

A busy name carries the process that owes us an end. When that process group is gone without having written one, nobody will: the
journal gets `lost`, the orchestrator hears of it, and the ticket goes back to `worker`, from where the script takes it. When the end
*is* written (the launcher died between journal and rename), it is told again and the name is repaired. Scripts do the same for themselves
(deploy/clusterpro/linux/lib.sh); both may do it at once: a rename decides, and facts of one (ticket, n) count once. Standard library only.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from workers import files, journal, outbox, processes, tickets


class Reaped(NamedTuple):
    ticket: str
    n: int
    state: journal.State
    """What the journal says now: `lost`, or the end that was there already."""


def reap(node_folder: Path, boot: str) -> list[Reaped]:
    """Look at every busy ticket once; returns what was settled. Cheap when nothing is busy: one listing of a folder.

    A ticket for which nothing can be written (disk full) stays as it is: without the journal's entry it could be run twice.
    """
    return [done for ticket in tickets.listing(node_folder) if ticket.state == "busy" and (done := _settle(node_folder, ticket, boot))]


def is_gone(ticket: tickets.Ticket, boot: str) -> bool:
    """Whether the process behind a busy name is gone: another boot, another birth, or no living member (N4)."""
    assert ticket.pid is not None
    return ticket.boot != boot or not processes.group_alive(ticket.pid, ticket.born or "")


def _settle(node_folder: Path, ticket: tickets.Ticket, boot: str) -> Reaped | None:
    # The order matters: only when the process is seen gone does the journal hold all that it will ever hold.
    if not is_gone(ticket, boot) or not ticket.path.exists():
        return None
    assert ticket.n is not None
    command = next((command for command in ticket.commands() if command.n == ticket.n), tickets.Command(ticket.n, "", ""))
    about: dict[str, object] = {"service": command.service, "verb": command.verb, "by": "worker"}
    entry = journal.read(node_folder, ticket.id, ticket.n)
    try:
        end = entry if entry is not None and entry.ended else _write_lost(node_folder, ticket, boot, about)
    except OSError:
        return None
    _tell(node_folder, ticket, boot, end, about)
    tickets.release(ticket)
    return Reaped(ticket.id, ticket.n, end.state)


def _write_lost(node_folder: Path, ticket: tickets.Ticket, boot: str, about: dict[str, object]) -> journal.Entry:
    assert ticket.n is not None
    who = {"pid": ticket.pid, "born": ticket.born, "boot": boot, "mono": time.monotonic(), "wall": time.time()}
    journal.write(node_folder, ticket.id, ticket.n, "lost", {**about, **who, "reason": "process gone"})
    return journal.Entry("lost", {"reason": "process gone"})


def _tell(node_folder: Path, ticket: tickets.Ticket, boot: str, end: journal.Entry, about: dict[str, object]) -> None:
    """The recorded end as a fact. Whoever recorded it was gone before the name was repaired, and maybe before it could tell; without the
    fact the orchestrator would wait for an end that nobody tells, and the script for the orchestrator. Told twice it counts once."""
    said = end.fields
    how = {"result": end.state, "ran": said.get("ran") != "0", "code": files.to_int(said.get("code")), "reason": said.get("reason", "")}
    data = {"ticket": ticket.id, "n": ticket.n, **about, **how, "duration_s": files.to_float(said.get("duration_s"))}
    try:
        outbox.write_fact(node_folder, "CommandEnded", "worker", data, boot)
    except OSError:
        pass  # the journal has it, and the script acts on that
