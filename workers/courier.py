"""The courier: hands numbered facts in at the node's inbox, until the orchestrator's mark has passed them.

Handing in is XADD, with the doorbell (PUBLISH) behind it in the same pipeline. Doing it twice is harmless, so there is no
transaction and no bookkeeping in Redis: whenever something may have been lost (a new connection, a mark that went backwards or does not
move), everything unacknowledged is simply handed in again.

Redis away is not an error here but a state, and so is a Redis that takes nothing (memory full, read-only, no permission): one line in the
log when it begins, one when it ends, and a try from 0.05 s up to every 2 s. Only the doorbell may fail without further ado.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis
from redis import Redis

from statemachines import wire
from workers.clock import Clock
from workers.sequences import Sequence

BATCH = 200
"""Facts handed in with one pipeline."""

BATCH_BYTES = 1_000_000
"""No further fact is added to a batch that has this size: on a slow line a batch must get through within the client's time-out, or it
would be sent again for ever."""

AGAIN_FIRST_S = 3.0
AGAIN_LAST_S = 3600.0
"""A mark that makes no progress: hand in again after 3 s, then twice as long each time. What loses entries cuts the connection too, and
a new connection hands in again at once; so the long end costs nothing, while a short one would fill the inbox of an orchestrator
that is away for days."""

INBOX_LOOK = 200
"""Entries of the inbox that a new process looks back at."""

MARK_EVERY_S = 0.1
MARK_EVERY_IDLE_S = 1.0
MEASURE_FIRST = 3
"""On a new connection the clock is measured this often: the first round trip includes connecting."""

BACKOFF_FIRST_S = 0.05
BACKOFF_LAST_S = 2.0


@dataclass(frozen=True)
class Mark:
    """How far this node's facts are durably in the log (`streams`), and the log's head at that commit."""

    streams: dict[str, int]
    head: dict[str, Any] | None


def parse_mark(value: bytes | str | None) -> Mark:
    """A mark key's value. Anything unreadable counts as no mark: then nothing is let go."""
    try:
        content = json.loads(value or "{}")
        streams = {str(stream): int(seq) for stream, seq in content.get("streams", {}).items()}
        return Mark(streams, as_head(content.get("head")))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return Mark({}, None)


def as_head(content: Any) -> dict[str, Any] | None:
    """`content` if it is a log's head, else None."""
    return content if isinstance(content, dict) and isinstance(content.get("commit"), int) else None


def _place(raw: bytes | None) -> tuple[str, int]:
    """Stream and number of an inbox entry; nobody's for one that is none."""
    try:
        envelope = json.loads(raw or b"")
        return str(envelope["stream"]), int(envelope["seq"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return "", 0


class Offer:
    """One sequence: what of it has been handed in on this connection, and when to do so again."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.handed_in = 0
        self.mark = 0
        self._progress = time.monotonic()
        self._patience_s = AGAIN_FIRST_S

    @property
    def done(self) -> int:
        """Up to here nothing is due."""
        return max(self.handed_in, self.mark)

    def again(self) -> None:
        """Everything unacknowledged is due again."""
        self.handed_in = 0
        self._progress = time.monotonic()

    def moved_to(self, mark: int) -> None:
        """The mark was read: let go of what it has passed; backwards, or no progress for too long: hand in again."""
        if mark > self.mark:
            self.sequence.acknowledge(mark)
            self._patience_s = AGAIN_FIRST_S
            if self.sequence.pending and self.sequence.oldest > mark + 1:
                self.again()  # numbers are missing here: only now that the oldest one is told can what follows them be taken
        if mark != self.mark or not self.sequence.pending:
            self._progress = time.monotonic()
        if mark < self.mark:
            self.again()
        elif time.monotonic() - self._progress > self._patience_s:
            self._patience_s = min(2 * self._patience_s, AGAIN_LAST_S)
            self.again()
        self.mark = mark


class Courier:
    """Carries the facts of some sequences of one node."""

    def __init__(self, cluster: str, node: str, boot: str, client: Redis, log: Any, sequences: Iterable[Sequence]) -> None:
        self.clock = Clock()
        self.connected = False
        self._inbox, self._mark_key, self._bell = wire.inbox(cluster, node), wire.mark(cluster, node), wire.bell(cluster)
        self._node, self._boot, self._client, self._log = node, boot, client, log
        self._offers = [Offer(sequence) for sequence in sequences]
        self._mark_read = 0.0
        self._retry_at = 0.0
        self._backoff_s = BACKOFF_FIRST_S
        self._away_since: float | None = None
        self._mute = False

    @property
    def pending(self) -> int:
        """Facts that are not acknowledged."""
        return sum(offer.sequence.pending for offer in self._offers)

    @property
    def all_handed_in(self) -> bool:
        return all(not offer.sequence.pending or offer.done >= offer.sequence.last for offer in self._offers)

    def seen_in_inbox(self, stream: str) -> int:
        """The highest number of this stream among the last entries of the inbox, which the mark may not have reached yet; 0: none.

        Raises:
            redis.RedisError: Redis did not answer. That it must not be asked (ACL) is no error: then only the mark tells.
        """
        try:
            entries: Any = self._client.xrevrange(self._inbox, count=INBOX_LOOK)
        except redis.exceptions.NoPermissionError:
            return 0
        places = (_place(fields.get(wire.FACT_FIELD.encode())) for _, fields in entries)
        return max((seq for of, seq in places if of == stream), default=0)

    def again(self) -> None:
        """Hand everything unacknowledged in again."""
        for offer in self._offers:
            offer.again()

    def step(self, on_mark: Callable[[Mark], None] | None = None, *, at_once: bool = False) -> None:
        """Do what is due: measure the clock, read the mark, hand in one batch of each sequence.

        Never raises for Redis's sake; blocks for at most the client's time-out. `on_mark` gets each mark before it is acted upon;
        `at_once` does not wait for the back-off.
        """
        if time.monotonic() < self._retry_at and not at_once:
            return
        try:
            self._talk(on_mark)
        except redis.RedisError as error:
            if isinstance(error, redis.ReadOnlyError):
                self._client.connection_pool.disconnect()  # it has become a replica: the address may lead to another one by now
            self._lost(error)
        else:
            self._well()

    def _talk(self, on_mark: Callable[[Mark], None] | None) -> None:
        for _ in range(1 if self.connected else MEASURE_FIRST):
            if self.clock.due or not self.connected:
                self.clock.measure(self._client)
        if not self.connected:
            self.connected, self._mark_read = True, 0.0
            self.again()
        if time.monotonic() - self._mark_read > (MARK_EVERY_S if self.pending else MARK_EVERY_IDLE_S):
            self._read_mark(on_mark)
        for offer in self._offers:
            self._hand_in(offer)

    def _lost(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._log.warning("Redis does not answer; facts wait on disk", error=str(error), waiting=self.pending)
        self.connected = False
        self._retry_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_LAST_S)

    def _well(self) -> None:
        if self._away_since is not None:
            self._log.info("Redis answers again", after_s=round(time.monotonic() - self._away_since, 1), waiting=self.pending)
        self._away_since, self._backoff_s = None, BACKOFF_FIRST_S

    def _read_mark(self, on_mark: Callable[[Mark], None] | None) -> None:
        mark = parse_mark(self._get_mark())
        self._mark_read = time.monotonic()
        if on_mark is not None:
            on_mark(mark)
        for offer in self._offers:
            offer.moved_to(mark.streams.get(offer.sequence.stream, 0))

    def _get_mark(self) -> Any:
        """What stands in the mark's key. A key that is no text (somebody wrote into it) is no mark: the next commit of this node's facts
        writes it anew, and there is none as long as nothing is handed in."""
        try:
            return self._client.get(self._mark_key)
        except redis.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return None

    def _hand_in(self, offer: Offer) -> None:
        batch = self._batch(offer)
        if not batch:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for _, envelope in batch:
                pipe.xadd(self._inbox, {wire.FACT_FIELD: envelope})
            pipe.publish(self._bell, self._node)
            *answers, rung = pipe.execute(raise_on_error=False)
        for (seq, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            offer.handed_in = seq
        if isinstance(rung, Exception) and not self._mute:
            self._mute = True
            self._log.warning("the doorbell cannot be rung; facts are noticed by the orchestrator's sweep", error=str(rung))

    def _batch(self, offer: Offer) -> list[tuple[int, str]]:
        """The next facts that are due, as the inbox takes them."""
        batch, size = [], 0
        for seq, fact in offer.sequence.after(offer.done, BATCH):
            envelope = fact.envelope(offer.sequence.stream, seq, offer.sequence.oldest, **self.clock.place(fact, self._boot))
            batch.append((seq, envelope.model_dump_json()))
            size += len(batch[-1][1])
            if size >= BATCH_BYTES:
                break
        return batch
