"""`dcsup demo`: the supervisor's whole job, played on the sandbox with real processes, and checked against the stand-ins' own records.

The driver only kills, and asks for moves through `clpgrp`; everything else happens by itself. Each expectation is printed; the exit code
is 0 only if every one held. What dcsup says is never compared with what dcsup says, but with the records that DataCoordinator's,
CLUSTERPRO's and the clients' stand-ins keep (evidence.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.sandbox.evidence import Round
from deploy.sandbox.site import CLUSTER, Pace, Site, interruptible
from deploy.sandbox.telling import PHASES, Expectation, Played, phase_table, phases, progress, schedule_table

SABOTAGED, SURPRISE = "auto-started-sabotaged-5", "manual-stopped-surprise-6"


class Demo:
    def __init__(self, site: Site, console: Console) -> None:
        self.site, self.console = site, console
        self.cluster, self.pace = site.cluster, site.pace
        self.began = time.monotonic()
        self.expectations: list[Expectation] = []
        self.played: list[Played] = []
        self.step = 0
        self.supervised_since = 0.0
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._closing = threading.Event()

    # --- the screen

    def show(self, text: str, style: str = "") -> None:
        self.console.print(f"[{time.monotonic() - self.began:6.1f} s] {text}", style=style, markup=False, highlight=False)

    def begin(self, step: int, text: str) -> None:
        self.step = step
        self.show(f"Step {step}: {text}", "bold")

    def expect(self, text: str, held: bool, seen: object = "") -> None:
        shown = seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False, default=str)
        self.expectations.append(Expectation(self.step, text, bool(held), shown))
        self.show(
            f"  {'ok  ' if held else 'FAIL'} {text}" + (f"  ({shown})" if shown and not held else ""), "green" if held else "bold red"
        )

    def _tell(self) -> None:
        """Progress: what the orchestrators log, as it happens."""
        import redis

        last = "0-0"
        with self.site.client() as client:
            while not self._closing.is_set():
                try:
                    answer = client.xread({f"dcsup:{CLUSTER}:log": last}, block=300, count=50) or []
                except redis.RedisError:
                    return
                for _, entries in answer:
                    for entry_id, fields in entries:
                        last = entry_id.decode()
                        if line := progress(json.loads(fields[b"e"])):
                            self.show(f"      {line}", "dim")

    # --- playing

    def play(self) -> None:
        self._observe()
        self._start()
        self._node_dies()
        self._move_back()
        self._server_crashes()
        self._orchestrator_dies()
        self._other_verbs()
        self._without_workers()

    def _wait_running(self, node: str) -> dict[str, Any]:
        return self.site.wait_state(
            f"both services run on {node}",
            lambda s: all(x["state"] == "running" and x["node"] == node for x in s["services"].values()) and s["failover"] is None,
        )

    def _wait_observed(self) -> None:
        """A dead node cannot be asked any more: what ran is known only if the probe saw it before."""
        now_ms = time.time() * 1000
        self.site.wait_state(
            "the probe has seen the schedules", lambda s: (s["schedules"]["server"]["latest"] or {"at_ms": 0})["at_ms"] > now_ms - 60_000
        )

    def failover(self, title: str, cause: Callable[[], object], symptom: str, node_to: str) -> Played:
        """Do something that makes the group move, wait until dcsup's record of it is complete, and put both accounts side by side."""
        count = len(self.site.wait_state("no failover is open", lambda s: s["failover"] is None)["failovers"])
        begin = time.time()
        cause()
        self.cluster.wait_group("Online", node_to, 60)
        state = self.site.wait_state("the failover is on record", lambda s: len(s["failovers"]) > count and s["failover"] is None)
        self._wait_running(node_to)
        played = Played(title, Round(self.cluster, begin, time.time()), state["failovers"][-1])
        self.played.append(played)
        self.show(f"  {title}: {phases(played.record)}")
        if self.site.mode == "supervise":
            self._check_phases(played, node_to, symptom)
        return played

    def _check_phases(self, played: Played, node_to: str, symptom: str) -> None:
        record, seen = played.record, played.round.boundaries(node_to, symptom)
        missed = any(v["outcome"] == "missed" for j in record["judgements"] for v in j["schedules"])
        tolerance = self._tolerances(symptom, missed)
        for phase, begins, ends in PHASES:
            if phase not in record["phases"]:
                continue
            for point in (begins, ends):
                if point in seen and point in record["points"]:
                    late = record["points"][point] / 1000 - seen[point]
                    low, high = tolerance.get(point, (-0.2, 1.5))
                    side = "begin" if point == begins else "end"
                    self.expect(
                        f"{played.title}: {phase}, {side} ({point}) within {low:+.1f} to {high:+.1f} s of the stand-ins' record",
                        low <= late <= high,
                        f"{late:+.3f} s",
                    )
        total = sum(record["phases"].values())
        self.expect(
            f"{played.title}: the phases add up to the total", abs(total - record["total_s"]) < 0.01, f"{total:.3f}, {record['total_s']}"
        )
        wanted = {"detect", "takeover", "dispatch", "start", "verify", "resume"} | ({"stop"} if "stop_called" in seen else set())
        self.expect(f"{played.title}: every phase that it had is measured", set(record["phases"]) == wanted, sorted(record["phases"]))

    def _tolerances(self, symptom: str, missed: bool) -> dict[str, tuple[float, float]]:
        """How far dcsup's boundary may be behind (+) or before (-) the stand-ins' record, s."""
        pace = self.pace
        first = {
            "node killed": (0.5 * pace.node_ttl, pace.node_ttl + 1.5),
            "daemon killed": (-0.1, pace.interval + 1.5),
            "stop-hook": (-0.1, 1.5),
        }[symptom]
        # What does not come back is waited for until the deadline; what does is judged by the first probe after `settle`.
        judged = (pace.schedules_deadline if missed else pace.settle) + 2.5
        polls = pace.verify_confirm * (pace.startup_interval or 1.0)
        return {
            "symptom": first,
            "first_command": (-1.5, 0.3),
            "last_command": (-0.1, 0.8),
            "stop_ended": (-0.1, 0.8),
            "verified": (0.0, polls + 1.5),
            "judged": (-0.2, judged),
        }

    # --- step 1

    def _observe(self) -> None:
        self.begin(1, "mode observe: the guide's own scripts, and dcsup only looks on")
        site, cluster = self.site, self.cluster
        self.show(f"  the guide's waits of 20 s and 10 s are shortened to {self.pace.armsleep_scale:g} of theirs")
        site.redis.start()
        site.write_configuration("observe")
        site.install_guide_scripts()
        for name in site.orchestrators:
            site.start_orchestrator(name)
        site.wait_for("an orchestrator leads", lambda: site.leader() is not None)
        self._teller.start()
        for node in cluster.nodes:
            site.power_on(node)
        cluster.wait_group("Online", "node1", 60)
        self._wait_running("node1")
        self._wait_observed()
        schedules = cluster.schedules()
        kinds = {(s["startup_mode"], s["state"]) for s in schedules}
        self.expect(
            "DataCoordinator has at least six schedules: automatic and manual, started and stopped", len(schedules) >= 6 and len(kinds) == 4
        )
        tried = cluster.run("node2", "server/bin/dcmetaopen")
        self.expect("an open of the metadata DB from the standby is tried and fails", tried.returncode != 0, tried.stderr.strip())
        played = self.failover("observe", lambda: cluster.crash("node1", "server"), "daemon killed", "node2")
        record = played.record
        self.expect(
            "observe: one failover, node1 to node2, completed",
            (record["kind"], record["outcome"], record["node_from"], record["node_to"]) == ("failure", "completed", "node1", "node2"),
            _short(record),
        )
        self.expect(
            "observe: the guide's sequence ran its verbs itself",
            played.round.names() == ["node1:server faststop", "node1:agent stop", "node2:agent recover", "node2:server recover"],
            played.round.names(),
        )
        self.expect("observe: dcsup ran no verb", not [v for v in played.round.verbs if v.by_launcher])
        self.expect(
            "observe: only phases whose ends were both seen", set(record["phases"]) == {"detect", "resume"}, sorted(record["phases"])
        )
        late = record["points"]["symptom"] / 1000 - (played.round.done("daemon killed") or 0)
        self.expect(
            f"observe: the symptom is the failed poll, within {self.pace.interval + 1.5:.1f} s of the crash",
            -0.1 <= late <= self.pace.interval + 1.5,
            f"{late:.2f} s",
        )
        self._check_schedules(played, "G4", set(), set())
        cluster.clpgrp("-t", cluster.group)
        site.wait_state("the group is seen stopped", lambda s: all(x["state"] == "stopped" for x in s["services"].values()))

    # --- step 2

    def _start(self) -> None:
        self.begin(2, "mode supervise: the group starts on node1")
        site, cluster = self.site, self.cluster
        site.write_configuration("supervise")
        site.install_supervised_scripts()
        for name in site.orchestrators:
            site.stop(f"orchestrator-{name}")
            site.start_orchestrator(name)
        site.wait_state("the orchestrators supervise", lambda s: s["settings"]["mode"] == "supervise")
        begin = self.supervised_since = time.time()
        cluster.clpgrp("-s", cluster.group, "-h", "node1", node="node1")
        cluster.wait_group("Online", "node1", 60)
        self._wait_running("node1")
        seen = Round(cluster, begin, time.time())
        self.expect(
            "start: agent start (G12), then server recover (G8), agent first (G23)",
            seen.names() == ["node1:agent start", "node1:server recover"],
            seen.names(),
        )
        healthy = {r["component"]: r["time"] for r in seen.daemons if r["what"] == "healthy"}
        self.expect("start: the server was started only after the agent was healthy", seen.verbs[-1].begin > healthy["agent"])
        ended = seen.script("start", "script-end")
        self.expect(
            "start: the script returned 0, after the server was healthy",
            bool(ended) and ended[-1]["code"] == 0 and ended[-1]["time"] > healthy["server"],
        )
        self._wait_observed()

    # --- step 3

    def _node_dies(self) -> None:
        self.begin(3, "node1 is killed outright")
        site, cluster = self.site, self.cluster
        cluster.reset_schedules()
        site.wait_state("the probe has seen them as they were", self._seen_as_they_are)
        cluster.sabotage_schedules(SABOTAGED, node="node2")
        cluster.surprise_schedules(SURPRISE, node="node2")
        played = self.failover("node death", lambda: cluster.kill_node("node1"), "node killed", "node2")
        record, seen = played.record, played.round
        self.expect(
            "node death: the group came up on node2 with CLP_EVENT=FAILOVER",
            seen.events() == [("node2", "start", "FAILOVER")],
            seen.events(),
        )
        self.expect(
            "node death: agent recover (G13), server recover (G9)",
            seen.names() == ["node2:agent recover", "node2:server recover"],
            seen.names(),
        )
        self.expect(
            "node death: counted as a failure, completed", (record["kind"], record["outcome"]) == ("failure", "completed"), _short(record)
        )
        self._check_schedules(played, "G4", {SABOTAGED}, {SURPRISE})
        self.expect("node death: its rule is marked as assumed (G7)", record["judgements"][0]["assumed"])
        cluster.clear_fault("schedules-not-resumed", "node2")
        cluster.clear_fault("schedules-surprise", "node2")

    def _check_schedules(self, played: Played, rule: str, missed: set[str], unexpected: set[str]) -> None:
        """The schedules by name, against what the metadata DB itself has now and had before."""
        judgement = played.record["judgements"][-1]
        told = {v["name"]: v["outcome"] for v in judgement["schedules"]}
        runs = {s["name"] for s in self.cluster.schedules() if s["state"] == "started"}
        expected = {name: "unexpected" if name in unexpected else "resumed" for name in runs} | dict.fromkeys(missed, "missed")
        self.expect(
            f"{played.title}: schedules by name as the metadata DB has them, under {rule}",
            told == expected and judgement["rule"] == rule,
            told,
        )
        since = played.record["points"]["judged"] / 1000 - self.pace.settle
        self.site.wait_for("schedules run", lambda: runs <= {r["schedule"] for r in self.cluster.schedule_runs() if r["time"] > since}, 10)
        ran = {r["schedule"] for r in self.cluster.schedule_runs() if r["time"] > since}
        self.expect(f"{played.title}: what is said to run does run, what is missed does not", ran == runs and not ran & missed, sorted(ran))

    # --- step 4

    def _move_back(self) -> None:
        self.begin(4, "node1 returns, then a planned move back")
        site, cluster = self.site, self.cluster
        begin = time.time()
        site.power_on("node1")
        cluster.wait_node("node1", "Online", timeout_s=60)
        site.wait_state("node1 is a standby again", lambda s: s["nodes"]["node1"]["state"] == "running")
        back = Round(cluster, begin, time.time())
        self.expect(
            "return: the start script ran with RECOVER on node1 and started nothing (G16)",
            back.events() == [("node1", "start", "RECOVER")] and not back.verbs,
            [back.events(), back.names()],
        )
        cluster.reset_schedules()
        self._wait_observed()
        site.wait_state("the probe has seen them as they were", self._seen_as_they_are)
        played = self.failover("move", lambda: cluster.clpgrp("-m", cluster.group, "-a", "node1", node="node2"), "stop-hook", "node1")
        seen, record = played.round, played.record
        self.expect(
            "move: server faststop (G11) and agent faststop (G15) on node2, then agent start (G12) and server recover (G8) on node1",
            seen.names() == ["node2:server faststop", "node2:agent faststop", "node1:agent start", "node1:server recover"],
            seen.names(),
        )
        self.expect(
            "move: the stop ran with CLP_EVENT=FAILOVER, as the instance was started",
            seen.events()[0] == ("node2", "stop", "FAILOVER"),
            seen.events(),
        )
        self.expect("move: counted apart from failures", record["kind"] == "move" and record["outcome"] == "completed", _short(record))
        self._check_schedules(played, "G4", set(), set())
        self.expect("move: its rule is not assumed: the stop's verb is known", not record["judgements"][0]["assumed"])

    # --- step 5

    def _server_crashes(self) -> None:
        self.begin(5, "the server process crashes while clients write")
        cluster = self.cluster
        client = cluster.start_clients()
        begin = time.time()
        self.site.wait_for("clients write", lambda: sum(r["ok"] for r in cluster.read_records("clients") if r["time"] > begin) >= 5, 10)
        self._wait_observed()
        played = self.failover("server crash", lambda: cluster.crash("node1", "server"), "daemon killed", "node2")
        after = time.time()
        self.site.wait_for(
            "clients write again", lambda: sum(r["ok"] for r in cluster.read_records("clients") if r["time"] > after) >= 5, 10
        )
        client.terminate()
        client.wait()
        seen = played.round
        writes = [r for r in cluster.read_records("clients") if r["time"] >= begin]
        errors = [r for r in writes if not r["ok"]]
        outage = errors[-1]["time"] - errors[0]["time"] if errors else 0.0
        self.show(f"  clients: {len(writes)} writes, {len(errors)} errors, from the first to the last {outage:.1f} s")
        self.expect("crash: the clients saw an outage and it ended", bool(errors) and writes[-1]["ok"])
        detected = [r for r in seen.cluster if r["what"] == "monitor-detected"]
        self.expect(
            "crash: the watch script's end made the application monitor act",
            bool(detected) and detected[0]["code"] not in (0, None),
            detected[:1],
        )
        self.expect(
            "crash: server faststop (G10), agent stop (G14) on node1, then agent and server recover on node2 (G13, G9)",
            seen.names() == ["node1:server faststop", "node1:agent stop", "node2:agent recover", "node2:server recover"],
            seen.names(),
        )
        self._check_schedules(played, "G4", set(), set())

    # --- step 6

    def _orchestrator_dies(self) -> None:
        self.begin(6, "in a failover the leading orchestrator is killed")
        site, cluster = self.site, self.cluster
        before = site.wait_state("somebody leads", lambda s: bool(s["epoch"]))
        folder = site.node_folder("node1") / "journal"
        known = {path.name for path in folder.glob("*.1.start")}
        fallen: dict[str, Any] = {}

        def crash_and_behead() -> None:
            cluster.crash("node2", "server")
            site.wait_for("a journal mark on node1", lambda: bool({p.name for p in folder.glob("*.1.start")} - known), 60)
            leader = site.leader()
            assert leader is not None
            fallen.update(name=leader, pid=site.kill(f"orchestrator-{leader}"), time=time.time())
            self.show(f"  orchestrator {leader} killed (SIGKILL)")

        self._wait_observed()
        played = self.failover("orchestrator death", crash_and_behead, "daemon killed", "node1")
        state, seen = site.state(), played.round
        self.expect("successor: it shows a higher epoch", state["epoch"] > before["epoch"], [before["epoch"], state["epoch"]])
        server = next((v for v in seen.verbs if v.node == "node1" and v.component == "server"), None)
        self.expect(
            "successor: the orchestrator was dead before the server's command began", server is not None and fallen["time"] < server.begin
        )
        self.expect("successor: the next command was its, run by an RQ worker", server is not None and server.by_rq_worker)
        self.expect(
            "successor: nothing lost, nothing run twice",
            seen.names() == ["node2:server faststop", "node2:agent faststop", "node1:agent recover", "node1:server recover"],
            seen.names(),
        )
        site.start_orchestrator(fallen["name"])

    # --- other verbs than the guide's defaults, where it allows them

    def _other_verbs(self) -> None:
        self.begin(7, "verbs that the guide allows instead of its own: which schedules must run depends on them")
        cluster = self.cluster
        names = {s["name"]: (s["startup_mode"], s["state"]) for s in cluster.schedules()}
        automatic = {name for name, (mode, _) in names.items() if mode == "auto"}
        was_started = {name for name, (_, state) in names.items() if state == "started"}
        g4 = dict.fromkeys(was_started, "resumed")
        g5 = dict.fromkeys(automatic, "auto_started")
        g6 = g5 | dict.fromkeys(was_started - automatic, "unexpected")
        self.expect("the schedules are such that G4, G5 and G6 give three different answers", g4 != g5 != g6 != g4)
        self._restart("stop", "recover", "G5", g5)
        cluster.reset_schedules()
        self.site.wait_state("the probe has seen them as they were", self._seen_as_they_are)
        self._restart("faststop", "start", "G6", g6)
        self.site.install_supervised_scripts()

    def _restart(self, stop: str, start: str, rule: str, expected: dict[str, str]) -> None:
        """Stop and start the group in place on node1 with other verbs for the server."""
        site, cluster = self.site, self.cluster
        site.install_supervised_scripts(
            {"DCSUP_VERB_server_stop_FAILOVER": stop, "DCSUP_VERB_server_start_START": start, "DCSUP_VERB_server_stop_START": stop}
        )
        begin = time.time()
        cluster.clpgrp("-t", cluster.group, node="node1")
        cluster.clpgrp("-s", cluster.group, "-h", "node1", node="node1")
        self._wait_running("node1")
        state = site.wait_state(
            "the schedules are judged", lambda s: s["schedules"]["server"]["judgement"] is not None and not s["schedules"]["server"]["owed"]
        )
        judgement = state["schedules"]["server"]["judgement"]
        seen = Round(cluster, begin, time.time())
        verbs = [v.verb for v in seen.verbs if v.component == "server"]
        told = {v["name"]: v["outcome"] for v in judgement["schedules"]}
        runs = {s["name"] for s in cluster.schedules() if s["state"] == "started"}
        self.expect(
            f"server {stop}, then {start}: judged under {rule}, by name, and as the metadata DB has them",
            verbs == [stop, start] and (judgement["rule"], told) == (rule, expected) and runs == set(expected),
            [verbs, told],
        )

    def _seen_as_they_are(self, state: dict[str, Any]) -> bool:
        latest = state["schedules"]["server"]["latest"]
        return latest is not None and {x["name"]: x["state"] for x in latest["schedules"]} == {
            x["name"]: x["state"] for x in self.cluster.schedules()
        }

    # --- one more round

    def _without_workers(self) -> None:
        self.begin(8, "one more round with the workers stopped: the scripts go on by themselves")
        site, cluster = self.site, self.cluster
        self._wait_observed()
        supervised = Round(cluster, self.supervised_since, time.time()).verbs
        self.expect(
            "until here every verb was run under an RQ worker's launcher; outside RQ: 0",
            not [v for v in supervised if not v.by_rq_worker],
            [str(v) for v in supervised if not v.by_rq_worker],
        )
        count = len(site.state()["failovers"])
        for node in cluster.nodes:
            site.stop(f"worker-{node}")
        begin = time.time()
        cluster.clpgrp("-m", cluster.group, "-a", "node2", node="node1")
        cluster.wait_group("Online", "node2", 60)
        for node in cluster.nodes:
            site.start_worker(node)
        state = site.wait_state(
            "the fallback is on record, told late",
            lambda s: len(s["failovers"]) > count and s["failover"] is None and "stop" in s["failovers"][-1]["phases"],
        )
        self._wait_running("node2")
        played = Played("fallback", Round(cluster, begin, time.time()), state["failovers"][-1])
        self.played.append(played)
        seen, record = played.round, played.record
        self.show(f"  fallback: {phases(record)}")
        self.expect(
            "fallback: the scripts ran the guide's sequence, each verb once",
            seen.names() == ["node1:server faststop", "node1:agent stop", "node2:agent start", "node2:server recover"],
            seen.names(),
        )
        self.expect("fallback: none of them under a launcher", not [v for v in seen.verbs if v.by_launcher])
        self.expect(
            "fallback: dcsup has it on record as a move, completed, its four commands run by scripts",
            (record["kind"], record["outcome"], record["by_script"]) == ("move", "completed", 4),
            _short(record),
        )
        outside = _metric(site.metrics(), "dcsup_commands_outside_rq_total")
        self.expect("fallback: dcsup_commands_outside_rq_total counts them", outside == 4, outside)

    # --- the end

    def close(self, folder: Path) -> None:
        """Export, replay, compare; then stop everything and look what is left."""
        self.begin(9, "export, replay, and what is left over")
        site = self.site
        folder.mkdir(parents=True, exist_ok=True)
        config = str(site.config("a"))
        for node in self.cluster.nodes:
            site.stop(f"worker-{node}")
            self.cluster.kill_node(node)
        self._settle()
        log = folder / "events.ndjson"
        (folder / "metrics.txt").write_text(site.metrics(), encoding="utf-8")
        live = site.dcsup("status", "--config", config, "--json")
        (folder / "status.json").write_text(live.stdout, encoding="utf-8")
        exported = site.dcsup("export", "--config", config, "--cluster", CLUSTER, "-o", str(log))
        self.expect("export: the whole log in one file", exported.returncode == 0 and log.stat().st_size > 0, exported.stderr)
        replayed = site.dcsup("replay", str(log), "--state", "--json")
        (folder / "replay.json").write_text(replayed.stdout, encoding="utf-8")
        self.expect(
            "replay: a fresh process folds the file to the live orchestrator's whole `status --json` (I6)",
            live.returncode == 0 and replayed.returncode == 0 and _same(live.stdout, replayed.stdout),
            replayed.stderr,
        )
        verified = site.dcsup("replay", str(log), "--verify", timeout_s=120)
        self.expect("replay --verify: today's rules decide the same", verified.returncode == 0, verified.stdout[-500:] + verified.stderr)
        self._tamper(log, folder / "tampered.ndjson")
        types = [json.loads(line)["type"] for line in log.read_text(encoding="utf-8").splitlines()]
        self.expect("no invariant was violated and nothing was quarantined", not {"InvariantViolated", "FactQuarantined"} & set(types))
        for name in list(site.running):
            site.stop(name)
        site.close()
        self._closing.set()
        left = site.left_over()
        self.expect("no process is left over", not left and site.redis.pid is None, left)
        (folder / "expectations.json").write_text(
            json.dumps([asdict(e) for e in self.expectations], ensure_ascii=False, indent=1), encoding="utf-8"
        )
        self._show(folder)

    def _settle(self) -> None:
        """The nodes are down; wait until what follows of that is told, so that status and export speak of the same moment."""
        site = self.site
        site.wait_state("both nodes are seen gone", lambda s: not any(n["present"] for n in s["nodes"].values()))
        last, since = "", time.monotonic()
        while time.monotonic() - since < 1.0:
            head = site.state().get("last_id", "")
            if head != last:
                last, since = head, time.monotonic()
            time.sleep(0.1)

    def _tamper(self, log: Path, tampered: Path) -> None:
        data = bytearray(log.read_bytes())
        place = data.index(b'"NodeJoined"') + 3
        data[place] ^= 1
        tampered.write_bytes(data)
        answer = self.site.dcsup("replay", str(tampered), "--state", "--json")
        self.expect("replay: one changed byte is refused", answer.returncode == 1, answer.stderr.strip())

    def _show(self, folder: Path) -> None:
        self.console.print(phase_table(self.played))
        self.console.print(schedule_table(self.played))
        failed = [e for e in self.expectations if not e.held]
        self.console.print(f"\n{len(self.expectations) - len(failed)} of {len(self.expectations)} expectations held.", style="bold")
        for expectation in failed:
            self.console.print(f"  not held, step {expectation.step}: {expectation.text}: {expectation.seen}", style="red", markup=False)
        self.console.print(
            f"""
Where to look next:
  {folder / "events.ndjson"}   the whole incident; dcsup replay FILE --state | --verify
  {folder / "metrics.txt"}     what Prometheus would have scraped
  {folder / "status.json"}     the state in the end; replay.json beside it is the same, folded from the file
  {self.cluster.records}       what the stand-ins themselves recorded
  dcsup up --sandbox           the same cluster, to try by hand
""",
            markup=False,
            highlight=False,
        )


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("id", "kind", "outcome", "trigger", "node_from", "node_to", "by_script", "reason")}


def _metric(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{"))


def _same(one: str, other: str) -> bool:
    return bool(json.loads(one) == json.loads(other))


def main(argv: list[str]) -> int:
    """`dcsup demo`: 0 if every expectation held, 1 if not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("dcsup demo", description="plays the whole story on the sandbox")
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="where it plays, and where the results are put")
    parser.add_argument("--language", choices=("en", "ja"), default="en", help="of broadcasts and cluster log")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder.resolve()
    shutil.rmtree(folder / "site", ignore_errors=True)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 150)
    with interruptible(), Site(folder / "site", Pace(), language=arguments.language) as site:
        demo = Demo(site, console)
        try:
            demo.play()
            demo.close(folder)
        except KeyboardInterrupt:
            console.print("\ninterrupted; ending everything ...")
            return 130
        except TimeoutError as error:
            console.print(f"\nThe story does not go on: {error}", style="bold red", markup=False)
            return 1
    return 0 if all(e.held for e in demo.expectations) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
