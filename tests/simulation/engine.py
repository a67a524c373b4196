"""Virtual time. Every simulated process is a greenlet that runs until it sleeps, waits, or touches a disk; then the dice say who is next.

Nothing here knows dcsup. A process is never stopped in the middle of a Python statement, only at these points; the points are where the
outside world could see a difference. A killed process is never resumed: what its `finally` blocks would still do is kept from the world
(`Kernel.current` is None then, and disks refuse whoever is nobody).

All times are seconds. `Kernel.now_s` is true time since the beginning; a machine has a wall clock of its own, which may be wrong and may
jump, and a monotonic clock that counts from its boot.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

START_S = 1_800_000_000.0
"""True wall time at the beginning, seconds since 1970."""


class Signal:
    """Something that processes wait for. `set` wakes all who wait now; it does not stay set."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: list[Process] = []

    def set(self) -> None:
        waiting, self._waiting = self._waiting, []
        for process in waiting:
            self._kernel.wake(process)

    def join(self, process: Process) -> None:
        self._waiting.append(process)

    def leave(self, process: Process) -> None:
        if process in self._waiting:
            self._waiting.remove(process)


class Machine:
    """A computer: its clocks, its boots, its processes."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel, self.name = kernel, name
        self.wall_offset_s = 0.0
        """How wrong its wall clock is."""
        self.boots = 0
        self.booted_s = 0.0
        self.is_up = True
        self.is_paused = False
        self.processes: list[Process] = []
        self._held: list[Process] = []
        self._asked_s = 0.0

    @property
    def boot(self) -> str:
        """This boot's id: letters and digits (NODE.md N4)."""
        return f"{self.name.replace('-', '')}boot{self.boots}"

    def monotonic(self) -> float:
        """Never the same twice, as on a real machine: what came later is later."""
        self._asked_s += 1e-7
        return self.kernel.now_s - self.booted_s + 1000.0 + self._asked_s

    def time(self) -> float:
        return START_S + self.kernel.now_s + self.wall_offset_s

    def pause(self) -> None:
        """As a virtual machine that is suspended, or SIGSTOP to all: nobody on it runs, the clocks go on."""
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        held, self._held = self._held, []
        for process in held:
            self.kernel.wake(process)

    def hold(self, process: Process) -> None:
        self._held.append(process)

    def kill(self) -> None:
        """The power is cut: every process is gone."""
        self.is_up = False
        for process in list(self.processes):
            process.kill()
        self.is_paused, self._held = False, []

    def start(self) -> None:
        """The next boot."""
        self.boots += 1
        self.booted_s = self.kernel.now_s
        self.is_up = True


class Process:
    """One simulated process; `group` is the process id of its group's leader."""

    def __init__(
        self, kernel: Kernel, name: str, machine: Machine, function: Callable[[], Any], parent: Process | None, leader: bool
    ) -> None:
        self.kernel, self.name, self.machine, self.parent = kernel, name, machine, parent
        self.pid = next(kernel.pids)
        self.born = f"b{self.pid}"
        self.group: int = self.pid if leader or parent is None else parent.group
        self.alive = True
        self.is_stopped = False
        """SIGSTOP to this process alone."""
        self.result: Any = None
        """What its function returned; None for one that was killed."""
        self.was_killed = False
        self.ended = Signal(kernel)
        self.ended_s: float | None = None
        self.turn = 0
        """Which of its wake-ups counts: those of before are stale."""
        self.woken = False
        self._greenlet = greenlet(self._run, parent=kernel.hub)
        self._function = function

    def _run(self) -> None:
        try:
            self.result = self._function()
        except GreenletExit:
            return
        except Exception as error:
            self.kernel.crashed.append((self, error))
        self._over()

    def _over(self) -> None:
        self.alive = False
        self.ended_s = self.kernel.now_s
        self.machine.processes.remove(self)
        self.ended.set()

    def step(self) -> None:
        """Let it run to its next point; for the kernel only."""
        self._greenlet.switch()

    def kill(self) -> None:
        """SIGKILL. A process that kills itself never returns from here."""
        if not self.alive:
            return
        self.was_killed = True
        self._over()
        if self.kernel.current is self:
            self.kernel.hub.switch()
        elif not self._greenlet.dead:
            before, self.kernel.current = self.kernel.current, None
            self._greenlet.parent = getcurrent()  # it comes back here
            try:
                self._greenlet.throw(GreenletExit)
            finally:
                self.kernel.current = before

    def stop(self) -> None:
        """SIGSTOP."""
        self.is_stopped = True

    def cont(self) -> None:
        """SIGCONT."""
        self.is_stopped = False
        self.kernel.wake(self)


class Kernel:
    """Who runs when. Everything that is left to chance is decided by `dice`, so that a seed always tells the same story."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now_s = 0.0
        self.pids = itertools.count(1000)
        self.hub = getcurrent()
        self.current: Process | None = None
        self.crashed: list[tuple[Process, Exception]] = []
        """Processes that ended with an exception: our own mistakes."""
        self.by_pid: dict[int, Process] = {}
        self._queue: list[tuple[float, float, int, int, Process]] = []
        self._numbers = itertools.count()

    def spawn(
        self, name: str, machine: Machine, function: Callable[[], Any], *, delay_s: float = 0.0, parent: Process | None = None,
        leader: bool = True,
    ) -> Process:  # fmt: skip
        """Start a process on a machine that is up. Without `leader` it joins its parent's group."""
        process = Process(self, name, machine, function, parent, leader)
        machine.processes.append(process)
        self.by_pid[process.pid] = process
        self._push(process, delay_s)
        return process

    def _push(self, process: Process, delay_s: float) -> None:
        process.turn += 1
        heapq.heappush(self._queue, (self.now_s + max(0.0, delay_s), self.dice.random(), next(self._numbers), process.turn, process))

    def wake(self, process: Process) -> None:
        """It runs soon, whatever it waits for."""
        if process.alive and process is not self.current:
            process.woken = True
            self._push(process, 0.0)

    # --- for processes

    @property
    def machine(self) -> Machine:
        """Where the current process runs; one that is being killed comes no further than here."""
        if self.current is None:
            raise GreenletExit
        return self.current.machine

    def sleep(self, seconds: float) -> None:
        """Sleep; of a process that is nobody's (being killed) there is no return."""
        process = self.current
        if process is None:
            raise GreenletExit
        self._push(process, seconds)
        self.hub.switch()

    def wait(self, signal: Signal, timeout_s: float = float("inf")) -> bool:
        """Wait for the signal; False: the time ran out. Whoever waits looks at the world again, as with a condition variable."""
        process = self.current
        if process is None:
            raise GreenletExit
        process.woken = False
        signal.join(process)
        process.turn += 1
        if timeout_s != float("inf"):
            self._push(process, timeout_s)
        self.hub.switch()
        signal.leave(process)
        return process.woken

    # --- running

    def run(self, until_s: float, after_step: Callable[[Process], None] | None = None) -> None:
        """Let everybody run up to this time, or until nobody has anything left to do. `after_step` sees every step."""
        while self._queue and self._queue[0][0] <= until_s:
            at_s, _, _, turn, process = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, at_s)
            if not process.alive or turn != process.turn:
                continue
            if process.machine.is_paused:
                process.machine.hold(process)
                continue
            if process.is_stopped:
                continue  # SIGCONT wakes it
            self.current = process
            process.step()
            self.current = None
            if after_step is not None:
                after_step(process)
        self.now_s = max(self.now_s, until_s)

    def stop(self) -> None:
        """End every process, so that nothing of this world is left behind."""
        for process in list(self.by_pid.values()):
            process.kill()
        self._queue.clear()
