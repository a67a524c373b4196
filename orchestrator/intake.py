"""From raw inbox entries to the next commit: which of them count, in which order, and what the core makes of them. No I/O.

The order is that of arrival: by inbox id over all inboxes, in each inbox as it stands there; among facts of one millisecond the
leader's own come last, so that a deadline is judged after everything that arrived before it.

A fact is taken when it is the next of its stream. A *duplicate* is skipped. After a *gap* the fact and those behind it are skipped
too: the cursor may pass them, because their producer keeps them on its disk and offers again whatever its mark has not passed (I5).
What cannot be read, or what the core cannot digest, goes to quarantine with the reason, and the next one proceeds. An entry whose id is far
ahead of the time spoils its inbox for everything that follows, for Redis only adds behind it: that inbox is begun anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from orchestrator.ports import Core, InboxEntry, Quarantined, QueuedJob
from statemachines import wire
from statemachines.cluster import Arrival, JobOrder, StepResult
from statemachines.entries import GENESIS_ID, Sealed, id_key
from statemachines.facts import Envelope, parse_body
from statemachines.states import ClusterState

log = structlog.get_logger()

FACTS_PER_COMMIT_MAX = 100
"""Measured: more per commit gains little and makes the slowest commit several times slower."""

AHEAD_MS_MAX = 5_000
"""An inbox id further ahead of Redis TIME than this was not given by Redis."""

REASON_LENGTH_MAX = 500
JOB_MARGIN_S = 60
"""What a job may take beyond its command's own limit: claiming, ending a tree, reporting."""

VERDICT_LIMIT_S = 60


@dataclass(slots=True)
class Batch:
    """What the next commit of one cluster will hold."""

    state: ClusterState
    cursors: dict[str, str]
    entries: list[Sealed] = field(default_factory=list)
    jobs: list[QueuedJob] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    doubled: set[str] = field(default_factory=set)
    """Inboxes of skipped duplicates."""
    spoilt: set[str] = field(default_factory=set)
    """Inboxes that are to be begun anew: something in them has an id far ahead of the time, and Redis adds only behind it."""
    inboxes: set[str] = field(default_factory=set)
    """Those that something was read from."""
    oldest_ms: int | None = None
    """Arrival of the first fact in it."""


def in_order(entries: Sequence[InboxEntry], count_max: int) -> tuple[list[InboxEntry], bool]:
    """The entries of one cluster that may be taken now, in order of arrival, and whether more is left to read.

    `count_max` is how many were asked for of each inbox. An inbox that gave so many may hold more, with ids below those of the other
    inboxes; nothing later than what was seen of it is taken yet.
    """
    horizons = _horizons(entries, count_max)
    ready = [entry for entry in entries if not horizons or entry.ms <= min(horizons)]
    ready.sort(key=lambda entry: (entry.ms, entry.inbox == wire.LEADER_INBOX, entry.inbox, id_key(entry.id)))
    return ready[:FACTS_PER_COMMIT_MAX], bool(horizons) or len(ready) > FACTS_PER_COMMIT_MAX


def _horizons(entries: Sequence[InboxEntry], count_max: int) -> list[int]:
    by_inbox: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        by_inbox[entry.inbox].append(entry.ms)
    return [moments[-1] for moments in by_inbox.values() if len(moments) >= count_max]


def take_in(core: Core, state: ClusterState, cursors: Mapping[str, str], entries: Sequence[InboxEntry], now_ms: int) -> Batch:
    """Step the core through `entries` (in the order given), on from `state`, which stays as it is. `now_ms` is Redis TIME."""
    batch = Batch(state, dict(cursors))
    for entry in entries:
        if entry.inbox in batch.spoilt:
            continue
        if _spoils(entry, now_ms):
            _begin_anew(core, batch, entry, now_ms)
        else:
            _take_one(core, batch, entry, now_ms)
            batch.cursors[entry.inbox] = entry.id
        batch.inboxes.add(entry.inbox)
        if batch.oldest_ms is None:
            batch.oldest_ms = entry.ms
    return batch


def _take_one(core: Core, batch: Batch, entry: InboxEntry, now_ms: int) -> None:
    try:
        envelope = Envelope.model_validate_json(entry.raw or b"")
    except ValidationError as error:
        _set_aside(core, batch, entry, None, f"unreadable: {_first(error)}")
        return
    order = core.order_of(batch.state, entry.inbox, envelope)
    if order != "next":
        batch.skipped[order] += 1
        if order == "duplicate":
            batch.doubled.add(entry.inbox)
        return
    try:
        arrival = Arrival(entry.inbox, _arrival_id(entry, now_ms), envelope, parse_body(envelope, entry.inbox))
    except ValueError as error:
        _set_aside(core, batch, entry, envelope, f"invalid: {_first(error)}")
        return
    try:
        result = core.step(batch.state, arrival)
    except Exception as error:
        log.exception("a fact made the step raise", cluster=entry.cluster, inbox=entry.inbox, id=entry.id, type=envelope.type)
        _set_aside(core, batch, entry, envelope, f"step raised {type(error).__name__}: {error}")
        return
    _accept(batch, result)


def _spoils(entry: InboxEntry, now_ms: int) -> bool:
    """Whether the id was not given by Redis as its clock is now, in an inbox whose producer keeps its facts and offers them again.

    A node chose it, or Redis's clock was set back. The leader's and the people's inboxes go on: nobody would say it again.
    """
    return entry.ms > now_ms + AHEAD_MS_MAX and not entry.inbox.startswith("_")


def _begin_anew(core: Core, batch: Batch, entry: InboxEntry, now_ms: int) -> None:
    """Put the entry aside without counting its number, and drop the inbox with the commit: everything in it comes again, with sound ids."""
    reason = f"its inbox id is {(entry.ms - now_ms) / 1000:.0f} s ahead of Redis TIME: the inbox is begun anew"
    _set_aside(core, batch, entry, None, reason)
    batch.spoilt.add(entry.inbox)
    batch.cursors[entry.inbox] = GENESIS_ID


def _arrival_id(entry: InboxEntry, now_ms: int) -> str:
    """The id that the log's ids follow: nobody can move the log's clock ahead by the id that a person's word was given."""
    ahead = entry.inbox == wire.OPERATOR_INBOX and entry.ms > now_ms + AHEAD_MS_MAX
    return f"{now_ms}-0" if ahead else entry.id


def _set_aside(core: Core, batch: Batch, entry: InboxEntry, envelope: Envelope | None, reason: str) -> None:
    reason = reason[:REASON_LENGTH_MAX]
    batch.quarantined.append(Quarantined(entry.inbox, entry.id, reason, entry.raw or b""))
    try:
        result = core.quarantine(batch.state, entry.inbox, entry.id, reason, envelope)
    except Exception:
        # The stream still has the fact and its reason; a leader that dies of it would die of it again and again.
        log.exception("a fact could not even be quarantined in the log", cluster=entry.cluster, inbox=entry.inbox, id=entry.id)
        return
    _accept(batch, result)


def _accept(batch: Batch, result: StepResult) -> None:
    batch.state = result.state
    batch.entries.extend(result.entries)
    batch.jobs.extend(QueuedJob(order, _limit_s(result.state, order)) for order in result.jobs)


def _limit_s(state: ClusterState, order: JobOrder) -> int:
    verb = order.payload.get("verb")
    if verb is None or state.settings is None:
        return VERDICT_LIMIT_S
    script = state.settings.start if verb in ("start", "recover") else state.settings.stop
    return int(script.command_limit) + JOB_MARGIN_S


def _first(error: Exception) -> str:
    """One line about the first mistake."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in found["loc"])
        return f"{place}: {found['msg']}" if place else found["msg"]
    return str(error)
