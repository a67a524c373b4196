"""N1 to N9 of the node protocol, one test or more each: who runs a verb on a node, and when.

Each was seen to fail with its rule's line taken out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.protocol.bench import BOOT, GROUP, LIMIT_S, ROOT, Node, Worker, answer_of, eventually, kill_hook_of, killed_at_end, running
from workers import files, journal, launcher, processes, reaper, tickets

LOOK = """\
#!/bin/sh
# a hook that notes which files of its ticket are there, and says that dcsup is not
while [ $# -gt 0 ]; do [ "$1" != --folder ] || folder=$2; [ "$1" != --ticket ] || ticket=$2; shift; done
for file in "$folder/tickets/$ticket".*; do echo "hook ${{file##*.}}" >>'{calls}'; done
exit 75
"""


def stranger() -> subprocess.Popen[bytes]:
    """A process that has nothing to do with any ticket."""
    return processes.spawn_leader([sys.executable, "-c", "import time; time.sleep(300)"])


def birth(pid: int) -> str:
    found = processes.born(pid)
    assert found is not None
    return found


def rename(node: Node, ticket: str, state: str) -> tickets.Ticket:
    """Bring a ticket into a state by hand, as another party would."""
    found = tickets.find(node.folder, ticket)
    assert found is not None
    target = found.path.with_name(f"{ticket}.{state}")
    found.path.rename(target)
    renamed = tickets.parse(target)
    assert renamed is not None
    return renamed


# N1


def test_n1_the_script_makes_the_ticket_before_it_calls_the_hook(node: Node) -> None:
    """N1: when the hook begins, ticket and sign of life are on the disk, and the ticket lists every command in order."""
    node.configure(DCSUP=node.script("look", LOOK.format(calls=node.calls)))
    assert node.call("start.sh", "FAILOVER", CLP_SERVER_PREV="node2") == 0
    assert node.recorded("hook") == ["hook alive", "hook open"]
    fields = files.read_fields(node.ticket().path)
    assert fields is not None
    assert (fields["event"], fields["previous"], fields["boot"], fields["group"]) == ("FAILOVER", "node2", BOOT, GROUP)
    assert tickets.commands_of(fields) == [(1, "agent", "recover"), (2, "server", "recover")]


def test_n1_without_a_ticket_nobody_else_can_run(node: Node) -> None:
    """N1: a job whose ticket is not on the disk runs nothing and says why."""
    answer = node.outcome(node.spec(f"{BOOT}-{GROUP}-1-start"))
    assert (answer["reason"], answer["exit"]) == ("no-ticket", 3)
    assert node.recorded() == []


# N2


def test_n2_of_two_claims_one_runs(node: Node) -> None:
    """N2: two launchers for the same command at the same time: one renames, the other finds the name gone and runs nothing."""
    for seq in range(1, 6):
        name = node.make_ticket(seq=seq)
        node.take("agent", "up")
        answers = [answer_of(process) for process in [node.launch(node.spec(name)) for _ in range(3)]]
        assert sorted(answer["outcome"] for answer in answers) == ["ok", "refused", "refused"]
    assert node.verbs() == ["agent start"] * 5


def test_n2_after_a_failed_rename_nothing_is_assumed(node: Node) -> None:
    """N2: whoever saw the ticket idle and is too late has nothing, neither to claim nor to give back."""
    name = node.make_ticket()
    seen = tickets.find(node.folder, name)
    assert seen is not None
    busy = tickets.claim(seen, 1, 11, "1")
    assert busy is not None
    assert tickets.claim(seen, 1, 12, "1") is None
    assert tickets.claim(busy, 1, 12, "1") is None
    assert tickets.release(busy) is not None
    assert tickets.release(busy) is None
    assert [found.path.name for found in node.tickets()] == [f"{name}.worker"]


@pytest.mark.parametrize("state", ["script", "script-1", "done", "void", "busy-1-1-1"])
def test_n2_only_an_open_or_idle_ticket_can_be_claimed(node: Node, state: str) -> None:
    """N2: what the script or another launcher has, or what is over, is not the worker's."""
    name = node.make_ticket()
    rename(node, name, state)
    assert node.outcome(node.spec(name))["outcome"] == "refused"
    assert node.recorded() == []


def test_n2_the_script_waits_for_a_command_under_way(node: Node) -> None:
    """N2: the hook dies while the worker's command runs: the script waits for its end, and runs only the next one."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    node.put("agent", "hold")
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        launched = node.launch(node.spec(ticket.id))
        eventually(lambda: node.verbs() == ["agent start"])
        kill_hook_of(script)
        eventually(lambda: is_pausing(script.pid))
        node.take("agent", "hold")
        assert answer_of(launched)["outcome"] == "ok"
        assert script.wait(LIMIT_S) == 0
    assert node.recorded("run", "end") == ["run agent start", "end agent start", "run server recover", "end server recover"]
    assert node.lines("FallbackTaken")[0]["reason"] == "hook-137"


# N3


def test_n3_the_child_is_the_claimer_and_writes_its_own_end(node: Node) -> None:
    """N3: the busy name carries the launcher's own process; with its worker dead the launcher still writes the end and gives back."""
    name = node.make_ticket()
    node.put("agent", "hold")
    program = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], start_new_session=True); time.sleep(300)"
    command = [sys.executable, "-c", program, *launcher.argv(node.spec(name))]
    worker = processes.spawn_leader(command, stdout=subprocess.DEVNULL)
    with killed_at_end(worker):
        busy = eventually(lambda: next((found for found in node.tickets() if found.state == "busy"), None))
        assert busy.pid is not None and busy.pid != worker.pid and processes.born(busy.pid) == busy.born
        worker.kill()
        worker.wait()
        node.take("agent", "hold")
        eventually(lambda: [found.state for found in node.tickets()] == ["worker"])
    entry = journal.read(node.folder, name, 1)
    assert entry is not None and (entry.state, entry.pid, entry.born) == ("ok", busy.pid, busy.born)
    assert [fact["result"] for fact in node.facts("CommandEnded")] == ["ok"]


def test_n3_at_its_limit_a_command_is_ended_with_all_that_it_started(node: Node) -> None:
    """N3: past the limit the launcher ends its whole group, sees it gone, and then writes `fail` with reason `limit`."""
    name = node.make_ticket()
    node.put("agent", "hang")
    launched = node.launch(node.spec(name, limit_s=1.5))
    grandchild = int(eventually(lambda: read_or_none(node.home / "agent.grandchild")))
    born = birth(grandchild)
    answer = answer_of(launched)
    assert (answer["outcome"], answer["reason"]) == ("fail", "limit")
    assert not processes.alive(grandchild, born)
    entry = journal.read(node.folder, name, 1)
    assert entry is not None and (entry.state, entry.fields["reason"]) == ("fail", "limit")
    assert [found.state for found in node.tickets()] == ["worker"]


def read_or_none(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def test_n3_a_group_lives_as_long_as_any_member(node: Node) -> None:
    """N3: with the launcher dead and its verb alive the command is still under way; who ends the group sees every member gone."""
    name = node.make_ticket()
    node.put("agent", "hang")
    launched = node.launch(node.spec(name))
    grandchild = int(eventually(lambda: read_or_none(node.home / "agent.grandchild")))
    grandchild_born, born = birth(grandchild), birth(launched.pid)
    launched.kill()
    launched.communicate()
    assert processes.group_alive(launched.pid, born)
    assert reaper.reap(node.folder, BOOT) == []
    assert processes.kill_group(launched.pid, born, LIMIT_S)
    assert not processes.alive(grandchild, grandchild_born)
    assert [(reaped.n, reaped.state) for reaped in reaper.reap(node.folder, BOOT)] == [(1, "lost")]


def test_n3_a_start_asks_dcstatus_first(node: Node) -> None:
    """N3: a service that is up already is not started: the end is `ok` with ran=0."""
    name = node.make_ticket()
    node.put("agent", "up")
    answer = node.outcome(node.spec(name))
    assert (answer["outcome"], answer["ran"]) == ("ok", False)
    assert node.recorded() == ["status agent"]
    assert [(fact["result"], fact["ran"]) for fact in node.facts("CommandEnded")] == [("ok", False)]


def test_n3_a_stop_does_not_ask_dcstatus(node: Node) -> None:
    """A stop always runs its verb: what dcstatus says proves nothing about what is half up."""
    name = node.make_ticket("stop", (("agent", "stop"),))
    assert node.outcome(node.spec(name, verb="stop"))["outcome"] == "ok"
    assert node.recorded() == ["run agent stop", "end agent stop"]


WITHOUT_PROC = """
import os, subprocess
from workers import processes
processes._has_proc = lambda: False
processes.lead_group()
child = subprocess.Popen(["sleep", "300"])
birth = processes.born(child.pid)
assert processes.alive(child.pid, birth) and processes.group_alive(os.getpid(), processes.born(os.getpid()))
processes.end_others(child)
assert child.wait() == -9 and not processes.alive(child.pid, birth)
leader = processes.spawn_leader(["sleep", "300"])
birth = processes.born(leader.pid)
assert processes.kill_group(leader.pid, birth) and not processes.group_alive(leader.pid, birth)
"""


def test_n3_groups_are_seen_through_ps_where_there_is_no_proc() -> None:
    """N3: on a system without /proc the same questions are answered by `ps`, which is never counted as a member itself."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_PROC], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_n3_a_file_is_held_from_before_the_claim_until_after_the_release(node: Node) -> None:
    """N3: how a batch file sees that the process lives: it cannot delete that file then. A launcher that cannot hold it runs nothing."""
    name = node.make_ticket()
    live = journal.live_path_of(node.folder, name, 1)
    node.put("agent", "hold")
    launched = node.launch(node.spec(name))
    eventually(lambda: node.verbs() == ["agent start"])
    assert live.exists()
    node.take("agent", "hold")
    assert answer_of(launched)["outcome"] == "ok"
    assert not live.exists()
    second = node.make_ticket(seq=2)
    node.outcome(node.spec(second, verb="recover"))
    assert not journal.live_path_of(node.folder, second, 1).exists()
    (node.folder / "journal").rename(node.home / "journal")
    (node.folder / "journal").write_text("a file")
    assert node.outcome(node.spec(second))["reason"] == "disk"
    assert node.verbs() == ["agent start"]
    assert tickets.find(node.folder, second) is not None


def test_n2_a_ticket_that_is_held_by_a_reader_is_tried_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """N2: on Windows a batch file that reads a ticket keeps it from being renamed for a moment: that is no lost race."""
    really, failures = Path.rename, [PermissionError(), PermissionError()]

    def rename_later(path: Path, target: Path) -> Path:
        if failures:
            raise failures.pop()
        return really(path, target)

    monkeypatch.setattr(Path, "rename", rename_later)
    found = tickets.find(node.folder, node.make_ticket())
    assert found is not None
    monkeypatch.setattr(tickets, "RENAME_TRIES", 2)
    assert tickets.claim(found, 1, 11, "1") is None
    monkeypatch.setattr(tickets, "RENAME_TRIES", 50)
    failures += [PermissionError(), PermissionError()]
    busy = tickets.claim(found, 1, 11, "1")
    assert busy is not None and busy.state == "busy"


# N4


def test_n4_a_mark_without_its_process_is_no_progress(node: Node) -> None:
    """N4: a busy name whose process is gone does not keep the hook waiting: 75 after 5 s without progress, then the script goes on."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    node.put("agent", "hold")
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        launched = node.launch(node.spec(ticket.id))
        eventually(lambda: node.verbs() == ["agent start"])
        os.killpg(launched.pid, 9)
        launched.communicate()
        node.take("agent", "hold")
        assert script.wait(LIMIT_S) == 0
    assert node.lines("FallbackTaken")[0]["reason"] == "hook-75"
    assert node.verbs() == ["agent start", "agent start", "server recover"]


@pytest.mark.parametrize("boot", [BOOT, "boot0"])
def test_n4_a_stranger_behind_the_pid_is_never_killed(node: Node, boot: str) -> None:
    """N4: a process with another birth, or of another boot, is not ours: its ticket's command counts as lost, and it lives on."""
    other = stranger()
    with killed_at_end(other):
        born = birth(other.pid)
        name = node.make_ticket(boot=boot)
        rename(node, name, f"busy-1-{other.pid}-{born if boot != BOOT else '1'}")
        assert node.call("start.sh") == 0
        assert processes.alive(other.pid, born)
    found = tickets.find(node.folder, name)
    assert found is not None and found.state == "void"
    entry = journal.read(node.folder, name, 1)
    assert entry is not None and entry.state == "lost"


def test_n4_the_reaper_leaves_a_living_process_alone(node: Node) -> None:
    """N4: a command whose process lives is under way; with another birth, or in another boot, it is lost and the ticket given back."""
    other = stranger()
    with killed_at_end(other):
        born = birth(other.pid)
        name = node.make_ticket()
        rename(node, name, f"busy-1-{other.pid}-{born}")
        assert reaper.reap(node.folder, BOOT) == []
        rename(node, name, f"busy-1-{other.pid}-{born}0")
        assert reaper.reap(node.folder, BOOT) == [(name, 1, "lost")]
        rename(node, name, f"busy-2-{other.pid}-{born}")
        assert reaper.reap(node.folder, "boot2") == [(name, 2, "lost")]
        assert processes.alive(other.pid, born)


def test_n4_births_are_the_same_for_sh_and_python(node: Node) -> None:
    """N4: both sides name a process by the same birth, or each would take the other's processes for strangers."""
    program = f"dcsup_script=start; dcsup_here='{node.scripts}'; . \"$dcsup_here/lib.sh\"; birth_of {os.getpid()}; echo $birth"
    printed = subprocess.run(["/bin/sh", "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == processes.born(os.getpid())


# N5


@pytest.mark.parametrize("entry", ["start", "ok", "fail", "lost"])
def test_n5_the_journals_key_is_ticket_and_number(node: Node, entry: journal.State) -> None:
    """N5: whatever is recorded for (T, N), no launcher runs that command again, under any job id."""
    name = node.make_ticket()
    journal.write(node.folder, name, 1, entry, {})
    answer = node.outcome(node.spec(name))
    assert (answer["reason"], answer["detail"]) == ("already-run", entry)
    assert node.recorded() == []


def test_n5_the_journal_is_looked_at_again_after_the_claim(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """N5: a twin ran the command whole between check and claim: the second look finds it; nothing runs, the ticket goes back."""
    name = node.make_ticket()
    ours = launcher.Launcher(node.spec(name))
    checked = ours._check

    def check_and_then_the_twin() -> tickets.Ticket:
        ticket = checked()
        for state in ("start", "ok"):
            journal.write(node.folder, name, 1, state, {})
        return ticket

    monkeypatch.setattr(ours, "_check", check_and_then_the_twin)
    with pytest.raises(launcher.Refusal) as refusal:
        ours._claim()
    assert (refusal.value.reason, refusal.value.detail) == ("already-run", "ok")
    assert [found.state for found in node.tickets()] == ["worker"]
    assert node.recorded() == []


def test_n5_a_command_waits_for_its_turn(node: Node) -> None:
    """The second command of a start runs only when the first ended ok; of a stop, when it ended."""
    started = node.make_ticket()
    assert node.outcome(node.spec(started, 2, "server", "recover"))["reason"] == "not-its-turn"
    journal.write(node.folder, started, 1, "fail", {})
    assert node.outcome(node.spec(started, 2, "server", "recover"))["reason"] == "not-its-turn"
    stopped = node.make_ticket("stop", (("server", "faststop"), ("agent", "stop")), seq=2)
    journal.write(node.folder, stopped, 1, "fail", {})
    assert node.outcome(node.spec(stopped, 2, "agent", "stop"))["outcome"] == "ok"


def test_the_tickets_list_is_the_law(node: Node) -> None:
    """A job for a verb or service that the script did not list runs nothing."""
    name = node.make_ticket()
    for n, service, verb in ((1, "agent", "recover"), (1, "server", "start"), (3, "agent", "start")):
        assert node.outcome(node.spec(name, n, service, verb))["reason"] in ("not-listed", "not-its-turn")
    assert node.recorded() == []


def test_i2_a_server_is_not_started_while_its_agent_is_down(node: Node) -> None:
    """I2, G23: with the agent configured and not healthy the launcher refuses; a fresh status or a dcstatus of its own lets it run."""
    name = node.make_ticket("start", (("server", "recover"),))
    agent = {"service": "agent", "status": [str(node.bin / "dcstatus-agent")]}
    spec = node.spec(name, 1, "server", "recover", agent=agent)
    assert node.outcome(spec)["reason"] == "agent-down"
    node.put("agent", "up")
    assert node.outcome(spec)["outcome"] == "ok"


# N6


@pytest.mark.parametrize("bypass", [False, True])
def test_n6_a_stop_ends_what_a_start_left_unfinished(node: Node, bypass: bool) -> None:
    """N6: the stop script voids the start's ticket and ends the tree behind its busy name before it runs its own commands."""
    name = node.make_ticket()
    node.put("agent", "hang")
    launched = node.launch(node.spec(name))
    grandchild = int(eventually(lambda: read_or_none(node.home / "agent.grandchild")))
    born = birth(grandchild)
    node.take("agent", "hang")
    if bypass:
        node.bypass()
    assert node.call("stop.sh") == 0
    launched.communicate()
    assert not processes.alive(grandchild, born)
    found = tickets.find(node.folder, name)
    assert found is not None and found.state == "void"
    entry = journal.read(node.folder, name, 1)
    assert entry is not None and entry.state == "lost"
    assert next((line["ticket"], line["result"]) for line in node.lines("CommandEnded")) == (name, "lost")
    assert node.verbs() == ["agent start", "server faststop", "agent stop"]


@pytest.mark.parametrize("state", ["open", "worker", "script"])
def test_n6_every_other_ticket_of_the_group_becomes_void(node: Node, state: str) -> None:
    """N6: no older ticket of the group can be claimed any more; another group's is left alone."""
    name = node.make_ticket()
    rename(node, name, state)
    other = node.make_ticket(seq=2)
    moved = other.replace(GROUP, f"x-{GROUP}")
    (node.folder / "tickets" / f"{other}.open").rename(node.folder / "tickets" / f"{moved}.open")
    node.bypass()
    assert node.call("stop.sh") == 0
    states = {found.id: found.state for found in node.tickets()}
    assert (states[name], states[moved]) == ("void", "open")


def test_n6_a_later_script_waits_for_an_older_ones_plain_command(node: Node) -> None:
    """N6: the start script is killed, its plain command lives on: the stop waits for its mark before it stops anything."""
    node.bypass()
    node.put("agent", "hold")
    script = node.begin("start.sh")
    with killed_at_end(script):
        eventually(lambda: node.verbs() == ["agent start"])
        assert node.ticket().path.name.endswith(".script-1")
        script.kill()
        script.wait()
        stop = node.begin("stop.sh")
        with killed_at_end(stop):
            eventually(lambda: is_pausing(stop.pid))
            assert node.verbs() == ["agent start"]
            node.take("agent", "hold")
            assert stop.wait(LIMIT_S) == 0
    assert node.recorded("run", "end")[:3] == ["run agent start", "end agent start", "run server faststop"]


def is_pausing(pid: int) -> bool:
    """Whether the script sits in one of its short pauses."""
    return any(parent == pid and words == "sleep 0.1" for _, parent, words in running())


# N7


def test_n7_nobody_claims_for_a_script_that_is_gone(node: Node) -> None:
    """N7: with a sign of life older than 2 s, or a ticket of another boot, the launcher runs nothing."""
    name = node.make_ticket()
    past = time.time() - 2.5
    os.utime(tickets.alive_path(node.folder, name), (past, past))
    assert node.outcome(node.spec(name))["reason"] == "script-gone"
    tickets.alive_path(node.folder, name).unlink()
    assert node.outcome(node.spec(name))["reason"] == "script-gone"
    older = node.make_ticket(boot="boot0", seq=2)
    assert node.outcome(node.spec(older))["reason"] == "other-boot"
    assert node.recorded() == []


def test_n7_the_hook_refreshes_the_sign_of_life_and_ends_with_its_script(node: Node) -> None:
    """N7: while the hook waits the sign changes; when the script is killed the hook ends, and the sign stays as it is."""
    node.configure(DCSUP_ACK_TIMEOUT=60)
    script = node.begin("start.sh")
    with killed_at_end(script):
        name = eventually(lambda: next(iter(node.tickets()), None)).id
        alive = tickets.alive_path(node.folder, name)
        eventually(lambda: int(alive.read_text()) >= 3 and node.facts("StartHookCalled"))
        script.kill()
        script.wait()
        eventually(lambda: not hook_runs(name))
    eventually(lambda: not tickets.is_alive(node.folder, name))
    assert node.outcome(node.spec(name))["reason"] == "script-gone"


def hook_runs(ticket: str) -> bool:
    return any(" hook start " in words and ticket in words for _, _, words in running())


# N8


@pytest.mark.parametrize("code", [0, 40, 75])
def test_n8_a_script_closes_its_ticket_whatever_the_code(node: Node, code: int) -> None:
    """N8: after the script has returned nobody can claim its ticket."""
    node.configure(DCSUP=node.script("hook", f"#!/bin/sh\nexit {code}\n"))
    assert node.call("start.sh") == (40 if code == 40 else 0)
    assert [found.state for found in node.tickets()] == ["done"]
    assert not tickets.alive_path(node.folder, node.ticket().id).exists()
    assert [line["ticket"] for line in node.lines("ScriptEnded")] == [node.ticket().id]


def test_n8_while_busy_the_tree_is_ended_before_the_script_returns(node: Node) -> None:
    """N8: on the verdict 40 a command may still run: it is ended, and recorded as lost, before the start returns."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    node.put("agent", "hang")
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        launched = node.launch(node.spec(ticket.id))
        grandchild = int(eventually(lambda: read_or_none(node.home / "agent.grandchild")))
        born = birth(grandchild)
        assert tickets.write_verdict(node.folder, ticket.id, 40, "deadline")
        assert script.wait(LIMIT_S) == 40
        assert not processes.alive(grandchild, born)
        launched.communicate()
    assert node.ticket().state == "done"
    entry = journal.read(node.folder, ticket.id, 1)
    assert entry is not None and entry.state == "lost"


@pytest.mark.parametrize("bypass", [False, True])
def test_n8_a_script_that_is_told_to_end_closes_its_ticket_too(node: Node, bypass: bool) -> None:
    """N8: on SIGTERM the script ends what it waits for, closes the ticket, and returns."""
    if bypass:
        node.bypass()
        node.put("agent", "hang")
    else:
        node.configure(DCSUP_ACK_TIMEOUT=60)
    script = node.begin("start.sh")
    with killed_at_end(script):
        if bypass:
            grandchild = int(eventually(lambda: read_or_none(node.home / "agent.grandchild")))
            born = birth(grandchild)
        else:
            eventually(lambda: node.facts("StartHookCalled"))
        script.terminate()
        assert script.wait(LIMIT_S) == 1
    if bypass:
        assert not processes.alive(grandchild, born)
    assert node.ticket().state == "done"
    assert [line["code"] for line in node.lines("ScriptEnded")] == ["1"]


# N9


def test_n9_a_verdict_has_a_file_of_its_own(node: Node) -> None:
    """N9: a verdict never touches the ticket: not its name, not its content, whatever state it is in; a ticket that is over gets none."""
    name = node.make_ticket()
    for state in ("open", "worker", "busy-1-1-1", "script", "script-2"):
        ticket = rename(node, name, state)
        before = ticket.path.read_text()
        assert tickets.write_verdict(node.folder, name, 75, "paused")
        assert [found.path.name for found in node.tickets()] == [f"{name}.{state}"]
        assert ticket.path.read_text() == before
        assert tickets.read_verdict(node.folder, name) == (75, "paused")
    rename(node, name, "done")
    assert not tickets.write_verdict(node.folder, name, 40, "late")
    assert tickets.read_verdict(node.folder, name) == (75, "paused")


def test_worker_and_script_together_run_each_verb_once(node: Node) -> None:
    """I7 in small: a worker that comes and goes while scripts fall back; no verb runs twice for one ticket, none beside another."""
    node.configure(DCSUP_ACK_TIMEOUT="0.2")
    for _ in range(3):
        script = node.begin("start.sh")
        with killed_at_end(script), Worker(node):
            assert script.wait(LIMIT_S) == 0
        assert node.call("stop.sh") == 0
    runs = node.recorded("run", "end")
    assert [line.split(None, 1)[1] for line in runs[::2]] == [line.split(None, 1)[1] for line in runs[1::2]]
    assert node.verbs() == ["agent start", "server recover", "server faststop", "agent stop"] * 3


def test_finished_tickets_are_pruned_with_their_journals(node: Node) -> None:
    """The newest are kept, and nothing that is not over is touched."""
    names = [node.make_ticket(seq=seq) for seq in range(1, 6)]
    for name in names:
        journal.write(node.folder, name, 1, "ok", {})
    for name in names[:4]:
        rename(node, name, "done")
    assert tickets.prune(node.folder, keep=1) == 3
    assert [found.id for found in node.tickets()] == names[3:]
    assert sorted(path.name for path in (node.folder / "journal").iterdir()) == [f"{name}.1.ok" for name in names[3:]]
