"""Moments that chance alone comes to too seldom, brought about on purpose.

Some rows of the tables need several things at the right time: a stop whose end is told after its deadline, a start that tells nothing on
one node while the one on another is not over. An episode is such a chain of events, each of which may happen anywhere. It takes the place
of a round's blow. It goes on in a process of its own, which ends when all is healed: healing puts right whatever it has left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.services import START_VERBS

if TYPE_CHECKING:
    from tests.simulation.clusterpro import Manager
    from tests.simulation.node import Node
    from tests.simulation.world import World

LOOK_S = 0.3
SOON_S = 40.0
"""For what follows by itself."""

EXCUSED_EVERY_S = 20.0
LATER_S = 8.0
"""So long after a deadline it has surely passed, and is told."""


class Given(Exception):
    """It did not come to the moment: something else was in the way."""


@dataclass
class Episode:
    """One episode while it goes on."""

    world: World
    cut_off: list[str] = field(default_factory=list)
    """Nodes."""

    def run(self, story: Callable[[Episode], None]) -> None:
        try:
            story(self)
        except Given:
            self.world.note("      it does not come to it")

    # --- time

    def rest(self, seconds: float) -> None:
        """Time passes; signs of life of whoever is cut off may be missing all the while."""
        until_s = self.world.kernel.now_s + seconds
        while (left_s := until_s - self.world.kernel.now_s) > 0:
            self.world.kernel.sleep(min(left_s, EXCUSED_EVERY_S))
            for name in self.cut_off:
                self.world.excuse(name)

    def until(self, is_so: Callable[[], bool], limit_s: float = SOON_S) -> None:
        """Wait for it.

        Raises:
            Given: it was not so in time.
        """
        end_s = self.world.kernel.now_s + limit_s
        while not is_so():
            if self.world.kernel.now_s >= end_s:
                raise Given
            self.rest(LOOK_S)

    # --- who

    def active(self) -> Manager:
        """The manager that has the group online; waited for."""
        cluster = self.world.cluster
        self.until(lambda: cluster.group_state == "online")
        return cluster.active[0]

    def other(self, one: Manager) -> Manager:
        """A node that is up, beside this one."""
        found = [manager for manager in one.peers if manager.node.is_up]
        if not found:
            raise Given
        return found[0]

    # --- what happens

    def cut(self, node: Node) -> None:
        self.world.note(f"      {node.name} is cut off from Redis")
        self.cut_off.append(node.name)
        self.world.excuse(node.name)
        self.world.net.set_line(node.name, is_cut=True)

    def join(self, node: Node) -> None:
        self.cut_off.remove(node.name)
        self.world.excuse(node.name)
        self.world.net.set_line(node.name)

    def until_worker_runs(self, node: Node, is_start: bool) -> None:
        """A worker there is at a verb of a start, or of a stop."""
        self.until(lambda: any(run.by == "worker" and (run.verb in START_VERBS) == is_start for run in node.services.under_way()))

    def lose_command(self, node: Node) -> None:
        """The launcher dies with the verb that it waits for: nobody knows how that ended."""
        for process in (*node.launchers[-1:], *node.verbs[-1:]):
            if process.alive:
                process.kill()


def stop_out_of_sight(episode: Episode) -> None:
    """A stop begins, and its node is cut off until after the stop's deadline; what became of the command is told late."""
    cluster, node = episode.world.cluster, episode.active().node
    cluster.stop_group()
    episode.until_worker_runs(node, is_start=False)
    episode.cut(node)
    if episode.world.dice.random() < 0.4:
        episode.lose_command(node)
    episode.rest(episode.world.settings.stop.deadline + LATER_S)
    episode.join(node)
    episode.rest(LATER_S)
    cluster.start_group()


def move_out_of_sight(episode: Episode) -> None:
    """A move begins, and all nodes are cut off from Redis until after its deadlines."""
    world, here = episode.world, episode.active()
    world.cluster.move(episode.other(here).name)
    episode.until_worker_runs(here.node, is_start=False)
    for node in world.nodes.values():
        episode.cut(node)
    episode.rest(max(world.settings.stop.deadline, world.settings.takeover_deadline) + LATER_S)
    for node in world.nodes.values():
        episode.join(node)


def disk_missing_for_long(episode: Episode) -> None:
    """The shared disk cannot be attached on a node to which the group is moved twice; then it can."""
    cluster = episode.world.cluster
    there = episode.other(episode.active())
    cluster.without_disk.add(there.name)
    for _ in range(2):
        cluster.move(there.name)
        episode.rest(2 * LATER_S)
        episode.active()
    cluster.without_disk.discard(there.name)
    episode.active()
    cluster.move(there.name)


def start_out_of_sight(episode: Episode) -> None:
    """In maintenance the group is started by hand, its node is cut off until after the start's deadline, and its command fails."""
    world, cluster = episode.world, episode.world.cluster
    episode.active()
    cluster.suspend()
    cluster.stop_group()
    episode.until(lambda: not cluster.active)
    cluster.start_group()
    episode.until(lambda: bool(cluster.active))
    node = cluster.active[0].node
    is_lost = world.dice.random() < 0.4
    if not is_lost:
        node.services.moods[world.settings.services[0].name].fail_verbs = 1
    episode.until_worker_runs(node, is_start=True)
    episode.cut(node)
    if is_lost:
        episode.lose_command(node)
    episode.rest(world.settings.start.deadline + LATER_S)
    episode.join(node)
    episode.rest(LATER_S)
    cluster.resume()
    cluster.start_group()


def told_to_stop_while_cut_off(episode: Episode) -> None:
    """A node is cut off for so long that it counts as lost; meanwhile its worker is told to stop, and says so when the line is back."""
    world = episode.world
    node = world.dice.choice(list(world.nodes.values()))
    episode.cut(node)
    episode.rest(world.dice.uniform(2.0, 20.0))
    node.stop_worker()
    episode.rest(world.settings.node_ttl + LATER_S)
    episode.join(node)


def cut_off_for_long(episode: Episode) -> None:
    """The group's node is cut off from Redis alone, and CLUSTERPRO has no reason to act."""
    settings, node = episode.world.settings, episode.active().node
    episode.cut(node)
    episode.rest(settings.node_ttl + settings.suspicion_deadline + 2 * LATER_S)
    episode.join(node)


def silent_start(episode: Episode) -> None:
    """Under pause a node dies in its start, and the group is brought up on another one where dcsup is bypassed; then it is back."""
    world, cluster = episode.world, episode.world.cluster
    here = episode.active()
    there = episode.other(here)
    world.operators.pause()
    for peer in there.peers:
        peer.node.bypass()
    for mood in there.node.services.moods.values():
        mood.late = True
    begun_s = world.kernel.now_s
    cluster.move(there.name)
    episode.until(lambda: there.state == "starting")
    episode.rest(6.0)
    there.node.kill()
    for mood in there.node.services.moods.values():
        mood.late = False
    episode.rest(max(0.0, begun_s + world.settings.start.deadline + 3 * LATER_S - world.kernel.now_s))
    there.node.boot()
    episode.rest(3 * LATER_S)
    for peer in there.peers:
        peer.node.bypass(is_so=False)
    world.operators.resume()


def half_a_silent_start(episode: Episode) -> None:
    """The group is moved to a node where dcsup is bypassed, and the last of its services never becomes healthy there."""
    world = episode.world
    here = episode.active()
    there = episode.other(here)
    there.node.bypass()
    mood = there.node.services.moods[world.settings.services[-1].name]
    mood.late = True
    world.cluster.move(there.name)
    episode.rest(world.settings.takeover_deadline + 3 * LATER_S)
    mood.late = False
    there.node.bypass(is_so=False)


def moved_on_at_once(episode: Episode) -> None:
    """The group is moved back before every schedule was judged; where it was, dcstatus hangs, so that only the manager tells of it."""
    world = episode.world
    first = episode.active()
    second = episode.other(first)
    world.cluster.move(second.name)
    episode.until(lambda: _failover_of(world) == "resuming" and second.state == "online", 90.0)
    for mood in second.node.services.moods.values():
        mood.status_hangs = True
    world.cluster.move(first.name)
    episode.rest(SOON_S)
    for mood in second.node.services.moods.values():
        mood.status_hangs = False


def start_script_killed(episode: Episode) -> None:
    """The group is moved, and the start script dies before it could say how the start ended."""
    there = episode.other(episode.active())
    episode.world.cluster.move(there.name)
    episode.until(lambda: there.state == "starting" and there.script is not None)
    episode.rest(4.0)
    script = there.script
    if script is not None and script.process.alive:
        script.killed_why = "somebody"
        script.process.kill()


def power_cut_before_judged(episode: Episode) -> None:
    """The group is moved, and its new node loses power before every schedule was judged."""
    there = episode.other(episode.active())
    episode.world.cluster.move(there.name)
    episode.until(lambda: _failover_of(episode.world) == "resuming" and there.state == "online", 90.0)
    there.node.kill()
    episode.rest(SOON_S)
    there.node.boot()


def _failover_of(world: World) -> str:
    led = world.checks.leader
    return led.state.failover.state if led is not None and led.state.failover is not None else "none"


STORIES: dict[str, Callable[[Episode], None]] = {
    "stop out of sight": stop_out_of_sight, "start out of sight": start_out_of_sight,
    "move out of sight": move_out_of_sight, "disk missing for long": disk_missing_for_long,
    "told to stop while cut off": told_to_stop_while_cut_off, "cut off for long": cut_off_for_long, "silent start": silent_start,
    "half a silent start": half_a_silent_start, "moved on at once": moved_on_at_once,
    "start script killed": start_script_killed, "power cut before judged": power_cut_before_judged,
}  # fmt: skip

WEIGHTS = {
    "stop out of sight": 2.0, "start out of sight": 2.0, "told to stop while cut off": 2.0,
    "half a silent start": 5.0, "moved on at once": 8.0,
}  # fmt: skip
"""Of those that do not always come to what they are for."""

_WITH_GUIDES_SCRIPTS = ("moved on at once", "told to stop while cut off", "cut off for long")


def possible(world: World) -> list[str]:
    """The episodes that a world of this plan can have."""
    if not world.plan.has_our_scripts:
        return list(_WITH_GUIDES_SCRIPTS)
    if world.plan.mode == "observe":
        return ["told to stop while cut off", "cut off for long"]
    return [name for name in STORIES if name != "moved on at once" and (name != "half a silent start" or len(world.settings.services) > 1)]


def begin(world: World, name: str) -> None:
    """From now on it takes its course."""
    episode = Episode(world)
    world.kernel.spawn(name, world.cluster.chance, lambda: episode.run(STORIES[name]))
