"""Fact files: what producers put into the outbox, read back.

Python writes JSON (`<name>.fact`), scripts write `key=value` lines (`<name>.line`), because a batch file can do nothing better. Both
become a `RawFact` here. A script's line carries no clock reading; its time is the file's. Numbers, yes-or-no values and the list of
commands (`1.service=`, `1.verb=`) get the types of the fact's own model; what does not fit that model is passed on as text, and the
orchestrator puts it into quarantine and says why. Only what cannot even be put into an envelope is damaged.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from statemachines.facts import FACT, TYPES, AnyFact, Envelope

SIZE_LIMIT_BYTES = 4_000_000
"""The largest honest fact carries the last 64 KiB of a command's output."""

_COMMAND_KEY = re.compile(r"(\d{1,6})\.(service|verb)")
_MODELS: dict[str, type[BaseModel]] = {model.model_fields["type"].default: model for model in AnyFact.__args__}


class Damaged(ValueError):
    """A fact file that cannot be read as a fact, and why."""


@dataclass(frozen=True)
class RawFact:
    """A fact as its producer wrote it; `mono` and `wall` are the producer's clocks in s."""

    type: str
    source: str
    data: dict[str, Any]
    boot: str | None
    mono: float | None
    wall: float | None

    def envelope(self, stream: str, seq: int, oldest: int, **place: Any) -> Envelope:
        """The fact as the inbox takes it; `place` is its time on Redis's line (workers/clock.py).

        Raises:
            ValidationError: a part of it has the wrong type or value.
        """
        return Envelope.model_validate({**self.__dict__, "stream": stream, "seq": seq, "oldest": oldest, **place})


def read_fact(path: Path) -> RawFact:
    """The fact in a file, whichever form it has.

    Raises:
        Damaged: it is neither.
        OSError: it cannot be read at all.
    """
    if path.stat().st_size > SIZE_LIMIT_BYTES:
        raise Damaged(f"larger than {SIZE_LIMIT_BYTES} bytes")
    text = path.read_bytes().decode("utf-8", errors="replace")
    raw = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text, path.stat().st_mtime)
    try:  # settled before it gets a number, for a number must not be missing
        envelope = raw.envelope("-", 1, 1)
        envelope.model_dump_json()
    except ValueError as error:
        raise Damaged(_first_words(error)) from None
    for name, clock in (("mono", envelope.mono), ("wall", envelope.wall)):
        if clock is not None and not math.isfinite(clock):
            raise Damaged(f"{name}: {clock} is no clock reading")
    return replace(raw, mono=envelope.mono, wall=envelope.wall)  # a number that was written as text is one


def _first_words(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _from_json(text: str) -> RawFact:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged("not valid JSON") from None
    missing = {"type", "source", "data"} - set(content)
    if missing:
        raise Damaged(f"no {min(missing)!r}")
    clocks = (content.get("boot"), content.get("mono"), content.get("wall"))
    return RawFact(content["type"], content["source"], content["data"], *clocks)


def _from_lines(text: str, wall: float) -> RawFact:
    values = _pairs(text)
    if "type" not in values:
        raise Damaged("no 'type'")
    kind, source, boot = values.pop("type"), values.pop("source", "script"), values.pop("boot", None)
    return RawFact(kind, source, _typed(kind, values), boot or None, None, wall)


def _pairs(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            raise Damaged(f"not a key=value line: {line[:80]!r}")
        values[key.strip()] = value.strip()
    return values


def _typed(kind: str, values: dict[str, str]) -> dict[str, Any]:
    """The texts converted to the fact's field types where they fit its model, else as they are."""
    data: dict[str, Any] = {key: value for key, value in values.items() if not _COMMAND_KEY.fullmatch(key) and key != "version"}
    if commands := _commands(values):
        data["commands"] = commands
    if kind not in TYPES:
        return data
    said = {key: value for key, value in data.items() if value != "" or not _may_be_absent(kind, key)}
    try:
        return FACT.validate_python({**said, "type": kind}).model_dump(mode="json", exclude={"type"}, exclude_unset=True)
    except ValidationError:
        return data


def _may_be_absent(kind: str, key: str) -> bool:
    field = _MODELS[kind].model_fields.get(key)
    return field is not None and not field.is_required()


def _commands(values: dict[str, str]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        if match := _COMMAND_KEY.fullmatch(key):
            found.setdefault(int(match[1]), {"n": int(match[1])})[match[2]] = value
    return [found[n] for n in sorted(found)]
