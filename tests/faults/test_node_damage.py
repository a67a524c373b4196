"""Damage on the node's disk, and a clock that jumps: still the failover happens, in time, and no verb runs twice.

The disk decides nothing about a service: what cannot be read is not there, and what cannot be written is done without. Each of these began
as the question: could this make a script wait for ever, let a verb run twice, or end a process that has nothing to do with it?

`DCSUP_ALL_CELLS=1` runs each trouble of a disk at each point; without it, each once.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.faults.node_site import LIMIT_S, Installation, SiteNode, halted, installation
from tests.protocol.bench import BOOT, GROUP, Node, Worker, end_leftovers, eventually, killed_at_end
from tests.protocol.test_hard_faults import path_with
from workers import files, journal, launcher, outbox, processes, reaper, tickets
from workers.hooks.calls import NO_PROGRESS_S
from workers.sequences import DiskSequence

START = ["agent start", "server recover"]
STOP = ["server faststop", "agent stop"]

DAMAGING = """\
#!/bin/sh
# `dcsup hook KIND --folder F --ticket T ...`: damages the ticket that the script has just made, then is the real hook
ticket="$4/tickets/$6"
{damage}
exec '{dcsup}' "$@"
"""

DAMAGES = {
    "empty": ': >"$ticket.open"',
    "garbage": 'head -c 3000 /dev/urandom >"$ticket.open"',
    "no-end-of-commands": 'echo commands=99999999999999 >>"$ticket.open"',
    "half-a-list": 'grep -v "^2\\." "$ticket.open" >"$ticket.x"; mv "$ticket.x" "$ticket.open"',
    "two-states": 'cp "$ticket.open" "$ticket.worker"',
    "gone": 'rm "$ticket.open"',
    "a-folder": 'rm "$ticket.open"; mkdir "$ticket.open"',
    "garbage-name": 'mv "$ticket.open" "$ticket.busy-1-99999999999999999999-1"',
    "no-sign-of-life": 'rm "$ticket.alive"; mkdir "$ticket.alive"',
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    end_leftovers(made)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ticket_costs_dcsup_not_the_service(node: Node, damage: str) -> None:
    """With a worker at work: whatever becomes of the ticket's file, start and stop run each verb once and return 0."""
    node.configure(DCSUP=node.script("damaging", DAMAGING.format(damage=DAMAGES[damage], dcsup=node.dcsup)), DCSUP_HOOK_SILENCE=2)
    with Worker(node):
        assert node.call("start.sh") == 0
        assert node.verbs() == START
        assert node.call("stop.sh") == 0
    assert node.verbs() == START + STOP


def test_rubbish_of_older_calls_holds_no_script_and_ends_no_stranger(node: Node) -> None:
    """Other tickets of the group that are empty, folders, or name processes that cannot be: all become void, and the call goes on (N6)."""
    (node.folder / "tickets").mkdir(parents=True)
    (node.folder / "journal").mkdir()
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    with killed_at_end(stranger):
        odd = ("busy-1-99999999999999999999-1", "busy-x-y-z", "busy-1-0-0", "busy-", f"busy-1-{stranger.pid}-1")
        states = ("open", "worker", "script", "script-1", *odd)
        for seq, state in enumerate(states):
            (node.folder / "tickets" / f"{BOOT}-{GROUP}-{seq}-start.{state}").write_bytes(b"\xff\x00=")
        (node.folder / "tickets" / f"{BOOT}-{GROUP}-90-stop.worker").mkdir()
        (node.folder / "journal" / f"{BOOT}-{GROUP}-3-start.1.start").write_text("pid=soon\nwall=never\n")
        node.bypass()
        assert node.call("start.sh") == 0
        assert stranger.poll() is None
    assert node.verbs() == START
    assert [ticket for ticket in node.tickets() if not ticket.is_over] == []


def test_numbers_that_cannot_be_are_nobodys(node: Node) -> None:
    """A process id or a count beyond all sense, in a name or in a file, is settled at once: no traceback, and nobody counts up to it."""
    name = node.make_ticket()
    path = node.folder / "tickets" / f"{name}.open"
    path.rename(path.with_name(f"{name}.busy-1-{10**19}-1"))
    assert [(done.n, done.state) for done in reaper.reap(node.folder, BOOT)] == [(1, "lost")]
    assert not processes.group_alive(2**31, "1")
    assert not processes.group_alive(10**30, "1")
    assert tickets.commands_of({"commands": "9" * 15, "1.service": "agent", "1.verb": "start"}) == []


def test_of_a_ticket_with_two_states_nobody_claims_a_command(node: Node) -> None:
    """N2: with two names two parties could each rename one; the worker leaves it to the script."""
    name = node.make_ticket()
    path = node.folder / "tickets" / f"{name}.open"
    path.with_suffix(".script").write_bytes(path.read_bytes())
    answer = node.outcome(node.spec(name))
    assert (answer["outcome"], answer["reason"], answer["exit"]) == ("refused", "not-claimed", launcher.EXIT_REFUSED)
    assert node.verbs() == []


def test_a_stop_whose_journal_entry_is_empty_is_left_to_the_script_at_once(node: Node) -> None:
    """Nobody knows when the command ended, so no poll is later: waiting for one would last until the stop's limit."""
    name = node.make_ticket("stop", (("server", "faststop"),))
    hook = node.hook("stop", "--ticket", name, "--ack-timeout", "600", "--limit", "600")
    with killed_at_end(hook):
        path = node.folder / "tickets" / f"{name}.open"
        path.rename(path.with_suffix(".worker"))
        (node.folder / "journal" / f"{name}.1.ok").write_bytes(b"")
        began = time.monotonic()
        while hook.poll() is None:
            node.put_status("server", "unhealthy", verified=False)
            assert time.monotonic() < began + LIMIT_S
            time.sleep(0.1)
        assert hook.returncode == 75


def test_a_start_whose_polls_are_about_another_call_is_left_to_the_script(node: Node) -> None:
    """A watch that did not hear of this start's end polls on and on, and verifies nothing: that is no progress."""
    name = node.make_ticket("start", (("server", "recover"),))
    hook = node.hook("start", "--ticket", name, "--ack-timeout", "600", "--limit", "600")
    with killed_at_end(hook):
        path = node.folder / "tickets" / f"{name}.open"
        path.rename(path.with_suffix(".worker"))
        journal.write(node.folder, name, 1, "ok", {"service": "server", "mono": time.monotonic(), "boot": BOOT})
        began = time.monotonic()
        while hook.poll() is None:
            node.put_status("server", "healthy", ticket="boot1-group-a-0-start")
            assert time.monotonic() < began + LIMIT_S
            time.sleep(0.1)
        assert hook.returncode == 75
        assert time.monotonic() - began >= NO_PROGRESS_S


@pytest.mark.parametrize("what", ["folder", "numbered", "stream"])
def test_folders_in_place_of_files_do_not_stop_the_outbox(tmp_path: Path, what: str) -> None:
    """Among facts, among numbered ones, and where the stream's name is kept: facts are numbered, handed in and let go all the same."""
    first = DiskSequence(tmp_path)
    if what == "folder":
        (tmp_path / "outbox" / "1-1-000001.fact").mkdir()
    elif what == "numbered":
        for name in ("000000000001.done", "000000000002.fact"):
            (first.numbered / name).mkdir()
            (first.numbered / name / "x").touch()
    else:
        (tmp_path / "outbox" / "stream").unlink()
        (tmp_path / "outbox" / "stream").mkdir()
    sequence = DiskSequence(tmp_path)
    before = sequence.last
    for _ in range(3):
        outbox.write_fact(tmp_path, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
    sequence.number_new()
    assert sequence.last == before + 3
    assert [fact.type for _, fact in sequence.after(before, 9)] == ["WatchHookStarted"] * 3
    sequence.acknowledge(sequence.last)
    assert sequence.pending == 0
    assert not list(sequence.numbered.glob("*.fact/")) or what == "numbered"
    assert sum(path.is_file() for path in sequence.numbered.iterdir()) == 1
    assert DiskSequence(tmp_path).last == sequence.last


def a_disk_that_refuses_tickets(node: Node) -> tuple[Path, dict[str, str]]:
    """As long as the file is there no script can take a ticket; and the environment in which that is so."""
    refuses = node.home / "refuses"
    refuses.touch()
    move = next(path for path in ("/bin/mv", "/usr/bin/mv") if Path(path).exists())
    shim = f'#!/bin/sh\n[ -e \'{refuses}\' ] && case $2 in *.script*) exit 1 ;; esac\nexec {move} "$@"\n'
    return refuses, path_with(node, "mv", shim)


def test_a_script_that_its_disk_kept_from_its_ticket_lets_nobody_else_have_it(node: Node) -> None:
    """N2, N7: without its ticket it runs the guide's sequence and gives no sign of life, so that nobody claims a command beside it when the
    disk takes renames again; before its next command it takes the ticket."""
    refuses, moving = a_disk_that_refuses_tickets(node)
    node.bypass()
    node.put("agent", "hold")
    node.put("server", "hold")
    script = node.begin("start.sh", **moving)
    with killed_at_end(script):
        eventually(lambda: node.verbs() == START[:1])
        refuses.unlink()
        ticket = node.ticket()
        assert ticket.state == "open"
        eventually(lambda: not tickets.is_alive(node.folder, ticket.id))
        node.take("agent", "hold")
        claim = node.spec(ticket.id, 2, *START[1].split())
        while not node.verbs()[1:]:
            assert not tickets.is_alive(node.folder, ticket.id) or node.ticket().state == "script"
            assert node.outcome(claim)["outcome"] == "refused"
        assert (node.ticket().state, node.ticket().n) == ("script", 2)
        node.take("server", "hold")
        assert script.wait(LIMIT_S) == 0
    assert node.verbs() == START
    assert node.ticket().state == "done"


@pytest.mark.parametrize("heals", [False, True])
def test_a_stop_that_its_disk_keeps_from_its_ticket_stops_everything(node: Node, heals: bool) -> None:
    """A stop that returned 0 and left a service running would bring the group up twice: each verb runs, with its ticket or without."""
    refuses, moving = a_disk_that_refuses_tickets(node)
    node.bypass()
    node.put("agent", "up")
    node.put("server", "up", "hold")
    script = node.begin("stop.sh", **moving)
    with killed_at_end(script):
        eventually(lambda: node.verbs() == STOP[:1])
        assert node.ticket().state == "open"
        if heals:
            refuses.unlink()
        node.take("server", "hold")
        assert script.wait(LIMIT_S) == 0
    assert node.verbs() == STOP


# -- a clock that jumps


def date_shim(node: Node, mark: Path, shift_s: int) -> dict[str, str]:
    """A `date` whose seconds jump as soon as `mark` exists."""
    date = next(path for path in ("/bin/date", "/usr/bin/date") if Path(path).exists())
    return path_with(
        node, "date", f'#!/bin/sh\n[ -e \'{mark}\' ] && [ "$1" = +%s ] && exec echo "$(($({date} +%s) + {shift_s}))"\nexec {date} "$@"\n'
    )


@pytest.mark.parametrize("shift_s", [7200, -7200])
def test_a_clock_that_jumps_makes_no_command_old(node: Node, shift_s: int) -> None:
    """Its hook gone, the script waits for the worker's command: it is not taken for one beyond its limit, nor waited for longer."""
    if not os.access("/proc/uptime", os.R_OK):
        pytest.skip("without /proc/uptime a script has no other clock than the wall's")
    mark = node.home / "jumped"
    node.put("agent", "hold")
    node.configure(DCSUP_ACK_TIMEOUT=30)
    script = node.begin("start.sh", **date_shim(node, mark, shift_s))
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        working = node.launch(node.spec(ticket.id, limit_s=60.0))
        with killed_at_end(working):
            eventually(lambda: node.verbs() == START[:1])
            mark.touch()
            tickets.write_verdict(node.folder, ticket.id, 75, "nobody is there")
            eventually(lambda: node.lines("FallbackTaken"))
            looks = len(node.recorded())
            napping = Path(f"/proc/{script.pid}/task/{script.pid}/children")
            for _ in range(3):  # three pauses of the script's: it has looked, and goes on waiting
                eventually(lambda: napping.read_text().split())
                eventually(lambda: not napping.read_text().split())
            assert working.poll() is None
            assert len(node.recorded()) == looks
            node.take("agent", "hold")
            assert script.wait(LIMIT_S) == 0
    assert node.verbs() == START
    entry = journal.read(node.folder, ticket.id, 1)
    assert entry is not None and (entry.state, entry.fields["by"]) == ("ok", "worker")


@pytest.mark.parametrize("shift_s", [7200, -7200])
def test_a_sign_of_life_from_another_time_is_none_until_the_next_one(node: Node, shift_s: int) -> None:
    """N7: after a jump nobody claims by the old sign; the hook's next one, a second later, is of the new time, and the call goes on."""
    script = node.begin("start.sh")
    node.configure(DCSUP_ACK_TIMEOUT=30)
    with killed_at_end(script):
        ticket = eventually(lambda: next(iter(node.tickets()), None))
        alive = tickets.alive_path(node.folder, ticket.id)

        def jump() -> bool:
            """As the file looks after the clock was set, until the hook gives its next sign."""
            os.utime(alive, (time.time() - shift_s,) * 2)
            return bool(node.outcome(node.spec(ticket.id))["reason"] == "script-gone")

        eventually(jump)
        with Worker(node):
            assert script.wait(LIMIT_S) == 0
    assert node.verbs() == START


# -- disks, with everything else at work


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("damage")) as one:
        yield one


def told(made: Installation, node: SiteNode, known: set[str]) -> list[str]:
    """What the log tells of the calls that are not known, one after the other."""
    return [words for ticket in node.tickets() if ticket.id not in known for words in made.story(node, ticket.id)]


def test_a_damaged_journal_holds_no_call_and_verifies_the_service(made: Installation) -> None:
    """The end's content is lost before the watch has read it: its name says which command of which ticket, and the list the service."""
    node = made.nodes[0]
    node.put("agent", "hold")
    script = node.begin("start.sh")
    ticket = node.await_ticket(set())
    eventually(lambda: node.verbs() == START[:1])
    with halted(node.role("watch")):
        node.take("agent", "hold")
        wait_until(lambda: node.entry(ticket, 1, "ok") and node.state_of(ticket) == "worker", "the command's end", LIMIT_S)
        (node.folder / "journal" / f"{ticket}.1.ok").write_bytes(b"")
        (node.folder / "journal" / f"{ticket}.1.start").write_bytes(b"\xff\xfe\x00")
    assert script.wait(LIMIT_S) == 0
    assert node.verbs() == START
    assert node.call("stop.sh") == 0
    assert node.verbs() == START + STOP


def test_a_folder_full_of_rubbish_keeps_no_worker_from_its_work(made: Installation) -> None:
    """Half files, wrong JSON, folders in place of files, names that cannot be: put aside or passed over; start, stop and log are whole."""
    node = made.nodes[0]
    node.kill_worker()
    known = {ticket.id for ticket in node.tickets()}
    ran = len(node.verbs())
    folder = node.folder
    (folder / "outbox" / "1-1-000001.fact").write_text('{"type": "StartHookCalled", "sour')
    (folder / "outbox" / "1-1-000002.fact").write_bytes(os.urandom(5000))
    (folder / "outbox" / "1-1-000003.line").mkdir()
    (folder / "outbox" / "stream").unlink()
    (folder / "outbox" / "stream").mkdir()
    (folder / "outbox" / "numbered" / "garbage").write_text("x")
    (folder / "outbox" / "numbered" / "000000000001.fact").mkdir(exist_ok=True)
    (folder / "tickets" / f"{BOOT}-{GROUP}-1-start.busy-1-{10**19}-1").write_text("commands=99999999999999\n")
    (folder / "tickets" / f"{BOOT}-{GROUP}-2-start.done").mkdir()
    (folder / "journal" / f"{BOOT}-{GROUP}-2-start.1.ok").mkdir()
    (folder / "watch" / "agent.status").unlink(missing_ok=True)
    (folder / "watch" / "agent.status").write_bytes(b"\xff\x00polls=x\nmono=nan\n")
    (folder / "head").write_text("[[[")
    node.begin_worker()
    node.await_worker()
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs()[ran:] == START + STOP
    known |= {ticket.id for ticket in node.tickets() if ticket.seq < 1000}
    last = node.ticket().id
    wait_until(lambda: made.settled(node, last, "stopped"), "the end in the log", LIMIT_S)
    happened = [words for words in told(made, node, known) if not words.startswith(("issued", "fell"))]
    assert happened == ["called", "began 1", "ended 1 ok", "began 2", "ended 2 ok", "script 0"] * 2
    wait_until(lambda: node.tickets()[0].state != "busy", "the reaper", LIMIT_S)

    def dropped() -> int:
        return sum(entry.data.get("count", 0) for entry in made.log(node) if entry.type == "FactsDropped")

    wait_until(lambda: dropped() >= 3, "what was put aside is told", LIMIT_S)


class SmallDisk:
    """The node folder on a file system of its own, of 1 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *arguments: str | Path) -> None:
        done = subprocess.run(["mount", *arguments], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    def refuse(self, trouble: str) -> None:
        """From now on it takes nothing: full to the last byte, or read-only (the same files, on a mount that cannot be written)."""
        if trouble == "read-only":
            self.mount("--bind", self.folder, self.folder)
            self.mount("-o", "remount,bind,ro", self.folder)
            return
        ballast = os.open(self.folder / "ballast", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(ballast, b"x" * 4096)
        os.close(ballast)

    def recover(self, trouble: str) -> None:
        if trouble == "read-only":
            subprocess.run(["umount", "-l", self.folder], check=True)
        else:
            (self.folder / "ballast").unlink()


@contextmanager
def small_disk(node: SiteNode) -> Iterator[SmallDisk]:
    """The node folder on a disk of its own while this lasts; the worker begins with it, and is down after it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    node.kill_worker()
    disk = SmallDisk(node.folder)
    disk.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", node.folder)
    try:
        node.begin_worker()
        node.await_worker()
        yield disk
    finally:
        node.kill_worker()
        node.take("agent", "hold")
        while os.path.ismount(node.folder):
            subprocess.run(["umount", "-l", node.folder], check=True)


ALL_DISKS = [("full", "before"), ("full", "begun"), ("read-only", "before"), ("read-only", "begun")]


@pytest.mark.parametrize(("trouble", "when"), ALL_DISKS if os.environ.get("DCSUP_ALL_CELLS") else ALL_DISKS[1:3])
def test_a_disk_that_takes_nothing_costs_facts_not_the_service(made: Installation, trouble: str, when: str) -> None:
    """Full or read-only before a start, or under its first command: each verb once, and 0; room again: dcsup is back."""
    node = made.nodes[0]
    with small_disk(node) as disk:
        ran = len(node.verbs())
        if when == "begun":
            node.put("agent", "hold")
            script = node.begin("start.sh")
            eventually(lambda: node.verbs()[ran:] == START[:1])
            disk.refuse(trouble)
            node.take("agent", "hold")
        else:
            disk.refuse(trouble)
            script = node.begin("start.sh")
        assert script.wait(LIMIT_S) == 0
        assert node.verbs()[ran:] == START
        assert node.call("stop.sh") == 0
        assert node.verbs()[ran:] == START + STOP
        disk.recover(trouble)
        assert node.worker is not None and node.worker.poll() is None
        assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
        assert node.verbs()[ran:] == 2 * (START + STOP)
        last = node.ticket().id
        wait_until(lambda: made.settled(node, last, "stopped"), "the end in the log", LIMIT_S)
        assert "fell-back" not in made.story(node, last)


@pytest.mark.parametrize("how", ["removed", "restored"])
def test_a_node_folder_that_is_removed_or_replaced_is_taken_over_anew(made: Installation, how: str) -> None:
    """The worker notices, begins anew with what is there now, and the next calls go through it and into the log."""
    node = made.nodes[0]
    ran = len(node.verbs())
    copy = node.home / "copy"
    node.kill_worker()  # a copy made beside its work would miss files that it renames meanwhile
    subprocess.run(["cp", "-a", node.folder, copy], check=True)
    node.begin_worker()
    node.await_worker()
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    last = node.ticket().id
    wait_until(lambda: made.settled(node, last, "stopped"), "the end in the log", LIMIT_S)
    ready = node.worker_said().count('"event": "ready"')
    node.folder.rename(node.home / f"old-{how}")
    if how == "restored":
        copy.rename(node.folder)
    else:
        subprocess.run(["rm", "-rf", copy], check=True)
    wait_until(lambda: node.worker_said().count('"event": "ready"') >= ready + 2, "new RQ workers", LIMIT_S)
    assert node.worker is not None and node.worker.poll() is None
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs()[ran:] == 2 * (START + STOP)
    last = node.ticket().id
    wait_until(lambda: made.settled(node, last, "stopped"), "the end in the log", LIMIT_S)
    assert "fell-back" not in made.story(node, last)
    assert files.read_fields(node.folder / "watch" / "agent.status") is not None
