"""Every runbook for every shape of a cluster and any number of standbys."""

from __future__ import annotations

import pytest

from orchestrator.cli.runbook import NAMES as NAMES_OF_COMMAND
from orchestrator.runbooks.plans import NAMES, DoesNotFit, plan
from orchestrator.runbooks.steps import PARTS
from tests.runbooks.support import EVERY, FITTING, SERVICES, ids, shape_of, steps_of


def test_the_command_offers_every_runbook() -> None:
    """The command's own list, which it has so that asking for help is quick, is the plans'."""
    assert NAMES_OF_COMMAND == NAMES


@pytest.mark.parametrize(("name", "services", "standbys"), EVERY)
def test_steps_are_named_once_and_know_their_node(name: str, services: str, standbys: int) -> None:
    """Ids are unique and say where; nodes are the cluster's; every node but the drill's is visited."""
    steps = steps_of(name, services, standbys)
    assert len(set(ids(steps))) == len(steps)
    nodes = shape_of(services, standbys).settings.nodes
    assert {step.node for step in steps} - {None} <= set(nodes)
    assert all(step.id.partition(".")[2] in ("", step.node) or step.id.startswith("back.") for step in steps)
    if name != "drill":
        assert {step.node for step in steps} >= set(nodes)
        assert all(step.rules for step in steps)
    assert all(part in PARTS for step in steps for part in step.parts)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_that_does_not_fit_says_why(name: str) -> None:
    """One for a service that the cluster does not have is refused, naming both."""
    for services in set(SERVICES) - set(FITTING[name]):
        with pytest.raises(DoesNotFit, match=rf"has no service of kind '(server|agent)', so {name} is not for it"):
            steps_of(name, services)


def test_a_drill_goes_where_it_is_told() -> None:
    """To the first standby, or to a node that the cluster has."""
    shape = shape_of("server", 2)
    assert {step.values["to"] for step in plan("drill", shape) if step.values} == {"node2"}
    assert {step.values["to"] for step in plan("drill", shape, "move", "node3") if step.values} == {"node3"}
    with pytest.raises(DoesNotFit, match="has no node 'node9'; known: node1, node2, node3"):
        plan("drill", shape, "move", "node9")


def test_both_kinds_of_drill_look_before_and_after() -> None:
    """Health, maintenance and schedules before; the failover, the objectives and the clients after."""
    for kind in ("move", "failure"):
        steps = plan("drill", shape_of("both"), kind)
        assert ids(steps) == [
            *("healthy", "no-maintenance", "schedules", "announce", "provoke", "objectives", "clients", "again-healthy"),
        ]
        assert steps[4].kind == f"drill-{kind}"
        assert steps[4].danger
