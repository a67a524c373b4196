"""Visit every state that a budget of faults leads to, and keep the shortest way to whatever must never be so."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from tests.worlds.protocol import NAMES, Search
from tests.worlds.world import World

STUCK = "V5 a script cannot return without worker or orchestrator"


class Result(NamedTuple):
    states: int
    moves: int
    steps: int
    """Of real code; each was taken once."""
    seconds: float
    broken: dict[str, list[str]]
    """What must never be so -> the shortest way to it."""


def budget_of(*faults: str) -> tuple[int, ...]:
    """Each fault as often as it is named."""
    return tuple(faults.count(name) for name in NAMES)


def explore(search: Search, *faults: str, stop_early: bool = False) -> Result:
    """Breadth first from an empty disk. `stop_early`: the first broken promise ends it."""
    began, steps = time.perf_counter(), search.steps
    first = World(search.nothing, budget=budget_of(*faults))
    numbers, came = {first: 0}, [(-1, "")]
    own_before: list[list[int]] = [[]]
    broken: dict[str, list[str]] = {}
    waiting, moves = deque([first]), 0
    while waiting and not (stop_early and broken):
        world = waiting.popleft()
        here = numbers[world]
        for move in search.moves(world):
            moves += 1
            there = numbers.get(move.world)
            if there is None:
                there = numbers[move.world] = len(came)
                came.append((here, move.said))
                own_before.append([])
                if not move.broken:  # what follows from it is no news
                    waiting.append(move.world)
            for promise in move.broken:
                broken.setdefault(promise, [*_way(came, here), move.said])
            if move.own and there != here:
                own_before[there].append(here)
    if not broken:
        stuck = _stuck(numbers, own_before)
        if stuck is not None:
            broken[STUCK] = _way(came, stuck)
    return Result(len(came), moves, search.steps - steps, time.perf_counter() - began, broken)


def _way(came: list[tuple[int, str]], here: int) -> list[str]:
    way = []
    while here > 0:
        here, said = came[here]
        way.append(said)
    return way[::-1]


def _stuck(numbers: dict[World, int], own_before: list[list[int]]) -> int | None:
    """A state from which script, hook and the commands under way alone never bring the script to its end."""
    ends = [number for world, number in numbers.items() if "on" not in world.scripts]
    reached = bytearray(len(own_before))
    for number in ends:
        reached[number] = 1
    while ends:
        for before in own_before[ends.pop()]:
            if not reached[before]:
                reached[before] = 1
                ends.append(before)
    return next((number for number in range(len(own_before)) if not reached[number]), None)
