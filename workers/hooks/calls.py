"""What the start and the stop hook have in common: wait beside a ticket until the call is settled or nobody works on it.

The hook decides nothing about services. It tells that the ticket is there (a fact), keeps it alive (N7), and looks: at the ticket's
name, at the journal, at the watch job's files and at the verdict. It gives up with 75, and leaves the call to the script's plain sequence,
when nobody takes the ticket, or nothing progresses for 5 s while no command's process lives (N4: a mark alone is no progress). A poll that
is under way or fresh counts as progress only while a service whose command ended is not settled yet.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from workers import files, journal, processes, statuses, tickets
from workers.hooks import EXIT_FALL_BACK, EXIT_GOOD
from workers.hooks.common import TICK_S, Facts, Options, Pulse, is_bypassed, parent_of

NO_PROGRESS_S = 5.0
"""Silence after which nobody seems to work on the ticket."""

OPTIONS = ("folder", "ticket", "ack-timeout", "limit", "command-limit", "poll-limit", "parent", "parent-file")

_LIVENESS_LOOK_S = 0.2
"""How often a command's process is looked for; the table of processes is dear."""


class Look(NamedTuple):
    """The node folder at one moment, as far as it concerns this call."""

    ticket: tickets.Ticket | None
    entries: dict[int, journal.Entry]
    statuses: dict[str, statuses.Status]


class Call(ABC):
    """One call of a start or stop script; subclasses say what settles a service and when all is reached."""

    fact = ""

    def __init__(self, options: Options) -> None:
        self.folder = options.folder()
        self.ticket_id = options.text("ticket")
        self.ack_timeout_s = options.number("ack-timeout", 4.0)
        self.limit_s = options.number("limit", 600.0)
        self.command_limit_s = options.number("command-limit", self.limit_s)
        self.poll_limit_s = options.number("poll-limit", 30.0)
        self.begun = self.progressed = time.monotonic()
        self.parent = parent_of(options)
        self.pulse = Pulse(tickets.alive_path(self.folder, self.ticket_id))
        self.commands: list[tickets.Command] = []
        self.boot = ""
        self._ended: dict[int, journal.Entry] = {}
        self._ticket: tickets.Ticket | None = None
        self._seen: object = None
        self._busy_since: dict[str, float] = {}
        self._lived = (0.0, False)

    # what subclasses say

    @abstractmethod
    def about(self, _fields: dict[str, str]) -> dict[str, object]:
        """What the fact tells beside ticket, event, server and commands."""

    @abstractmethod
    def is_settled(self, entry: journal.Entry | None, status: statuses.Status | None) -> bool:
        """Whether this service is where the call wants it."""

    def is_reached(self, look: Look) -> bool:
        """Whether all that the call wants is so, and nothing is under way any more."""
        return (
            look.ticket is not None
            and look.ticket.state == "worker"  # a launcher that still holds it has its last lines to write
            and all(self.is_settled(look.entries.get(command.n), look.statuses.get(command.service)) for command in self.commands)
        )

    # the loop

    def run(self) -> tuple[int, str]:
        """Wait for the end of the call; returns exit code and reason."""
        ticket = tickets.find(self.folder, self.ticket_id)
        fields = files.read_fields(ticket.path) if ticket is not None else None
        if ticket is None or fields is None or not (commands := tickets.commands_of(fields)):
            return EXIT_FALL_BACK, "no such ticket, or none that can be read"
        if ticket.is_over:
            return EXIT_FALL_BACK, "the ticket was taken away"  # by a later script, before this hook began: its call is nobody's news
        self.commands, self.boot = commands, ticket.boot
        self.pulse.beat()
        self._tell(fields)
        while True:
            ending = self._ending()
            if ending is not None:
                return ending
            time.sleep(TICK_S)

    def _tell(self, fields: dict[str, str]) -> None:
        commands = [{"n": command.n, "service": command.service, "verb": command.verb} for command in self.commands]
        about = {"ticket": self.ticket_id, "event": fields.get("event", ""), "server": fields.get("server", ""), "commands": commands}
        Facts(self.folder, self.boot).write(self.fact, {**about, **self.about(fields)})

    def _ending(self) -> tuple[int, str] | None:
        self.pulse.beat()
        if self.parent.is_gone():
            return EXIT_FALL_BACK, "the script is gone"
        look = self._look()
        if (verdict := tickets.read_verdict(self.folder, self.ticket_id)) is not None:
            return verdict.code, f"verdict: {verdict.reason}"
        if self.is_reached(look):
            return EXIT_GOOD, "reached"
        if look.ticket is None or look.ticket.is_over or look.ticket.state == "script":
            return EXIT_FALL_BACK, "the ticket was taken away"
        return (EXIT_FALL_BACK, "bypass") if is_bypassed(self.folder) else self._give_up(look)

    def _give_up(self, look: Look) -> tuple[int, str] | None:
        assert look.ticket is not None
        now = time.monotonic()
        if now - self.begun >= self.limit_s:
            return EXIT_FALL_BACK, f"not settled within {self.limit_s:g} s"
        if look.ticket.state == "open":
            return (EXIT_FALL_BACK, f"nobody took the ticket within {self.ack_timeout_s:g} s") if self._is_late(now) else None
        if self._has_progress(look, now):
            self.progressed = now
        if now - self.progressed >= NO_PROGRESS_S:
            return EXIT_FALL_BACK, f"no progress for {NO_PROGRESS_S:g} s"
        return None

    def _is_late(self, now: float) -> bool:
        self.progressed = now
        return now - self.begun >= self.ack_timeout_s

    # what is seen

    def _look(self) -> Look:
        if self._ticket is None or not self._ticket.path.exists():
            self._ticket = tickets.find(self.folder, self.ticket_id)
        for command in self.commands:
            if command.n not in self._ended and (entry := journal.read(self.folder, self.ticket_id, command.n)) is not None and entry.ended:
                self._ended[command.n] = entry
        seen = {command.service: statuses.read(self.folder, command.service, self.boot) for command in self.commands}
        return Look(self._ticket, self._ended, {service: status for service, status in seen.items() if status is not None})

    def _has_progress(self, look: Look, now: float) -> bool:
        return self._is_news(look) or self._command_lives(look, now) or self._is_polled(look, now)

    def _is_news(self, look: Look) -> bool:
        """Whether a command ended or a service settled since the last look: events, each of which happens once."""
        settled = [self.is_settled(look.entries.get(command.n), look.statuses.get(command.service)) for command in self.commands]
        seen = (sorted(look.entries), settled)
        news, self._seen = seen != self._seen, seen
        return news

    def _command_lives(self, look: Look, now: float) -> bool:
        """N4: a command runs only while its process lives and its limit has not passed."""
        ticket = look.ticket
        if ticket is None or ticket.state != "busy" or ticket.pid is None:
            return False
        since = self._busy_since.setdefault(ticket.path.name, now)
        if now - self._lived[0] >= _LIVENESS_LOOK_S:
            self._lived = (now, processes.group_alive(ticket.pid, ticket.born or ""))
        return self._lived[1] and now - since < self.command_limit_s

    def _is_polled(self, look: Look, now: float) -> bool:
        for command in self.commands:
            entry, status = look.entries.get(command.n), look.statuses.get(command.service)
            waits = entry is not None and status is not None and self.waits_for_poll(entry, status)
            if waits and not self.is_settled(entry, status) and status is not None and status.is_moving(now, self.poll_limit_s):
                return True
        return False

    def waits_for_poll(self, entry: journal.Entry, _status: statuses.Status) -> bool:
        """Whether only polls are still missing for this service, and the next one may tell."""
        return entry.state == "ok"


def older_process_lives(folder: Path, boot: str, ticket: tickets.Ticket) -> bool:
    """Whether a command of another ticket of the group still has a living process (NODE.md: then nothing counts as stopped).

    A cleared ticket no longer carries the process in its name, so the journal's begun and never ended commands are asked.
    """
    for other in journal.starts(folder):
        if other[0] == ticket.id or not _is_of_group(other[0], ticket):
            continue
        entry = journal.read(folder, *other)
        if entry is None or entry.ended or entry.fields.get("boot") != boot:
            continue
        if journal.is_held(folder, *other) or (entry.pid is not None and processes.group_alive(entry.pid, entry.born)):
            return True
    return False


def _is_of_group(ticket_id: str, ticket: tickets.Ticket) -> bool:
    other = tickets.parse(Path(f"{ticket_id}.open"))
    return other is not None and other.group == ticket.group
