"""Faults at the worst line: a disk that turns read-only, a launcher that stands still, a clock that is set, settings that are damaged.

Each of these once made, or could make, a script that never returns: an outage of which dcsup would be the cause.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.protocol.bench import BOOT, LIMIT_S, Node, eventually, killed_at_end
from workers import files, journal, processes, tickets

PLAIN_START = ["agent start", "server recover"]
PLAIN_STOP = ["server faststop", "agent stop"]

MV = """\
#!/bin/sh
[ ! -e '{mark}' ] || exit 1
exec {mv} "$@"
"""

CLAIMING_HOOK = """\
#!/bin/sh
# `dcsup hook start --folder F --ticket T ...`: somebody claims command 1, and then dcsup is not there any more
mv "$4/tickets/$6.open" "$4/tickets/$6.busy-1-{pid}-{born}"
{then}
exit 75
"""


def path_with(node: Node, name: str, text: str) -> dict[str, str]:
    """PATH with a command of our own in front, as keyword for `Node.call`."""
    folder = node.home / "first"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_disk_that_turns_read_only_under_a_command_does_not_hold_the_script(node: Node) -> None:
    """The process behind a busy name is gone and no rename succeeds any more: nobody else can run, so the plain sequence goes on."""
    mark = node.home / "read-only"
    mv = next(path for path in ("/bin/mv", "/usr/bin/mv") if Path(path).exists())
    path = path_with(node, "mv", MV.format(mark=mark, mv=mv))
    node.configure(DCSUP=node.script("claiming", CLAIMING_HOOK.format(pid=999999, born=1, then=f": >'{mark}'")))
    assert node.call("start.sh", **path) == 0
    assert node.verbs() == PLAIN_START


def test_a_launcher_that_stands_still_between_claim_and_journal_is_ended_at_the_commands_limit(node: Node) -> None:
    """Without a journal entry the limit counts from the script's first look, not from each look anew."""
    sleeper = processes.spawn_leader(["sleep", "300"])
    with killed_at_end(sleeper):
        born = processes.born(sleeper.pid)
        node.configure(DCSUP=node.script("claiming", CLAIMING_HOOK.format(pid=sleeper.pid, born=born, then="")), DCSUP_COMMAND_LIMIT=1)
        assert node.call("start.sh") == 0
        assert sleeper.wait(LIMIT_S) == -9
    assert node.verbs() == PLAIN_START
    entry = journal.read(node.folder, node.ticket().id, 1)
    assert entry is not None and entry.state == "ok"


def test_a_clock_that_is_set_back_does_not_stretch_a_start(node: Node) -> None:
    """The deadline of a start that is not up holds although the wall clock falls back by an hour meanwhile."""
    if not os.access("/proc/uptime", os.R_OK):
        pytest.skip("without /proc/uptime a script has no other clock than the wall's")
    date = next(path for path in ("/bin/date", "/usr/bin/date") if Path(path).exists())
    shim = (
        f"#!/bin/sh\n[ -e '{node.home}/agent.late' ] && [ -s '{node.calls}' ] && [ \"$1\" = +%s ] && "
        f'exec echo "$(($({date} +%s) - 3600))"\nexec {date} "$@"\n'
    )
    node.put("agent", "late")
    node.bypass()
    node.configure(DCSUP_START_DEADLINE=1, DCSUP_WAIT_agent=1)
    assert node.call("start.sh", **path_with(node, "date", shim)) == 40
    assert node.verbs() == ["agent start"]


@pytest.mark.parametrize("command", ["sleep 300", "false", "no-such-command"])
def test_a_boot_id_that_cannot_be_had_costs_dcsup_not_the_service(node: Node, command: str) -> None:
    """A boot command that hangs, fails or is missing: no ticket, and the plain sequence."""
    node.configure(DCSUP_BOOT_FILE="", DCSUP_BOOT_COMMAND=command, DCSUP_BOOT_LIMIT=1)
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs() == PLAIN_START + PLAIN_STOP


@pytest.mark.parametrize("line", ["DCSUP_STOP_DEADLINE=90.5", "DCSUP_COMMAND_LIMIT=soon", "DCSUP_SITE_LIMIT=", "DCSUP_START_DEADLINE=08"])
def test_a_duration_that_is_no_whole_number_is_replaced_by_its_default(node: Node, line: str) -> None:
    """Settings that sh cannot calculate with end no script: a failed stop would make CLUSTERPRO shut the machine down."""
    node.bypass()
    with (node.scripts / "dcsup.env").open("a") as env:
        env.write(f"{line}\nDCSUP_REPORT_FAILURE=1\n")
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs() == PLAIN_START + PLAIN_STOP


def test_settings_that_sh_cannot_read_are_said_and_end_a_stop_with_0(node: Node) -> None:
    """A syntax error in dcsup.env is a start that fails and a stop that does not, each with one sentence."""
    (node.scripts / "dcsup.env").write_text("DCSUP_SERVICES='agent\n")
    assert (node.call("start.sh"), node.call("stop.sh")) == (1, 0)
    assert (node.home / "log").read_text().count("dcsup.env cannot be read") == 2


def test_odd_characters_in_the_clusters_variables_break_neither_ticket_nor_fact(node: Node) -> None:
    """Line ends, quotes and bytes of another encoding stay values: they make no field of their own, and run nothing."""
    odd = "x\ncommands=0\n$(touch ran) `touch ran` ';touch ran; \\"
    node.configure(DCSUP=node.script("seen", f"#!/bin/sh\ncp \"$4/tickets/$6.open\" '{node.home}/ticket'\nexit 75\n"))
    assert node.call("start.sh", CLP_FACTOR=odd, CLP_SERVER_PREV=os.fsdecode(b"\x83\x6d\x81\x5b\x83\x68=1\n\n2"), CLP_SERVER=odd) == 0
    seen = files.read_fields(node.home / "ticket") or {}
    assert [(command.n, command.service) for command in tickets.commands_of(seen)] == [(1, "agent"), (2, "server")]
    assert seen["factor"].startswith("x commands=0")
    assert node.call("stop.sh", "FAILOVER", CLP_FACTOR=odd, CLP_DISK=odd) == 0
    assert node.call("start.sh", odd) == 1
    assert [line["event"] for line in node.lines("ScriptDeclined")] == [seen["factor"]]
    assert not (Path.cwd() / "ran").exists()


def test_bypass_in_the_middle_of_a_call_ends_the_hooks(node: Node) -> None:
    """Who lays down the bypass file while a hook waits gets the plain sequence at once, not at the hook's limit."""
    node.configure(DCSUP_ACK_TIMEOUT=600)
    node.put("server", "up")
    watch = node.begin("watch.sh", "START", "server")
    start = node.begin("start.sh")
    with killed_at_end(watch, start):
        eventually(lambda: node.facts("WatchHookStarted"))
        eventually(lambda: node.facts("StartHookCalled"))
        node.bypass()
        assert start.wait(LIMIT_S) == 0
        eventually(lambda: node.facts("WatchHookEnded"))
        assert watch.poll() is None
    assert node.lines("FallbackTaken")[0]["reason"] == "hook-75"


@pytest.mark.parametrize("wrong", ["unknown", "missing"])
def test_a_stop_whose_dcstatus_tells_nothing_is_left_to_the_script(node: Node, wrong: str) -> None:
    """The verbs ended, and no poll says whether the service is down: waiting longer would hold up a failover for nothing."""
    name = node.make_ticket("stop", (("server", "faststop"),))
    hook = node.hook("stop", "--ticket", name, "--ack-timeout", "600", "--limit", "600")
    with killed_at_end(hook):
        found = tickets.find(node.folder, name)
        assert found is not None
        found.path.rename(found.path.with_suffix(".worker"))
        give_up = time.monotonic() + LIMIT_S
        journal.write(node.folder, name, 1, "ok", {"mono": time.monotonic(), "boot": BOOT, "service": "server"})
        while hook.poll() is None:
            node.put_status("server", "unknown", verified=False, polling=int(wrong == "unknown"))
            time.sleep(0.2)
            assert time.monotonic() < give_up
        assert hook.returncode == 75
