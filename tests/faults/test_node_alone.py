"""The node alone: Redis, orchestrator or worker gone at every point of a start and of a stop, and what the log tells afterwards.

One fault meets several nodes at once, each of whose calls was brought to another point and is held there (tests/faults/node_calls.py).
A round: bring the calls to their points, take the part away, let the calls go on, see them end; give the part back, and read the log.

`DCSUP_ALL_CELLS=1` runs every cell, 3 x 7 of a start and 3 x 6 of a stop; without it the stop's are left to the worker, which is what a
stop is likeliest to be called for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import wait_until
from tests.faults.node_calls import POINTS, VERBS, WHOLE, Call, Script, bring, happened, play, see_ends, settle
from tests.faults.node_site import ACK_S, LIMIT_S, Installation, SiteNode, installation
from tests.protocol.bench import killed_at_end
from workers.hooks.calls import NO_PROGRESS_S

TARGETS = ("redis", "orchestrator", "worker")
ALL_CELLS = bool(os.environ.get("DCSUP_ALL_CELLS"))
ROUNDS: list[tuple[str, Script]] = [(target, "start") for target in TARGETS]
ROUNDS += [(target, "stop") for target in (TARGETS if ALL_CELLS else ("worker",))]


def bound_s(call: Call, undisturbed_s: float) -> float:
    """The issue's bound, and NODE.md's own where a command or poll was under way; and time for a machine that is busier than before."""
    under_way = call.point not in ("before", "ticket")
    return undisturbed_s + ACK_S + (2 * NO_PROGRESS_S if under_way else 0) + max(10.0, 2 * undisturbed_s)


def check_the_story(call: Call, told: list[str]) -> None:
    """What the log tells of the call: everything once, in order; and no command is issued that has ended or is nobody's any more."""
    assert happened(told) == WHOLE, call.point
    for n in (1, 2):
        issued = [at for at, words in enumerate(told) if words == f"issued {n}"]
        assert len(issued) <= 1
        assert all(at < told.index(f"ended {n} ok") for at in issued), call.point


class Rounds:
    """The installation, and how long the calls take when nothing is amiss."""

    def __init__(self, made: Installation) -> None:
        self.installation = made
        scripts: tuple[Script, ...] = ("start", "stop")
        self.undisturbed_s = {script: max(call.took_s for call in play(made, script)) for script in scripts}

    def play(self, target: str, script: Script) -> list[Call]:
        """One round; returns its calls."""
        self.get_ready_for(script)
        calls = [Call(node, script, point) for node, point in zip(self.installation.nodes, POINTS[script], strict=False)]
        bring(self.installation, [call for call in calls if call.point != "before"])
        self.installation.take(target)
        for call in calls:
            if call.point == "before":
                call.begin()
            call.release()
        see_ends(calls)
        self.installation.give_back(target)
        settle(self.installation, calls)
        return calls

    def get_ready_for(self, script: Script) -> None:
        """Bring the services down for a start and up for a stop, where they are not."""
        wanted = 0 if script == "start" else 2
        others = [node for node in self.installation.nodes if len(list(node.home.glob("*.up"))) != wanted]
        if others:
            play(self.installation, "stop" if script == "start" else "start", others)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    with installation(tmp_path_factory.mktemp("alone"), len(POINTS["start"])) as made:
        for node in made.nodes:
            # the gate is the test's, and no hook that hangs; a watch whose worker is gone polls after 8 s by itself
            node.configure(DCSUP_HOOK_SILENCE=60, DCSUP_POLL_LIMIT=2)
        yield Rounds(made)


@pytest.mark.parametrize(("target", "script"), ROUNDS, ids=lambda word: str(word))
def test_with_a_part_gone_at_any_point_the_call_ends_in_time_and_each_verb_ran_once(
    rounds: Rounds, target: str, script: Script, record_property: Callable[[str, object], None]
) -> None:
    """The bound of NODE.md, I7, and the log's story in order; afterwards no command is issued for what has ended, and no job is left."""
    calls = rounds.play(target, script)
    undisturbed_s = rounds.undisturbed_s[script]
    took = {call.point: round(call.took_s, 1) for call in calls}
    record_property(f"{script} without {target}, s (undisturbed {undisturbed_s:.1f})", str(took))
    for call in calls:
        assert call.verbs() == VERBS[script], call.point
        assert call.took_s <= bound_s(call, undisturbed_s), took
        check_the_story(call, rounds.installation.story(call.node, call.ticket))


def test_the_watch_goes_on_by_itself(rounds: Rounds) -> None:
    """G22, I8: with Redis, orchestrator and worker gone a watch lives on while its service does, and ends with its code when it dies."""
    rounds.get_ready_for("stop")
    with_worker, alone = rounds.installation.nodes[:2]
    watches = {node: node.begin("watch.sh", "START", "server") for node in (with_worker, alone)}
    with killed_at_end(*watches.values()):
        for node in watches:
            wait_until(lambda node=node: (node.folder / "watch" / "server.hook").exists(), "the hook", LIMIT_S)  # type: ignore[misc]
        rounds.installation.kill_redis()
        rounds.installation.kill_orchestrator()
        alone.kill_worker()
        asked = len(alone.recorded("status server"))
        with_worker.take("server", "up")
        assert watches[with_worker].wait(LIMIT_S) == 7
        wait_until(lambda: len(alone.recorded("status server")) >= asked + 2, "polls of the hook's own", LIMIT_S)
        assert watches[alone].poll() is None
        alone.take("server", "up")
        assert watches[alone].wait(LIMIT_S) == 7
    rounds.installation.start_redis()
    rounds.installation.start_orchestrator()
    alone.begin_worker()
    for node in watches:

        def told(node: SiteNode = node) -> list[int]:
            return [entry.data["status_code"] for entry in rounds.installation.log(node) if entry.type == "WatchHookEnded"]

        wait_until(lambda: told() == [7], "the watch's end in the log", LIMIT_S)
