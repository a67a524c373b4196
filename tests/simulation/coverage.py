"""What many seeds came across, and what they did not: every row of the tables, every kind of fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from statemachines.tables import TABLES
from tests.simulation import faults
from tests.simulation.world import Outcome, World

ENOUGH = 100
"""So often must each be met in a run of `FULL_RUN` seeds."""

FULL_RUN = 10_000
FAILOVERS_A_SEED = 3.0

UNREACHABLE: dict[str, str] = {
    "S322": "A start is given up for those services alone that are starting or recovering at that moment (Calls._unverified).",
    "N122": "A node that leaves starting and recovering loses its probation's deadline in the same decision (Deciding.fire_node).",
    "F112": "That a symptom is gone is fired in suspected alone (Outlook.clear_if_well).",
    "F122": "A failover that leaves suspected loses that deadline in the same decision (Deciding._log_failover).",
    "F432": "A failover that leaves acting loses that deadline in the same decision (Deciding._log_failover).",
}
"""Rows of the tables that no world can come to, and why. They are there because a table must answer every event in every state."""


@dataclass
class Tally:
    """The sum of many outcomes."""

    seeds: int = 0
    virtual_s: float = 0.0
    failovers: int = 0
    facts: int = 0
    commands: int = 0
    by_script: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.virtual_s += outcome.virtual_s
        self.failovers += outcome.failovers
        self.facts += outcome.facts
        self.commands += outcome.commands
        self.by_script += outcome.by_script
        self.faults.update(outcome.faults)
        self.rules.update(outcome.rules)
        if outcome.violations:
            self.failed.append(outcome)

    def missed(self, enough: int = ENOUGH) -> Iterator[str]:
        """What was met less than `enough` times, in words."""
        for kind in faults.names(World(0)):
            if self.faults[kind] < enough:
                yield f"fault {kind}: {self.faults[kind]}"
        for table in TABLES.values():
            for row in table.rows:
                if self.rules[row.rule] < enough and row.rule not in UNREACHABLE:
                    yield f"row {row.rule} ({table.name}, {row.event} in {'/'.join(row.source)[:60]}): {self.rules[row.rule]}"

    @property
    def is_full(self) -> bool:
        """Whether so many seeds were played that coverage is promised."""
        return self.seeds >= FULL_RUN

    @property
    def is_good(self) -> bool:
        enough = not self.is_full or (not any(self.missed()) and self.failovers >= FAILOVERS_A_SEED * self.seeds)
        return not self.failed and enough

    def as_dict(self, took_s: float) -> dict[str, Any]:
        """For programs."""
        return {
            "seeds": self.seeds, "seconds": round(took_s, 1), "virtual_s": round(self.virtual_s), "failovers": self.failovers,
            "facts": self.facts, "commands": self.commands, "commands_by_script": self.by_script, "faults": dict(self.faults),
            "rules": dict(self.rules), "missed": list(self.missed(ENOUGH if self.is_full else 1)),
            "failed": {outcome.seed: outcome.violations for outcome in self.failed},
        }  # fmt: skip

    def lines(self, took_s: float) -> Iterator[str]:
        """For people."""
        seeds = max(1, self.seeds)
        speed = self.seeds / max(took_s, 0.001)
        yield f"{self.seeds} seeds in {took_s:.0f} s ({speed:.1f} a second), {self.virtual_s / 3600:.0f} virtual hours"
        yield (
            f"{self.failovers} failovers ({self.failovers / seeds:.1f} a seed), {self.facts} facts, {self.commands} commands, of which "
            f"{self.by_script} by the plain sequence"
        )
        yield "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        rows = [row.rule for table in TABLES.values() for row in table.rows if row.rule not in UNREACHABLE]
        met = sum(1 for rule in rows if self.rules[rule])
        least = min(rows, key=lambda rule: self.rules[rule])
        yield f"table rows met: {met} of {len(rows)}, the rarest {least} {self.rules[least]} times; {len(UNREACHABLE)} cannot be met"
        missed = list(self.missed(ENOUGH if self.is_full else 1))
        yield from ([f"missed: {'; '.join(missed)}"] if missed else [])
