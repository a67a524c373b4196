"""What a start or stop script does to the node folder, operation by operation, as deploy/clusterpro/linux does it.

Functions have the names of those in lib-tickets.sh, lib-plain.sh, start.sh and stop.sh, and do the same in the same order; a waiting
loop is a program of its own (replay.py). test_script.py runs the real scripts on folders in many states and compares. Left out: what
concerns no ticket (cluster log, broadcasts, pauses, site code, CLP_EVENT and CLP_DISK), and a disk that refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tests.worlds.installing import BOOT, GROUP, LEFT_OUT, NODE, group_lives
from tests.worlds.replay import Goto, act, now
from workers import files, tickets

KINDS = ("start", "stop", "start")
"""What CLUSTERPRO asks for, call after call."""

TICKETS = tuple(f"{BOOT}-{GROUP}-{call}-{kind}" for call, kind in enumerate(KINDS))
COMMANDS: tuple[tuple[tickets.Command, ...], ...] = (
    (tickets.Command(1, "agent", "start"), tickets.Command(2, "server", "recover")),
    (tickets.Command(1, "server", "faststop"),),
    (tickets.Command(1, "agent", "recover"), tickets.Command(2, "server", "recover")),
)
"""A stop's one verb takes both services down: what matters here is only that it is one more command."""

FOLDER, JOURNAL = NODE / "tickets", NODE / "journal"
GOOD, NOT_UP = 0, 40


class Found(NamedTuple):
    """A ticket's name as a script read it."""

    ticket: str
    state: str

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.ticket}.{self.state}"

    @property
    def n(self) -> int:
        return int(self.state.split("-")[1])

    @property
    def pid(self) -> int:
        return int(self.state.split("-")[2])


def names() -> list[Found]:
    return [Found(*path.name.rsplit(".", 1)) for path in sorted(FOLDER.iterdir()) if tickets.parse(path) is not None]


def state_of(ticket: str) -> Found | None:
    return act("look", lambda: next((one for one in names() if one.ticket == ticket), None))


def exists(path: Path) -> bool:
    return path.exists()  # a step of its own already


def rename_ticket(found: Found, state: str) -> bool:
    """N2: one rename decides."""

    def mv() -> bool:
        try:
            found.path.rename(Found(found.ticket, state).path)
        except FileNotFoundError:
            return False
        return True

    return act("change", mv)


def put_file(path: Path, fields: dict[str, object], kind: Any = "change") -> None:
    act(kind, lambda: path.write_text(files.to_text(fields)))


def remove(path: Path) -> None:
    act("minor", lambda: path.unlink(missing_ok=True))


# ---- journal


def journal_of(ticket: str, n: int) -> str:
    def look() -> str:
        return next((entry for entry in ("ok", "fail", "lost", "start") if (JOURNAL / f"{ticket}.{n}.{entry}").exists()), "")

    return act("look", look)


def record(ticket: str, n: int, entry: str, pid: int | str = "", **more: object) -> None:
    command = next(one for one in COMMANDS[TICKETS.index(ticket)] if one.n == n)
    about = {"ticket": ticket, "n": n, "service": command.service, "verb": command.verb, "by": "script", "pid": pid}
    born = f"b{pid}" if pid else ""
    put_file(JOURNAL / f"{ticket}.{n}.{entry}", {**about, "born": born, "boot": BOOT, "mono": "", "wall": 1, **more})


def record_lost(ticket: str, n: int) -> None:
    """Its process is gone; unless its end is on record, nobody will ever know it."""
    if journal_of(ticket, n) in ("ok", "fail", "lost"):
        return
    record(ticket, n, "lost", reason="process gone")


# ---- processes


def end_group(pid: int) -> None:
    """It is ended, and seen gone."""
    if act("look", lambda: group_lives(pid)):
        act("change", lambda: kill(pid))


def kill(pid: int) -> None:
    now().killed.add(pid)
    tell("kill", pid)


def tell(*effect: Any) -> None:
    """What the step does beside the disk; once, also when it is run again."""
    act("free", lambda: now().effects.append(effect))


def limit_passes() -> bool:
    """Whether the limit of a command that still runs is over: where the world has that fault left, both are tried."""
    if not act("look", lambda: now().view.may_be_slow) or not now().choose(2):
        return False
    tell("spend", "limit")
    return True


# ---- N6: clear the ground


def clear_ground(call: int) -> Goto:
    """A round; the next one sees what was made meanwhile."""
    if "N6" in LEFT_OUT:
        return Goto(("make_ticket", call))
    found = act("look", lambda: [one for one in names() if one.state not in ("done", "void")])
    return Goto(("void_tickets", call, (*found,)) if found else ("make_ticket", call))


def void_tickets(call: int, found: tuple[Found, ...]) -> Goto:
    """The tickets of this round's list, whose names may be old by now."""
    if not found:
        return Goto(("clear_ground", call))
    first = found[0]
    if not exists(first.path):
        return Goto(("void_tickets", call, found[1:]))
    if first.state.startswith("busy-"):
        end_busy(first)
    elif first.state.startswith("script-"):
        return Goto(("wait_for_mark", call, found))
    return _void(call, found)


def _void(call: int, found: tuple[Found, ...]) -> Goto:
    if rename_ticket(found[0], "void"):
        remove(FOLDER / f"{found[0].ticket}.alive")
    return Goto(("void_tickets", call, found[1:]))


def end_busy(found: Found) -> None:
    """The tree behind a busy name is ended and seen gone, then its end is written (N3)."""
    end_group(found.pid)
    record_lost(found.ticket, found.n)


def wait_for_mark(call: int, found: tuple[Found, ...]) -> Goto:
    """An older script's own command, which survived its script, is waited for within its limit."""
    marked = found[0]
    state = state_of(marked.ticket)
    if state is not None and state.state == marked.state:
        fields = files.read_fields(JOURNAL / f"{marked.ticket}.{marked.n}.start") or {}
        pid = files.to_int(fields.get("pid"))
        if pid is None or act("look", lambda: group_lives(pid)):
            if not (pid is not None and limit_passes()):
                return Goto(("wait_for_mark", call, found))
            act("change", lambda: kill(pid))
    if exists(marked.path):
        record_lost(marked.ticket, marked.n)
    return _void(call, found)


# ---- this call's own ticket


def make_ticket(call: int) -> Goto:
    """N1: in the script, before the hook."""
    put_file(FOLDER / f"{TICKETS[call]}.alive", {"0000000000": ""}, "minor")
    if "N1" not in LEFT_OUT:
        put_file(FOLDER / f"{TICKETS[call]}.open", ticket_fields(call))
    tell("hook", call)
    return Goto(("call_hook", call))


def ticket_fields(call: int) -> dict[str, object]:
    about: dict[str, object] = {
        "ticket": TICKETS[call],
        "boot": BOOT,
        "group": GROUP,
        "script": KINDS[call],
        "commands": len(COMMANDS[call]),
    }
    for command in COMMANDS[call]:
        about |= {f"{command.n}.service": command.service, f"{command.n}.verb": command.verb}
    return about


def call_hook(call: int) -> Goto:
    """Wait for its exit code; a guard ends one that shows no sign of life."""
    now().wait_until(now().view.hook.isdigit() or now().view.hook == "hung")
    ended = act("look", lambda: now().view.hook)
    tell("hook ended", call)
    if ended == "0":
        return Goto(("close_ticket", call, GOOD))
    if ended == "40":
        return Goto(("close_ticket", call, NOT_UP if KINDS[call] == "start" else GOOD))
    return Goto(("take_ticket", call))


def keep_alive(call: int) -> None:
    put_file(FOLDER / f"{TICKETS[call]}.alive", {"0000000000": ""}, "minor")
    tell("fresh", call)


def take_ticket(call: int) -> Goto:
    """N2: from open or worker to script; while a command is under way it is waited for, within its limit, then ended."""
    keep_alive(call)
    found = state_of(TICKETS[call])
    if found is None:
        return Goto(("run", call, 1))
    if found.state in ("void", "done"):
        return Goto(("close_ticket", call, NOT_UP if KINDS[call] == "start" else GOOD))
    if found.state in ("open", "worker"):
        return Goto(("run", call, 1) if rename_ticket(found, "script") else ("take_ticket", call))
    if found.state.startswith("busy-"):
        return Goto(("run", call, 1) if take_busy(found) else ("take_ticket", call))
    return Goto(("run", call, 1))


def take_busy(found: Found) -> bool:
    """Whether its process is gone and the ticket is ours."""
    if act("look", lambda: group_lives(found.pid)):
        if limit_passes():
            end_group(found.pid)
        return False
    if not exists(found.path):
        return False
    record_lost(found.ticket, found.n)
    return rename_ticket(found, "script")


def close_ticket(call: int, code: int) -> Any:
    """N8: before the script returns, whatever it returns; what is still under way for it is ended first."""
    if "N8" in LEFT_OUT:
        return code
    found = state_of(TICKETS[call])
    if found is not None and found.state not in ("done", "void"):
        if found.state.startswith("busy-"):
            end_busy(found)
        if not rename_ticket(found, "done"):
            return Goto(("close_ticket", call, code))
    remove(FOLDER / f"{TICKETS[call]}.alive")
    return code


def interrupted(call: int, marked: int) -> Any:
    """The cluster manager ends this script: what it started was ended with it already."""
    if marked:
        record_lost(TICKETS[call], marked)
    return Goto(("close_ticket", call, NOT_UP if KINDS[call] == "start" else GOOD))


# ---- the plain sequence


def run(call: int, n: int) -> Goto:
    """start_one and stop_one: command N of the list, from where the journal stands."""
    start = KINDS[call] == "start"
    given_up = Goto(("close_ticket", call, NOT_UP if start else GOOD))
    if n > len(COMMANDS[call]):
        return Goto(("close_ticket", call, GOOD))
    keep_alive(call)
    entry = journal_of(TICKETS[call], n)
    if entry == "fail" and start:  # a known failure is never repeated, by nobody
        return given_up
    if entry == "ok" or (entry == "fail" and not start):
        return Goto(("run", call, n + 1)) if not start or ask_status(call, n) else given_up
    if start and ask_status(call, n):
        record(TICKETS[call], n, "ok", code=0, ran=0, duration_s=0, reason="already-healthy")
        return Goto(("run", call, n + 1))
    return run_plain(call, n, given_up)


def ask_status(call: int, n: int) -> bool:
    service = COMMANDS[call][n - 1].service
    return act("look", lambda: bool(getattr(now().view, service)))


def run_plain(call: int, n: int, given_up: Goto) -> Goto:
    if not rename_ticket(Found(TICKETS[call], "script"), f"script-{n}"):
        found = state_of(TICKETS[call])
        if found is not None and found.state in ("void", "done"):
            return given_up
    tell("nested", call, n)
    return Goto(("wait_nested", call, n))


def wait_nested(call: int, n: int) -> Goto:
    now().wait_until(now().view.child not in ("", "runs"))
    code = act("look", lambda: now().view.child)
    tell("nested seen", call)
    if KINDS[call] == "start" and (code != "ok" or not ask_status(call, n)):
        return Goto(("close_ticket", call, NOT_UP))
    return Goto(("run", call, n + 1))


def run_nested(call: int, n: int, pid: int) -> str:
    """The shell that survives a killed script, writes its command's end and takes the mark back."""
    ticket = TICKETS[call]
    record(ticket, n, "start", pid)
    act("change", lambda: tell("spawn", call, n, "s", pid))
    now().wait_until(now().view.verb in ("ok", "fail"))
    result = act("look", lambda: str(now().view.verb))
    record(ticket, n, result, pid, code=0, ran=1, duration_s=0, reason="")
    rename_ticket(Found(ticket, f"script-{n}"), "script")
    return result


PROGRAMS = {
    one.__name__: one
    for one in (clear_ground, void_tickets, wait_for_mark, make_ticket, call_hook, take_ticket, close_ticket, interrupted, run, wait_nested,
                run_nested)
}  # fmt: skip
