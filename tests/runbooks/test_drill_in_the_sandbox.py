"""A drill on a whole cluster: real services, a real move by `dcsup move`, and what dcsup saw of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.shapes import BOTH
from deploy.sandbox.site import Site, dcsup_command
from tests.acceptance.test_shapes import LIMIT_S, PACE


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, PACE, orchestrators=("a",), shape=BOTH) as site:
        site.bring_up()
        yield site
    assert site.left_over() == []


def ready(state: dict[str, Any]) -> bool:
    """Everything that a drill asks for was seen."""
    services = all(one["state"] == "running" and one["verified"] for one in state["services"].values())
    nodes = all(one["state"] == "running" and one["present"] for one in state["nodes"].values())
    seen = state["schedules"]["server"]["latest"] is not None and state["view"] is not None and state["view"]["suspended"] is False
    return bool(services and nodes and seen and state["failover"] is None)


def test_a_planned_move_is_led_through_measured_and_reported(site: Site) -> None:
    """Every look finds what there is; the move that was asked for here is the failover that is found; the report says it was met."""
    site.wait_state("everything is healthy and seen", ready, LIMIT_S)
    typed = ["d", "d", "d", "g", "600", "d", "r", "node2", "d", "d", "d", "d"]
    command = [*dcsup_command(), "runbook", "drill", "--config", str(site.config("node1")), "--by", "sato"]
    done = subprocess.run(
        command, input="\n".join(typed) + "\n", capture_output=True, text=True, encoding="utf-8", timeout=4 * LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "`dcsup move` ended with code 0" in done.stdout, done.stdout + done.stderr
    listed = json.loads(site.dcsup("runbook", "drill", "--config", str(site.config("node1")), "--list", "--json").stdout)
    assert listed["finished"], done.stdout + done.stderr
    verified = {step["id"] for step in listed["steps"] if step["verified"]}
    assert verified >= {"healthy", "no-maintenance", "schedules", "announce", "provoke", "objectives"}, done.stdout
    failover = site.state()["failovers"][-1]
    assert (failover["kind"], failover["node_to"], failover["requested_by"]) == ("move", "node2", "sato")
    english = min(site.base.glob("*.en.md")).read_text(encoding="utf-8")
    assert "**The objectives were met.**" in english
    assert f"| **total** | **{failover['total_s']:.2f}** |" in english
    assert failover["id"] in english
    site.wait_state("the steps in the log", lambda state: len(state["runbooks"]["drill"]["steps"]) == 8, LIMIT_S)
