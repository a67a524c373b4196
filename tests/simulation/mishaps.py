"""What can happen to the cluster as a whole: by operators, on the network between its nodes, to its scripts.

A *blow* makes CLUSTERPRO act; a *trouble* should not, or only makes it harder. Each does it now, and returns what ends it, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.shell import Shell

if TYPE_CHECKING:
    from tests.simulation.clusterpro import Cluster, ScriptCall

Undo = Callable[[], None]
Fault = Callable[[], "Undo | None"]

HEARTBEATS_LOST_S = 6.0
"""Shorter than the time after which a peer counts as down (clusterpro.SILENT_S)."""


def blows(cluster: Cluster) -> dict[str, Fault]:
    dice = cluster.world.dice

    def move() -> None:
        cluster.move(dice.choice([None, *cluster.managers]))

    def shut_down() -> None:
        active = cluster.active
        if active:
            cluster.shut_down(active[0].name)

    def group_stopped() -> Undo:
        cluster.stop_group()
        return cluster.start_group

    def watch_killed() -> None:
        watches = [watch for manager in cluster.active for watch in manager.watches if watch.process.alive]
        if watches:
            watches[-1].process.kill()

    def cut() -> Undo:
        name = dice.choice(list(cluster.managers))
        cluster.cut.add(name)
        return lambda: cluster.cut.discard(name)

    return {
        "group moved": move, "node shut down": shut_down, "group stopped": group_stopped, "watch script killed": watch_killed,
        "heartbeats cut": cut,
    }  # fmt: skip


def troubles(cluster: Cluster) -> dict[str, Fault]:
    dice = cluster.world.dice

    def suspended() -> Undo:
        cluster.suspend()
        return cluster.resume

    def running() -> list[ScriptCall]:
        return [manager.script for manager in cluster.managers.values() if manager.script is not None and manager.script.process.alive]

    def script_killed() -> None:
        for script in running():
            script.killed_why = "somebody"
            script.process.kill()

    def script_told_to_end() -> None:
        for script in running():
            if isinstance(script.script, Shell):
                script.script.terminate()

    def script_halted() -> Undo:
        """It gets no time, and its children do."""
        halted = [script.process for script in running()]
        for process in halted:
            process.stop()

        def go_on() -> None:
            for process in halted:
                if process.alive and process.is_stopped:
                    process.cont()

        return go_on

    def disk_missing() -> Undo:
        name = dice.choice(list(cluster.managers))
        cluster.without_disk.add(name)
        return lambda: cluster.without_disk.discard(name)

    def heartbeats_lost() -> Undo:
        """Shorter than the time after which a peer counts as down."""
        name = dice.choice(list(cluster.managers))
        if name in cluster.cut:
            return lambda: None
        cluster.cut.add(name)
        cluster.world.later(HEARTBEATS_LOST_S, lambda: cluster.cut.discard(name))
        return lambda: None

    return {
        "cluster suspended": suspended, "script killed": script_killed, "script told to end": script_told_to_end,
        "script halted": script_halted, "shared disk missing": disk_missing, "heartbeats lost": heartbeats_lost,
    }  # fmt: skip
