"""Recorded steps on their way into the cluster's log.

Each goes to the clusters' inbox `_operator`, as `dcsup pause` does. Before the installation there may be no Redis yet, so a step waits in
its file until it can be handed in. Whether it has arrived may stay unknown (the answer was lost): then it is handed in once more, under the
same name, and the orchestrator takes a name once (statemachines.cluster.order_of).

The name is a stream of its own for each step, `<file's writer>-<n>` with the one number 1, and not one stream for the whole run: the
orchestrator remembers the last streams only, and a run may be taken up again after a month.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.runbooks.progress import Progress, Record
from statemachines import wire
from statemachines.facts import Envelope, RunbookStepRecorded

if TYPE_CHECKING:
    from redis import Redis


def hand_in(client: Redis, progress: Progress) -> int:
    """Hand in what is not handed in yet, oldest first; how many that were.

    Raises:
        redis.RedisError: Redis does not answer, or refuses; what was handed in until then is noted.
        ProgressError: the note cannot be written.
    """
    waiting = list(progress.pending)
    for record in waiting:
        pipeline = client.pipeline(transaction=True)
        raw = envelope(progress, record).model_dump_json()
        pipeline.xadd(wire.inbox(progress.cluster, wire.OPERATOR_INBOX), {wire.FACT_FIELD: raw})
        pipeline.publish(wire.bell(progress.cluster), wire.OPERATOR_INBOX)
        pipeline.execute()
        progress.handed_in(record)
    return len(waiting)


def envelope(progress: Progress, record: Record) -> Envelope:
    """The fact, dated when the person said it."""
    fact = RunbookStepRecorded(
        runbook=progress.runbook, run=progress.run, step=record.step, outcome=record.outcome, by=record.by, on_node=record.on_node,
        verified=record.verified, note=record.note,
    )  # fmt: skip
    return Envelope(
        type=fact.type, source="operator", stream=f"{progress.writer}-{record.n}", seq=1, wall=record.wall, at_ms=record.wall * 1000,
        clock="wall", data=fact.model_dump(mode="json", exclude={"type"}),
    )  # fmt: skip
