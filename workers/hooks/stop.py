"""`hook stop`: judged by the end state, never by a command's exit code; ends 0 once nothing of the list runs (NODE.md).

Not running means all three: the ticket's own verb ended (however), a `dcstatus` that *began* after that said not healthy, and no
process of an older ticket lives that could still bring the service up. Unknown counts as running, but is not waited for: the guide
checks nothing after a stop (G41), and a `dcstatus` that hangs or cannot be run must not hold up a failover. The script then says how
it ends.
"""

from __future__ import annotations

from workers import journal, statuses
from workers.hooks.calls import OPTIONS, Call, Look, older_process_lives
from workers.hooks.common import Options


class StopCall(Call):
    fact = "StopHookCalled"

    def about(self, fields: dict[str, str]) -> dict[str, object]:
        return {"factor": fields.get("factor", "")}

    def is_settled(self, entry: journal.Entry | None, status: statuses.Status | None) -> bool:
        if entry is None or entry.state not in ("ok", "fail") or entry.mono_s is None or status is None:
            return False
        if status.last_started is None or status.mono is None:
            return False
        # the last poll that ended counts: the next one may be under way already, and takes nothing back before it ends
        return status.status == "unhealthy" and entry.mono_s < status.last_started <= status.mono

    def is_reached(self, look: Look) -> bool:
        return super().is_reached(look) and look.ticket is not None and not older_process_lives(self.folder, self.boot, look.ticket)

    def waits_for_poll(self, entry: journal.Entry, status: statuses.Status) -> bool:
        """Not after an end whose time is unknown (a damaged entry: no poll is later), and not when a later poll told nothing."""
        if entry.state not in ("ok", "fail") or entry.mono_s is None:
            return False
        return status.status != "unknown" or (status.mono or 0.0) <= entry.mono_s


def run(argv: list[str]) -> tuple[int, str]:
    return StopCall(Options(argv, OPTIONS)).run()
