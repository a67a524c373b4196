"""The files as they are written for a node: line ends, code pages, paths; and the guide's own scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clusterpro import sources
from tests.wine.bench import Node, as_rendered, eventually
from tests.wine.matrix import NO_CLUSTER, NO_DISK, VERBS

AWAY = "code-75"
MakeNode = Callable[..., Node]
SCRIPTS = sources("windows")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_only_the_messages_hold_more_than_ascii(name: str) -> None:
    """So one file serves every code page; the Japanese messages survive cp932 unchanged."""
    text = SCRIPTS[name]
    assert text.isascii() or name.startswith("messages.")
    assert text.encode("cp932").decode("cp932") == text
    assert "\r" not in text and text.startswith(("@echo off\n", "rem "))


def test_both_languages_have_the_same_messages() -> None:
    """Every message of one is in the other, with its place for a word."""

    def shape(name: str) -> list[tuple[str, int]]:
        lines = [line for line in SCRIPTS[name].splitlines() if line.startswith("set ")]
        return [(line.split("=")[0], line.count("{}")) for line in lines]

    assert shape("messages.en.bat") == shape("messages.ja.bat")


def test_no_line_calls_a_label_that_is_not_there() -> None:
    """cmd notices a missing label only when it gets there, and then ends the script."""
    for name, text in SCRIPTS.items():
        labels = {line[1:].split()[0] for line in text.splitlines() if line.startswith(":")}
        for line in text.splitlines():
            words = line.replace(")", " ").split()
            inside = [words[n + 1][1:] for n, word in enumerate(words[:-1]) if word in ("goto", "call") and words[n + 1].startswith(":")]
            assert {label for label in inside if "%" not in label} <= labels, (name, line)
            if '.bat" :' in line and not line.startswith("rem"):
                called, _, label = line.split('.bat" :')[0].rpartition("%")[2], None, line.split('.bat" :')[1].split()[0]
                other = SCRIPTS[str(Path(name).parent / f"{called}.bat") if "/" in name else f"{called}.bat"]
                assert f"\n:{label}\n" in other, (name, line)


@pytest.mark.parametrize("home", ["with a space", "a & b (c)", "日本語", "表 予 ソ", "semi;colon, comma=equal"])
def test_paths_that_sites_have(make_node: MakeNode, home: str) -> None:
    """Blanks, `&`, parentheses, Japanese, letters whose second byte in cp932 is a backslash, and cmd's own separators."""
    node = make_node(home=home)
    assert node.run("start", CLP_EVENT="START", MODE="working")[0] == 0
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["agent start", "server recover", "server faststop", "agent stop"]
    assert node.tickets() == ["start.done", "stop.done"]


def test_japanese_messages_reach_the_cluster(make_node: MakeNode) -> None:
    """cp932 files on a Japanese Windows: cluster log and broadcast get the sentences whole."""
    node = make_node("server", DCSUP_LANG="ja")
    node.put("server", "fail")
    code, output = node.run("start", CLP_EVENT="START", MODE=AWAY)
    node.run("stop")
    assert code == 40
    assert "dcsup が応答しません(hook-75)。ガイドの手順で続行します。" in output
    assert node.calls(polls=False) == [
        "CLPLOGCMD|-m|DataCoordinator server を起動します。|-i|1|-l|INFO", "run server recover",
        "CLPLOGCMD|-m|DataCoordinator server を起動できませんでした。|-i|1|-l|ERR",
        "ARMBCAST|/MSG|クラスタが動作していません。DataCoordinator の起動・停止は行いません。|/A",
    ]  # fmt: skip


def test_an_unknown_language_is_english(make_node: MakeNode) -> None:
    """Messages that are not there must not keep a script from its work."""
    node = make_node("server", DCSUP_LANG="fr")
    node.run("start")
    assert node.calls() == [f"ARMBCAST|/MSG|{NO_CLUSTER}|/A"]


def test_files_in_utf_8_run_as_they_are_rendered(make_node: MakeNode) -> None:
    """With `chcp 65001` behind the first line. (Wine's cmd does not read batch files by it: Japanese in UTF-8 is for Windows to show.)"""
    node = make_node("server", home="plain", encoding="utf-8")
    script = node.scripts / "start.bat"
    script.write_bytes(script.read_bytes().replace(b"@echo off\r\n", b"@echo off\r\nchcp 65001 >nul\r\n", 1))
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["server recover"]


def test_what_clusterpro_says_is_never_obeyed(make_node: MakeNode) -> None:
    """Quotes, `&` and `>` in its variables are text: they reach the fact, and no command is made of them."""
    node = make_node("server")
    assert node.run("start", CLP_EVENT='STA"RT & echo x>owned', CLP_DISK='"|more')[0] == 1
    assert [(fact["event"], fact["disk"]) for fact in node.facts()] == [("START & echo x>owned", "|more")]
    assert not list(node.home.rglob("owned"))


# --- the guide's own sequence, for going back


@pytest.fixture
def guide(make_node: MakeNode) -> Callable[[str], Node]:
    """A node whose scripts are those of `render guide`."""

    def make(services: str) -> Node:
        node = make_node(services)
        for name in SCRIPTS:
            if not name.startswith(("guide/", "messages.")):
                (node.scripts / name).unlink()
        for name, text in SCRIPTS.items():
            if name.startswith("guide/"):
                (node.scripts / name.removeprefix("guide/")).write_bytes(as_rendered(text))
        return node

    return make


@pytest.mark.parametrize("event", ["START", "FAILOVER"])
def test_the_guides_scripts_do_its_plain_sequence_and_nothing_else(guide: Callable[[str], Node], event: str) -> None:
    """G8-G15, G19, G20, G23, G41: verbs, log lines, pauses before polls; no dcsup, and not one file in the node folder."""
    node = guide("agent server")
    assert node.run("start", CLP_EVENT=event)[0] == 0
    assert node.run("stop", CLP_EVENT=event)[0] == 0
    verb = {(kind, script): VERBS[kind, script, event] for kind in ("agent", "server") for script in ("start", "stop")}
    assert node.calls() == [
        "CLPLOGCMD|-m|Starting DataCoordinator agent.|-i|2|-l|INFO", f"run agent {verb['agent', 'start']}",
        f"end agent {verb['agent', 'start']}", "ARMSLEEP|10", "status agent",
        "CLPLOGCMD|-m|Starting DataCoordinator server.|-i|1|-l|INFO", f"run server {verb['server', 'start']}",
        f"end server {verb['server', 'start']}", "ARMSLEEP|20", "status server",
        "CLPLOGCMD|-m|Stopping DataCoordinator server.|-i|1|-l|INFO", f"run server {verb['server', 'stop']}",
        f"end server {verb['server', 'stop']}",
        "CLPLOGCMD|-m|Stopping DataCoordinator agent.|-i|2|-l|INFO", f"run agent {verb['agent', 'stop']}",
        f"end agent {verb['agent', 'stop']}",
    ]  # fmt: skip
    assert list(node.folder.iterdir()) == []


@pytest.mark.parametrize("script", ["start", "stop"])
def test_the_guides_scripts_run_nothing_without_cluster_or_disk(guide: Callable[[str], Node], script: str) -> None:
    """G16-G18, as in the samples with code 0."""
    node = guide("server")
    assert node.run(script)[0] == 0
    assert node.run(script, CLP_EVENT="START", CLP_DISK="FAILURE")[0] == 0
    assert node.run("start", CLP_EVENT="RECOVER")[0] == 0
    assert node.calls() == [f"ARMBCAST|/MSG|{NO_CLUSTER}|/A", f"ARMBCAST|/MSG|{NO_DISK}|/A"]


def test_the_guides_scripts_log_a_failure_and_go_on(guide: Callable[[str], Node]) -> None:
    """G19: as in the samples the code is 0, and the next service is started all the same."""
    node = guide("agent server")
    node.put("agent", "fail")
    assert node.run("start", CLP_EVENT="START")[0] == 0
    assert node.runs() == ["agent start", "server recover"]
    assert "CLPLOGCMD|-m|DataCoordinator agent could not be started.|-i|2|-l|ERR" in node.calls()


def test_the_guides_watch_polls_until_it_is_not_0(guide: Callable[[str], Node]) -> None:
    """G22."""
    node = guide("server")
    node.put("server", "up")
    watch = node.start("watch", "server")
    eventually(lambda: node.calls().count("status server") >= 2)
    node.take("server", "up")
    assert watch.end()[0] == 7


def test_the_guides_scripts_have_the_sites_places(guide: Callable[[str], Node]) -> None:
    """G21, G43."""
    node = guide("server")
    for place in ("start-failover-other", "recover", "before-stop", "after-stop"):
        node.place(place)
    node.run("start", CLP_EVENT="FAILOVER", CLP_SERVER="OTHER")
    node.run("start", CLP_EVENT="RECOVER")
    node.run("stop", CLP_EVENT="FAILOVER")
    assert [call for call in node.calls() if call.startswith("site")] == [
        "site start-failover-other", "site recover", "site before-stop", "site after-stop",
    ]  # fmt: skip
