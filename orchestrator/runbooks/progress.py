"""How far somebody came: a file beside the configuration, one JSON object a line.

    {"is":"run","version":1,"runbook":"install-server","cluster":"pair","run":"5f0c...","writer":"91ab...","values":{...},"options":{...},...}
    {"is":"values","values":{"disk":"E:"}}
    {"is":"begun","step":"reboot.node1","before":{"boot":"41"},"wall":...}
    {"is":"step","n":1,"step":"group-up.node1","outcome":"done","by":"sato","verified":true,"note":"","wall":...,"seen":{}}
    {"is":"elsewhere","step":"...","outcome":"done"}
    {"is":"handed-in","n":1}

Lines are only appended, and each is on the disk before the next question is asked. A power cut can cost the line that was being
written and nothing else: an unfinished last line is cut off, and the step it was about is asked again. `writer` is this file's
own; with a step's number it names the fact that the log gets, so that handing it in twice counts once.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.runbooks.steps import Step
from orchestrator.said import Said, say

Outcome = Literal["done", "skipped", "failed"]

VERSION = 1
_FORMS: dict[str, dict[str, type]] = {
    "run": {"version": int, "runbook": str, "cluster": str, "run": str, "writer": str, "values": dict, "options": dict, "wall": float,
            "by": str},
    "values": {"values": dict},
    "begun": {"step": str, "before": dict},
    "step": {"n": int, "step": str, "outcome": str, "by": str, "verified": bool, "note": str, "wall": float, "seen": dict},
    "elsewhere": {"step": str, "outcome": str},
    "handed-in": {"n": int},
}  # fmt: skip


class ProgressError(Exception):
    """The file cannot be gone on with; `said` names it, the place, and what to do."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


@dataclass(frozen=True)
class Record:
    """What became of a step. `n` is 0 for one that was recorded on another machine."""

    n: int
    step: str
    outcome: Outcome
    by: str = ""
    on_node: str | None = None
    verified: bool = False
    note: str = ""
    wall: float = 0.0
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settles(self) -> bool:
        """A failed step is still to be done."""
        return self.outcome != "failed"


@dataclass
class Progress:
    """One going-through of a runbook. Made by `begin` or `load`; every change is on the disk when its method returns."""

    path: Path
    runbook: str
    cluster: str
    run: str
    writer: str
    values: dict[str, str]
    options: dict[str, str]
    began: float = 0.0
    by: str = ""
    records: dict[str, Record] = field(default_factory=dict)
    """Step -> its last record."""
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Step -> what was so when it was first shown."""
    pending: list[Record] = field(default_factory=list)
    """Not handed in to the log yet, oldest first."""
    last_n: int = 0
    cut: bool = False
    """An unfinished last line was found, and will not be there any more after the next one."""
    _size: int = 0

    # --- asking

    def current(self, steps: list[Step]) -> Step | None:
        """The first step that is still to be done; None: finished."""
        return next((step for step in steps if not self.settled(step.id)), None)

    def settled(self, step: str) -> bool:
        return step in self.records and self.records[step].settles

    # --- writing

    def give(self, values: Mapping[str, str]) -> None:
        if any(self.values.get(name) != value for name, value in values.items()):
            self._append({"is": "values", "values": dict(values)})

    def begin_step(self, step: str, before: Mapping[str, Any]) -> None:
        """Remember how things are before the step; what is remembered already stays."""
        if step not in self.before:
            self._append({"is": "begun", "step": step, "before": dict(before), "wall": time.time()})

    def record(self, step: Step, outcome: Outcome, by: str, *, verified: bool, note: str, seen: Mapping[str, Any]) -> None:
        self._append({
            "is": "step", "n": self.last_n + 1, "step": step.id, "outcome": outcome, "by": clean(by), "on_node": step.node,
            "verified": verified, "note": clean(note), "wall": time.time(), "seen": dict(seen),
        })  # fmt: skip

    def learn(self, steps: Mapping[str, str]) -> None:
        """What the cluster's state says of this run; a step that was settled here stays as it is."""
        for step, outcome in steps.items():
            known = self.records.get(step)
            if outcome in ("done", "skipped", "failed") and (known is None or (known.outcome != outcome and not known.settles)):
                self._append({"is": "elsewhere", "step": step, "outcome": outcome})

    def handed_in(self, record: Record) -> None:
        self._append({"is": "handed-in", "n": record.n})

    def _append(self, line: dict[str, Any]) -> None:
        """Raises ProgressError: the disk refuses, or somebody else writes to the file."""
        try:
            with self.path.open("r+b" if self.path.exists() else "xb") as file:
                if file.seek(0, os.SEEK_END) != self._size and not self.cut:
                    raise ProgressError(say("{file}: another dcsup writes to this file; end it, or go on there", file=self.path))
                file.truncate(self._size)
                file.seek(self._size)
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._size, self.cut = file.tell(), False
        except OSError as error:
            raise ProgressError(say("{file} cannot be written: {why}", file=self.path, why=error.strerror or str(error))) from error
        self._take(line)

    # --- taking lines in

    def _take(self, line: Mapping[str, Any]) -> None:
        kind = line["is"]
        if kind == "values":
            self.values.update(line["values"])
        elif kind == "begun":
            self.before.setdefault(line["step"], line["before"])
        elif kind == "step":
            self._take_record(Record(**{key: value for key, value in line.items() if key in Record.__dataclass_fields__}))
        elif kind == "elsewhere":
            self.records[line["step"]] = Record(0, line["step"], line["outcome"])
        elif kind == "handed-in":
            self.pending = [record for record in self.pending if record.n != line["n"]]

    def _take_record(self, record: Record) -> None:
        self.records[record.step] = record
        self.pending.append(record)
        self.last_n = max(self.last_n, record.n)


def begin(
    path: Path, runbook: str, cluster: str, by: str, *, run: str | None = None, values: Mapping[str, str], options: Mapping[str, str]
) -> Progress:
    """A new file. `run`: the id of a run that was begun on another machine; None: a new one.

    Raises:
        ProgressError: the file cannot be made.
    """
    new = Progress(path, runbook, cluster, run or secrets.token_hex(4), secrets.token_hex(6), dict(values), dict(options), time.time(), by)
    new._append({
        "is": "run", "version": VERSION, "runbook": runbook, "cluster": cluster, "run": new.run, "writer": new.writer,
        "values": new.values, "options": new.options, "wall": new.began, "by": clean(by),
    })  # fmt: skip
    _keep_name(path.parent)
    return new


def _keep_name(folder: Path) -> None:
    """A new file's name is on the disk too, where the system lets one ask for that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and keeps names by itself
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> Progress | None:
    """What a file holds; None: there is none, or a power cut left not even its first line.

    Raises:
        ProgressError: it cannot be read, or a line other than the last is not what it should be.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProgressError(say("{file} cannot be read: {why}", file=path, why=error.strerror or str(error))) from error
    whole, _newline, rest = content.rpartition(b"\n")
    lines = [_line(path, number, raw) for number, raw in enumerate(whole.split(b"\n"), start=1)] if whole else []
    if not lines:
        _away_with(path, rest)
        return None
    loaded = _first(path, lines[0])
    loaded.cut, loaded._size = bool(rest), len(whole) + 1
    for line in lines[1:]:
        loaded._take(line)
    return loaded


def _away_with(path: Path, rest: bytes) -> None:
    """A file of dcsup that was cut within its first line is as good as none; any other is not ours to overwrite."""
    if rest.strip(b"\0") and not rest.startswith(b'{"is":"run"'[: len(rest)]):
        raise _damaged(path, 1)
    path.unlink()


def _first(path: Path, line: Mapping[str, Any]) -> Progress:
    if line["is"] != "run":
        raise _damaged(path, 1)
    if line["version"] != VERSION:
        raise ProgressError(say("{file} was written by another version of dcsup; finish it with that one, or begin anew", file=path))
    names = ("runbook", "cluster", "run", "writer", "values", "options", "wall", "by")
    return Progress(path, *(line[name] for name in names))


def _line(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
        form = _FORMS[line["is"]]
        good = all(isinstance(line[name], kind) for name, kind in form.items())
    except (ValueError, TypeError, KeyError):
        good = False
    if not good or line.get("outcome", "done") not in ("done", "skipped", "failed"):
        raise _damaged(path, number)
    return dict(line)


def _damaged(path: Path, number: int) -> ProgressError:
    text = say(
        "{file}: line {line} is damaged, so it is not known how far this run came; mend or delete the line, or move the file away"
        " and begin anew",
        file=path,
        line=number,
    )
    return ProgressError(text)


def clean(text: str) -> str:
    """What a person typed, fit for every file and for the log: no half characters, no line ends, not longer than a page."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:2000]
