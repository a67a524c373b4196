"""`make bench`: what dcsup adds, measured beside what it is compared with, in the same run.

1. From `hook start` called to verified, less what the stand-ins themselves needed, at four start times; beside it the guide's sample
   algorithm (wait 10 s or 20 s, then poll) on a cluster of its own. With the defaults, and with the `fast` profile.
2. From a fact in the inbox to its job starting on the worker, beside bare RQ from enqueue to start, alternating, five runs.

A table on the screen, and `build/bench.json`: a list of name, value, unit, beside, ratio, goal, holds. This says how fast; whether
something is right is for the tests.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.sandbox.evidence import Round
from deploy.sandbox.site import CLUSTER, Pace, Site, interruptible
from deploy.sandbox.standins.cluster import SandboxCluster
from statemachines import wire

START_TIMES_S = (3.0, 7.0, 12.0, 22.0)
AGENT_START_S = 0.5
RUNS, SAMPLES = 5, 200


@dataclass(frozen=True)
class Result:
    name: str
    value: float
    unit: str
    beside: float | None
    ratio: float | None
    goal: str
    holds: bool


def pace(profile: str) -> Pace:
    """The product's own defaults for everything that is measured here."""
    return Pace(
        profile=profile,
        agent_start=AGENT_START_S,
        interval=10.0,
        node_ttl=5.0,
        armsleep_scale=1.0,
        probe_interval=60.0,
        settle=0.1,
        schedules_deadline=1.0,
        extra_watch={},
        first_check_after=1.0,
        startup_interval=None,
        verify_confirm=2,
    )


# --- 1. a start


def supervised(site: Site) -> tuple[list[float], float]:
    """Seconds added to each start, per service; and the median cost of a dcstatus."""
    added: list[float] = []
    for seconds in START_TIMES_S:
        site.cluster.clpgrp("-t", site.cluster.group)
        site.cluster.set_start_seconds("server", seconds)
        begin = time.time()
        site.cluster.clpgrp("-s", site.cluster.group)
        state = site.wait_state("it runs", lambda s: all(x["state"] == "running" for x in s["services"].values()), 90)
        seen = Round(site.cluster, begin, time.time())
        called = state["tickets"][state["start_ticket"]]["called_ms"] / 1000
        verified = max(x["verified_ms"] for x in state["services"].values()) / 1000
        added.append((verified - called - _own(seen)) / 2)
    return added, statistics.median(_cost_of_status(site.cluster) for _ in range(20))


def _cost_of_status(cluster: SandboxCluster) -> float:
    begin = time.perf_counter()
    cluster.run("node1", "server/bin/dcstatus")
    return time.perf_counter() - begin


def _own(seen: Round) -> float:
    """What the stand-ins themselves took: from each verb's begin to its daemon's being healthy."""
    begun = {verb.component: verb.begin for verb in seen.verbs if verb.verb in ("start", "recover")}
    healthy = {r["component"]: r["time"] for r in seen.daemons if r["what"] == "healthy"}
    return sum(float(healthy[component]) - begun[component] for component in ("agent", "server"))


def guided(cluster: SandboxCluster) -> list[float]:
    """The same by the guide's own scripts, in real time."""
    added: list[float] = []
    for seconds in START_TIMES_S:
        cluster.clpgrp("-t", cluster.group)
        cluster.set_start_seconds("server", seconds)
        begin = time.time()
        cluster.clpgrp("-s", cluster.group)
        seen = Round(cluster, begin, time.time())
        called, ended = seen.script("start")[-1]["time"], seen.script("start", "script-end")[-1]["time"]
        added.append((ended - called - _own(seen)) / 2)
    return added


def starts(folder: Path) -> list[Result]:
    """The three side by side: all of them mostly sleep. They are closed here, whatever happens in their threads."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(3))  # ends last: without their sites the threads end at once
        sites = [
            stack.enter_context(Site(folder / name, pace(profile), orchestrators=("a",), nodes=("node1",)))
            for name, profile in (("defaults", "normal"), ("fast", "fast"))
        ]
        cluster = SandboxCluster(folder / "guide", ("node1",), armsleep_scale=1.0, start_seconds={"agent": AGENT_START_S})
        stack.enter_context(cluster)
        cluster.start_node("node1")
        for site in sites:
            site.bring_up()
        cluster.wait_group("Online", "node1", 120)
        guide, *ours = [pool.submit(guided, cluster), *(pool.submit(supervised, site) for site in sites)]
        return _beside(guide.result(), [each.result() for each in ours])


def _beside(guide: list[float], ours: list[tuple[list[float], float]]) -> list[Result]:
    results = []
    for profile, goal, (added, cost) in zip(("defaults", "fast"), (2.5, 0.5), ours, strict=True):
        for seconds, value, beside in zip(START_TIMES_S, added, guide, strict=True):
            name = f"start of {seconds:g} s, {profile}: added per service"
            results.append(Result(name, round(value, 3), "s", round(beside, 3), _ratio(value, beside), f"<= {goal} s", value <= goal))
        results.append(Result(f"cost of one dcstatus, {profile}", round(cost, 4), "s", None, None, "shown", True))
    return results


# --- 2. dispatch


def dispatch(folder: Path) -> list[Result]:
    medians: list[tuple[float, float]] = []
    tails: list[tuple[float, float]] = []
    with Site(folder, Pace(), orchestrators=("a",), nodes=("node1",)) as site:
        site.redis.start()
        site.write_configuration("supervise")
        site.start_orchestrator("a")
        site.wait_state("somebody leads", lambda s: s["settings"] is not None)
        (site.cluster.node_dir("node1") / "boot-id").write_text("bench\n", encoding="ascii")  # the node itself is not needed
        worker = _rq_worker(
            ["-m", "workers.rqworker", "--role", "cmd", "--config", str(site.config("node1")), "--parent", str(os.getpid())]
        )
        bare_worker = _rq_worker(["-c", BARE_WORKER, site.redis.url])
        try:
            producer = Producer(site)
            for _ in range(RUNS):
                pairs = [(producer.ours(), producer.bare()) for _ in range(SAMPLES)]
                ours, bare = sorted(p[0] for p in pairs), sorted(p[1] for p in pairs)
                medians.append((statistics.median(ours), statistics.median(bare)))
                tails.append((ours[int(0.99 * SAMPLES)], bare[int(0.99 * SAMPLES)]))
        finally:
            for child in (worker, bare_worker):
                child.kill()
                child.wait()
    return [_side_by_side("median", medians, 1.5), _side_by_side("p99", tails, 3.0)]


def _side_by_side(name: str, pairs: list[tuple[float, float]], goal: float) -> Result:
    """The run whose ratio is the median one."""
    ours, bare = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    ratio = ours / bare
    text = f"fact in the inbox to job started, beside bare RQ: {name} of {SAMPLES}, median of {RUNS} runs"
    return Result(text, round(1000 * ours, 3), "ms", round(1000 * bare, 3), round(ratio, 3), f"<= {goal} times", ratio <= goal)


BARE_WORKER = """
import sys
from redis import Redis
from rq import Queue, SimpleWorker
from rq.timeouts import TimerDeathPenalty
SimpleWorker.death_penalty_class = TimerDeathPenalty
connection = Redis.from_url(sys.argv[1])
queue = Queue("bare", connection=connection, serializer="json")
SimpleWorker([queue], connection=connection, serializer="json").work(logging_level="ERROR")
"""


def _rq_worker(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Producer:
    """Hands in facts as a node's forwarder does, and enqueues bare jobs; both are timed up to RQ's own `started_at`."""

    def __init__(self, site: Site) -> None:
        from rq import Queue

        self.client = site.client()
        self.bare_queue = Queue("bare", connection=self.client, serializer="json")
        self.ours_queue = Queue(wire.command_queue(CLUSTER, "node1"), connection=self.client, serializer="json")
        self.seq = 0
        self.last = "$"
        self._hand_in("NodeJoined", {"boot": "bench", "version": "0"})
        self.bare()
        self.ours()  # both are warm now

    def _hand_in(self, kind: str, data: dict[str, Any]) -> float:
        """When the fact arrived in the inbox, by Redis TIME asked for right before it in the same write; s since the epoch."""
        self.seq += 1
        envelope = {
            "type": kind,
            "source": "hook",
            "stream": "bench",
            "seq": self.seq,
            "at_ms": time.time() * 1000,
            "clock": "mono",
            "data": data,
        }
        pipe = self.client.pipeline(transaction=False)
        pipe.time()
        pipe.xadd(wire.inbox(CLUSTER, "node1"), {wire.FACT_FIELD: json.dumps(envelope)})
        pipe.publish(wire.bell(CLUSTER), "node1")
        seconds, micros = pipe.execute()[0]
        return float(seconds + micros / 1e6)

    def ours(self) -> float:
        ticket = f"bench-failover1-{self.seq}-start"
        commands = [{"n": 1, "service": "agent", "verb": "start"}, {"n": 2, "service": "server", "verb": "recover"}]
        begin = self._hand_in("StartHookCalled", {"ticket": ticket, "event": "START", "commands": commands})
        job_id = self._issued(ticket)
        return self._started(self.ours_queue, job_id) - begin

    def _issued(self, ticket: str) -> str:
        for _ in _patience():
            for _, fields in self.client.xrevrange(wire.log(CLUSTER), count=10):
                entry = json.loads(fields[wire.ENTRY_FIELD.encode()])
                if entry["type"] == "CommandIssued" and entry["data"]["ticket"] == ticket:
                    return str(entry["data"]["job_id"])
        raise TimeoutError(f"no command was issued for {ticket}")

    def bare(self) -> float:
        begin = time.time()
        job = self.bare_queue.enqueue("time.monotonic")
        return self._started(self.bare_queue, job.id) - begin

    def _started(self, queue: Any, job_id: str) -> float:
        """When RQ says that the job began; waits until it has ended, so that the worker is idle for the next one."""
        for _ in _patience():
            job = queue.fetch_job(job_id)
            if job is not None and job.ended_at is not None and job.started_at is not None:
                started: float = job.started_at.timestamp()
                return started
        raise TimeoutError(f"no worker ran {job_id}")


def _patience(limit_s: float = 20.0) -> Iterator[None]:
    """A look every 4 ms, for a while; the first not before what is measured is over, so that looking does not take part in it."""
    time.sleep(0.015)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        yield
        time.sleep(0.004)


# --- the table


def _ratio(value: float, beside: float) -> float | None:
    return round(value / beside, 3) if beside else None


def _show(results: list[Result]) -> None:
    table = Table(title="What dcsup adds")
    for column in ("what", "value", "beside", "ratio", "goal", "holds"):
        table.add_column(column, justify="left" if column in ("what", "goal") else "right")
    for r in results:
        beside = "-" if r.beside is None else f"{r.beside:g} {r.unit}"
        table.add_row(
            r.name, f"{r.value:g} {r.unit}", beside, "-" if r.ratio is None else f"{r.ratio:g}", r.goal, "yes" if r.holds else "NO"
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def main() -> int:
    sections: list[Callable[[Path], list[Result]]] = [dispatch, starts]
    results: list[Result] = []
    with interruptible(), TemporaryDirectory(prefix="dcsup-bench-") as folder:
        for section in sections:
            print(f"{section.__name__} ...", flush=True)
            results += section(Path(folder) / section.__name__)
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([asdict(r) for r in results], indent=1), encoding="utf-8")
    _show(results)
    print(f"written to {out}")
    return 0 if all(r.holds for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
