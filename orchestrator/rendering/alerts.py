"""Which of CLUSTERPRO's alerts dcsup wants to hear of (CLUSTERPRO.md, section 6.2), and the command lines for its alert extension.

CLUSTERPRO can run a command for each (module, id); ours writes one fact to the node's disk. What the alerts are used for is the core's
(statemachines/outlook.py); some only explain afterwards why nothing happened.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.rendering import Site, Target
from orchestrator.rendering.quoting import batch_command, sh_command
from orchestrator.said import Said, say

MESSAGE = "%%MSG%%"
"""What CLUSTERPRO replaces by the alert's text."""


class Group(NamedTuple):
    """Alerts that are wanted for the same reason."""

    why: Said
    ids: tuple[tuple[str, int], ...]


GROUPS = (
    Group(say("the first sign of a failure: a node is down, a monitor found an error"), (("nm", 2), ("rm", 9))),
    Group(
        say("the manager acts: failover, move, restart in place"),
        (("rc", 60), ("rm", 14), ("rc", 50), ("rc", 80), ("rm", 13), ("rm", 12)),
    ),
    Group(
        say("how it ended: done or failed"),
        tuple(("rc", n) for n in (51, 52, 61, 62, 81, 82, 12, 22, 32, 42)) + tuple(("rm", n) for n in range(18, 24)),
    ),
    Group(say("double activation, or nodes that disagree about the group"), (("rc", 92), ("rc", 502), ("rc", 503))),
    Group(
        say("the network between the nodes is broken, and what is done about it"),
        (*tuple(("nm", n) for n in (30, 31, 40, 41, 42, 43, 44, 45, 80)), ("rm", 15), ("rm", 16), ("rm", 17)),
    ),
    Group(
        say("why nothing happened: no destination, recovery disabled or skipped, too many restarts"),
        tuple(("rc", n) for n in (23, 63, 65, 66, 100, 510, 511, 512, 513)) + tuple(("rm", n) for n in (25, 100, 190, 192, 193, 200, 220)),
    ),
    Group(say("back to normal"), (("nm", 1), ("nm", 81), ("rm", 26))),
)


def command_line(site: Site, target: Target, module: str, number: int) -> str:
    """What to enter for one alert."""
    words = [*site.node.dcsup, "hook", "alert", "--folder", site.node.folder, "--module", module, "--id", str(number)]
    command = batch_command if target.platform == "windows" else sh_command
    return f'{command(words)} --text "{MESSAGE}"'
