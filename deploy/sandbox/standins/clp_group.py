"""The failover group: its activation and deactivation, its monitors, and what every node believes about it.

One thread carries out what is to be done with the group, one thing after the other, for scripts take their time. What the cluster
believes is a ``View``; the node that has the group changes it, and the newest (generation, revision) wins everywhere. Each
activation, on whatever node, begins a new generation: a node that comes back from a long sleep and hears of a newer one knows
that the group was taken from it.

``CLP_EVENT`` of a start: START at a normal start, a move or a restart in place, FAILOVER when it comes here because of a failure. In a stop
it is how the running instance had been started, and ``CLP_FACTOR`` says why it is stopped.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from .clp_controls import Controls
from .clp_membership import read_boot
from .clp_resources import Failed, FloatingIp, Resident, Script, SharedDisk
from .place import Place, ask_json

OFFLINE, ONLINE, FAILURE = "Offline", "Online", "Online Failure"
GOING_UP, GOING_DOWN = "Online Pending", "Offline Pending"


@dataclass
class View:
    """What is known about the group.

    Attributes:
        owner: the node that has it, in whatever state; None when it is stopped or between two nodes.
        boot: the boot id under which the owner started it, or the heir was asked to: a node that was reset has it no more, however soon
            it is back. Empty: not known.
        heir: the node that was asked to start it next.
        event: CLP_EVENT of the running instance's start.
        previous: the node it came from.
    """

    generation: int = 0
    revision: int = 0
    owner: str | None = None
    boot: str = ""
    heir: str | None = None
    state: str = OFFLINE
    event: str = ""
    previous: str | None = None
    resources: dict[str, str] = field(default_factory=dict)
    monitors: dict[str, str] = field(default_factory=dict)

    def newer_than(self, other: View) -> bool:
        """Whether this view replaces ``other``."""
        return (self.generation, self.revision, self.owner or "") > (other.generation, other.revision, other.owner or "")


class Superseded(Exception):
    """Another node has the group by now."""


class Group:
    """The failover group as one node handles it.

    Args:
        place: this node.
        members: gives the alive members in order of the failover policy.
        tell: tells the other nodes at once. Waiting for the next heartbeat would not do: a node that dies right after it began to start the
            group would have started it unknown to the others.
        controls: what operators have suspended: a suspended monitor sees nothing.
        boot_of: gives the boot id under which another node was last heard.
    """

    def __init__(
        self,
        place: Place,
        members: Callable[[], list[str]],
        tell: Callable[[], None],
        controls: Controls,
        boot_of: Callable[[str], str],
    ) -> None:
        self._place = place
        self._boot = read_boot(place)
        self._members = members
        self._tell = tell
        self._controls = controls
        self._boot_of = boot_of
        self._ip, self._disk, self._script = FloatingIp(place), SharedDisk(place), Script(place)
        self._residents = [Resident(place, service) for service in place.settings["services"]]
        self._disk_word = "SUCCESS"
        self._restarts = self._failovers = 0
        self._normal_since = 0.0
        self._operations: queue.Queue[Callable[[], None]] = queue.Queue()
        self.changed = threading.Condition(threading.RLock())
        self.busy = 0
        self.view = View(resources=self._all_resources(OFFLINE), monitors=self._all_monitors(OFFLINE))

    def begin(self) -> None:
        """Start working and watching."""
        threading.Thread(target=self._work, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    # What the cluster believes

    def _all_resources(self, state: str) -> dict[str, str]:
        return dict.fromkeys([self._ip.name, self._disk.name, self._script.name, *(each.name for each in self._residents)], state)

    def _all_monitors(self, state: str) -> dict[str, str]:
        return {each.monitor: state for each in self._residents}

    def change(self, **fields: Any) -> None:
        """Change the view of the group that we have, and tell the others.

        Raises:
            Superseded: we don't have it any more.
        """
        with self.changed:
            if self.view.owner != self._place.node:
                raise Superseded
            for name, value in fields.items():
                setattr(self.view, name, value)
            self.view.revision += 1
            self.changed.notify_all()
            self._tell()

    def told(self, fields: dict[str, Any]) -> None:
        """Another node's view: take it over where it is newer."""
        theirs = View(**fields)
        with self.changed:
            if not theirs.newer_than(self.view):
                return
            lost = self.view.owner == self._place.node != theirs.owner
            self.view = theirs
            self.changed.notify_all()
        if lost:
            self._lost_to(theirs.owner)

    def _lost_to(self, owner: str | None) -> None:
        """The group was taken from us while we could not hear it: no script may touch it any more."""
        self._place.record("cluster", "double-activation", taken_by=owner)
        for resident in self._residents:
            resident.stop()
        self._shut_down("the group is active on another node")

    def seen(self) -> dict[str, Any]:
        """The view as plain data."""
        with self.changed:
            return asdict(self.view)

    def wait(self, condition: Callable[[View], bool], timeout_s: float) -> bool:
        """Wait until nothing is in progress here and ``condition`` holds for the view."""
        with self.changed:
            return self.changed.wait_for(lambda: self.busy == 0 and condition(self.view), timeout_s)

    # One thing after the other

    def enqueue(self, operation: Callable[[], None]) -> None:
        """Have ``operation`` carried out by the group's thread."""
        with self.changed:
            self.busy += 1
        self._operations.put(operation)

    def _work(self) -> None:
        while True:
            operation = self._operations.get()
            try:
                operation()
            except Superseded:
                self._give_up()
            finally:
                with self.changed:
                    self.busy -= 1
                    self.changed.notify_all()

    def _give_up(self) -> None:
        self._place.record("cluster", "group-superseded")
        for resident in self._residents:
            resident.stop()

    def _step(self, name: str, action: str, function: Callable[[], None]) -> None:
        """Start or stop one resource, with its states and its two records."""
        pending, done = (GOING_UP, ONLINE) if action == "start" else (GOING_DOWN, OFFLINE)
        self._resource(name, pending)
        self._place.record("cluster", "resource-begin", resource=name, action=action)
        try:
            function()
        except Failed as reason:
            self._resource(name, done + " Failure")
            self._place.record("cluster", "resource-end", resource=name, action=action, ok=False, reason=str(reason))
            raise
        self._resource(name, done)
        self._place.record("cluster", "resource-end", resource=name, action=action, ok=True, reason="")

    def _resource(self, name: str, state: str) -> None:
        with self.changed:
            self.change(resources=self.view.resources | {name: state})

    # Activation

    def activate(self, event: str, previous: str | None, tried: Iterable[str] = (), generation: int = 0) -> None:
        """Start the group here.

        Args:
            event: CLP_EVENT of this start.
            previous: the node it came from.
            tried: the nodes that have failed to start it before.
            generation: the newest one that whoever asks knows of.
        """
        with self.changed:
            if (self.view.owner, self.view.boot) == (self._place.node, self._boot) and self.view.state == ONLINE:
                return
            newest = max(generation, self.view.generation)
            self.view = View(generation=newest + 1, owner=self._place.node, boot=self._boot, state=GOING_UP)
            self.change(event=event, previous=previous, resources=self._all_resources(OFFLINE), monitors=self._all_monitors(OFFLINE))
        self._place.record("cluster", "group-activation-begin", event=event, previous=previous, tried=list(tried))
        try:
            self._start_resources()
        except Failed as reason:
            self._place.record("cluster", "group-activation-end", event=event, previous=previous, ok=False, reason=str(reason))
            self._activation_failed(tried)
            return
        self._online()
        self._place.record("cluster", "group-activation-end", event=event, previous=previous, ok=True, reason="")

    def _start_resources(self) -> None:
        self._step(self._ip.name, "start", self._ip.start)
        self._disk_word = self._attach()
        self._start_script_and_residents()

    def _attach(self) -> str:
        try:
            self._step(self._disk.name, "start", self._disk.start)
        except Failed:
            return "FAILURE"  # the scripts are run all the same, and told so
        return "SUCCESS"

    def _start_script_and_residents(self) -> None:
        self._step(self._script.name, "start", lambda: self._script.run("start.sh", self._clp()))
        for resident in self._residents:
            self._step(resident.name, "start", lambda resident=resident: resident.start(self._clp()))  # type: ignore[misc]

    def _clp(self) -> dict[str, str]:
        previous = {"CLP_SERVER_PREV": self.view.previous} if self.view.previous else {}
        return {"CLP_EVENT": self.view.event, "CLP_DISK": self._disk_word, **previous}

    def _online(self) -> None:
        self._normal_since = time.monotonic()
        self.change(state=ONLINE, monitors=self._all_monitors("Normal"))

    def _activation_failed(self, tried: Iterable[str]) -> None:
        """Each other node may try once, in policy order; after that the group stays as it is, for somebody to look at."""
        heir = next((name for name in self._members() if name not in (self._place.node, *tried)), None)
        if heir is None:
            self._place.record("cluster", "no-destination", tried=[*tried, self._place.node])
            self.change(state=FAILURE)
            return
        self._deactivate("GROUPFAILOVER")
        self._hand_over(heir, "FAILOVER", (*tried, self._place.node))

    def recover(self) -> None:
        """This node returned while the group runs elsewhere: its start script is run with RECOVER."""
        try:
            self._script.run("start.sh", {"CLP_EVENT": "RECOVER", "CLP_DISK": "SUCCESS"})
        except Failed as reason:
            self._place.record("cluster", "recover-failed", reason=str(reason))

    # Deactivation

    def _deactivate(self, factor: str) -> None:
        self._place.record("cluster", "group-deactivation-begin", factor=factor, event=self.view.event)
        self.change(state=GOING_DOWN, monitors=self._all_monitors(OFFLINE))
        good = self._stop_residents_and_script(factor)
        good &= self._stop(self._disk.name, self._disk.stop)
        good &= self._stop(self._ip.name, self._ip.stop)
        self._place.record("cluster", "group-deactivation-end", factor=factor, ok=good)

    def _stop_residents_and_script(self, factor: str) -> bool:
        good = True
        for resident in reversed(self._residents):
            good &= self._stop(resident.name, resident.stop)
        return self._stop(self._script.name, lambda: self._script.run("stop.sh", self._clp() | {"CLP_FACTOR": factor})) and good

    def _stop(self, name: str, function: Callable[[], None]) -> bool:
        try:
            self._step(name, "stop", function)
        except Failed as reason:
            self._shut_down(f"{name} could not be stopped: {reason}")
            return False
        return True

    def _shut_down(self, reason: str) -> None:
        """What the product would do now is to shut the OS down. It is written down, and done where the sandbox asks for it."""
        real: bool = self._place.settings["shutdown_is_real"]
        self._place.record("cluster", "os-shutdown", reason=reason, real=real)
        if not real:
            return
        run = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_run.py")
        marked = f"{self._place.settings['id']}/{self._place.node}"
        environment = {key: value for key, value in os.environ.items() if key != "SANDBOX_NODE"}
        subprocess.Popen(
            [self._place.settings["python"], "-I", run, "processes", marked, self._place.folder], env=environment, start_new_session=True
        )
        threading.Event().wait()  # the power goes off at any moment

    def _hand_over(self, heir: str, event: str, tried: Iterable[str] = ()) -> None:
        """Ask another node to start the group. If it dies before it does, the heartbeats tell, and the first member alive takes over."""
        generation = self.view.generation
        self.change(state=OFFLINE, owner=None, heir=heir, boot=self._boot_of(heir), previous=self._place.node)
        request = {"op": "activate", "event": event, "previous": self._place.node, "tried": list(tried), "generation": generation}
        try:
            refusal = ask_json(self._place.settings["nodes"][heir]["control"], request)["error"]
        except OSError as error:
            self._place.record("cluster", "hand-over-failed", peer=heir, reason=str(error))
            return
        if refusal:
            self._take_back(heir, refusal)

    def _take_back(self, heir: str, reason: str) -> None:
        """The heir lives and refuses: the group stays down here, for somebody to look at."""
        self._place.record("cluster", "hand-over-failed", peer=heir, reason=reason)
        with self.changed:
            if self.view.heir == heir:
                self.view.owner, self.view.boot, self.view.heir = self._place.node, self._boot, None
                self.change(state=FAILURE)

    def _next_member(self) -> str | None:
        return next((name for name in self._members() if name != self._place.node), None)

    # What operators ask for

    def stop_group(self) -> None:
        """``clpgrp -t``."""
        self._deactivate("GROUPSTOP")
        self.change(state=OFFLINE, owner=None)

    def move(self, heir: str) -> None:
        """``clpgrp -m``."""
        self._deactivate("GROUPMOVE")
        self._hand_over(heir, "START")

    def leave(self) -> None:
        """This server is being shut down in order: the group goes to another node, if there is one."""
        if self.view.owner != self._place.node:
            return
        heir = self._next_member()
        self._deactivate("SERVERSHUTDOWN" if heir else "CLUSTERSTOP")
        if heir:
            self._hand_over(heir, "FAILOVER")
        else:
            self.change(state=OFFLINE, owner=None)

    # Monitors

    def _watch(self) -> None:
        interval_s: float = self._place.settings["monitor_interval_s"]
        while True:
            time.sleep(interval_s)
            with self.changed:
                watching = self.busy == 0 and self.view.owner == self._place.node and self.view.state == ONLINE
            try:
                if watching and not self._controls.now.suspended:
                    self._check_residents()
            except Superseded:
                pass  # taken from us at this very moment: whoever heard of it cleans up

    def _check_residents(self) -> None:
        for resident in self._residents:
            if resident.detected or resident.process is None or resident.process.poll() is None:
                continue
            if resident.monitor in self._controls.now.monitors:
                continue
            resident.detected = True
            code = resident.process.returncode
            self._place.record("cluster", "monitor-detected", monitor=resident.monitor, resource=resident.name, code=code)
            self.change(monitors=self.view.monitors | {resident.monitor: "Error"})
            self._act(resident)
            return
        if time.monotonic() - self._normal_since > self._place.settings["monitor_reset_s"]:
            self._restarts = self._failovers = 0

    def _act(self, resident: Resident) -> None:
        """The ladder of recovery actions: restart in place, then failover, then nothing more."""
        heir = self._next_member()
        if self._restarts < self._place.settings["restart_count"]:
            self._restarts += 1
            self._acted(resident, "restart", self._restart_in_place)
        elif self._failovers < self._place.settings["failover_count"] and heir is not None:
            self._failovers += 1
            self._acted(resident, "failover", lambda: self._fail_over(heir))
        else:
            self._place.record("cluster", "monitor-acted", monitor=resident.monitor, action="none", heir=heir)
            if heir is None:
                self._place.record("cluster", "no-destination", tried=[self._place.node])

    def _acted(self, resident: Resident, action: str, operation: Callable[[], None]) -> None:
        self._place.record("cluster", "monitor-acted", monitor=resident.monitor, action=action)
        self.enqueue(operation)

    def _restart_in_place(self) -> None:
        self._place.record("cluster", "resource-restart-begin", resource=self._script.name)
        self.change(state=GOING_UP, monitors=self._all_monitors(OFFLINE))
        self._stop_residents_and_script("RESOURCERESTART")
        self.change(event="START", previous=None)
        try:
            self._start_script_and_residents()
        except Failed:
            self._place.record("cluster", "resource-restart-end", resource=self._script.name, ok=False)
            self._activation_failed(())
            return
        self._online()
        self._place.record("cluster", "resource-restart-end", resource=self._script.name, ok=True)

    def _fail_over(self, heir: str) -> None:
        self._deactivate("GROUPFAILOVER")
        self._hand_over(heir, "FAILOVER")


def control_timeout_s(place: Place) -> float:
    """How long a command may wait for a stop and a start: both scripts' limits and a little."""
    return 2 * float(place.settings["script_timeout_s"]) + 60
