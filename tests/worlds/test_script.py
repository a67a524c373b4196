"""The model of the scripts does what the scripts do: both are run from the same folder, and leave the same names and the same verbs.

What the worlds' search says of a script is worth as much as script.py is like the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from tests.protocol.bench import Node, end_leftovers
from tests.worlds.installing import NODE, Installed, installed
from tests.worlds.protocol import Search
from tests.worlds.script import COMMANDS, KINDS, TICKETS
from tests.worlds.world import World
from workers import files

DEAD = 3_999_999
"""A process id that nobody has."""

REAL_OLD = "boot1-group-a-1-start"
STOP, START = 1, 2
OTHERS = ("hook", "CLUSTERPRO")
"""Whose moves are not the script's."""


class Case(NamedTuple):
    """A folder, a call, and what its hook leaves."""

    call: int
    older: Mapping[str, str] = MappingProxyType({})
    """Files of an older start's ticket, by their names behind the ticket's (`T.`, `J.`)."""
    hook: tuple[tuple[str, str], ...] = ()
    """What happens to the call's own ticket until its hook ends: (state, journal entry), each may be empty."""
    code: int = 75
    up: tuple[str, ...] = ()
    """Services that run when the hook ends."""


BEGUN = f"pid={DEAD}\nborn=b1\nservice=agent\nverb=start\n"
CASES = {
    "nothing there": Case(START),
    "nothing there, stop": Case(STOP),
    "an open ticket": Case(START, {"T.open": "", "T.alive": "1\n"}),
    "an idle ticket, stop": Case(STOP, {"T.worker": "", "J.1.ok": ""}),
    "a busy ticket whose process is gone": Case(START, {f"T.busy-1-{DEAD}-b1": "", "J.1.start": BEGUN}),
    "the same with its end on record, stop": Case(STOP, {f"T.busy-1-{DEAD}-b1": "", "J.1.start": BEGUN, "J.1.ok": ""}),
    "a marked ticket whose process is gone": Case(START, {"T.script-1": "", "J.1.start": BEGUN}),
    "a ticket that is over": Case(START, {"T.done": "", "J.1.ok": ""}),
    "the hook says 0": Case(START, hook=(("worker", "1.ok"), ("", "2.ok")), code=0, up=("agent", "server")),
    "the hook says 40": Case(START, hook=(("worker", "1.fail"),), code=40),
    "the hook says 0, stop": Case(STOP, hook=(("worker", "1.ok"),), code=0),
    "the worker did half of it": Case(START, hook=(("worker", "1.ok"),), up=("agent",)),
    "the worker failed": Case(START, hook=(("worker", "1.fail"),)),
    "the worker failed, stop": Case(STOP, hook=(("worker", "1.fail"),)),
    "the launcher died": Case(START, hook=((f"busy-1-{DEAD}-b1", "1.start"),)),
    "the launcher died with its end on record": Case(START, hook=((f"busy-1-{DEAD}-b1", "1.ok"),), up=("agent",)),
    "a later script took it": Case(START, hook=(("void", ""),)),
    "it runs already": Case(START, up=("agent", "server")),
}

HOOK = """\
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in --folder) folder=$2 ;; --ticket) ticket=$2 ;; esac
    shift
done
cd "$folder" || exit 75
{acts}
exit {code}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    end_leftovers(made)


class Left(NamedTuple):
    """What a call left behind."""

    names: set[str]
    verbs: list[str]


def by_the_scripts(node: Node, case: Case) -> Left:
    """Run the real script."""
    for folder in ("tickets", "journal", "outbox"):
        (node.folder / folder).mkdir(parents=True)
    for name, text in case.older.items():
        _place(node.folder, REAL_OLD, name).write_text(text or files.to_text({"commands": 1, "1.service": "agent", "1.verb": "start"}))
    acts = [f"mv tickets/$ticket.* tickets/$ticket.{state}" for state, _ in case.hook if state]
    acts = ["rm -f tickets/$ticket.alive", *acts, *(f"echo by=worker >journal/$ticket.{entry}" for _, entry in case.hook if entry)]
    acts += [f": >'{node.home / service}.up'" for service in case.up]
    node.configure(
        DCSUP=node.script("hook", HOOK.format(acts="\n".join(acts), code=case.code)), DCSUP_START_DEADLINE=1,
        DCSUP_SERVICES="agent server" if case.call == START else "server",
    )  # fmt: skip
    node.call(f"{KINDS[case.call]}.sh", "FAILOVER")
    found = {f"{path.parent.name[0].upper()}.{path.name}" for folder in ("tickets", "journal") for path in (node.folder / folder).iterdir()}
    own = next((name.split(".")[1] for name in found if name.startswith("T.") and REAL_OLD not in name), "no ticket of its own")
    return Left({name.replace(REAL_OLD, "old").replace(own, "own") for name in found}, node.verbs())


def _place(folder: Path, ticket: str, name: str) -> Path:
    kind, _, rest = name.partition(".")
    return folder / {"T": "tickets", "J": "journal"}[kind] / f"{ticket}.{rest}"


def by_the_model(world: Installed, case: Case) -> Left:
    """Let the model's script, and what it starts, do one step after the other."""
    search = Search(world)
    for name, text in case.older.items():
        _place(NODE, TICKETS[0], name).write_text(text)
    state, verbs = search.begin(case.call), list[str]()
    while state.scripts[case.call] == "on":
        if state.hooks[case.call] == "new":
            state = _end_hook(search, state, case)
        after = next(move.world for move in search.moves(state) if move.own and not move.said.startswith(OTHERS) and move.world != state)
        begun = [verb for verb in after.verbs if verb.status == "runs" and verb not in state.verbs]
        verbs += [" ".join(COMMANDS[verb.call][verb.n - 1][1:]) for verb in begun]
        state = after
    names = (name.replace("tickets/", "T.").replace("journal/", "J.") for name in search.names(state.image))
    return Left({name.replace(TICKETS[0], "old").replace(TICKETS[case.call], "own") for name in names}, verbs)


def _end_hook(search: Search, state: World, case: Case) -> World:
    """What the case's hook does."""
    own = TICKETS[case.call]

    def act() -> None:
        (NODE / "tickets" / f"{own}.alive").unlink()
        for status, entry in case.hook:
            if status:
                path = next(path for path in (NODE / "tickets").iterdir() if path.name.startswith(own))
                path.rename(path.with_name(f"{own}.{status}"))
            if entry:
                (NODE / "journal" / f"{own}.{entry}").write_text("by=worker\n")

    hooks = tuple(str(case.code) if call == case.call else "-" for call in range(3))
    return search.altered(state, act)._replace(hooks=hooks, agent="agent" in case.up, server="server" in case.up)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_model_leaves_what_the_scripts_leave(node: Node, case: Case) -> None:
    """N1, N2, N5, N6, N8: tickets and journals have the same names in the end, and the same verbs ran in the same order."""
    real = by_the_scripts(node, case)
    with installed() as world:
        assert by_the_model(world, case) == real
