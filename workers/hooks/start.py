"""`hook start`: ends 0 once journal and watch files show every service of the ticket verified; 40 only on the verdict (NODE.md)."""

from __future__ import annotations

from workers import journal, statuses
from workers.hooks.calls import OPTIONS, Call
from workers.hooks.common import Options


class StartCall(Call):
    fact = "StartHookCalled"

    def about(self, fields: dict[str, str]) -> dict[str, object]:
        return {"previous": fields.get("previous") or None}

    def is_settled(self, entry: journal.Entry | None, status: statuses.Status | None) -> bool:
        """Started by this ticket and verified since: a healthy poll of before says nothing about this start."""
        if entry is None or entry.state != "ok" or status is None:
            return False
        return status.status == "healthy" and status.verified and status.ticket == self.ticket_id

    def waits_for_poll(self, entry: journal.Entry, status: statuses.Status) -> bool:
        """Polls that are about another start, for the watch did not hear of this one, settle nothing."""
        return super().waits_for_poll(entry, status) and status.ticket == self.ticket_id


def run(argv: list[str]) -> tuple[int, str]:
    return StartCall(Options(argv, OPTIONS)).run()
