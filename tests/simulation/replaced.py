"""What stands on a simulated node in the place of the operating system, of RQ and of the network; all else there is dcsup's own code.

    launcher   real, but for how it runs the verb (a process of the kernel instead of subprocess)
    RqChild    instead of workers/rqworker.py: the same loop over the same two lists, around the real `jobs.perform`
    Question   instead of runs.Run: dcstatus, the probe, clpstat, clpgrp
    Queue      instead of rq.Queue, as far as the watch's windows need it

`replacements` lists every name of dcsup's node-side modules that a world replaces, and what by. Where dcsup's loops look around many times
a second, they look once in a while here, and are woken when something changes on their node's disk.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import redis

from statemachines import wire
from tests.simulation.disk import SimPath
from tests.simulation.engine import Process, Signal
from tests.simulation.posix import Clock, Event, Handle, ProcessOs
from workers import (
    clock,
    clusterview,
    courier,
    files,
    forwarder,
    hooks,
    jobs,
    journal,
    launcher,
    maintenance,
    metadata,
    outbox,
    polls,
    probe,
    processes,
    rawfacts,
    reaper,
    runs,
    sequences,
    statuses,
    tickets,
    watch,
    worker,
)  # fmt: skip
from workers.forwarder import Reporter
from workers.hooks import alert as hook_alert
from workers.hooks import calls as hook_calls
from workers.hooks import common as hook_common
from workers.hooks import watch as hook_watch
from workers.runs import Outcome

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

Patch = tuple[Any, str, Any]

TAKE_S = 15.0
"""The blocking pop; RQ's lasts 5 s."""

PYTHON_S = (0.05, 0.4)
"""What Python needs to begin."""

FORWARDED_AFTER_S = 0.8
"""A new fact waits so long for others: the forwarder is woken, where in earnest it looks many times a second."""

ORPHAN_LOOK_S = 0.5
ORPHAN_LIMIT_S = 2.0
"""workers/rqworker.py: how long an orphan tries to end well."""


class NoLog:
    """Nobody reads it."""

    def _nothing(self, *_: object, **__: object) -> None:
        """Say nothing."""

    debug = info = warning = error = exception = _nothing


LOG = NoLog()
SILENT = SimpleNamespace(stderr=SimpleNamespace(write=lambda _: None, flush=lambda: None), platform="linux")
"""The module `sys`: what hooks print is read by nobody."""


class Question:
    """runs.Run: the answer is known when it begins, and given when its time has come."""

    world: World

    def __init__(
        self, argv: Sequence[str], limit_s: float, *, encoding: str = "utf-8", keep_output: bool = True, output_limit: int | None = None
    ) -> None:
        _ = encoding, output_limit
        machine = self.world.kernel.machine
        self.started, self._now = machine.monotonic(), machine.monotonic
        self._error, self._output, took_s, self._code = "", "", 0.0, None
        try:
            took_s, self._code, self._output = self.world.nodes[machine.name].answer(argv)
        except OSError as error:
            self._error = f"cannot run {argv[0]}: {error.strerror or error}"
        if took_s > limit_s:
            took_s, self._code, self._error = limit_s, None, "limit"
        self.ends = self.started + took_s
        """On the machine's monotonic clock."""
        self._kept = self._output if keep_output and not self._error else ""

    def poll(self) -> Outcome | None:
        if self._now() < self.ends:
            return None
        return Outcome(self._code, self._kept, self._error, self.started, self.ends)

    def discard(self) -> None:
        """Nothing is left of it."""


class SimLauncher(launcher.Launcher):
    """The real one, whose verb is a process of the kernel."""

    node: Node

    def _run_verb(self) -> launcher.Result:
        node, spec, kernel = self.node, self.spec, self.node.kernel
        if node.services.moods[spec.service].verb_missing:
            raise FileNotFoundError(2, "No such file or directory", spec.command[0])
        child = kernel.spawn(
            f"{spec.verb} {spec.service}", node.machine,
            lambda: node.services.run_verb(spec.service, spec.verb, spec.ticket, spec.n, "worker"), parent=kernel.current, leader=False,
        )  # fmt: skip
        node.verbs.append(child)
        try:
            code = Handle(child).wait(max(0.0, spec.limit_s - self._duration_s()))
        except subprocess.TimeoutExpired:
            node.processes.end_others()
            return launcher.Result("fail", ran=True, code=None, reason="limit")
        code = processes.exit_code(code)
        return launcher.Result("fail" if code else "ok", ran=True, code=code)


def run_launcher(node: Node, spec: launcher.Spec) -> dict[str, Any]:
    """launcher.main; returns what it prints."""
    node.kernel.sleep(node.kernel.dice.uniform(*PYTHON_S))
    one = SimLauncher(spec)
    one.node = node
    try:
        result = one.run()
    except launcher.Refusal as refusal:
        return {"outcome": "refused", "reason": refusal.reason, "detail": refusal.detail}
    return {"outcome": result.state, "reason": result.reason, "ran": result.ran, "code": result.code}


def launch(context: jobs.Context, spec: launcher.Spec) -> dict[str, Any] | None:
    """jobs._launch: a launcher's answer; None when this process was told to stop before it came."""
    node: Node = context.log.node
    kernel = node.kernel
    child = kernel.spawn(
        f"launcher {spec.ticket}#{spec.n}", node.machine, lambda: run_launcher(node, spec), parent=kernel.current, leader=True
    )
    node.launchers.append(child)
    while child.alive:
        if context.stopping.is_set():
            return None
        kernel.wait(child.ended, 1.0)
    if child.result is None:
        raise jobs.Refused("launcher-failed", "it ended and said nothing", spec.ticket, spec.n)
    answer: dict[str, Any] = child.result
    return answer


class NodeLog(NoLog):
    """Tells replaced functions which node they are on."""

    def __init__(self, node: Node) -> None:
        self.node = node


class Queue:
    """rq.Queue of the node's own watch queue."""

    def __init__(self, client: Any, cluster: str, node: str) -> None:
        self._client = client
        self.key = wire.watch_queue(cluster, node)
        self.intermediate_queue_key = f"{self.key}:intermediate"

    @property
    def count(self) -> int:
        counted: int = self._client.count_jobs(self.key)
        return counted

    def enqueue(self, _function: str, payload: dict[str, Any], *, job_id: str, **_: object) -> None:
        self._client.enqueue_job(self.key, job_id, payload)


class QuietWatch(watch.Watch):
    """The real one, which sleeps until something is due, or the disk changed."""

    node: Node

    def pause(self) -> None:
        machine = self.node.machine
        now, until = machine.monotonic(), self._alive_at
        for one in self.services.values():
            until = min(until, one._run.ends if isinstance(one._run, Question) else one._due)
        for other in (self._probe, self._cluster):
            run = getattr(other, "_run", None)
            if isinstance(run, Question):
                until = min(until, run.ends)
        self.node.kernel.wait(self.node.calls_moved, min(8.0, max(0.05, until - now)))


class RqChild:
    """workers/rqworker.py, for one of the node's two queues."""

    def __init__(self, node: Node, role: str, stopping: Event) -> None:
        settings = node.settings
        self.node, self.role, self.kernel = node, role, node.kernel
        self.queue = (wire.watch_queue if role == "watch" else wire.command_queue)(node.world.cluster_name, node.name)
        self.stopping = stopping
        self.unsettled = True
        self.log = NodeLog(node)
        self.reporter = Reporter(node.folder, node.boot_id, self.log)  # type: ignore[arg-type]  # a SimPath, as all paths here
        self.quick = node.connect(0.3)
        self.client = node.connect()
        self.direct = self.reporter.courier(settings.node.cluster, settings.node.name, self.quick)
        self.watch: QuietWatch | None = None
        if role == "watch":
            self.watch = QuietWatch(settings, node.boot_id, self.quick, self.reporter.report, self._hand_in_directly)
            self.watch.node = node
        self.context = jobs.Context(
            settings, node.boot_id, self.client, self._report, self.log, self.stopping, self.watch  # type: ignore[arg-type]
        )  # fmt: skip

    def run(self) -> int:
        """Work until told to stop."""
        wait_s = 0.05
        while not self.stopping.is_set():
            try:
                if self.unsettled:
                    self.client.recover_jobs(self.queue)
                    self.unsettled = False
                job = self.client.take_job(self.queue, TAKE_S)
            except redis.RedisError:
                self.unsettled = True
                self.idle(wait_s)
                wait_s = min(2 * wait_s, 2.0)
                continue
            wait_s = 0.05
            if job is not None:
                self._perform(*job)
        return 0

    def _perform(self, job_id: str, payload: dict[str, Any]) -> None:
        self.node.job_ids[self.kernel.current] = job_id
        jobs.configure(self.context)
        said = jobs.perform(payload)
        self.node.jobs_done.append((self.kernel.now_s, job_id, said))
        try:
            self.client.finish_job(self.queue, job_id)
        except redis.RedisError:
            self.unsettled = True

    def idle(self, seconds: float) -> None:
        until_s = self.kernel.now_s + seconds
        while self.kernel.now_s < until_s and not self.stopping.is_set():
            if self.watch is not None:
                self.watch.step()
                self.watch.pause()
            else:
                self.kernel.sleep(min(seconds, 0.5))
            self._hand_in_directly()

    def _report(self, kind: str, data: dict[str, Any], source: str = "worker") -> None:
        self.reporter.report(kind, data, source)
        self._hand_in_directly()

    def _hand_in_directly(self) -> None:
        if self.reporter.direct.pending:
            self.direct.step()


class Children:
    """The module `subprocess`, as workers/worker.py uses it: it starts the RQ workers."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self, world: World) -> None:
        self._world = world

    def Popen(self, argv: Sequence[str], **_: object) -> Handle:
        role = argv[argv.index("--role") + 1]
        node = self._world.nodes[self._world.kernel.machine.name]
        return node.start_child(role)


class NoThread:
    """threading.Thread of what nobody waits for: what the operating system says of permissions."""

    def __init__(self, **_: object) -> None:
        """It is not made."""

    def start(self) -> None:
        """Nor started."""


def look_after(node: Node, child: Process, stopping: Event, parent: Process) -> None:
    """The child's own thread that sees whether the parent lives: an orphan makes way for the next worker."""
    kernel = node.kernel
    while child.alive and parent.alive:
        kernel.wait(parent.ended)
    kernel.sleep(ORPHAN_LOOK_S)
    end_soon(node, child, stopping)


def end_soon(node: Node, child: Process, stopping: Event) -> None:
    """Told to stop: a wait is broken off, a job under way hears of it; at last it ends whatever it does. One that is halted cannot."""
    stopping.set()
    node.calls_moved.set()
    until_s = node.kernel.now_s + ORPHAN_LIMIT_S
    while child.alive and (node.kernel.now_s < until_s or child.is_stopped):
        node.kernel.wait(child.ended, 0.5)
    child.kill()


class Unrandom:
    """`secrets` and `uuid`: the same in every run of a seed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def token_hex(self, count: int) -> str:
        return f"{next(self._numbers):0{2 * count}x}"

    def uuid4(self) -> SimpleNamespace:
        return SimpleNamespace(hex=f"{next(self._numbers):016x}{0:016x}")


def replacements(world: World) -> list[Patch]:
    """Every name of the node side that this world replaces: (module or class, name, what by)."""
    kernel = world.kernel

    def here() -> Node:
        return world.nodes[kernel.machine.name]

    def signal(name: str) -> Callable[[], Signal | None]:
        return lambda: getattr(here(), name)

    time, os = Clock(kernel), ProcessOs(kernel)
    on_ground, on_outbox = Clock(kernel, signal("ground")), Clock(kernel, signal("outbox_grew"), FORWARDED_AFTER_S)
    Question.world = world
    unrandom = Unrandom()
    return [
        *((module, "time", time) for module in (
            files, tickets, outbox, reaper, hook_common, launcher, watch, polls, maintenance, forwarder, courier, clock, probe, metadata,
        )),
        *((module, "time", on_ground) for module in (hook_calls, hook_watch)), (worker, "time", on_outbox),
        *((module, "os", os) for module in (files, outbox, hook_common, launcher, watch, polls, sequences, worker)),
        *((module, "Path", SimPath) for module in (
            files, tickets, journal, outbox, statuses, hook_calls, hook_common, hook_watch, hook_alert, launcher, jobs, watch, polls,
            maintenance, sequences, rawfacts, forwarder, worker, probe, reaper,
        )),
        *((module, "Run", Question) for module in (polls, probe, clusterview, metadata)),
        *_of_processes(world), *_of_rq(world), *_numbers(), *_slower(), *_remembered(),
        (hooks, "sys", SILENT), (hook_watch, "sys", SILENT), (sequences, "secrets", unrandom), (watch, "uuid", unrandom),
        (worker, "version", lambda: "simulated"), (worker, "platform", SimpleNamespace(platform=lambda: "simulated")),
        (runs, "_left", {}), (worker, "threading", SimpleNamespace(Thread=NoThread)), (worker, "holds", lambda *_: True),
    ]  # fmt: skip


def _of_processes(world: World) -> list[Patch]:
    def of(name: str) -> Callable[..., Any]:
        return lambda *given, **named: getattr(world.nodes[world.kernel.machine.name].processes, name)(*given, **named)

    names = ("born", "alive", "group_alive", "kill_group", "end_others", "lead_group", "run_limited")
    return [*((processes, name, of(name)) for name in names), (hook_watch, "run_limited", of("run_limited"))]


def _of_rq(world: World) -> list[Patch]:
    def current_job() -> SimpleNamespace:
        current = world.kernel.current
        assert current is not None
        return SimpleNamespace(id=world.nodes[current.machine.name].job_ids.get(current, ""))

    def client_of(*_: object, **__: object) -> Any:
        return world.nodes[world.kernel.machine.name].connect()

    return [
        (jobs, "_launch", launch), (jobs, "get_current_job", current_job), (jobs, "watch_queue", Queue), (watch, "queue", Queue),
        (jobs, "_context", None), (worker, "client_of", client_of), (worker, "subprocess", Children(world)),
    ]  # fmt: skip


def _numbers() -> list[Patch]:
    return [(files, "_numbers", itertools.count(1)), (outbox, "_numbers", itertools.count(1))]


def _slower() -> list[Patch]:
    """Constants: everything looks around less often; what tells silence from life is longer to match."""
    return [
        (hook_calls, "TICK_S", 2.0), (hook_calls, "NO_PROGRESS_S", 12.0), (hook_calls, "_LIVENESS_LOOK_S", 1.0),
        (hook_common, "_PULSE_S", 3.0), (hook_common, "_PARENT_LOOK_S", 1.0), (hook_watch, "TICK_S", 5.0),
        (tickets, "ALIVE_LIMIT_S", 8.0), (tickets, "is_alive", functools.partial(tickets.is_alive, limit_s=8.0)),
        (statuses, "FRESH_S", 10.0), (watch, "LOOK_EVERY_S", 0.2), (watch, "ALIVE_EVERY_S", 6.0),
        (forwarder, "NOTICE_S", 8.0), (forwarder, "NOTICE_BUSY_S", 8.0), (courier, "MARK_EVERY_S", 0.1),
        (courier, "MARK_EVERY_IDLE_S", 10.0), (courier, "AGAIN_FIRST_S", 6.0), (courier, "MEASURE_FIRST", 1),
        (clock, "MEASURE_EVERY_S", 60.0), (worker, "TEND_EVERY_S", 2.0), (worker, "REAP_EVERY_S", 5.0),
        (worker, "SEED_EVERY_S", 10.0), (worker, "RESTART_FIRST_S", 0.5),
    ]  # fmt: skip


_parsed = functools.lru_cache(4096)(files.from_text)


@functools.lru_cache(4096)
def _parsed_fact(read: Callable[[Any], rawfacts.RawFact], path: SimPath, _content: bytes, _mtime_s: float) -> rawfacts.RawFact:
    return read(path)


def _remembered() -> list[Patch]:
    """What is read again and again and says the same each time is parsed once."""
    read_fact = rawfacts.read_fact

    def read(path: SimPath) -> rawfacts.RawFact:
        return _parsed_fact(read_fact, path, path.read_bytes(), path.stat().st_mtime)

    return [
        (files, "from_text", lambda text: _parsed(text).copy()), (tickets, "parse", functools.lru_cache(1024)(tickets.parse)),
        (sequences, "read_fact", read),
    ]  # fmt: skip


def hook_main(words: Sequence[str]) -> int:
    """`dcsup hook ...` in the current process."""
    return hooks.main([*words])


def note_alert(words: Sequence[str]) -> int:
    """`dcsup hook alert ...`: without its timer, which is a thread."""
    hook_alert._note([*words])
    return 0
