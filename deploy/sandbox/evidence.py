"""What the stand-ins themselves saw of a round: their own records and time stamps, read for comparison with what dcsup says.

Nothing here asks dcsup anything. A round is the time between two moments of the driver's clock, which is the stand-ins' clock too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.sandbox.standins.cluster import SandboxCluster

LAUNCHER, RQ_WORKER = "launcher.py", "workers.rqworker"


@dataclass(frozen=True)
class Verb:
    node: str
    component: str
    verb: str
    begin: float
    end: float | None
    code: int | None
    chain: tuple[str, ...]
    """Command lines of the parents, nearest first."""

    @property
    def by_rq_worker(self) -> bool:
        """Run by a launcher whose parent is an RQ worker, or which outlived it."""
        return any(LAUNCHER in line for line in self.chain[:1]) and (
            len(self.chain) < 3 or any(RQ_WORKER in line for line in self.chain[1:2])
        )

    @property
    def by_launcher(self) -> bool:
        return any(LAUNCHER in line for line in self.chain)

    def __str__(self) -> str:
        return f"{self.node}:{self.component} {self.verb}"


class Round:
    """The records of one round."""

    def __init__(self, cluster: SandboxCluster, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.verbs = [
            Verb(v["node"], v["component"], v["verb"], v["begin"], v["end"], v["code"], tuple(parent["cmdline"] for parent in v["chain"]))
            for v in cluster.verbs()
            if begin <= v["begin"] <= end and v["node"] in cluster.nodes
        ]
        self.cluster = [r for r in cluster.read_records("cluster") if begin <= r["time"] <= end]
        self.daemons = [r for r in cluster.read_records("daemons") if begin <= r["time"] <= end]
        self.driver = [r for r in cluster.read_records("driver") if begin <= r["time"] <= end]
        self.runs = [r for r in cluster.schedule_runs() if begin <= r["time"] <= end]
        self.clients = [r for r in cluster.read_records("clients") if begin <= r["time"] <= end]

    def of(self, *verbs: str) -> list[Verb]:
        return [v for v in self.verbs if v.verb in verbs]

    def names(self) -> list[str]:
        return [str(v) for v in self.verbs]

    def script(self, name: str, what: str = "script-begin", node: str | None = None) -> list[dict[str, Any]]:
        return [r for r in self.cluster if r["what"] == what and r["script"] == f"{name}.sh" and node in (None, r["node"])]

    def events(self) -> list[tuple[str, str, str]]:
        """Which script ran where, with which CLP_EVENT."""
        return [
            (r["node"], r["script"].removesuffix(".sh"), r["environment"].get("CLP_EVENT", ""))
            for r in self.cluster
            if r["what"] == "script-begin"
        ]

    def healthy(self, node: str) -> list[float]:
        return [r["time"] for r in self.daemons if r["what"] == "healthy" and r["node"] == node and r["component"] in ("agent", "server")]

    def done(self, what: str) -> float | None:
        """When the driver did something to the cluster (`node killed`, `daemon killed`)."""
        return next((r["time"] for r in self.driver if r["what"] == what), None)

    def boundaries(self, node_to: str, symptom: str) -> dict[str, float]:
        """The ends of the phases as the stand-ins saw them, s since the epoch; those that the round has.

        Args:
            node_to: where the group came up.
            symptom: what the driver did, or `stop-hook` for a move.
        """
        found: dict[str, float] = {}
        stops, starts = self.script("stop"), [r for r in self.script("start", node=node_to) if r["environment"]["CLP_EVENT"] != "RECOVER"]
        if stops:
            found["stop_called"] = stops[-1]["time"]
        if starts:
            found["start_called"] = starts[-1]["time"]
        done = self.done(symptom)
        if done is not None:
            found["symptom"] = done
        elif stops:
            found["symptom"] = stops[-1]["time"]
        if "start_called" in found:
            found["acted"] = found.get("stop_called", found["start_called"])
        stop_ends = [v.end for v in self.of("stop", "faststop") if v.end is not None]
        if stop_ends:
            found["stop_ended"] = max(stop_ends)
        ran = [v for v in self.of("start", "recover") if v.node == node_to]
        if ran:
            found["first_command"] = min(v.begin for v in ran)
            found["last_command"] = max(v.end for v in ran if v.end is not None)
        if healthy := self.healthy(node_to):
            found["verified"] = max(healthy)
            # The schedules are back when the last of those that came back has run for the first time.
            first = {r["schedule"]: r["time"] for r in reversed(self.runs) if r["node"] == node_to and r["time"] >= found["start_called"]}
            found["judged"] = max(first.values(), default=found["verified"])
        return found
