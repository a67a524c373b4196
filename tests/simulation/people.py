"""Operators: what people do to a cluster at any time, through the facts of `dcsup pause|resume|move` and CLUSTERPRO's commands."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis

from statemachines import wire
from statemachines.facts import Envelope

if TYPE_CHECKING:
    from tests.simulation.world import World

Undo = Callable[[], None]
Fault = Callable[[], "Undo | None"]

WHO = "people"
MOVE_LIMIT_S = 120.0


class Operators:
    """They sit at machines of their own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._numbers = itertools.count(1)
        self.blows: dict[str, Fault] = {"move asked for": self.move}
        self.faults: dict[str, Fault] = {"paused": self.pause, "paused and not resumed": self.pause_for_long}

    def say(self, kind: str, **data: Any) -> None:
        """A fact in the operators' inbox; tried again while Redis does not answer. In the current process."""
        seconds = self.world.kernel.now_s
        stream = f"{next(self._numbers):012x}"
        envelope = Envelope(type=kind, source="operator", stream=stream, seq=1, wall=seconds, data=data)
        client = self.world.net.client(WHO)
        for _ in range(60):
            try:
                with client.pipeline(transaction=True) as pipe:
                    pipe.xadd(wire.inbox(self.world.cluster_name, wire.OPERATOR_INBOX), {wire.FACT_FIELD: envelope.model_dump_json()})
                    pipe.publish(wire.bell(self.world.cluster_name), wire.OPERATOR_INBOX)
                    pipe.execute()
                return
            except redis.RedisError:
                self.world.kernel.sleep(2.0)

    def _soon(self, what: Callable[[], None]) -> None:
        self.world.later(0.0, what)

    def pause(self) -> Undo:
        self._soon(lambda: self.say("PauseRequested", by="ops", why="maintenance"))
        return self.resume

    def pause_for_long(self) -> None:
        self.pause()

    def resume(self) -> None:
        self._soon(lambda: self.say("ResumeRequested", by="ops"))

    def move(self) -> None:
        """dcsup move: who asks is in the log, CLUSTERPRO's own command does it."""
        to = self.world.dice.choice(list(self.world.nodes))

        def ask() -> None:
            request = f"{next(self._numbers):012x}"
            self.say("MoveRequested", request=request, to=to, by="ops", why="to see that it works")
            done = self.world.cluster.move(to)
            cluster, until_s = self.world.cluster, self.world.kernel.now_s + MOVE_LIMIT_S
            while done and self.world.kernel.now_s < until_s and (cluster.where != to or cluster.group_state != "online"):
                self.world.kernel.sleep(2.0)
            ok = cluster.where == to and cluster.group_state == "online"
            self.say("MoveEnded", request=request, ok=ok, reason="" if ok else "clpgrp ended with code 1")

        self._soon(ask)

    def heal(self) -> None:
        """Whoever paused the cluster resumes it."""
        self.resume()
