"""What happened in the sandbox, read from its own records: the evidence that checker.py judges.

Nothing here asks dcsup anything. The stand-ins' records (standins/) say what DataCoordinator, CLUSTERPRO and the clients saw,
`outbox.jsonl` what a witness saw of the nodes' outboxes (witness.py), `soak.jsonl` which faults were injected and what operators did, and
the log is the exported file, read as the JSON that it is. All times are seconds since the epoch, of one clock, for all is one machine.

    folder/events.ndjson            the exported log
    folder/results.json             what `replay --state` and `replay --verify` came to
    folder/site/sandbox/records/    the stand-ins' records, `outbox.jsonl`, `soak.jsonl`, `runs.jsonl`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.sandbox.evidence import Verb
from deploy.sandbox.standins import records

Record = dict[str, Any]
FOREVER = float("inf")
NAMES = ("verbs", "cluster", "daemons", "driver", "clients", "status", "network", "outbox", "soak", "runs")


@dataclass(frozen=True)
class Fault:
    """One injected fault, from when it was set until it was healed (for a kill: until what was killed ran again).

    Attributes:
        on: what it hit: a node, an orchestrator, a way to Redis (named after whose it is), or `redis`.
        harmless: nobody's service may be interrupted by it: whatever dcsup is made of may fail.
    """

    number: int
    kind: str
    on: str
    begin: float
    end: float
    harmless: bool

    def touches(self, begin: float, end: float) -> bool:
        """Whether it was there at any moment of that time."""
        return self.begin <= end and self.end >= begin


@dataclass(frozen=True)
class Run:
    """One run of a script by the cluster manager. `killed`: somebody ended it, so it closed nothing."""

    node: str
    script: str
    begin: float
    end: float
    code: int | None
    killed: bool
    event: str


@dataclass(frozen=True)
class Outage:
    """From the first write that failed to the next that did not.

    Attributes:
        cut_off_s: how long of it nobody even answered; the rest a service said that it was not ready yet.
    """

    begin: float
    end: float
    failed: int
    cut_off_s: float


@dataclass
class Story:
    """The records by name, and the log."""

    records: Mapping[str, list[Record]]
    log: list[Record]
    lines: list[bytes]
    results: Record = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Story:
        """The story kept in a soak's folder."""
        place = folder / "site" / "sandbox" / "records"
        lines = _lines(folder / "events.ndjson")
        results = folder / "results.json"
        return cls(
            {name: records.read(str(place / f"{name}.jsonl")) for name in NAMES},
            [json.loads(line) for line in lines],
            lines,
            json.loads(results.read_text(encoding="utf-8")) if results.exists() else {},
        )

    def of(self, name: str, what: str, **fields: Any) -> list[Record]:
        """Records of one kind with these fields."""
        return [r for r in self.records[name] if r["what"] == what and all(r.get(key) == value for key, value in fields.items())]

    def entries(self, kind: str) -> list[Record]:
        """Entries of the log of one type."""
        return [entry for entry in self.log if entry["type"] == kind]

    @cached_property
    def nodes(self) -> set[str]:
        return {record["node"] for record in self.of("driver", "node started")}

    # --- DataCoordinator

    @cached_property
    def verbs(self) -> list[Verb]:
        """Every verb, in order of their begin."""
        calls: dict[tuple[int, float], Record] = {}
        for record in self.records["verbs"]:
            key = (record["pid"], record["begin"])
            calls.setdefault(key, {"end": None, "code": None}).update(
                {name: record[name] for name in ("node", "component", "verb", "begin", "chain", "end", "code") if name in record}
            )
        return sorted(
            (
                Verb(v["node"], v["component"], v["verb"], v["begin"], v["end"], v["code"], tuple(p["cmdline"] for p in v["chain"]))
                for v in calls.values()
                if "chain" in v
            ),
            key=lambda verb: verb.begin,
        )

    @cached_property
    def healthy(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        """(Node, component) -> when its daemon was healthy: from the moment that it said so until it ended, or was killed."""
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for record in self.of("daemons", "healthy"):
            end = min(self._ends_of(record), default=FOREVER)
            found.setdefault((record["node"], record["component"]), []).append((record["time"], end))
        return found

    def _ends_of(self, healthy: Record) -> Iterator[float]:
        after, node, pid = healthy["time"], healthy["node"], healthy["pid"]
        yield from (r["time"] for r in self.of("daemons", "ended", pid=pid) if r["time"] >= after)
        yield from (r["time"] for r in self.of("driver", "daemon killed", pid=pid) if r["time"] >= after)
        yield self._death(node, after)

    def _death(self, node: str, after: float) -> float:
        """When a node's power was cut next. Cutting takes its time on a busy machine, and what it does meanwhile it still does."""
        dead = (r["time"] for what in ("node killed", "node is dead") for r in self.of("driver", what, node=node) if r["time"] >= after)
        return min(dead, default=FOREVER)

    def was_healthy(self, node: str, component: str, begin: float, end: float) -> bool:
        """Whether the daemon was healthy at any moment of that time."""
        return any(first <= end and last >= begin for first, last in self.healthy.get((node, component), []))

    @cached_property
    def outages(self) -> list[Outage]:
        """What clients saw."""
        return list(_outages(self.records["clients"]))

    # --- CLUSTERPRO

    @cached_property
    def runs(self) -> list[Run]:
        """Every run of start.sh and stop.sh."""
        return sorted((self._run(r) for r in self.of("cluster", "script-begin")), key=lambda run: run.begin)

    def _run(self, begin: Record) -> Run:
        node, script, since = begin["node"], begin["script"], begin["time"]
        ended = next((r for r in self.of("cluster", "script-end", node=node, script=script) if r["time"] >= since), None)
        died = self._death(node, since)
        event = begin["environment"].get("CLP_EVENT", "")
        if ended is None or died < ended["time"]:
            return Run(node, script, since, died, None, True, event)
        killed = ended["code"] is None or ended["code"] < 0
        return Run(node, script, since, ended["time"], ended["code"], killed, event)

    @cached_property
    def changes(self) -> list[tuple[float, float]]:
        """When the group was on its way: from the first begin of a stop or start to the end of the next start that was good."""
        found: list[tuple[float, float]] = []
        open_since: float | None = None
        for record in self.records["cluster"]:
            if record["what"] in ("group-deactivation-begin", "group-activation-begin", "group-takeover", "double-activation"):
                open_since = record["time"] if open_since is None else open_since
            elif record["what"] == "group-activation-end" and record["ok"] and open_since is not None:
                found.append((open_since, record["time"]))
                open_since = None
        return [*found, (open_since, FOREVER)] if open_since is not None else found

    # --- who did it

    @cached_property
    def faults(self) -> list[Fault]:
        """Every injected fault."""
        healed = {r["number"]: r["time"] for r in self.of("soak", "healed")}
        return [
            Fault(r["number"], r["kind"], r["on"], r["time"], healed.get(r["number"], FOREVER), r["harmless"])
            for r in self.of("soak", "fault")
        ]

    def fault_between(self, begin: float, end: float, on: Iterable[str] | None = None, *, harmful: bool = False) -> bool:
        """Whether an injected fault was there at any moment of that time; `on`: only on one of these."""
        wanted = None if on is None else set(on)
        return any(f.touches(begin, end) and (wanted is None or f.on in wanted) and not (harmful and f.harmless) for f in self.faults)

    def operated(self, act: str, begin: float, end: float) -> bool:
        """Whether an operator did something between these moments."""
        return any(begin <= r["time"] <= end for r in self.of("soak", "operator", act=act))


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def _outages(rows: list[Record]) -> Iterator[Outage]:
    failed: list[Record] = []
    for row in rows:
        if not row["ok"]:
            failed.append(row)
        elif failed:
            yield _outage(failed, row["time"])
            failed = []
    if failed:
        yield _outage(failed, FOREVER)


def _outage(failed: list[Record], end: float) -> Outage:
    times = [*(row["time"] for row in failed), end]
    spans = [after - row["time"] for row, after in zip(failed, times[1:], strict=True) if not row["error"].startswith("ERROR")]
    return Outage(failed[0]["time"], end, len(failed), sum(spans))
