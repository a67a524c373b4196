"""The script's part of the node protocol (NODE.md, N1, N2, N6, N7, N8) with real processes, renames and files held open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wine.bench import BOOT, GROUP, LIMIT_S, Node, eventually, fields, windows_path

AWAY = "code-75"
MakeNode = Callable[..., Node]
COMMANDS = "commands=1\r\n1.service=server\r\n1.verb=recover\r\n"


def lay(node: Node, name: str, text: str = COMMANDS) -> Path:
    """A file of an older call."""
    path = node.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


def wait_for_change(path: Path) -> None:
    """Waits until a file says something else."""
    before = path.read_bytes()
    eventually(lambda: path.read_bytes() not in (before, b""))


def wait_for_steps(node: Node, count: int) -> None:
    """Waits until the scripts have waited for so many further seconds of theirs."""
    before = node.steps()
    eventually(lambda: node.steps() >= before + count)


# --- N1


def test_n1_the_ticket_is_there_before_the_hook_is_called(make_node: MakeNode) -> None:
    """N1: whole, with what CLUSTERPRO said and the list of commands; the hook gets its name and the script's sign of life."""
    node = make_node(DCSUP_HOOK_SILENCE="5")
    run = node.start("start", CLP_EVENT="FAILOVER", CLP_DISK="SUCCESS", CLP_SERVER="OTHER", CLP_SERVER_PREV="node1", MODE="hang")
    eventually(lambda: "DCSUP|hook|start" in node.calls())
    ticket = node.ticket("open")
    assert ticket is not None
    name = f"{BOOT}-{GROUP}-1-start"
    assert fields(ticket) == {
        "ticket": name, "boot": BOOT, "group": GROUP, "script": "start", "pid": "", "commands": "2", "1.service": "agent",
        "1.verb": "recover", "2.service": "server", "2.verb": "recover", "event": "FAILOVER", "disk": "SUCCESS", "server": "OTHER",
        "factor": "", "previous": "node1",
    }  # fmt: skip
    assert ticket.with_name(f"{name}.alive").exists()
    assert run.end()[0] == 0


@pytest.mark.parametrize("why", ["boot", "folder"])
def test_n1_without_a_ticket_only_the_plain_sequence_runs(make_node: MakeNode, why: str) -> None:
    """N1: no boot id, or a folder that takes no files: the hook is not called, and the guide's sequence runs whole."""
    node = make_node()
    if why == "boot":
        (node.home / "boot").write_text("")
    else:
        node.configure(DCSUP_FOLDER=windows_path(node.calls_path) + "\\folder")  # below a file
        node.calls_path.write_text("")
    assert node.run("start", CLP_EVENT="START")[0] == 0
    assert node.run("stop", CLP_EVENT="START")[0] == 0
    assert node.runs() == ["agent start", "server recover", "server faststop", "agent stop"]
    assert not [call for call in node.calls() if call.startswith("DCSUP")]


# --- N2


def test_n2_while_a_command_is_under_way_the_script_waits_for_it(make_node: MakeNode) -> None:
    """N2: the hook is gone, dcsup's launcher still runs the command: its end is waited for, and the command not run again."""
    node = make_node()
    node.put("agent", "hold")
    run = node.start("start", CLP_EVENT="START", MODE="split-75")
    eventually(lambda: [fact for fact in node.facts() if fact["type"] == "FallbackTaken"])
    wait_for_steps(node, 3)
    assert node.ticket("busy-1")
    node.take("agent", "hold")
    assert run.end()[0] == 0
    assert node.runs() == ["agent start", "server recover"]
    assert node.tickets() == ["start.done"]


def test_n2_a_command_beyond_its_limit_is_ended_before_another_runs(make_node: MakeNode) -> None:
    """N2, N3: past the limit its process is ended and seen gone, that is told, and then the script runs the command."""
    node = make_node("server", DCSUP_COMMAND_LIMIT="3")
    assert node.run("start", CLP_EVENT="START", MODE="split-hold-75")[0] == 0
    assert node.runs() == ["server recover"]
    told = [(fact["type"], fact.get("by"), fact.get("result")) for fact in node.facts()]
    assert told == [
        ("FallbackTaken", None, None), ("CommandEnded", "worker", "lost"), ("CommandStarted", "script", None),
        ("CommandEnded", "script", "ok"), ("ScriptEnded", None, None),
    ]  # fmt: skip
    eventually(lambda: not any("dcsup.exe" in line for line in node.processes()))


def test_n2_a_dead_claim_is_told_and_taken(make_node: MakeNode) -> None:
    """N4: a busy name whose process is gone is no progress: it is not waited for."""
    node = make_node("server")
    assert node.run("start", CLP_EVENT="START", MODE="before")[0] == 0
    assert node.runs() == ["server recover"]
    assert [fact["result"] for fact in node.facts() if fact["type"] == "CommandEnded"] == ["lost", "ok"]


def test_n2_a_ticket_that_could_not_be_taken_is_dead_to_others_and_taken_later(make_node: MakeNode) -> None:
    """N2, N7: the disk refuses the rename, so the script runs the guide's sequence without its ticket and gives no sign of life, so that
    nobody claims a command beside it; before its next command it tries again."""
    node = make_node("agent server", DCSUP_HOOK_SILENCE="100")
    node.put("agent", "late")
    node.put("server", "hold")
    run = node.start("start", CLP_EVENT="START", MODE="hang")
    ticket = eventually(lambda: node.ticket("open"))
    hold = [windows_path(node.bin / "HOLD.exe"), "100000", windows_path(ticket)]
    holder = node.windows.start(hold, node.home / "holder", node.home, {"RECORD_MS": "20"})
    eventually(lambda: "held" in (node.home / "holder").read_text())
    eventually(lambda: node.runs() == ["agent start"])
    assert node.ticket("open") == ticket
    sign = ticket.with_suffix(".alive").stat().st_mtime_ns
    eventually(lambda: node.calls().count("status agent") >= 4)
    assert ticket.with_suffix(".alive").stat().st_mtime_ns == sign
    holder.kill()
    holder.wait()
    node.put("agent", "up")
    eventually(lambda: node.ticket("script-2"))
    node.take("server", "hold")
    assert run.end()[0] == 0
    assert node.runs() == ["agent start", "server recover"]
    assert node.tickets() == ["start.done"]


# --- N6


def test_n6_older_tickets_of_the_group_become_void_and_no_others(make_node: MakeNode) -> None:
    """N6: also under bypass; another group's are not touched, not even that of a group whose name ends like ours."""
    node = make_node("server")
    ours = [f"{BOOT}-{GROUP}-900{n}-start.{state}" for n, state in enumerate(("open", "worker", "script", "busy-1-99-7", "script-1"))]
    others = [f"{BOOT}-other-9001-start.open", f"{BOOT}-my-{GROUP}-9001-start.worker", f"{BOOT}-{GROUP}-9009-start.done"]
    for name in (*ours, *others):
        lay(node, f"tickets/{name}")
    (node.folder / "dcsup.bypass").write_text("")
    assert node.run("stop", CLP_EVENT="START")[0] == 0
    left = sorted(path.name for path in (node.folder / "tickets").iterdir())
    assert left == sorted([*others, *(f"{name.rsplit('.', 1)[0]}.void" for name in ours), f"{BOOT}-{GROUP}-1-stop.done"])
    lost = [(fact["ticket"], fact["by"]) for fact in node.facts() if fact.get("result") == "lost"]
    assert lost == [(f"{BOOT}-{GROUP}-9003-start", "worker"), (f"{BOOT}-{GROUP}-9004-start", "script")]
    assert node.runs() == ["server faststop"]


def test_n6_a_command_of_dcsups_that_hangs_is_ended_by_the_next_stop(make_node: MakeNode) -> None:
    """N6: start script killed, its launcher alive: the stop ends that process, sees it gone, and then stops."""
    node = make_node("server")
    start = node.start("start", CLP_EVENT="START", MODE="split-hold-0")
    eventually(lambda: node.ticket("busy-1"))
    start.kill()
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["server faststop"]
    assert node.tickets() == ["start.void", "stop.done"]
    assert [fact["result"] for fact in node.facts() if fact["type"] == "CommandEnded"] == ["lost", "ok"]


def test_n6_a_plain_command_that_outlives_its_script_is_waited_for(make_node: MakeNode) -> None:
    """N6: the start script is killed while its own command runs; that runs on and writes its end, and only then the stop's runs."""
    node = make_node("server")
    node.put("server", "hold")
    start = node.start("start", CLP_EVENT="START", MODE=AWAY)
    eventually(lambda: "run server recover" in node.calls())
    start.kill()
    stop = node.start("stop", CLP_EVENT="START", MODE=AWAY)
    wait_for_steps(node, 3)
    assert node.ticket("script-1")
    node.take("server", "hold")
    assert stop.end()[0] == 0
    calls = [call for call in node.calls() if call.startswith(("run", "end"))]
    assert calls == ["run server recover", "end server recover", "run server faststop", "end server faststop"]
    assert node.tickets() == ["start.void", "stop.done"]


def test_n6_a_plain_command_that_died_with_its_script_is_not_waited_for(make_node: MakeNode) -> None:
    """N6, N4: a mark whose command no longer holds its file is void at once, and its command is told as lost."""
    node = make_node("server", DCSUP_COMMAND_LIMIT="100000")
    lay(node, f"tickets/{BOOT}-{GROUP}-9001-start.script-1")
    lay(node, f"journal/{BOOT}-{GROUP}-9001-start.1.live", "")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert [fact["by"] for fact in node.facts() if fact.get("result") == "lost"] == ["script"]


def test_n6_a_stranger_behind_a_used_id_is_never_ended(make_node: MakeNode) -> None:
    """N4: the busy name of a dead launcher carries the id of somebody else by now, who lives on."""
    node = make_node("server")
    words = [windows_path(node.bin / "dcsup.exe"), "hook", "start", "--folder", windows_path(node.folder)]
    environment = {"MODE": "hang", "RECORD": windows_path(node.calls_path)}
    stranger = node.windows.start(words, node.home / "stranger", node.home, environment)
    number = eventually(lambda: (node.folder / "hanging").exists() and (node.folder / "hanging").read_text())
    lay(node, f"tickets/{BOOT}-{GROUP}-9001-start.busy-1-{number}-1")
    lay(node, f"journal/{BOOT}-{GROUP}-9001-start.1.live", "")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert stranger.poll() in (None, 75), "it lives, or ended by itself"
    stranger.kill()
    stranger.wait(LIMIT_S)
    assert [fact["by"] for fact in node.facts() if fact.get("result") == "lost"] == ["worker"]


# --- N7


def test_n7_the_scripts_sign_of_life_ends_with_it(make_node: MakeNode) -> None:
    """N7: while the hook runs the script counts in T.pulse; killed, it counts no longer; the sign is gone when the call is over."""
    node = make_node("server", DCSUP_HOOK_SILENCE="100000")
    run = node.start("start", CLP_EVENT="START", MODE="hang")
    eventually(lambda: node.ticket("pulse"))
    pulse = node.ticket("pulse")
    assert pulse is not None
    for _ in range(3):
        wait_for_change(pulse)
    run.kill()
    node.run("stop", CLP_EVENT="START", MODE=AWAY)
    assert node.ticket("pulse") is None
    assert node.ticket("alive") is None


def test_n7_the_script_keeps_the_ticket_alive_while_it_waits_for_a_command(make_node: MakeNode) -> None:
    """N7: the hook is gone; the command under way still needs its script's sign of life."""
    node = make_node("server")
    node.put("server", "hold")
    run = node.start("start", CLP_EVENT="START", MODE="split-75")
    eventually(lambda: [fact for fact in node.facts() if fact["type"] == "FallbackTaken"])
    alive = node.ticket("alive")
    assert alive is not None
    before = alive.stat().st_mtime_ns
    eventually(lambda: alive.stat().st_mtime_ns > before)
    node.take("server", "hold")
    assert run.end()[0] == 0


# --- N8


@pytest.mark.parametrize(("mode", "code"), [("working", 0), ("split-hold-40", 40), ("split-hold-0", 0)])
def test_n8_the_ticket_is_closed_whatever_the_script_returns(make_node: MakeNode, mode: str, code: int) -> None:
    """N8: while it is busy, that process is ended first and told as lost."""
    node = make_node("server")
    assert node.run("start", CLP_EVENT="START", MODE=mode)[0] == code
    assert node.tickets() == ["start.done"]
    assert node.facts()[-1]["type"] == "ScriptEnded" and node.facts()[-1]["code"] == str(code)
    if mode != "working":
        assert [fact["result"] for fact in node.facts() if fact["type"] == "CommandEnded"] == ["lost"]
        eventually(lambda: not any("dcsup.exe" in line for line in node.processes()))


def test_a_start_whose_ticket_became_void_runs_nothing(make_node: MakeNode) -> None:
    """N2: a stop comes while the start's hook hangs: it voids the ticket, and the start then runs nothing and does not return 0."""
    node = make_node("server", DCSUP_HOOK_SILENCE="100000")
    start = node.start("start", CLP_EVENT="START", MODE="hang", RECORD_MS="20")
    eventually(lambda: "DCSUP|hook|start" in node.calls())
    node.configure(DCSUP_HOOK_SILENCE="5")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert start.end()[0] == 40
    assert node.runs() == ["server faststop"]


def test_two_starts_of_one_moment_have_two_tickets(make_node: MakeNode) -> None:
    """N1: numbers are given by making a folder, so two scripts never share one; and no verb is lost."""
    node = make_node("server")
    runs = [node.start("stop", CLP_EVENT="START", MODE=AWAY) for _ in range(3)]
    assert [run.end()[0] for run in runs] == [0, 0, 0]
    names = [path.name for path in (node.folder / "tickets").iterdir()]
    assert len({name.split("-")[3] for name in names}) == 3
    assert set(node.runs()) == {"server faststop"}
