"""One fixture per rule with exactly that violation, one clean installation, and missing evidence: error, silence, unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.checking.evidence import Evidence, NodeEvidence
from orchestrator.checking.judging import RULES, UNCHECKED, guide_numbers, is_bad, judge
from orchestrator.checking.rules import Rule
from orchestrator.clpconf.exported import Script
from tests.checking.installation import META, SCRIPT, changed, installation, looks

POLICY = '<policy name="NodeA"><order>0</order></policy><policy name="NodeB"><order>1</order></policy>'
SECOND_GROUP = (
    '<group name="failover1">',
    '<group name="failover2"><resource name="script@script2"/><policy name="NodeB"><order>0</order></policy></group>'
    '<group name="failover1">',
)
SECOND_SCRIPT = (
    '<types name="script"/>',
    '<types name="script"/><script name="script2"><depend name="sd1"/><depend name="fip1"/></script>',
)
IN_GROUP = ('<resource name="script@script1"/>', '<resource name="script@script1"/><resource name="script@script2"/>')
DBMS = (
    ('<resource name="sd@sd1"/>', '<resource name="sd@sd1"/><resource name="service@dbms1"/>'),
    ('<types name="sd"/>', '<service name="dbms1"/><types name="sd"/>'),
)
AGENT, SERVER = Script("failover1", "script2", False, (("agent", ""),)), Script("failover1", "script1", True, (("server", ""),))

OTHER_AGENT = Script("failover2", "script2", False, (("agent", ""),))
DEPENDS = '<depend name="sd1"/><depend name="fip1"/>\n'

VIOLATIONS: dict[str, Evidence] = {
    "G1-oneway": installation(conf=(SECOND_GROUP, SECOND_SCRIPT), scripts=(SCRIPT, OTHER_AGENT)),
    "G1-standby": installation(
        settings=(("clusters.pair.nodes", ["nodea"]),),
        conf=((POLICY, '<policy name="NodeA"><order>0</order></policy>'),),
        nodes=(NodeEvidence("nodea", "pair", looks()), NodeEvidence("nodea-old", "pair", looks())),
    ),
    "G2-databases": installation(settings=(("clusters.pair.services.0.databases", "local"),)),
    "G4-verbs": installation(settings=(("clusters.pair.services.1.verbs", {"stop": "stop"}),)),
    "G22-pace": installation(settings=(("clusters.pair.watch", {"interval": 30}),)),
    "G23-order": installation(conf=(IN_GROUP, SECOND_SCRIPT), scripts=(AGENT, SERVER)),
    "G24-dbms": installation(settings=(("clusters.pair.services.0.databases", "local"),), conf=DBMS),
    "G25-address": installation(
        conf=(("<types name=\"fip\"/>", '<types name="fip"/><fip name="fip2"/>'),
              ('<resource name="fip@fip1"/>', '<resource name="fip@fip1"/><resource name="fip@fip2"/>')),
    ),
    "G25-disk": installation(conf=(('<resource name="sd@sd1"/>', ""),)),
    "G27-local": installation(settings=(("node.services.server.command", ["E:\\DataCoordinatorRA\\server\\bin\\dcserver.bat"]),)),
    "G27-root": installation(settings=(("node.services.server.command", ["C:\\server\\bin\\dcserver.bat"]),)),
    "G27-same": installation(second=(("commands.server.path", "D:\\DataCoordinatorRA\\server\\bin\\dcserver.bat"),)),
    "G28-host": installation(settings=(("clusters.pair.endpoints.0.host", "10.0.0.1"),)),
    "G29-disk": installation(metadata_path="C:\\meta"),
    "G29-root": installation(metadata_path="E:\\"),
    "G30-account": installation(second=((f"services.{META}.account", ".\\other"),)),
    "G31-port": installation(second=(("metadata_listening", True),)),
    "G33-manual": installation(second=((f"services.{META}.startup", "auto"),)),
    "G34-disk": installation(shared_folder="C:\\shared"),
    "G34-root": installation(shared_folder="E:\\"),
    "G35-same": installation(shared_folder="e:\\META"),
    "G36-answers": installation(second=(("endpoints.server", False),)),
    "G40-monitor": installation(conf=(('<appliw name="appliw1"><target>appli1<', '<appliw name="appliw1"><target>appli9<'),)),
    "G40-order": installation(conf=(('<depend name="script1"/>', '<depend name="sd1"/>'),)),
    "G40-recovery": installation(conf=(("<fo2>1</fo2>", "<fo2>0</fo2>"),)),
    "G40-resident": installation(conf=(("<resident>1<", "<resident>0<"),)),
    "G40-script": installation(
        conf=(('<resource name="script@script1"/><resource name="appli@appli1"/>', '<resource name="appli@appli1"/>'),), scripts=()
    ),
    "G44-metadata": installation(settings=(("clusters.pair.metadata", None),)),
    "N-bound-start": installation(settings=(("clusters.pair.start", {"deadline": 900}),)),
    "N-bound-stop": installation(settings=(("clusters.pair.stop", {"deadline": 900}),)),
    "N-clock": installation(second=(("redis.clock_s", -7.5),)),
    "N-commands": installation(second=(("commands.server.exists", False),)),
    "N-dcsup": installation(second=(("dcsup.callable", False),)),
    "N-folder-local": installation(second=(("folder.local", False),)),
    "N-folder-moves": installation(settings=(("node.folder", "E:\\dcsup"),)),
    "N-endpoint": installation(settings=(("orchestrator", {"listen": "0.0.0.0:9464", "open": True}),)),
    "N-folder-permissions": installation(second=(("permissions.1.writers", ["Users"]),)),
    "N-folder-writable": installation(second=(("folder.writable", False),)),
    "N-node-key": installation(settings=(("keys", {"pair": {"file": "C:\\dcsup\\pair.key"}}),)),
    "N-one": installation(scripts=(replace(SCRIPT, calls_dcsup=False),)),
    "N-redis": installation(second=(("redis", {"reachable": False, "why": "ConnectionError"}),)),
    "N-password": installation(settings=(("redis.url", "rediss://:CANARY-7f3a@redis.example:6379/0"),)),
    "N-redis-tls": installation(settings=(("redis.url", "redis://redis.example:6379/0"),)),
    "N-secret-files": installation(second=(("permissions.2.readers", ["Users"]),)),
    "N-settings-permissions": installation(second=(("permissions.0.writers", ["Everyone", "Users"]),)),
    "N-signed": installation(settings=(("node.key", None),)),
    "N-versions": installation(second=(("versions.dcsup", "0.2.0"),)),
    "C-alert": installation(conf=(("hook alert", "status"),)),
    "C-api": installation(conf=(("<api><use>1<", "<api><use>0<"),)),
    "C-depends": installation(conf=(('<depend name="sd1"/>', ""),)),
    "C-failback": installation(conf=(("<failback>0<", "<failback>1<"),)),
    "C-failover": installation(conf=(("<failover>1<", "<failover>0<"),)),
    "C-file": installation(conf=(("<interval>10<", "<interval>often<"),)),
    "C-final": installation(conf=(("<action>0</action></deact>", "<action>4</action></deact>"),)),
    "C-group": installation(settings=(("clusters.pair.group", "failover9"),)),
    "C-nodes": installation(conf=((POLICY, POLICY.replace(">0<", ">5<")),)),
    "C-normal": installation(conf=(("<normalval>0<", "<normalval><"),)),
    "C-resource-timeout": installation(conf=(("<act><timeout>1980<", "<act><timeout>1800<"),)),
    "C-start": installation(conf=(("<start>1</start><failover>", "<start>0</start><failover>"),)),
    "C-sync": installation(conf=(("<act><normalval>", "<act><sync>0</sync><normalval>"),)),
    "C-timeout": installation(settings=(("clusters.pair.clusterpro", {"script_timeout": 2400}),)),
    "C-tools": installation(second=(("tools.armsleep", False),)),
    "C-version": installation(conf=(("<savedversion>4.3.0-1<", "<savedversion>4.2.2-1<"),)),
}  # fmt: skip
"""Exactly the rule's violation, in an otherwise clean installation."""

UNJUDGED = {
    "G40-script": {"G40-order", "C-depends", "C-normal", "C-sync", "C-final", "C-timeout", "C-resource-timeout"},
    "G25-disk": {"G27-local", "G29-disk", "G34-disk", "N-folder-moves"},
    "N-redis": {"N-clock"},
    "G44-metadata": {"G30-account", "G31-port"},
    "C-group": {rule.id for rule in RULES if "clusterpro" in rule.sources} - {"C-group", "C-file", "C-alert", "C-api", "C-version"},
}
"""What else cannot be judged then, as unknown (the bound then uses the configuration alone)."""

BY_ID = {rule.id: rule for rule in RULES}


def told(evidence: Evidence) -> dict[str, set[str]]:
    """Severity -> rules."""
    found: dict[str, set[str]] = {}
    for finding in judge(evidence):
        found.setdefault(finding.severity, set()).add(finding.rule)
    return found


def test_every_rule_has_its_fixture() -> None:
    """A rule without a violation that shows it is a rule that nobody has seen work."""
    assert set(VIOLATIONS) == set(BY_ID)
    assert len(BY_ID) == len(RULES)


def test_a_clean_installation_has_no_finding() -> None:
    """Not even something unknown."""
    assert judge(installation()) == []


@pytest.mark.parametrize("rule_id", sorted(BY_ID))
def test_a_violation_gives_exactly_its_finding(rule_id: str) -> None:
    """Nothing else is said, but what then cannot be judged."""
    found = told(VIOLATIONS[rule_id])
    unknown = found.pop("unknown", set())
    assert found == {_severity(rule_id): {rule_id}}
    assert unknown <= UNJUDGED.get(rule_id, set())


def _severity(rule_id: str) -> str:
    """The rule's own, but where the finding itself is graver or lighter."""
    return {"N-clock": "error", "G25-address": "warning"}.get(rule_id, BY_ID[rule_id].severity)


@pytest.mark.parametrize("rule_id", sorted(BY_ID))
def test_a_finding_tells_all_that_a_person_needs(rule_id: str) -> None:
    """Number, what was found, why it matters, what to do."""
    (finding,) = [one for one in judge(VIOLATIONS[rule_id]) if one.rule == rule_id]
    assert finding.number == rule_id.partition("-")[0]
    assert str(finding.found) and str(finding.why) and str(finding.remedy)
    assert "{" not in str(finding.found)


@pytest.mark.parametrize("rule_id", sorted(BY_ID))
def test_without_any_evidence_a_rule_is_unknown(rule_id: str) -> None:
    """Nothing gathered: never silence, which would look like 'all is well'."""
    assert told_by(BY_ID[rule_id], Evidence()) == {"unknown"}


NEEDS = {"clusterpro": {"exported": None}, "node": {"nodes": ()}, "options": {"metadata_path": None, "shared_folder": None}}


@pytest.mark.parametrize("source", sorted(NEEDS))
def test_a_missing_source_makes_its_rules_unknown_and_no_others(source: str) -> None:
    """No exported configuration, no node, no path told: the rules that need it say so, the others still judge."""
    found = told(installation(**NEEDS[source]))  # type: ignore[arg-type]
    assert set(found) == {"unknown"}
    wanting = {rule.id for rule in RULES if source in rule.sources}
    judged_without = {"G2-databases", "G24-dbms", "N-bound-start", "N-bound-stop"}  # remote databases; the configuration's own timeout
    assert found["unknown"] == wanting - judged_without


@pytest.mark.parametrize(
    ("rule_id", "evidence"),
    [
        ("G1-oneway", installation(conf=(SECOND_GROUP, SECOND_SCRIPT), scripts=None)),
        ("G2-databases", installation(settings=(("clusters.pair.services.0.databases", None),))),
        ("G27-root", installation(settings=(("node.services.server.command", ["dcserver.bat"]),))),
        ("G27-same", installation(nodes=(NodeEvidence("nodea", "pair", looks()),))),
        ("G28-host", installation(settings=(("clusters.pair.endpoints.0.host", "dc.example"),))),
        ("G28-host", installation(settings=(("clusters.pair.endpoints", []),))),
        ("G31-port", installation(second=(("metadata_listening", True), (f"services.{META}.state", None)))),
        ("G33-manual", installation(second=(("services", None),))),
        ("G40-resident", installation(conf=(("<resident>1</resident>", ""),))),
        ("G40-resident", installation(conf=(("<serveros>windows<", "<serveros>linux<"), ("<resident>1</resident>", "")))),
        ("G40-recovery", installation(conf=(("<fo2>1</fo2>", ""),))),
        ("C-normal", installation(conf=(("<act><normalval>0</normalval></act>", ""),))),
        ("C-depends", installation(conf=(('<depend name="sd1"/><depend name="fip1"/>', ""),))),
        ("C-version", installation(conf=(("<savedversion>4.3.0-1</savedversion>", ""),))),
        ("C-api", installation(conf=(("<use>1</use>", ""),))),
        ("N-one", installation(scripts=None)),
        ("N-folder-permissions", installation(second=(("permissions.1.writers", {"x": None}),))),
        ("N-secret-files", installation(second=(("permissions", "none"),))),
    ],
)
def test_what_a_source_does_not_tell_is_unknown(rule_id: str, evidence: Evidence) -> None:
    """A source that is there and silent: unknown, not the likely answer."""
    assert told_by(BY_ID[rule_id], evidence) == {"unknown"}


def told_by(rule: Rule, evidence: Evidence) -> set[str]:
    return {finding.severity for finding in judge(evidence, [rule])}


@pytest.mark.parametrize(
    ("rule_id", "evidence"),
    [
        ("G1-oneway", installation(conf=(SECOND_GROUP, SECOND_SCRIPT), scripts=(SCRIPT,))),
        ("G23-order", installation(conf=(IN_GROUP, SECOND_SCRIPT, (DEPENDS, '<depend name="script2"/>')),
                                   scripts=(AGENT, SERVER))),
        ("G24-dbms", installation(settings=(("clusters.pair.services.0.databases", "local"),),
                                  conf=(*DBMS, ('<depend name="fip1"/>', '<depend name="fip1"/><depend name="dbms1"/>')))),
        ("G30-account", installation(second=((f"services.{META}.account", "NODEB\\necsys"),))),
        ("G31-port", installation(second=(("metadata_listening", True), (f"services.{META}.state", "running")))),
        ("C-nodes", installation(settings=(("clusters.pair.nodes", ["nodea", "nodeb"]),))),
        ("C-nodes", installation(conf=(("NodeB", "DB_2"),), settings=(("clusters.pair.clusterpro", {"servers": {"nodeb": "DB_2"}}),))),
        ("C-group", installation(conf=(("failover1", "Fail_1"),), settings=(("clusters.pair.clusterpro", {"group": "Fail_1"}),))),
        ("C-normal", installation(conf=(("<normalval>0<", "<normalval>0,2,4-6<"),))),
        ("N-clock", installation(second=(("redis.clock_s", -0.4),))),
        ("N-endpoint", installation(settings=(("orchestrator", {"listen": "0.0.0.0:1", "token_file": "t", "cert_file": "c"}),))),
        ("N-node-key", installation(settings=(("redis", {"embedded": "/var/lib/dcsup"}), ("keys", {"pair": {"file": "k"}})))),
        ("N-redis-tls", installation(settings=(("redis.url", "redis://localhost:6379/0"),))),
        ("N-redis-tls", installation(settings=(("redis.url", "unix:///run/redis.sock"),))),
        ("N-signed", installation(settings=(("redis", {"embedded": "/var/lib/dcsup"}), ("node.key", None)))),
        ("N-signed", installation(settings=(("keys", {"pair": {"file": "k"}}), ("node.key", None)))),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_violation_is_none(rule_id: str, evidence: Evidence) -> None:
    """Another group that runs something else; a dependency through others; the same account behind another machine's name."""
    assert told_by(BY_ID[rule_id], evidence) == set()


def test_two_callers_are_told() -> None:
    """NODE.md: a second script resource that calls dcsup is an error, whatever the mode."""
    twice = installation(
        settings=(("clusters.pair.mode", "observe"),), conf=(IN_GROUP, SECOND_SCRIPT), scripts=(SCRIPT, replace(SCRIPT, resource="script2"))
    )
    assert told_by(BY_ID["N-one"], twice) == {"error"}
    none = installation(settings=(("clusters.pair.mode", "observe"),), scripts=(replace(SCRIPT, calls_dcsup=False),))
    assert told_by(BY_ID["N-one"], none) == set()


def test_the_shorter_timeout_bounds_the_scripts() -> None:
    """CLUSTERPRO's own timeout counts where it is shorter than what the configuration says."""
    short = installation(conf=(("<start>1800</start>", "<start>1000</start>"), ("<act><timeout>1980<", "<act><timeout>1180<")))
    assert told(short) == {"error": {"N-bound-start", "C-timeout"}}


def test_a_shut_down_is_a_warning_where_failed_stops_are_reported() -> None:
    """stop.report_failure and CLUSTERPRO's default final action together take a node down."""
    evidence = VIOLATIONS["C-final"]
    assert evidence.settings is not None
    stop = evidence.settings.stop.model_copy(update={"report_failure": True})
    louder = replace(evidence, settings=evidence.settings.model_copy(update={"stop": stop}))
    assert told_by(BY_ID["C-final"], louder) == {"warning"}


@pytest.mark.parametrize(
    ("verbs", "words"),
    [
        ({"stop": "stop"}, "G5"),
        ({"start": "start"}, "G6"),
        ({"stop": "stop", "start": "start"}, "G6"),
    ],
)
def test_chosen_verbs_tell_what_becomes_of_the_schedules(verbs: dict[str, str], words: str) -> None:
    """G4-G6: which schedules run after a start depends on the verbs."""
    said = " ".join(str(one.found) for one in judge(installation(settings=(("clusters.pair.services.1.verbs", verbs),))))
    assert words in said


def test_the_guides_own_verbs_are_no_finding() -> None:
    """G8-G15 spelt out are still the guide's."""
    verbs = {"start": "start", "start_after_failover": "recover", "stop": "stop", "stop_after_failover": "faststop"}
    assert judge(installation(settings=(("clusters.pair.services.0.verbs", verbs),))) == []


def test_the_whole_guide_is_accounted_for() -> None:
    """G1-G44: each is checked or says why not, never both."""
    checked = {rule.number for rule in RULES}
    assert set(guide_numbers()) - checked == set(UNCHECKED)
    assert not checked & set(UNCHECKED)


def test_a_rule_that_breaks_is_unknown() -> None:
    """Our own fault must not look like a good answer."""

    def breaks(_evidence: Evidence) -> Any:
        raise KeyError("secret")

    (finding,) = judge(Evidence(), [replace(RULES[0], find=breaks)])
    assert finding.severity == "unknown"
    assert "KeyError" in str(finding.found)
    assert "secret" not in str(finding.found)


def test_evidence_from_a_file_may_be_anything() -> None:
    """A node's saved evidence in which nothing is what it should be: unknown or a finding, never a fault."""
    odd: list[Any] = [None, 1, "text", [], {}, True, {"x": 1}]
    for key in looks():
        for value in odd:
            seen = changed(looks(), key, value) if value is not None else {**looks(), key: None}
            judged = judge(replace(installation(), nodes=(NodeEvidence("nodea", "pair", looks()), NodeEvidence("nodeb", "pair", seen))))
            assert [str(one.found) for one in judged if "could not be judged" in str(one.found)] == []


def test_strict_makes_warnings_and_unknowns_bad() -> None:
    """Without it only errors are."""
    warning, unknown, note = (judge(VIOLATIONS["C-failback"]), judge(Evidence()), judge(VIOLATIONS["G22-pace"]))
    assert (is_bad(warning), is_bad(warning, strict=True)) == (False, True)
    assert (is_bad(unknown), is_bad(unknown, strict=True)) == (False, True)
    assert (is_bad(note), is_bad(note, strict=True)) == (False, False)
    assert is_bad(judge(VIOLATIONS["G25-disk"]))
