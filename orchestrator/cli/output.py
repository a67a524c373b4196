"""Where a command's words go: answers to the standard output, remarks to the standard error.

Answers are either for a person (tables whose columns stay straight with Japanese in them) or, with `--json`, for a program. Both
outputs take any character: a console that cannot show one gets a stand-in, never an error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.said import Said
from workers.messages import translate

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_FILE_WIDTH = 200
"""Columns of a table that goes into a file or a pipe."""


def prepare() -> None:
    """Make both outputs take every character."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def words(said: Said) -> str:
    return said.in_words(translate)


def show(said: Said) -> None:
    print(words(said))


def remark(said: Said) -> None:
    """A remark that is no part of the answer."""
    complain(f"dcsup: {words(said)}")


def complain(line: str) -> None:
    """A line for the standard error; that nobody reads it there must not change how the command ends."""
    try:
        print(line, file=sys.stderr)
    except OSError:
        pass


def show_json(value: Any) -> None:
    """One JSON document, keys sorted, so that two answers can be compared as texts."""
    print(json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people; title and columns are already in their language."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH
    print(title)
    shown = Table(*columns, box=box.ASCII2)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console(width=width, highlight=False, soft_wrap=False).print(shown)


def moment(ms: float | None) -> str:
    """`2026-08-01 10:00:00.123Z` of ms since the epoch; a dash without."""
    if not ms:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", timespec="milliseconds").replace("+00:00", "Z")


def age(ms: float | None) -> str:
    """How long ago that was by this machine's clock, in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`."""
    if not ms:
        return "-"
    past_s = max(0.0, time.time() - ms / 1000)
    unit, length_s = next((one for one in _UNITS if past_s >= 2 * one[1]), _UNITS[-1])
    return f"{past_s / length_s:.0f} {unit}"


def seconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.2f}"
