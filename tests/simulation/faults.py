"""Every kind of fault, and how the dice choose among them.

A round has a *blow*, after which CLUSTERPRO must act (a service dies, a node dies, an operator moves the group ...), perhaps a second one
while that is under way, and some *troubles* around them, all of which may overlap. Each fault is a function that does it now and returns
what ends it, or None where it ends by itself or at the end of the round.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from statemachines import wire
from tests.simulation import episodes
from tests.simulation.redis import TROUBLES

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

Undo = Callable[[], None]
Begin = Callable[["World"], "Undo | None"]


SNAPSHOT_EVERY = 100
"""Log entries."""


class Kind(NamedTuple):
    """A kind of fault: how likely it is, beside the others, and how long it lasts (s)."""

    begin: Begin
    weight: float = 1.0
    lasts_s: tuple[float, float] = (0.0, 0.0)


class Strike(NamedTuple):
    """One fault that is to come."""

    kind: str
    begin: Begin
    after_s: float
    lasts_s: float


@dataclass
class Struck:
    """A fault that struck a node."""

    kind: str
    node: str
    began_s: float
    ended_s: float = inf
    """When it was undone."""


# --- Redis --------------------------------------------------------------------------------------------------------------------------------


def _redis_down(world: World) -> Undo:
    world.net.server.up = False

    return world.net.server.restart


def _redis_restarts(world: World) -> None:
    world.net.server.restart()


def _redis_stalls(world: World) -> None:
    world.net.server.stalled_until_s = world.kernel.now_s + world.dice.uniform(0.5, 6.0)


def _redis_full(world: World) -> Undo:
    world.net.server.is_full = True

    def freed() -> None:
        world.net.server.is_full = False

    return freed


def _redis_fails_over(world: World) -> Undo:
    world.net.server.lag()
    return world.net.server.fail_over


def _redis_clock(world: World) -> None:
    world.net.server.clock_offset_s += world.dice.choice((-1.0, 1.0)) * world.dice.uniform(0.5, 4.0)


def _job_twice(world: World) -> None:
    """Every job that waits or is being done comes once more."""
    for name, jobs in list(world.net.server.queues.items()):
        if jobs and not name.endswith(":intermediate"):
            world.net.server.queues[name] = [*jobs, *jobs]
    world.net.server.queued.set()


def _old_jobs(world: World) -> None:
    """Jobs that were done long ago come again, in any order."""
    old = world.checks.jobs_seen[-12:]
    for queue, job in world.dice.sample(old, min(len(old), 4)):
        world.net.server.queues[queue].append(job)
    world.net.server.queued.set()


def _garbage(world: World) -> None:
    """Somebody writes nonsense into inboxes and queues."""
    node = world.dice.choice(list(world.nodes))
    texts = ("{", "[]", '{"type": "NodeJoined"}', json.dumps({"type": "Nonsense", "source": "x", "stream": "s", "seq": 1, "data": {}}))
    world.net.server.tick()
    world.net.server.xadd(wire.inbox(world.cluster_name, node), {wire.FACT_FIELD: world.dice.choice(texts)})
    payload = {"kind": "command", "ticket": "b-g-1-start", "n": 1, "service": "server", "verb": "start", "not_after_ms": 9**15}
    world.net.server.queues[wire.command_queue(world.cluster_name, node)].append(("forged", payload))
    world.net.server.rang.set()
    world.net.server.queued.set()


# --- lines --------------------------------------------------------------------------------------------------------------------------------


def _whom(world: World) -> str:
    return world.dice.choice([*world.nodes, *(host.name for host in world.hosts)])


def _line_cut(world: World) -> Undo:
    return _line(world, is_cut=True)


def _line_bad(world: World) -> Undo:
    return _line(world, badness=world.dice.uniform(0.1, 0.5))


def _line(world: World, *, is_cut: bool = False, badness: float = 0.0) -> Undo:
    who = _whom(world)
    world.net.set_line(who, is_cut=is_cut, badness=badness)
    world.note(f"      {who}'s")
    world.excuse(who)

    def good() -> None:
        world.excuse(who)
        world.net.set_line(who)

    return good


def _all_lines_bad(world: World) -> Undo:
    everybody = [*world.nodes, *(host.name for host in world.hosts)]
    badness = world.dice.uniform(0.05, 0.3)
    for who in everybody:
        world.excuse(who)
        world.net.set_line(who, badness=badness)

    def good() -> None:
        for who in everybody:
            world.excuse(who)
            world.net.set_line(who)

    return good


# --- orchestrators ------------------------------------------------------------------------------------------------------------------------


def _orchestrator_killed(world: World) -> Undo:
    leaders = [host for host in world.hosts if host.leads]
    host = leaders[0] if leaders and world.dice.random() < 0.8 else world.dice.choice(world.hosts)
    host.kill()
    return lambda: host.start(SNAPSHOT_EVERY)


def _orchestrator_stopped(world: World) -> Undo:
    host = world.dice.choice(world.hosts)
    host.tell_to_stop()
    return lambda: host.start(SNAPSHOT_EVERY)


def _orchestrator_paused(world: World) -> Undo:
    leaders = [host for host in world.hosts if host.leads]
    host = leaders[0] if leaders else world.dice.choice(world.hosts)
    host.machine.pause()
    return host.machine.resume


def _all_orchestrators_killed(world: World) -> Undo:
    for host in world.hosts:
        host.kill()

    def again() -> None:
        for host in world.hosts:
            host.start(SNAPSHOT_EVERY)

    return again


CENTRAL: dict[str, Kind] = {
    "Redis down": Kind(_redis_down, 1.0, (0.5, 8.0)),
    "Redis gone for long": Kind(_redis_down, 0.5, (20.0, 60.0)),
    "Redis restarts": Kind(_redis_restarts),
    "Redis stalls": Kind(_redis_stalls),
    "Redis full": Kind(_redis_full, 0.7, (2.0, 15.0)),
    "Redis fails over and lost its tail": Kind(_redis_fails_over, 1.0, (0.3, 4.0)),
    "Redis clock jumps": Kind(_redis_clock, 0.3),
    "jobs doubled": Kind(_job_twice, 1.0),
    "old jobs again": Kind(_old_jobs, 1.0),
    "garbage in inbox and queue": Kind(_garbage, 0.7),
    "line cut": Kind(_line_cut, 1.5, (2.0, 25.0)),
    "line bad": Kind(_line_bad, 1.5, (5.0, 20.0)),
    "all lines bad": Kind(_all_lines_bad, 0.7, (5.0, 15.0)),
    "orchestrator killed": Kind(_orchestrator_killed, 1.5, (2.0, 20.0)),
    "orchestrator told to stop": Kind(_orchestrator_stopped, 0.7, (2.0, 10.0)),
    "orchestrator paused": Kind(_orchestrator_paused, 1.5, (1.0, 20.0)),
    "all orchestrators killed": Kind(_all_orchestrators_killed, 0.5, (5.0, 40.0)),
}


# --- a round ------------------------------------------------------------------------------------------------------------------------------

NODE_LASTS_S = (1.0, 20.0)
"""How long what is wrong with a node, or with CLUSTERPRO, lasts, where it does not end by itself."""


EPISODES = 0.13
"""So many rounds have an episode (episodes.py) in the place of blows."""

EPISODES_UNSEEN = 0.7
"""The same where CLUSTERPRO runs the guide's own scripts: such worlds are few."""

AGAIN = 0.5
"""So many rounds have a second blow."""

RARER = {"group stopped": 0.4, "heartbeats cut": 0.6}
"""Blows after which no failover is to be expected."""


def of_a_round(world: World) -> list[Strike]:
    """One blow, perhaps a second one into what follows from it, and what strikes around them."""
    dice = world.dice
    if dice.random() < (EPISODES if world.plan.has_our_scripts else EPISODES_UNSEEN):
        return [_strike(world, _episodes(world), (0.0, 3.0))]
    blows = [_strike(world, _blows(world), (1.0, 6.0))]
    if dice.random() < AGAIN:
        blows.append(_strike(world, _blows(world), (8.0, 40.0)))
    count = dice.choices((0, 1, 2, 3), (2, 4, 3, 1))[0]
    return [*blows, *(_strike(world, _troubles(world), (0.0, 30.0)) for _ in range(count))]


def _strike(world: World, kinds: dict[str, Kind], after_s: tuple[float, float]) -> Strike:
    name = world.dice.choices(list(kinds), [kind.weight for kind in kinds.values()])[0]
    kind = kinds[name]
    return Strike(name, kind.begin, world.dice.uniform(*after_s), world.dice.uniform(*kind.lasts_s))


def _blows(world: World) -> dict[str, Kind]:
    """What the cluster manager acts on."""
    found = {name: Kind(_on_active(name, blow=True), 1.0, NODE_LASTS_S) for name in _some_node(world).blows}
    found |= {name: Kind(_of_cluster(name, blow=True), RARER.get(name, 1.0), NODE_LASTS_S) for name in world.cluster.blows}
    return found | {name: Kind(_of_people(name, blow=True), 1.0) for name in world.operators.blows}


def _troubles(world: World) -> dict[str, Kind]:
    found = {name: Kind(_on_some_node(name), 0.6, NODE_LASTS_S) for name in _some_node(world).faults}
    found |= {name: Kind(_of_cluster(name, blow=False), 0.6, NODE_LASTS_S) for name in world.cluster.faults}
    found |= {name: Kind(_of_people(name, blow=False), 0.6, NODE_LASTS_S) for name in world.operators.faults}
    return CENTRAL | found


def _episodes(world: World) -> dict[str, Kind]:
    return {name: Kind(_episode(name), episodes.WEIGHTS.get(name, 1.0)) for name in episodes.possible(world)}


def _episode(name: str) -> Begin:
    return lambda world: episodes.begin(world, name)


def _some_node(world: World) -> Node:
    return next(iter(world.nodes.values()))


def _on_active(name: str, *, blow: bool) -> Begin:
    """Strikes the node that has the group (or the first)."""

    def begin(world: World) -> Undo | None:
        node = world.nodes[world.cluster.where or world.plan.nodes[0]]
        return _on(world, node, name, (node.blows if blow else node.faults)[name])

    return begin


def _on_some_node(name: str) -> Begin:
    """Strikes any node, more often the one that has the group."""

    def begin(world: World) -> Undo | None:
        active = world.nodes.get(world.cluster.where or "")
        node = active if active is not None and world.dice.random() < 0.6 else world.dice.choice(list(world.nodes.values()))
        return _on(world, node, name, node.faults[name])

    return begin


def _on(world: World, node: Node, name: str, fault: Callable[[], Undo | None]) -> Undo:
    world.note(f"      on {node.name}")
    world.excuse(node.name)
    struck = Struck(name, node.name, world.kernel.now_s)
    world.struck.append(struck)
    undo = fault()

    def over() -> None:
        world.excuse(node.name)
        struck.ended_s = world.kernel.now_s
        if undo is not None:
            undo()

    return over


def _of_cluster(name: str, *, blow: bool) -> Begin:
    return lambda world: (world.cluster.blows if blow else world.cluster.faults)[name]()


def _of_people(name: str, *, blow: bool) -> Begin:
    return lambda world: (world.operators.blows if blow else world.operators.faults)[name]()


def heal(world: World) -> None:
    """Everything that was wrong is right again; what CLUSTERPRO or an operator has to do about it is theirs."""
    world.cluster.chance.kill()
    world.net.heal()
    for host in world.hosts:
        host.machine.resume()
        host.start(SNAPSHOT_EVERY)
    for node in world.nodes.values():
        node.heal()
    world.cluster.heal()
    world.operators.heal()


def names(world: World) -> list[str]:
    """Every kind of fault, and what may happen to a request."""
    return [*_blows(world), *_troubles(world), *episodes.STORIES, *TROUBLES]
