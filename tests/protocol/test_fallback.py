"""The first law: with dcsup working, missing, crashing, hanging, bypassed, or on a full disk, the guide's sequence happens all the same."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.protocol.bench import LIMIT_S, Node, Worker, end_leftovers, eventually, kill_hook_of, killed_at_end
from workers import journal, tickets


def present(_node: Node) -> None:
    """dcsup is there, and so is its worker."""


def without_worker(_node: Node) -> None:
    """dcsup is there, and nobody takes the ticket."""


def missing(node: Node) -> None:
    node.configure(DCSUP=node.bin / "no-such-dcsup")


def crashing(node: Node) -> None:
    node.configure(DCSUP=node.script("crash", "#!/bin/sh\nexit 1\n"))


def hanging(node: Node) -> None:
    node.configure(DCSUP=node.script("hang", "#!/bin/sh\nsleep 300\n"), DCSUP_HOOK_SILENCE=2)


def bypassed(node: Node) -> None:
    node.bypass()


CONDITIONS = {present: None, without_worker: "hook-75", missing: "hook-127", crashing: "hook-1", hanging: "hook-silent", bypassed: "bypass"}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_start_and_stop_happen_whatever_dcsup_does(node: Node, condition: Callable[[Node], None]) -> None:
    """A start and the stop after it run every verb once, in order, and return 0; the outbox tells by whom, and why."""
    condition(node)
    if condition is present:
        with Worker(node):
            assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    else:
        assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs() == ["agent start", "server recover", "server faststop", "agent stop"]
    assert [ticket.state for ticket in node.tickets()] == ["done", "done"]
    reason = CONDITIONS[condition]
    assert [line["reason"] for line in node.lines("FallbackTaken")] == ([reason] * 2 if reason else [])
    ended = [(fact["n"], fact["service"], fact["result"]) for fact in node.facts("CommandEnded")] + [
        (int(line["n"]), line["service"], line["result"]) for line in node.lines("CommandEnded")
    ]
    assert ended == [(1, "agent", "ok"), (2, "server", "ok"), (1, "server", "ok"), (2, "agent", "ok")]
    assert [(line["script"], line["code"]) for line in node.lines("ScriptEnded")] == [("start", "0"), ("stop", "0")]


def test_a_folder_that_cannot_be_made_costs_dcsup_not_the_service(node: Node) -> None:
    """When the ticket cannot be made the script runs the plain sequence, and the hook is not called."""
    node.configure(DCSUP=node.script("dcsup-recording", f"#!/bin/sh\necho hook >>'{node.calls}'\nexit 75\n"))
    node.folder.write_text("not a folder")
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.recorded("hook") == []
    assert node.verbs() == ["agent start", "server recover", "server faststop", "agent stop"]


def no_space_left() -> None:
    """Every write to a file fails from here on, as on a full disk; making, renaming and deleting still work, as there."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def call_on_full_disk(node: Node, script: str, event: str) -> int:
    return subprocess.run(
        ["/bin/sh", node.scripts / script], env=node.environment(event), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=no_space_left, timeout=LIMIT_S, check=False,
    ).returncode  # fmt: skip


def test_a_full_disk_costs_facts_not_the_service(node: Node) -> None:
    """With a disk that takes no byte, start and stop still bring both services up and down."""
    assert call_on_full_disk(node, "start.sh", "START") == 0
    assert {path.name for path in node.home.glob("*.up")} == {"agent.up", "server.up"}
    assert call_on_full_disk(node, "stop.sh", "START") == 0
    assert list(node.home.glob("*.up")) == []


def test_a_hook_on_a_full_disk_goes_on_without_its_fact(node: Node) -> None:
    """The disk fills up behind the ticket: the start hook still watches the call, and ends with the verdict."""
    name = node.make_ticket()
    hook = subprocess.Popen(
        [node.dcsup, "hook", "start", "--folder", node.folder, "--ticket", name], stderr=subprocess.PIPE, preexec_fn=no_space_left
    )
    with killed_at_end(hook):
        before = tickets.alive_path(node.folder, name).stat().st_mtime_ns
        eventually(lambda: tickets.alive_path(node.folder, name).stat().st_mtime_ns > before)
        tickets.write_verdict(node.folder, name, 40, "start failed")
        assert hook.wait(LIMIT_S) == 40
    assert node.facts("StartHookCalled") == []


def test_the_plain_sequence_goes_on_from_where_the_journal_stands(node: Node) -> None:
    """Worker and hook die after the first command: the script runs the second one, and not the first again."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        assert node.outcome(node.spec(ticket.id))["outcome"] == "ok"
        kill_hook_of(script)
        assert script.wait(LIMIT_S) == 0
    assert node.verbs() == ["agent start", "server recover"]
    assert [(line["by"], line["service"]) for line in node.lines("CommandEnded")] == [("script", "server")]
    assert node.lines("FallbackTaken")[0]["reason"] == "hook-137"


def test_a_known_failure_is_never_repeated(node: Node) -> None:
    """The worker's command failed and then the hook died: the script does not run it again and returns 40 with an ERR line."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    node.put("agent", "fail")
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        answer = node.outcome(node.spec(ticket.id))
        assert (answer["outcome"], answer["code"], answer["exit"]) == ("fail", 3, 1)
        kill_hook_of(script)
        assert script.wait(LIMIT_S) == 40
    assert node.verbs() == ["agent start"]
    assert node.recorded("clplogcmd")[-1].endswith("-i 2 -l ERR")


def test_a_lost_command_is_run_again_only_if_dcstatus_is_not_0(node: Node) -> None:
    """Its launcher was killed: the script asks dcstatus, and runs the verb a second time only where the first did not bring it up."""
    node.configure(DCSUP_ACK_TIMEOUT=20)
    node.put("agent", "hold")
    script = node.begin("start.sh")
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        launcher = node.launch(node.spec(ticket.id))
        eventually(lambda: node.verbs() == ["agent start"])
        os.killpg(launcher.pid, 9)
        launcher.communicate()
        node.take("agent", "hold")
        node.put("agent", "up")
        kill_hook_of(script)
        assert script.wait(LIMIT_S) == 0
    entry = journal.read(node.folder, ticket.id, 1)
    assert entry is not None and (entry.state, entry.fields["ran"]) == ("ok", "0")
    assert node.verbs() == ["agent start", "server recover"]
    assert [(line["n"], line["result"]) for line in node.lines("CommandEnded")] == [("1", "lost"), ("1", "ok"), ("2", "ok")]


def test_watch_falls_back_to_polling_by_itself(node: Node) -> None:
    """A watch hook that crashes leaves the watch to the script, which ends with dcstatus's own value (G22)."""
    crashing(node)
    node.put("server", "up")
    watch = node.begin("watch.sh", "START", "server")
    with killed_at_end(watch):
        eventually(lambda: len(node.recorded("status server")) >= 2)
        node.take("server", "up")
        assert watch.wait(LIMIT_S) == 7


def test_a_watch_hook_that_hangs_does_not_hide_a_dead_service(node: Node) -> None:
    """A watch hook without a sign of life is ended, and the script polls for itself."""
    hanging(node)
    watch = node.begin("watch.sh", "START", "server")
    with killed_at_end(watch):
        assert watch.wait(LIMIT_S) == 7


def test_watch_ends_with_the_code_that_its_hook_saw(node: Node) -> None:
    """The hook's 40 becomes the dcstatus code that the hook left beside it."""
    node.put("server", "up")
    watch = node.begin("watch.sh", "START", "server")
    with killed_at_end(watch):
        eventually(lambda: node.facts("WatchHookStarted"))
        eventually(lambda: node.recorded("status server"))
        node.take("server", "up")
        assert watch.wait(LIMIT_S) == 7
    assert node.facts("WatchHookEnded")[0]["status_code"] == 7
    end_leftovers(node)


@pytest.mark.parametrize(("script", "code", "reported"), [("start", 40, 40), ("stop", 0, 1)])
def test_verdict_40_is_not_up_for_a_start_and_silent_for_a_stop(node: Node, script: str, code: int, reported: int) -> None:
    """A start returns 40 to CLUSTERPRO; a stop returns 0, unless the site asked and dcstatus proves that the service runs."""
    node.configure(DCSUP=node.script("no", "#!/bin/sh\nexit 40\n"), DCSUP_STOP_DEADLINE=1)
    node.put("server", "up")
    assert node.call(f"{script}.sh") == code
    node.configure(DCSUP_REPORT_FAILURE=1)
    assert node.call(f"{script}.sh") == reported
    assert node.verbs() == []
    assert node.recorded("clplogcmd")[-1].endswith("-l ERR")
