"""The launcher: one small process per command, which claims it, runs it and writes its own end (NODE.md N3).

Why a process of its own: whoever claims a command must be whoever runs it. If the worker claimed and then started a child, a worker
that is killed in between would leave a claim without a command, or a command without anybody who writes its end. So the launcher leads
its own process group, puts its own process id into the ticket's name, and whatever becomes of the worker, either the launcher writes the
end, or its process is gone and everybody can see that.

The order is the contract; what a crash at each point leaves behind stands behind it:

1. check: ticket open or idle with the worker, this boot, script alive (N7), n listed as (service, verb), nothing in the
   journal for (T, n), n-1 ended                                                        - nothing
2. I2: a server's start needs its own agent healthy (G23)                              - nothing
3. `live` held open, for batch files (workers/journal.py)                               - nothing
4. claim by rename: `busy-<n>-<pid>-<born>` (N2)                                       - a busy name without a process: reaped as lost
5. the journal again: between 1 and 4 a twin may have run it whole (N5)                - the same
6. journal `start`, fact CommandStarted                                                - the same
7. a start asks dcstatus first; 0: ended ok with ran=0
8. the verb, with its time limit; past it every other member of the group is ended and seen gone
9. journal `ok` or `fail`, fact CommandEnded                                           - the end is known, the name is repaired
10. release by rename, `live` let go                                                   - done

Run as `python -I -S .../workers/launcher.py` (see `argv`), one JSON `Spec` as its only argument or on stdin. It prints one JSON line,
`{"outcome": "ok|fail|lost|refused", "reason": ...}`, and exits 0, 1, 4 or 3 in that order; 2 for a spec that is none.
Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

if not __package__:  # started by path in isolated mode, where the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workers import journal, outbox, processes, statuses, tickets

EXIT_OK, EXIT_FAIL, EXIT_BAD_SPEC, EXIT_REFUSED, EXIT_LOST = 0, 1, 2, 3, 4
_EXITS = {"ok": EXIT_OK, "fail": EXIT_FAIL, "refused": EXIT_REFUSED, "lost": EXIT_LOST}

START_VERBS = ("start", "recover")
STOP_VERBS = ("stop", "faststop")

OUTPUT_LIMIT_BYTES = 64 * 1024
"""Of a command's output the last 64 KiB are kept."""

_DRAIN_S = 0.2
"""How long after the command's return its output is still collected: a daemon may hold the pipe for ever."""

_RECORD_TRIES = 20
"""An end that cannot be written (disk full) is tried again for about 2 s before the command counts as lost."""


class Spec(NamedTuple):
    """What the worker asks for. Commands are argument lists from the node's own configuration, never from Redis."""

    folder: str
    ticket: str
    n: int
    service: str
    verb: str
    boot: str
    command: list[str]
    """The whole command line for this verb: `dcserver recover`, or what starts a DBMS (G24)."""
    status: list[str]
    limit_s: float
    """For the whole command, from its journal start on: its first dcstatus and the verb."""
    poll_limit_s: float = 30.0
    encoding: str = "utf-8"
    agent: dict[str, Any] | None = None
    """For a server whose own agent is configured before it: `{"service": name, "status": dcstatus argv}` (I2)."""


class Refusal(Exception):
    """Nothing was run. `reason` is one of the words of the fact CommandRefused."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Result(NamedTuple):
    state: journal.State
    ran: bool
    code: int | None
    reason: str = ""
    output: str = ""


def argv(spec: Spec) -> list[str]:
    """How to start a launcher; use `processes.spawn_leader`, and read its one line of output."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), json.dumps(spec._asdict())]


def parse(text: str) -> Spec:
    """The spec in `text`.

    Raises:
        ValueError: it is not one.
    """
    try:
        spec = Spec(**json.loads(text))
    except TypeError as error:
        raise ValueError(str(error)) from error
    if spec.verb not in START_VERBS + STOP_VERBS or not spec.command or not spec.status or spec.n < 1:
        raise ValueError("verb, command, status or n is not usable")
    return spec


class Launcher:
    """One command of one ticket."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.folder = Path(spec.folder)
        self.pid = os.getpid()
        self.born = processes.born(self.pid) or "0"
        self.begun_mono = time.monotonic()

    def run(self) -> Result:
        """Everything from the check to the release.

        Raises:
            Refusal: nothing was run, and the ticket is as it was.
        """
        self._check()
        self._check_agent()
        held = self._hold()
        try:
            return self._run_claimed()
        finally:
            journal.let_go(held)

    def _run_claimed(self) -> Result:
        busy = self._claim()
        self.begun_mono = time.monotonic()
        self._record_start(busy)
        result = self._perform()
        if not self._record_end(result):
            return result._replace(state="lost", reason="disk")  # the busy name stays, and says that the process is gone
        self._tell_end(result)
        tickets.release(busy)
        return result

    # 1, 2: what must hold before the claim

    def _check(self) -> tickets.Ticket:
        ticket = tickets.find(self.folder, self.spec.ticket)
        if ticket is None or ticket.is_over:
            raise Refusal("no-ticket")
        if ticket.state not in ("open", "worker"):
            raise Refusal("not-claimed", f"the ticket is {ticket.state}")
        if tickets.has_twin(self.folder, ticket):
            raise Refusal("not-claimed", "the ticket has two states at once: the disk is damaged")
        if ticket.boot != self.spec.boot:
            raise Refusal("other-boot")
        if not tickets.is_alive(self.folder, ticket.id):
            raise Refusal("script-gone", "no sign of life of the script")
        if tickets.Command(self.spec.n, self.spec.service, self.spec.verb) not in ticket.commands():
            raise Refusal("not-listed")
        self._check_journal(ticket.kind)
        return ticket

    def _check_journal(self, kind: tickets.Kind) -> None:
        entry = journal.read(self.folder, self.spec.ticket, self.spec.n)
        if entry is not None:
            raise Refusal("already-run", entry.state)
        before = journal.read(self.folder, self.spec.ticket, self.spec.n - 1) if self.spec.n > 1 else None
        # A stop goes on past a failed command, as the guide's script does: the next service is to be stopped all the same.
        enough = ("ok",) if kind == "start" else ("ok", "fail")
        if self.spec.n > 1 and (before is None or before.state not in enough):
            raise Refusal("not-its-turn", f"command {self.spec.n - 1} has not ended well")

    def _check_agent(self) -> None:
        agent = self.spec.agent
        if agent is None or self.spec.verb not in START_VERBS:
            return
        status = statuses.read(self.folder, agent["service"], self.spec.boot)
        if status is not None and status.status == "healthy" and status.age_s(time.monotonic()) <= statuses.FRESH_S:
            return
        if self._ask(agent["status"]) != 0:
            raise Refusal("agent-down", agent["service"])

    def _ask(self, question: list[str]) -> int | None:
        try:
            return processes.run_limited(question, min(self.spec.poll_limit_s, self.spec.limit_s / 2), leader=False)
        except OSError:
            return None  # cannot be asked: not known to be healthy

    # 3, 4, 5: the claim

    def _hold(self) -> BinaryIO:
        try:
            return journal.hold(self.folder, self.spec.ticket, self.spec.n)
        except OSError as error:
            raise Refusal("disk", str(error)) from error

    def _claim(self) -> tickets.Ticket:
        busy = tickets.claim(self._check(), self.spec.n, self.pid, self.born)
        if busy is None:
            raise Refusal("not-claimed", "somebody else was faster")
        if (entry := journal.read(self.folder, self.spec.ticket, self.spec.n)) is not None:
            tickets.release(busy)
            raise Refusal("already-run", entry.state)
        return busy

    # 6, 9: what is written

    def _fields(self) -> dict[str, object]:
        return {
            "service": self.spec.service, "verb": self.spec.verb, "by": "worker", "pid": self.pid, "born": self.born,
            "boot": self.spec.boot, "mono": time.monotonic(), "wall": time.time(),
        }  # fmt: skip

    def _record_start(self, busy: tickets.Ticket) -> None:
        try:
            journal.write(self.folder, self.spec.ticket, self.spec.n, "start", self._fields())
        except OSError as error:
            # Without this entry nothing could keep a second run away (N5).
            tickets.release(busy)
            raise Refusal("disk", str(error)) from error
        self._tell("CommandStarted", {})

    def _record_end(self, result: Result) -> bool:
        ending = {"code": result.code, "ran": int(result.ran), "duration_s": self._duration_s(), "reason": result.reason}
        for _ in range(_RECORD_TRIES):
            try:
                journal.write(self.folder, self.spec.ticket, self.spec.n, result.state, {**self._fields(), **ending})
            except OSError:
                time.sleep(0.1)
            else:
                return True
        return False

    def _tell_end(self, result: Result) -> None:
        data = {"result": result.state, "ran": result.ran, "code": result.code, "duration_s": self._duration_s()}
        self._tell("CommandEnded", {**data, "output": result.output, "reason": result.reason})

    def _tell(self, kind: str, more: dict[str, object]) -> None:
        spec = self.spec
        data = {"ticket": spec.ticket, "n": spec.n, "service": spec.service, "verb": spec.verb, "by": "worker", **more}
        try:
            outbox.write_fact(self.folder, kind, "worker", data, spec.boot)
        except OSError:
            pass  # the journal has it; a fact never decides about a service

    def _duration_s(self) -> float:
        return round(time.monotonic() - self.begun_mono, 6)

    # 7, 8: the command

    def _perform(self) -> Result:
        if self.spec.verb in START_VERBS and self._ask(self.spec.status) == 0:
            return Result("ok", ran=False, code=0, reason="already-healthy")
        try:
            return self._run_verb()
        except OSError as error:
            return Result("fail", ran=False, code=None, reason=f"cannot be run: {error}")

    def _run_verb(self) -> Result:
        child = subprocess.Popen(self.spec.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        tail = Tail(child)
        try:
            code = processes.exit_code(child.wait(max(0.0, self.spec.limit_s - self._duration_s())))
        except subprocess.TimeoutExpired:
            processes.end_others(child)
            return Result("fail", ran=True, code=None, reason="limit", output=tail.text(self.spec.encoding))
        return Result("fail" if code else "ok", ran=True, code=code, output=tail.text(self.spec.encoding))


class Tail:
    """The end of a command's output, read while it runs so that a full pipe never stops it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self._pipe = child.stdout
        self._kept = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while block := os.read(self._pipe.fileno(), OUTPUT_LIMIT_BYTES):
            self._kept = (self._kept + block)[-OUTPUT_LIMIT_BYTES:]

    def text(self, encoding: str) -> str:
        self._reader.join(_DRAIN_S)
        if self._reader.is_alive():
            self._leave_drain()
        return self._kept.decode(encoding, "replace")

    def _leave_drain(self) -> None:
        """A daemon inherited the pipe. When we end, its next line of output would kill it (SIGPIPE): leave it somebody who reads."""
        if sys.platform == "win32":
            return  # services are started by the service manager there and inherit nothing
        try:
            subprocess.Popen(
                ["cat"], stdin=self._pipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/"
            )
        except OSError:
            pass  # nothing better can be done, and the command itself has returned


def main(arguments: list[str] | None = None) -> int:
    """Run one command; see the module's text for the exit codes."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        spec = parse(given[0] if given else sys.stdin.read())
    except ValueError as error:
        _print({"outcome": "refused", "reason": "bad-job", "detail": str(error)})
        return EXIT_BAD_SPEC
    processes.lead_group()
    try:
        result = Launcher(spec).run()
    except Refusal as refusal:
        _print({"outcome": "refused", "reason": refusal.reason, "detail": refusal.detail})
        return EXIT_REFUSED
    _print({"outcome": result.state, "reason": result.reason, "ran": result.ran, "code": result.code})
    return _EXITS[result.state]


def _print(answer: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # the worker that asked may be gone; journal and ticket say the same


if __name__ == "__main__":
    code = main()
    # Not sys.exit: the reader thread may still sit in a pipe that a daemon holds, and nothing is left to tidy up.
    os._exit(code)
