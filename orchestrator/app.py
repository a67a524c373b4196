"""The orchestrator's composition root: everything that is built, once, and how it ends.

What a part needs is handed to it here (store, core, projection, web server), so that tests can build the same things differently.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import structlog
from prometheus_client.registry import CollectorRegistry
from redis import Redis

from orchestrator import http, metrics
from orchestrator.embedded import EmbeddedRedis, EmbeddedRedisError
from orchestrator.keys import cluster_keys
from orchestrator.lease import Lease, new_identity
from orchestrator.loop import Orchestrator
from orchestrator.ports import Store
from orchestrator.redis_store import RedisStore
from statemachines.configuration import Configuration, RedisSettings
from statemachines.states import new_state

log = structlog.get_logger()

Serve = Callable[[str, CollectorRegistry, Callable[[], dict[str, Any]], http.Access], tuple[str, Callable[[], None]]]
"""(listen, metrics, status, access) -> the address, and what ends it: `orchestrator.http.serve`."""


Connect = Callable[[RedisSettings, float], Redis]
"""(settings, bound of each answer, s) -> a client: `workers.redisclient.client_of`, handed in for this package may not know the other."""


def run(
    configuration: Configuration,
    *,
    connect: Connect,
    serve: Serve = http.serve,
    identity: str | None = None,
    when_up: Callable[[], None] = lambda: None,
) -> int:
    """Lead the configured clusters until SIGTERM or SIGINT, then hand over at once.

    A Redis that does not answer is waited for, and that is said; only an embedded one that cannot be started is an error. `when_up` is
    called once all is built and before anything is led.

    Returns:
        0: ended in good order.

    Raises:
        EmbeddedRedisError: the embedded Redis does not start.
        CannotListen: the address to listen on cannot be used.
        SecretError: a key, token or certificate is not where the configuration says.
        ValueError: what [redis] names cannot be used (`connect`).
    """
    with ExitStack() as stack:
        orchestrator = _built(configuration, connect, serve, identity if identity is not None else new_identity(), stack)
        when_up()
        with _until_told(orchestrator):
            orchestrator.run()
        log.info("orchestrator down", orchestrator=orchestrator.lease.identity)
    return 0


def build(configuration: Configuration, store: Store, lease: Lease, server: EmbeddedRedis | None = None) -> Orchestrator:
    """An orchestrator for the configured clusters, with metrics as its projection; a `server` that is gone is started again."""
    return Orchestrator(
        store,
        configuration.clusters,
        lease,
        make_projection=metrics.Projection,
        snapshot_every=configuration.orchestrator.snapshot_every,
        revive=partial(_revive, server),
    )


def _revive(server: EmbeddedRedis | None) -> None:
    """Nobody else looks after an embedded Redis that was killed. What keeps it down is in the log, and it is tried again."""
    try:
        if server is not None and server.revive():
            log.warning("the embedded Redis was gone; started it again", folder=str(server.folder))
    except EmbeddedRedisError as error:
        log.error("the embedded Redis is gone and cannot be started", reason=str(error))


def live(orchestrator: Orchestrator, clusters: Iterable[str]) -> dict[str, metrics.Live]:
    """What the metrics show of each cluster; of one that somebody else leads, only that."""
    found = {cluster: metrics.Live(new_state(cluster), metrics.Projection(cluster), False, 0.0) for cluster in clusters}
    for cluster, view in orchestrator.views().items():
        projection = view.projection
        assert isinstance(projection, metrics.Projection)
        alive: dict[str, Any] = {node: values["alive"] for node, values in view.nodes.items()}
        watch: dict[str, Any] = {node: values["watch"] for node, values in view.nodes.items()}
        found[cluster] = metrics.Live(view.state, projection, True, view.now_ms, view.inbox_lag_s, alive, watch)
    return found


def _built(configuration: Configuration, connect: Connect, serve: Serve, identity: str, stack: ExitStack) -> Orchestrator:
    server = stack.enter_context(_embedded(configuration.redis))
    store = RedisStore(partial(connect, configuration.redis), keys=_keys(configuration))
    stack.callback(store.close)
    lease = Lease(identity, configuration.orchestrator.lease_ttl, "{}")
    orchestrator = build(configuration, store, lease, server)
    registry = metrics.registry_of(lambda: live(orchestrator, configuration.clusters), orchestrator.lock)
    url, close = serve(configuration.orchestrator.listen, registry, orchestrator.states, http.access_of(configuration.orchestrator))
    stack.callback(close)
    url = configuration.orchestrator.url or url
    lease.where = json.dumps({"url": url, "pid": os.getpid()})
    log.info("orchestrator up", orchestrator=identity, clusters=sorted(configuration.clusters), url=url)
    gc.collect()
    gc.freeze()  # what was imported stays for good; looking through it again and again is what makes the slowest commits slow
    return orchestrator


def _keys(configuration: Configuration) -> dict[str, str]:
    """Cluster -> the key that signs its jobs; says which clusters have none."""
    keys = cluster_keys(configuration)
    for cluster in sorted(configuration.clusters.keys() - keys.keys()):
        log.warning("jobs are not signed: who may write to a queue makes its node act; run `dcsup render redis`", cluster=cluster)
    return keys


@contextmanager
def _embedded(settings: RedisSettings) -> Iterator[EmbeddedRedis | None]:
    """An embedded Redis runs for as long as this (one that others started stays)."""
    if settings.embedded is None:
        yield None
        return
    server = EmbeddedRedis(settings.embedded)
    server.connect_or_start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _until_told(orchestrator: Orchestrator) -> Iterator[None]:
    """SIGTERM and SIGINT end the loop in good order. (Only a main thread may say so; in others somebody calls `stop`.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: orchestrator.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
