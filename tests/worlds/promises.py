"""What must never be so, in any state of the small world (NODE.md; V1 to V7 are those of the protocol's model).

V1  two verbs of one ticket run at once
V2  a verb is run again though its end is known, or whoever ran it first is not gone (I7)
V3  a verb is run for a call whose ground a later one has cleared, or by a worker for a script that had long been gone
V4  the server is started while its agent is down (I2)
V5  a script cannot return without worker or orchestrator (exploring.py)
V6  after a stop has returned, something begun before it brings the service up
V7  a script returns while its own verb still runs
V8  a ticket has two names, or one that is over has another name again (N2, N9)
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.worlds.script import KINDS, TICKETS
from tests.worlds.world import Verb, World

OVER = ("done", "void")


def at_spawn(world: World, verb: Verb, names: frozenset[str]) -> Iterator[str]:
    """Broken by running this verb now."""
    by = {"w": "worker", "s": "script"}[verb.by]
    same = [one for one in world.verbs if one.call == verb.call and one.pid != verb.pid]
    if any(one.status == "runs" for one in same):
        yield f"V1 two verbs of one ticket at once, the second by the {by}"
    if any(f"journal/{TICKETS[verb.call]}.{verb.n}.{end}" in names for end in ("ok", "fail")):
        yield f"V2 a verb whose end is known is run again by the {by}"
    if any(one.n == verb.n for one in same):
        yield f"V2 a verb is run again by the {by} before whoever ran it is gone"
    if any(name.startswith(f"tickets/{TICKETS[later]}.") for later in range(verb.call + 1, world.call + 1) for name in names):
        yield f"V3 a {KINDS[verb.call]} verb is run by the {by} after a later call has cleared the ground"
    if verb.pid in world.too_late:
        yield "V3 a verb is run for a script that had long been gone"
    if KINDS[verb.call] == "start" and verb.n == 2 and not world.agent:
        yield f"V4 the server is started by the {by} while its agent is down"
    if _is_stopped_since(world, verb):
        yield f"V6 a start is run by the {by} after a stop has returned"


def at_end(world: World, verb: Verb) -> Iterator[str]:
    """Broken by this verb's having its effect now."""
    if _is_stopped_since(world, verb):
        yield "V6 a start has its effect after a stop has returned"


def _is_stopped_since(world: World, verb: Verb) -> bool:
    later = range(verb.call + 1, world.call + 1)
    return KINDS[verb.call] == "start" and any(KINDS[call] == "stop" and world.scripts[call] == "returned" for call in later)


def at_return(world: World, call: int) -> Iterator[str]:
    """Broken by this script's having returned."""
    if any(verb.call == call and verb.status == "runs" for verb in world.verbs):
        yield f"V7 a {KINDS[call]} script returns while its own verb still runs"


def on_disk(before: frozenset[str], after: frozenset[str]) -> Iterator[str]:
    """Broken by a change of what is on the disk."""
    if before is after:
        return
    for ticket in TICKETS:
        was, states = _states(before, ticket), _states(after, ticket)
        if len(states) > 1:
            yield f"V8 a ticket has {len(states)} names"
        if was & {*OVER} and not states & {*OVER}:
            yield "V8 a ticket that was over has another name"


def _states(names: frozenset[str], ticket: str) -> set[str]:
    """The words of the ticket's states on the disk."""
    begin = f"tickets/{ticket}."
    words = {name.removeprefix(begin) for name in names if name.startswith(begin)}
    return words - {"alive", "verdict", "pulse"}
