"""The hooks by themselves: every way in which one ends, with its exit code (DESIGN.md, "Hooks"; 0, 40 and 75 only)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from statemachines.facts import FACT
from tests.protocol.bench import BOOT, LIMIT_S, ROOT, Node, eventually, killed_at_end, running
from workers import files, journal, maintenance, processes, statuses, tickets
from workers.hooks.common import ParentFile

DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
while not os.path.exists({go!r}):
    time.sleep(0.02)
print("x" * 100000, flush=True)
open({mark!r}, "w").close()
"""

QUICK = ("--ack-timeout", "30", "--limit", "30")


def hand_over(node: Node, ticket: str, state: str = "worker") -> None:
    """The worker has the ticket."""
    found = tickets.find(node.folder, ticket)
    assert found is not None
    found.path.rename(found.path.with_name(f"{ticket}.{state}"))


def end(node: Node, ticket: str, n: int, state: journal.State = "ok") -> None:
    journal.write(node.folder, ticket, n, state, {"mono": time.monotonic(), "boot": BOOT})


# start


def test_start_ends_0_when_every_service_is_verified(node: Node) -> None:
    """0 needs, for each service: its command ended ok, and it was verified for this very ticket; one alone is not enough."""
    name = node.make_ticket()
    hook = node.hook("start", "--ticket", name, *QUICK)
    with killed_at_end(hook):
        eventually(lambda: node.facts("StartHookCalled"))
        hand_over(node, name)
        end(node, name, 1)
        end(node, name, 2)
        node.put_status("agent", ticket=name)
        node.put_status("server", ticket="another")
        before = tickets.alive_path(node.folder, name).read_text()
        eventually(lambda: tickets.alive_path(node.folder, name).read_text() != before)
        assert hook.poll() is None
        node.put_status("server", ticket=name)
        assert hook.wait(LIMIT_S) == 0
    (fact,) = node.facts("StartHookCalled")
    assert (fact["ticket"], fact["event"]) == (name, "START")
    assert fact["commands"] == [{"n": 1, "service": "agent", "verb": "start"}, {"n": 2, "service": "server", "verb": "recover"}]


@pytest.mark.parametrize("name", ["start", "stop"])
@pytest.mark.parametrize("code", [40, 75])
def test_a_verdict_ends_the_hook_with_its_code(node: Node, name: str, code: int) -> None:
    """The orchestrator's word beside the ticket is the hook's, before anybody took the ticket and after."""
    ticket = node.make_ticket(name)
    tickets.write_verdict(node.folder, ticket, code, "because")
    hook = node.hook(name, "--ticket", ticket, *QUICK)
    _, words = hook.communicate(timeout=LIMIT_S)
    assert hook.returncode == code
    assert b"because" in words


def test_start_ends_75_when_nobody_takes_the_ticket(node: Node) -> None:
    """An `open` ticket after ack_timeout: nobody is there."""
    name = node.make_ticket()
    hook = node.hook("start", "--ticket", name, "--ack-timeout", "0.2")
    _, words = hook.communicate(timeout=LIMIT_S)
    assert (hook.returncode, b"nobody took" in words) == (75, True)


def test_start_ends_75_at_its_limit_though_a_command_lives(node: Node) -> None:
    """A living command is progress, but not for ever."""
    name = node.make_ticket()
    busy = processes.spawn_leader([sys.executable, "-c", "import time; time.sleep(300)"])
    with killed_at_end(busy):
        hand_over(node, name, f"busy-1-{busy.pid}-{processes.born(busy.pid)}")
        hook = node.hook("start", "--ticket", name, "--limit", "1")
        _, words = hook.communicate(timeout=LIMIT_S)
    assert (hook.returncode, b"not settled" in words) == (75, True)


@pytest.mark.parametrize("state", ["script", "void", "done"])
def test_start_ends_75_when_the_ticket_is_taken_away(node: Node, state: str) -> None:
    """A ticket that the script or a later one took is no longer the hook's business."""
    name = node.make_ticket()
    hook = node.hook("start", "--ticket", name, *QUICK)
    with killed_at_end(hook):
        eventually(lambda: node.facts("StartHookCalled"))
        hand_over(node, name, state)
        assert hook.wait(LIMIT_S) == 75


@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_start_ends_75_without_a_ticket_that_can_be_read(node: Node, damage: str) -> None:
    """No ticket, or a list that is not whole: not a traceback, one line, and the script goes on."""
    name = node.make_ticket()
    path = node.folder / "tickets" / f"{name}.open"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("" if damage == "empty" else "commands=2\n1.service=agent\n1.verb=start\n")
    hook = node.hook("start", "--ticket", name, *QUICK)
    _, words = hook.communicate(timeout=LIMIT_S)
    assert (hook.returncode, len(words.splitlines())) == (75, 1)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["start"], ["start", "--ticket"], ["watch", "--folder", "x", "--service", "y"]])
def test_wrong_usage_ends_75_with_the_usage(arguments: list[str]) -> None:
    """Whatever a script calls by mistake, the hook says so and leaves the call to the plain sequence."""
    done = subprocess.run([sys.executable, "-m", "workers.hooks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert "usage: dcsup hook" in done.stderr and "Traceback" not in done.stderr


def test_polls_keep_the_hook_waiting_only_while_something_is_to_be_verified(node: Node) -> None:
    """After a command ended ok, a poll under way is progress; when its process is gone, or the service is verified, it is none."""
    name = node.make_ticket()
    hand_over(node, name)
    end(node, name, 1)
    busy = processes.spawn_leader([sys.executable, "-c", "import time; time.sleep(300)"])
    with killed_at_end(busy):
        now = time.monotonic()
        about: dict[str, Any] = {"pid": busy.pid, "born": processes.born(busy.pid), "polling": 1, "mono": "", "mono_started": now}
        node.put_status("agent", "unknown", verified=False, **about)
        status = statuses.read(node.folder, "agent", BOOT)
        assert status is not None and status.is_moving(now + 20, 30.0) and not status.is_moving(now + 40, 30.0)
    assert not status.is_moving(now + 1, 30.0)


@pytest.mark.parametrize("name", ["start", "watch"])
def test_a_hook_ends_with_a_script_that_is_known_by_its_file_only(node: Node, name: str) -> None:
    """A batch file does not know its process id: while it rewrites its file the hook waits; when that stays as it is, the hook ends."""
    pulse = node.home / "script.pulse"
    node.put("server", "up")
    more = ("--parent-file", str(pulse))
    hook = node.hook("start", "--ticket", node.make_ticket(), *QUICK, *more) if name == "start" else watch(node, *more)
    with killed_at_end(hook):
        began, count = time.monotonic(), 0
        while time.monotonic() - began < 4.0:
            count += 1
            pulse.write_text(f"{count}\n")
            time.sleep(0.05)
            assert hook.poll() is None
        _, words = hook.communicate(timeout=LIMIT_S)
    assert (hook.returncode, b"the script is gone" in words) == (75, True)


def test_a_starved_hook_does_not_take_its_script_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute in which this process did not run says nothing about the script; two seconds of its own time do."""
    pulse, now = tmp_path / "pulse", 1000.0
    monkeypatch.setattr("workers.hooks.common.time.monotonic", lambda: now)
    parent = ParentFile(pulse)
    pulse.write_text("1\n")
    assert not parent.is_gone()
    for _ in range(9):
        now += 60.0
        assert not parent.is_gone()
    pulse.write_text("2\n")
    now += 60.0
    assert not parent.is_gone()
    pulse.unlink()
    for _ in range(9):
        now += 60.0
        assert not parent.is_gone()
    now += 60.0
    parent.is_gone()
    now += 60.0
    assert parent.is_gone()


# stop


def test_stop_ends_0_only_after_a_poll_that_began_after_the_commands_end(node: Node) -> None:
    """Not running: the verb ended, however, and a dcstatus that began after that was not 0; an older and an unknown one do not count."""
    name = node.make_ticket("stop", (("server", "faststop"),))
    hand_over(node, name)
    node.put_status("server", "unhealthy")
    hook = node.hook("stop", "--ticket", name, *QUICK)
    with killed_at_end(hook):
        eventually(lambda: node.facts("StopHookCalled"))
        end(node, name, 1, "fail")
        wait_for_two_signs(node, name)
        assert hook.poll() is None, "what was seen before the end says nothing"
        for status, polling in (("unknown", 0), ("unhealthy", 1), ("healthy", 0)):
            node.put_status("server", status, polling=polling)
            wait_for_two_signs(node, name)
            assert hook.poll() is None
        node.put_status("server", "unhealthy")
        assert hook.wait(LIMIT_S) == 0


def test_a_stop_ends_0_though_somebody_is_always_polling(node: Node) -> None:
    """The polls of two services take turns, and there is no moment without one: what a poll has proved the next does not take back."""
    name = node.make_ticket("stop", (("server", "faststop"), ("agent", "stop")))
    hand_over(node, name)
    hook = node.hook("stop", "--ticket", name, *QUICK)
    with killed_at_end(hook):
        eventually(lambda: node.facts("StopHookCalled"))
        for n, service in ((1, "server"), (2, "agent")):
            end(node, name, n, "ok")
            node.put_status(service, "unhealthy", polling=1, last_started=time.monotonic())
        assert hook.wait(LIMIT_S) == 0


def wait_for_two_signs(node: Node, ticket: str) -> None:
    """Until the hook has certainly looked again."""
    first = files.to_int(tickets.alive_path(node.folder, ticket).read_text().strip()) or 0
    eventually(lambda: (files.to_int(tickets.alive_path(node.folder, ticket).read_text().strip()) or 0) > first)


def test_stop_waits_while_a_process_of_an_older_ticket_lives(node: Node) -> None:
    """A start's command that still runs could bring the service up behind the stop's back."""
    older = node.make_ticket()
    busy = processes.spawn_leader([sys.executable, "-c", "import time; time.sleep(300)"])
    with killed_at_end(busy):
        journal.write(node.folder, older, 1, "start", {"pid": busy.pid, "born": processes.born(busy.pid), "boot": BOOT})
        hand_over(node, older, "void")
        name = node.make_ticket("stop", (("agent", "stop"),), seq=2)
        hand_over(node, name)
        hook = node.hook("stop", "--ticket", name, *QUICK)
        with killed_at_end(hook):
            eventually(lambda: node.facts("StopHookCalled"))
            end(node, name, 1)
            node.put_status("agent", "unhealthy")
            wait_for_two_signs(node, name)
            assert hook.poll() is None
            busy.kill()
            busy.wait()
            assert hook.wait(LIMIT_S) == 0


# watch


def watch(node: Node, *more: str, interval: str = "0.2") -> subprocess.Popen[bytes]:
    known = ("--service", "server", "--boot", BOOT, "--interval", interval, "--poll-limit", "1", *more)
    return node.hook("watch", *known, "--", str(node.bin / "dcstatus-server"))


def test_watch_believes_a_fresh_healthy_status_without_asking(node: Node) -> None:
    """While the watch job's word is fresh and healthy the hook runs no dcstatus; an unhealthy one it confirms itself, and ends 40."""
    node.put("server", "up")
    node.put_status("server", "healthy")
    hook = watch(node, interval="30")
    with killed_at_end(hook):
        eventually(lambda: node.facts("WatchHookStarted"))
        eventually(lambda: (node.folder / "watch" / "server.hook").exists())
        assert node.recorded("status") == []
        node.put_status("server", "unhealthy")
        eventually(lambda: node.recorded("status"))
        node.put_status("server", "healthy")
        assert hook.poll() is None
        node.take("server", "up")
        node.put_status("server", "unhealthy")
        assert hook.wait(LIMIT_S) == 40
    assert statuses.code_path_of(node.folder, "server").read_text() == "7\n"
    assert [(fact["code"], fact["status_code"]) for fact in node.facts("WatchHookEnded")] == [(40, 7)]


@pytest.mark.parametrize("silence", ["none", "stale", "other-boot"])
def test_watch_polls_by_itself_when_the_watch_job_is_silent(node: Node, silence: str) -> None:
    """No word, an old one, or one of another boot: the hook asks dcstatus every interval, and ends 40 with its value."""
    node.put("server", "up")
    if silence == "stale":
        node.put_status("server", "healthy", mono=max(0.0, time.monotonic() - 60))
    elif silence == "other-boot":
        node.put_status("server", "healthy", boot="boot0")
    hook = watch(node)
    with killed_at_end(hook):
        eventually(lambda: len(node.recorded("status")) >= 3)
        assert hook.poll() is None
        node.take("server", "up")
        assert hook.wait(LIMIT_S) == 40


def maintain(node: Node, **changes: object) -> None:
    """What the watch loop writes while the cluster is in maintenance."""
    fields = {"reason": "suspended", "boot": BOOT, "mono": time.monotonic(), **changes}
    files.write_aside(maintenance.path_of(node.folder), files.to_text(fields))


def test_in_maintenance_no_watch_ends(node: Node) -> None:
    """An unhealthy service is said once and asked about on and on; when maintenance is over that is confirmed and ends the hook with 40."""
    node.folder.mkdir(exist_ok=True)
    maintain(node)
    hook = watch(node)
    with killed_at_end(hook):
        eventually(lambda: len(node.recorded("status")) >= 4)
        assert hook.poll() is None
        maintenance.path_of(node.folder).unlink()
        _, words = hook.communicate(timeout=LIMIT_S)
    assert hook.returncode == 40
    assert words.count(b"but the cluster is suspended") == 1
    assert [fact["code"] for fact in node.facts("WatchHookEnded")] == [40]


@pytest.mark.parametrize("changes", [{"mono": 1e12}, {"boot": "boot0"}, {"mono": ""}, {"reason": "holiday"}, {"mono": -1}])
def test_a_maintenance_that_is_none_does_not_keep_a_dead_service(node: Node, changes: dict[str, object]) -> None:
    """From the future, of another boot, damaged, or long ago: the hook ends 40 as ever."""
    node.folder.mkdir(exist_ok=True)
    maintain(node, **changes)
    hook = watch(node)
    with killed_at_end(hook):
        assert hook.wait(LIMIT_S) == 40


def test_watch_counts_failing_polls_in_a_row(node: Node) -> None:
    """With --confirm 2 one failing poll is not enough, and a good one in between starts the count anew."""
    hook = watch(node, "--confirm", "2")
    with killed_at_end(hook):
        assert hook.wait(LIMIT_S) == 40
    assert len(node.recorded("status")) == 2


def test_watch_takes_a_dcstatus_that_does_not_return_for_unknown(node: Node) -> None:
    """A hanging dcstatus is ended at its limit and asked again; the hook goes on, for the guide would only wait."""
    node.put("server", "mute", "up")
    hook = watch(node)
    with killed_at_end(hook):
        eventually(lambda: len(node.recorded("status")) >= 2)
        assert hook.poll() is None
        node.take("server", "mute", "up")
        assert hook.wait(LIMIT_S) == 40


def test_watch_ends_75_when_dcstatus_cannot_be_started(node: Node) -> None:
    """What that means is the guide's to say: the script polls for itself."""
    hook = node.hook("watch", "--service", "server", "--boot", BOOT, "--", str(node.bin / "no-such-dcstatus"))
    with killed_at_end(hook):
        assert hook.wait(LIMIT_S) == 75


@pytest.mark.parametrize("mute", [False, True])
def test_watch_ends_with_its_script(node: Node, mute: bool) -> None:
    """When the resident script is killed its hook ends by itself, also in the middle of a dcstatus that does not return."""
    node.configure(DCSUP_POLL_LIMIT=300)
    node.put("server", "up", *(["mute"] if mute else []))
    script = node.begin("watch.sh", "START", "server")
    with killed_at_end(script):
        eventually(lambda: node.recorded("status"))
        script.kill()
        script.wait()
        eventually(lambda: not any(" hook watch " in words and str(node.folder) in words for _, _, words in running()))
    eventually(lambda: not any(str(node.bin / "dcstatus-server") in words for _, _, words in running()))
    assert [fact["code"] for fact in node.facts("WatchHookEnded")] == [75]


# alert


def alert(node: Node, *arguments: str | bytes) -> tuple[int | None, str]:
    """Run the hook as CLUSTERPRO's alert extension does; its exit code and what it said."""
    command = [str(node.dcsup), "hook", "alert", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
    return done.returncode, done.stderr.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--module", "rc", "--id", "61", "--text", "failover done", "--boot", BOOT], ("rc", 61, "failover done")),
        (
            ["--module", "RC", "--id", "061", "--text", "failover", "done", "--id", "7", "--", "x=y"],
            ("rc", 61, "failover done --id 7 -- x=y"),
        ),
        (["--id", "61", "failover", "done"], ("unknown", 61, "failover done")),
        (["rc", "61", "failover done"], ("rc", 61, "failover done")),
        (["rc 61 failover done"], ("rc", 61, "failover done")),
        (["--text", "[rc  ] 61: failover\r\ndone"], ("rc", 61, "failover done")),
        (["--module", "rc", "--id", "99999999999999999999", "--text", "x"], ("rc", 0, "[99999999999999999999] x")),
        (["--module", "rc", "--id", "-3", "--text", "x"], ("rc", 0, "[-3] x")),
        (["--module", "rc", "--id", "\u0663", "--text", ""], ("rc", 0, "[\u0663] ")),
        (["--module", "rc", "--id"], ("rc", 0, "--id")),
        (["--module", "rc", "--text", "%%MSG%%"], ("rc", 0, "%%MSG%%")),
        ([], ("unknown", 0, "")),
        (["フェイルオーバが完了しました"], ("unknown", 0, "フェイルオーバが完了しました")),
        (["--module", "rc", "--id", "61", "--text", "グループ\u3000移動".encode("cp932")], ("rc", 61, "グループ 移動")),
        (["--module", "rc", "--id", "61", "--text", b"\x81 x"], ("rc", 61, "\ufffd x")),
        (["--module", "m" * 500, "--id", "1", "--text", "t" * 5000], ("m" * 32, 1, "t" * 2000)),
    ],
)
def test_alert_becomes_a_fact(node: Node, arguments: list[str | bytes], fact: tuple[str, int, str]) -> None:
    """One fact on the disk, and 0, however CLUSTERPRO quotes: nothing is refused, for a text may hold anything."""
    code, said = alert(node, "--folder", str(node.folder), *arguments)
    assert (code, "noted" in said) == (0, True)
    (told,) = node.facts("AlertReceived")
    assert (told["module"], told["id"], told["text"]) == fact
    FACT.validate_python({**told, "type": "AlertReceived"})


@pytest.mark.parametrize("trouble", ["no folder", "no place", "full disk"])
def test_an_alert_is_never_clusterpros_trouble(node: Node, trouble: str) -> None:
    """Nowhere to write: the alert is lost, and the exit code is 0 all the same."""
    (node.folder / "outbox").parent.mkdir(parents=True, exist_ok=True)
    if trouble == "no place":
        (node.folder / "outbox").write_text("not a folder")
    elif trouble == "full disk":
        (node.folder / "outbox").mkdir()
        node.configure()
    folder = [] if trouble == "no folder" else ["--folder", str(node.folder)]
    limit = "ulimit -f 0; trap '' XFSZ; " if trouble == "full disk" else ""
    command = ["/bin/sh", "-c", f'{limit}exec "$0" hook alert "$@"', str(node.dcsup), *folder, "--module", "rc", "--id", "61"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, "the alert is lost" in done.stderr, "Traceback" in done.stderr) == (0, True, False)


def test_a_disk_that_hangs_keeps_no_alert_waiting(node: Node) -> None:
    """It ends 0 by itself."""
    program = (
        "import sys, time; from workers import outbox; from workers.hooks import alert, main; alert.LIMIT_S = 0.3\n"
        "outbox.write_fact = lambda *_: time.sleep(600)\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "alert", "--folder", str(node.folder), "rc", "61", "x"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LIMIT_S, check=False).returncode == 0


# the launcher's edges


def test_output_is_kept_up_to_its_limit_and_decoded(node: Node) -> None:
    """Of a command's output the end is kept, 64 KiB, in the site's encoding; what cannot be decoded is replaced."""
    name = node.make_ticket()
    program = "import sys; sys.stdout.buffer.write(b'x' * 200000 + '終了'.encode('cp932') + b'\\xff')"
    answer = node.outcome(node.spec(name, command=[sys.executable, "-c", program], encoding="cp932"))
    assert answer["outcome"] == "ok"
    output = node.facts("CommandEnded")[0]["output"]
    assert "終了" in output[-3:]
    assert 60_000 < len(output) <= 65_536


def test_a_daemon_that_holds_the_output_neither_blocks_nor_dies(node: Node) -> None:
    """A service that inherits the pipe keeps nobody waiting, and is not killed by its next line of output."""
    mark = node.home / "still-here"
    program = DAEMON.format(go=str(node.home / "go"), mark=str(mark))
    name = node.make_ticket()
    assert node.outcome(node.spec(name, command=[sys.executable, "-c", program]))["outcome"] == "ok"
    (node.home / "go").touch()
    eventually(mark.exists)


def test_a_launcher_refuses_a_spec_that_is_none(node: Node) -> None:
    """Rubbish is answered with exit code 2 and a reason, and runs nothing."""
    command = [sys.executable, "-I", "-S", str(ROOT / "workers" / "launcher.py")]
    for text in ("", "{}", "[]", '{"folder": 1}'):
        done = subprocess.run([*command, text] if text else command, input="", capture_output=True, text=True, check=False)
        assert (done.returncode, "bad-job" in done.stdout, done.stderr) == (2, True, "")


def test_a_command_that_cannot_be_run_has_failed(node: Node) -> None:
    """A missing file is a failed command with a reason, in journal and fact."""
    name = node.make_ticket()
    answer = node.outcome(node.spec(name, command=[str(node.bin / "no-such-command")]))
    assert (answer["outcome"], answer["ran"]) == ("fail", False)
    assert node.facts("CommandEnded")[0]["reason"].startswith("cannot be run")
