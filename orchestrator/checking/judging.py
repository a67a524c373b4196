"""Every rule over the evidence, and the table that accounts for every rule of the guide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orchestrator.checking import of_clusterpro, of_configuration, of_nodes, of_security
from orchestrator.checking.evidence import Evidence, Missing
from orchestrator.checking.rules import SEVERITIES, Finding, Hit, Rule, Severity
from orchestrator.said import Said, say


def _order(rule: Rule) -> tuple[bool, str, int, str]:
    """The guide's rules first, by number."""
    return rule.number[0] != "G", rule.number[0], int(rule.number[1:] or 0), rule.id


RULES: tuple[Rule, ...] = tuple(sorted((*of_configuration.RULES, *of_clusterpro.RULES, *of_nodes.RULES, *of_security.RULES), key=_order))


def judge(evidence: Evidence, rules: Sequence[Rule] = RULES) -> list[Finding]:
    """What the rules find, the worst first; what cannot be known is a finding of severity `unknown`."""
    findings = [finding for rule in rules for finding in _of_rule(rule, evidence)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_rule(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    try:
        for hit in rule.find(evidence):
            yield _finding(rule, evidence, hit, hit.severity or rule.severity)
    except Missing as missing:
        yield _finding(rule, evidence, Hit(missing.said), "unknown")
    except Exception as error:  # a rule that breaks must not look like one that is kept
        yield _finding(rule, evidence, Hit(say("the rule could not be judged: {fault}", fault=type(error).__name__)), "unknown")


def _finding(rule: Rule, evidence: Evidence, hit: Hit, severity: Severity) -> Finding:
    return Finding(evidence.cluster, rule.id, rule.number, severity, hit.said, rule.why, rule.remedy, hit.place)


def is_bad(findings: Iterable[Finding], strict: bool = False) -> bool:
    """Whether the answer is bad: an error; with `strict`, a warning or something unknown too."""
    bad = {"error", "warning", "unknown"} if strict else {"error"}
    return any(finding.severity in bad for finding in findings)


# --- the whole guide ----------------------------------------------------------------------------------------------------------------

_SCRIPTS_DO = say("not an installation's setting: the scripts that dcsup renders do it, and are tested for it")
_CORE_DOES = say("not an installation's setting: dcsup judges it after every start")
_SEEN_WITH_VERBS = say("together with G4-verbs: other verbs than the guide's are told, with what they do to the schedules")

UNCHECKED: dict[str, Said] = {
    "G3": say("where the data lies is checked as G29 and G34; that it is taken over shows only in a failover: `dcsup runbook drill`"),
    "G5": _SEEN_WITH_VERBS,
    "G6": _SEEN_WITH_VERBS,
    "G7": _CORE_DOES,
    **{f"G{n}": _SEEN_WITH_VERBS for n in range(8, 16)},
    **{f"G{n}": _SCRIPTS_DO for n in range(16, 22)},
    "G26": say("the order of an installation leaves no trace; `dcsup runbook install-server` and `install-agent` lead through it"),
    "G32": say("memory is set in the installer and cannot be read from outside"),
    "G37": say("whether an agent is registered is only shown by Manager; `dcsup runbook register-agent` leads through it"),
    "G38": say("uninstalling is a procedure: `dcsup runbook uninstall-server`"),
    "G39": say("uninstalling is a procedure: `dcsup runbook uninstall-agent`"),
    "G41": _SCRIPTS_DO,
    "G42": say("what a site's own scripts do with a DBMS cannot be told; `dcsup render clusterpro --fragment` writes the lines to add"),
    "G43": say("the site's own code is the site's; the time that it may take is part of N-bound-start and N-bound-stop"),
}
"""Rules of the guide that no rule here checks, and why."""


def guide_numbers() -> list[str]:
    return [f"G{n}" for n in range(1, 45)]
