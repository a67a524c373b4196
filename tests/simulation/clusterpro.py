"""CLUSTERPRO: one failover group on nodes that hear each other's heartbeats, or do not; as CLUSTERPRO.md has it, and badly timed.

On each node runs a `Manager`: it sends and hears heartbeats, knows who has the group (a version and an owner, of which the higher version
counts), and runs the group's scripts one at a time with the variables that the documentation names. Nobody tells it what dcsup thinks.

    start     highest-priority node, CLP_EVENT=START; on a node that comes back while the group is elsewhere: RECOVER
    monitor   the resident watch scripts; one that ends is a monitor error: restart in place a few times, then failover
    failover  stop (GROUPFAILOVER), then start on the next node with CLP_EVENT=FAILOVER; at once there when the node's heartbeats stop
    move      stop (GROUPMOVE), then start elsewhere with CLP_EVENT=START
    stop that fails or outlives its limit: the operating system is shut down (the documented default)
    both up   a cut network without a resolution starts the group twice; when they hear each other again, one of them gives way

A script's process is killed alone, its children live on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from tests.simulation import mishaps
from tests.simulation.engine import Machine, Process, Signal
from tests.simulation.scripts import GuideScript, StartScript, StopScript, WatchScript
from tests.simulation.shell import Call, Shell

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

HEARTBEAT_S = 3.0
SILENT_S = 12.0
"""A peer that is not heard for so long is down."""

MONITOR_S = 5.0
RESTARTS = 1
"""In place, before a failover; counted anew once the group was well for `SETTLED_S`."""

FAILURES_IN_A_ROW = 4
SETTLED_S = 60.0
SYNC_S = 6.0
"""A manager that begins waits for the others' word."""

State = Literal["idle", "starting", "online", "stopping", "failed"]


@dataclass
class ScriptCall:
    """One script that CLUSTERPRO ran."""

    node: str
    kind: str
    """start, stop, watch; recover: a start with CLP_EVENT=RECOVER"""
    event: str
    factor: str
    began_s: float
    process: Process
    script: Shell | GuideScript
    service: str = ""
    ended_s: float | None = None
    code: int | None = None
    """None: it was killed."""
    killed_why: str = ""
    was_up: bool = False
    """Every service was healthy on this node when it ended."""

    @property
    def ticket(self) -> str | None:
        return (self.script.ticket or None) if isinstance(self.script, Shell) else None


class Word(NamedTuple):
    """Who has the group: what managers tell each other. The higher version counts."""

    version: int = 0
    owner: str | None = None
    event: str = "START"
    """With which the owner starts it."""
    previous: str = ""
    failures: int = 0
    """Starts in a row that failed."""
    wanted: bool = True
    """False: an operator stopped the group."""


@dataclass
class Order:
    """What a manager's resource control is to do."""

    what: Literal["start", "restart", "failover", "move", "stop", "recover", "shutdown"]
    word: Word
    to: str | None = None


class Manager:
    """CLUSTERPRO on one node."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.cluster, self.node, self.world, self.kernel = cluster, node, cluster.world, node.kernel
        self.name = node.name
        self.word = Word()
        self.state: State = "idle"
        self.event = "START"
        """How the instance here was started."""
        self.heard_s: dict[str, float] = {}
        self.told: dict[str, State] = {}
        self.down: set[str] = set()
        self.boots: dict[str, int] = {}
        self.back: list[str] = []
        """Peers that came back before they were missed."""
        self.watches: list[ScriptCall] = []
        self.restarts = 0
        self.online_s = 0.0
        self.orders: deque[Order] = deque()
        self.handled = 0
        """The last version that this node acted on as the owner."""
        self.wish = Signal(self.kernel)
        self.script: ScriptCall | None = None
        node.on_boot.append(self.boot)

    def boot(self) -> None:
        """CLUSTERPRO's service starts with the operating system."""
        self.state, self.script = "idle", None
        self.orders.clear()
        self.watches.clear()
        self.handled = self.word.version
        self.heard_s = {peer.name: self.kernel.now_s for peer in self.peers}
        self.down.clear()
        self.kernel.spawn("heartbeat", self.node.machine, self._heart)
        self.kernel.spawn("resource control", self.node.machine, self._control)

    @property
    def peers(self) -> list[Manager]:
        return [manager for manager in self.cluster.managers.values() if manager is not self]

    @property
    def is_active(self) -> bool:
        return self.node.is_up and self.state in ("starting", "online", "stopping")

    def alive_here(self) -> list[str]:
        """The nodes that are up as far as this one knows, in the group's order."""
        return [name for name in self.cluster.managers if name == self.name or (name not in self.down and name in self.heard_s)]

    # --- heartbeats

    def _heart(self) -> None:
        self.kernel.sleep(self.kernel.dice.uniform(0.5, 2.0))
        begun_s = last_s = self.kernel.now_s
        decided = False
        while True:
            gap_s, last_s = self.kernel.now_s - last_s, self.kernel.now_s
            if gap_s > SILENT_S / 2:  # this node itself stood still: what it did not hear says nothing
                self.heard_s = dict.fromkeys(self.heard_s, last_s)
            self._send()
            self._judge()
            if not decided and self.cluster.has_begun and last_s - begun_s >= SYNC_S:
                decided = True
                self._after_boot()
            self._act_on_word()
            self.kernel.sleep(HEARTBEAT_S * self.kernel.dice.uniform(0.8, 1.2))

    def _send(self) -> None:
        for peer in self.peers:
            if peer.node.is_up and not self.cluster.is_cut(self.name, peer.name):
                peer.hear(self)

    def hear(self, other: Manager) -> None:
        self.heard_s[other.name] = self.kernel.now_s
        if self.boots.setdefault(other.name, other.node.machine.boots) != other.node.machine.boots:
            self.boots[other.name] = other.node.machine.boots
            if other.name not in self.down:
                self.back.append(other.name)
        self.told[other.name] = other.state
        self.down.discard(other.name)
        if other.word.version > self.word.version or (
            other.word.version == self.word.version and (other.word.owner or "") < (self.word.owner or "")
        ):
            self.word = other.word

    def _judge(self) -> None:
        if self.cluster.is_suspended or not self.cluster.has_begun:
            self.heard_s = dict.fromkeys(self.heard_s, self.kernel.now_s)
            return
        for peer, heard_s in self.heard_s.items():
            if peer not in self.down and self.kernel.now_s - heard_s > SILENT_S:
                self.down.add(peer)
                self.world.note(f"CLUSTERPRO on {self.name}: {peer} is down")
                self._alert("nm", 2, f"Server {peer} has been stopped.")
                self._peer_down(peer)
        back, self.back = self.back, []
        for peer in back:
            self._peer_down(peer)

    def _peer_down(self, peer: str) -> None:
        if self.cluster.has_resolution and self.cluster.is_cut_off(self.name):
            self.world.note(f"CLUSTERPRO on {self.name}: network partition, shutting down")
            self._shut_down()
        elif self.word.owner == peer and self.word.wanted and self.alive_here()[0] == self.name:
            self.take(Word(self.word.version + 1, self.name, "FAILOVER", peer, self.word.failures))

    def _after_boot(self) -> None:
        """Auto start, or the return of a node (G16)."""
        owner = self.word.owner
        if owner in (None, self.name) or (owner in self.down):
            if self.word.wanted and self.alive_here()[0] == self.name:
                self.take(Word(self.word.version + 1, self.name, "START", "", 0))
        else:
            self.order(Order("recover", self.word))

    def take(self, word: Word) -> None:
        """From now on this is who has the group."""
        self.word = word

    def _act_on_word(self) -> None:
        word = self.word
        if word.owner == self.name and word.version > self.handled:
            self.handled = word.version
            if not self.is_active:
                self.order(Order("start", word))
        elif word.owner != self.name and self.state in ("starting", "online") and word.version >= self.handled:
            if word.owner is None or self.told.get(word.owner) in ("starting", "online"):
                self.handled = word.version
                self._gives_way()
            elif word.owner not in self.down:  # it came back with an old word, and has not got the group
                self.take(word._replace(version=word.version + 1, owner=self.name))
                self.handled = self.word.version

    def _gives_way(self) -> None:
        """The group is up elsewhere too."""
        self.world.note(f"CLUSTERPRO on {self.name}: the group is up on {self.word.owner} too")
        self._alert("rc", 92, "Group is active on more than one server.")
        if self.kernel.dice.random() < 0.6:
            self._shut_down()
        else:
            self.order(Order("stop", self.word))

    def _shut_down(self) -> None:
        """An emergency shutdown: nothing is stopped before."""
        self.world.later(0.0, self._power_off)

    def _power_off(self) -> None:
        self.node.kill()
        self.node.boot_later()

    def _alert(self, module: str, number: int, text: str) -> None:
        if self.cluster.tells_alerts:
            self.node.tell_alert(module, number, text)

    # --- the group's resources

    def order(self, order: Order) -> None:
        self.orders.append(order)
        self.wish.set()

    def _control(self) -> None:
        while True:
            if self.orders:
                self._obey(self.orders.popleft())
            else:
                self.kernel.wait(self.wish, MONITOR_S)
                self._monitor()

    def _obey(self, order: Order) -> None:
        if order.what == "start":
            if not self.is_active:
                self._start(order.word)
        elif order.what == "recover":
            self._run_start("RECOVER", "")
        elif self.state in ("online", "failed", "starting"):
            self._leave(order)

    def _leave(self, order: Order) -> None:
        """The group is to stop here, and what then."""
        factor = {"restart": "RESOURCERESTART", "failover": "GROUPFAILOVER", "move": "GROUPMOVE", "shutdown": "SERVERSHUTDOWN"}
        to = order.to or self._next_node()
        if order.what in ("failover", "move") and to is None:
            self.world.note(f"CLUSTERPRO on {self.name}: there is nowhere to go")
            if order.what == "move" or self.state != "failed":
                return
        if order.what in ("failover", "move"):
            self._alert("rc", 60 if order.what == "failover" else 50, "Group is moved.")
        if not self._stop(factor.get(order.what, "GROUPSTOP")):
            return
        word = self.word
        if order.what == "restart":
            self._start(word._replace(event="START", previous=""))
        elif order.what in ("failover", "move", "shutdown") and to is not None:
            event = "START" if order.what == "move" else "FAILOVER"
            self.take(Word(word.version + 1, to, event, self.name, word.failures))
        elif order.what == "stop" and word.owner == self.name:
            self.take(Word(word.version + 1, None, "START", "", 0, wanted=False))
        self.handled = max(self.handled, self.word.version if self.word.owner != self.name else self.handled)
        if order.what == "shutdown":
            self.node.go_down()
            self.world.later(self.kernel.dice.uniform(0.5, 4.0), self._power_off)

    def _next_node(self) -> str | None:
        return next((name for name in self.alive_here() if name != self.name), None)

    def _start(self, word: Word) -> None:
        self.event, self.state = word.event, "starting"
        code = self._run_start(word.event, word.previous)
        if code == 0:
            self.state, self.online_s = "online", self.kernel.now_s
            if self.word.failures:
                self.take(self.word._replace(version=self.word.version + 1, failures=0))
                self.handled = max(self.handled, self.word.version) if self.word.owner == self.name else self.handled
            self._begin_watches()
            return
        self.state = "failed"
        self._alert("rc", 32, "Failed to activate the script resource.")
        failures = self.word.failures + 1
        if self.word.owner != self.name:
            return
        self.take(self.word._replace(version=self.word.version + 1, failures=failures))
        self.handled = self.word.version
        if failures < FAILURES_IN_A_ROW and not self.cluster.is_suspended:
            self.order(Order("failover" if self._next_node() else "restart", self.word))
        else:
            self.world.note("CLUSTERPRO: the group has failed")

    def _run_start(self, event: str, previous: str) -> int | None:
        call = Call(event, "FAILURE" if self.name in self.cluster.without_disk else "SUCCESS", self._server, "", previous)
        return self._run("recover" if event == "RECOVER" else "start", call)

    @property
    def _server(self) -> str:
        return "HOME" if next(iter(self.cluster.managers)) == self.name else "OTHER"

    def _stop(self, factor: str) -> bool:
        """Stop the group here; False: that failed, and the operating system is shut down."""
        self.state = "stopping"
        for watch in self.watches:
            self._kill_script(watch, "the group stops")
        self.watches.clear()
        disk = "FAILURE" if self.name in self.cluster.without_disk else "SUCCESS"
        code = self._run("stop", Call(self.event, disk, self._server, factor))
        self.state = "idle"
        if code != 0:
            self._alert("rc", 42, "Failed to deactivate the script resource.")
            self._shut_down()
        return code == 0

    # --- scripts

    def _run(self, kind: str, call: Call) -> int | None:
        """Run a script to its end, or until its limit; None: it was killed."""
        node, supervised = self.node, self.cluster.is_supervised
        script: Shell | GuideScript
        if supervised:
            script = (StopScript if kind == "stop" else StartScript)(node, node.env(), call)
        else:
            script = GuideScript(node, node.env(), call, "stop" if kind == "stop" else "start")
        made = self._begin(kind, script, call)
        self.script = made
        until_s = self.kernel.now_s + self.cluster.script_timeout_s
        while made.process.alive and self.kernel.now_s < until_s:
            self.kernel.wait(made.process.ended, until_s - self.kernel.now_s)
        if made.process.alive:
            self._kill_script(made, "timeout")
        self._note_end(made)
        self.script = None
        return made.code

    def _begin(self, kind: str, script: Shell | GuideScript, call: Call, service: str = "") -> ScriptCall:
        process = self.kernel.spawn(f"{kind} script", self.node.machine, script.run, parent=self.kernel.current)
        made = ScriptCall(self.name, kind, call.event, call.factor, self.kernel.now_s, process, script, service)
        self.cluster.scripts.append(made)
        words = " ".join(filter(None, (call.event, call.factor, "disk " + call.disk if call.disk != "SUCCESS" else "", service)))
        self.world.note(f"{self.name}: {kind} script {words}")
        return made

    def _kill_script(self, script: ScriptCall, why: str) -> None:
        if script.process.alive:
            script.killed_why = why
            script.process.kill()
        self._note_end(script)

    def _note_end(self, script: ScriptCall) -> None:
        if script.ended_s is None:
            script.ended_s = script.process.ended_s if script.process.ended_s is not None else self.kernel.now_s
            script.code = None if script.process.was_killed else script.process.result
            script.was_up = all(self.node.services.is_healthy(name) for name in self.node.env().services)
            self.world.note(f"{self.name}: {script.kind} script {script.service} ended {script.killed_why or script.code}")

    # --- monitors

    def _begin_watches(self) -> None:
        for service in self.node.env().services:
            script = (
                WatchScript(self.node, self.node.env(), service)
                if self.cluster.is_supervised
                else GuideScript(self.node, self.node.env(), Call(), "watch", service)
            )
            self.watches.append(self._begin("watch", script, Call(self.event), service))

    def _monitor(self) -> None:
        if self.state != "online":
            return
        if self.restarts and self.kernel.now_s - self.online_s > SETTLED_S:
            self.restarts = 0
        ended = [watch for watch in self.watches if not watch.process.alive]
        if not ended or self.cluster.is_suspended:
            return
        for watch in ended:
            self._note_end(watch)
        self._alert("rm", 9, "Detected an error in monitoring.")
        if self.restarts < self.cluster.restarts:
            self.restarts += 1
            self.order(Order("restart", self.word))
        else:
            self.restarts = 0
            self.order(Order("failover" if self._next_node() else "restart", self.word))


class Cluster:
    """The cluster as a whole, and what can happen to it."""

    def __init__(self, world: World) -> None:
        self.world, self.kernel = world, world.kernel
        settings = world.settings
        dice = world.dice
        self.is_supervised = world.plan.has_our_scripts
        self.script_timeout_s = settings.clusterpro.script_timeout
        self.restarts = dice.choice((0, RESTARTS, RESTARTS))
        self.has_resolution = dice.random() < 0.5
        """A network partition is resolved: who is cut off shuts down."""
        self.tells_alerts = dice.random() < 0.5
        self.scripts: list[ScriptCall] = []
        self.is_suspended = self.has_begun = False
        self.cut: set[str] = set()
        self.without_disk: set[str] = set()
        self.managers = {name: Manager(self, node) for name, node in world.nodes.items()}
        self.blows, self.faults = mishaps.blows(self), mishaps.troubles(self)
        self.chance = Machine(self.kernel, "chance")
        """Where episodes (episodes.py) go on until all is healed."""

    def start(self) -> None:
        """From now on the group is started by itself."""
        self.has_begun = True

    # --- what is true

    @property
    def active(self) -> list[Manager]:
        return [manager for manager in self.managers.values() if manager.is_active]

    @property
    def where(self) -> str | None:
        return self.active[0].name if self.active else None

    @property
    def group_state(self) -> str:
        active = self.active
        if len(active) > 1:
            return "double"
        if active:
            return active[0].state
        return "failed" if any(manager.node.is_up and manager.state == "failed" for manager in self.managers.values()) else "offline"

    def is_cut(self, one: str, other: str) -> bool:
        return one in self.cut or other in self.cut

    def is_cut_off(self, name: str) -> bool:
        return name in self.cut

    def newest(self) -> Word:
        """The word with the highest version, on any node."""
        return max((manager.word for manager in self.managers.values()), key=lambda word: word.version)

    # --- what operators do

    def move(self, to: str | None = None) -> bool:
        """clpgrp -m; False: the group runs nowhere, or is there."""
        online = [manager for manager in self.managers.values() if manager.node.is_up and manager.state == "online"]
        if len(online) != 1 or to == online[0].name:
            return False
        online[0].order(Order("move", online[0].word, to))
        return True

    def stop_group(self) -> None:
        """clpgrp -t"""
        for manager in self.active:
            manager.order(Order("stop", manager.word))

    def start_group(self) -> None:
        """clpgrp -s, on the first node that is up; nothing if it runs or is about to."""
        newest = self.newest()
        if self.active or (newest.wanted and newest.owner is not None and not self._has_failed()):
            return
        up = [manager for manager in self.managers.values() if manager.node.is_up]
        if up:
            up[0].take(Word(newest.version + 1, up[0].name, "START", "", 0))

    def _has_failed(self) -> bool:
        owner = self.newest().owner
        return owner is not None and self.managers[owner].state == "failed" and not self.managers[owner].orders

    def shut_down(self, name: str) -> None:
        """clpdown: the group is stopped and moved, then the operating system goes down; somebody starts it again."""
        manager = self.managers[name]
        if manager.state == "online":
            manager.order(Order("shutdown", manager.word))
        else:
            manager._power_off()

    def suspend(self) -> None:
        """clpcl --suspend"""
        self.is_suspended = True

    def resume(self) -> None:
        self.is_suspended = False

    def heal(self) -> None:
        """The network is whole, the disks are there, and an operator starts the group if it is to run nowhere."""
        self.cut.clear()
        self.without_disk.clear()
        self.is_suspended = False
        self.has_begun = True
        self.start_group()

    # --- what it prints

    def answer(self, name: str, argv: Sequence[str]) -> tuple[float, int, str]:
        """clpstat and clpgrp, as a command on this node."""
        manager, took_s = self.managers[name], self.kernel.dice.uniform(0.1, 0.8)
        owner, state = self._seen_by(manager)
        if argv[0] == "clpgrp":
            return took_s, 0, f"{owner}\n" if owner is not None and state == "Online" else ""
        words = "Suspend" if self.is_suspended else "Online"
        servers = "".join(f"    {one} .....: {words if one in manager.alive_here() else 'Offline'}\n" for one in self.managers)
        monitors = "".join(
            f"    {service}w .....: {'Suspend' if self.is_suspended else 'Normal'}\n" for service in manager.node.env().services
        )
        group = f"    {manager.node.env().group} .....: {state}\n      current        : {owner or 'None'}\n"
        return took_s, 0, f" == CLUSTER STATUS ==\n  Cluster : c\n  <server>\n{servers}  <group>\n{group}  <monitor>\n{monitors} ==\n"

    def _seen_by(self, manager: Manager) -> tuple[str | None, str]:
        states = {"starting": "Online Pending", "online": "Online", "stopping": "Offline Pending", "failed": "Online Failure"}
        if manager.state in states:
            return manager.name, states[manager.state]
        for peer in manager.alive_here():
            if peer != manager.name and manager.told.get(peer) in states:
                return peer, states[manager.told[peer]]
        return None, "Offline"
