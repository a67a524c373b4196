"""`dcsup check`: whether an installation is as the guide, CLUSTERPRO and the node protocol want it.

It only looks. Exit code 0: no error; 1: there are errors (with --strict also for warnings and what is unknown); 2: wrong use. The
inspection of the node (workers/inspection.py) and the rules (orchestrator/checking) know nothing of each other; they meet here.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli import options, output
from orchestrator.cli.connection import chosen
from orchestrator.cli.stopping import BAD_ANSWER, WRONG_USE, Stop
from orchestrator.said import Said, say
from workers.messages import _

if TYPE_CHECKING:
    from orchestrator.checking.evidence import Evidence, NodeEvidence
    from orchestrator.checking.rules import Finding
    from orchestrator.clpconf.exported import Exported
    from statemachines.configuration import Configuration

_WIDTH = 110
"""Columns of a finding's sentences."""
_HEADINGS = {
    "error": say("ERROR"),
    "warning": say("WARNING"),
    "information": say("INFORMATION"),
    "unknown": say("UNKNOWN"),
}


def add(commands: options.Commands) -> None:
    parser = options.add_command(commands, "check", _("check an installation against the guide's rules"), run_check)
    options.config(parser)
    options.cluster(parser)
    clp_help = _("CLUSTERPRO's configuration: a clp.conf, or the folder that `clpcfctrl --pull` writes")
    parser.add_argument("--clp-conf", metavar=_("FILE"), default=None, help=clp_help)
    parser.add_argument("--node", action="store_true", help=_("look at this node itself; nothing is changed"))
    parser.add_argument("--save", metavar=_("FILE"), default=None, help=_("write what --node saw, for a check elsewhere"))
    parser.add_argument("--evidence", metavar=_("FILE"), action="append", help=_("what another node saw (--save); may be repeated"))
    parser.add_argument("--metadata-path", metavar=_("PATH"), default=None, help=_("where the metadata database is installed (G29)"))
    parser.add_argument("--shared-folder", metavar=_("PATH"), default=None, help=_("where the agent's shared folder is (G34)"))
    parser.add_argument("--strict", action="store_true", help=_("warnings, and what is unknown, are bad answers too"))
    parser.add_argument("--rules", action="store_true", help=_("show every rule instead, and whether it can be checked"))
    options.as_json(parser)


def run_check(arguments: argparse.Namespace) -> int:
    from orchestrator.checking.judging import is_bad, judge

    if arguments.rules:
        return _show_rules(arguments.json)
    gathered = _gathered(arguments)
    findings = [finding for evidence in gathered for finding in judge(evidence)]
    if arguments.json:
        output.show_json({"clusters": [evidence.cluster for evidence in gathered], "findings": [_document(one) for one in findings]})
    else:
        _show(findings, [evidence.cluster for evidence in gathered])
    return BAD_ANSWER if is_bad(findings, arguments.strict) else 0


# --- gathering ----------------------------------------------------------------------------------------------------------------------


def _gathered(arguments: argparse.Namespace) -> list[Evidence]:
    from orchestrator.checking.gathering import gather

    if arguments.save is not None and not arguments.node:
        raise Stop(WRONG_USE, say("--save writes what --node saw: give both"))
    exported = _exported(arguments.clp_conf)
    configuration = _configuration(arguments, exported)
    clusters = chosen(arguments, configuration) if configuration is not None else []
    nodes = _nodes(arguments, configuration)
    return gather(configuration, arguments.config, clusters, exported, nodes, arguments.metadata_path, arguments.shared_folder)


def _configuration(arguments: argparse.Namespace, exported: Exported | None) -> Configuration | None:
    """None: there is no dcsup.toml yet, and CLUSTERPRO's configuration alone is looked at.

    Raises:
        ConfigurationError: it is missing where it is needed, or wrong.
    """
    from orchestrator.settings import load

    needed = arguments.node or arguments.cluster or exported is None or arguments.config != "dcsup.toml"
    if not needed and not Path(arguments.config).exists():
        output.remark(say("there is no {file}: CLUSTERPRO's configuration alone is checked", file=arguments.config))
        return None
    return load(arguments.config)


def _exported(path: str | None) -> Exported | None:
    from orchestrator.clpconf.exported import read_exported
    from orchestrator.clpconf.reading import ClpConfError

    if path is None:
        return None
    try:
        return read_exported(path)
    except ClpConfError as error:
        raise Stop(WRONG_USE, say("{what}: {why}", what=path, why=error.said)) from None


def _nodes(arguments: argparse.Namespace, configuration: Configuration | None) -> list[NodeEvidence]:
    from orchestrator.checking.evidence import Unusable, node_evidence, saved_evidence

    nodes = []
    for path in arguments.evidence or ():
        try:
            nodes.append(saved_evidence(path))
        except Unusable as error:
            raise Stop(WRONG_USE, say("{what}: {why}", what=path, why=error.said)) from None
    if arguments.node and configuration is not None:
        seen = _inspected(arguments, configuration)
        nodes = [node_evidence(seen), *(node for node in nodes if node.name != seen["name"])]
    return nodes


def _inspected(arguments: argparse.Namespace, configuration: Configuration) -> dict[str, Any]:
    from workers.inspection import inspect

    if configuration.node is None:
        raise Stop(WRONG_USE, say("{file} has no [node] table: it does not say which node this is", file=arguments.config))
    seen = inspect(configuration, config_file=arguments.config)
    if arguments.save is not None:
        try:
            Path(arguments.save).write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise Stop(WRONG_USE, say("{file} cannot be written ({reason})", file=arguments.save, reason=error.strerror or error)) from None
    return seen


# --- showing ------------------------------------------------------------------------------------------------------------------------


def _document(finding: Finding) -> dict[str, str]:
    said = {"found": finding.found, "why": finding.why, "remedy": finding.remedy}
    about = {"cluster": finding.cluster, "rule": finding.rule, "number": finding.number, "severity": finding.severity}
    return {**about, "place": finding.place, **{key: output.words(one) for key, one in said.items()}}


def _show(findings: list[Finding], clusters: list[str]) -> None:
    for cluster in clusters:
        own = [finding for finding in findings if finding.cluster == cluster]
        output.show(say("cluster {name}", name=cluster or "-"))
        for severity in ("error", "warning", "information"):
            for finding in own:
                if finding.severity == severity:
                    _show_finding(finding)
        _show_unknown([finding for finding in own if finding.severity == "unknown"])
        print()
        output.show(_count(own))


def _show_finding(finding: Finding) -> None:
    print(f"\n{output.words(_HEADINGS[finding.severity])}  {finding.rule}")
    for said in (finding.found, finding.why, say("what to do: {remedy}", remedy=finding.remedy)):
        _paragraph(output.words(said))
    if finding.place:
        print(f"    {finding.place}")


def _show_unknown(findings: list[Finding]) -> None:
    """What could not be checked, by what is missing: one line for all rules that want the same."""
    if not findings:
        return
    print(f"\n{output.words(_HEADINGS['unknown'])}")
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        by_reason.setdefault(output.words(finding.found), []).append(finding.rule)
    for reason, rules in by_reason.items():
        _paragraph(reason)
        _paragraph(", ".join(rules), indent=8)


def _count(findings: list[Finding]) -> Said:
    counts = {name: sum(finding.severity == severity for finding in findings) for name, severity in _COUNTED.items()}
    return say("{errors} errors, {warnings} warnings, {notes} notes, {unknown} unknown", **counts)


_COUNTED = {"errors": "error", "warnings": "warning", "notes": "information", "unknown": "unknown"}


def _paragraph(text: str, indent: int = 4) -> None:
    """Folded to the width; Japanese characters take two columns each."""
    from rich.cells import cell_len

    width = max(40, _WIDTH * len(text) // max(1, cell_len(text)))
    print(textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False))


# --- the table of rules -------------------------------------------------------------------------------------------------------------


def _show_rules(as_json: bool) -> int:
    rows = rule_table()
    if as_json:
        output.show_json({"rules": rows})
        return 0
    columns = [_("rule"), _("severity"), _("what is checked, or why it is not"), _("from")]
    cells = ([row["rule"], row["severity"] or "-", row["checks"] or row["reason"], ", ".join(row["sources"]) or "-"] for row in rows)
    output.table(_("Rules"), columns, cells)
    return 0


def rule_table() -> list[dict[str, Any]]:
    """Every rule that is checked, and every rule of the guide that is not, with the reason; in the reader's language."""
    from orchestrator.checking.judging import RULES, UNCHECKED

    checked = [
        {
            "rule": rule.id,
            "number": rule.number,
            "severity": rule.severity,
            "checks": output.words(rule.checks),
            "why": output.words(rule.why),
            "remedy": output.words(rule.remedy),
            "sources": list(rule.sources),
            "certainty": rule.certainty,
            "reason": "",
        }
        for rule in RULES
    ]
    empty = {"severity": "", "checks": "", "why": "", "remedy": "", "sources": [], "certainty": ""}
    unchecked = [{"rule": number, "number": number, **empty, "reason": output.words(said)} for number, said in UNCHECKED.items()]
    return sorted([*checked, *unchecked], key=_row_order)


def _row_order(row: dict[str, Any]) -> tuple[bool, int, str]:
    number = str(row["number"])
    return number[0] != "G", int(number[1:] or 0), str(row["rule"])
