"""The command lines for CLUSTERPRO's alert extension: which of its alerts dcsup wants to hear of, and how.

CLUSTERPRO can run a command for each (module, id); ours writes one fact to the node's disk. What each alert is taken for is the core's
(statemachines/alerts.py). Those that are mere information complete the story that is told afterwards, and decide nothing.
"""

from __future__ import annotations

from orchestrator.rendering import Site, Target
from orchestrator.rendering.quoting import batch_command, sh_command
from orchestrator.said import Said, say
from statemachines.alerts import ALERTS

MESSAGE = "%%MSG%%"
"""What CLUSTERPRO replaces by the alert's text."""

WANTED: dict[str, Said] = {
    "symptom": say("the first sign of a failure: a monitor found an error, the cluster service died"),
    "acts": say("the manager acts: failover, move, restart in place, shutdown"),
    "fencing": say("a node is down or cannot be reached, and what is done about it"),
    "double-activation": say("double activation"),
    "withheld": say("why nothing happened: no destination, recovery disabled or skipped, too many restarts"),
    "failed": say("what failed on the way"),
}
"""Category -> what its alerts tell."""
INFORMATION = "information"


def ids_of(category: str) -> list[tuple[str, int]]:
    """The alerts of a category, by module and id."""
    return sorted(one for one, alert in ALERTS.items() if alert.category == category)


def information() -> str:
    """The alerts that only complete the story: `nm 1, 4; rc 10, 11`."""
    numbers: dict[str, list[str]] = {}
    for module, number in ids_of(INFORMATION):
        numbers.setdefault(module, []).append(str(number))
    return "; ".join(f"{module} {', '.join(found)}" for module, found in numbers.items())


def command_line(site: Site, target: Target, module: str, number: int) -> str:
    """What to enter for one alert."""
    words = [*site.node.dcsup, "hook", "alert", "--folder", site.node.folder, "--module", module, "--id", str(number)]
    command = batch_command if target.platform == "windows" else sh_command
    return f'{command(words)} --text "{MESSAGE}"'
