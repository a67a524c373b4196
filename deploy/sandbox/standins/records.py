"""What the stand-ins write down about themselves: JSON lines, each appended by one write.

One ``write`` on a file opened with O_APPEND lands whole at the end, whoever else appends at the same moment, so that no lock is
needed and a process killed at any line leaves whole records behind it. Imports little: every command pays for it.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def append(path: str, record: dict[str, Any]) -> None:
    """Add ``record`` as one line of ``path``; the folder must exist."""
    line = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read(path: str) -> list[dict[str, Any]]:
    """All whole records of ``path``, oldest first; none if there is no such file yet."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def parent_chain(pid: int, driver: int) -> list[dict[str, Any]]:
    """The parents of ``pid``, nearest first, up to init: ``pid``, ``name`` and ``cmdline`` of each.

    ``cmdline`` is empty for the process ``driver`` and everything above it: how somebody started the sandbox on his machine is
    none of our business, and may hold what nobody wants to find in a record.
    """
    chain = _chain_from_proc(pid) if sys.platform == "linux" else _chain_from_ps(pid)
    above = False
    for parent in chain:
        above = above or parent["pid"] == driver
        if above:
            parent["cmdline"] = ""
    return chain


def _chain_from_proc(pid: int) -> list[dict[str, Any]]:
    chain = []
    try:
        pid = _parent_from_proc(pid)
        while pid > 0:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").rstrip("\0").split("\0")
            chain.append({"pid": pid, "name": os.path.basename(words[0]), "cmdline": " ".join(words)})
            pid = _parent_from_proc(pid)
    except OSError:  # a parent ended while we looked: what was seen is still true
        pass
    return chain


def _parent_from_proc(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])  # the name before it may hold spaces and brackets


def _chain_from_ps(pid: int) -> list[dict[str, Any]]:
    with os.popen("ps -A -o pid= -o ppid= -o command=") as listing:
        rows = [line.split(None, 2) for line in listing]
    table = {int(row[0]): (int(row[1]), row[2].strip() if len(row) > 2 else "") for row in rows}
    chain = []
    pid = table.get(pid, (0, ""))[0]
    while pid in table:
        parent, command = table[pid]
        chain.append({"pid": pid, "name": os.path.basename(command.split(" ")[0]), "cmdline": command})
        pid = parent
    return chain
