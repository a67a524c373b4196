"""Small files that other processes read while we write them: `key=value` lines, written aside and renamed.

Everything on a node that scripts, hooks, launcher and worker share is such a file. A batch file must be able to read it, so it is
one `key=value` a line; and nobody may ever see half of one, so it is written under a name beginning with `.tmp-`, flushed, and
renamed to its own name (NODE.md: "Files are only ever renamed, never opened for writing under their final name").
Standard library only, cheap to import: hooks start with every call of CLUSTERPRO.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

ASIDE = ".tmp-"
"""What the name of a file begins with while it is being written; readers skip such names."""

_numbers = itertools.count(1)


def to_text(fields: dict[str, object]) -> str:
    """One `key=value` a line; line ends inside a value become spaces, None becomes the empty text."""
    return "".join(f"{key}={_one_line(value)}\n" for key, value in fields.items())


def _one_line(value: object) -> str:
    text = "" if value is None else str(value)
    return text if text.isprintable() else " ".join(text.splitlines())  # what ends a line is not printable


def from_text(text: str) -> dict[str, str]:
    """The inverse of `to_text`; lines without `=` are skipped, and carriage returns of a batch file are dropped."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, separator, value in pairs if separator}


def read_fields(path: Path) -> dict[str, str] | None:
    """The fields of a file; None when it is not there (any more) or cannot be read now: look again."""
    try:
        return from_text(path.read_text("utf-8", "replace"))
    except OSError:
        return None


def write_aside(path: Path, text: str, *, flush: bool = True) -> None:
    """Put `text` at `path` in one step. With `flush` it is on the disk when this returns.

    Raises:
        OSError: nothing was changed at `path` (disk full, folder missing or not writable).
    """
    aside = path.with_name(f"{ASIDE}{os.getpid()}-{next(_numbers)}-{path.name}")
    try:
        with aside.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        _replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    if flush:
        flush_folder(path.parent)


def _replace(aside: Path, path: Path) -> None:
    """On Windows a reader that has the old file open for a moment makes the rename fail: try again for a second."""
    for _ in range(50 if sys.platform == "win32" else 0):
        try:
            aside.replace(path)
        except PermissionError:
            time.sleep(0.02)
        else:
            return
    aside.replace(path)


def remove(path: Path) -> None:
    """Remove a file if that is possible; what cannot be removed (a folder under its name, a disk that refuses) stays and keeps nobody."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


def flush_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the system can (Windows cannot open a folder)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_float(value: str | None) -> float | None:
    """The number in a field; None for a missing, empty or damaged one."""
    try:
        return float(value) if value else None
    except ValueError:
        return None


def to_int(value: str | None) -> int | None:
    """The whole number in a field; None for a missing, empty or damaged one."""
    try:
        return int(value) if value else None
    except ValueError:
        return None
