"""What the tests of Redis and the orchestrators share: orchestrators as processes, stores that can be held anywhere, and what must be true
in the end, whatever happened."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
import structlog

from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.entries import id_key
from tests.conftest import wait_until
from tests.orchestrator.engine import C, Site
from workers import outbox
from workers.forwarder import Forwarder

BOOT = "boot1"
ROOT = Path(__file__).parents[2]


class Processes:
    """Orchestrators in processes of their own, on one configuration; whatever is left at the end is killed."""

    def __init__(
        self, folder: Path, redis_table: str, clusters: Sequence[str] = (C,), *, module: str = "tests.orchestrator.leader_process"
    ):
        self._folder, self._redis, self._clusters, self._module = folder, redis_table, clusters, module
        self.started: dict[str, psutil.Popen] = {}

    def start(self, identity: str, **orchestrator: object) -> psutil.Popen:
        """`orchestrator`: more keys of that table."""
        lines = [
            f"[redis]\n{self._redis}\n[orchestrator]\nlisten = '127.0.0.1:0'",
            *(f"{key} = {value}" for key, value in orchestrator.items()),
        ]
        for cluster in self._clusters:
            lines.append(f'[clusters.{cluster}]\ngroup = "g"\nmode = "supervise"\nnodes = ["n1", "n2"]')
            lines.append('services = [{ name = "srv", kind = "server" }]')
        file = self._folder / f"{identity}.toml"
        file.write_text("\n".join(lines) + "\n")
        with (self._folder / f"{identity}.log").open("ab") as log:
            command = [sys.executable, "-m", self._module, str(file), identity]
            self.started[identity] = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)
        return self.started[identity]

    def said(self, identity: str) -> str:
        """What it logged, and what Python itself said."""
        return (self._folder / f"{identity}.log").read_text(errors="replace")

    def end(self) -> None:
        for process in self.started.values():
            if process.is_running():
                process.kill()
            process.wait()


def owner(site: Site, cluster: str = C) -> str | None:
    value = site.client.get(wire.owner(cluster))
    return value.decode() if value else None


def lead_by(site: Site, *identities: str, clusters: Sequence[str] = (C,)) -> None:
    """Each of the clusters is led by one of these, whose lease runs."""

    def led(cluster: str) -> bool:
        name = owner(site, cluster)
        return name in identities and bool(site.client.get(wire.lease(name)))

    wait_until(lambda: all(map(led, clusters)), f"{identities} lead", 60)


def there(site: Site, *identities: str) -> None:
    """Each of these has shown its lease. (On a busy machine leases run out now and then, so not all at one moment.)"""
    for identity in identities:
        wait_until(lambda i=identity: site.client.get(wire.lease(i)), f"{identity} is there", 60)  # type: ignore[misc]


def durable(site: Site, seq: int, node: str = "n1") -> None:
    """The node's facts up to this number are in the log."""
    wait_until(lambda: site.mark(node)["streams"].get("s", 0) >= seq, f"fact {seq} is durable", 60)


def contents(client: Any, leave_out: Sequence[str] = ()) -> dict[bytes, bytes]:
    """Every key and what it holds."""
    left_out = [name.encode() for name in leave_out]
    return {key: client.dump(key) for key in client.scan_iter(count=1000) if key not in left_out}


def sound(site: Site, upto: int, node: str = "n1", cluster: str = C) -> None:
    """The log's chain holds, the node's facts 1..upto are in it once and in order, it can be folded, no epoch was issued twice, and nobody
    who was there all the time was called lost."""
    entries = site.log(cluster)
    applied = [str(e.source_id) for e in entries if e.source_id and e.evidence and e.evidence["inbox"] == node]
    assert applied == [f"s:{seq}" for seq in range(1, upto + 1)]
    assert site.folded(cluster).last_id == entries[-1].id
    epochs = [entry.data["epoch"] for entry in entries if entry.type == "LeadTaken"]
    assert epochs == sorted(set(epochs)), "an epoch was issued twice"
    nobody_lost(site, cluster)


def nobody_lost(site: Site, cluster: str = C, after: str = "0-0") -> None:
    """No node and no watch was called lost in the entries behind `after`."""
    begin = id_key(after)
    found = [entry for entry in site.log(cluster) if entry.type in ("NodeLost", "WatchLost") and id_key(entry.id) > begin]
    assert not found, f"called lost: {found}"


class Held(RedisStore):
    """A store that stands still at a chosen call, as its process would under SIGSTOP: before the call, or after it is answered."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._where = ("", "")
        self.held, self._go = threading.Event(), threading.Event()

    def hold(self, call: str, when: str = "before") -> None:
        """The next such call stands still; `held` is set then."""
        self.held.clear()
        self._go.clear()
        self._where = (call, when)

    def go_on(self) -> None:
        self._where = ("", "")
        self._go.set()

    def _pass(self, call: str, when: str) -> None:
        if self._where == (call, when):
            self._where = ("", "")
            self.held.set()
            assert self._go.wait(120)

    def _call(self, name: str, *arguments: Any) -> Any:
        self._pass(name, "before")
        answer = getattr(super(), name)(*arguments)
        self._pass(name, "after")
        return answer

    def commit(self, *arguments: Any) -> Any:
        return self._call("commit", *arguments)

    def append_leader_facts(self, *arguments: Any) -> Any:
        return self._call("append_leader_facts", *arguments)

    def put_maintenance(self, *arguments: Any) -> Any:
        return self._call("put_maintenance", *arguments)

    def put_snapshot(self, *arguments: Any) -> Any:
        return self._call("put_snapshot", *arguments)

    def trim_inboxes(self, *arguments: Any) -> Any:
        return self._call("trim_inboxes", *arguments)

    def renew_lease(self, *arguments: Any) -> Any:
        return self._call("renew_lease", *arguments)

    def release(self, *arguments: Any) -> Any:
        return self._call("release", *arguments)

    def leaders(self, *arguments: Any) -> Any:
        return self._call("leaders", *arguments)

    def wait_for_facts(self, *arguments: Any) -> Any:
        return self._call("wait_for_facts", *arguments)


class Outbox:
    """A node's real outbox and forwarder, running beside the test: facts on its disk go to Redis, again and again until they are in the
    log."""

    def __init__(self, folder: Path, client: redis.Redis, node: str = "n1", cluster: str = C) -> None:
        self.written: list[str] = []
        """What was written to the node's disk, in order: the reasons of `ProbeFailed` facts."""
        self.folder = folder
        self._cluster = cluster
        self._forwarder = Forwarder(folder, cluster, node, BOOT, client, structlog.get_logger())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            reason = f"r{len(self.written) + 1}"
            outbox.write_fact(self.folder, "ProbeFailed", "worker", {"service": "srv", "reason": reason}, BOOT)
            self.written.append(reason)

    def report(self, kind: str, data: dict[str, Any]) -> None:
        outbox.write_fact(self.folder, kind, "worker", data, BOOT)

    @property
    def seen_head(self) -> dict[str, Any] | None:
        return self._forwarder.head

    def _run(self) -> None:
        while not self._done.is_set():
            self._forwarder.step()
            time.sleep(self._forwarder.pause_s)

    def __enter__(self) -> Outbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def in_log(self, site: Site) -> list[str]:
        """The reasons that stand in the log, in order."""
        return [str(e.data["reason"]) for e in site.log(self._cluster) if e.type == "ProbeFailed"]

    def all_in_log(self, site: Site) -> None:
        """Each fact that was written is in the log once, in order; only what disk and log both had let go may be missing, and that is
        counted there (I5)."""

        def settled() -> bool:
            found = self.in_log(site)
            lost = sum(e.data["count"] for e in site.log(self._cluster) if e.type == "FactsLost")
            return found[-1:] == self.written[-1:] and len(found) + lost >= len(self.written)

        wait_until(settled, "every fact is in the log", 60)
        found = self.in_log(site)
        assert found == [reason for reason in self.written if reason in set(found)], "doubled, or out of order"


@contextmanager
def keeping_alive(url: str, *nodes: str, cluster: str = C, ttl_s: float = 5.0) -> Iterator[None]:
    """Workers that live, as far as their signs of life go: renewed four times within their time, again and again whatever Redis does."""
    done = threading.Event()

    def body() -> None:
        client = redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)
        number = 0
        while not done.wait(ttl_s / 4):
            number += 1
            for node in nodes:
                try:
                    client.set(wire.alive(cluster, node), f'{{"wall":{number}}}', px=int(ttl_s * 1000))
                    client.set(wire.watch_alive(cluster, node), f'{{"polls":{number}}}', px=int(ttl_s * 1000))
                except (redis.RedisError, OSError):
                    break
        client.close()

    with redis.Redis.from_url(url) as client:
        for node in nodes:
            client.set(wire.alive(cluster, node), '{"wall":0}', px=int(ttl_s * 1000))
            client.set(wire.watch_alive(cluster, node), '{"polls":0}', px=int(ttl_s * 1000))
    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)
