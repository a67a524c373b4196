"""Names that dcsup allows, made of names that CLUSTERPRO allows."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LENGTH_MAX = 32
_ROOM = 4
"""Left for what makes a name its own."""


def legal_name(name: str, otherwise: str) -> str:
    """`name` in lower case, with what dcsup does not allow as a `-`; `otherwise` if nothing is left of it."""
    kept = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return kept[:_LENGTH_MAX].strip("-") or otherwise


def node_names(hosts: Sequence[str]) -> dict[str, str]:
    """Host name -> node name; no two the same, none a prefix of another (statemachines/wire.py says why)."""
    wanted = [legal_name(host, f"node{n}") for n, host in enumerate(hosts, 1)]
    names: list[str] = []
    for n, name in enumerate(wanted):
        others = [*names, *wanted[n + 1 :]]
        names.append(name if not _clashes(name, others) else _own(name, others))
    return dict(zip(hosts, names, strict=True))


def _own(name: str, others: Sequence[str]) -> str:
    base = name[: _LENGTH_MAX - _ROOM].strip("-")
    tries = (f"{base}-{letter}" for letter in [*"xyzuvwabcdefghijklmnopqrst", *map(str, range(100))])
    return next((one for one in tries if not _clashes(one, others)), name)


def _clashes(name: str, others: Sequence[str]) -> bool:
    return any(other.startswith(name) for other in others) or any(name == other for other in others)
