"""What `dcsup render` writes for Windows, run by a Windows command interpreter as it is written (issue 3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.clusterpro import sources
from orchestrator.rendering.scripts import Files, guide
from tests.rendering.conftest import JAPANESE, Recipe
from tests.wine.bench import Node, windows_path

AWAY = "code-75"
MakeNode = Callable[..., Node]


def recipe_for(node: Node) -> Recipe:
    """A dcsup.toml for this node, an agent and a server on one machine."""
    boot = node.bin / "boot.bat"
    boot.write_bytes(b"@echo boot1\r\n")
    places = {kind: {"command": [_path(node, f"dc{kind}")], "status": [_path(node, f"dcstatus-{kind}")]} for kind in node.services}
    own = {
        "folder": windows_path(node.folder), "dcsup": [windows_path(node.bin / "dcsup.exe")], "clp_bin": windows_path(node.bin),
        "boot": [windows_path(boot)],
    }  # fmt: skip
    return Recipe("both", places=places, node=own, cluster={"group": "group-a"})


def _path(node: Node, name: str) -> str:
    return windows_path(node.bin / f"{name}.bat")


def install(node: Node, files: Files) -> None:
    """Lay rendered files where the page for the integrator says: below the node folder."""
    node.scripts = node.folder / "clusterpro"
    for name, content in files.items():
        path = node.scripts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(("encoding", "language", "starting"), [("cp932", "ja", "{} を起動します。"), ("utf-8", "en", "Starting {}.")])
def test_rendered_scripts_play_start_watch_and_stop(make_node: MakeNode, encoding: str, language: str, starting: str) -> None:
    """In both encodings; UTF-8 with paths of ASCII, for Wine's cmd does not read batch files by their code page."""
    node = make_node(home="with a space" if encoding == "utf-8" else "ノード 1 & (表)")
    install(node, recipe_for(node).files(encoding=encoding, language=language))
    assert node.run("start", CLP_EVENT="START", MODE="working")[0] == 0
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["agent start", "server recover", "server faststop", "agent stop"]
    assert node.calls()[0] == f"CLPLOGCMD|-m|{starting.format('DataCoordinator agent')}|-i|2|-l|INFO"
    assert node.tickets() == ["start.done", "stop.done"]
    assert node.run("watch-server", MODE=AWAY)[0] != 0, "Wine makes 1 of every code that passes a `call`"


def test_a_rendered_fragment_goes_into_scripts_that_handle_a_dbms(make_node: MakeNode) -> None:
    """G24, G42: the lines to paste, in the site's own start and stop scripts: the DBMS first and last, a failed start is passed on."""
    node = make_node()
    install(node, recipe_for(node).files(encoding="cp932", fragment=True))
    for script, before, behind in (("start", "dbms up", ""), ("stop", "", "dbms down")):
        lines = (node.scripts / f"paste-into-{script}.txt").read_bytes().decode("cp932").splitlines()
        own = [f'>>"{windows_path(node.calls_path)}" echo {words}' if words else "rem" for words in (before, behind)]
        text = "\r\n".join(["@echo off", own[0], *lines[:-1], own[1], lines[-1], ""])
        (node.scripts / f"own-{script}.bat").write_bytes(text.encode("cp932"))
    node.run("own-start", CLP_EVENT="FAILOVER", MODE=AWAY)
    assert node.run("own-stop", CLP_EVENT="FAILOVER", MODE=AWAY)[0] == 0
    said = [call for call in node.calls() if call.startswith(("run", "dbms"))]
    assert said == ["dbms up", "run agent recover", "run server recover", "run server faststop", "run agent faststop", "dbms down"]
    node.put("agent", "fail")
    assert node.run("own-start", CLP_EVENT="START", MODE=AWAY)[0] == 1


def test_the_rendered_guide_plays_the_plain_sequence(make_node: MakeNode) -> None:
    """`render guide`, for going back; in Japanese."""
    node = make_node()
    recipe = recipe_for(node)
    target = recipe.target(language="ja")
    install(node, guide(recipe.site(target), target, sources("windows"), JAPANESE))
    assert node.run("start", CLP_EVENT="FAILOVER")[0] == 0
    assert node.run("stop", CLP_EVENT="FAILOVER")[0] == 0
    assert node.runs() == ["agent recover", "server recover", "server faststop", "agent faststop"]
    assert not [call for call in node.calls() if call.startswith("DCSUP")]
