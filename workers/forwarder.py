"""The forwarder: from the node's outbox to the node's inbox in Redis.

Every producer on a node (hook, script, launcher, watch, worker) writes its fact to disk and goes on. The forwarder alone numbers the
facts (workers/sequences.py) and hands them in (workers/courier.py). Nothing is deleted before the orchestrator's mark, which is
written in the same commit as the log entry, has passed it.

What can go wrong, and what happens then:

- Redis is away: facts wait on disk; on its return everything unacknowledged is handed in again.
- Redis lost its tail: the mark's head is behind the one remembered on disk: `LogTailLost`, and everything is handed in again.
- This disk lost its tail (an old copy was restored): the mark, or the inbox that the orchestrator has not read yet, knows higher numbers
  than the disk. Going on would give numbers twice, and the orchestrator would take new facts for repetitions; so a new stream begins.
- A file is damaged: it is put aside and reported (`FactsDropped`); what follows proceeds.
- The disk is full: the worker's own facts go to Redis directly, in a sequence in memory (`DirectSequence`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from workers import files, outbox
from workers.courier import Courier, Mark, as_head
from workers.rawfacts import RawFact
from workers.sequences import DirectSequence, DiskSequence

NOTICE_S = 0.015
"""Pause between two looks into the outbox, so that a new fact is noticed within 20 ms."""

NOTICE_BUSY_S = 0.004
BUSY_FOR_S = 3.0
"""Facts come in bursts (a failover is one), and each second counts then: for a while after one the looks follow faster."""

DISK_RETRY_S = 0.5

__all__ = ["DirectSequence", "Forwarder", "Reporter"]


class Reporter:
    """Facts of a worker process itself: to the outbox, like everyone's; if the disk takes none, to Redis directly."""

    def __init__(self, folder: Path, boot: str, log: Any) -> None:
        self.direct = DirectSequence()
        self._folder, self._boot, self._log = folder, boot, log

    def report(self, kind: str, data: dict[str, Any], source: str = "worker") -> None:
        """A fact of type `kind` (statemachines/facts.py) happened now. Never raises for the disk's sake."""
        try:
            outbox.write_fact(self._folder, kind, source, data, self._boot)
        except OSError as error:
            self._log.error("the disk takes no facts; sending directly", type=kind, error=str(error))
            self.direct.append(RawFact(kind, source, data, self._boot, time.monotonic(), time.time()))

    def courier(self, cluster: str, node: str, client: Redis) -> Courier:
        """A courier for what the disk did not take; for processes that are not the forwarder."""
        return Courier(cluster, node, self._boot, client, self._log, [self.direct])


class Forwarder:
    """One node's forwarder: call `step` in a loop. There must be only one at a time for a folder."""

    def __init__(
        self, folder: Path, cluster: str, node: str, boot: str, client: Redis, log: Any, tail_lost: Callable[[], None] = lambda: None
    ) -> None:
        """Take over the node folder's outbox. `tail_lost` is called when the log turns out to have lost what it had: then it may not know
        any more what was told of this node long ago.

        Raises:
            OSError: it cannot be made or written.
        """
        self.disk = DiskSequence(folder)
        self.reporter = Reporter(folder, boot, log)
        self.courier = Courier(cluster, node, boot, client, log, [self.disk, self.reporter.direct])
        self.damaged = 0
        self._log, self._on_tail_lost = log, tail_lost
        self._head_path = folder / "head"
        self.head = self._remembered_head()
        """The log's head as last seen in the mark; also on disk, so that a restart does not forget it."""
        self._last_at_start = self.disk.last
        self._stream_checked = False
        self._disk_retry_at = 0.0
        self._busy_until = 0.0
        self._trouble = ""

    @property
    def dropped(self) -> int:
        """Facts given up since this process began."""
        return self.damaged + self.reporter.direct.dropped

    def step(self, *, at_once: bool = False) -> None:
        """Number what is new and hand in what is due. Never raises for Redis's or a full disk's sake."""
        if time.monotonic() >= self._disk_retry_at or at_once:
            self._on_disk(self._number)
        self._on_disk(lambda: self.courier.step(self._on_mark, at_once=at_once))

    def _on_disk(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._disk_retry_at = time.monotonic() + DISK_RETRY_S
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("the outbox's disk fails; trying again", error=self._trouble)

    def drain(self, limit_s: float) -> None:
        """Hand everything in, for at most `limit_s`: the last thing that a worker does. Gives up at once when Redis is away."""
        end = time.monotonic() + limit_s
        self.step(at_once=True)
        while self.courier.connected and not self.courier.all_handed_in and time.monotonic() < end:
            self.step()

    @property
    def pause_s(self) -> float:
        """How long to sleep before the next `step`."""
        return NOTICE_BUSY_S if time.monotonic() < self._busy_until else NOTICE_S

    def _number(self) -> None:
        before = self.disk.last
        self.disk.number_new(self._on_damaged)
        if self.disk.last > before:
            self._busy_until = time.monotonic() + BUSY_FOR_S

    def _on_damaged(self, words: str) -> None:
        self.damaged += 1
        self._log.error("damaged fact put aside", file=words)
        self.reporter.report("FactsDropped", {"count": 1, "reason": f"damaged: {words}"})

    def _on_mark(self, mark: Mark) -> None:
        if not self._stream_checked:
            self._check_stream(max(mark.streams.get(self.disk.stream, 0), self.courier.seen_in_inbox(self.disk.stream)))
            self._stream_checked = True
        if mark.head != self.head:
            self._new_head(mark.head)

    def _check_stream(self, known: int) -> None:
        if known > self._last_at_start:
            self._log.error("this disk lost facts that were handed in; a new stream begins", known=known, on_disk=self._last_at_start)
            self.disk.begin_new_stream()

    def _new_head(self, found: dict[str, Any] | None) -> None:
        if self.head is not None and _is_behind(found, self.head):
            self._tail_lost(self.head, found or {})
        self.head = found
        try:
            files.write_aside(self._head_path, json.dumps(found) + "\n", flush=False)
        except OSError as error:
            self._log.error("cannot remember the log's head", error=str(error))

    def _tail_lost(self, seen: dict[str, Any], found: dict[str, Any]) -> None:
        seen_id, found_id = str(seen.get("last_id", "0-0")), str(found.get("last_id", "0-0"))
        self._log.error("the log lost its tail", seen=seen_id, found=found_id)
        self.reporter.report("LogTailLost", {"seen_id": seen_id, "found_id": found_id})
        self._on_tail_lost()
        self.courier.again()

    def _remembered_head(self) -> dict[str, Any] | None:
        try:
            return as_head(json.loads(self._head_path.read_bytes()))
        except (OSError, ValueError):
            return None


def _is_behind(found: dict[str, Any] | None, seen: dict[str, Any]) -> bool:
    """Whether a log that had `seen` and now has `found` lost something: an older commit, or another one under the same number.

    A log that lost its tail may have grown beyond it by the time one looks. Nobody but a new leader can have done that, and its marks
    say upon which head its epoch began.
    """
    upon = found.get("upon") if found is not None and found.get("epoch") != seen.get("epoch") else None
    place = as_head(upon) or found
    if place is None or place["commit"] < seen["commit"]:
        return True
    return bool(place["commit"] == seen["commit"] and place.get("last_hash") != seen.get("last_hash"))
