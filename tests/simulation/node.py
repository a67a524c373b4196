"""One node of the cluster: a machine, its disk, its services, dcsup's worker and hooks on it, and everything that can happen to them.

The worker is workers.worker.Worker in a process of the kernel; it starts its two children, which start launchers (replaced.py). A
service manager starts the worker again when it ends. Hooks are started by the scripts (scripts.py), scripts by CLUSTERPRO
(clusterpro.py).

`faults` and `blows` are what can be done to a node by name: a blow makes CLUSTERPRO act, a trouble should not. Each returns what ends
it, or None where nothing has to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from tests.simulation import replaced
from tests.simulation.disk import Disk, File, SimPath
from tests.simulation.engine import Machine, Process, Signal
from tests.simulation.posix import Event, Handle, Processes
from tests.simulation.replaced import replacements
from tests.simulation.services import Pace, Services, SharedDisk, VerbRun
from tests.simulation.shell import Env
from workers.settings import NodeConfiguration
from workers.worker import Worker, prepare_folder

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Node", "replacements"]

Undo = Callable[[], None]
Fault = Callable[[], "Undo | None"]

RESTART_S = (1.0, 4.0)
"""After this the service manager starts an ended worker again."""

BOOT_S = (8.0, 25.0)
"""What the operating system needs to come up after a power cut."""

LATE = 0.15
LATE_S = (5.0, 20.0)
"""So often, and by so much, the worker is started after the cluster manager when the node boots."""

INTERLEAVED = 0.08
"""So many disk changes let others run first."""

STARTS_BEFORE_REST = 5


class Node:
    """See the module's text. Its name is also its machine's and its disk's."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.kernel = world, name, world.kernel
        self.settings: NodeConfiguration = world.settings_of(name)
        self.machine = Machine(self.kernel, name)
        self.machine.is_up = False
        self.disk = Disk(name, self.machine.time)
        self.disk.before, self.disk.after = self._before_change, self._after_change
        self.folder = SimPath(self.settings.node.folder)
        self.ground, self.calls_moved, self.outbox_grew = Signal(self.kernel), Signal(self.kernel), Signal(self.kernel)
        """Something changed that hooks look at; that the watch looks at (tickets and journal); that the forwarder looks at."""
        kinds = {one.name: one.kind for one in self.settings.cluster.services}
        self.services = Services(self.kernel, self.machine, dict(kinds), _shared_disk(world), Pace(), self._told)
        self.processes = Processes(self.kernel, self.services.run)
        self.job_ids: dict[Process | None, str] = {}
        self.jobs_done: list[tuple[float, str, str]] = []
        """(when, job id, what became of it)"""
        self.launchers: list[Process] = []
        self.verbs: list[Process] = []
        self.hooks: list[Process] = []
        self.parent: Process | None = None
        self.children: dict[str, Process] = {}
        self.on_boot: list[Callable[[], None]] = []
        self.crashing_hooks = 0
        self.is_without_dcsup = self.is_without_boot_id = False
        self._stopping: Event | None = None
        self._halted: list[Process] = []
        self._is_booting = False
        self._last_stamp_ns = 0
        self.blows: dict[str, Fault] = _blows(self)
        self.faults: dict[str, Fault] = _troubles(self)

    def _told(self, text: str) -> None:
        self.world.note(f"      {self.name}: {text}")

    # --- what the world looks at

    @property
    def boot_id(self) -> str:
        return self.machine.boot

    @property
    def is_up(self) -> bool:
        return self.machine.is_up

    @property
    def records(self) -> list[VerbRun]:
        return self.services.runs

    @property
    def facts_waiting(self) -> int:
        """Facts on the disk that are not durably in the log."""
        begin = f"{self.folder}/outbox/"
        return sum(
            path.startswith(begin) and path.endswith((".fact", ".line")) and "/.tmp-" not in path and "/damaged/" not in path
            for path in self.disk.files
        )

    # --- the disk

    def _before_change(self, _what: str, _path: str) -> None:
        if self.kernel.current is None:
            raise GreenletExit  # a killed process's last wishes
        if self.kernel.dice.random() < INTERLEAVED:
            self.kernel.sleep(self.kernel.dice.uniform(0.001, 0.05))

    def _after_change(self, what: str, path: str) -> None:
        if what != "rename" or "/.tmp-" in path.rpartition(" ")[2]:
            return
        target = path.rpartition(" ")[2]
        if target.endswith((".fact", ".line")):
            if "/numbered/" not in target:
                self.outbox_grew.set()
        elif not target.endswith((".alive", ".hook", "/head")):
            self.ground.set()
            if "/tickets/" in target or "/journal/" in target:
                self.calls_moved.set()

    def _put(self, name: str, content: bytes | None) -> None:
        """A file of the node folder, by somebody outside of the world."""
        path = f"{self.folder}/{name}"
        if content is not None:
            self.disk.put(path, File(content, self.machine.time()))
        elif path in self.disk.files:
            self.disk.put(path, None)

    def bypass(self, *, is_so: bool = True) -> None:
        """An operator puts dcsup.bypass there, or takes it away: scripts ask dcsup nothing."""
        self._put("dcsup.bypass", b"" if is_so else None)

    # --- the machine

    def boot(self) -> None:
        """The operating system comes up, and with it the worker and CLUSTERPRO."""
        if self.machine.is_up:
            return
        self._is_booting = False
        self.machine.start()
        self.world.note(f"{self.name} boots")
        self.start_worker(late=True)
        for told in self.on_boot:
            told()

    def kill(self) -> None:
        """The power is cut."""
        if not self.machine.is_up:
            return
        self.world.note(f"{self.name} loses power")
        self.services.end_all("node")
        self.machine.kill()
        self.disk.crash(self.kernel.dice)
        self._halted.clear()
        self.children.clear()
        self.parent = self._stopping = None

    def boot_later(self) -> None:
        """Somebody switches it on again."""
        if not self._is_booting and not self.machine.is_up:
            self._is_booting = True
            self.world.later(self.kernel.dice.uniform(*BOOT_S), lambda: self.boot() if self._is_booting else None)

    def connect(self, timeout_s: float = 2.0) -> Any:
        """A connection to Redis."""
        return self.world.net.client(self.name, timeout_s)

    # --- the worker

    def start_worker(self, *, late: bool = False) -> None:
        """The service manager: starts it, and again whenever it ends; when it boots, now and then, after whatever else takes its time."""
        if self.machine.is_up and not any(process.name == "service manager" for process in self.machine.processes):
            delay_s = self.kernel.dice.uniform(*LATE_S) if late and self.kernel.dice.random() < LATE else 0.0
            self.kernel.spawn("service manager", self.machine, self._manage, delay_s=delay_s)

    def go_down(self) -> None:
        """The operating system is shut down in order: it tells the worker to stop, and starts it no more."""
        for process in list(self.machine.processes):
            if process.name == "service manager":
                process.kill()
        self.stop_worker()

    def _manage(self) -> None:
        while True:
            self.parent = self.kernel.spawn("worker", self.machine, self._run_worker, parent=None)
            while self.parent.alive:
                self.kernel.wait(self.parent.ended)
            self.kernel.sleep(self.kernel.dice.uniform(*RESTART_S))

    def _run_worker(self) -> int:
        self.kernel.sleep(self.kernel.dice.uniform(*replaced.PYTHON_S))
        stopping = Event()
        try:
            prepare_folder(self.folder)  # type: ignore[arg-type]
            worker = Worker(self.settings, "dcsup.toml", self.boot_id, replaced.LOG, stopping)  # type: ignore[arg-type]
        except (OSError, ValueError):
            return 2
        self._stopping = stopping
        worker.run(None)  # type: ignore[arg-type]
        return 0

    def start_child(self, role: str) -> Handle:
        """The parent starts one of its two children."""
        stopping = Event()

        def run() -> int:
            self.kernel.sleep(self.kernel.dice.uniform(*replaced.PYTHON_S))
            try:
                child = replaced.RqChild(self, role, stopping)
            except (OSError, ValueError):
                return 2
            return child.run()

        parent = self.kernel.current
        assert parent is not None
        process = self.kernel.spawn(f"rq {role}", self.machine, run, parent=parent, leader=False)
        self.children[role] = process
        self.kernel.spawn(f"rq {role}'s eye", self.machine, lambda: replaced.look_after(self, process, stopping, parent))
        return Handle(process, lambda: self._tell_to_stop(process, stopping))

    def _tell_to_stop(self, process: Process, stopping: Event) -> None:
        self.kernel.spawn(f"{process.name}'s end", self.machine, lambda: replaced.end_soon(self, process, stopping))

    def stop_worker(self) -> None:
        """SIGTERM to the parent; the service manager starts it again."""
        if self._stopping is not None and self._lives(self.parent):
            self._stopping.set()
            self.outbox_grew.set()

    def workers(self, which: str = "all") -> list[Process]:
        """The worker's living processes: parent, cmd, watch, or all."""
        named = {"parent": self.parent, **self.children}
        chosen = list(named.values()) if which == "all" else [named.get(which)]
        return [process for process in chosen if process is not None and process.alive]

    def kill_worker(self, which: str = "all") -> None:
        """SIGKILL."""
        for process in self.workers(which):
            process.kill()

    @staticmethod
    def _lives(process: Process | None) -> bool:
        return process is not None and process.alive

    def halt(self, processes: Sequence[Process]) -> Undo | None:
        """SIGSTOP; what is returned sends SIGCONT."""
        chosen = [process for process in processes if process.alive]
        for process in chosen:
            process.stop()
        self._halted.extend(chosen)
        return lambda: self._go_on(chosen)

    @staticmethod
    def _go_on(halted: Sequence[Process]) -> None:
        for process in halted:
            if process.alive and process.is_stopped:
                process.cont()

    # --- what scripts need of it

    def stamp_ns(self) -> int:
        self._last_stamp_ns = max(int(self.machine.time() * 1e9), self._last_stamp_ns + 1)
        return self._last_stamp_ns

    def find_boot(self) -> str:
        return "" if self.is_without_boot_id else self.boot_id

    def start_hook(self, words: list[str]) -> Process | None:
        if self.is_without_dcsup:
            return None
        crashes = self.crashing_hooks > 0
        self.crashing_hooks -= crashes

        def run() -> int:
            self.kernel.sleep(self.kernel.dice.uniform(*replaced.PYTHON_S))
            return 1 if crashes else replaced.hook_main(words)

        hook = self.kernel.spawn(f"hook {words[0]}", self.machine, run, parent=self.kernel.current, leader=False)
        self.hooks.append(hook)
        return hook

    def tell_alert(self, module: str, number: int, text: str) -> None:
        """CLUSTERPRO's alert extension."""
        if self.is_up and not self.is_without_dcsup:
            words = ["--folder", str(self.folder), "--boot", self.boot_id, "--module", module, "--id", f"{number}", "--text", text]
            self.kernel.spawn("hook alert", self.machine, lambda: replaced.note_alert(words))

    def answer(self, argv: Sequence[str]) -> tuple[float, int, str]:
        """How long a command takes that only looks, its code, and what it prints.

        Raises:
            OSError: there is no such command now.
        """
        if argv[0] == "dcstatus":
            return (*self.services.run(argv), "")
        if argv[0] == "probe":
            return (0.2, 0, self.services.schedules()) if self.services.alive else (0.1, 1, "")
        return self.world.cluster.answer(self.name, argv)

    def env(self) -> Env:
        """dcsup.env, as `dcsup render` makes it of the configuration, with guards that look less often."""
        cluster, names = self.settings.cluster, tuple(one.name for one in self.settings.cluster.services)
        if self.name == self.world.plan.older_scripts:
            names = names[::-1]
        return Env(
            self.folder, cluster.group, names, {one.name: one.kind for one in cluster.services}, wait=dict.fromkeys(names, 4),
            ack_timeout=cluster.ack_timeout, start_deadline=int(cluster.start.deadline), stop_deadline=int(cluster.stop.deadline),
            command_limit=int(cluster.start.command_limit), interval=int(cluster.watch.interval), poll_limit=int(cluster.watch.poll_limit),
            confirm=cluster.watch.confirm, hook_silence=15, report_failure=cluster.stop.report_failure, guard_look_s=3.0,
        )  # fmt: skip

    # --- healing

    def heal(self) -> None:
        """Nothing is wrong with it any more: it is up, its disk is well, dcsup is there and its worker runs. Services stay as they are."""
        self.disk.is_full = self.disk.is_readonly = self.disk.is_failing = False
        self.is_without_dcsup = self.is_without_boot_id = False
        self.crashing_hooks = 0
        self.bypass(is_so=False)
        self.services.heal()
        if self.machine.is_paused:
            self.machine.resume()
        self._go_on(self._halted)
        self._halted.clear()
        self.boot()
        self.start_worker()


def _shared_disk(world: World) -> SharedDisk:
    """The group's, the same for all nodes."""
    first = next(iter(world.nodes.values()), None)
    return first.services.shared if first is not None else SharedDisk()


# --- what can happen to a node ------------------------------------------------------------------------------------------------------------


def _blows(node: Node) -> dict[str, Fault]:
    """After these CLUSTERPRO acts, if the group is here."""
    services = node.services

    def power_cut() -> None:
        node.kill()
        node.boot_later()

    def crash() -> None:
        if services.alive:
            services.end(node.kernel.dice.choice(sorted(services.alive)), "crash")

    def crash_all() -> None:
        services.end_all("crash")

    def sick() -> Undo:
        """It runs and is not healthy, until it is started anew."""
        for name in services.alive:
            services.moods[name].never_healthy = True
        return lambda: _set_moods(node, "never_healthy", False)

    return {"power cut": power_cut, "service crashed": crash, "all services crashed": crash_all, "service sick": sick}


def _set_moods(node: Node, name: str, value: Any) -> None:
    for mood in node.services.moods.values():
        setattr(mood, name, value)


def _troubles(node: Node) -> dict[str, Fault]:
    return {**_of_workers(node), **_of_scripts(node), **_of_machine(node), **_of_services(node)}


def _of_workers(node: Node) -> dict[str, Fault]:
    def kill(which: str) -> Fault:
        return lambda: node.kill_worker(which)

    def halt(which: str) -> Fault:
        return lambda: node.halt(node.workers(which))

    def kill_newest(processes: list[Process]) -> Fault:
        def strike() -> None:
            living = [process for process in processes if process.alive]
            processes[:] = living
            if living:
                living[-1].kill()

        return strike

    return {
        "worker killed": kill("all"), "parent killed": kill("parent"), "command worker killed": kill("cmd"),
        "watch worker killed": kill("watch"), "worker told to stop": lambda: node.stop_worker(), "worker halted": halt("all"),
        "parent halted": halt("parent"), "command worker halted": halt("cmd"), "watch worker halted": halt("watch"),
        "launcher killed": kill_newest(node.launchers), "launcher halted": lambda: node.halt(node.launchers[-1:]),
        "verb killed": kill_newest(node.verbs),
    }  # fmt: skip


def _of_scripts(node: Node) -> dict[str, Fault]:
    def kill_hook() -> None:
        living = [hook for hook in node.hooks if hook.alive]
        node.hooks[:] = living
        if living:
            living[-1].kill()

    def halt_hooks() -> Undo | None:
        return node.halt(node.hooks)

    def crashing() -> None:
        node.crashing_hooks += 2

    def switch(name: str) -> Fault:
        def strike() -> Undo:
            setattr(node, name, True)
            return lambda: setattr(node, name, False)

        return strike

    def bypass() -> Undo:
        node.bypass()
        return lambda: node.bypass(is_so=False)

    return {
        "hook killed": kill_hook, "hooks halted": halt_hooks, "hooks crash": crashing, "no dcsup": switch("is_without_dcsup"),
        "no boot id": switch("is_without_boot_id"), "bypass": bypass,
    }  # fmt: skip


def _of_machine(node: Node) -> dict[str, Fault]:
    def of_disk(name: str) -> Fault:
        def strike() -> Undo:
            setattr(node.disk, name, True)
            return lambda: setattr(node.disk, name, False)

        return strike

    def pause() -> Undo:
        node.machine.pause()
        return node.machine.resume

    def clock() -> None:
        node.machine.wall_offset_s += node.kernel.dice.choice((-1.0, 1.0)) * node.kernel.dice.choice((1.5, 30.0, 4000.0))

    return {
        "disk full": of_disk("is_full"), "disk read-only": of_disk("is_readonly"), "disk failing": of_disk("is_failing"),
        "node paused": pause, "clock jumps": clock,
    }  # fmt: skip


def _of_services(node: Node) -> dict[str, Fault]:
    def some(name: str, value: Any) -> Fault:
        def strike() -> Undo:
            service = node.kernel.dice.choice(sorted(node.services.moods))
            setattr(node.services.moods[service], name, value)
            default = type(node.services.moods[service])()
            return lambda: setattr(node.services.moods[service], name, getattr(default, name))

        return strike

    return {
        "verb fails": some("fail_verbs", 1), "verb hangs": some("hang_verbs", 1), "verb slow": some("slow_verbs", 2),
        "verb missing": some("verb_missing", True), "start never healthy": some("late", True), "dcstatus hangs": some("status_hangs", True),
        "dcstatus slow": some("status_slow_s", 4.0), "dcstatus lies": some("status_lies", 1),
        "dcstatus missing": some("status_missing", True),
    }  # fmt: skip
