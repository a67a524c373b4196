"""`make soak MINUTES=20`: faults of every kind, at random, for a time; and in the end an independent checker over all of it.

The soak plays *episodes*. Each begins with something that makes the group move (mostly), and a few further faults, which fall where they
fall: before, in the midst, after, several at once (faults.py). Then all is healed, and liveness is demanded: the group online, every
service running, both nodes members, no failover open, clients served, within `CALM_LIMIT_S`. Where the cluster manager has given the
group up, as it does when it failed to start everywhere, an operator starts it again, as with the real one; that is counted.

In the end the group is stopped, the log exported, folded and decided again, and checker.py judges the records. `--seed` plays the same
dice again; the machine's own timing it cannot play again. What a run leaves behind stays in its folder.

The faults on the node folders' disk need disks that are small: as root the folders are put on tmpfs, otherwise that kind is left out and
the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.sandbox import checker
from deploy.sandbox.faults import KINDS, MOVERS, Hit, Kind, World
from deploy.sandbox.keeper import Keeper
from deploy.sandbox.site import CLUSTER, Pace, Site, interruptible
from deploy.sandbox.standins import records
from deploy.sandbox.story import Story
from deploy.sandbox.ways import Ways
from deploy.sandbox.witness import Witness, available

PACE = Pace(
    heartbeat_timeout=4.0,
    node_ttl=2.5,
    ack_timeout=3.0,
    interval=0.6,
    probation=1.5,
    schedules_deadline=2.0,
    command_limit=8.0,
    deadline=20.0,
)
DISK_MIB = 4
TURN_S = 0.03
PREY_S = 14.0
"""How long after an episode's begin a fault may look for something to hit."""
CALM_LIMIT_S = 150.0
"""Within which, after everything is healed, all must run again: a bound, not a promise. A stop that was made to fail waits for its
deadline."""
CALM_S = 2.0
PATIENCE_S = 45.0
"""After which an operator breaks off a command that still waits: clpgrp does, for ever, where another node took the group meanwhile."""
STUCK_S = 8.0
"""For so long the cluster manager must have done nothing more before an operator starts the group again."""
STILL_S = 2.0


@dataclass
class Planned:
    """One fault of an episode: when it is to begin, how long it is to last, and how far it is."""

    kind: Kind
    after_s: float
    lasts_s: float
    hit: Hit | None = None
    number: int = 0
    heal_at: float = 0.0
    over: bool = False


class Soak:
    """A site under faults."""

    def __init__(self, world: World) -> None:
        self.world, self.site, self.cluster = world, world.site, world.site.cluster
        self.dice = world.dice
        self.violations: list[str] = []
        self.missed: Counter[str] = Counter()
        self.episodes = 0
        self.began = time.monotonic()
        self._decks: dict[str, list[str]] = {"movers": [], "all": []}
        self._runs_until = 0.0

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:7.1f} s] {text}", flush=True)

    # --- an episode

    def episode(self) -> None:
        """Some faults, all healed, and calm again.

        Raises:
            TimeoutError: it does not become calm.
        """
        self.episodes += 1
        before = self.world.active
        plan = self._plan()
        self._play(plan)
        healed = time.monotonic()
        told = ", ".join(planned.kind.name for planned in plan if planned.number)
        try:
            self._calm()
        except TimeoutError:
            self.say(f"episode {self.episodes}: {told}: NOT CALM AGAIN")
            raise
        self.note_schedule_runs()
        calm_s = time.monotonic() - healed
        self.say(f"episode {self.episodes}: {told or 'nothing'} | {before} -> {self.world.active}, calm after {calm_s:.1f} s")

    def _plan(self) -> list[Planned]:
        names = [self._deal("movers", list(MOVERS))] if self.dice.random() < 0.85 else []
        wanted = len(names) + self.dice.choice((2, 2, 3, 4, 5))
        while len(names) < wanted:
            name = self._deal("all", [name for name in KINDS if self._possible(name)])
            if name not in names:
                names.append(name)
        first = [self.dice.uniform(0.0, 3.0)] if names[0] in MOVERS else []
        offsets = first + [self.dice.uniform(0.0, 8.0) for _ in names[len(first) :]]
        kinds = [KINDS[name] for name in names]
        return [Planned(kind, after_s, self.dice.uniform(*kind.seconds)) for kind, after_s in zip(kinds, offsets, strict=True)]

    def _possible(self, name: str) -> bool:
        return name != "disk-full" or self.world.small_disks

    def _deal(self, name: str, kinds: list[str]) -> str:
        """The next card: each kind comes once before any comes again."""
        deck = self._decks[name]
        if not deck:
            deck += self.dice.sample(kinds, len(kinds))
        return deck.pop()

    def _play(self, plan: list[Planned]) -> None:
        began = time.monotonic()
        while not all(planned.over for planned in plan):
            now = time.monotonic()
            for planned in plan:
                self._turn(planned, now - began, now)
            time.sleep(TURN_S)

    def _turn(self, planned: Planned, since_s: float, now: float) -> None:
        if planned.over or since_s < planned.after_s:
            return
        if planned.hit is None:
            began = time.time()
            planned.hit = planned.kind.begin(self.world)
            if planned.hit is not None:
                planned.number = self.world.began(planned.kind, planned.hit.on, began)
                planned.heal_at = time.monotonic() + planned.lasts_s
                self.say(f"    fault {planned.number}: {self._words(planned)}")
            elif since_s > PREY_S:
                planned.over = True
                self.missed[planned.kind.name] += 1
        elif now >= planned.heal_at:
            planned.kind.heal(self.world, planned.hit)
            self.world.note("healed", number=planned.number)
            planned.over = True

    @staticmethod
    def _words(planned: Planned) -> str:
        """Whom it hit, and until when."""
        return f"{planned.kind.name}{f' on {planned.hit.on}' if planned.hit is not None else ''} for {planned.lasts_s:.1f} s"

    # --- calm again

    def _calm(self) -> None:
        """Wait until all is well, and has been for a moment: what was hit last may not have been noticed yet.

        Raises:
            TimeoutError: it is not within `CALM_LIMIT_S`.
        """
        now = time.monotonic()
        deadline, well_since, stuck_since = now + CALM_LIMIT_S, now, now
        while now - well_since < CALM_S:
            if why := self._unrest():
                well_since = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"{why}; {CALM_LIMIT_S:.0f} s after everything was healed")
            if not self._given_up():
                stuck_since = now
            elif now - stuck_since > STUCK_S:
                self._start_again()
            if now > deadline - CALM_LIMIT_S + PATIENCE_S:
                self.world.end_errands()
            self._bring_back()
            time.sleep(0.2)
            now = time.monotonic()
        self.world.end_errands()

    def _bring_back(self) -> None:
        """What ended by itself is started again, and told; what an operator could not say is said again."""
        for name in self.site.orchestrators:
            if not self.world.runs(f"orchestrator-{name}"):
                self._ended_by_itself(f"orchestrator-{name}")
                self.site.start_orchestrator(name)
        for node in self.cluster.nodes:
            if self.world.is_on(node) and not self.world.runs(f"worker-{node}"):
                self._ended_by_itself(f"worker-{node}")
                self.site.start_worker(node)
        state = self.site.state()
        if state.get("paused_since_ms") is not None:
            KINDS["pause"].heal(self.world, Hit("cluster"))
        if self._suspended():
            KINDS["suspend"].heal(self.world, Hit("cluster"))

    def _ended_by_itself(self, name: str) -> None:
        child = self.site.running.get(name)
        code = None if child is None else child.returncode
        self.violations.append(f"processes: {name} ended by itself with {code} (episode {self.episodes})")

    def _views(self) -> list[dict[str, Any]]:
        views = []
        for node in self.cluster.nodes:
            try:
                views.append(self.cluster.view(node))
            except (OSError, ValueError):
                continue
        return views

    def _suspended(self) -> bool:
        return any(view["suspended"] for view in self._views())

    def _unrest(self) -> str:
        """What keeps it from being calm; empty when nothing does."""
        if any(child.poll() is None for child in self.world.errands):
            return "an operator's command has not ended"
        views = self._views()
        if len(views) < len(self.cluster.nodes) or any(state != "Online" for view in views for state in view["nodes"].values()):
            return "not every node is a member of the cluster"
        owner, group = views[0]["view"]["owner"], views[0]["view"]
        if any(view["view"]["state"] != "Online" or view["view"]["owner"] != owner or view["suspended"] for view in views):
            return f"the group is {group['state']} on {owner}"
        if any(word != "Normal" for word in group["monitors"].values()):
            return f"monitors: {group['monitors']}"
        if not self._served():
            return "clients are not served"
        return self._unrest_of_dcsup(owner)

    def _unrest_of_dcsup(self, owner: str) -> str:
        state = self.site.state()
        if not state:
            return "no orchestrator tells the state"
        # a standby on which the disk could not be attached counts as failed until it is tried there again: nobody can know better
        well = {node: ("running",) if node == owner else ("running", "failed") for node in self.cluster.nodes}
        wrong = {
            **{name: x for name, x in state["services"].items() if x["state"] != "running" or x["node"] != owner},
            **{name: x for name, x in state["nodes"].items() if x["state"] not in well[name] or not x["present"]},
        }
        words = {name: x["state"] for name, x in wrong.items()}
        if wrong or state["failover"] is not None or state["paused_since_ms"] is not None or state["suspended"]:
            failover = None if state["failover"] is None else state["failover"]["state"]
            return f"dcsup shows {words}, failover {failover}, paused {state['paused_by']}, suspended {state['suspended']}"
        return ""

    def _served(self) -> bool:
        try:
            with (self.cluster.records / "clients.jsonl").open("rb") as file:
                file.seek(-min(2000, file.seek(0, os.SEEK_END)), os.SEEK_END)
                last = [json.loads(line) for line in file.read().splitlines()[1:]]
        except (OSError, ValueError):
            return False
        return len(last) > 5 and all(row["ok"] for row in last[-5:])

    def _given_up(self) -> bool:
        """Whether the cluster manager will do nothing more by itself."""
        views = self._views()
        if len(views) < len(self.cluster.nodes) or any(view["suspended"] for view in views):
            return False
        group = views[0]["view"]
        return bool(
            group["state"] == "Online Failure"
            or group["owner"] is None
            or (group["state"] == "Online" and "Error" in group["monitors"].values())
        )

    def _start_again(self) -> None:
        """The manager gave up, as documented: an operator stops what is left of the group and starts it."""
        self.world.operator("stop", node=self.world.active)
        node, group = self.world.active, self.cluster.group
        self.world.tell_manager(node, "clpgrp", "-t", group)
        self.world.tell_manager(node, "clpgrp", "-s", group, "-h", node)

    def note_schedule_runs(self) -> None:
        """The metadata DB keeps only the last runs of its schedules."""
        new = [run for run in self.cluster.schedule_runs() if run["time"] > self._runs_until]
        for run in new:
            records.append(str(self.cluster.records / "runs.jsonl"), run)
            self._runs_until = max(self._runs_until, run["time"])

    # --- the end

    def finish(self, folder: Path) -> None:
        """Stop the group, wait until the log stands still, and keep what the checker needs.

        Raises:
            TimeoutError: the nodes' facts are not all handed in, or the log does not come to rest. (What a worker says last is handed in
            and stays on the disk, for nobody is left to take it away.)
        """
        world, site = self.world, self.site
        world.operator("stop", node=world.active)
        world.tell_manager(world.active, "clpgrp", "-t", self.cluster.group)
        over = ("stopped", "failed")  # failed: the stop took longer than its deadline, on a machine that has too much to do
        site.wait_state("everything is stopped", lambda s: all(x["state"] in over for x in s["services"].values()), 60)
        site.wait_for("every fact on the nodes' disks is in the log", self._handed_in, 60)
        workers = [f"worker-{node}" for node in self.cluster.nodes]
        for name in workers:
            site.running[name].terminate()  # all at once: each takes its time
        for name in workers:
            site.stop(name)
        site.wait_state("the nodes have left", lambda s: not any(x["present"] for x in s["nodes"].values()), 60)
        self.note_schedule_runs()
        results = self._compare(folder / "events.ndjson")
        (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")

    def _handed_in(self) -> bool:
        folders = [self.site.node_folder(node) / "outbox" for node in self.cluster.nodes]
        return not any(list(f.glob("*.fact")) + list(f.glob("*.line")) + list((f / "numbered").glob("*.fact")) for f in folders)

    def _compare(self, log: Path) -> dict[str, str]:
        """The fold of an export with the live state, both of one moment: before and after the export the log ends at the same entry."""
        config = ("--config", str(self.site.config("desk")))
        for _ in range(20):
            last = self._still()
            live = self.site.dcsup("status", *config, "--json")
            self.site.dcsup("export", *config, "--cluster", CLUSTER, "-o", str(log), timeout_s=120)
            if self.site.state().get("last_id") == last:
                break
        replayed = self.site.dcsup("replay", str(log), "--state", "--json", timeout_s=300)
        verified = self.site.dcsup("replay", str(log), "--verify", timeout_s=900)
        good = live.returncode == replayed.returncode == 0
        same = good and json.loads(live.stdout) == json.loads(replayed.stdout)
        return {
            "fold": "same" if same else f"different {live.stderr}{replayed.stderr}",
            "verify": "same" if verified.returncode == 0 else f"{verified.stdout[-600:]}{verified.stderr[-600:]}",
        }

    def _still(self) -> str:
        """The id of the last entry, when none came for a while."""
        last, since = "", time.monotonic()
        deadline = since + 60
        while time.monotonic() - since < STILL_S:
            found = self.site.state().get("last_id", "")
            if found != last:
                last, since = found, time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError("the log does not come to rest")
            time.sleep(0.1)
        return last


def account(soak: Soak, story: Story, seed: int, violations: list[str]) -> dict[str, Any]:
    """What a run came to, in numbers."""
    rules = Counter(text.partition(":")[0] for text in violations)
    failovers = Counter(f"{r['kind']}, {r['outcome']}" for r in (e["data"]["failover"] for e in story.entries("FailoverEnded")))
    took = [seconds for seconds, _, hindered in checker.takeovers(story) if not hindered]
    on_disk = {(r["node"], f"{r['stream']}:{r['seq']}") for r in story.of("outbox", "numbered")}
    by_worker = sum(verb.by_launcher for verb in story.verbs)
    return {
        "minutes": round((time.monotonic() - soak.began) / 60, 1),
        "seed": seed,
        "episodes": soak.episodes,
        "faults": sum(soak.world.injected.values()),
        "faults_by_kind": dict(sorted(soak.world.injected.items())),
        "found_nothing_to_hit": dict(sorted(soak.missed.items())),
        "operators": dict(sorted(soak.world.operated.items())),
        "failovers": sum(failovers.values()),
        "failovers_by_kind": dict(sorted(failovers.items())),
        "client_outages": len(story.outages),
        "client_outage_s": round(sum(o.end - o.begin for o in story.outages if o.end < float("inf")), 1),
        "facts_on_the_nodes": len(on_disk),
        "facts_of_them_in_the_log": sum((entry["node"], entry["source_id"]) in on_disk for entry in story.log),
        "facts_in_the_log": sum("evidence" in entry for entry in story.log),
        "entries_in_the_log": len(story.log),
        "commands_executed": len(story.verbs),
        "commands_by_workers": by_worker,
        "commands_by_scripts": len(story.verbs) - by_worker,
        "double_executions": rules["I7 once"] + rules["I7 one at a time"],
        "lost_facts": rules["I5 no fact lost"],
        "takeovers": max(0, len(story.entries("LeadTaken")) - 1),
        "worst_leaderless_s": round(max(took, default=0.0), 2),
        "ways": soak.world.ways.counts(),
        "violations": violations,
    }


def show(numbers: dict[str, Any]) -> None:
    """The same for people."""
    print()
    for name, value in numbers.items():
        if name == "violations":
            continue
        text = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) and name != "ways" else value
        print(f"{name.replace('_', ' '):22} {text}")
    for violation in numbers["violations"]:
        print(f"VIOLATED {violation}")
    print(f"{len(checker.RULES)} rules, {len(numbers['violations'])} violations (seed {numbers['seed']}).")


@contextmanager
def small_disks(site: Site) -> Iterator[bool]:
    """Each node folder on a disk of its own that is small enough to be filled, if this system lets us; whether it did."""
    mounted: list[Path] = []
    try:
        for node in site.cluster.nodes:
            folder = site.node_folder(node)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _mount(folder):
                mounted.append(folder)
        yield len(mounted) == len(site.cluster.nodes)
    finally:
        for folder in mounted:
            kept = folder.with_name("dcsup-kept")
            shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ballast"))
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mount(folder: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    options = f"size={DISK_MIB}m,mode=0700"
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "dcsup-soak", str(folder)], check=False).returncode == 0


def run(folder: Path, minutes: float, rounds: int | None, seed: int) -> dict[str, Any]:
    """A whole soak.

    Args:
        folder: where it plays; what was there is gone.
        minutes: for how long episodes are begun.
        rounds: or how many.
        seed: of the dice.

    Raises:
        KeyboardInterrupt: somebody asked for the end; nothing of it runs any more.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        site = Site(folder / "site", PACE)
        stack.enter_context(Keeper(site))
        small = stack.enter_context(small_disks(site))
        site = stack.enter_context(site)
        ways = stack.enter_context(Ways(site.redis.folder, (*site.orchestrators, *site.cluster.nodes), seed))
        witness = Witness({n: site.node_folder(n) for n in site.cluster.nodes}, site.cluster.records / "outbox.jsonl")
        stack.enter_context(witness)
        soak = Soak(World(site, ways, random.Random(seed), small_disks=small))
        print(f"seed {seed}; {folder}", flush=True)
        if not small:
            print("left out: disk-full (the node folders need a small disk: root, on Linux)", flush=True)
        _play(soak, ways, minutes, rounds, folder)
        witness.close()
        story = Story.load(folder)
        return account(soak, story, seed, soak.violations + (checker.check(story) if story.log else []))


def _play(soak: Soak, ways: Ways, minutes: float, rounds: int | None, folder: Path) -> None:
    site = soak.site
    site.ways = {name: ways.url(name) for name in ways.names}
    try:
        site.bring_up()
        site.config("desk").write_text(site.toml("desk"), encoding="utf-8")
        soak.cluster.start_clients()
        until = time.monotonic() + minutes * 60
        while (soak.episodes < rounds) if rounds is not None else (time.monotonic() < until):
            soak.episode()
        soak.finish(folder)
    except TimeoutError as error:
        soak.violations.append(f"liveness: {error}")
        soak.note_schedule_runs()
        log = folder / "events.ndjson"
        site.dcsup("export", "--config", str(site.config("desk")), "--cluster", CLUSTER, "-o", str(log), timeout_s=120)


def main(argv: list[str]) -> int:
    """0 nothing was violated, 1 something was, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("soak", description="faults of every kind on the sandbox, at random, judged by an independent checker")
    parser.add_argument("--minutes", type=float, default=20.0, help="for how long (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="or how many episodes")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    arguments = parser.parse_args(argv)
    if not available():
        print("the soak's witness needs Linux", file=sys.stderr)
        return 2
    with interruptible():
        try:
            numbers = run(arguments.folder.resolve(), arguments.minutes, arguments.rounds, arguments.seed)
        except KeyboardInterrupt:
            print("\ninterrupted; nothing of it runs any more", flush=True)
            return 130
    show(numbers)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(numbers, ensure_ascii=False, indent=1), encoding="utf-8")
    return 1 if numbers["violations"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
