"""Out of a file: the entries of an export, each line checked before its entry is handed on.

A file is one JSON object a line and one cluster's log from its beginning. A mistake is told with its line: "line 17: ...".
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.chain import Chain, Damaged, why
from orchestrator.said import say
from statemachines.entries import GENESIS_HASH, ChainBroken, Sealed, from_line


def entries(path: str | Path) -> Iterator[Sealed]:
    """The entries of a file; `-` is the standard input.

    Raises:
        OSError: the file cannot be opened.
        Damaged: see `read`.
    """
    if str(path) == "-":
        yield from read(sys.stdin.buffer)
        return
    with Path(path).open("rb") as file:
        yield from read(file)


def read(lines: Iterable[bytes]) -> Iterator[Sealed]:
    """The entries of an exported file, given as its lines (an open binary file is that), each checked.

    Raises:
        Damaged: "line 17: ..."; or the file is empty.
    """
    chain = Chain()
    for number, line in enumerate(lines, 1):
        try:
            yield chain.admit(_sealed(line, chain))
        except ChainBroken as error:
            raise Damaged(say("line {number}: {why}", number=number, why=why(error))) from error
        except Damaged as error:
            raise Damaged(say("line {number}: {why}", number=number, why=error.said)) from error
    if chain.count == 0:
        raise Damaged(say("the file is empty: it holds no entry"))


def _sealed(line: bytes, chain: Chain) -> Sealed:
    if not line.endswith(b"\n"):
        raise Damaged(say("the line is cut off: the file ends in the middle of it"))
    if not line.strip():
        raise Damaged(say("the line is empty"))
    try:
        return from_line(line, chain.last_hash)
    except ChainBroken:
        if chain.count and _begins_a_log(line):
            raise Damaged(say("another log begins here: a file holds one export of one cluster")) from None
        raise


def _begins_a_log(line: bytes) -> bool:
    try:
        from_line(line, GENESIS_HASH)
    except ChainBroken:
        return False
    return True
