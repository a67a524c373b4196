"""The CLUSTERPRO daemon of one node: membership, the failover group, and the port on which the commands ask.

Rules it follows, each in ``_Cluster.tick``:

- A node that hears of a running group *returns*: it joins, and its start script is run with RECOVER (there is no automatic failback).
  Otherwise it joins once it has heard all other nodes, or after ``startup_grace_s``.
- While the group has never been started since the cluster came up, the first member in policy order starts it, as soon as all nodes are
  members or the grace is over. After ``clpgrp -t`` it stays stopped.
- If the node that has the group, or was asked to start it, is dead, or is back under another boot id, the first other member in policy
  order takes over with FAILOVER.
- While the cluster is suspended none of this happens.

Control protocol (TCP, loopback, one JSON object each way): ``status``, ``start``, ``stop``, ``move``, ``activate``, ``log``, ``leave``,
``suspend``, ``resume``, ``monitors``, ``controls``. The RESTful API (``clp_rest.py``) is another way to ask the same.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from . import clp_rest
from .clp_alerts import ReportingPlace
from .clp_controls import Controls
from .clp_group import FAILURE, OFFLINE, ONLINE, Group, View, control_timeout_s
from .clp_membership import Membership, Peer, read_boot
from .dc_daemon import listener
from .place import Place, ask_json


class _Cluster:
    """One node's part of the cluster."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.boot = read_boot(place)
        self.controls = Controls()
        self.membership = Membership(place, self.boot, self.message, self.heard, self.tick)
        self.group = Group(place, self.membership.members, self.membership.send, self.controls, self.membership.boot_of)
        self.member = False
        self.leaving = False  # shutting down: nothing new is begun
        self.left = False  # the group is given away: the others are told
        self.ended = threading.Event()
        self.started = time.monotonic()

    def run(self) -> None:
        """Be in the cluster until told to leave."""
        if os.path.lexists(self.place.disk):
            os.unlink(self.place.disk)  # a machine that was just switched on has nothing attached
        self.place.record("cluster", "node-up", boot=self.boot, pid=os.getpid())
        self.group.begin()
        with listener(self.place.ports["control"], self.answer) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
            clp_rest.serve(self.place, self._perform)
            self.membership.run(self.ended)
        self.place.record("cluster", "node-down", boot=self.boot)

    # Heartbeats

    def message(self) -> dict[str, Any]:
        """What this node tells the others."""
        return {"member": self.member, "leaving": self.left, "view": self.group.seen(), "controls": self.controls.plain()}

    def heard(self, _peer: Peer, message: dict[str, Any]) -> None:
        """What another node tells us."""
        self.controls.told(message["controls"])
        self.group.told(message["view"])

    def tick(self) -> None:
        """Judge our own situation, once per heartbeat."""
        if self.leaving or self.controls.now.suspended:
            return
        if not self.member:
            self._join_if_due()
        elif self.group.busy == 0:
            self._take_over_if_orphaned()
            self._start_if_first()

    def _join_if_due(self) -> None:
        view = self.group.seen()
        elsewhere = bool(view["owner"] or view["heir"])
        if not (elsewhere or self._all_heard() or self._grace_over()):
            return
        self.member = True
        self.place.record("cluster", "node-joined", boot=self.boot, recover=elsewhere)
        if elsewhere:
            self.group.enqueue(self.group.recover)

    def _all_heard(self) -> bool:
        return all(peer.alive for peer in self.membership.peers.values())

    def _grace_over(self) -> bool:
        return time.monotonic() - self.started > float(self.place.settings["startup_grace_s"])

    def _first(self) -> bool:
        return self.membership.members()[0] == self.place.node

    def _start_if_first(self) -> None:
        everybody = len(self.membership.members()) == len(self.place.settings["nodes"])
        if self.group.view.generation == 0 and self._first() and (everybody or self._grace_over()):
            self.group.enqueue(lambda: self.group.activate("START", None))

    def _take_over_if_orphaned(self) -> None:
        view = self.group.seen()
        holder = view["heir"] or view["owner"]
        if holder is None or self._holds(holder, view):
            return
        others = [name for name in self.membership.members() if name != holder]
        if (others or [holder])[0] != self.place.node:
            return
        if time.monotonic() - self.started > self.membership.timeout_s:  # before that, not heard does not mean dead
            self.group.enqueue(lambda: self._take_over(view["owner"] or view["previous"]))

    def _holds(self, holder: str, view: dict[str, Any]) -> bool:
        boot = self.boot if holder == self.place.node else self.membership.boot_of(holder)
        return self.membership.alive(holder) and view["boot"] in ("", boot)

    def _take_over(self, previous: str | None) -> None:
        self.place.record("cluster", "group-takeover", previous=previous)
        self.group.activate("FAILOVER", previous)

    # Commands

    def answer(self, line: str) -> str:
        """Answer one request of the control protocol."""
        request = json.loads(line)
        try:
            answer = {"ok": True, "error": "", **self._perform(request)}
        except (OSError, ValueError) as reason:
            answer = {"ok": False, "error": str(reason)}
        return json.dumps(answer, ensure_ascii=False)

    def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "status":
                return self._status()
            case "log":
                fields = {name: request[name] for name in ("message", "id", "level")}
                self.place.record("clusterlog", "message", **fields)
            case "activate":
                self._activate(request)
            case "leave":
                self._leave()
            case "controls":
                self.controls.told(request["controls"])
            case "suspend" | "resume" | "monitors":
                self._control(request)
            case "start" | "stop" | "move":
                self._operate(request)
            case unknown:
                raise ValueError(f"unknown request {unknown}")
        return {}

    def _status(self) -> dict[str, Any]:
        nodes = {self.place.node: self._state(self.member, True)}
        nodes |= {peer.name: self._state(peer.member, peer.alive) for peer in self.membership.peers.values()}
        view = self.group.seen()
        view["monitors"] = self.controls.shown(view["monitors"] | {"userw": "Normal"})
        suspended = self.controls.now.suspended
        servers = {name: "Suspend" if suspended and state == ONLINE else state for name, state in nodes.items()}
        return {"node": self.place.node, "nodes": nodes, "servers": servers, "view": view, "suspended": suspended}

    @staticmethod
    def _state(member: bool, alive: bool) -> str:
        if not alive:
            return OFFLINE
        return ONLINE if member else "Online Pending"

    def _activate(self, request: dict[str, Any]) -> None:
        if not self.member or self.leaving:
            raise ValueError(f"{self.place.node} is not a member of the cluster")
        event, previous, tried, generation = (request[name] for name in ("event", "previous", "tried", "generation"))
        self.group.enqueue(lambda: self.group.activate(event, previous, tried, generation))

    def _control(self, request: dict[str, Any]) -> None:
        """Set something for the whole cluster, and have every node that lives know it before we answer."""
        if request["op"] == "monitors":
            self.controls.suspend_monitors(self._monitors(request["names"]), request["suspended"])
        elif self.controls.now.suspended == (request["op"] == "suspend"):
            raise ValueError(f"the cluster is {'suspended already' if self.controls.now.suspended else 'not suspended'}")
        else:
            self.controls.suspend(request["op"] == "suspend")
        self.place.record("cluster", "control", **request)
        for name in self.membership.peers:
            if self.membership.alive(name):
                ask_json(self.place.settings["nodes"][name]["control"], {"op": "controls", "controls": self.controls.plain()})

    def _monitors(self, names: list[str]) -> list[str]:
        known = [*self.group.view.monitors, "userw"]
        for name in names:
            if name not in known:
                raise ValueError(f"there is no monitor {name}")
        return names or known

    def _leave(self) -> None:
        """Give the group away, tell the others, and end."""
        self.leaving = True
        self.group.enqueue(self.group.leave)
        self.group.wait(lambda view: view.owner != self.place.node, control_timeout_s(self.place))
        self.left = True
        self.membership.send()
        self.ended.set()

    def _operate(self, request: dict[str, Any]) -> None:
        """Carry out clpgrp on the node that it concerns: here, or passed on to where the group is."""
        if self.controls.now.suspended:
            raise ValueError("the cluster is suspended")
        view = self.group.seen()
        where = request.get("host") or (self.place.node if request["op"] == "start" else view["owner"])
        if request["op"] != "start" and view["owner"] is None:
            raise ValueError("the group is not active")
        if where != self.place.node:
            self._pass_on(where, request)
            return
        self._operate_here(request, view)

    def _pass_on(self, where: str, request: dict[str, Any]) -> None:
        if where not in self.place.settings["nodes"]:
            raise ValueError(f"there is no server {where}")
        answer = ask_json(self.place.settings["nodes"][where]["control"], {**request, "host": where}, control_timeout_s(self.place))
        if not answer["ok"]:
            raise ValueError(answer["error"])

    def _operate_here(self, request: dict[str, Any], view: dict[str, Any]) -> None:
        match request["op"]:
            case "start":
                if view["owner"]:
                    raise ValueError(f"the group is active on {view['owner']}")
                self.group.enqueue(lambda: self.group.activate("START", None))
                self._wait_until_up(self.place.node, view["generation"])
            case "stop":
                self.group.enqueue(self.group.stop_group)
                self._wait(lambda now: now.owner is None and now.heir is None)
            case "move":
                heir = self._destination(request.get("destination"))
                self.group.enqueue(lambda: self.group.move(heir))
                self._wait_until_up(heir, view["generation"])

    def _destination(self, asked: str | None) -> str:
        others = [name for name in self.membership.members() if name != self.place.node]
        if asked is None and others:
            return others[0]
        if asked not in others:
            raise ValueError(f"the group cannot move to {asked or 'any other server'}")
        return str(asked)

    def _wait_until_up(self, node: str, generation: int) -> None:
        self._wait(lambda view: view.generation > generation and view.owner is not None and view.state in (ONLINE, FAILURE))
        with self.group.changed:
            owner, state = self.group.view.owner, self.group.view.state
        if owner != node or state != ONLINE:
            raise ValueError(f"the group is {state} on {owner}")

    def _wait(self, condition: Callable[[View], bool]) -> None:
        if not self.group.wait(condition, control_timeout_s(self.place)):
            raise ValueError("timeout")


def main(argv: list[str]) -> int:
    """Be the cluster service of the node in folder ``argv[0]``."""
    _Cluster(ReportingPlace(argv[0])).run()
    return 0
