"""Logs for the tests of what an operator sees: told by the core itself, or made by hand."""

from __future__ import annotations

from typing import Any

from redis import Redis

from orchestrator.export import exported
from orchestrator.ports import StoredEntry
from statemachines import wire
from statemachines.entries import GENESIS_HASH, Entry, Sealed, seal, time_of
from tests.statemachines.story import START_MS, Story


def told_log() -> list[Sealed]:
    """A start, a dead node, a take-over in which a schedule is missed, a move back: the log that the core itself wrote."""
    story = Story()
    story.bring_up("node1")
    story.wait(30)
    story.tell("_leader", "NodeLost", node="node1")
    story.wait(3)
    story.bring_up("node2", "FAILOVER", observe=False)
    story.wait(2)
    story.observe("node2", {"manual-started-2": "stopped"}, ticket=story.state.start_ticket)
    story.wait(40)
    story.tell("node1", "NodeJoined", boot="boot-2", version="0")
    story.wait(15)
    story.take_down("node2", "FAILOVER", factor="GROUPMOVE")
    story.bring_up("node1")
    story.wait(40)
    return story.log


def entry(number: int, kind: str, data: dict[str, Any], **fields: Any) -> Entry:
    """A hand-made entry; a second passes from each to the next."""
    at = f"{START_MS + 1000 * number}-0"
    given: dict[str, Any] = {
        "id": at,
        "time": time_of(at),
        "type": kind,
        "version": 1,
        "cluster": "demo",
        "node": None,
        "service": None,
        "source": "dcsup",
        "source_id": None,
        "cause": "1-0",
        "rule": None,
        "transitions": [],
        "data": data,
    }
    return Entry(**{**given, **fields})


def chained(entries: list[Entry]) -> list[Sealed]:
    log: list[Sealed] = []
    for one in entries:
        log.append(seal(one, log[-1].hash if log else GENESIS_HASH))
    return log


def small_log() -> list[Sealed]:
    """Three entries, with Japanese in one."""
    return chained([entry(n, "DecisionSkipped", {"reason": reason}) for n, reason in enumerate(("late", "重複", "x"), 1)])


def file_of(log: list[Sealed]) -> bytes:
    return b"".join(exported(log))


def stored_of(log: list[Sealed]) -> list[StoredEntry]:
    return [StoredEntry(sealed.entry.id, sealed.body, sealed.hash) for sealed in log]


def put_into(client: Redis, log: list[Sealed]) -> None:
    """The log as the orchestrator's commits leave it in Redis."""
    with client.pipeline() as pipeline:
        for sealed in log:
            fields: Any = {wire.ENTRY_FIELD: sealed.body, wire.HASH_FIELD: sealed.hash}
            pipeline.xadd(wire.log(sealed.entry.cluster), fields, id=sealed.entry.id)
        pipeline.execute()
