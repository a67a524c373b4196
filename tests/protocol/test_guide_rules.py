"""The guide's rules in the scripts, G8-G23 and G41-G43, one test each, run under the system's own /bin/sh.

The plain sequence is run under bypass: that is the guide alone, without dcsup. That the verbs are the same with dcsup there is in
test_fallback.py (whoever runs them, the ticket's list is the law, and the script makes it).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocol.bench import Node, eventually, killed_at_end


@pytest.fixture
def plain(node: Node) -> Node:
    """A node whose scripts run the guide's sequence at once."""
    node.bypass()
    return node


def verb_of(node: Node, service: str, script: str, event: str) -> str:
    """The verb that a script ran for a service; its ticket must have said the same."""
    assert node.call(f"{script}.sh", event) == 0
    listed = {command.service: command.verb for command in node.ticket().commands()}
    ran = dict(line.split() for line in node.verbs())
    assert listed[service] == ran[service]
    return ran[service]


def test_g08_server_start_on_start_is_recover(plain: Node) -> None:
    """G8: the server is started with `recover` on a normal start."""
    assert verb_of(plain, "server", "start", "START") == "recover"


def test_g09_server_start_on_failover_is_recover(plain: Node) -> None:
    """G9: the server is started with `recover` after a failover."""
    assert verb_of(plain, "server", "start", "FAILOVER") == "recover"


def test_g10_server_stop_on_start_is_faststop(plain: Node) -> None:
    """G10: a server that was started normally is stopped with `faststop`."""
    assert verb_of(plain, "server", "stop", "START") == "faststop"


def test_g11_server_stop_on_failover_is_faststop(plain: Node) -> None:
    """G11: a server that came by failover is stopped with `faststop`."""
    assert verb_of(plain, "server", "stop", "FAILOVER") == "faststop"


def test_g12_agent_start_on_start_is_start(plain: Node) -> None:
    """G12: the agent is started with `start` on a normal start."""
    assert verb_of(plain, "agent", "start", "START") == "start"


def test_g13_agent_start_on_failover_is_recover(plain: Node) -> None:
    """G13: the agent is started with `recover` after a failover."""
    assert verb_of(plain, "agent", "start", "FAILOVER") == "recover"


def test_g14_agent_stop_on_start_is_stop(plain: Node) -> None:
    """G14: an agent that was started normally is stopped with `stop`."""
    assert verb_of(plain, "agent", "stop", "START") == "stop"


def test_g15_agent_stop_on_failover_is_faststop(plain: Node) -> None:
    """G15: an agent that came by failover is stopped with `faststop`."""
    assert verb_of(plain, "agent", "stop", "FAILOVER") == "faststop"


def test_site_may_choose_another_verb_that_the_guide_allows(plain: Node) -> None:
    """A start may be set to `start` or `recover`; a verb that is none of a start's is ignored."""
    plain.configure(DCSUP_VERB_server_start_START="start", DCSUP_VERB_agent_start_START="faststop")
    assert plain.call("start.sh", "START") == 0
    assert plain.verbs() == ["agent start", "server start"]


def test_g16_recover_starts_nothing(node: Node) -> None:
    """G16: on a node that rejoins, the start script runs nothing, makes no ticket, and returns 0."""
    assert node.call("start.sh", "RECOVER") == 0
    assert node.recorded() == []
    assert node.tickets() == []
    assert [line["reason"] for line in node.lines("ScriptDeclined")] == ["recover"]


@pytest.mark.parametrize(("script", "event", "code"), [("start", "", 1), ("start", "STANDBY", 1), ("stop", "", 0), ("stop", "RECOVER", 0)])
def test_g17_cluster_not_running(node: Node, script: str, event: str, code: int) -> None:
    """G17: without a known CLP_EVENT the scripts say so by broadcast and run nothing; a start is not up, a stop returns 0."""
    assert node.call(f"{script}.sh", event) == code
    (broadcast,) = node.recorded()
    assert broadcast.startswith("armbcast /MSG The cluster is not running") and broadcast.endswith("/A")
    assert node.tickets() == []
    assert [line["reason"] for line in node.lines("ScriptDeclined")] == ["cluster-not-running"]


@pytest.mark.parametrize(("script", "code"), [("start", 1), ("stop", 0)])
def test_g18_disk_failure(node: Node, script: str, code: int) -> None:
    """G18: without the switchable partition an error is broadcast and no command runs; a start is not up, a stop returns 0."""
    assert node.call(f"{script}.sh", "START", CLP_DISK="FAILURE") == code
    (broadcast,) = node.recorded()
    assert broadcast.startswith("armbcast /MSG The switchable partition")
    assert node.tickets() == []
    assert [(line["reason"], line["disk"]) for line in node.lines("ScriptDeclined")] == [("disk-failure", "FAILURE")]


def test_g19_cluster_log_lines(plain: Node) -> None:
    """G19: an INFO line with the service's id stands before each command, an ERR line behind one that failed."""
    plain.put("server", "fail")
    assert plain.call("start.sh", "START") == 40
    seen = plain.recorded("clplogcmd", "run ")
    assert [line.split()[0] for line in seen] == ["clplogcmd", "run", "clplogcmd", "run", "clplogcmd"]
    assert [line[-9:] for line in seen if line.startswith("clplogcmd")] == ["2 -l INFO", "1 -l INFO", "-i 1 -l ERR"[-9:]]


def test_g20_waits_before_each_poll_of_a_start(plain: Node) -> None:
    """G20: after a start command the script pauses 10 s (agent) or 20 s (server) before each dcstatus, until it is 0."""
    plain.put("server", "late")
    script = plain.begin("start.sh")
    with killed_at_end(script):
        eventually(lambda: len(plain.recorded("armsleep 20")) >= 2)
        plain.put("server", "up")
        assert script.wait(30) == 0
    after_agent = plain.recorded()[plain.recorded().index("end agent start") + 1 :]
    assert after_agent[:2] == ["armsleep 10", "status agent"]
    after_server = after_agent[after_agent.index("end server recover") + 1 :]
    assert after_server[:4] == ["armsleep 20", "status server", "armsleep 20", "status server"]


def test_g20_the_start_poll_ends_at_the_deadline(plain: Node) -> None:
    """The guide polls without limit; here a start that does not come up within its deadline is not up, and says so."""
    plain.configure(DCSUP_START_DEADLINE=1)
    plain.put("agent", "late")
    assert plain.call("start.sh") == 40
    assert plain.verbs() == ["agent start"]
    assert plain.recorded("clplogcmd")[-1].endswith("-i 2 -l ERR")


@pytest.mark.parametrize(("server", "branch"), [("OTHER", "other"), ("HOME", "home"), ("", "home")])
def test_g21_other_node_takes_its_own_branch(plain: Node, server: str, branch: str) -> None:
    """G21: CLP_SERVER=OTHER is not the highest-priority node; anything else counts as highest."""
    for place in ("home", "other"):
        extend(plain, f"start-normal-{place}")
    assert plain.call("start.sh", CLP_SERVER=server) == 0
    assert plain.recorded("site") == [f"site start-normal-{branch}"]


def test_g22_watch_lives_while_dcstatus_is_0_and_ends_with_its_value(plain: Node) -> None:
    """G22: dcstatus is polled an interval apart for as long as it is 0; on any other value the script ends with that value."""
    plain.put("server", "up")
    watch = plain.begin("watch.sh", "START", "server")
    with killed_at_end(watch):
        eventually(lambda: len(plain.recorded("armsleep 1")) >= 2)
        assert watch.poll() is None
        plain.take("server", "up")
        assert watch.wait(30) == 7
    assert plain.recorded()[:3] == ["status server", "armsleep 1", "status server"]


def test_g23_agent_starts_before_the_server_and_stops_after_it(plain: Node) -> None:
    """G23: on one machine the agent is up before the server is started; a stop goes the other way round."""
    assert plain.call("start.sh") == 0
    calls = plain.recorded()
    assert calls.index("end agent start") < calls.index("armsleep 10") < calls.index("run server recover")
    assert plain.call("stop.sh") == 0
    assert plain.verbs()[2:] == ["server faststop", "agent stop"]


def test_g23_server_is_not_started_without_its_agent(plain: Node) -> None:
    """G23: when the agent's start fails, the server is not started."""
    plain.put("agent", "fail")
    assert plain.call("start.sh") == 40
    assert plain.verbs() == ["agent start"]


def test_g41_nothing_is_checked_after_a_stop(plain: Node) -> None:
    """G41: the stop script ends when its last command returned: no dcstatus, no pause."""
    plain.put("agent", "up")
    assert plain.call("stop.sh") == 0
    assert plain.recorded()[-1] == "end agent stop"
    assert plain.recorded("status", "armsleep") == []


def test_g41_a_stop_returns_0_whatever_became_of_it(plain: Node) -> None:
    """A failed stop would make CLUSTERPRO shut the system down: 0, an ERR line, and the next service is stopped all the same."""
    plain.put("server", "fail", "up")
    assert plain.call("stop.sh") == 0
    assert plain.verbs() == ["server faststop", "agent stop"]
    assert plain.recorded("clplogcmd")[1].endswith("-i 1 -l ERR")


def test_stop_reports_a_failure_only_where_the_site_asked_for_it(plain: Node) -> None:
    """With report_failure a service that still runs at the deadline, as dcstatus proves, makes the stop return non-zero."""
    plain.configure(DCSUP_REPORT_FAILURE=1, DCSUP_STOP_DEADLINE=1)
    plain.put("server", "up", "stubborn")
    assert plain.call("stop.sh") == 1
    plain.take("server", "up", "stubborn")
    assert plain.call("stop.sh") == 0


def test_g42_a_site_calls_the_scripts_from_its_own(plain: Node, tmp_path: Path) -> None:
    """G42: the scripts can be lines of a script that also starts the DBMS, called from any folder, and their code tells how it went."""
    own = tmp_path / "own.sh"
    own.write_text(f"echo dbms up >>'{plain.calls}'\n'{plain.scripts}/start.sh' || exit 9\necho after >>'{plain.calls}'\n")
    plain.scripts.joinpath("own.sh").write_text(own.read_text())
    assert plain.call("own.sh") == 0
    assert (plain.recorded()[0], plain.recorded()[-1]) == ("dbms up", "after")


def test_g24_agent_starts_after_its_dbms_and_stops_before_it(plain: Node) -> None:
    """G24: called where the site starts and stops the DBMS instance, the scripts keep the agent inside the DBMS's life."""
    start, stop = (plain.scripts / f"own-{script}.sh" for script in ("start", "stop"))
    start.write_text(f"echo dbms up >>'{plain.calls}'\n'{plain.scripts}/start.sh' || exit 9\n")
    stop.write_text(f"'{plain.scripts}/stop.sh' || exit 9\necho dbms down >>'{plain.calls}'\n")
    assert plain.call("own-start.sh") == 0
    assert plain.call("own-stop.sh") == 0
    calls = plain.recorded()
    assert calls.index("dbms up") < calls.index("run agent start") < calls.index("run agent stop") < calls.index("dbms down")


def extend(node: Node, place: str, text: str = "") -> None:
    """Put one of the site's own scripts (G43) into its place."""
    (node.scripts / "site").mkdir(exist_ok=True)
    (node.scripts / "site" / f"{place}.sh").write_text(f"echo 'site {place}' >>'{node.calls}'\n{text}\n")


def test_g43_site_code_has_its_places(plain: Node) -> None:
    """G43: a normal start, a failover, a return to the cluster, and both sides of a stop each have a place for the site's own code."""
    for place in ("start-normal", "start-failover", "recover", "before-stop", "after-stop"):
        extend(plain, place)
    for script, event in (("start", "START"), ("start", "FAILOVER"), ("start", "RECOVER"), ("stop", "START")):
        assert plain.call(f"{script}.sh", event) == 0
    assert [line[5:] for line in plain.recorded("site")] == ["start-normal", "start-failover", "recover", "before-stop", "after-stop"]
    calls = plain.recorded()
    assert calls.index("end server recover") < calls.index("site start-normal")
    assert calls.index("site before-stop") < calls.index("run server faststop") < calls.index("site after-stop")


def test_g43_site_code_cannot_hold_up_or_fail_a_call(plain: Node) -> None:
    """The site's own code is ended at its limit, its failure is written to the cluster log, and the call's result stays."""
    plain.configure(DCSUP_SITE_LIMIT=1)
    extend(plain, "start-normal", "sleep 300")
    assert plain.call("start.sh") == 0
    assert plain.recorded("clplogcmd")[-1] == "clplogcmd -m The script start-normal.sh failed or took too long. -i 1 -l ERR"


def test_messages_are_complete_in_both_languages(plain: Node) -> None:
    """Every text that the scripts use exists in English and in Japanese, and a site chooses by its settings."""
    names = [[line.split("=")[0] for line in (plain.scripts / f"messages.{language}.sh").read_text("utf-8").splitlines() if "=" in line]
             for language in ("en", "ja")]  # fmt: skip
    assert names[0] == names[1]
    plain.configure(DCSUP_MESSAGES=plain.scripts / "messages.ja.sh")
    assert plain.call("start.sh", "") == 1
    assert "クラスタが動作していません" in plain.recorded()[0]
