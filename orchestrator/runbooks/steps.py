"""What a runbook is made of: a step, and how it can be seen that it holds.

A step's `id` is stable: it stands in progress files and in the log, so that a procedure can be taken up again after months. It is made
of what is done and where (`move.node2`), never of a position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "group-known", "values", "group-on", "moved", "rebooted", "port-free", "installed", "uninstalled", "manual", "serving", "check",
    "healthy", "no-maintenance", "schedules-known", "failed-over", "objectives",
]  # fmt: skip

PARTS: dict[str, str] = {
    "path": "G27", "server-host": "G28", "agent-host": "G28", "server-address": "G28", "metadata-new": "G29", "metadata-existing": "G29",
    "account": "G30", "port": "G31", "memory": "G32", "manual-server": "G33", "manual-agent": "G33", "folder-new": "G34",
    "folder-existing": "G34", "apart": "G35",
}  # fmt: skip
"""One setting of an installer each, and the rule that says what it must be."""


@dataclass(frozen=True)
class Verification:
    """What must hold when the step is done. Pure data: verifying.py knows how to look."""

    kind: Kind
    about: tuple[str, ...] = ()
    """What it is asked of: components, value names, service names or the id of another step, by kind."""


@dataclass(frozen=True)
class Step:
    """One thing that a person does.

    `kind` names its text, `parts` the installer's settings that are listed below it, `rules` the guide's rules that ask for it; `values`
    are filled into the text, beside those that the site gave.
    """

    id: str
    kind: str
    node: str | None
    rules: tuple[str, ...]
    verification: Verification | None = None
    parts: tuple[str, ...] = ()
    danger: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
