"""NODE.md's protocol over the real ticket, journal, launcher, reaper and hook code: every interleaving, within a budget of faults.

CI explores each fault alone over a start and a stop, and the undisturbed start, stop and start. `DCSUP_WORLDS=all pytest -s
tests/worlds/test_protocol.py` explores every pair of faults over a start and a stop, and each fault over all three calls: hours.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from tests.worlds import replay
from tests.worlds.exploring import Result, explore
from tests.worlds.installing import NODE, installed
from tests.worlds.protocol import Search
from tests.worlds.world import FAULTS
from workers import files, journal, launcher, tickets

ALL = os.environ.get("DCSUP_WORLDS") == "all"
STATES_MIN = 90_000
"""Of the worlds with one fault; a smaller world would be one in which something is no longer tried."""


def told(about: str, results: list[Result]) -> int:
    """Print what was explored; fails with the shortest way to whatever must never be so."""
    for result in results:
        for promise, way in result.broken.items():
            pytest.fail("\n    ".join([f"{about}: {promise}", *way]))
    states, moves, steps = (sum(column) for column in zip(*(one[:3] for one in results), strict=True))
    print(f"\n{about}: {states} states, {moves} moves, {steps} different steps of real code, nothing broken")
    return states


def test_with_any_one_fault_every_promise_is_kept(record_property: Any) -> None:
    """N1 to N9, I2, I7: V1 to V8 hold in every state of a start and a stop, undisturbed and with each fault at every place."""
    with installed() as world:
        search = Search(world, calls_max=1)
        states = told("a start and a stop, each fault alone", [explore(search), *(explore(search, fault) for fault in FAULTS)])
    record_property("node protocol, states explored", states)
    assert states > STATES_MIN, "the world is smaller than it was"


def test_undisturbed_every_promise_is_kept_over_three_calls() -> None:
    """The same for a start, a stop and a start again, in which nothing but the order of things goes wrong; and with every look a step."""
    with installed() as world:
        assert told("start, stop, start", [explore(Search(world))]) > 4_000
        assert told("a start and a stop, look by look", [explore(Search(world, calls_max=1, fine=True))]) > 700


@pytest.mark.skipif(not ALL, reason="takes hours: DCSUP_WORLDS=all")
def test_with_any_two_faults_every_promise_is_kept() -> None:
    """Two faults, also twice the same, anywhere in a start and a stop; each fault anywhere in three calls, and with every look a step."""
    for pair in itertools.combinations_with_replacement(FAULTS, 2):
        with installed() as world:
            told(" and ".join(pair), [explore(Search(world, calls_max=1), *pair)])
    for fault in FAULTS:
        with installed() as world:
            told(f"{fault}, three calls", [explore(Search(world), fault)])
        with installed() as world:
            told(f"{fault}, look by look", [explore(Search(world, calls_max=1, fine=True), fault)])


# --- it can fail


def _claims_without_renaming(ticket: tickets.Ticket, state: str) -> tickets.Ticket | None:
    return tickets.parse(ticket.path.with_name(f"{ticket.id}.{state}"))


def _writes_into_the_ticket(_folder: Any, ticket: str, code: int, _reason: str) -> bool:
    found = tickets.find(NODE, ticket)
    if found is None or found.is_over:
        return False
    files.write_aside(found.path, f"code={code}\n")
    return True


_read = journal.read


def _is_launcher() -> bool:
    return replay.now().label[:1] == ("launcher",)


def _read_by_all_but_launchers(folder: Any, ticket: str, n: int) -> journal.Entry | None:
    return None if _is_launcher() else _read(folder, ticket, n)


def _read_only_before_the_claim(folder: Any, ticket: str, n: int) -> journal.Entry | None:
    busy = any(".busy-" in str(path) for path in (NODE / "tickets").iterdir())
    return None if busy and _is_launcher() else _read(folder, ticket, n)


Planted = list[tuple[Any, str, Any]]

LEFT_OUT: list[tuple[str, Planted, tuple[str, ...], str]] = [
    ("N1", [], ("hook",), "V1"),
    ("N2", [(tickets, "_rename", _claims_without_renaming)], (), "V1"),
    ("N3", [], ("crash",), "V1"),
    ("N4", [], ("die",), "V5"),
    ("N5", [(journal, "read", _read_by_all_but_launchers)], ("dup",), "V2"),
    ("N5 behind the claim", [(journal, "read", _read_only_before_the_claim)], ("dup", "crash", "fail"), "V2"),
    ("N6", [], ("kill",), "V3"),
    ("N7", [(tickets, "is_alive", lambda *_: True)], ("kill",), "V3"),
    ("N8", [], ("verdict",), "V7"),
    ("N9", [(tickets, "write_verdict", _writes_into_the_ticket)], ("verdict",), "V8"),
    (
        "I2", [(launcher.Launcher, "_check_agent", lambda _self: None), (launcher.Launcher, "_check_journal", lambda _self, _kind: None)],
        ("forged",), "V4",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "planted", "faults", "promise"), LEFT_OUT, ids=[one[0] for one in LEFT_OUT])
def test_without_any_rule_a_promise_is_broken(rule: str, planted: Planted, faults: tuple[str, ...], promise: str) -> None:
    """Each of N1 to N9 is needed, and the search would notice that it is not kept: with it left out, a way to harm is found."""
    with installed(rule, planted=planted) as world:
        result = explore(Search(world, calls_max=1), *faults, stop_early=True)
    found = {name[:2]: way for name, way in result.broken.items()}
    assert promise in found, f"{result.states} states, and only {sorted(result.broken)}"
    print(f"\nwithout {rule}: {promise} after {result.states} states, {len(found[promise])} moves long")
