"""Numbered facts that are kept until the orchestrator has them durably: on disk (the rule) and in memory (when the disk is full).

Numbers are consecutive within a *stream*, which is the identity of an outbox; the orchestrator takes each (stream, number) once.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from workers import files
from workers.rawfacts import Damaged, RawFact, read_fact

_STAMP_DIGITS = 19
"""Of nanoseconds since 1970, from 2001 to 2286."""

_NUMBERED = re.compile(r"(\d{12})\.(fact|done)")

NUMBERED_AT_ONCE = 500
"""New files that one look numbers: after a long time without a worker there may be many, and the worker has more to do."""


_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)
"""The machine is short of something: that says nothing about a file."""


class Sequence(Protocol):
    """What the courier needs to know of either kind."""

    @property
    def stream(self) -> str: ...

    @property
    def oldest(self) -> int:
        """The lowest number that can still be offered; the next one, if there is none."""

    @property
    def pending(self) -> int: ...

    @property
    def last(self) -> int:
        """The highest number given so far."""

    def after(self, seq: int, count: int) -> Iterator[tuple[int, RawFact]]:
        """Up to `count` facts with numbers above `seq`, in order; each is read when it is asked for."""

    def acknowledge(self, mark: int) -> None:
        """Let go of everything up to `mark`."""


class DirectSequence:
    """In memory: the facts of one process whose disk takes none. Beyond `limit` the oldest are given up and counted."""

    def __init__(self, limit: int = 1000) -> None:
        self.stream = secrets.token_hex(6)
        self.dropped = 0
        self._limit = limit
        self._facts: deque[tuple[int, RawFact]] = deque()
        self._next = 1

    @property
    def oldest(self) -> int:
        return self._facts[0][0] if self._facts else self._next

    @property
    def pending(self) -> int:
        return len(self._facts)

    def append(self, fact: RawFact) -> None:
        self._facts.append((self._next, fact))
        self._next += 1
        if len(self._facts) > self._limit:
            self._facts.popleft()
            self.dropped += 1

    @property
    def last(self) -> int:
        return self._next - 1

    def after(self, seq: int, count: int) -> Iterator[tuple[int, RawFact]]:
        return iter([one for one in self._facts if one[0] > seq][:count])

    def acknowledge(self, mark: int) -> None:
        while self._facts and self._facts[0][0] <= mark:
            self._facts.popleft()


class DiskSequence:
    """The outbox: new files in `outbox/`, numbered ones in `outbox/numbered/`, unreadable ones in `outbox/damaged/`.

    The rename to `numbered/<seq>.fact` is what gives a number: durable, once, and never to something that cannot be read.
    Nobody but the one forwarder of a node may have an object of this class for a folder.
    """

    def __init__(self, folder: Path) -> None:
        """Take over the outbox below the node folder; makes what is missing.

        Raises:
            OSError: it cannot be made or written.
        """
        self.folder = folder / "outbox"
        self.numbered = self.folder / "numbered"
        self.damaged = self.folder / "damaged"
        for one in (self.numbered, self.damaged):
            one.mkdir(parents=True, exist_ok=True)
        self.types: Counter[str] = Counter()
        """How many facts of each type were numbered since this process began."""
        self.stream = self._known_stream() or self.begin_new_stream()
        self.last = 0
        """The highest number given so far."""
        self._waiting: list[int] = []
        self._stuck: set[str] = set()
        self._take_stock()

    @property
    def oldest(self) -> int:
        return self._waiting[0] if self._waiting else self.last + 1

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def begin_new_stream(self) -> str:
        """Give this outbox a new identity; what waits in it keeps its numbers."""
        self.stream = secrets.token_hex(6)
        path = self.folder / "stream"
        if path.is_dir():
            path.replace(self.damaged / f"stream-{self.stream}")
        files.write_aside(path, self.stream + "\n")
        return self.stream

    def _known_stream(self) -> str | None:
        try:
            text = (self.folder / "stream").read_text("ascii", "replace").strip()
        except OSError:
            return None
        return text if re.fullmatch(r"[0-9a-f]{12}", text) else None

    def _take_stock(self) -> None:
        for path in sorted(self.numbered.iterdir()):
            if match := _NUMBERED.fullmatch(path.name):
                self.last = int(match[1])
                if match[2] == "fact":
                    self._waiting.append(self.last)

    def _path(self, seq: int, kind: str = "fact") -> Path:
        return self.numbered / f"{seq:012d}.{kind}"

    def number_new(self, on_damaged: Callable[[str], None] = lambda words: None) -> None:
        """Give every new file its number, oldest first; what cannot be read is put aside, and `on_damaged` told in words.

        Raises:
            OSError: a rename failed; what was not renamed is still there for the next time.
        """
        with os.scandir(self.folder) as entries:
            new = [(_written_ns(entry), entry.name) for entry in entries if _is_fact(entry.name) and entry.name not in self._stuck]
        if not new:
            return
        try:
            for _, name in sorted(new)[:NUMBERED_AT_ONCE]:
                if words := self._number_one(name):
                    on_damaged(words)
        finally:
            files.flush_folder(self.numbered)  # no number is handed in before it is durable, whatever became of the next one

    def _number_one(self, name: str) -> str | None:
        path = self.folder / name
        try:
            fact = read_fact(path)
        except (Damaged, OSError) as error:
            if _is_passing(error):
                raise
            if _is_in_use(error) or isinstance(error, FileNotFoundError):
                return None  # the next look finds it, or nobody needs it any more
            self._put_aside(path)
            return f"{name}: {error}"
        path.rename(self._path(self.last + 1))
        self.last += 1
        self._waiting.append(self.last)
        self.types[fact.type] += 1
        return None

    def _put_aside(self, path: Path) -> None:
        try:
            path.replace(self.damaged / path.name)
        except OSError:
            self._stuck.add(path.name)  # it stays where it is; at least it is not looked at again and again

    def after(self, seq: int, count: int) -> Iterator[tuple[int, RawFact]]:
        begin = bisect_right(self._waiting, seq)
        return ((one, self._read(one)) for one in self._waiting[begin : begin + count])

    def _read(self, seq: int) -> RawFact:
        try:
            return read_fact(self._path(seq))
        except (Damaged, OSError) as error:
            if _is_passing(error) or _is_in_use(error):
                raise
            # readable when it got its number, so the disk lost it; its number must not be missing
            return RawFact("FactsDropped", "worker", {"count": 1, "reason": f"number {seq} became unreadable: {error}"}, None, None, None)

    def acknowledge(self, mark: int) -> None:
        count = bisect_right(self._waiting, mark)
        if count:
            self._keep_top(self._waiting[count - 1])  # a disk that fails just now: all of it is still to be let go of
            del self._waiting[:count]

    def _keep_top(self, seq: int) -> None:
        """The highest acknowledged file stays, as `.done`: it is where numbering goes on after a restart."""
        if self._path(seq).exists():
            self._path(seq).replace(self._path(seq, "done"))
            files.flush_folder(self.numbered)
        for path in self.numbered.iterdir():
            match = _NUMBERED.fullmatch(path.name)
            if match and int(match[1]) < seq:
                files.remove(path)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _PASSING


def _is_in_use(error: Exception) -> bool:
    """On Windows whoever looks at a new file (a virus scanner) may keep it from others for a moment."""
    return sys.platform == "win32" and isinstance(error, PermissionError)


def _written_ns(entry: os.DirEntry[str]) -> int:
    """When a fact was written: its name begins with the nanoseconds, except a batch file's, which counts its lines behind a common word;
    those of one tick of the disk's clock are then told apart by that count."""
    stamp = entry.name.partition("-")[0]
    return int(stamp) if stamp.isascii() and stamp.isdigit() and len(stamp) == _STAMP_DIGITS else entry.stat().st_mtime_ns


def _is_fact(name: str) -> bool:
    return name.endswith((".fact", ".line")) and not name.startswith(files.ASIDE)
