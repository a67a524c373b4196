"""The log's entries: accepted facts and the decisions they led to, in one chain.

An entry is stored as the exact bytes that were hashed: one JSON object, keys in the order below, no white space. Its hash is
SHA-256 over the previous entry's hash (64 hex digits) followed by those bytes. An exported line is the same object with `hash` put
in as its last key, so that a file can be checked byte for byte without knowing what the bytes mean.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from statemachines import wire

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_TAIL = len(',"hash":"') + 64 + len('"}')


@dataclass(slots=True)
class Entry:
    """One entry. `cause` is the id of the fact that a decision answers (None: this is a fact); `rule` the table row."""

    id: str
    time: str
    type: str
    version: int
    cluster: str
    node: str | None
    service: str | None
    source: str
    source_id: str | None
    cause: str | None
    rule: str | None
    transitions: list[dict[str, str]]
    data: dict[str, Any]
    evidence: dict[str, Any] | None = field(default=None)
    """Of facts: where and when the node saw it: inbox id, at_ms, at_error_ms, clock, boot, mono, wall."""

    @property
    def ms(self) -> int:
        """Arrival on Redis's time line, ms since the epoch."""
        return int(self.id.partition("-")[0])

    @property
    def is_fact(self) -> bool:
        return self.cause is None and self.source != "dcsup"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry with the bytes that stand for it and their place in the chain."""

    entry: Entry
    body: bytes
    hash: str


class ChainBroken(ValueError):
    """The bytes do not carry the hash that the chain demands, or are no entry at all."""


@lru_cache(maxsize=1024)
def id_key(entry_id: str) -> tuple[int, int]:
    """Order of stream ids: `1700000000000-3` -> (1700000000000, 3). Remembered, because the same few ids are compared all the time."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)


def next_id(last_id: str, wanted: str | None = None) -> str:
    """The greater of `wanted` (a fact's inbox id) and the last id plus one.

    A sequence that is used up is followed by the next millisecond: whoever fills an inbox may choose its ids, and the log goes on.
    """
    ms, seq = id_key(last_id)
    if wanted is not None and id_key(wanted) > (ms, seq):
        return wanted
    return f"{ms}-{seq + 1}" if seq < SEQUENCE_MAX else f"{ms + 1}-0"


def time_of(entry_id: str) -> str:
    """ISO 8601, UTC, with milliseconds."""
    moment = datetime.fromtimestamp(id_key(entry_id)[0] / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hash_of(previous_hash: str, body: bytes) -> str:
    return hashlib.sha256(previous_hash.encode() + body).hexdigest()


def encode(entry: Entry) -> bytes:
    fields: dict[str, Any] = {
        "id": entry.id, "time": entry.time, "type": entry.type, "version": entry.version, "cluster": entry.cluster,
        "node": entry.node, "service": entry.service, "source": entry.source, "source_id": entry.source_id,
        "cause": entry.cause, "rule": entry.rule, "transitions": entry.transitions, "data": entry.data,
    }  # fmt: skip
    if entry.evidence is not None:
        fields["evidence"] = entry.evidence
    return _ENCODER.encode(fields).encode()


def seal(entry: Entry, previous_hash: str) -> Sealed:
    body = encode(entry)
    return Sealed(entry, body, hash_of(previous_hash, body))


def decode(body: bytes) -> Entry:
    """The entry that stored bytes stand for.

    Raises:
        ChainBroken: the bytes are not an entry.
    """
    try:
        fields = json.loads(body)
        entry = Entry(**fields)
        id_key(entry.id)
    except (ValueError, TypeError) as error:
        raise ChainBroken(f"not a log entry: {error}") from error
    return entry


def unseal(body: bytes, stored_hash: str, previous_hash: str) -> Sealed:
    """The entry, after its place in the chain was checked.

    Raises:
        ChainBroken: the hash does not follow from the previous one and the bytes.
    """
    if hash_of(previous_hash, body) != stored_hash:
        raise ChainBroken("the hash does not match: this entry or one before it was changed, or entries are missing")
    return Sealed(decode(body), body, stored_hash)


def to_line(sealed: Sealed) -> bytes:
    """The exported form, without the line end."""
    return sealed.body[:-1] + b',"hash":"' + sealed.hash.encode() + b'"}'


def from_line(line: bytes, previous_hash: str) -> Sealed:
    """An exported line (line end allowed), checked against the hash of the line before.

    Raises:
        ChainBroken: see `unseal`.
    """
    line = line.rstrip(b"\r\n")
    tail = line[-_TAIL:]
    if not (tail.startswith(b',"hash":"') and tail.endswith(b'"}')):
        raise ChainBroken("the line does not end with its hash: it was cut off or is not an exported event")
    return unseal(line[:-_TAIL] + b"}", tail[9:73].decode("ascii", "replace"), previous_hash)


GENESIS_ID = "0-0"
GENESIS_HASH = wire.GENESIS_HASH
SEQUENCE_MAX = 2**64 - 1
"""The largest second part of a stream id."""
