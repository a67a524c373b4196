"""How long a start or stop script may take at the worst: NODE.md's bound.

CLUSTERPRO ends a script that outlives its timeout, and then acts as if it had failed; after a stop its default is to shut the operating
system down. So the worst case must fit into the timeout, with dcsup in any state. The worst case is reckoned as the scripts are written
(deploy/clusterpro), one part after the other:

1. The boot's id is asked for.
2. N6: a command of an older ticket may still run; it is waited for within its limit, or ended.
3. The site's own code before a stop (G43).
4. The hook, then the plain sequence, in whichever of these ways is the longest:
   * early: nobody works on the ticket. The hook gives up after `ack_timeout`, 5 s without progress and 5 s without a sign of life; a
     command under way gets what is left of its limit; then every command is run by the script.
   * late: the hook works until its deadline and dies at the second command. That command gets what is left of its limit, and the script
     runs it and all that follow. (A first command cannot be under way then: it has ended, or the hook gave up early.)
   * ended: all commands have run, and the deadline passes over the polls.
5. A stop that must report failures asks each `dcstatus` once more (StopSettings.report_failure); G41 says that the guide asks nothing.
6. The site's own code after a start or a stop.
7. 5 s for each command, for what its processes and the cluster log's lines take.

A command in the plain sequence has no guard of its own, for the guide gives it none; it is reckoned with its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.said import Said, say
from statemachines.configuration import ClusterSettings, ServiceSettings

BOOT_LIMIT_S = 5.0
"""The scripts' default DCSUP_BOOT_LIMIT."""
NO_PROGRESS_S = 5.0
HOOK_SILENCE_S = 5.0
HOOK_GRACE_S = 5.0
"""What the script's guard gives a hook beyond its own limit."""
LAUNCHER_GRACE_S = 2.0
"""For a launcher to end its command by itself, once the command's limit has passed."""
SEE_GONE_S = 30.0
"""How long a process that was killed is looked for."""
PER_COMMAND_S = 5.0
ACTIVATION_EXTRA_S = 180.0
"""A resource's whole (de)activation timeout is its script's plus this (CLUSTERPRO.md, section 1.3)."""
WAIT_SERVER_S, WAIT_OTHER_S = 20.0, 10.0
"""The pause before each poll of a start in the plain sequence (G20)."""


@dataclass(frozen=True)
class Part:
    """One term of the sum, seconds."""

    said: Said
    seconds: float


@dataclass(frozen=True)
class Bound:
    """The longest that a script may take; `parts` add up to `total_s`."""

    script: Literal["start", "stop"]
    parts: tuple[Part, ...]
    timeout_s: float
    """CLUSTERPRO's, as the configuration has it."""

    @property
    def total_s(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def fits(self) -> bool:
        return self.total_s < self.timeout_s


def script_bounds(cluster: ClusterSettings) -> tuple[Bound, Bound]:
    """The bounds of start and stop script."""
    return start_bound(cluster), stop_bound(cluster)


def start_bound(cluster: ClusterSettings) -> Bound:
    """The longest that the start script may take."""
    deadline_s, limit_s, poll_s = cluster.start.deadline, command_limit_s(cluster), cluster.watch.poll_limit
    own_s = [2 * poll_s + limit_s + wait_s(service) for service in cluster.services]
    early = [*_early_hook(cluster, limit_s), *_own_starts(own_s)]
    early_polls = [
        Part(say("the first service's polls, until start.deadline"), deadline_s + poll_s),
        *_own_starts(own_s[1:]),
    ]
    late = [*_late_hook(deadline_s, limit_s), *_own_starts(own_s[1:])]
    ended = [_whole_hook(deadline_s), Part(say("a last poll of every service"), len(own_s) * poll_s)]
    worst = _longest(early, early_polls, ended, late if len(own_s) > 1 else ())
    site = Part(say("the site's own code after the start (G43)"), cluster.clusterpro.site_limit)
    return Bound("start", (*_before(cluster), *worst, site, _overhead(cluster)), cluster.clusterpro.script_timeout)


def stop_bound(cluster: ClusterSettings) -> Bound:
    """The longest that the stop script may take."""
    deadline_s, limit_s, count = cluster.stop.deadline, command_limit_s(cluster), len(cluster.services)
    early = [*_early_hook(cluster, limit_s), *_own_stops(count, limit_s)]
    late = [*_late_hook(deadline_s, limit_s), *_own_stops(count - 1, limit_s)]
    worst = _longest(early, [_whole_hook(deadline_s)], late if count > 1 else ())
    site_s = cluster.clusterpro.site_limit
    before = Part(say("the site's own code before the stop (G43)"), site_s)
    after = Part(say("the site's own code after the stop (G43)"), site_s)
    parts = (*_before(cluster), before, *worst, *_judgement(cluster), after, _overhead(cluster))
    return Bound("stop", parts, cluster.clusterpro.script_timeout)


def wait_s(service: ServiceSettings) -> float:
    """Seconds that the plain sequence waits before each poll of this service's start (G20)."""
    if service.wait is not None:
        return service.wait
    return WAIT_SERVER_S if service.kind == "server" else WAIT_OTHER_S


def command_limit_s(cluster: ClusterSettings) -> float:
    """The scripts know one limit for all commands (DCSUP_COMMAND_LIMIT), for each may meet a command of the other: the longer one."""
    return max(cluster.start.command_limit, cluster.stop.command_limit)


def _before(cluster: ClusterSettings) -> list[Part]:
    ground_s = command_limit_s(cluster) + LAUNCHER_GRACE_S + SEE_GONE_S
    return [
        Part(say("the boot's id"), BOOT_LIMIT_S),
        Part(say("a command of an older ticket that still runs (N6)"), ground_s),
    ]


def _early_hook(cluster: ClusterSettings, limit_s: float) -> list[Part]:
    return [
        Part(say("ack_timeout, then a hook without progress or sign of life"), cluster.ack_timeout + NO_PROGRESS_S + HOOK_SILENCE_S),
        _under_way(limit_s),
    ]


def _late_hook(deadline_s: float, limit_s: float) -> list[Part]:
    return [_whole_hook(deadline_s), _under_way(limit_s)]


def _whole_hook(deadline_s: float) -> Part:
    return Part(say("the hook until its deadline"), deadline_s + HOOK_GRACE_S)


def _under_way(limit_s: float) -> Part:
    return Part(say("a command under way, within its limit"), limit_s + LAUNCHER_GRACE_S + SEE_GONE_S)


def _own_starts(own_s: Sequence[float]) -> list[Part]:
    if not own_s:
        return []
    return [Part(say("the plain sequence of {count} services: poll, command_limit, wait, poll", count=len(own_s)), sum(own_s))]


def _own_stops(count: int, limit_s: float) -> list[Part]:
    return [Part(say("the plain sequence of {count} services: command_limit each", count=count), count * limit_s)] if count else []


def _judgement(cluster: ClusterSettings) -> list[Part]:
    if not cluster.stop.report_failure:
        return []
    each_s = cluster.watch.poll_limit + 1
    return [Part(say("a last poll of every service (stop.report_failure)"), len(cluster.services) * each_s)]


def _overhead(cluster: ClusterSettings) -> Part:
    return Part(say("5 s for each command"), len(cluster.services) * PER_COMMAND_S)


def _longest(*ways: Sequence[Part]) -> Sequence[Part]:
    return max(ways, key=lambda parts: sum(part.seconds for part in parts))
