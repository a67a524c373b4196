"""Replay: what a log leads to, and whether today's rules would have decided the same.

The state is the fold of what the log records, whatever the rules say now. `verify` puts each fact before `step` again, in the state
that stood before it, and compares the decisions with the recorded ones. A difference means that the rules changed since, or that
an entry was not decided by them; it is never applied: the recorded entries are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from orchestrator.chain import Damaged
from orchestrator.reading import entries as entries_of_file
from orchestrator.said import say
from statemachines.cluster import Arrival, step
from statemachines.entries import Entry, Sealed, decode
from statemachines.facts import Envelope, parse_body
from statemachines.folding import fold
from statemachines.states import ClusterState, new_state

Shape = dict[str, Any]
"""What of an entry is a decision: everything but its place in the chain."""


@dataclass(frozen=True)
class Difference:
    """A fact after which today's rules decide otherwise than the log records."""

    fact_id: str
    fact_type: str
    recorded: list[Shape]
    """The entries where the two part, as recorded; empty: nothing (more) was recorded."""
    decided: list[Shape]
    """The same, as decided now."""
    error: str = ""
    """Why nothing could be decided."""

    def __str__(self) -> str:
        now = self.error or _names(self.decided)
        return f"{self.fact_id} {self.fact_type}: recorded {_names(self.recorded)}, now {now}"


@dataclass
class Replayed:
    """What came of a replay."""

    state: ClusterState | None = None
    count: int = 0
    differences: list[Difference] = field(default_factory=list)
    failovers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every failover that ended: id -> its record (statemachines.states.FailoverStatus)."""


def replay(entries: Iterable[Sealed], begin: ClusterState | None = None, *, again: bool = False) -> Replayed:
    """Fold a log, whole or from the state `begin` on (which is changed); with `again`, decide it again too.

    Raises:
        Damaged: an entry cannot be folded (or the iterable itself raises it).
    """
    replayed = Replayed(begin)
    for group in _groups(entries):
        if replayed.state is None:
            replayed.state = new_state(group[0].entry.cluster)
        if again and (difference := _compare(replayed.state, group)) is not None:
            replayed.differences.append(difference)
        for sealed in group:
            _fold(replayed.state, sealed)
            note_failover(replayed.failovers, sealed.entry)
        replayed.count += len(group)
    return replayed


def fold_file(path: str | Path) -> ClusterState:
    """The state that an exported file leads to.

    Raises:
        OSError: the file cannot be opened.
        Damaged: it is not what was exported.
    """
    state = replay(entries_of_file(path)).state
    assert state is not None, "a file without entries is refused while it is read"
    return state


def verify(entries: Iterable[Sealed]) -> list[Difference]:
    """Where today's rules differ from a log; see `replay`."""
    return replay(entries, again=True).differences


def note_failover(failovers: dict[str, dict[str, Any]], entry: Entry) -> None:
    """Keeps the record of a failover that an entry ends; a later record of the same one completes it."""
    if (record := ended_failover(entry)) is not None:
        failovers[str(record.get("id"))] = record


def ended_failover(entry: Entry) -> dict[str, Any] | None:
    """The record of a failover that has ended, if the entry holds one: its end, or what was told late and completes it."""
    record = entry.data.get("failover")
    if entry.type not in ("FailoverEnded", "FailoverAmended") or not isinstance(record, dict):
        return None
    return record if record.get("state") == "ended" else None


def _fold(state: ClusterState, sealed: Sealed) -> None:
    try:
        fold(state, sealed)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise Damaged(say("entry {id} cannot be folded by this version: {why}", id=sealed.entry.id, why=why)) from error


# --- deciding again ---------------------------------------------------------------------------------------------------------------------


def _groups(entries: Iterable[Sealed]) -> Iterator[list[Sealed]]:
    """Each fact, and what was decided on it."""
    group: list[Sealed] = []
    for sealed in entries:
        if group and sealed.entry.cause is None:
            yield group
            group = []
        group.append(sealed)
    if group:
        yield group


def _compare(state: ClusterState, group: list[Sealed]) -> Difference | None:
    fact = group[0].entry
    if not fact.is_fact:
        return None  # quarantined: what was put aside then is not judged again
    recorded = [_shape(sealed.entry) for sealed in group]
    try:
        decided = [_shape(decode(sealed.body)) for sealed in step(state, arrival_of(fact)).entries]
    except Exception as error:  # whatever the rules stumble over is the answer to the question
        return Difference(fact.id, fact.type, recorded[1:], [], f"{type(error).__name__}: {error}")
    if decided == recorded:
        return None
    pairs = zip_longest(recorded, decided)
    same = next(n for n, (one, other) in enumerate(pairs) if one != other)
    return Difference(fact.id, fact.type, recorded[same:], decided[same:])


def arrival_of(entry: Entry) -> Arrival:
    """The fact of an entry as it stood in its inbox.

    Raises:
        ValueError: the entry does not say where it came from, or this version does not know the fact.
    """
    if entry.evidence is None or entry.source_id is None:
        raise ValueError("the entry carries no evidence of where it came from")
    evidence = dict(entry.evidence)
    inbox, inbox_id = str(evidence.pop("inbox")), str(evidence.pop("inbox_id"))
    stream, _, seq = entry.source_id.rpartition(":")
    numbered: dict[str, Any] = {"stream": stream, "seq": int(seq), "type": entry.type, "version": entry.version, "source": entry.source}
    envelope = Envelope.model_validate({**numbered, **evidence, "data": entry.data})
    return Arrival(inbox, inbox_id, envelope, parse_body(envelope, inbox))


def _shape(entry: Entry) -> Shape:
    return {
        "type": entry.type, "node": entry.node, "service": entry.service, "rule": entry.rule, "transitions": entry.transitions,
        "data": entry.data,
    }  # fmt: skip


def _names(shapes: list[Shape]) -> str:
    return ", ".join(f"{shape['type']} ({shape['rule']})" if shape["rule"] else shape["type"] for shape in shapes) or "nothing"
