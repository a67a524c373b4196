"""The tables as Mermaid state diagrams: `dcsup graph`. One arrow per row and source, labelled with rule, event and guard."""

from __future__ import annotations

from statemachines.machine import Row, Table
from statemachines.tables import TABLES


def _alias(state: str) -> str:
    return state.replace("-", "_")


def _label(row: Row) -> str:
    guard = f" [{row.guard.replace('!', 'not ')}]" if row.guard else ""
    action = f" / {row.action}" if row.action else ""
    return f"{row.rule} {row.event}{guard}{action}"


def mermaid(machine: str) -> str:
    """The diagram of `service`, `node` or `failover`; ignored and rejected events are left out.

    Raises:
        KeyError: no such machine.
    """
    table: Table = TABLES[machine]
    lines = ["stateDiagram-v2", f"    %% {table.name}: drawn from statemachines/tables.py"]
    lines += [f'    state "{state}" as {_alias(state)}' for state in table.states if _alias(state) != state]
    lines.append(f"    [*] --> {_alias(table.initial)}")
    for row in table.rows:
        if row.answer == "accept":
            lines += [f"    {_alias(source)} --> {_alias(row.target or source)}: {_label(row)}" for source in row.source]
    lines += [f"    {_alias(state)} --> [*]" for state in table.final]
    return "\n".join(lines) + "\n"
