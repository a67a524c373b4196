"""A runbook as a Markdown page with boxes to tick, for paper: the steps in their order, a heading wherever the node changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from string import Formatter

from orchestrator.runbooks.plans import Shape
from orchestrator.runbooks.steps import Step
from orchestrator.runbooks.wording import facts, texts, word


def page(name: str, shape: Shape, steps: list[Step], values: Mapping[str, str], language: str) -> str:
    said = texts(language)
    words = said["words"]
    blank = words["blank"]
    missing = [one for one in _asked(steps, language) if one not in values and one not in facts(shape)]
    filled = {**{one: f"{blank} ({one})" for one in missing}, **values}
    lines = [f"# {said['runbooks'][name]}", "", f"{words['cluster']}: {shape.name}  ", f"{words['nodes']}: {facts(shape)['nodes']}", ""]
    lines += [words["paper-intro"], "", f"{words['done-by']} {blank} {words['when']} {blank}", ""]
    if missing:
        lines += [f"## {words['open-values']}", "", *(f"- {said['values'][one]} ({one}): {blank}" for one in missing), ""]
    number = 0
    for node, several in groupby(steps, key=lambda step: step.node):
        lines += [f"## {words['node'] + ' ' + node if node else words['any-node']}", ""]
        for step in several:
            number += 1
            lines += [*_step(number, step, shape, filled, language), ""]
    return "\n".join(lines)


def _asked(steps: list[Step], language: str) -> list[str]:
    """The values that the steps' texts fill in, in the order in which they are first needed."""
    said = texts(language)
    templates = [text for step in steps for text in (said["steps"][step.kind]["text"], *(said["parts"][part] for part in step.parts))]
    fields = [field for text in templates for _literal, field, _format, _conversion in Formatter().parse(text) if field]
    return [one for one in dict.fromkeys(fields) if one in said["values"]]


def _step(number: int, step: Step, shape: Shape, values: Mapping[str, str], language: str) -> Iterator[str]:
    worded = word(step, shape, values, language)
    words = texts(language)["words"]
    rules = f" ({', '.join(step.rules)})" if step.rules else ""
    yield f"- [ ] **{number}. {worded.title}**{rules} `{step.id}`"
    if step.danger:
        yield f"  **{words['danger']}**"
    yield ""
    yield from (f"  {line}".rstrip() for line in _spaced(worded.text))
    yield ""
    yield f"  {words['why']}: {worded.why}  "
    yield f"  {words['verified']}: {_verified(step, language)}  "
    yield f"  {words['done-by']} {words['blank']} {words['when']} {words['blank']} {words['note']} {words['blank']}"


def _spaced(text: str) -> Iterator[str]:
    """Markdown wants an empty line before a list or a block of commands."""
    before = ""
    for line in text.splitlines():
        kind = "    " if line.startswith("    ") else "-" if line.lstrip()[:1] in ("-", "1", "2", "3") else ""
        if kind and kind != before:
            yield ""
        before = kind
        yield line.removeprefix("  ") if kind == "-" else line


def _verified(step: Step, language: str) -> str:
    said = texts(language)
    found: str = said["checks"][step.verification.kind] if step.verification else said["words"]["by-person"]
    return found
