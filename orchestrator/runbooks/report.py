"""What a failover drill showed, as a Markdown page: the verdict, the phases, the schedules, what clients saw, and who did what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.runbooks.plans import Shape
from orchestrator.runbooks.progress import Progress
from orchestrator.runbooks.steps import Step
from orchestrator.runbooks.verifying import judge
from orchestrator.runbooks.wording import texts, word
from statemachines.states import PHASES

State = Mapping[str, Any]


def report(progress: Progress, shape: Shape, steps: list[Step], language: str) -> str:
    """The whole page. The failover is the one that was found when the step `provoke` was recorded."""
    said = texts(language)
    words = said["report"]
    record = progress.records.get("provoke")
    failover: dict[str, Any] | None = record.seen.get("failover") if record else None
    lines = [f"# {words['title']}", "", f"**{words[_verdict(failover, progress, shape)]}**", ""]
    lines += _heading(progress, shape, words, said["words"])
    lines += ["", f"## {words['failover']}", ""]
    lines += [words["failover-none"]] if not failover else [*_failover(failover, progress, words)]
    lines += ["", f"## {words['steps']}", "", *_steps(progress, shape, steps, language), ""]
    return "\n".join(lines)


def _verdict(failover: dict[str, Any] | None, progress: Progress, shape: Shape) -> str:
    if failover is None:
        return "verdict-unknown"
    has_schedules = any(service.owns_schedules for service in shape.settings.services)
    return f"verdict-{judge(failover, progress.values.get('limit_s'), has_schedules).answer}"


def _heading(progress: Progress, shape: Shape, words: State, common: State) -> Iterator[str]:
    yield f"- {common['cluster']}: {shape.name}"
    yield f"- {common['nodes']}: {', '.join(shape.settings.nodes)}"
    yield f"- {common['run']}: {progress.run}"
    yield f"- {words['kind']}: {words['kind-' + progress.options.get('kind', 'move')]}"
    yield f"- {words['began']}: {_moment(progress.began)}, {_cell(progress.by)}"


def _failover(failover: State, progress: Progress, words: State) -> Iterator[str]:
    yield f"- {words['failover']}: {failover['id']} ({failover['kind']})"
    yield f"- {words['from-to']}: {failover['node_from'] or '-'}, {failover['node_to'] or '-'}"
    yield f"- {words['trigger']}: {failover['trigger'] or '-'}"
    yield f"- {words['outcome']}: {failover['outcome'] or failover['state']} {_cell(failover['reason'])}".rstrip()
    yield f"- {words['asked']}: {_cell(failover['requested_by'] or '-')} {_cell(failover['why'])}".rstrip()
    yield f"- {words['by-script']}: {failover['by_script']}"
    yield from ("", f"### {words['phases']}", "", *_phases(failover, progress, words))
    yield from ("", f"### {words['schedules']}", "", *_schedules(failover, words))
    yield from ("", f"### {words['outages']}", "", *_outages(failover, words))


def _phases(failover: State, progress: Progress, words: State) -> Iterator[str]:
    rows = [[phase, _seconds(failover["phases"].get(phase))] for phase, _begin, _end in PHASES]
    rows.append([f"**{words['total']}**", f"**{_seconds(failover['total_s'])}**"])
    rows.append([words["limit"], progress.values.get("limit_s") or words["no-limit"]])
    return _table([words["phase"], ""], rows)


def _schedules(failover: State, words: State) -> Iterator[str]:
    rows = [
        [one["name"], one["outcome"], *_evidence(judgement, words)]
        for judgement in failover["judgements"]
        for one in judgement["schedules"]
    ]
    columns = [words["schedule"], words["outcome"], words["rule"], words["evidence-age"]]
    return _table(columns, rows) if rows else iter([words["no-schedules"]])


def _evidence(judgement: State, words: State) -> list[str]:
    rule = f"{judgement['rule']}, {words['assumed']}" if judgement["assumed"] else judgement["rule"]
    return [rule, _seconds(judgement["evidence_age_s"])]


def _outages(failover: State, words: State) -> Iterator[str]:
    rows = [
        [one["endpoint"], words["still-down"] if one["up_ms"] is None else _seconds((one["up_ms"] - one["down_ms"]) / 1000)]
        for one in failover["outages"]
    ]
    return _table([words["endpoint"], words["outage"]], rows) if rows else iter([words["no-outages"]])


def _steps(progress: Progress, shape: Shape, steps: list[Step], language: str) -> Iterator[str]:
    said = texts(language)
    words = said["report"]
    rows = []
    for step in steps:
        record = progress.records.get(step.id)
        title = word(step, shape, progress.values, language).title
        if record is None:
            rows.append([title, words["state-open"], "", "", ""])
            continue
        seen = f" ({words['seen']})" if record.verified else ""
        rows.append([title, words[f"state-{record.outcome}"] + seen, record.by, _moment(record.wall), record.note])
    return _table([words["step"], words["outcome"], words["who"], said["words"]["when"], said["words"]["note"]], rows)


def _table(columns: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _cell(text: str) -> str:
    """Text of people that must not break out of its table, nor become markup."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(" ", timespec="seconds").replace("+00:00", "Z") if wall else "-"


def _seconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.2f}"
