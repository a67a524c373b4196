"""`dcsup check` as an operator meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.checking.judging import RULES, guide_numbers
from tests.checking.installation import looks
from tests.cli.conftest import Dcsup
from tests.clpconf.sample import CANARY, sample

TOML = """\
[redis]
url = "redis://127.0.0.1:1/0"
[clusters.pair]
mode = "observe"
group = "failover1"
nodes = ["nodea", "nodeb"]
[[clusters.pair.services]]
name = "server"
kind = "server"
[clusters.pair.metadata]
[node]
name = "nodea"
cluster = "pair"
folder = 'C:\\ProgramData\\dcsup'
key = { env = "DCSUP_NODE_KEY" }
[node.services.server]
command = ['C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat']
status = ['C:\\DataCoordinatorRA\\server\\bin\\dcstatus.bat']
"""


WITH_PASSWORD = TOML.replace("redis://", "redis://:CANARY-7f3a@")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "dcsup.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_no_error_is_a_good_answer_and_unknown_is_said(dcsup: Dcsup, config: Path, pulled: Path) -> None:
    """0; what could not be checked is listed by what is missing; with --strict it is a bad answer."""
    answer = dcsup("check", "--config", config, "--clp-conf", pulled)
    assert answer.code == 0, answer.out
    assert "UNKNOWN" in answer.out and "no node was looked at" in answer.out
    assert "0 errors, 0 warnings, 0 notes" in answer.out
    assert dcsup("check", "--config", config, "--clp-conf", pulled, "--strict").code == 1
    assert max(map(len, answer.out.splitlines())) <= 120


def test_an_error_is_a_bad_answer_with_everything_a_person_needs(dcsup: Dcsup, config: Path, pulled: Path) -> None:
    """1; rule, what was found, why, what to do, and the line in the file."""
    raw = sample(('<resource name="fip@fip1"/>', ""))
    (pulled / "clp.conf").write_bytes(raw)
    answer = dcsup("check", "--config", config, "--clp-conf", pulled)
    assert answer.code == 1
    line = next(n for n, text in enumerate(raw.splitlines(), 1) if b'<group name="failover1">' in text)
    for words in ("ERROR  G25-address", "0 floating IPs", "what to do: add one floating IP", f"/root/group@failover1 ({line})"):
        assert words in answer.out
    config.write_text(TOML.replace('"failover1"', '"failover7"'), encoding="utf-8")
    assert "dcsup.toml:5 clusters.pair.group" in dcsup("check", "--config", config, "--clp-conf", pulled).out


def test_json_is_stable(dcsup: Dcsup, config: Path, pulled: Path) -> None:
    """The keys that programs may rely on; the worst first; the same twice."""
    first = dcsup("check", "--config", config, "--clp-conf", pulled, "--json")
    document = json.loads(first.out)
    assert set(document) == {"clusters", "findings"}
    keys = {"cluster", "rule", "number", "severity", "found", "why", "remedy", "place"}
    assert all(set(one) == keys for one in document["findings"])
    assert {one["severity"] for one in document["findings"]} == {"unknown"}
    assert dcsup("check", "--config", config, "--clp-conf", pulled, "--json").out == first.out


def test_warnings_alone_are_a_good_answer(dcsup: Dcsup, config: Path, pulled: Path) -> None:
    """Unless --strict says otherwise."""
    (pulled / "clp.conf").write_bytes(sample(("<failback>0<", "<failback>1<")))
    assert dcsup("check", "--config", config, "--clp-conf", pulled).code == 0


def test_clusterpros_configuration_alone_can_be_checked(dcsup: Dcsup, pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a dcsup.toml."""
    monkeypatch.chdir(pulled)
    (pulled / "clp.conf").write_bytes(sample(("<fo2>1<", "<fo2>0<")))
    answer = dcsup("check", "--clp-conf", pulled)
    assert answer.code == 1
    assert "G40-recovery" in answer.out
    assert "there is no dcsup.toml" in answer.err


def test_the_node_is_looked_at_and_another_compared(dcsup: Dcsup, config: Path, tmp_path: Path) -> None:
    """--node sees a Redis that does not answer; --save carries it elsewhere; --evidence brings another node's."""
    config.write_text(WITH_PASSWORD, encoding="utf-8")
    saved = tmp_path / "nodea.json"
    answer = dcsup("check", "--config", config, "--node", "--save", saved)
    assert answer.code == 1
    assert "N-redis" in answer.out
    assert "N-commands" in answer.out
    other = tmp_path / "nodeb.json"
    other.write_text(json.dumps({**looks(), "name": "nodeb", "cluster": "pair"}), encoding="utf-8")
    both = json.loads(dcsup("check", "--config", config, "--evidence", saved, "--evidence", other, "--json").out)
    assert {one["severity"] for one in both["findings"] if one["rule"] == "N-redis"} == {"error"}
    assert "CANARY" not in answer.out + answer.err + saved.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"name": 1, "cluster": "pair"}', "[" * 100_000])
def test_bad_evidence_is_refused(dcsup: Dcsup, config: Path, tmp_path: Path, content: str) -> None:
    """One sentence with the file's name."""
    file = tmp_path / "other.json"
    file.write_text(content, encoding="utf-8")
    answer = dcsup("check", "--config", config, "--evidence", file)
    assert (answer.code, answer.out) == (2, "")
    assert str(file) in answer.err


def test_wrong_use_is_said(dcsup: Dcsup, config: Path, tmp_path: Path) -> None:
    """2: no configuration, none of its clusters, --save without --node, a node without [node], a folder without clp.conf."""
    assert dcsup("check", "--config", tmp_path / "none.toml").code == 2
    assert dcsup("check", "--config", config, "--cluster", "none").code == 2
    assert dcsup("check", "--config", config, "--save", tmp_path / "x").code == 2
    assert dcsup("check", "--config", config, "--clp-conf", tmp_path / "nothing").code == 2
    assert dcsup("check", "--config", config, "--clp-conf", config.parent).code == 2
    config.write_text(TOML.partition("[node]")[0], encoding="utf-8")
    assert dcsup("check", "--config", config, "--node").code == 2
    config.write_text("[redis", encoding="utf-8")
    answer = dcsup("check", "--config", config)
    assert answer.code == 2 and "dcsup.toml:1" in answer.err


def test_no_secret_reaches_an_answer(dcsup: Dcsup, config: Path, pulled: Path) -> None:
    """Neither the file's nor the configuration's, whatever is found."""
    config.write_text(WITH_PASSWORD, encoding="utf-8")
    (pulled / "clp.conf").write_bytes(sample(("<interval>10<", f"<interval>{CANARY}<")))
    for arguments in ((), ("--json",), ("--node",)):
        answer = dcsup("check", "--config", config, "--clp-conf", pulled, *arguments)
        assert CANARY not in answer.out + answer.err


def test_the_table_of_rules_accounts_for_the_whole_guide(dcsup: Dcsup, monkeypatch: pytest.MonkeyPatch) -> None:
    """G1-G44, each with what is checked or why it is not; in both languages."""
    rows = json.loads(dcsup("check", "--rules", "--json").out)["rules"]
    assert set(guide_numbers()) <= {row["number"] for row in rows}
    assert {rule.id for rule in RULES} <= {row["rule"] for row in rows}
    assert all(bool(row["checks"]) != bool(row["reason"]) for row in rows)
    assert [row["number"] for row in rows if row["number"][0] == "G"] == sorted(
        (row["number"] for row in rows if row["number"][0] == "G"), key=lambda number: int(number[1:])
    )
    monkeypatch.setenv("DCSUP_LANG", "ja")
    japanese = json.loads(dcsup("check", "--rules", "--json").out)["rules"]
    assert [row["rule"] for row in japanese] == [row["rule"] for row in rows]
    assert all((row["checks"] or row["reason"]) != (other["checks"] or other["reason"]) for row, other in zip(rows, japanese, strict=True))
    assert "| G44-metadata" in dcsup("check", "--rules").out
