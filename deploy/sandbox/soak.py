"""`make soak`: a failover again and again, and each time the orchestrator or a worker is killed at a random moment of it.

Nobody is spared: the leading orchestrator, the other one, a node's worker, or only the RQ worker that runs its commands. Whoever was
killed is started again a little later, as the operating system would. After each round the stand-ins' records are held against I1
(no verb without a script that asked), I2 (agent before server), I7 (no verb twice); and in the end, over the whole log, I5 (every fact
once) and I6 (the fold of the export is the live state, and today's rules decide the same). `--seed` plays the same dice again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from deploy.sandbox.evidence import Round, Verb
from deploy.sandbox.site import CLUSTER, Pace, Site, interruptible

START, STOP = ("start", "recover"), ("stop", "faststop")


class Soak:
    def __init__(self, site: Site, seed: int) -> None:
        self.site, self.cluster = site, site.cluster
        self.dice = random.Random(seed)
        self.violations: list[str] = []
        self.victims: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.began = time.time()

    # --- one round

    def play(self, number: int) -> None:
        active = str(self.site.state()["active"])
        other = next(node for node in self.cluster.nodes if node != active)
        name, cause = self.dice.choice(self._causes(active, other))
        delay_s, victim = (
            self.dice.uniform(0.0, 7.0),
            self.dice.choice(("leader", "follower", "worker-from", "worker-to", "rq-from", "rq-to")),
        )
        self.events[name] += 1
        self.victims[victim] += 1
        begin = time.time()
        killer = threading.Thread(target=self._kill, args=(victim, active, other, delay_s))
        killer.start()
        cause()
        self.cluster.wait_group("Online", other, 90)
        killer.join()
        self._mend(active)
        self.site.wait_state(
            "everything runs again",
            lambda s: (
                s["failover"] is None
                and all(n["state"] == "running" for n in s["nodes"].values())
                and all(x["state"] == "running" and x["node"] == other for x in s["services"].values())
            ),
            90,
        )
        found = check_round(Round(self.cluster, begin, time.time()))
        self.violations += [f"round {number} ({name}, {victim} killed after {delay_s:.2f} s): {text}" for text in found]
        print(
            f"[{time.time() - self.began:6.1f} s] round {number:2}: {name:12} {active} -> {other}, {victim:11} killed after {delay_s:.2f} s"
            f": {'; '.join(found) or 'ok'}",
            flush=True,
        )

    def _causes(self, active: str, other: str) -> list[tuple[str, Callable[[], object]]]:
        def move() -> None:
            self.cluster.clpgrp("-m", self.cluster.group, "-a", other, node=active, timeout_s=120)

        return [
            ("node death", lambda: self.cluster.kill_node(active)),
            ("move", move),
            ("server crash", lambda: self.cluster.crash(active, "server")),
        ]

    def _kill(self, victim: str, active: str, other: str, delay_s: float) -> None:
        time.sleep(delay_s)
        node = active if victim.endswith("from") else other
        if victim in ("leader", "follower"):
            leader = self.site.leader() or self.site.orchestrators[0]
            name = leader if victim == "leader" else next(o for o in self.site.orchestrators if o != leader)
            if f"orchestrator-{name}" in self.site.running:
                self.site.kill(f"orchestrator-{name}")
                time.sleep(0.5)
                self.site.start_orchestrator(name)
        elif victim.startswith("worker"):
            if self._lives(f"worker-{node}"):
                self.site.kill(f"worker-{node}")
                time.sleep(0.5)
                if self.cluster.processes(node):  # not if the whole node was killed meanwhile
                    self.site.start_worker(node)
        else:
            self._kill_rq_worker(node)

    def _lives(self, name: str) -> bool:
        child = self.site.running.get(name)
        return child is not None and child.poll() is None

    def _kill_rq_worker(self, node: str) -> None:
        config = str(self.site.config(node))
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if "workers.rqworker" in words and config in words and "cmd" in words:
                    process.kill()
            except psutil.Error:
                continue

    def _mend(self, node: str) -> None:
        if not self.cluster.processes(node):
            self.site.power_on(node)
            self.cluster.wait_node(node, "Online", timeout_s=60)
        elif not self._lives(f"worker-{node}"):
            self.site.start_worker(node)

    # --- the whole log

    def check_log(self, folder: Path) -> None:
        """I5 and I6, over everything."""
        site = self.site
        config = str(site.config("a"))
        self._wait_handed_in()
        for node in self.cluster.nodes:
            self.cluster.kill_node(node)
        site.wait_state("both nodes are seen gone", lambda s: not any(n["present"] for n in s["nodes"].values()))
        time.sleep(1.5)
        live = site.dcsup("status", "--config", config, "--json")
        log = folder / "events.ndjson"
        site.dcsup("export", "--config", config, "--cluster", CLUSTER, "-o", str(log))
        replayed = site.dcsup("replay", str(log), "--state", "--json", timeout_s=120)
        if replayed.returncode or json.loads(live.stdout) != json.loads(replayed.stdout):
            self.violations.append("I6: the fold of the export is not the live state")
        verified = site.dcsup("replay", str(log), "--verify", timeout_s=300)
        if verified.returncode:
            self.violations.append(f"I6: decided differently: {verified.stdout[-400:]}{verified.stderr[-400:]}")
        self.violations += check_facts([json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()])

    def _wait_handed_in(self) -> None:
        def handed_in() -> bool:
            folders = [self.site.node_folder(node) / "outbox" for node in self.cluster.nodes]
            return not any(list(f.glob("*.fact")) + list(f.glob("*.line")) + list((f / "numbered").glob("*.fact")) for f in folders)

        self.site.wait_for("I5: every fact on the nodes' disks is in the log", handed_in, 60)


def check_round(seen: Round) -> list[str]:
    """I1, I2 and I7 on the stand-ins' records of one round."""
    found: list[str] = []
    for verb in seen.verbs:
        script = "start" if verb.verb in START else "stop"
        if not any(begin <= verb.begin <= end for begin, end in _script_runs(seen, script, verb.node)):
            found.append(f"I1: {verb} at {verb.begin:.2f} and no {script} script of CLUSTERPRO runs there")
        if verb.component == "server" and script == "start" and verb.by_launcher and not _agent_up(seen, verb):
            found.append(f"I2: {verb} before its agent")
    for script in ("start", "stop"):
        for node in {verb.node for verb in seen.verbs}:
            for begin, end in _script_runs(seen, script, node):
                found += _twice([v for v in seen.of(*(START if script == "start" else STOP)) if v.node == node and begin <= v.begin <= end])
    return found


def _script_runs(seen: Round, script: str, node: str) -> list[tuple[float, float]]:
    begins = [r["time"] for r in seen.script(script, node=node)]
    ends = [r["time"] for r in seen.script(script, "script-end", node=node)]
    return [(begin, next((end for end in ends if end >= begin), float("inf"))) for begin in begins]


def _agent_up(seen: Round, verb: Verb) -> bool:
    ups = [r["time"] for r in seen.daemons if r["what"] == "healthy" and r["component"] == "agent" and r["node"] == verb.node]
    return any(up <= verb.begin for up in ups)


def _twice(verbs: list[Verb]) -> list[str]:
    """A verb may run again in one call only if the end of the first run is unknown."""
    again = [
        later
        for index, later in enumerate(verbs)
        for first in verbs[:index]
        if (first.component, first.verb) == (later.component, later.verb) and first.code is not None
    ]
    return [f"I7: {verb} ran again though its first end is known" for verb in again]


def check_facts(entries: list[dict[str, Any]]) -> list[str]:
    """I5: the facts of every stream are in the log once each, in their order, none left out."""
    found: list[str] = []
    last: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry["type"] == "InvariantViolated":
            found.append(f"{entry['data']['violations']}")
        if entry["source_id"] is None or "evidence" not in entry:
            continue
        stream, _, seq = entry["source_id"].rpartition(":")
        key = (entry["evidence"]["inbox"], stream)
        if int(seq) != last.get(key, 0) + 1:
            found.append(f"I5: {key} goes from {last.get(key, 0)} to {seq} at {entry['id']}")
        last[key] = int(seq)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("soak")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {arguments.seed}, {arguments.rounds} rounds", flush=True)
    with interruptible(), Site(folder / "site", Pace(schedules_deadline=2.0)) as site:
        soak = Soak(site, arguments.seed)
        try:
            site.bring_up()
            for number in range(1, arguments.rounds + 1):
                soak.play(number)
            soak.check_log(folder)
        except KeyboardInterrupt:
            return 130
        except TimeoutError as error:
            soak.violations.append(f"the story does not go on: {error}")
    print(f"\nkilled: {dict(soak.victims)}; failovers by: {dict(soak.events)}")
    for violation in soak.violations:
        print(f"VIOLATED {violation}")
    print(
        "I1, I2, I5, I6 and I7 held every time." if not soak.violations else f"{len(soak.violations)} violations (seed {arguments.seed})."
    )
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
