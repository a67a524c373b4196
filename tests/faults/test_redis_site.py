"""A whole installation, scripts and workers and all, on a Redis that is full, stands still, or lost its data while calls are under way:
each verb runs once, scripts end well, and the log tells the whole story afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from statemachines import wire
from tests.conftest import wait_until
from tests.faults.central import nobody_lost
from tests.faults.node_calls import VERBS, WHOLE, Call, Script, bring, happened, see_ends, settle
from tests.faults.node_site import LIMIT_S, Installation, installation

POINTS = ("before", "queued", "begun")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("site"), len(POINTS)) as found:
        for node in found.nodes:
            node.configure(DCSUP_HOOK_SILENCE=60)
        yield found


def begin(made: Installation, script: Script) -> list[Call]:
    """A call at each of the points; the one of `before` is not begun."""
    calls = [Call(node, script, point) for node, point in zip(made.nodes, POINTS, strict=True)]
    bring(made, calls[1:])
    return calls


def go_on(calls: list[Call]) -> None:
    calls[0].begin()
    for call in calls:
        call.release()


def ends(made: Installation) -> dict[str, str]:
    """Where each cluster's log ends now. (On a busy machine a watch may begin so late that it is missed, before anything is done to it.)"""
    return {node.cluster: made.site.head(node.cluster)["last_id"] for node in made.nodes}


def check(made: Installation, calls: list[Call], since: dict[str, str]) -> None:
    """Each verb ran once, the story is whole, nobody was lost, the lead was not lost, nothing waits."""
    settle(made, calls)
    for call in calls:
        assert call.verbs() == VERBS[call.script], call.point
        assert happened(made.story(call.node, call.ticket)) == WHOLE, call.point
        nobody_lost(made.site, call.node.cluster, since[call.node.cluster])
        assert made.site.types(call.node.cluster).count("LeadTaken") == 1


def test_a_redis_that_is_full_under_a_start(made: Installation) -> None:
    """No job can be queued and no fact is taken: the scripts go on with the plain sequence, and when memory is back the log has it all."""
    since = ends(made)
    calls = begin(made, "start")
    made.site.client.config_set("maxmemory", "1")
    go_on(calls)
    see_ends(calls)
    assert any((call.node.folder / "outbox" / "numbered").glob("*.fact") for call in calls)
    made.site.client.config_set("maxmemory", "0")
    check(made, calls, since)


def test_a_redis_that_stands_still_under_a_stop(made: Installation) -> None:
    """5 s without an answer to anybody, orchestrator, forwarders and RQ workers: no job is done twice, no entry is written twice."""
    since = ends(made)
    calls = begin(made, "stop")
    assert made.redis.pid is not None
    os.kill(made.redis.pid, signal.SIGSTOP)
    go_on(calls)
    time.sleep(5.0)  # the stall itself, not a wait for something
    os.kill(made.redis.pid, signal.SIGCONT)
    see_ends(calls)
    check(made, calls, since)


def test_a_redis_that_lost_everything_under_workers_that_live(made: Installation) -> None:
    """A new history begins, and it learns from workers that were there all the time what there is: their nodes, and what is up on them."""
    calls = [Call(node, "start") for node in made.nodes]
    bring(made, calls)
    see_ends(calls)
    settle(made, calls)
    made.site.client.flushall()
    for node in made.nodes:
        wait_until(lambda c=node.cluster: made.site.client.exists(wire.head(c)), "a new history", LIMIT_S)  # type: ignore[misc]
        wait_until(lambda c=node.cluster: made.site.types(c).count("LogTailLost"), "the loss is told", LIMIT_S)  # type: ignore[misc]

    def known(cluster: str) -> bool:
        state: Any = made.site.folded(cluster)
        up = all(one.verified and one.state == "running" for one in state.services.values())
        return up and state.active == "n1" and state.nodes["n1"].present

    for node in made.nodes:
        wait_until(lambda c=node.cluster: known(c), "what there is, is known again", LIMIT_S)  # type: ignore[misc]
        nobody_lost(made.site, node.cluster)
