"""What all hooks share: options, the parent, the sign of life, facts that may get lost."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from workers import files, outbox, processes
from workers.hooks import UsageError

TICK_S = 0.03
"""Between two looks at the node folder: a person does not notice it, and a core hardly."""

_PARENT_LOOK_S = 0.5
_PULSE_S = 1.0


class Options:
    """`--name value` pairs and, behind `--`, a command. Made by hand, for argparse ends with 2 and a hook has only 0, 40 and 75."""

    def __init__(self, argv: list[str], known: tuple[str, ...]) -> None:
        self._known = known
        self.command: list[str] = []
        self._values: dict[str, str] = {}
        rest = list(argv)
        while rest:
            self._take(rest)

    def _take(self, rest: list[str]) -> None:
        option = rest.pop(0)
        if option == "--":
            self.command = rest.copy()
            rest.clear()
        elif option.removeprefix("--") in self._known and option.startswith("--") and rest:
            self._values[option.removeprefix("--")] = rest.pop(0)
        else:
            raise UsageError(f"{option!r} is not an option with a value here")

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if value is None or value == "":
            raise UsageError(f"--{name} is missing")
        return value

    def optional(self, name: str) -> str | None:
        return self._values.get(name) or None

    def number(self, name: str, default: float) -> float:
        """A number >= 0, for durations in seconds and for counts."""
        value = files.to_float(self._values.get(name, str(default)))
        if value is None or not 0 <= value < float("inf"):
            raise UsageError(f"--{name} is a number, not {self._values.get(name)!r}")
        return value

    def folder(self) -> Path:
        return Path(self.text("folder"))


def is_bypassed(folder: Path) -> bool:
    """Whether somebody wants dcsup out of the way: then a hook that waits makes way at once."""
    return (folder / "dcsup.bypass").exists()


class Parent:
    """The script that waits for this hook. CLUSTERPRO may kill it and leave its children: a hook without a script ends (within 2 s)."""

    def __init__(self, pid: int | None) -> None:
        self._first_parent = os.getppid()
        self._pid = pid or self._first_parent
        self._born = processes.born(self._pid)
        self._looked = time.monotonic()
        self._gone = self._born is None

    def is_gone(self) -> bool:
        now = time.monotonic()
        if sys.platform != "win32" and os.getppid() != self._first_parent:
            self._gone = True  # we were given to init: the quickest sign, but a command between script and hook would hide it
        elif now - self._looked >= _PARENT_LOOK_S:
            self._looked = now
            self._gone = not processes.alive(self._pid, self._born or "")
        return self._gone


class ParentFile:
    """A script that cannot know its own process id, as a batch file: it rewrites a file every second, and is gone when that stays as it is.

    Only this hook's own time counts, and of a gap between two looks no more than `_GAP_S`: on a machine that gives us no time the
    script may have got none either.
    """

    _SILENT_S = 2.0
    _GAP_S = 0.2

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, bytes] | None = None
        self._silent_s = 0.0
        self._looked = time.monotonic()

    def is_gone(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= self._GAP_S / 2:
            self._silent_s += min(now - self._looked, self._GAP_S)
            self._looked = now
            mark = self._mark()
            if mark is not None and mark != self._seen:
                self._seen, self._silent_s = mark, 0.0
        return self._silent_s >= self._SILENT_S

    def _mark(self) -> tuple[int, bytes] | None:
        """What the file shows; None: nothing just now (it is being written, or is not there)."""
        try:
            return self._path.stat().st_mtime_ns, self._path.read_bytes()
        except OSError:
            return None


def parent_of(options: Options) -> Parent | ParentFile:
    """The script that waits, as the options name it: `--parent-file`, `--parent`, or whoever started us."""
    path = options.optional("parent-file")
    return ParentFile(Path(path)) if path is not None else Parent(int(options.number("parent", 0)) or None)


class Pulse:
    """A sign of life in a file: its content is a counter of fixed width, so that sh can compare it, its mtime is the time (N7)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = files.to_int(next(iter((_read(path) or "0").split()), "0")) or 0
        self._beaten: float | None = None

    def beat(self) -> None:
        """Give the sign if the last one is a second old. On a full disk it is given in place, and if that fails too, as a mere touch."""
        now = time.monotonic()
        if self._beaten is not None and now - self._beaten < _PULSE_S:
            return
        self._beaten = now
        self._count += 1
        text = f"{self._count:010d}\n"
        for give in (self._aside, self._in_place, self._touch):
            try:
                give(text)
            except OSError:
                continue
            return

    def _aside(self, text: str) -> None:
        files.write_aside(self._path, text, flush=False)

    def _in_place(self, text: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)

    def _touch(self, _text: str) -> None:
        os.utime(self._path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return None


class Facts:
    """Facts of one hook. What cannot be written is counted, and told with the next one that can."""

    def __init__(self, folder: Path, boot: str | None, source: str = "hook") -> None:
        self._folder = folder
        self._boot = boot
        self._source = source
        self.lost = 0

    def write(self, kind: str, data: dict[str, Any]) -> bool:
        """Whether the fact is on the disk; a fact that is not never keeps a hook from its work."""
        try:
            outbox.write_fact(self._folder, kind, self._source, data, self._boot)
            if self.lost:
                outbox.write_fact(self._folder, "FactsDropped", self._source, {"count": self.lost, "reason": "disk"}, self._boot)
                self.lost = 0
        except OSError:
            self.lost += 1
            return False
        return True
