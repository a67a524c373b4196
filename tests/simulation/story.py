"""What a seed's life was like, on one screen: who is in it, what struck, what dcsup decided, what was violated, and how to see it again."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from statemachines import wire
from statemachines.entries import Entry, decode
from tests.simulation.engine import START_S
from tests.simulation.world import World

SCREEN = 56
AFTER = 12
"""Lines."""


def tell(world: World, *, whole: bool = False) -> Iterator[str]:
    """The story's lines; not `whole`: what led to the first violation, as far as a screen holds it."""
    yield f"seed {world.seed}: {world.plan}"
    lines = sorted([*_notes(world), *_decisions(world)], key=itemgetter(0))
    if not whole and world.checks.violations:
        until = next((n for n, (_, text) in enumerate(lines) if text.startswith("VIOLATED")), len(lines))
        lines = lines[max(0, until + AFTER - SCREEN) : until + AFTER]
    for at_s, text in lines:
        yield f"{at_s:8.2f}  {text}"[:200]
    for violation in world.checks.violations:
        yield f"VIOLATED  {violation}"
    yield f"again: make sim SEED={world.seed}   (python -m tests.simulation --seed {world.seed} --trace)"


def _notes(world: World) -> list[tuple[float, str]]:
    return [(note.at_s, note.text) for note in world.notes]


def _decisions(world: World) -> Iterator[tuple[float, str]]:
    for _, fields in world.net.server.streams[wire.log(world.cluster_name)]:
        entry = decode(fields[wire.ENTRY_FIELD])
        at_s = entry.ms / 1000 - START_S
        yield at_s, f"    log  {_words(entry)}"


def _words(entry: Entry) -> str:
    moves = ", ".join(f"{move['machine']} {move['from']}->{move['to']}" for move in entry.transitions)
    what = " ".join(f"{name}={value}" for name, value in entry.data.items() if value not in (None, "", [], {}) and _is_short(value))
    about = "/".join(filter(None, (entry.node, entry.service)))
    return f"{'' if entry.is_fact else '  '}{entry.type} {entry.rule or ''} {about} {moves} {what}"


def _is_short(value: object) -> bool:
    return isinstance(value, (str, int, float, bool)) and len(str(value)) < 60
