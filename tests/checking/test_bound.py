"""NODE.md's bound, reckoned by hand for some configurations."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.checking.bound import script_bounds
from statemachines.configuration import ClusterSettings


def cluster(*kinds: str, **settings: Any) -> ClusterSettings:
    services = [{"name": kind, "kind": kind} for kind in kinds]
    return ClusterSettings.model_validate({"group": "g", "nodes": ["a", "b"], "services": services, **settings})


@pytest.mark.parametrize(
    ("kinds", "start_s", "stop_s"),
    [
        # boot 5, older ticket 300+2+30; early: 4+5+5, 300+2+30, own 2*30+300+20; site 60; 5 for the command
        (["server"], 337 + 14 + 332 + 380 + 60 + 5, 337 + 60 + 14 + 332 + 300 + 60 + 5),
        # late: hook 600+5, 300+2+30, then the second service
        (["agent", "server"], 337 + 605 + 332 + 380 + 60 + 10, 337 + 60 + 605 + 332 + 300 + 60 + 10),
        (["command", "agent", "server"], 337 + 605 + 332 + 370 + 380 + 60 + 15, 337 + 60 + 605 + 332 + 600 + 60 + 15),
    ],
)
def test_the_bound_is_the_sum_of_the_worst_way(kinds: list[str], start_s: float, stop_s: float) -> None:
    """With the defaults."""
    start, stop = script_bounds(cluster(*kinds))
    assert (start.total_s, stop.total_s) == (start_s, stop_s)
    assert start.total_s == sum(part.seconds for part in start.parts)
    assert (start.fits, stop.fits) == (start_s < 1800, stop_s < 1800)


def test_every_limit_counts() -> None:
    """Each setting that lengthens a script lengthens its bound, and none shortens it."""
    longer: list[tuple[str, dict[str, Any]]] = [
        ("start", {"start": {"deadline": 900}}),
        ("start", {"start": {"command_limit": 400}}),
        ("stop", {"stop": {"deadline": 900}}),
        ("stop", {"stop": {"command_limit": 400}}),
        ("stop", {"stop": {"report_failure": True}}),
        ("start", {"watch": {"poll_limit": 60}}),
        ("start", {"clusterpro": {"site_limit": 90}}),
        ("stop", {"clusterpro": {"site_limit": 90}}),
    ]
    plain: dict[str, float] = {bound.script: bound.total_s for bound in script_bounds(cluster("agent", "server"))}
    for script, settings in longer:
        now: dict[str, float] = {bound.script: bound.total_s for bound in script_bounds(cluster("agent", "server", **settings))}
        assert now[script] > plain[script], settings
        assert all(now[name] >= plain[name] for name in plain), settings


def test_an_acknowledgement_that_is_waited_for_long_is_the_worst_way() -> None:
    """Where the early way is longer than the late one, it counts."""
    start, _stop = script_bounds(cluster("agent", "server", ack_timeout=400))
    assert start.total_s == 337 + 410 + 332 + 370 + 380 + 60 + 10


def test_equal_is_too_long() -> None:
    """The sum must be less than CLUSTERPRO's timeout."""
    total_s = script_bounds(cluster("server"))[0].total_s
    assert not script_bounds(cluster("server", clusterpro={"script_timeout": total_s}))[0].fits
    assert script_bounds(cluster("server", clusterpro={"script_timeout": total_s + 1}))[0].fits
