"""One test per rule of the guide that a batch file answers for (GUIDE.md, G8-G24, G41-G43); by the plain sequence, dcsup being away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wine.bench import Node, eventually, windows_path
from tests.wine.matrix import NO_CLUSTER, NO_DISK

AWAY = "code-75"
MakeNode = Callable[..., Node]

VERBS = [
    ("G8", "server", "start", "START", "recover"), ("G9", "server", "start", "FAILOVER", "recover"),
    ("G10", "server", "stop", "START", "faststop"), ("G11", "server", "stop", "FAILOVER", "faststop"),
    ("G12", "agent", "start", "START", "start"), ("G13", "agent", "start", "FAILOVER", "recover"),
    ("G14", "agent", "stop", "START", "stop"), ("G15", "agent", "stop", "FAILOVER", "faststop"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "service", "script", "event", "verb"), VERBS, ids=[row[0] for row in VERBS])
def test_the_verb_for_each_component_script_and_event(
    make_node: MakeNode, rule: str, service: str, script: str, event: str, verb: str
) -> None:
    """G8-G15: which verb, when."""
    node = make_node(service)
    assert node.run(script, CLP_EVENT=event, MODE=AWAY)[0] == 0
    assert node.runs() == [f"{service} {verb}"], rule


def test_a_site_may_choose_another_verb_that_the_guide_allows(make_node: MakeNode) -> None:
    """The guide allows start or recover, stop or faststop; anything else in the settings counts as not set."""
    node = make_node("server", DCSUP_VERB_server_start_START="start", DCSUP_VERB_server_stop_START="recover")
    node.run("start", CLP_EVENT="START", MODE=AWAY)
    node.run("stop", CLP_EVENT="START", MODE=AWAY)
    assert node.runs() == ["server start", "server faststop"]


def test_g16_nothing_is_started_on_a_node_that_is_back(node: Node) -> None:
    """G16: CLP_EVENT=RECOVER starts nothing and tells it, and the site's place for it is run."""
    node.place("recover")
    assert node.run("start", CLP_EVENT="RECOVER", CLP_DISK="FAILURE")[0] == 0
    assert node.calls() == ["site recover"]
    assert [(fact["type"], fact["reason"]) for fact in node.facts()] == [("ScriptDeclined", "recover")]


@pytest.mark.parametrize(("script", "event", "code"), [("start", "", 1), ("start", "start", 1), ("stop", "", 0), ("stop", "RECOVER", 0)])
def test_g17_without_a_cluster_one_says_so_and_runs_nothing(node: Node, script: str, event: str, code: int) -> None:
    """G17: CLP_EVENT missing or any other value; in a stop that includes RECOVER. A start does not return 0 for it."""
    assert node.run(script, **({"CLP_EVENT": event} if event else {}))[0] == code
    assert node.calls() == [f"ARMBCAST|/MSG|{NO_CLUSTER}|/A"]
    assert [fact["reason"] for fact in node.facts()] == ["cluster-not-running"]


@pytest.mark.parametrize(("script", "code"), [("start", 1), ("stop", 0)])
def test_g18_without_its_disk_nothing_runs(node: Node, script: str, code: int) -> None:
    """G18: CLP_DISK=FAILURE: an error by broadcast, no command."""
    assert node.run(script, CLP_EVENT="START", CLP_DISK="FAILURE")[0] == code
    assert node.calls() == [f"ARMBCAST|/MSG|{NO_DISK}|/A"]
    assert [fact["reason"] for fact in node.facts()] == ["disk-failure"]


def test_g19_lines_in_the_cluster_log_with_the_sites_own_id(make_node: MakeNode) -> None:
    """G19: INFO before a command, ERR if it fails."""
    node = make_node("server", DCSUP_LOG_ID_server="77")
    node.put("server", "fail")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 40
    assert node.calls(polls=False) == [
        "CLPLOGCMD|-m|Starting DataCoordinator server.|-i|77|-l|INFO", "run server recover",
        "CLPLOGCMD|-m|DataCoordinator server could not be started.|-i|77|-l|ERR",
    ]  # fmt: skip


def test_g20_a_pause_before_each_poll_until_dcstatus_is_0(make_node: MakeNode) -> None:
    """G20: 20 s before each poll of a server; it is up at the second."""
    node = make_node("server")
    node.put("server", "late", "comes-up")
    node.take("server", "up")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 0
    after = node.calls()[node.calls().index("end server recover") :]
    assert after == ["end server recover", "ARMSLEEP|20", "status server"]


def test_g20_the_polls_end_at_the_deadline(make_node: MakeNode) -> None:
    """G20 is without limit in the sample; here the start ends non-zero at its deadline, and not before one whole pause."""
    node = make_node("agent", DCSUP_START_DEADLINE="60", DCSUP_WAIT_agent="010")
    node.put("agent", "late")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 40
    pauses = [int(call.split("|")[1]) for call in node.calls() if call.startswith("ARMSLEEP|")]
    assert pauses[0] == 10 and len(pauses) > 1 and sum(pauses) <= 60
    assert node.calls(polls=False)[-1] == "CLPLOGCMD|-m|DataCoordinator agent was not healthy before the deadline.|-i|2|-l|ERR"


@pytest.mark.parametrize(("server", "branch"), [("HOME", "home"), ("OTHER", "other"), ("", "home")])
def test_g21_the_sites_code_tells_the_highest_priority_node_from_others(make_node: MakeNode, server: str, branch: str) -> None:
    """G21: CLP_SERVER=OTHER is not the highest-priority node, anything else counts as highest."""
    node = make_node("server")
    for place in ("start-normal-home", "start-normal-other", "start-normal"):
        node.place(place)
    node.run("start", CLP_EVENT="START", **({"CLP_SERVER": server} if server else {}))
    assert node.calls()[-1] == f"site start-normal-{branch}"


def test_g22_the_watch_ends_with_the_first_code_that_is_not_0(make_node: MakeNode) -> None:
    """G22: dcstatus, an interval apart, for as long as it is 0; on any other value end with that value."""
    node = make_node("server", DCSUP_INTERVAL="10")
    node.put("server", "up")
    watch = node.start("watch", "server", MODE=AWAY)
    eventually(lambda: node.calls().count("status server") >= 3)
    node.take("server", "up")
    assert watch.end()[0] == 7
    assert node.calls()[1:4] == ["status server", "ARMSLEEP|10", "status server"]


def test_g23_the_agent_first_and_last(node: Node) -> None:
    """G23: on one machine the agent is started before the server, and its dcstatus is 0 before that; a stop runs in reverse."""
    node.run("start", CLP_EVENT="START", MODE=AWAY)
    node.run("stop", CLP_EVENT="START", MODE=AWAY)
    assert node.runs() == ["agent start", "server recover", "server faststop", "agent stop"]
    calls = node.calls()
    assert "status agent" in calls[calls.index("end agent start") : calls.index("run server recover")]


def test_g23_the_server_is_not_started_beside_an_agent_that_is_not(node: Node) -> None:
    """G23: when the agent's start fails, the server's is not tried."""
    node.put("agent", "fail")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 40
    assert node.runs() == ["agent start"]


def test_g24_a_dbms_starts_and_stops_at_the_agents_place(make_node: MakeNode) -> None:
    """G24: a service of kind `command` has a start and a stop command of its own, and its own name and id in the cluster log."""
    node = make_node("my-db agent", DCSUP_KIND_my_db="command")
    path = windows_path(node.bin / "dcmy-db.bat")
    status = windows_path(node.bin / "dcstatus-my-db.bat")
    node.configure(DCSUP_START_my_db=f'"{path}" start', DCSUP_STOP_my_db=f'"{path}" stop', DCSUP_STATUS_my_db=f'"{status}"')
    assert node.run("start", CLP_EVENT="FAILOVER", MODE=AWAY)[0] == 0
    assert node.run("stop", CLP_EVENT="FAILOVER", MODE=AWAY)[0] == 0
    assert node.runs() == ["my-db start", "agent recover", "agent faststop", "my-db stop"]
    assert node.calls(polls=False)[0] == "CLPLOGCMD|-m|Starting my-db.|-i|3|-l|INFO"


def test_g41_nothing_is_checked_after_a_stop(node: Node) -> None:
    """G41: the script ends when the stop command returns."""
    node.put("server", "up", "stubborn")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert [call for call in node.calls() if call.startswith("status")] == []


def test_g41_unless_the_site_asks_for_it(make_node: MakeNode) -> None:
    """With DCSUP_REPORT_FAILURE=1 a service that is proved to run at the deadline makes the stop fail; an unknown one does not."""
    node = make_node("server", DCSUP_REPORT_FAILURE="1", DCSUP_STOP_DEADLINE="3")
    node.put("server", "up", "stubborn")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 1
    assert node.calls(polls=False)[-1] == "CLPLOGCMD|-m|DataCoordinator server is still running at the deadline.|-i|1|-l|ERR"
    node.put("server", "mute")
    node.configure(DCSUP_POLL_LIMIT="2")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    node.take("server", "mute")


def test_g42_the_scripts_are_called_from_a_script_that_handles_a_dbms(make_node: MakeNode) -> None:
    """G42: called from the site's own batch file, they leave its variables and its current directory alone, and return to it."""
    node = make_node("server")
    lines = [
        "@echo off",
        'set "ds_result=mine"',
        "cd /d C:\\windows",
        'call "%~dp0start.bat"',
        "echo %ERRORLEVEL% %ds_result% %CD%",
        "exit /b 5",
    ]
    (node.scripts / "own.bat").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    code, output = node.run("own", CLP_EVENT="START", MODE=AWAY)
    assert code == 5
    assert "0 mine C:\\windows" in output


@pytest.mark.parametrize(
    ("script", "event", "places"),
    [("start", "START", ["start-normal"]), ("start", "FAILOVER", ["start-failover"]), ("stop", "START", ["before-stop", "after-stop"])],
)
def test_g43_the_sites_own_code_has_its_place(make_node: MakeNode, script: str, event: str, places: list[str]) -> None:
    """G43: after a good start, before and after a stop; outside the commands."""
    node = make_node("server")
    for place in ("start-normal", "start-failover", "recover", "before-stop", "after-stop"):
        node.place(place)
    node.run(script, CLP_EVENT=event, MODE=AWAY)
    calls = [call for call in node.calls() if call.startswith(("site", "run"))]
    own = [f"site {place}" for place in places]
    assert [call for call in calls if call.startswith("site")] == own
    assert calls[0] == (own[0] if script == "stop" else calls[0]) and calls[-1] == own[-1]


def test_g43_the_sites_code_is_not_waited_for_beyond_its_limit(make_node: MakeNode) -> None:
    """G43: what hangs or fails there is written to the cluster log and changes nothing else."""
    node = make_node("server", DCSUP_SITE_LIMIT="2")
    node.place("before-stop", "exit 9")
    over = f'if not exist "{windows_path(node.home)}\\over" goto :hang'
    node.place("after-stop", f':hang\n"{windows_path(node.bin)}\\HOLD.exe" 1\n{over}')
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    (node.home / "over").write_text("")
    assert node.runs() == ["server faststop"]
    logged = [call.split("|")[2] for call in node.calls() if call.endswith("|-i|1|-l|ERR")]
    assert logged == [f"The script {place}.bat failed or took too long." for place in ("before-stop", "after-stop")]


def test_a_start_that_failed_does_not_reach_the_sites_code(make_node: MakeNode) -> None:
    """G43: business processing follows a start that is up, no other."""
    node = make_node("server")
    node.place("start-normal")
    node.put("server", "fail")
    node.run("start", CLP_EVENT="START", MODE=AWAY)
    assert "site start-normal" not in node.calls()
