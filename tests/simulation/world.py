"""One world: built from a seed, put under faults, healed, judged.

A seed's life: everything comes up (*begin*); some rounds of chaos, in each of which something makes CLUSTERPRO act and some faults strike
around it; everything is healed and has time to settle (*heal*); and the records are gone through (*judge*). What must hold at every
step is looked at at every step (checks.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.ports import Commit, CommitAnswer, Core
from statemachines.configuration import ClusterSettings
from statemachines.machine import Fired, StateMachine
from tests.simulation import disk, faults
from tests.simulation.checks import Checks
from tests.simulation.clusterpro import Cluster
from tests.simulation.engine import Kernel, Machine, Process
from tests.simulation.installing import Patch, installed, orchestrator_patches
from tests.simulation.node import Node, replacements
from tests.simulation.orchestrators import Host
from tests.simulation.people import Operators
from tests.simulation.plan import CLUSTER, Plan
from tests.simulation.records import Ledger
from tests.simulation.redis import Net
from workers.settings import NodeConfiguration

BEGIN_S = 120.0
"""How long the first start may take."""

ROUND_S = (15.0, 45.0)
"""How long a round lasts at least: faults may strike while the last one's consequences last."""

CALM_S = 150.0
"""How long a round's consequences are waited for before the next one; it begins whether they are over or not."""

HEAL_S = 600.0
"""After the last fault is healed, all must be well within this time."""

STEP_S = 3.0
"""How often it is looked whether all is well."""


_FIRED: dict[tuple[str, str, str, frozenset[str]], Fired] = {}
"""What the tables answered: a case that came up once is answered the same in every world."""


@dataclass
class Note:
    """A line of the story."""

    at_s: float
    text: str


@dataclass
class Outcome:
    """What came of a seed."""

    seed: int
    violations: list[str]
    virtual_s: float = 0.0
    failovers: int = 0
    facts: int = 0
    commands: int = 0
    by_script: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    trace: str = ""
    """A digest of everything that happened: two runs of a seed have the same."""


class World:
    """Everything that is in it, under the names that nodes, cluster and faults use."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kernel = Kernel(seed)
        self.dice = self.kernel.dice
        self.plan = Plan.of(self.dice)
        self.cluster_name = CLUSTER
        self.notes: list[Note] = []
        self._excused_s: dict[str, float] = {}
        self._is_healed = False
        self.struck: list[faults.Struck] = []
        """What struck nodes."""
        self.counts: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        disk.DISKS.clear()
        self.configurations = {name: self.plan.configuration_of(name) for name in self.plan.nodes}
        self.configuration = self.configurations[self.plan.nodes[0]]
        self.settings: ClusterSettings = self.configuration.clusters[CLUSTER]
        self.checks = Checks(self)
        self.net = Net(self.kernel, self.count, self._committed)
        self.nodes: dict[str, Node] = {}
        for name in self.plan.nodes:
            self.nodes[name] = Node(self, name)
        self.ledgers = {name: Ledger(node.disk, lambda: self.kernel.now_s) for name, node in self.nodes.items()}
        self.cluster = Cluster(self)
        self.operators = Operators(self)
        self.fate = Machine(self.kernel, "fate")
        """Where what is planned for later waits."""
        self.hosts = [self._host(f"o{n}") for n in range(1, self.plan.orchestrators + 1)]

    def _host(self, name: str) -> Host:
        lease_s = self.configuration.orchestrator.lease_ttl
        return Host(self.kernel, self.net, name, self.configuration.clusters, lease_s, Core(step=self.checks.step))

    def _committed(self, commits: Sequence[Commit], answers: Sequence[CommitAnswer]) -> None:
        self.checks.committed(commits, answers)
        for node in {node: None for commit in commits for node in commit.marks}:
            self.nodes[node].outbox_grew.set()

    # --- for everybody in it

    def note(self, text: str, at_s: float | None = None) -> None:
        """A line for the story."""
        self.notes.append(Note(self.kernel.now_s if at_s is None else at_s, text))

    def count(self, name: str) -> None:
        """One more fault of this kind."""
        self.counts[name] += 1

    def excuse(self, who: str) -> None:
        """From now on, and as long as it lasts, signs of life of this one may be missing."""
        self._excused_s[who] = self.kernel.now_s

    def was_unseen(self, who: str, within_s: float) -> bool:
        """Whether something kept this one's signs of life from Redis lately."""
        machine = self.nodes[who].machine
        if not machine.is_up or machine.is_paused or self.kernel.now_s - machine.booted_s < within_s:
            return True
        return self.kernel.now_s - self._excused_s.get(who, -within_s) < within_s

    def settings_of(self, node: str) -> NodeConfiguration:
        whole = self.configurations[node]
        assert whole.node is not None
        return NodeConfiguration(whole, whole.node, whole.clusters[CLUSTER])

    def later(self, after_s: float, what: Callable[[], None]) -> None:
        """Do it then, from outside of every machine."""
        self.kernel.spawn("fate", self.fate, what, delay_s=after_s)

    # --- its life

    def run(self) -> Outcome:
        """Live it. What went wrong is in the outcome."""
        with installed(self._patches()):
            try:
                self._live()
                return self._outcome()
            finally:
                self.kernel.stop()

    def _patches(self) -> list[Patch]:
        fire = StateMachine.fire

        def counting(machine: StateMachine, state: str, event: str, conditions: Iterable[str] = ()) -> Fired:
            case = machine.table.name, state, event, frozenset(conditions)
            if case not in _FIRED:
                _FIRED[case] = fire(machine, *case[1:])
            fired = _FIRED[case]
            self.rules[fired.row.rule] += 1
            return fired

        return [*orchestrator_patches(self.kernel), (StateMachine, "fire", counting), *replacements(self)]

    def _live(self) -> None:
        self._begin()
        for _ in range(self.plan.rounds):
            if self.checks.violations:
                return
            self._round()
        self._heal()
        if not self.checks.violations:
            self.checks.at_the_end()

    def _begin(self) -> None:
        for host in self.hosts:
            host.start(faults.SNAPSHOT_EVERY)
        for node in self.nodes.values():
            node.boot()
        self.pass_time(3.0)
        self.cluster.start()
        self._until_well(BEGIN_S)

    def _round(self) -> None:
        begin_s = self.kernel.now_s
        for fault in faults.of_a_round(self):
            self._strike(fault)
        self.pass_time(self.dice.uniform(*ROUND_S))
        while self.kernel.now_s < begin_s + CALM_S and not self.is_well and not self.checks.violations:
            self.pass_time(STEP_S)

    def _strike(self, fault: faults.Strike) -> None:
        def strike() -> None:
            if self._is_healed:
                return
            self.count(fault.kind)
            self.note(f"FAULT {fault.kind}" + (f" for {fault.lasts_s:.1f} s" if fault.lasts_s else ""))
            undo = fault.begin(self)
            if undo is not None:
                self.later(fault.lasts_s, undo)

        self.later(fault.after_s, strike)

    def _heal(self) -> None:
        self._is_healed = True
        self.note("HEALED")
        faults.heal(self)
        self._until_well(HEAL_S)
        if not self.is_well:
            self.checks.violate("liveness", f"{HEAL_S:.0f} s after the last fault was healed: {self.checks.what_is_not_well()}")

    def _until_well(self, limit_s: float) -> None:
        until_s = self.kernel.now_s + limit_s
        while self.kernel.now_s < until_s and not self.is_well and not self.checks.violations:
            self.pass_time(STEP_S)

    @property
    def is_well(self) -> bool:
        return not self.checks.what_is_not_well()

    def pass_time(self, seconds: float) -> None:
        self.kernel.run(self.kernel.now_s + seconds, self._after_step)

    def _after_step(self, process: Process) -> None:
        if self.kernel.crashed:
            crashed, error = self.kernel.crashed.pop()
            self.checks.crashed(crashed, error)

    def _outcome(self) -> Outcome:
        checks = self.checks
        return Outcome(
            self.seed, checks.violations, self.kernel.now_s, checks.failovers, checks.facts, *checks.commands, self.counts, self.rules,
            checks.digest(),
        )  # fmt: skip
