"""`dcsup import`: a dcsup.toml that is refused until a person has filled it in, and good afterwards."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from orchestrator.clpconf.exported import read_exported
from orchestrator.clpconf.naming import legal_name, node_names
from orchestrator.settings import ConfigurationError, load
from statemachines import wire
from tests.cli.conftest import Dcsup
from tests.clpconf.sample import CANARY, START_BAT, sample


def test_the_file_is_refused_until_it_is_filled_in_and_good_afterwards(dcsup: Dcsup, pulled: Path, tmp_path: Path) -> None:
    """The one thing that nobody could know and that is required is Redis; its line is told."""
    out = tmp_path / "dcsup.toml"
    answer = dcsup("import", pulled, "--out", out)
    assert answer.code == 0, answer.err
    with pytest.raises(ConfigurationError) as caught:
        load(out)
    assert [one.where for one in caught.value.mistakes] == ["redis.url"]
    out.write_text(out.read_text(encoding="utf-8").replace("FILL-IN", "redis://localhost:6379/0"), encoding="utf-8")
    configuration = load(out)
    cluster, node = configuration.clusters["pair"], configuration.node
    assert (cluster.mode, cluster.group, cluster.nodes) == ("observe", "failover1", ["nodea", "nodeb"])
    assert [one.kind for one in cluster.services] == ["agent", "server"]
    assert cluster.clusterpro.script_timeout == 1800
    assert node is not None and node.name == "nodea"
    assert node.services["server"].argv("recover") == ["C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat", "recover"]
    assert node.services["agent"].status == ["C:\\DataCoordinatorRA\\agent\\bin\\dcstatus.bat"]


def test_what_could_not_be_known_is_listed_on_screen_and_in_the_file(dcsup: Dcsup, pulled: Path) -> None:
    """And every guess says that it is one, and where it comes from."""
    answer = dcsup("import", pulled)
    for words in ("the address of Redis", "the port on which clients reach the server (G28)", "(G2): databases"):
        assert words in answer.err
        assert words in answer.out
    lines = answer.out.splitlines()
    assert lines[lines.index('name = "server"') - 1] == "# from the scripts of resource 'script1'"
    assert '# host = "10.0.0.9"' in lines


def test_without_scripts_services_are_guessed_and_said_so(dcsup: Dcsup, tmp_path: Path) -> None:
    """A file alone: from resources' names and start paths, else a server is assumed."""
    file = tmp_path / "clp.conf"
    file.write_bytes(sample())
    answer = json.loads(dcsup("import", file, "--json").out)
    assert [one["kind"] for one in answer["services"]] == ["server"]
    assert answer["services"][0]["why"].startswith("guess: nothing in the file tells")
    file.write_bytes(sample(("C:\\Program Files\\site\\watch.bat", "D:\\DCRA\\agent\\bin\\watch.bat")))
    answer = json.loads(dcsup("import", file, "--json").out)
    assert [(one["kind"], one["command"]) for one in answer["services"]] == [("agent", "D:\\DCRA\\agent\\bin\\dcagent.bat")]


def test_no_secret_reaches_file_screen_or_json(dcsup: Dcsup, pulled: Path, tmp_path: Path) -> None:
    """In either language, with findings too."""
    (pulled / "clp.conf").write_bytes(sample(("<start>1800</start>", f"<start>{CANARY}</start>")))
    for arguments in (("--out", tmp_path / "x.toml"), ("--json",), ()):
        answer = dcsup("import", pulled, *arguments)
        assert answer.code == 0
        assert CANARY not in answer.out + answer.err
    assert CANARY not in (tmp_path / "x.toml").read_text(encoding="utf-8")


def test_a_file_is_never_overwritten_without_force(dcsup: Dcsup, pulled: Path, tmp_path: Path) -> None:
    """And a folder that is not there is one sentence."""
    out = tmp_path / "dcsup.toml"
    out.write_text("mine", encoding="utf-8")
    answer = dcsup("import", pulled, "--out", out)
    assert (answer.code, out.read_text(encoding="utf-8")) == (2, "mine")
    assert "--force" in answer.err
    assert dcsup("import", pulled, "--out", out, "--force").code == 0
    assert "[redis]" in out.read_text(encoding="utf-8")
    assert dcsup("import", pulled, "--out", tmp_path / "none" / "x.toml").code == 2


def test_comments_are_in_the_readers_language(dcsup: Dcsup, pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as well as the screen; both are still TOML."""
    monkeypatch.setenv("DCSUP_LANG", "ja")
    answer = dcsup("import", pulled)
    assert "推測" in answer.out
    assert "the address of Redis" not in answer.out + answer.err
    assert tomllib.loads(answer.out)["clusters"]["pair"]["group"] == "failover1"


def test_names_that_dcsup_does_not_allow_are_mapped_and_said(dcsup: Dcsup, pulled: Path) -> None:
    """Upper case, underscores, Japanese, and one name that is the beginning of another."""
    (pulled / "clp.conf").write_bytes(sample(("NodeA", "DB_1"), ("NodeB", "DB_10"), ("<name>Pair<", "<name>基幹<")))
    answer = dcsup("import", pulled)
    assert tomllib.loads(answer.out)["clusters"]["cluster1"]["nodes"] == ["db-1-x", "db-10"]
    for words in ("'DB_1' is 'db-1-x'", "'DB_10' is 'db-10'", "'基幹' is 'cluster1'"):
        assert words in answer.err


def test_clusterpros_own_names_are_kept_for_its_commands(dcsup: Dcsup, pulled: Path) -> None:
    """Its commands want the group's and the servers' names as it has them."""
    (pulled / "clp.conf").write_bytes(sample(("NodeA", "DB_1"), ("failover1", "Failover_1")))
    cluster = tomllib.loads(dcsup("import", pulled).out)["clusters"]["pair"]
    assert (cluster["group"], cluster["clusterpro"]["group"]) == ("failover-1", "Failover_1")
    assert cluster["clusterpro"]["servers"]["db-1"] == "DB_1"


@pytest.mark.parametrize(
    "hosts",
    [["a", "ab", "abc"], ["db", "db"], ["A", "a"], ["日本", "東京"], ["x" * 40, "x" * 41], ["-", "--"], ["node1", "node1-x", "node1-y"]],
)
def test_node_names_are_always_legal(hosts: list[str]) -> None:
    """Whatever CLUSTERPRO calls them: allowed by themselves, and none a prefix of another."""
    names = list(node_names(list(dict.fromkeys(hosts))).values())
    assert all(wire.NAME.fullmatch(name) for name in names)
    assert not [1 for one in names for other in names if one is not other and other.startswith(one)]
    assert legal_name("", "otherwise") == "otherwise"


def test_the_group_must_be_clear(dcsup: Dcsup, pulled: Path) -> None:
    """Several groups with scripts: the question is put, not answered by chance. Scripts may answer it."""
    second = '<group name="failover2"><resource name="script@script2"/></group><group name="failover1">'
    changes = (('<group name="failover1">', second), ('<types name="script"/>', '<script name="script2"/>'))
    (pulled / "clp.conf").write_bytes(sample(*changes))
    assert 'group = "failover1"' in dcsup("import", pulled).out
    (pulled / "scripts" / "failover1" / "script1" / "start.bat").unlink()
    answer = dcsup("import", pulled)
    assert (answer.code, answer.out) == (2, "")
    assert "failover2, failover1" in answer.err and "--group" in answer.err
    assert 'group = "failover2"' in dcsup("import", pulled, "--group", "failover2").out
    assert dcsup("import", pulled, "--group", "none").code == 2
    assert dcsup("import", pulled, "--group", "failover1", "--node", "none").code == 2
    assert 'name = "nodeb"' in dcsup("import", pulled, "--group", "failover1", "--node", "NodeB").out


@pytest.mark.parametrize("content", [b"", b"nonsense", b"<!DOCTYPE root [<!ENTITY a 'x'>]><root>&a;</root>", b"<root/>", b"\xff" * 9])
def test_bad_files_are_one_sentence(dcsup: Dcsup, tmp_path: Path, content: bytes) -> None:
    """No traceback, exit code 2, the file's name, nothing on the standard output."""
    file = tmp_path / "clp.conf"
    file.write_bytes(content)
    for arguments in (("import", file), ("import", tmp_path / "none.conf"), ("import", tmp_path / "..")):
        answer = dcsup(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert str(arguments[1]) in answer.err
        assert "Traceback" not in answer.err and "fault of dcsup" not in answer.err


def test_scripts_tell_what_they_call_and_nothing_else(pulled: Path) -> None:
    """G23's order; a comment is no call; no text of a script is kept."""
    exported = read_exported(pulled)
    assert exported.scripts is not None
    (script,) = exported.scripts
    assert (script.group, script.resource, script.calls_dcsup) == ("failover1", "script1", False)
    assert dict(script.commands) == {
        "agent": "C:\\DataCoordinatorRA\\agent\\bin\\dcagent.bat",
        "server": "C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat",
    }
    assert CANARY not in repr(exported)
    file = pulled / "scripts" / "failover1" / "script1" / "start.bat"
    file.write_text(START_BAT + 'call "%DCSUP%" hook start\n', encoding="cp932")
    again = read_exported(pulled / "clp.conf").scripts
    assert again is not None and again[0].calls_dcsup
    file.write_bytes(b"/" * 900_000 + b"dcserver")
    assert read_exported(pulled).scripts is not None


@pytest.mark.parametrize("platform", ["windows", "linux"])
@pytest.mark.parametrize(("what", "calls"), [(("clusterpro",), True), (("clusterpro", "--fragment"), True), (("guide",), False)])
def test_rendered_scripts_are_known(dcsup: Dcsup, pulled: Path, tmp_path: Path, platform: str, what: tuple[str, ...], calls: bool) -> None:
    """The scripts that ask dcsup, the fragment of them, and the guide's own for going back are told apart (NODE.md: exactly one caller)."""
    config, out = tmp_path / "dcsup.toml", pulled / "scripts" / "failover1" / "script1"
    toml = dcsup("import", pulled).out.replace("FILL-IN", "redis://localhost:6379/0")
    config.write_text(toml.replace("C:\\", "/c/").replace("\\", "/") if platform == "linux" else toml, encoding="utf-8")
    (out / "start.bat").unlink()
    assert dcsup("render", *what, "--config", config, "--out", out, "--platform", platform).code == 0
    (script,) = read_exported(pulled).scripts or ()
    assert script.calls_dcsup is calls
    assert {kind for kind, _path in script.commands} == {"agent", "server"}


def test_scripts_that_cannot_be_read_are_unknown(pulled: Path) -> None:
    """Half of them must not look like all of them."""
    (pulled / "scripts" / "failover1" / "script1" / "stop.bat").symlink_to(pulled / "nowhere")
    assert read_exported(pulled).scripts is not None  # no file, so no script
    (pulled / "clp.conf").rename(pulled / "other.conf")
    alone = pulled.parent / "alone.conf"
    alone.write_bytes(sample())
    assert read_exported(alone).scripts is None
