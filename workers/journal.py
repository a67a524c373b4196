"""The journal: what became of command N of ticket T, one file per event (NODE.md N5).

    journal/<T>.<N>.start     the launcher or the script is about to run it (written after the claim, before the verb)
    journal/<T>.<N>.ok|fail   it returned, and how
    journal/<T>.<N>.lost      its process is gone and nobody knows how it ended
    journal/<T>.<N>.live      held open by whoever runs it, from before the claim until after the release (see `hold`)

The key is (T, N): where any of these exists, no worker ever runs that command again. Entries are flushed before the next step is taken, so
that a crash at any line leaves either no trace of a step that was not taken, or a trace of one that may have been.
"""

from __future__ import annotations

import glob
import sys
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from workers import files

State = Literal["start", "ok", "fail", "lost"]
ENDS: tuple[State, ...] = ("ok", "fail", "lost")
"""In the order in which they count: a command that was thought lost and wrote its own end after all has that end."""

_STATES: tuple[State, ...] = (*ENDS, "start")


class Entry(NamedTuple):
    state: State
    fields: dict[str, str]

    @property
    def ended(self) -> bool:
        return self.state != "start"

    @property
    def mono_s(self) -> float | None:
        """The writer's monotonic clock; None in a script's entry, for sh has no such clock."""
        return files.to_float(self.fields.get("mono"))

    @property
    def pid(self) -> int | None:
        return files.to_int(self.fields.get("pid"))

    @property
    def born(self) -> str:
        return self.fields.get("born", "")


def folder_of(node_folder: Path) -> Path:
    return node_folder / "journal"


def path_of(node_folder: Path, ticket: str, n: int, state: State) -> Path:
    return folder_of(node_folder) / f"{ticket}.{n}.{state}"


def write(node_folder: Path, ticket: str, n: int, state: State, fields: dict[str, object]) -> None:
    """Record an event durably.

    Raises:
        OSError: it is not recorded; the step that it announces must not be taken.
    """
    folder_of(node_folder).mkdir(parents=True, exist_ok=True)
    files.write_aside(path_of(node_folder, ticket, n, state), files.to_text({"ticket": ticket, "n": n, **fields}))


def read(node_folder: Path, ticket: str, n: int) -> Entry | None:
    """The command's end if it has one, else its start, else None."""
    for state in _STATES:
        fields = files.read_fields(path_of(node_folder, ticket, n, state))
        if fields is not None:
            return Entry(state, fields)
    return None


def live_path_of(node_folder: Path, ticket: str, n: int) -> Path:
    return folder_of(node_folder) / f"{ticket}.{n}.live"


def hold(node_folder: Path, ticket: str, n: int) -> BinaryIO:
    """Hold the command's `live` file open; end it with `let_go`.

    For Windows, where a file that somebody has open (as Python and cmd open files: not shared for deletion) cannot be deleted, and a
    batch file has no other way to see whether a process lives: it tries to delete the file. Elsewhere it changes nothing.

    Raises:
        OSError: it cannot be made; nobody could see then that the command is under way.
    """
    folder_of(node_folder).mkdir(parents=True, exist_ok=True)
    return live_path_of(node_folder, ticket, n).open("wb")


def let_go(held: BinaryIO) -> None:
    """The command has ended, or was never claimed. (Deleting fails while a twin holds the same file: rightly so.)"""
    held.close()
    try:
        Path(held.name).unlink(missing_ok=True)
    except OSError:
        pass


def is_held(node_folder: Path, ticket: str, n: int) -> bool:
    """Whether somebody holds the command's `live` file. Only Windows can tell; elsewhere always False."""
    if sys.platform != "win32":
        return False
    try:
        live_path_of(node_folder, ticket, n).unlink(missing_ok=True)
    except OSError:
        return True
    return False


def starts(node_folder: Path) -> list[tuple[str, int]]:
    """(ticket, n) of every command that was ever begun and is still on record."""
    names = (path.name.rsplit(".", 2) for path in folder_of(node_folder).glob("*.start") if not path.name.startswith(files.ASIDE))
    return [(ticket, number) for ticket, n, _ in (name for name in names if len(name) == 3) if (number := files.to_int(n)) is not None]


def forget(node_folder: Path, ticket: str) -> None:
    """Remove all that is recorded of a ticket (tickets.prune; never while the ticket can still be claimed)."""
    for path in folder_of(node_folder).glob(f"{glob.escape(ticket)}.*"):
        files.remove(path)
