"""The simulated scripts do what the real ones do: the same folders, the same hooks, and what both leave behind is the same.

The real side is /bin/sh with the scripts as they are rendered and the stand-ins of tests/protocol; the simulated side is scripts.py on the
kernel. A case says what lies on the disk, what the hook and the worker do before the hook ends, and how services behave (cases.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.protocol.bench import LIMIT_S, ROOT, SERVICE_COMMAND, STATUS_COMMAND, Node, eventually
from tests.simulation import disk
from tests.simulation.cases import BOOT, GROUP, KINDS, Case, act, generate, prepare
from tests.simulation.disk import Disk, SimPath
from tests.simulation.engine import Kernel, Machine, Process
from tests.simulation.posix import Processes
from tests.simulation.scripts import StartScript, StopScript, WatchScript
from tests.simulation.services import Life, Moods, Pace, Services, SharedDisk, VerbRun
from tests.simulation.shell import Call, Env, Shell
from workers import files, processes

BATCHES, CASES_EACH = 4, 14
AT_ONCE = 3

HOOK = """\
#!{python} -S
import os, signal, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.simulation.cases import act
words = sys.argv[2:]
folder, ticket = Path(words[words.index("--folder") + 1]), words[words.index("--ticket") + 1] if "--ticket" in words else ""
def toggle(service):
    path = Path({home!r}, service + ".up")
    path.unlink() if path.exists() else path.touch()
act(folder, ticket, {steps!r}, toggle)
ending = {ending!r}
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if ending == "hang":
    time.sleep(300)
sys.exit(int(ending))
"""


class Left(NamedTuple):
    """What a call leaves behind, without names and times that cannot be the same."""

    code: int
    verbs: list[str]
    tickets: list[str]
    journal: dict[str, dict[str, str]]
    lines: list[dict[str, str]]
    own: dict[str, str]
    """The content of the script's own ticket."""


# --- the real side ------------------------------------------------------------------------------------------------------------------------


class RealNode(Node):
    """The bench's, with a DBMS."""

    def __init__(self, home: Path, case: Case) -> None:
        super().__init__(home)
        self.case = case
        self.living: list[subprocess.Popen[bytes]] = []
        words = {"name": "dbms", "calls": self.calls, "state": self.home / "dbms"}
        self.script("dcdbms", SERVICE_COMMAND.format(**words))
        self.script("dcstatus-dbms", STATUS_COMMAND.format(**words))
        hook = HOOK.format(python=sys.executable, root=str(ROOT), home=str(self.home), steps=case.hook, ending=case.ending)
        dbms = self.bin / "dcdbms"
        self.configure(
            DCSUP=self.bin / "nothing" if case.ending == "missing" else self.script("dcsup", hook), DCSUP_SERVICES=case.services,
            DCSUP_KIND_dbms="command", DCSUP_START_dbms=f'"{dbms}" start', DCSUP_STOP_dbms=f'"{dbms}" stop',
            DCSUP_STATUS_dbms=self.bin / "dcstatus-dbms", DCSUP_START_DEADLINE=1, DCSUP_STOP_DEADLINE=1, DCSUP_COMMAND_LIMIT=1,
            DCSUP_POLL_LIMIT=1, DCSUP_HOOK_SILENCE=2, DCSUP_INTERVAL=1, DCSUP_REPORT_FAILURE=int(case.report_failure),
            DCSUP_BOOT_FILE=self.home / ("boot" if case.has_boot else "no-boot"),
            **{f"DCSUP_VERB_{key}": verb for key, verb in case.verbs.items()},
        )  # fmt: skip
        if not case.has_boot:
            (self.home / "no-boot").write_text("\n")
        self.put_all()
        prepare(self.folder, case, self.start_living)

    def put_all(self) -> None:
        for service in self.case.up:
            self.put(service, "up")
        for service, mood in self.case.moods.items():
            self.put(service, mood)

    def start_living(self) -> tuple[int, str]:
        process = processes.spawn_leader([sys.executable, "-S", "-c", "import time; time.sleep(300)"])
        self.living.append(process)
        return process.pid, processes.born(process.pid) or ""

    def end_living(self) -> None:
        for process in self.living:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT_S)


def really(home: Path, case: Case) -> Left:
    """Run the real script."""
    node = RealNode(home, case)
    try:
        script = node.begin(f"{case.script}.sh", case.event, CLP_DISK=case.disk, CLP_FACTOR=case.factor, CLP_SERVER_PREV=case.previous)
        if case.told_to_end:
            eventually(lambda: node.verbs())
            os.kill(script.pid, signal.SIGTERM)
        code = script.wait(4 * LIMIT_S)
        lived = [process.poll() is None for process in node.living]
    finally:
        node.end_living()
    return _left(node.folder, code, [*node.verbs(), *(f"living: {one}" for one in lived)])


# --- the simulated side -------------------------------------------------------------------------------------------------------------------


class SimulatedNode:
    """A `scripts.Host` whose hooks do what the case says."""

    def __init__(self, case: Case) -> None:
        disk.DISKS.clear()
        self.case = case
        self.kernel = Kernel(case.seed)
        self.machine = Machine(self.kernel, "node1")
        self.disk = Disk("node1", self.machine.time)
        self.folder = SimPath("/node1/folder")
        names = case.services.split()
        self.services = Services(
            self.kernel, self.machine, {name: KINDS[name] for name in names}, SharedDisk(), Pace((0.1, 0.1), (0.0, 0.0), (0.01, 0.01))
        )
        self.processes = Processes(self.kernel, self.services.run)
        self.living: list[Process] = []
        self.script: Shell | None = None
        self._stamp_ns = 0

    def env(self) -> Env:
        case = self.case
        return Env(
            self.folder, GROUP, tuple(case.services.split()), KINDS, verbs=case.verbs, start_deadline=1, stop_deadline=1, command_limit=1,
            interval=1, poll_limit=1, hook_silence=2, report_failure=case.report_failure,
        )  # fmt: skip

    def stamp_ns(self) -> int:
        self._stamp_ns = max(int(self.machine.time() * 1e9), self._stamp_ns + 1)
        return self._stamp_ns

    def find_boot(self) -> str:
        return BOOT if self.case.has_boot else ""

    def start_hook(self, words: list[str]) -> Process | None:
        if self.case.ending == "missing":
            return None

        def run() -> int:
            self.kernel.sleep(0.05)
            act(self.folder, words[words.index("--ticket") + 1] if "--ticket" in words else "", self.case.hook, self.toggle)
            current = self.kernel.current
            assert current is not None
            if self.case.ending == "killed":
                current.kill()
            if self.case.ending == "hang":
                self.kernel.sleep(300)
            return int(self.case.ending)

        return self.kernel.spawn("hook", self.machine, run, parent=self.kernel.current, leader=False)

    def toggle(self, service: str) -> None:
        if service in self.services.alive:
            self.services.end(service, "toggled")
        else:
            self.put_up(service)

    def put_up(self, service: str) -> None:
        current = self.kernel.current
        assert current is not None
        run = VerbRun("node1", None, 0, service, "start", "worker", 0.0, current)
        self.services.alive[service] = Life("node1", service, 0.0, 0.0, run)

    def start_living(self) -> tuple[int, str]:
        process = self.kernel.spawn("living", self.machine, lambda: self.kernel.sleep(100_000))
        self.living.append(process)
        return process.pid, process.born

    def set_moods(self) -> None:
        fields: dict[str, dict[str, Any]] = {
            "fail": {"fail_verbs": 99},
            "late": {"late": True},
            "stubborn": {"stubborn": True},
            "mute": {"status_hangs": True},
        }
        for service, mood in self.case.moods.items():
            self.services.moods[service] = Moods(**fields[mood])

    def run(self) -> Left:
        """Prepare, call the script, look."""
        done: list[int] = []

        def manager() -> None:
            prepare(self.folder, self.case, self.start_living)
            for service in self.case.up:
                self.put_up(service)
            self.set_moods()
            self.script = self._script()
            process = self.kernel.spawn("script", self.machine, self.script.run)
            while process.alive:
                if self.case.told_to_end and self.services.runs and not self.script._told_to_end:
                    self.script.terminate()
                self.kernel.wait(process.ended, 0.05)
            done.append(process.result)

        self.kernel.spawn("manager", self.machine, manager)
        self.kernel.run(90.0)
        lived = [process.alive for process in self.living]
        verbs = [f"{run.service} {run.verb}" for run in self.services.runs]
        try:
            assert not self.kernel.crashed, self.kernel.crashed
            return _left(self.folder, done[0], [*verbs, *(f"living: {one}" for one in lived)])
        finally:
            self.kernel.stop()

    def _script(self) -> Shell:
        case = self.case
        if case.script == "watch":
            return WatchScript(self, self.env(), case.services.split()[-1])
        kind = StartScript if case.script == "start" else StopScript
        return kind(self, self.env(), Call(case.event, case.disk, "HOME", case.factor, case.previous))


# --- what is compared ---------------------------------------------------------------------------------------------------------------------

_PASSING = ("wall", "pid", "born", "mono", "duration_s", "boot", "up")


def _left(folder: Any, code: int, verbs: list[str]) -> Left:
    own = _own_ticket(folder)
    tickets = sorted(_named(path.name, own) for path in (folder / "tickets").iterdir())
    journal = {
        _named(path.name, own): _fields(path, own) for path in sorted((folder / "journal").iterdir()) if not path.name.startswith(".")
    }
    lines = [_fields(path, own) for path in sorted((folder / "outbox").iterdir()) if path.name.endswith(".line")]
    mine = next(
        (path for path in (folder / "tickets").iterdir() if own and path.name.startswith(f"{own}.") and not _is_sidecar(path)), None
    )
    return Left(code, verbs, tickets, journal, lines, _fields(mine, own) if mine is not None else {})


def _is_sidecar(path: Any) -> bool:
    return str(path.name).endswith((".alive", ".verdict"))


def _own_ticket(folder: Any) -> str:
    """The one ticket that the script made: its number is a date."""
    names = {path.name.rpartition(".")[0] for path in (folder / "tickets").iterdir()}
    lines = [path for path in (folder / "outbox").iterdir() if path.name.endswith(".line")]
    names |= {files.from_text(path.read_text()).get("ticket", "") for path in lines}
    return next((name for name in sorted(names) if len(name) > 20 and len(name.split("-")[-2]) > 10), "")


def _named(name: str, own: str) -> str:
    """A file's name; processes are told as gone or there elsewhere."""
    name = name.replace(own, "OWN") if own else name
    stem, _, state = name.rpartition(".")
    return f"{stem}.busy" if state.startswith("busy-") else name


def _fields(path: Any, own: str) -> dict[str, str]:
    found = files.from_text(path.read_text())
    return {key: "..." if key in _PASSING and value else value.replace(own, "OWN") if own else value for key, value in found.items()}


def _differences(case: Case, real: Left, simulated: Left) -> Iterator[str]:
    for name, ours, theirs in zip(Left._fields, real, simulated, strict=True):
        if ours != theirs:
            yield f"{name}\n    real:      {ours}\n    simulated: {theirs}"


def _compare(home: Path, generated: Sequence[Case]) -> list[str]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        homes = [home / f"case{case.seed}" for case in generated]
        for one in homes:
            one.mkdir()
        real = list(pool.map(really, homes, generated))
    faults = []
    for case, left in zip(generated, real, strict=True):
        differing = list(_differences(case, left, SimulatedNode(case).run()))
        if differing:
            faults.append(f"case {case.seed}: {case}\n  " + "\n  ".join(differing))
    return faults


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts of Windows are others")
@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_simulated_scripts_leave_behind_what_the_real_ones_do(batch: int, tmp_path: Path) -> None:
    """Verbs in order, tickets, journal, outbox lines and exit code are the same for generated cases (N1-N8, G8-G18, I8)."""
    faults = _compare(tmp_path, [generate(seed) for seed in range(batch * CASES_EACH, (batch + 1) * CASES_EACH)])
    assert not faults, "\n".join(faults)


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts of Windows are others")
@pytest.mark.parametrize("script", ["start", "stop"])
def test_a_script_that_is_told_to_end_closes_its_ticket_as_the_simulated_one(script: str, tmp_path: Path) -> None:
    """N8: SIGTERM in the middle of a plain command ends it, says that it is lost, and closes the ticket."""
    case = Case(1000, script, "server", up=("server",) if script == "stop" else (), told_to_end=True)
    node = tmp_path / "case1000"
    node.mkdir()
    real = _really_held(node, case)
    assert list(_differences(case, real, SimulatedNode(case).run())) == []


def _really_held(home: Path, case: Case) -> Left:
    """As `really`, with a verb that waits."""
    node = RealNode(home, case)
    node.put("server", "hold")
    try:
        script = node.begin(f"{case.script}.sh", case.event)
        eventually(lambda: node.verbs())
        os.kill(script.pid, signal.SIGTERM)
        code = script.wait(4 * LIMIT_S)
    finally:
        node.take("server", "hold")
        node.end_living()
    return _left(node.folder, code, node.verbs())
