"""One cluster node made of tiny recording stand-ins, in a folder whose name has a space in it.

Everything that decides is real: /bin/sh, the scripts, the hooks, the launcher, processes and signals. Stand-ins only record their calls, in
order, and remember whether their service is up. `Worker` does what `dcsup worker` does for one node: it starts launchers for the tickets
that it finds, and writes what it polled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from workers import files, journal, launcher, processes, reaper, statuses, tickets
from workers.tickets import Ticket

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "deploy" / "clusterpro" / "linux"
LIMIT_S = 30.0
BOOT = "boot1"
GROUP = "group-a"

SERVICE_COMMAND = """\
#!/bin/sh
# NAME VERB: behaves as the files beside it say
echo "run {name} $1" >>'{calls}' 2>/dev/null
[ ! -e '{state}.hang' ] || {{ sleep 300 & echo $! >'{state}.grandchild'; sleep 300; }}
while [ -e '{state}.hold' ]; do sleep 0.05; done
[ ! -e '{state}.fail' ] || exit 3
case $1 in
    start|recover) [ -e '{state}.late' ] || : >'{state}.up' ;;
    *) [ -e '{state}.stubborn' ] || rm -f '{state}.up' ;;
esac
echo "end {name} $1" >>'{calls}' 2>/dev/null
exit 0
"""

STATUS_COMMAND = """\
#!/bin/sh
echo "status {name}" >>'{calls}' 2>/dev/null
[ ! -e '{state}.mute' ] || sleep 300
[ -e '{state}.up' ] || exit 7
"""

RECORD_COMMAND = """\
#!/bin/sh
{{ printf '%s' "{name}"; printf ' %s' "$@"; echo; }} >>'{calls}' 2>/dev/null
{then}
"""

DCSUP = """\
#!{python} -S
import sys
sys.path.insert(0, {root!r})
from workers.hooks import main
sys.exit(main(sys.argv[2:]))
"""

Value = TypeVar("Value")


def eventually(question: Callable[[], Value | None], limit_s: float = LIMIT_S) -> Value:
    """The first answer that is true; fails when there is none in time."""
    give_up = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < give_up, f"not within {limit_s} s: {question}"
        time.sleep(0.01)
    return answer


def running() -> list[tuple[int, int, str]]:
    """Id, parent and command line of every process of this machine."""
    command = ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    rows = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout.splitlines()
    return [(int(row[0]), int(row[1]), row[2]) for row in (line.split(None, 2) for line in rows) if len(row) == 3]


def kill_hook_of(script: subprocess.Popen[bytes]) -> None:
    """Kill the hook that a start script waits for."""

    def hook() -> int | None:
        return next((pid for pid, parent, words in running() if parent == script.pid and " hook start " in words), None)

    os.kill(eventually(hook), 9)


class Node:
    """The node's folders, its scripts and its stand-ins."""

    def __init__(self, home: Path) -> None:
        self.home = home / "a node"
        self.folder = self.home / "folder"
        self.scripts = self.home / "scripts"
        self.calls = self.home / "calls"
        self.bin = self.home / "bin"
        self.settings: dict[str, object] = {}
        self.home.mkdir()
        self.bin.mkdir()
        shutil.copytree(SCRIPTS, self.scripts)
        (self.home / "boot").write_text(f"{BOOT}\n")
        self._make_stand_ins()
        self.dcsup = self.script("dcsup", DCSUP.format(python=sys.executable, root=str(ROOT)))
        self.configure()

    def script(self, name: str, text: str) -> Path:
        """An executable file in the node's bin folder."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def _make_stand_ins(self) -> None:
        for name in ("agent", "server"):
            words = {"name": name, "calls": self.calls, "state": self.home / name}
            self.script(f"dc{name}", SERVICE_COMMAND.format(**words))
            self.script(f"dcstatus-{name}", STATUS_COMMAND.format(**words))
        for name, then in (("clplogcmd", ""), ("armbcast", ""), ("armsleep", "sleep 0.05")):
            self.script(name, RECORD_COMMAND.format(name=name, calls=self.calls, then=then))

    def configure(self, **settings: object) -> None:
        """Write dcsup.env; what is given stays for later calls."""
        self.settings.update(settings)
        values: dict[str, object] = {
            "DCSUP": self.dcsup, "DCSUP_FOLDER": self.folder, "DCSUP_GROUP": GROUP, "DCSUP_BOOT_FILE": self.home / "boot",
            "DCSUP_SERVICES": "agent server", "DCSUP_COMMAND_agent": self.bin / "dcagent", "DCSUP_COMMAND_server": self.bin / "dcserver",
            "DCSUP_STATUS_agent": self.bin / "dcstatus-agent", "DCSUP_STATUS_server": self.bin / "dcstatus-server",
            "DCSUP_ACK_TIMEOUT": "0.5", "DCSUP_START_DEADLINE": 60, "DCSUP_STOP_DEADLINE": 60, "DCSUP_COMMAND_LIMIT": 60,
            "DCSUP_INTERVAL": 1, "DCSUP_POLL_LIMIT": 5, "CLP_BIN": self.bin, **self.settings,
        }  # fmt: skip
        (self.scripts / "dcsup.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))

    def put(self, service: str, *flags: str) -> None:
        """Let a stand-in behave: up, hang, hold, fail, late, stubborn, mute."""
        for flag in flags:
            (self.home / f"{service}.{flag}").touch()

    def take(self, service: str, *flags: str) -> None:
        for flag in flags:
            (self.home / f"{service}.{flag}").unlink(missing_ok=True)

    def bypass(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "dcsup.bypass").touch()

    def environment(self, event: str, **variables: str) -> dict[str, str]:
        cluster = {"CLP_EVENT": event} if event else {}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "CLP_DISK": "SUCCESS", "CLP_SERVER": "HOME", **cluster, **variables}

    def begin(self, script: str, event: str = "START", *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Call one of the scripts as CLUSTERPRO does, and do not wait."""
        command = ["/bin/sh", str(self.scripts / script), *arguments]
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment(event, **variables), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def call(self, script: str, event: str = "START", *arguments: str, **variables: str) -> int:
        """Call one of the scripts and return its exit code."""
        return self.begin(script, event, *arguments, **variables).wait(LIMIT_S)

    # what was recorded

    def recorded(self, *beginnings: str) -> list[str]:
        """The stand-ins' calls in order; with `beginnings` only those that begin so."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if not beginnings or line.startswith(beginnings)]

    def verbs(self) -> list[str]:
        """Which verbs ran: `agent start`, ..."""
        return [line.removeprefix("run ") for line in self.recorded("run ")]

    def tickets(self) -> list[Ticket]:
        return tickets.listing(self.folder)

    def ticket(self) -> Ticket:
        """The newest ticket."""
        return self.tickets()[-1]

    def lines(self, kind: str) -> list[dict[str, str]]:
        """The plain lines of one type that scripts left in the outbox."""
        found = [files.from_text(path.read_text()) for path in sorted((self.folder / "outbox").glob("[0-9]*.line"))]
        return [fields for fields in found if fields["type"] == kind]

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """The data of the facts of one type that Python left in the outbox."""
        found = [json.loads(path.read_text()) for path in sorted((self.folder / "outbox").glob("[0-9]*.fact"))]
        return [fact["data"] for fact in found if fact["type"] == kind]

    # made by hand, where a test is about one party only

    def make_ticket(self, kind: str = "start", commands: tuple[tuple[str, str], ...] = (("agent", "start"), ("server", "recover")),
                    boot: str = BOOT, seq: int = 1) -> str:  # fmt: skip
        name = f"{boot}-{GROUP}-{seq}-{kind}"
        listed = {f"{n}.{key}": value for n, pair in enumerate(commands, 1) for key, value in zip(("service", "verb"), pair, strict=True)}
        content = {"ticket": name, "boot": boot, "group": GROUP, "script": kind, "event": "START", "server": "HOME", "previous": ""}
        for folder in ("tickets", "journal", "outbox", "watch"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        tickets.alive_path(self.folder, name).write_text("0\n")
        (self.folder / "tickets" / f"{name}.open").write_text(files.to_text({**content, "commands": len(commands), **listed}))
        return name

    def spec(self, ticket: str, n: int = 1, service: str = "agent", verb: str = "start", **more: Any) -> launcher.Spec:
        commands = {"command": [str(self.bin / f"dc{service}"), verb], "status": [str(self.bin / f"dcstatus-{service}")]}
        fixed: dict[str, Any] = {"boot": BOOT, "limit_s": 30.0, "poll_limit_s": 5.0, **commands}
        return launcher.Spec(folder=str(self.folder), ticket=ticket, n=n, service=service, verb=verb, **{**fixed, **more})

    def launch(self, spec: launcher.Spec) -> subprocess.Popen[bytes]:
        return processes.spawn_leader(launcher.argv(spec), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def outcome(self, spec: launcher.Spec) -> dict[str, Any]:
        """Run one launcher to its end and return what it printed, with its exit code as `exit`."""
        return answer_of(self.launch(spec))

    def hook(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a hook as a child of the test."""
        command = [str(self.dcsup), "hook", name, "--folder", str(self.folder), *arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def put_status(self, service: str, status: str = "healthy", *, ticket: str = "", verified: bool = True, **more: object) -> None:
        """What the watch job would write after a poll that has just ended."""
        now = time.monotonic()
        fields = {"service": service, "status": status, "verified": int(verified), "ticket": ticket, "polls": 1, "polling": 0, "boot": BOOT}
        path = statuses.path_of(self.folder, service)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_aside(path, files.to_text({**fields, "mono": now, "mono_started": now, "written": now, **more}), flush=False)


def answer_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=LIMIT_S)
    answer: dict[str, Any] = json.loads(output)
    return {**answer, "exit": process.returncode}


class Worker:
    """A node's worker in small: launchers for the tickets' next commands, and polls of what they started or stopped."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._over.wait(0.02):
            reaper.reap(self.node.folder, BOOT)
            for ticket in tickets.listing(self.node.folder):
                if ticket.state in ("open", "worker"):
                    self._serve(ticket)

    def _serve(self, ticket: tickets.Ticket) -> None:
        for command in ticket.commands():
            entry = journal.read(self.node.folder, ticket.id, command.n)
            if entry is None:
                self._launch(ticket, command)
                return
            self._poll(ticket, command.service)
            if ticket.kind == "start" and (status := statuses.read(self.node.folder, command.service, BOOT)) and status.status != "healthy":
                return

    def _launch(self, ticket: tickets.Ticket, command: tickets.Command) -> None:
        process = self.node.launch(self.node.spec(ticket.id, *command))
        while process.poll() is None and not self._over.wait(0.02):
            pass  # what becomes of a launcher is in the journal; a worker that is told to end does not wait for it
        if process.stdout is not None:
            process.stdout.close()
        if process.returncode is None:
            process.returncode = 0  # left behind on purpose; the journal is how one hears of it

    def _poll(self, ticket: tickets.Ticket, service: str) -> None:
        began = time.monotonic()
        code = processes.run_limited([str(self.node.bin / f"dcstatus-{service}")], 5.0, lambda: not self._over.is_set())
        status = "unknown" if code is None else "unhealthy" if code else "healthy"
        self.node.put_status(service, status, ticket=ticket.id, verified=code == 0, mono_started=began)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)


@contextlib.contextmanager
def killed_at_end(*started: subprocess.Popen[bytes]) -> Iterator[None]:
    """End these processes and their groups, whatever happens in between."""
    try:
        yield
    finally:
        for process in started:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, 9)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            process.wait(LIMIT_S)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def end_leftovers(node: Node) -> None:
    """End whatever commands of a test still run, by the process ids that the node's own files name."""
    for ticket in node.tickets():
        if ticket.state == "busy" and ticket.pid is not None:
            processes.kill_group(ticket.pid, ticket.born or "", 5.0)
    for path in node.home.glob("*.grandchild"):
        pid = files.to_int(path.read_text().strip())
        if pid is not None and (born := processes.born(pid)) is not None and processes.alive(pid, born):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
