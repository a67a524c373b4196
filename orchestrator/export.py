"""Out of Redis: a cluster's whole log, checked while it is walked, as lines of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.chain import Chain, Damaged, why
from orchestrator.ports import StoredEntry
from orchestrator.said import say
from statemachines import wire
from statemachines.entries import GENESIS_ID, ChainBroken, Sealed, to_line, unseal

if TYPE_CHECKING:
    from redis import Redis

_PAGE = 1000
_BODY, _HASH = wire.ENTRY_FIELD.encode(), wire.HASH_FIELD.encode()


def stored(client: Redis, cluster: str, after: str = GENESIS_ID) -> Iterator[StoredEntry]:
    """The log as it stands in Redis, page by page, from behind `after` on; ends with the last entry that is there now.

    Raises:
        redis.RedisError: the server does not answer.
    """
    while page := _page(client, cluster, after):
        yield from page
        after = page[-1].id


def entry_at(client: Redis, cluster: str, entry_id: str) -> StoredEntry | None:
    """One entry by its id."""
    return next(iter(_range(client, cluster, entry_id, entry_id, 1)), None)


def _page(client: Redis, cluster: str, after: str) -> list[StoredEntry]:
    return _range(client, cluster, f"({after}", "+", _PAGE)


def _range(client: Redis, cluster: str, begin: str, end: str, count: int) -> list[StoredEntry]:
    rows: Any = client.xrange(wire.log(cluster), begin, end, count=count)
    return [StoredEntry(row.decode(), fields.get(_BODY, b""), fields.get(_HASH, b"").decode(errors="replace")) for row, fields in rows]


def checked(entries: Iterable[StoredEntry], cluster: str, after: Chain | None = None) -> Iterator[Sealed]:
    """A log from its beginning, or from a place in its chain, each entry after its own place was checked.

    Raises:
        Damaged: an entry is not what was written, or one is missing before it.
    """
    chain = after if after is not None else Chain(cluster)
    for stored_entry in entries:
        try:
            sealed = chain.admit(unseal(stored_entry.body, stored_entry.hash, chain.last_hash))
        except ChainBroken as error:
            raise Damaged(say("entry {id}: {why}", id=stored_entry.id, why=why(error))) from error
        except Damaged as error:
            raise Damaged(say("entry {id}: {why}", id=stored_entry.id, why=error.said)) from error
        if sealed.entry.id != stored_entry.id:
            raise Damaged(say("entry {id}: its own words call it {other}", id=stored_entry.id, other=sealed.entry.id))
        yield sealed


def exported(entries: Iterable[Sealed]) -> Iterator[bytes]:
    """The lines of a file, each with its line end."""
    for sealed in entries:
        yield to_line(sealed) + b"\n"
