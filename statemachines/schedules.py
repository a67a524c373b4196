"""Which schedules must run after a start, and what came of them (G4-G7).

The rule follows from the verb that stopped the service last and the verb that started it. The guide is silent in places; there a schedule
that runs all the same is `unexpected`, which is information, while one that must run and does not is `missed`, which is the fault.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from statemachines.states import Observation, ScheduleVerdict

Rule = Literal["G4", "G5", "G6"]


class RuleChoice(NamedTuple):
    rule: Rule
    assumed: bool
    """G7: the guide does not say; taken as the named setting."""


def rule_for(last_stop: str | None, start_verb: str | None, after_death: Rule) -> RuleChoice:
    """The rule that a start stands under. `last_stop` None: nothing was stopped, node or process died (G7)."""
    if start_verb == "start":
        return RuleChoice("G6", False)
    if last_stop == "stop":
        return RuleChoice("G5", False)
    if last_stop == "faststop":
        return RuleChoice("G4", False)
    return RuleChoice(after_death, True)


def judge(rule: Rule, baseline: Observation | None, observed: Observation | None) -> list[ScheduleVerdict]:
    """Every schedule that must run, or runs without being asked for, with its outcome; in the order of its name.

    Under G4 what must run is what was started in `baseline`; under G5 and G6 what is automatic. What cannot be known, for want of the
    observation that the rule needs, is `unknown` and never `resumed` (I4).
    """
    before = {s.name: s for s in baseline.schedules} if baseline else None
    after = {s.name: s for s in observed.schedules} if observed else None
    if before is None and after is None:
        return [ScheduleVerdict(name="*", outcome="unknown")]
    known = after if before is None else before
    verdicts: list[ScheduleVerdict] = []
    for name in sorted({*(before or {}), *(after or {})}):
        seen = (after or {}).get(name)
        runs = None if after is None else seen is not None and seen.state == "started"
        if rule == "G4":
            required = None if before is None else name in before and before[name].state == "started"
        else:
            mode = seen or (known or {}).get(name)
            required = mode is not None and mode.startup_mode == "auto"
        if (outcome := _outcome(rule, required, runs)) is not None:
            verdicts.append(ScheduleVerdict(name=name, outcome=outcome))
    return verdicts


def _outcome(
    rule: Rule, required: bool | None, runs: bool | None
) -> Literal["resumed", "auto_started", "missed", "unexpected", "unknown"] | None:
    if required is None:
        return "unknown"
    if runs is None:
        return "unknown" if required else None
    if required:
        return "missed" if not runs else "resumed" if rule == "G4" else "auto_started"
    return "unexpected" if runs else None
