"""Schedules through a failover: what must come back is frozen at the first symptom, awaited after the verification, judged once.

Which rule applies, and what an outcome is, is pure arithmetic in `schedules.py`; when it is asked is said here (I4).
"""

from __future__ import annotations

from typing import Any

from statemachines import schedules
from statemachines.deciding import Deciding
from statemachines.states import FailoverStatus, Judgement, Observation, ScheduleStatus


class Judging(Deciding):
    """A step that knows about schedules."""

    def freeze_baseline(self) -> None:
        """What ran before the first symptom is what must come back: a dead node cannot be asked any more."""
        frozen: dict[str, Any] = {}
        for name, status in self.state.schedules.items():
            if status.owed or status.symptom_ms is not None:
                continue  # the last start's are not judged yet: what had to come back then still has to
            seen = self._seen_by_now(status)
            frozen[name] = {"baseline": seen.model_dump(mode="json") if seen else None, "symptom_ms": self.at_ms}
        if frozen:
            self.decide("ScheduleBaselineTaken", "I4", data={}, changes={"schedules": frozen})

    def _seen_by_now(self, status: ScheduleStatus) -> Observation | None:
        """The last observation that is not later than the fact, which may itself be told late."""
        return next((o for o in (status.latest, status.before) if o is not None and o.at_ms <= self.at_ms), None)

    def owe_schedules(self) -> dict[str, Any]:
        owed: dict[str, Any] = {}
        for name, status in self.state.schedules.items():
            if status.owed:
                continue
            baseline = status.baseline or self._seen_by_now(status)
            if baseline is not None or self.state.failover is not None:
                symptom_ms = self.at_ms if status.symptom_ms is None else status.symptom_ms
                seen = baseline.model_dump(mode="json") if baseline else None
                owed[name] = {"owed": True, "judgement": None, "baseline": seen, "symptom_ms": symptom_ms}
        return owed

    def await_schedules(self, rule: str) -> None:
        name = f"resume:{self.state.term}"
        if name not in self.state.deadlines:
            due = {name: self.due(self.settings.schedules.deadline)}
            self.decide("SchedulesAwaited", rule, data={}, changes={"deadlines": due})

    def judgement(self, name: str) -> Judgement:
        status, service = self.state.schedules[name], self.state.services[name]
        choice = schedules.rule_for(service.last_stop_verb, service.last_start_verb, self.settings.schedules.after_death)
        fresh = service.verified_ms is not None and status.latest is not None and status.latest.at_ms >= service.verified_ms
        observed = status.latest if fresh and self.settings.schedules.probe != "none" else None
        age_s = None
        if status.baseline is not None and status.symptom_ms is not None:
            age_s = round(max(0.0, status.symptom_ms - status.baseline.at_ms) / 1000, 3)
        return Judgement(
            service=name, rule=choice.rule, assumed=choice.assumed, evidence_age_s=age_s,
            schedules=schedules.judge(choice.rule, status.baseline, observed),
        )  # fmt: skip

    def judge(self, name: str) -> None:
        judgement = self.judgement(name).model_dump(mode="json")
        failover = self.state.failover
        changes: dict[str, Any] = {
            "schedules": {name: {"owed": False, "judgement": judgement, "baseline": None, "symptom_ms": None}},
            "services": {name: {"last_stop_verb": None}},
        }  # fmt: skip
        if failover is not None and not self._belongs_to(name, failover):
            failover = None
        if failover is not None:
            record = failover.model_dump(mode="json")
            record["judgements"] = [*record["judgements"], judgement]
            record["points"]["judged"] = self.at_ms
            record["clocks"]["judged"] = self.clock
            changes["failover"] = record
        self.decide(
            "ScheduleJudged", judgement["rule"], service=name, node=self.state.services[name].node,
            data={"judgement": judgement, "failover_id": failover.id if failover else None}, changes=changes,
        )  # fmt: skip
        self.fire_service(name, "schedules_judged", ["served"] if self.state.services[name].verified else [])

    def _belongs_to(self, name: str, failover: FailoverStatus) -> bool:
        """Whether a service's present start is this failover's, and not one from before its first symptom."""
        verified_ms, acted_ms = self.state.services[name].verified_ms, failover.points.get("acted")
        return verified_ms is not None and acted_ms is not None and verified_ms >= acted_ms

    def judge_served(self) -> None:
        """Judge what is owed by services that serve; of the others it stays owed until their next start (I4)."""
        for name, status in self.state.schedules.items():
            if status.owed and self.state.services[name].verified:
                self.judge(name)

    def end_if_all_judged(self) -> None:
        if not any(status.owed and self.state.services[name].verified for name, status in self.state.schedules.items()):
            self.clear_deadlines(f"resume:{self.state.term}")
            self.fire_failover("all_judged")
