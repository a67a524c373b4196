"""Who is in the cluster: heartbeats over UDP, and what their absence means.

Each node tells each other node, every ``heartbeat_interval_s``, that it lives, under which boot id, and what it believes about the failover
group. There is no other way to learn of a death: a node whose heartbeats stay out for ``heartbeat_timeout_s`` is declared
dead. The time that *we* did not run (stopped, starved of CPU) is not held against the others.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from .place import LOOPBACK, Place

MESSAGE_BYTES_MAX = 65536


class Peer:
    """Another node, as this one sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boot = ""
        self.alive = False
        self.member = False
        self.missing = False
        self.heard_mono = 0.0
        self.heard_wall = 0.0


class Membership:
    """Sends and hears heartbeats; calls back when a peer's message arrives or a peer is gone.

    Args:
        place: this node.
        boot: this node's boot id.
        message: gives the content to tell the others.
        heard: called with a peer's message.
        tick: called once per heartbeat interval, after the peers were judged.
    """

    def __init__(
        self,
        place: Place,
        boot: str,
        message: Callable[[], dict[str, Any]],
        heard: Callable[[Peer, dict[str, Any]], None],
        tick: Callable[[], None],
    ) -> None:
        self._place = place
        self._boot = boot
        self._message = message
        self._heard = heard
        self._tick = tick
        self.interval_s: float = place.settings["heartbeat_interval_s"]
        self.timeout_s: float = place.settings["heartbeat_timeout_s"]
        self.peers = {name: Peer(name) for name in place.settings["nodes"] if name != place.node}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, place.ports["heartbeat"]))
        self._ran_mono = time.monotonic()

    def alive(self, node: str) -> bool:
        """Whether ``node`` counts as alive (this node always does)."""
        return node == self._place.node or self.peers[node].alive

    def boot_of(self, node: str) -> str:
        """The boot id under which another node was last heard."""
        return self.peers[node].boot

    def members(self) -> list[str]:
        """Alive members in order of the failover policy, this node among them."""
        return [name for name in self._place.settings["nodes"] if name == self._place.node or self._is_member(name)]

    def _is_member(self, name: str) -> bool:
        return self.peers[name].alive and self.peers[name].member

    def run(self, ended: threading.Event) -> None:
        """Send, hear and judge until ``ended`` is set."""
        while not ended.is_set():
            self.send()
            self._hear_until(time.monotonic() + self.interval_s)
            self._judge()
            self._tick()

    def send(self) -> None:
        """Tell every other node what this one has to say."""
        if self._place.fault("partition") is not None:
            return
        data = json.dumps({"node": self._place.node, "boot": self._boot, **self._message()}).encode()
        for name in self.peers:
            try:
                self._socket.sendto(data, (LOOPBACK, self._place.settings["nodes"][name]["heartbeat"]))
            except OSError:
                pass  # nobody there: the other side's silence is judged, not ours

    def _hear_until(self, deadline: float) -> None:
        while (left_s := deadline - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left_s)[0]:
                self._receive()

    def _receive(self) -> None:
        try:
            message = json.loads(self._socket.recv(MESSAGE_BYTES_MAX))
        except OSError:
            return  # some systems report here that an earlier message found nobody
        if self._place.fault("partition") is None and message["node"] in self.peers:
            self._note(self.peers[message["node"]], message)

    def _note(self, peer: Peer, message: dict[str, Any]) -> None:
        if peer.alive and peer.boot != message["boot"]:
            self._declare_dead(peer, "came back under another boot id")
        peer.heard_mono, peer.heard_wall, peer.boot = time.monotonic(), time.time(), message["boot"]
        if message.get("leaving"):
            self._leave(peer)
            return
        if not peer.alive:
            self._place.record("cluster", "node-seen", peer=peer.name, boot=peer.boot)
        if peer.missing:
            self._place.record("cluster", "heartbeat-back", peer=peer.name)
        peer.alive, peer.missing, peer.member = True, False, message["member"]
        self._heard(peer, message)

    def _leave(self, peer: Peer) -> None:
        if peer.alive:
            self._place.record("cluster", "node-left", peer=peer.name)
        peer.alive = peer.member = peer.missing = False

    def _judge(self) -> None:
        now = time.monotonic()
        if now - self._ran_mono > self.timeout_s / 2:
            for peer in self.peers.values():
                peer.heard_mono = max(peer.heard_mono, now - self.interval_s)
        self._ran_mono = now
        for peer in self.peers.values():
            if peer.alive:
                self._judge_peer(peer, now - peer.heard_mono)

    def _judge_peer(self, peer: Peer, silent_s: float) -> None:
        if silent_s > 2 * self.interval_s + 0.1 and not peer.missing:
            peer.missing = True
            self._place.record("cluster", "heartbeat-missed", peer=peer.name, last_heard=peer.heard_wall)
        if silent_s > self.timeout_s:
            self._declare_dead(peer, f"no heartbeat for {silent_s:.2f} s")

    def _declare_dead(self, peer: Peer, reason: str) -> None:
        peer.alive = peer.member = peer.missing = False
        self._place.record("cluster", "node-dead", peer=peer.name, reason=reason, last_heard=peer.heard_wall)


def read_boot(place: Place) -> str:
    """This node's boot id, as the driver wrote it when the node was switched on."""
    with open(os.path.join(place.folder, "boot-id"), encoding="ascii") as file:
        return file.read().strip()
