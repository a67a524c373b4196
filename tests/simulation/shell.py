"""What the scripts that CLUSTERPRO runs have in common, modelled: lib.sh and lib-*.sh of deploy/clusterpro/linux, function by function.

Each method has the name of the shell function that it is a transcript of, does the same renames in the same order under the same file
names, and writes the same contents. test_conformance.py runs the rendered scripts and this model on the same folders and compares what
they leave behind; whoever changes a script changes its transcript, or that test says so.

What is left out: the site's own code (there is none here), broadcasts and lines in the cluster log, and the ways in which sh is slow:
time passes only where the script sleeps or waits.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tests.simulation.disk import SimPath
from tests.simulation.engine import Kernel, Machine, Process, Signal
from tests.simulation.posix import Processes
from tests.simulation.services import Services

NAP_S = 0.1
KILLED = 137
OVER = ("done", "void")
VERBS = {
    "agent.start.START": "start", "agent.start.FAILOVER": "recover",
    "agent.stop.START": "stop", "agent.stop.FAILOVER": "faststop",
    "server.start.START": "recover", "server.start.FAILOVER": "recover",
    "server.stop.START": "faststop", "server.stop.FAILOVER": "faststop",
}  # fmt: skip


@dataclass(frozen=True)
class Env:
    """dcsup.env; durations in whole seconds, as there."""

    folder: SimPath
    group: str
    services: tuple[str, ...]
    kinds: dict[str, str]
    wait: dict[str, int] = field(default_factory=dict)
    verbs: dict[str, str] = field(default_factory=dict)
    """`<service>_<script>_<event>` -> verb."""
    ack_timeout: float = 4
    start_deadline: int = 600
    stop_deadline: int = 600
    command_limit: int = 300
    interval: int = 10
    poll_limit: int = 30
    confirm: int = 1
    hook_silence: int = 5
    report_failure: bool = False
    guard_look_s: float = 1.0
    """How often a guard looks; the scripts' own: 1."""


class Call(NamedTuple):
    """What the cluster manager sets for one call."""

    event: str = "START"
    disk: str = "SUCCESS"
    server: str = "HOME"
    factor: str = ""
    previous: str = ""


class Host(Protocol):
    """The node that a script runs on."""

    @property
    def kernel(self) -> Kernel: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def services(self) -> Services: ...
    @property
    def processes(self) -> Processes: ...

    def stamp_ns(self) -> int:
        """The machine's wall clock; no two lines get the same, for in between sh starts processes."""

    def find_boot(self) -> str:
        """What the script finds to be this boot's id; empty: nothing."""

    def start_hook(self, words: list[str]) -> Process | None:
        """Start `dcsup hook ...` as a child of the current process; None: there is no dcsup to run."""


class Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Interrupted(Exception):
    """SIGTERM."""


class Shell(ABC):
    """lib.sh, lib-processes.sh and lib-tickets.sh."""

    script = ""
    code_interrupted = 1

    def __init__(self, host: Host, env: Env, call: Call) -> None:
        self.host, self.env, self.call = host, env, call
        self.kernel, self.processes = host.kernel, host.processes
        self.tickets, self.journal, self.outbox = env.folder / "tickets", env.folder / "journal", env.folder / "outbox"
        self.boot = ""
        self.ticket = ""
        self.ticket_made = False
        self.child: Process | None = None
        self.marked = 0
        self.commands: list[tuple[str, str]] = []
        self.code = self.ended_by = 0
        self.hook_code, self.hook_reason = 75, ""
        self.unkillable = self.refused = False
        self._lines = itertools.count(1)
        self._limit_known: tuple[str, int] | None = None
        self._until_s = 0
        self._alive_count = self._alive_at = 0
        self._told_to_end = self._deaf = False
        self._process: Process | None = None

    # --- running

    def run(self) -> int:
        """The whole script, in the current process; returns its exit code."""
        self._process = self.kernel.current
        try:
            return self.main()
        except Exit as end:
            return end.code
        except Interrupted:
            return self.interrupted(self.code_interrupted)

    @abstractmethod
    def main(self) -> int:
        """What stands below the functions."""

    def terminate(self) -> None:
        """SIGTERM from outside."""
        if self._process is not None and self._process.alive:
            self._told_to_end = True
            self.kernel.wake(self._process)

    def _heed(self) -> None:
        if self._told_to_end and not self._deaf:
            raise Interrupted

    def _sleep(self, seconds: float) -> None:
        until_s = self.kernel.now_s + seconds
        while (left_s := until_s - self.kernel.now_s) > 0:
            self.kernel.wait(Signal(self.kernel), left_s)
            self._heed()

    def _wait(self, process: Process, look: Callable[[], bool] = lambda: False, look_s: float = float("inf")) -> None:
        """Wait for a child's end, or until `look`, asked every `look_s`, says that it was ended."""
        while process.alive:
            self.kernel.wait(process.ended, look_s)
            self._heed()
            if process.alive and look():
                return

    def now_s(self) -> int:
        return int(self.host.machine.monotonic())

    def wall_s(self) -> int:
        return int(self.host.machine.time())

    def nap(self) -> None:
        self._sleep(NAP_S)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # --- small files

    def put_file(self, path: SimPath, text: str) -> bool:
        aside = path.with_name(f".tmp-{self._tag()}-{path.name}")
        try:
            aside.write_text(text)
            aside.rename(path)
        except OSError:
            self._remove(aside)
            return False
        return True

    def _tag(self) -> int:
        current = self.kernel.current
        return current.pid if current is not None else self.pid

    @staticmethod
    def _remove(path: SimPath) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            pass

    @staticmethod
    def field_of(path: SimPath, key: str) -> str:
        try:
            lines = path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        found = [value for name, _, value in (line.partition("=") for line in lines) if name == key]
        return found[-1] if found else ""

    def tell(self, kind: str, **pairs: object) -> None:
        text = f"type={kind}\nsource=script\nboot={self.boot}\n" + "".join(f"{key}={value}\n" for key, value in pairs.items())
        stamp = self.host.stamp_ns()
        self.put_file(self.outbox / f"{stamp:019d}-{self._tag()}-{next(self._lines):06d}.line", text)

    def _make_folders(self, *folders: SimPath) -> None:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                pass

    # --- bounded calls

    def rest(self, seconds: float) -> None:
        self._sleep(seconds)

    def ask_status(self, service: str) -> bool:
        self.ended_by = 0
        try:
            took_s, code = self.host.services.run(["dcstatus", service])
        except OSError:
            self.code = 127
            return False
        self._sleep(min(took_s, self.env.poll_limit))
        if took_s > self.env.poll_limit:
            self.code, self.ended_by = KILLED, 9
            return False
        self.code = code
        return code == 0

    def guard_hook(self, hook: Process, sign: SimPath, limit_s: float) -> None:
        """The guard beside a hook: sets `ended_by` to 8 or 9 and ends the hook when it shows no sign of life, or outlives its limit."""
        began_s = heard_s = self.kernel.now_s
        seen = ""

        def look() -> bool:
            nonlocal seen, heard_s
            shown = self._first_line(sign)
            if shown != seen:
                seen, heard_s = shown, self.kernel.now_s
            if self.kernel.now_s - heard_s >= self.env.hook_silence:
                self.ended_by = 8
            elif limit_s and self.kernel.now_s - began_s >= limit_s:
                self.ended_by = 9
            if self.ended_by:
                self.processes.end_tree(hook.pid)
            return self.ended_by != 0

        self.ended_by, self.child = 0, hook
        self._wait(hook, look, self.env.guard_look_s)
        self.child = None
        self.code = KILLED if hook.was_killed else int(hook.result or 0)

    @staticmethod
    def _first_line(path: SimPath) -> str:
        try:
            return path.read_text().partition("\n")[0]
        except OSError:
            return ""

    # --- tickets

    def state_of(self, ticket: str) -> str:
        for _ in range(3):
            for path in self._files_of(ticket):
                state = path.name.rpartition(".")[2]
                if state.partition("-")[0] in ("open", "worker", "busy", "script", "done", "void") and path.exists():
                    return state
        return ""

    def _files_of(self, ticket: str) -> list[SimPath]:
        try:
            return sorted(path for path in self.tickets.iterdir() if path.name.startswith(f"{ticket}."))
        except OSError:
            return []

    def _path(self, ticket: str, state: str) -> SimPath:
        return self.tickets / f"{ticket}.{state}"

    def rename_ticket(self, ticket: str, before: str, after: str) -> bool:
        try:
            self._path(ticket, before).rename(self._path(ticket, after))
        except OSError:
            return False
        return True

    @staticmethod
    def split_busy(state: str) -> tuple[int, int, str]:
        _, n, pid, born = state.split("-", 3)
        return int(n), int(pid), born

    def journal_of(self, ticket: str, n: int) -> str:
        return next((entry for entry in ("ok", "fail", "lost", "start") if (self.journal / f"{ticket}.{n}.{entry}").exists()), "")

    def record(
        self, ticket: str, n: int, entry: str, service: str, verb: str, by: str, pid: object, born: str, *pairs: str
    ) -> None:  # fmt: skip
        text = (
            f"ticket={ticket}\nn={n}\nservice={service}\nverb={verb}\nby={by}\npid={pid}\nborn={born}\nboot={self.boot}\nmono=\n"
            f"up={self.now_s()}\nwall={self.wall_s()}\n"
        )
        self.put_file(self.journal / f"{ticket}.{n}.{entry}", text + "".join(f"{pair}\n" for pair in pairs))

    def record_lost(self, ticket: str, n: int, by: str, path: SimPath) -> None:
        if self.journal_of(ticket, n) not in ("", "start"):
            return
        service, verb = self.field_of(path, f"{n}.service"), self.field_of(path, f"{n}.verb")
        self.record(ticket, n, "lost", service, verb, by, "", "", "reason=process gone")
        self.tell("CommandEnded", ticket=ticket, n=n, service=service, verb=verb, by=by, result="lost", reason="process gone")

    def limit_of(self, ticket: str, n: int) -> None:
        if self._limit_known == (ticket, n):
            return
        self._limit_known = (ticket, n)
        self._until_s = self.now_s() + self.env.command_limit + 2
        start = self.journal / f"{ticket}.{n}.start"
        began = self.whole_seconds(self.field_of(start, "wall"))
        if began is None:
            return
        age = self.wall_s() - began
        ready = self.whole_seconds(self.field_of(start, "mono") or self.field_of(start, "up"))
        if ready is not None and 0 <= self.now_s() - ready < age:
            age = self.now_s() - ready
        if age >= 0:
            self._until_s -= age

    @staticmethod
    def whole_seconds(reading: str) -> int | None:
        seconds = reading.partition(".")[0]
        return int(seconds) if seconds.isdigit() and len(seconds) < 12 else None

    # --- N6

    def clear_ground(self) -> None:
        self.refused = False
        for _ in range(10):
            found = False
            for path in self._live_tickets():
                ticket, _, state = path.name.rpartition(".")
                if path.exists() and ticket.split("-", 1)[1].rsplit("-", 2)[0] == self.env.group:
                    found = True
                    self.void_ticket(ticket, state)
            if not found or self.refused:
                return

    def _live_tickets(self) -> list[SimPath]:
        try:
            paths = [path for path in self.tickets.iterdir() if not path.name.startswith(".")]
        except OSError:
            return []
        live = [path for path in paths if path.suffix.partition("-")[0] in (".open", ".worker", ".busy", ".script")]
        starts = sorted(path for path in live if path.stem.endswith("-start"))
        return starts + sorted(path for path in live if path.stem.endswith("-stop"))

    def void_ticket(self, ticket: str, state: str) -> None:
        if state.startswith("busy-"):
            self.end_busy(ticket, state)
        elif state.startswith("script-"):
            self.wait_for_mark(ticket, int(state.removeprefix("script-")))
        if self.rename_ticket(ticket, state, "void"):
            self._remove(self._path(ticket, "alive"))
        elif self._path(ticket, state).exists():
            self.refused = True

    def _is_of_this_boot(self, ticket: str) -> bool:
        return not self.boot or ticket.partition("-")[0] == self.boot

    def end_busy(self, ticket: str, state: str) -> None:
        n, pid, born = self.split_busy(state)
        if self._is_of_this_boot(ticket):
            self.processes.kill_group(pid, born)
        self.record_lost(ticket, n, "worker", self._path(ticket, state))

    def wait_for_mark(self, ticket: str, n: int) -> None:
        self.limit_of(ticket, n)
        until_s = self._until_s
        start = self.journal / f"{ticket}.{n}.start"
        pid, born = self.field_of(start, "pid"), self.field_of(start, "born")
        while self.state_of(ticket) == f"script-{n}" and self._is_of_this_boot(ticket):
            if pid and not (self.processes.alive(int(pid), born) if born else self.processes.born(int(pid)) is not None):
                break
            if self.now_s() >= until_s:
                if pid:
                    self.processes.end_tree(int(pid))
                break
            self.nap()
        if self._path(ticket, f"script-{n}").exists():
            self.record_lost(ticket, n, "script", self._path(ticket, f"script-{n}"))

    # --- this call's own ticket

    def name_ticket(self) -> None:
        while True:
            stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(self.host.machine.time()))
            self.ticket = f"{self.boot or 'unknown'}-{self.env.group}-{stamp}{self.pid:07d}-{self.script}"
            if not self._files_of(self.ticket):
                return
            self.nap()

    def make_ticket(self) -> bool:
        self.name_ticket()
        if not self.boot:
            return False
        call = self.call
        text = (
            f"ticket={self.ticket}\nboot={self.boot}\ngroup={self.env.group}\nscript={self.script}\nevent={call.event}\ndisk={call.disk}\n"
            f"server={call.server}\nfactor={call.factor}\nprevious={call.previous}\npid={self.pid}\ncommands={len(self.commands)}\n"
        )
        for n, (service, verb) in enumerate(self.commands, start=1):
            text += f"{n}.service={service}\n{n}.verb={verb}\n"
        made = self.put_file(self._path(self.ticket, "alive"), "0000000000\n") and self.put_file(self._path(self.ticket, "open"), text)
        self.ticket_made = made
        return made

    def keep_alive(self) -> None:
        if self.ticket_made and not self.refused and (now := self.now_s()) != self._alive_at:
            self._alive_at, self._alive_count = now, self._alive_count + 1
            self.put_file(self._path(self.ticket, "alive"), f"{self._alive_count}\n")

    def take_ticket(self) -> bool:
        if not self.ticket_made or self.unkillable:
            return True
        self.taking_refused = 49 if self.refused else 0
        self.refused = False
        while self.taking_refused < 50:
            state = self.state_of(self.ticket)
            if not state:
                break
            if state.partition("-")[0] == "script":
                return True
            if state in OVER:
                return False
            if state in ("open", "worker"):
                if self.rename_ticket(self.ticket, state, "script"):
                    return True
                self.taking_refused += 1
            elif self.take_busy(state):
                return True
            elif self.unkillable:
                return self.script == "stop"
        self.refused = True
        return True

    def take_busy(self, state: str) -> bool:
        n, pid, born = self.split_busy(state)
        self.limit_of(self.ticket, n)
        if self.processes.group_alive(pid, born):
            if self.now_s() < self._until_s:
                self.nap()
            elif not self.processes.kill_group(pid, born):
                self.unkillable = True
            return False
        if not self._path(self.ticket, state).exists():
            return False
        self.record_lost(self.ticket, n, "worker", self._path(self.ticket, state))
        if self.rename_ticket(self.ticket, state, "script"):
            return True
        if self._path(self.ticket, state).exists():
            self.taking_refused += 1
        return False

    def close_ticket(self, code: int) -> None:
        if self.ticket_made:
            for _ in range(5):
                state = self.state_of(self.ticket)
                if not state or state in OVER:
                    break
                if state.startswith("busy-"):
                    self.end_busy(self.ticket, state)
                if self.rename_ticket(self.ticket, state, "done"):
                    break
            self._remove(self._path(self.ticket, "alive"))
        self.tell("ScriptEnded", ticket=self.ticket, script=self.script, code=code)

    def call_hook(self, limit_s: int) -> None:
        env = self.env
        hook = self.host.start_hook(
            [self.script, "--folder", str(env.folder), "--ticket", self.ticket, "--ack-timeout", f"{env.ack_timeout}",
             "--limit", f"{limit_s}", "--command-limit", f"{env.command_limit}", "--poll-limit", f"{env.poll_limit}",
             "--parent", f"{self.pid}"]
        )  # fmt: skip
        if hook is None:
            self.hook_code, self.hook_reason = 127, "hook-127"
            return
        self.guard_hook(hook, self._path(self.ticket, "alive"), limit_s + 5)
        self.hook_code = self.code
        self.hook_reason = {8: "hook-silent", 9: "hook-limit"}.get(self.ended_by, f"hook-{self.code}")

    # --- lib-plain.sh

    def verb_of(self, service: str) -> str:
        kind = self.env.kinds[service]
        if kind == "command":
            return self.script
        return self.env.verbs.get(f"{service}_{self.script}_{self.call.event}") or VERBS[f"{kind}.{self.script}.{self.call.event}"]

    def list_commands(self) -> None:
        order = self.env.services if self.script == "start" else self.env.services[::-1]
        self.commands = [(service, self.verb_of(service)) for service in order]

    def decline(self, reason: str, code: int) -> None:
        self.tell("ScriptDeclined", script=self.script, reason=reason, event=self.call.event, disk=self.call.disk)
        raise Exit(code)

    def ask_dcsup(self, limit_s: int) -> None:
        self.hook_code = 75
        if not self.make_ticket():
            self.hook_reason = "no-ticket"
        elif (self.env.folder / "dcsup.bypass").exists():
            self.hook_reason = "bypass"
        else:
            self.call_hook(limit_s)

    def fall_back(self) -> bool:
        self.tell("FallbackTaken", ticket=self.ticket, reason=self.hook_reason)
        return self.take_ticket()

    def run_plain(self, n: int) -> bool:
        service, verb = self.commands[n - 1]
        if self.ticket_made and not self.rename_ticket(self.ticket, "script", f"script-{n}") and self.state_of(self.ticket) in OVER:
            return False
        self.marked = n
        self.child = self.kernel.spawn(
            f"nested {verb} {service}", self.host.machine, lambda: self.run_nested(n, service, verb), parent=self._process, leader=False
        )
        child = self.child
        self._wait(child)
        self.code = KILLED if child.was_killed else int(child.result)
        self.child, self.marked = None, 0
        return True

    def run_nested(self, n: int, service: str, verb: str) -> int:
        tag = self._tag()
        born = self.processes.born(tag) or ""
        self.record(self.ticket, n, "start", service, verb, "script", tag, born)
        self.tell("CommandStarted", ticket=self.ticket, n=n, service=service, verb=verb, by="script")
        began = self.now_s()
        code = self.host.services.run_verb(service, verb, self.ticket, n, "script")
        result, took = "fail" if code else "ok", self.now_s() - began
        ending = (f"code={code}", "ran=1", f"duration_s={took}", "reason=")
        self.record(self.ticket, n, result, service, verb, "script", tag, born, *ending)
        self.tell(
            "CommandEnded",
            ticket=self.ticket,
            n=n,
            service=service,
            verb=verb,
            by="script",
            result=result,
            ran=1,
            code=code,
            duration_s=took,
        )
        if self.ticket_made:
            self.rename_ticket(self.ticket, f"script-{n}", "script")
        return code

    def note_healthy(self, n: int) -> None:
        service, verb = self.commands[n - 1]
        self.record(self.ticket, n, "ok", service, verb, "script", "", "", "code=0", "ran=0", "duration_s=0", "reason=already-healthy")
        self.tell("CommandStarted", ticket=self.ticket, n=n, service=service, verb=verb, by="script")
        self.tell(
            "CommandEnded",
            ticket=self.ticket,
            n=n,
            service=service,
            verb=verb,
            by="script",
            result="ok",
            ran=0,
            code=0,
            reason="already-healthy",
        )

    def interrupted(self, code: int) -> int:
        self._deaf = True
        if self.child is not None:
            self.processes.end_tree(self.child.pid)
        if self.marked:
            self.record_lost(self.ticket, self.marked, "script", self._path(self.ticket, f"script-{self.marked}"))
        if self.ticket:
            self.close_ticket(code)
        return code
