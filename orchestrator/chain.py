"""The place in a log that a walk has reached, and what makes it stop.

Every byte of a log counts (statemachines/entries.py): a changed, missing or doubled one, entries out of order, two logs put together are
refused with the place and what is wrong with it. What a chain cannot tell by itself is that whole entries at its end are
missing; compare the head that `dcsup replay` prints with the one that `dcsup status` shows.
"""

from __future__ import annotations

from orchestrator.said import Said, say
from statemachines.entries import GENESIS_HASH, GENESIS_ID, ChainBroken, Sealed, id_key


class Damaged(ValueError):
    """An exported file or a stored log is not what was written; `said` tells where and how."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


class Chain:
    """The place in one cluster's log that a walk has reached."""

    def __init__(self, cluster: str | None = None, last_id: str = GENESIS_ID, last_hash: str = GENESIS_HASH) -> None:
        """`last_id`, `last_hash`: of the entry before the first one."""
        self.cluster = cluster
        self.last_id = last_id
        self.last_hash = last_hash
        self.count = 0

    def admit(self, sealed: Sealed) -> Sealed:
        """The next entry, whose hash was checked against `last_hash`.

        Raises:
            Damaged: it is of another cluster, or not later than the entry before it.
        """
        entry = sealed.entry
        if self.cluster is not None and entry.cluster != self.cluster:
            raise Damaged(say("it is of cluster '{other}', the log is of '{cluster}'", other=entry.cluster, cluster=self.cluster))
        if id_key(entry.id) <= id_key(self.last_id):
            raise Damaged(say("its id {id} does not follow {last}", id=entry.id, last=self.last_id))
        self.cluster, self.last_id, self.last_hash = entry.cluster, entry.id, sealed.hash
        self.count += 1
        return sealed


def why(error: ChainBroken) -> Said:
    """The chain's own sentence."""
    return Said(str(error).replace("{", "{{").replace("}", "}}"))
