"""How a rule is written.

A rule is data: its number, what it looks at, why it matters, what to do, and a pure function from evidence to what it found. Numbers
are G (the guide), N (the node protocol and dcsup's own needs) and C (CLUSTERPRO's facts); several rules may share a number.
A rule yields nothing when all is well or when it does not concern this cluster, and raises `Missing` when it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from orchestrator.checking.evidence import Evidence
from orchestrator.said import Said

Severity = Literal["error", "warning", "information", "unknown"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "information", "unknown")
Source = Literal["configuration", "clusterpro", "scripts", "node", "options"]
Certainty = Literal["", "seen", "known", "inferred", "unsure"]
"""How sure CLUSTERPRO.md is of the fact behind a C rule."""


@dataclass(frozen=True)
class Hit:
    """What a rule's function yields: what was found, where, and how bad it is if that is not the rule's own severity."""

    said: Said
    place: str = ""
    severity: Severity | None = None


@dataclass(frozen=True)
class Rule:
    id: str
    """Unique and stable: `G27-root`."""
    checks: Said
    """What is checked, in half a sentence."""
    severity: Severity
    sources: tuple[Source, ...]
    why: Said
    remedy: Said
    find: Callable[[Evidence], Iterable[Hit]]
    certainty: Certainty = ""

    @property
    def number(self) -> str:
        """`G27`."""
        return self.id.partition("-")[0]


@dataclass(frozen=True)
class Finding:
    """One answer of the check."""

    cluster: str
    rule: str
    number: str
    severity: Severity
    found: Said
    why: Said
    remedy: Said
    place: str
