"""What node code takes from the operating system, apart from the disk: clocks, process ids, births, groups, the ends of processes.

Each simulated process is a greenlet of the kernel (engine.py). Who asks is whoever runs at the moment: `time.monotonic()` is the clock of
the current process's machine, `os.getpid()` its id. Rules are those of workers/processes.py: another birth behind an id is a stranger, a
group lives while any member lives. Nothing here waits longer than it has to: a kill is seen at once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from greenlet import GreenletExit

from tests.simulation.disk import SimOs
from tests.simulation.engine import Kernel, Process, Signal

Program = Callable[[Sequence[str]], tuple[float, int]]
"""How long a short command (dcstatus) takes, in s (infinite: it hangs), and its code; OSError: there is no such command."""

LOOK_S = 1.0
"""How often a long wait asks whether it is still wanted."""


class Clock:
    """The module `time`, as the current process sees it.

    `wake` says what ends a sleep early: a signal of the process's node, say; `late_s` after it, so that what happens at about the same
    time is seen at once.
    """

    def __init__(self, kernel: Kernel, wake: Callable[[], Signal | None] = lambda: None, late_s: float = 0.0) -> None:
        self._kernel, self._wake, self._late_s = kernel, wake, late_s

    def monotonic(self) -> float:
        current = self._kernel.current
        if current is None:
            raise GreenletExit
        return current.machine.monotonic()

    def time(self) -> float:
        return self._kernel.machine.time()

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def sleep(self, seconds: float) -> None:
        signal = self._wake()
        if signal is None:
            self._kernel.sleep(seconds)
        elif self._kernel.wait(signal, seconds) and self._late_s:
            self._kernel.sleep(self._late_s)


class Event:
    """threading.Event, for a greenlet."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set


class Handle:
    """subprocess.Popen of a process that runs already."""

    stdout: Any = None

    def __init__(self, process: Process, on_terminate: Callable[[], None] | None = None) -> None:
        self.process, self.pid = process, process.pid
        self._on_terminate = on_terminate

    @property
    def returncode(self) -> int | None:
        if self.process.alive:
            return None
        return -9 if self.process.was_killed else int(self.process.result or 0)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        kernel = self.process.kernel
        until_s = kernel.now_s + (timeout if timeout is not None else float("inf"))
        while self.process.alive:
            if kernel.now_s >= until_s:
                raise subprocess.TimeoutExpired("simulated", timeout or 0.0)
            kernel.wait(self.process.ended, until_s - kernel.now_s)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        _ = self.process.kernel.machine  # who is being killed does nothing more
        if self._on_terminate is not None and self.process.alive:
            self._on_terminate()

    def kill(self) -> None:
        _ = self.process.kernel.machine
        self.process.kill()


class Processes:
    """workers/processes.py over the kernel's processes. `run` executes a short command in the process that asks."""

    def __init__(self, kernel: Kernel, run: Program) -> None:
        self._kernel, self._run = kernel, run

    def _here(self, pid: int) -> Process | None:
        process = self._kernel.by_pid.get(pid)
        return process if process is not None and process.alive and process.machine is self._kernel.machine else None

    def born(self, pid: int) -> str | None:
        process = self._here(pid)
        return process.born if process is not None else None

    def alive(self, pid: int, birth: str) -> bool:
        return self.born(pid) == birth

    def members(self, group: int) -> list[Process]:
        return [process for process in self._kernel.machine.processes if process.group == group]

    def group_alive(self, pid: int, birth: str) -> bool:
        if pid <= 1 or self.born(pid) not in (None, birth):
            return False
        return bool(self.members(pid))

    def kill_group(self, pid: int, birth: str, see_gone_s: float = 10.0) -> bool:
        _ = see_gone_s
        if self.group_alive(pid, birth):
            for process in self.members(pid):
                process.kill()
        return True

    def end_others(self, _child: object = None) -> None:
        current = self._kernel.current
        assert current is not None
        for process in self.members(current.group):
            if process is not current:
                process.kill()

    def tree_of(self, pid: int) -> list[Process]:
        """A process and what descends from it, as far as its line of parents lives or lived on this machine."""
        return [process for process in self._kernel.machine.processes if self._descends(process, pid)]

    @staticmethod
    def _descends(process: Process | None, pid: int) -> bool:
        while process is not None:
            if process.pid == pid:
                return True
            process = process.parent
        return False

    def end_tree(self, pid: int) -> None:
        for process in self.tree_of(pid):
            process.kill()

    def lead_group(self) -> None:
        """A launcher is made as a leader."""

    def run_limited(
        self, argv: Sequence[str], limit_s: float, keep_waiting: Callable[[], bool] = lambda: True, *, leader: bool = True
    ) -> int | None:
        """The question runs in the process that asks: it only looks, so that nothing is left of it when that process is killed."""
        _ = leader
        kernel = self._kernel
        took_s, code = self._run(argv)
        until_s = kernel.now_s + min(took_s, limit_s)
        while kernel.now_s < until_s:
            kernel.sleep(min(LOOK_S, until_s - kernel.now_s))
            if not keep_waiting():
                return None
        return code if took_s <= limit_s else None


class ProcessOs(SimOs):
    """`os` with the ids of the current process."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(lambda: kernel.current.pid if kernel.current is not None else 0)
        self._kernel = kernel
        self.getppid = self._parent

    def _parent(self) -> int:
        current = self._kernel.current
        return current.parent.pid if current is not None and current.parent is not None and current.parent.alive else 1
