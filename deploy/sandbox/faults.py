"""The faults of a soak, by kind: what each does to a site, whom it hits, and how it is healed.

`KINDS` is the table. A kind is *harmless* if nobody's service may be interrupted by it: whatever dcsup is made of, Redis, the network
between them, an operator's pause, a dcstatus that hangs (the guide waits then). The others hit the world, and a failover is the right
answer. The checker (checker.py) holds the manager's acts and the clients' outages against this.

A fault that needs prey (a launcher lives a fifth of a second) is tried at each turn until it finds some, or the episode is over.
Everything is written down in `records/soak.jsonl`: `fault` with its number, kind and whom it is on, `healed`, and `operator` with
what he did.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deploy.sandbox.site import Site, dcsup_command
from deploy.sandbox.standins import records
from deploy.sandbox.ways import OPEN, Ways

BALLAST = "ballast"
COMMAND_LIMIT_S = 60.0


class World:
    """A site, its ways to Redis, and what is done to them.

    Args:
        site: with everything up.
        ways: one for each orchestrator and node of the site.
        dice: decides what is left to chance.
        small_disks: whether the node folders are on disks so small that they can be filled.
    """

    def __init__(self, site: Site, ways: Ways, dice: random.Random, *, small_disks: bool) -> None:
        self.site, self.cluster, self.ways, self.dice, self.small_disks = site, site.cluster, ways, dice, small_disks
        self.injected: Counter[str] = Counter()
        self.operated: Counter[str] = Counter()
        self.errands: list[subprocess.Popen[bytes]] = []
        """Commands of operators that are under way."""
        self._leader = site.orchestrators[0]
        self._active = self.cluster.nodes[0]
        self._number = 0

    # --- who is who

    @property
    def active(self) -> str:
        """The node that has the group, or had it last."""
        for node in self.cluster.nodes:
            try:
                owner = self.cluster.view(node)["view"]["owner"] if self.is_on(node) else None
            except (OSError, ValueError):
                continue
            self._active = owner or self._active
            break
        return self._active

    @property
    def standby(self) -> str:
        active = self.active
        return next(node for node in self.cluster.nodes if node != active)

    @property
    def leader(self) -> str:
        """The orchestrator that leads, or led last."""
        self._leader = self.site.leader() or self._leader
        return self._leader

    @property
    def follower(self) -> str:
        leader = self.leader
        return next(name for name in self.site.orchestrators if name != leader)

    def is_on(self, node: str) -> bool:
        """Whether a node's cluster service runs."""
        return node in self.site.managers and self.site.managers[node].poll() is None

    def runs(self, name: str) -> bool:
        """Whether a process of the site runs, such as `worker-node1`."""
        child = self.site.running.get(name)
        return child is not None and child.poll() is None

    def below(self, child: subprocess.Popen[bytes] | None, *words: str) -> psutil.Process | None:
        """A process below that one whose command line has all these words."""
        try:
            family = psutil.Process(child.pid).children(recursive=True) if child is not None else []
        except psutil.Error:
            return None
        for process in family:
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                return process
        return None

    def of_worker(self, node: str, *words: str) -> psutil.Process | None:
        return self.below(self.site.running.get(f"worker-{node}"), *words)

    def of_manager(self, node: str, *words: str) -> psutil.Process | None:
        return self.below(self.site.managers.get(node), *words)

    # --- what is written down

    def note(self, what: str, at: float | None = None, /, **fields: Any) -> None:
        records.append(str(self.cluster.records / "soak.jsonl"), {"time": at or time.time(), "what": what, **fields})

    def began(self, kind: Kind, on: str, at: float) -> int:
        """A fault of that kind was injected; its doing began `at`. Its number."""
        self._number += 1
        self.injected[kind.name] += 1
        self.note("fault", at, number=self._number, kind=kind.name, on=on, harmless=kind.harmless)
        return self._number

    def operator(self, act: str, **fields: str) -> None:
        self.operated[act] += 1
        self.note("operator", act=act, **fields)

    # --- operators

    def errand(self, *argv: str) -> None:
        """An operator runs a command, and nobody waits for it."""
        with (self.site.base / "log" / "operators.log").open("ab") as output:
            self.errands.append(
                subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            )

    def desk(self, *words: str) -> bool:
        """An operator runs dcsup at a desk whose way to Redis is good; whether it said yes."""
        try:
            answer = self.site.dcsup(*words, "--config", str(self.site.config("desk")), timeout_s=COMMAND_LIMIT_S)
        except subprocess.TimeoutExpired:
            return False
        if answer.returncode:
            with (self.site.base / "log" / "operators.log").open("a", encoding="utf-8") as log:
                log.write(f"{' '.join(words)}: {answer.returncode} {answer.stdout}{answer.stderr}\n")
        return answer.returncode == 0

    def tell_manager(self, node: str, command: str, *words: str) -> bool:
        """An operator tells the cluster manager something on a node, and waits for a while; whether it said yes."""
        try:
            return self.cluster.run(node, f"clp/bin/{command}", *words, timeout_s=COMMAND_LIMIT_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def end_errands(self) -> None:
        """What operators still wait for is broken off."""
        for child in self.errands:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self.errands.clear()


@dataclass
class Hit:
    """One fault under way: whom it is on, and what its healing needs."""

    on: str
    processes: list[psutil.Process] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        begin: does it; None: there was nothing to hit yet.
        heal: takes it back. May be called though what was hit is gone by now.
        seconds: shortest and longest time from the one to the other.
    """

    name: str
    harmless: bool
    begin: Callable[[World], Hit | None]
    heal: Callable[[World, Hit], None]
    seconds: tuple[float, float] = (0.3, 3.0)


def leave(world: World, hit: Hit) -> None:
    """Nothing is to be healed: who looks after it brings it back."""


# --- processes of dcsup and Redis


def _kill_orchestrator(world: World, name: str) -> Hit | None:
    if not world.runs(f"orchestrator-{name}"):
        return None
    world.site.kill(f"orchestrator-{name}")
    return Hit(name)


def _start_orchestrator(world: World, hit: Hit) -> None:
    if not world.runs(f"orchestrator-{hit.on}"):
        world.site.start_orchestrator(hit.on)


def _freeze(world: World, on: str, process: psutil.Process | None) -> Hit | None:
    if process is None:
        return None
    try:
        process.suspend()
    except psutil.Error:
        return None
    return Hit(on, [process])


def _go_on(world: World, hit: Hit) -> None:
    for process in hit.processes:
        try:
            process.resume()
        except psutil.Error:
            pass  # it was killed meanwhile


def _running(world: World, name: str) -> psutil.Process | None:
    return psutil.Process(world.site.running[name].pid) if world.runs(name) else None


def _kill_worker(world: World) -> Hit | None:
    node = world.dice.choice(world.cluster.nodes)
    if not world.is_on(node) or not world.runs(f"worker-{node}"):
        return None
    world.site.kill(f"worker-{node}")
    return Hit(node)


def _start_worker(world: World, hit: Hit) -> None:
    if world.is_on(hit.on) and not world.runs(f"worker-{hit.on}"):
        world.site.start_worker(hit.on)


def _freeze_worker(world: World) -> Hit | None:
    node = world.dice.choice(world.cluster.nodes)
    return _freeze(world, node, _running(world, f"worker-{node}"))


def _kill(world: World, node: str, prey: psutil.Process | None, wait_s: float = 0.0) -> Hit | None:
    if prey is None:
        return None
    time.sleep(world.dice.uniform(0.0, wait_s))
    try:
        prey.kill()
    except psutil.Error:
        return None  # it was quicker
    return Hit(node)


def _any_node(hunt: Callable[[World, str], psutil.Process | None], wait_s: float = 0.0) -> Callable[[World], Hit | None]:
    """A kill of what is found on either node."""

    def begin(world: World) -> Hit | None:
        for node in world.dice.sample(world.cluster.nodes, len(world.cluster.nodes)):
            hit = _kill(world, node, hunt(world, node), wait_s)
            if hit is not None:
                return hit
        return None

    return begin


def _rq_worker(role: str) -> Callable[[World, str], psutil.Process | None]:
    return lambda world, node: world.of_worker(node, "workers.rqworker", f"--role {role}")


def _freeze_rq_worker(role: str) -> Callable[[World], Hit | None]:
    def begin(world: World) -> Hit | None:
        node = world.dice.choice(world.cluster.nodes)
        return _freeze(world, node, _rq_worker(role)(world, node))

    return begin


def _kill_redis(world: World) -> Hit | None:
    if world.site.redis.pid is None:
        return None
    world.site.redis.kill()
    return Hit("redis")


def _start_redis(world: World, hit: Hit) -> None:
    if world.site.redis.pid is None:
        world.site.redis.start()


def _freeze_redis(world: World) -> Hit | None:
    pid = world.site.redis.pid
    return None if pid is None else _freeze(world, "redis", psutil.Process(pid))


def _trouble(mode: str) -> Callable[[World], Hit | None]:
    """Give somebody's way to Redis a trouble."""

    def begin(world: World) -> Hit | None:
        name = world.dice.choice(world.ways.names)
        world.ways.set(name, mode, seconds=world.dice.choice((0.02, 0.2, 1.0)), share=world.dice.choice((0.02, 0.2)))
        return Hit(name)

    return begin


def _open_way(world: World, hit: Hit) -> None:
    world.ways.set(hit.on, OPEN)


# --- the node folder's disk, and operators of dcsup


def _fill_disk(world: World) -> Hit | None:
    if not world.small_disks:
        return None
    node = world.dice.choice(world.cluster.nodes)
    fill(world.site.node_folder(node))
    return Hit(node)


def fill(folder: Path) -> None:
    """Write until the disk takes no more: large pieces, then a byte at a time."""
    with (folder / BALLAST).open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _empty_disk(world: World, hit: Hit) -> None:
    (world.site.node_folder(hit.on) / BALLAST).unlink(missing_ok=True)


def _pause(world: World) -> Hit | None:
    if not world.desk("pause", "--why", "soak"):
        return None
    world.operator("pause")
    return Hit("cluster")


def _end_pause(world: World, hit: Hit) -> None:
    if world.desk("resume", "--why", "soak"):
        world.operator("resume")


def _bypass(world: World) -> Hit | None:
    node = world.dice.choice(world.cluster.nodes)
    try:
        (world.site.node_folder(node) / "dcsup.bypass").touch()
    except OSError:
        return None  # its disk is full
    return Hit(node)


def _end_bypass(world: World, hit: Hit) -> None:
    (world.site.node_folder(hit.on) / "dcsup.bypass").unlink(missing_ok=True)


# --- the world: nodes, services, scripts


def _kill_node(active: bool) -> Callable[[World], Hit | None]:
    """Cut a node's power, unless it is the last one that the group could go to."""

    def begin(world: World) -> Hit | None:
        node, other = (world.active, world.standby) if active else (world.standby, world.active)
        if not world.is_on(node) or not _is_member(world, other):
            return None
        world.cluster.kill_node(node)
        return Hit(node)

    return begin


def _is_member(world: World, node: str) -> bool:
    try:
        return world.is_on(node) and bool(world.cluster.view(node)["nodes"][node] == "Online")
    except (OSError, ValueError):
        return False


def _power_on(world: World, hit: Hit) -> None:
    if not world.is_on(hit.on):
        world.site.power_on(hit.on)


def _freeze_node(world: World) -> Hit | None:
    node = world.dice.choice(world.cluster.nodes)
    if not world.is_on(node):
        return None
    world.cluster.pause_node(node)
    return Hit(node)


def _thaw_node(world: World, hit: Hit) -> None:
    world.cluster.continue_node(hit.on)


def _crash(component: str) -> Callable[[World], Hit | None]:
    def begin(world: World) -> Hit | None:
        node = world.active
        if not world.is_on(node) or not _lives(world, node, component):
            return None
        world.cluster.crash(node, component)
        return Hit(node)

    return begin


def _lives(world: World, node: str, component: str) -> bool:
    try:
        return psutil.pid_exists(int((world.cluster.node_dir(node) / "run" / f"{component}.pid").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return False


def _fault(names: tuple[str, ...], content: str, *, at_standby: bool = False, many: bool = False) -> Callable[[World], Hit | None]:
    """Set one of the stand-ins' own faults, or all of them."""

    def begin(world: World) -> Hit | None:
        node = world.standby if at_standby else world.active
        chosen = list(names) if many else [world.dice.choice(names)]
        for name in chosen:
            world.cluster.set_fault(name, content, node)
        return Hit(node, names=chosen)

    return begin


def _clear(world: World, hit: Hit) -> None:
    for name in hit.names:
        world.cluster.clear_fault(name, hit.on)


# --- operators of the cluster


def _move(by_dcsup: bool) -> Callable[[World], Hit | None]:
    def begin(world: World) -> Hit | None:
        node, to = world.active, world.standby
        if not world.is_on(node) or not _is_member(world, to):
            return None
        world.operator("move", node=node, to=to)
        if by_dcsup:
            world.errand(*dcsup_command(), "move", "--config", str(world.site.config(node)), "--to", to, "--why", "soak", "--yes")
        else:
            world.errand(str(world.cluster.command(node, "clp/bin/clpgrp")), "-m", world.cluster.group, "-a", to)
        return Hit(node)

    return begin


def _restart(world: World) -> Hit | None:
    node = world.active
    if not world.is_on(node):
        return None
    world.operator("stop", node=node)
    clpgrp, group = world.cluster.command(node, "clp/bin/clpgrp"), world.cluster.group
    world.errand("/bin/sh", "-c", f"'{clpgrp}' -t {group} && '{clpgrp}' -s {group} -h {node}")
    return Hit(node)


def _clpcl(world: World, word: str) -> bool:
    for node in world.cluster.nodes:
        if world.is_on(node):
            return world.tell_manager(node, "clpcl", f"--{word}")
    return False


def _suspend(world: World) -> Hit | None:
    if not _clpcl(world, "suspend"):
        return None
    world.operator("suspend")
    return Hit("cluster")


def _end_suspension(world: World, hit: Hit) -> None:
    if _clpcl(world, "resume"):
        world.operator("resume-cluster")


_HANG = tuple(f"hang-{service}-dcstatus" for service in ("agent", "server"))
_KINDS = (
    Kind("leader-kill", True, lambda world: _kill_orchestrator(world, world.leader), _start_orchestrator),
    Kind("follower-kill", True, lambda world: _kill_orchestrator(world, world.follower), _start_orchestrator),
    Kind("leader-stop", True, lambda w: _freeze(w, name := w.leader, _running(w, f"orchestrator-{name}")), _go_on, (0.5, 6.0)),
    Kind("follower-stop", True, lambda w: _freeze(w, name := w.follower, _running(w, f"orchestrator-{name}")), _go_on, (0.5, 6.0)),
    Kind("worker-kill", True, _kill_worker, _start_worker, (0.3, 6.0)),
    Kind("worker-stop", True, _freeze_worker, _go_on, (0.5, 6.0)),
    Kind("rq-cmd-kill", True, _any_node(_rq_worker("cmd")), leave),
    Kind("rq-watch-kill", True, _any_node(_rq_worker("watch")), leave),
    Kind("rq-cmd-stop", True, _freeze_rq_worker("cmd"), _go_on, (0.5, 8.0)),
    Kind("rq-watch-stop", True, _freeze_rq_worker("watch"), _go_on, (0.5, 8.0)),
    Kind("launcher-kill", True, _any_node(lambda world, node: world.of_worker(node, "launcher.py"), 0.1), leave),
    Kind("hook-kill", True, _any_node(lambda world, node: _hook(world, node), 1.0), leave),
    Kind("watch-hook-kill", True, _any_node(lambda world, node: world.of_manager(node, " hook watch ")), leave),
    Kind("redis-kill", True, _kill_redis, _start_redis, (0.1, 6.0)),
    Kind("redis-stop", True, _freeze_redis, _go_on, (0.5, 7.0)),
    Kind("way-shut", True, _trouble("shut"), _open_way, (0.5, 8.0)),
    Kind("way-cut", True, _trouble("cut"), _open_way, (2.0, 8.0)),
    Kind("way-delay", True, _trouble("delay"), _open_way, (2.0, 8.0)),
    Kind("way-swallow", True, _trouble("swallow"), _open_way, (0.5, 8.0)),
    Kind("way-deaf", True, _trouble("deaf"), _open_way, (0.5, 8.0)),
    Kind("disk-full", True, _fill_disk, _empty_disk, (1.0, 8.0)),
    Kind("pause", True, _pause, _end_pause, (1.0, 6.0)),
    Kind("bypass", True, _bypass, _end_bypass, (2.0, 8.0)),
    Kind("suspend", True, _suspend, _end_suspension, (1.0, 6.0)),
    Kind("dcstatus-hang", True, _fault(_HANG, ""), _clear, (1.0, 5.0)),
    Kind("dcstatus-hang-at-start", True, _fault(_HANG, "", at_standby=True), _clear, (1.0, 5.0)),
    # what follows hits the world: a failover may be the right answer
    Kind("node-kill", False, _kill_node(active=True), _power_on, (1.0, 12.0)),
    Kind("standby-kill", False, _kill_node(active=False), _power_on, (1.0, 6.0)),
    Kind("node-stop", False, _freeze_node, _thaw_node, (0.3, 1.5)),
    Kind("server-kill", False, _crash("server"), leave),
    Kind("agent-kill", False, _crash("agent"), leave),
    Kind("metadata-kill", False, _crash("metadata"), leave),
    Kind("unhealthy", False, _fault(("unhealthy-server", "unhealthy-agent"), ""), _clear, (1.0, 6.0)),
    Kind("dcstatus-fail", False, _fault(("fail-server-dcstatus", "fail-agent-dcstatus"), "3"), _clear, (1.0, 6.0)),
    Kind("start-fail", False, _fault(("fail-server-recover", "fail-agent-recover"), "1", at_standby=True), _clear, (4.0, 12.0)),
    Kind("start-hang", False, _fault(("hang-server-recover", "hang-agent-recover"), "", at_standby=True), _clear, (3.0, 14.0)),
    Kind("stop-fail", False, _fault(("fail-server-faststop", "fail-agent-stop"), "1"), _clear, (3.0, 10.0)),
    Kind("stop-hang", False, _fault(("hang-server-faststop", "hang-agent-stop"), ""), _clear, (3.0, 14.0)),
    Kind("start-slow", False, _fault(("start-seconds-server", "start-seconds-agent"), "5", at_standby=True), _clear, (5.0, 12.0)),
    Kind("stop-slow", False, _fault(("stop-seconds-server", "stop-seconds-agent"), "4"), _clear, (4.0, 10.0)),
    Kind("attach-fail", False, _fault(("attach-fails",), "", at_standby=True), _clear, (3.0, 8.0)),
    Kind("schedules", False, _fault(("schedules-not-resumed",), "auto-started-1", at_standby=True), _clear, (4.0, 12.0)),
    Kind("script-kill", False, _any_node(lambda world, node: _script(world, node), 1.0), leave),
    Kind("watch-script-kill", False, _any_node(lambda world, node: world.of_manager(node, "watch.sh")), leave),
    Kind("move", False, _move(by_dcsup=False), leave),
    Kind("dcsup-move", False, _move(by_dcsup=True), leave),
    Kind("group-restart", False, _restart, leave),
)
KINDS = {kind.name: kind for kind in _KINDS}
MOVERS = (
    "node-kill", "server-kill", "agent-kill", "metadata-kill", "unhealthy", "watch-script-kill", "move", "dcsup-move", "group-restart",
)  # fmt: skip
"""What makes the group move, or restart: most episodes begin with one of these."""


def _hook(world: World, node: str) -> psutil.Process | None:
    return world.of_manager(node, " hook start ") or world.of_manager(node, " hook stop ")


def _script(world: World, node: str) -> psutil.Process | None:
    return world.of_manager(node, "scripts/start.sh") or world.of_manager(node, "scripts/stop.sh")
