"""What the demo shows of a failover: a line per event while it is under way, and the tables at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from deploy.sandbox.evidence import Round

# Phase, begin, end; spelled out once more on purpose: an expectation does not come from what it is to check.
PHASES = (
    ("detect", "symptom", "acted"),
    ("stop", "stop_called", "stop_ended"),
    ("takeover", "stop_ended", "start_called"),
    ("dispatch", "start_called", "first_command"),
    ("start", "first_command", "last_command"),
    ("verify", "last_command", "verified"),
    ("resume", "verified", "judged"),
)


@dataclass(frozen=True)
class Expectation:
    step: int
    text: str
    held: bool
    seen: str


@dataclass(frozen=True)
class Played:
    """One failover: the stand-ins' round and dcsup's record of it."""

    title: str
    round: Round
    record: dict[str, Any]


def progress(entry: dict[str, Any]) -> str | None:
    moves = ", ".join(f"{t['machine']} {t['from']} -> {t['to']}" for t in entry["transitions"])
    where = entry["node"] or "-"
    if entry["type"] == "CommandIssued":
        return f"{where}: {entry['service']} {entry['data']['verb']} issued ({entry['rule']})"
    if entry["type"] in ("LeadTaken", "FallbackTaken", "VerdictIssued", "ScriptDeclined", "WatchHookEnded", "InvariantViolated"):
        return f"{where}: {entry['type']} {json.dumps({k: v for k, v in entry['data'].items() if k != 'changes'}, ensure_ascii=False)}"
    return f"{where}: {moves} ({entry['rule']})" if moves else None


def phases(record: dict[str, Any]) -> str:
    told = [f"{name} {record['phases'][name]:.2f}" for name, _, _ in PHASES if name in record["phases"]]
    return ", ".join(told) + f"; total {record['total_s']:.2f} s"


def phase_table(played: list[Played]) -> Table:
    table = Table(title="Failovers by phase, in seconds")
    for column in ("what", "kind", "from", "to", *(name for name, _, _ in PHASES), "total", "outcome"):
        table.add_column(column, justify="left" if column in ("what", "kind", "from", "to", "outcome") else "right")
    for one in played:
        record = one.record
        cells = [f"{record['phases'][name]:.2f}" if name in record["phases"] else "-" for name, _, _ in PHASES]
        total = f"{record['total_s']:.2f}"
        table.add_row(one.title, record["kind"], record["node_from"], record["node_to"], *cells, total, record["outcome"])
    return table


def schedule_table(played: list[Played]) -> Table:
    table = Table(title="What became of the schedules")
    for column in ("what", "rule", "evidence age, s", "schedule", "outcome"):
        table.add_column(column)
    for one in played:
        for judgement in one.record["judgements"]:
            age = "-" if judgement["evidence_age_s"] is None else f"{judgement['evidence_age_s']:.1f}"
            rule = judgement["rule"] + (" assumed (G7)" if judgement["assumed"] else "")
            for verdict in judgement["schedules"]:
                style = {"missed": "red", "unexpected": "yellow"}.get(verdict["outcome"])
                table.add_row(one.title, rule, age, verdict["name"], verdict["outcome"], style=style)
    return table
