"""The watch: one loop that looks at everything on this node, side by side and without threads.

Polls of all services (workers/polls.py), the schedule probe (workers/probe.py), the cluster manager's own view (workers/clusterview.py)
and the metadata DB (workers/metadata.py) are short commands under way beside each other; the loop asks each of them in turn whether
something is due or has ended. A `dcstatus` that hangs delays nobody else.

The loop looks at tickets and journal every 50 ms: a start command that ended ok is verified from then on, a stop command that ended is
checked at once. Redis is needed for three things only, the sign of life, whether the cluster is in maintenance, and the next window's job;
without it the loop goes on, for the hooks read what it writes to disk.

It runs as an RQ job of about a minute (a *window*) that enqueues its successor as its last act. What it knows survives from window to
window in `Watch`, one object per process, and from process to process in the status files.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis import Redis
from rq import Queue

from statemachines import wire
from statemachines.commands import WatchWindow
from workers import files, journal, maintenance, tickets
from workers.clusterview import ClusterWatch
from workers.keys import Sign
from workers.metadata import MetadataWatch
from workers.polls import Report, ServicePolls
from workers.probe import ScheduleProbe
from workers.settings import NodeConfiguration

WINDOW_S = 60.0
LOOK_EVERY_S = 0.05
"""At tickets and journal."""

ALIVE_EVERY_S = 2.0
"""The sign of life and the question for maintenance: this often, or four times within the sign's time to live."""

LOOKS_BEFORE_GONE = 5
"""A ticket that is renamed while its folder is listed is not in that listing."""

PAUSE_BUSY_S = 0.01
PAUSE_IDLE_S = 0.05
REDIS_PAUSE_S = 2.0
"""After Redis did not answer the sign of life: the loop must not spend its time in time-outs."""


TELL_AGAIN = Path("watch") / "tell-again"
"""In the node folder: the log lost what it had been told (`ask_to_tell_again`)."""


def ask_to_tell_again(folder: Path) -> None:
    """Have the node's watch tell everything once more.

    Raises:
        OSError: the folder cannot be written.
    """
    (folder / TELL_AGAIN).touch()


class End(NamedTuple):
    """A command that ended, as the journal tells it."""

    ticket: str
    kind: tickets.Kind
    service: str
    state: journal.State


class GroundWatch:
    """What changed in tickets and journal since the last look. Both folders are listed only when their time stamp moved."""

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder, self._boot = folder, boot
        self._seen: set[str] = set()
        self._listed: dict[Path, int] = {}
        self._live: frozenset[str] = frozenset()

    def live(self) -> frozenset[str]:
        """The tickets of this boot that are not over."""
        if self._changed(tickets.folder_of(self._folder)):
            found = tickets.listing(self._folder)
            self._live = frozenset(one.id for one in found if one.boot == self._boot and not one.is_over)
        return self._live

    def ends(self) -> list[End]:
        """Commands of this boot that ended since the last call, in the order in which they did."""
        folder = journal.folder_of(self._folder)
        if not self._changed(folder):
            return []
        try:
            names = {name for name in os.listdir(folder) if not name.startswith(files.ASIDE)}  # noqa: PTH208 - names are all that is wanted
        except OSError:
            self._listed.pop(folder, None)  # polls go on; what ended is seen when the folder can be listed again
            return []
        new, self._seen = names - self._seen, names
        return [end for path in sorted((folder / name for name in new), key=_age) if (end := self._end(path)) is not None]

    def _changed(self, folder: Path) -> bool:
        """Whether the folder must be listed. A change within the clock's tick after a listing would leave the same stamp, so a
        stamp counts as known only once it is old enough."""
        try:
            stamp = folder.stat().st_mtime_ns
        except OSError:
            return False
        known = self._listed.get(folder) == stamp
        self._listed[folder] = stamp if time.time_ns() - stamp > 100_000_000 else 0
        return not known

    def _end(self, path: Path) -> End | None:
        ticket, _, rest = path.name.partition(".")
        n, _, state = rest.partition(".")
        parsed = tickets.parse(Path(f"{ticket}.done"))
        if parsed is None or parsed.boot != self._boot or state not in journal.ENDS:
            return None
        service = (files.read_fields(path) or {}).get("service") or self._service_of(ticket, n)
        return End(ticket, parsed.kind, service, state)

    def _service_of(self, ticket: str, n: str) -> str:
        """Which service command n is about, as the ticket's list has it: the entry's name says that it ended, its content is damaged."""
        found = tickets.find(self._folder, ticket)
        return next((command.service for command in found.commands() if str(command.n) == n), "") if found is not None else ""


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


class Watch:
    """Everything that is looked at on this node."""

    def __init__(
        self, settings: NodeConfiguration, boot: str, client: Redis, report: Report, hand_in: Callable[[], None] = lambda: None
    ) -> None:
        """`report` makes facts; `hand_in` is called now and then, to send on what the disk did not take of them."""
        node, cluster = settings.node, settings.cluster
        self._folder = Path(node.folder)
        self._client, self._ttl_s, self._hand_in = client, cluster.node_ttl, hand_in
        self._alive_key, self._maintenance_key = wire.watch_alive(node.cluster, node.name), wire.maintenance(node.cluster)
        self._maintenance = maintenance.Keeper(self._folder, boot)
        self._ground = GroundWatch(self._folder, boot)
        self.services = {
            one.name: ServicePolls(self._folder, one.name, node.services[one.name].status, cluster.watch, boot, report)
            for one in cluster.services
        }
        self._cluster = ClusterWatch(node, cluster, report) if ClusterWatch.is_configured(node) else None
        self._metadata = MetadataWatch(node, cluster.metadata, report) if cluster.metadata is not None else None
        self._probe, self._probed = self._schedule_probe(settings, report)
        self._look_at = self._alive_at = 0.0
        self._without_ticket: Counter[str] = Counter()
        self._first = True

    def _schedule_probe(self, settings: NodeConfiguration, report: Report) -> tuple[ScheduleProbe | None, ServicePolls | None]:
        node, cluster = settings.node, settings.cluster
        owner = next((one.name for one in cluster.services if one.owns_schedules), None)
        if node.probe is None or owner is None or cluster.schedules.probe == "none":
            return None, None
        probe = ScheduleProbe(self._folder, owner, node.probe, cluster.schedules, cluster.watch.poll_limit, node.encoding, report)
        return probe, self.services[owner]

    def step(self) -> None:
        """One round; never blocks, except for a moment on Redis."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._look()
        for service in self.services.values():
            service.step(now)
        if self._probe is not None and self._probed is not None:
            self._probe.step(now, self._probed)
        if self._cluster is not None:
            self._cluster.step(now)
        if self._metadata is not None:
            self._metadata.step(now)
        if now >= self._alive_at:
            self._tell_again()
            suspended = self._cluster is not None and self._cluster.is_suspended(now)
            self._maintenance.step(self._talk_with_redis(now), suspended_here=suspended)
            self._hand_in()

    def pause(self) -> None:
        """Sleep until the next round."""
        time.sleep(PAUSE_BUSY_S if any(one.busy for one in self._looking()) else PAUSE_IDLE_S)

    def discard(self) -> None:
        """End every command under way: the process ends."""
        for one in self._looking():
            one.discard()

    def _looking(self) -> Iterable[ServicePolls | ScheduleProbe | ClusterWatch | MetadataWatch]:
        return [*self.services.values(), *(one for one in (self._probe, self._cluster, self._metadata) if one is not None)]

    def _tell_again(self) -> None:
        """Where that was asked for: what is told only when it changes is told once more, as it is seen next."""
        asked = self._folder / TELL_AGAIN
        try:
            if asked.exists():
                for one in self._looking():
                    one.tell_again()
                asked.unlink()
        except OSError:
            pass  # it is still there, and looked at the next time

    # -- tickets and journal

    def _look(self) -> None:
        live, ends = self._ground.live(), self._ground.ends()
        if self._first:
            ends = list(_last_of_each_service(ends))
        for end in ends:
            self._apply(end)
        self._first = False
        self._stop_haste(live)

    def _apply(self, end: End) -> None:
        service = self.services.get(end.service)
        if service is None:
            return
        if end.kind == "stop":
            if not self._first or service.ticket is not None:
                service.stopped()
        elif end.state == "ok" and service.ticket != end.ticket:
            service.started(end.ticket)
        elif end.state == "ok":
            service.phase = "steady" if service.verified else "starting"

    def _stop_haste(self, live: frozenset[str]) -> None:
        for service in self.services.values():
            mine = {ticket for ticket in live if ticket == service.ticket or (service.phase == "stopping" and ticket.endswith("-stop"))}
            self._without_ticket[service.name] = 0 if mine else self._without_ticket[service.name] + 1
            if service.phase != "steady" and self._without_ticket[service.name] >= LOOKS_BEFORE_GONE:
                service.ticket_over()

    # -- Redis

    def counters(self) -> dict[str, Any]:
        """The liveness key's value: cumulative since this node's folder was made."""
        return {
            name: {"polls": one.polls, "errors": one.errors, "last_success_wall": one.last_success_wall}
            for name, one in self.services.items()
        }

    def _talk_with_redis(self, now: float) -> maintenance.Answer | None:
        """Give the sign of life and hear about maintenance, in one round trip."""
        self._alive_at = now + min(self._ttl_s / 4, ALIVE_EVERY_S)
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._alive_key, json.dumps({"services": self.counters()}), px=int(self._ttl_s * 1000))
                pipe.get(self._maintenance_key)
                _, said = pipe.execute(raise_on_error=False)
        except redis.RedisError:
            self._alive_at = now + REDIS_PAUSE_S  # said by the forwarder, once per outage
            return None
        return _answer(said)


def _answer(said: object) -> maintenance.Answer | None:
    """The maintenance key's value; None for an error, or for something that is no such value: then nobody knows."""
    if said is None:
        return maintenance.Answer(None)
    try:
        reason = json.loads(said)["reason"] if isinstance(said, bytes) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return maintenance.Answer(reason) if reason in maintenance.REASONS else None


def _last_of_each_service(ends: list[End]) -> Iterable[End]:
    return {end.service: end for end in ends}.values()


# -- windows


def queue(client: Redis, cluster: str, node: str) -> Queue:
    """The node's watch queue."""
    return Queue(wire.watch_queue(cluster, node), connection=client, serializer="json")


def enqueue_window(into: Queue, cluster: str, node: str, sign: Sign | None = None) -> None:
    """Put one watch job into the queue, signed by `sign`.

    Raises:
        redis.RedisError: it is not known whether it is there.
    """
    job_id = f"{wire.prefix(cluster, node)}-window-{uuid.uuid4().hex[:16]}"
    payload = WatchWindow().model_dump()
    into.enqueue(
        wire.JOB_FUNCTION,
        payload if sign is None else sign(payload, job_id),
        job_id=job_id,
        job_timeout=-1,
        result_ttl=0,
        failure_ttl=3600,
    )


def run_window(watch: Watch, enqueue_successor: Callable[[], None], stopping: Callable[[], bool], window_s: float = WINDOW_S) -> None:
    """Look at everything for a window; the last act is to enqueue the next one.

    While Redis does not take the successor the window goes on. Told to stop, it ends at once, without one.
    """
    end = time.monotonic() + window_s
    while not stopping():
        watch.step()
        if time.monotonic() >= end:
            try:
                enqueue_successor()
            except redis.RedisError:
                end = time.monotonic() + REDIS_PAUSE_S
            else:
                return
        watch.pause()
