"""What the engine's tests have in common: a small cluster, facts for it, and orchestrators that run beside the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from rq import Queue

from orchestrator import metrics
from orchestrator.lease import Lease
from orchestrator.loop import Orchestrator
from orchestrator.ports import Core, Store
from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.cluster import Arrival, StepResult, step
from statemachines.configuration import ClusterSettings
from statemachines.entries import GENESIS_HASH, Entry, unseal
from statemachines.facts import Envelope, ProbeFailed
from statemachines.folding import fold
from statemachines.states import ClusterState, new_state

C = "c"
LEASE_S = 1.0


def settings(**changes: Any) -> ClusterSettings:
    given: dict[str, Any] = {
        "group": "g", "nodes": ["n1", "n2"], "services": [{"name": "srv", "kind": "server"}], "mode": "supervise",
    }  # fmt: skip
    return ClusterSettings.model_validate(given | changes)


def envelope(seq: int, kind: str = "ProbeFailed", data: dict[str, Any] | None = None, *, stream: str = "s", **more: Any) -> str:
    """A fact as a forwarder hands it in; by default one that decides nothing."""
    body = data if data is not None else {"service": "srv", "reason": f"r{seq}"}
    return Envelope(type=kind, source="worker", stream=stream, seq=seq, data=body, **more).model_dump_json()


def joined(seq: int = 1, **more: Any) -> str:
    return envelope(seq, "NodeJoined", {"boot": "b1", "version": "1"}, **more)


def start_called(seq: int, ticket: str = "b1-g-1-start", **more: Any) -> str:
    """A start call: its first command becomes a job."""
    data = {"ticket": ticket, "event": "START", "commands": [{"n": 1, "service": "srv", "verb": "recover"}]}
    return envelope(seq, "StartHookCalled", data, **more)


def raising_step(state: ClusterState, arrival: Arrival) -> StepResult:
    """The real step, with a mistake in it."""
    if isinstance(arrival.fact, ProbeFailed) and arrival.fact.reason == "boom":
        raise RuntimeError("a bug")
    return step(state, arrival)


BUGGY = replace(Core(), step=raising_step)


class Site:
    """A cluster in a real Redis, as the test sees it from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = redis.Redis.from_url(url)

    def deliver(self, node: str, *raw: str, bell: bool = True, cluster: str = C) -> None:
        with self.client.pipeline() as pipeline:
            for one in raw:
                pipeline.xadd(wire.inbox(cluster, node), {wire.FACT_FIELD: one})
            if bell:
                pipeline.publish(wire.bell(cluster), node)
            pipeline.execute()

    def log(self, cluster: str = C) -> list[Entry]:
        """The log's entries, each checked against the chain."""
        last, entries = GENESIS_HASH, []
        for _, fields in self.client.xrange(wire.log(cluster)):
            sealed = unseal(fields[b"e"], fields[b"h"].decode(), last)
            last = sealed.hash
            entries.append(sealed.entry)
        return entries

    def folded(self, cluster: str = C) -> ClusterState:
        last, state = GENESIS_HASH, new_state(cluster)
        for _, fields in self.client.xrange(wire.log(cluster)):
            sealed = unseal(fields[b"e"], fields[b"h"].decode(), last)
            last = sealed.hash
            fold(state, sealed)
        return state

    def types(self, cluster: str = C) -> list[str]:
        return [entry.type for entry in self.log(cluster)]

    def count(self, kind: str) -> int:
        return self.types().count(kind)

    def applied_numbered(self, node: str = "n1") -> list[str]:
        """As `applied`, without what could not even be numbered."""
        return [name for name in self.applied(node) if name != "None"]

    def applied(self, node: str = "n1") -> list[str]:
        """`stream:seq` of the node's facts in the log, in order."""
        return [str(e.source_id) for e in self.log() if e.evidence is not None and e.evidence["inbox"] == node]

    def jobs(self, node: str = "n1") -> list[str]:
        ids: list[str] = Queue(wire.command_queue(C, node), connection=self.client, serializer="json").job_ids
        return ids

    def head(self, cluster: str = C) -> dict[str, Any]:
        text = self.client.get(wire.head(cluster))
        return json.loads(text) if text else {"epoch": 0, "commit": 0}

    def mark(self, node: str = "n1") -> dict[str, Any]:
        text = self.client.get(wire.mark(C, node))
        return json.loads(text) if text else {"streams": {}}

    def owner(self) -> str | None:
        value = self.client.get(wire.owner(C))
        return value.decode() if value else None

    def close(self) -> None:
        self.client.close()


def orchestrator_on(
    store: Store,
    identity: str = "me",
    *,
    clusters: dict[str, ClusterSettings] | None = None,
    core: Core | None = None,
    snapshot_every: int = 500,
) -> Orchestrator:
    return Orchestrator(
        store,
        clusters if clusters is not None else {C: settings()},
        Lease(identity, LEASE_S, "{}"),
        core=core,
        make_projection=metrics.Projection,
        snapshot_every=snapshot_every,
    )


@contextmanager
def running(orchestrator: Orchestrator) -> Iterator[Orchestrator]:
    """Its loop runs in a thread of its own; an error there is an error of the test."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            orchestrator.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield orchestrator
    finally:
        orchestrator.stop()
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@contextmanager
def leading(url: str, identity: str = "me", **options: Any) -> Iterator[Orchestrator]:
    """An orchestrator on a real Redis, running."""
    store = RedisStore(url, timeout_s=2.0)
    try:
        with running(orchestrator_on(store, identity, **options)) as orchestrator:
            yield orchestrator
    finally:
        store.close()


def turn_until(orchestrator: Orchestrator, condition: Callable[[], Any], limit: int = 1_000_000) -> Any:
    """Turns of the loop, in this thread, until the condition holds (for the store in memory, which never waits)."""
    for _ in range(limit):
        if found := condition():
            return found
        orchestrator.turn()
    raise AssertionError("the loop never came to it")
