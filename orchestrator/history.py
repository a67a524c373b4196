"""What a cluster's log says its state is: the fold, with a snapshot as a short cut.

A snapshot is a cache and nothing more. It is used only if this very code wrote it (`CODE`: rules change, and a state that older code
folded may not be what this code would have folded) and if the log holds, at its place, the entry that it ends with. From there on each
entry's hash is checked against the one before it, up to the head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import structlog

import statemachines
from orchestrator.ports import Core, Head, LogDamaged, Projection, ProjectionFactory, Store, StoredEntry, StoreRefused
from statemachines.entries import GENESIS_HASH, GENESIS_ID, ChainBroken, Sealed, unseal
from statemachines.states import ClusterState

log = structlog.get_logger()

PAGE = 1000


def _code() -> str:
    """Version of dcsup, and a digest of what folds: the core's source and the orchestrator's."""
    digest = hashlib.sha256()
    for package in (Path(statemachines.__file__).parent, Path(__file__).parent):
        for source in sorted(package.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    try:
        release = version("dcsup")
    except PackageNotFoundError:
        release = "source"
    return f"{release}-{digest.hexdigest()[:16]}"


CODE = _code()


@dataclass(slots=True)
class History:
    """A cluster's state at its head."""

    head: Head | None
    state: ClusterState
    projection: Projection | None
    folded: int
    """Entries that had to be folded, beyond the snapshot."""


def load(
    store: Store,
    cluster: str,
    core: Core,
    make_projection: ProjectionFactory | None = None,
    between: Callable[[], None] = lambda: None,
) -> History:
    """Fold the cluster's log up to its head. `between` is called now and then: a long log takes seconds, and a lease does not wait.

    Raises:
        LogDamaged: the log does not lead to the head.
        StoreRefused, StoreUnavailable: see `orchestrator.ports`.
    """
    head = store.read_head(cluster)
    saved = _from_snapshot(store, cluster, make_projection)
    if isinstance(saved, str):
        log.info("snapshot not used, folding the whole log", cluster=cluster, reason=saved)
    if isinstance(saved, History):
        history = saved
    else:
        history = History(None, core.new_state(cluster), make_projection(cluster) if make_projection else None, 0)
    history.head = head
    last_id, last_hash = (head.last_id, head.last_hash) if head is not None else (GENESIS_ID, GENESIS_HASH)
    place = _Place(history.state.last_id, history.state.last_hash)
    while place.id != last_id:
        page = store.read_log(cluster, place.id, PAGE)
        if not page:
            raise LogDamaged(f"the log ends at {place.id}, before its head {last_id}")
        for stored in page:
            sealed = place.follow(stored)
            core.fold(history.state, sealed)
            if history.projection is not None:
                history.projection.apply(sealed)
            history.folded += 1
            if place.id == last_id:
                break
        between()
    if place.hash != last_hash:
        raise LogDamaged(f"the entry {last_id} is not the one that the head was written with")
    if store.read_log(cluster, last_id, 1) and store.read_head(cluster) == head:
        raise LogDamaged(f"the log goes on behind its head {last_id}: somebody else wrote into it")
    return history


@dataclass(slots=True)
class _Place:
    """A place in the chain."""

    id: str
    hash: str

    def follow(self, stored: StoredEntry) -> Sealed:
        try:
            sealed = unseal(stored.body, stored.hash, self.hash)
        except ChainBroken as error:
            raise LogDamaged(f"entry {stored.id}: {error}") from error
        if sealed.entry.id != stored.id:
            raise LogDamaged(f"entry {stored.id} says that it is {sealed.entry.id}")
        self.id, self.hash = stored.id, stored.hash
        return sealed


class Snapshots(Protocol):
    """What of a store a snapshot needs."""

    def get_snapshot(self, cluster: str) -> bytes | None: ...

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None: ...


def snapshot(store: Snapshots, cluster: str) -> ClusterState | None:
    """The state that the snapshot holds, if this code wrote it and the log has its entry; None: fold the log from its beginning."""
    found = _from_snapshot(store, cluster, None)
    return found.state if isinstance(found, History) else None


def _from_snapshot(store: Snapshots, cluster: str, make_projection: ProjectionFactory | None) -> History | str | None:
    """The snapshot's state, or why it is not used; None: there is none."""
    try:
        text = store.get_snapshot(cluster)
    except StoreRefused as error:
        return str(error)
    if text is None:
        return None
    try:
        saved = json.loads(text)
        reason = _why_not(store, cluster, saved)
        if reason:
            return reason
        return History(None, ClusterState.model_validate(saved["state"]), _restored(cluster, make_projection, saved["projection"]), 0)
    except (ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error}"


def _why_not(store: Snapshots, cluster: str, saved: dict[str, Any]) -> str:
    if saved["code"] != CODE:
        return "other code wrote it"
    entry = store.read_entry(cluster, saved["last_id"])
    if entry is None or entry.hash != saved["last_hash"]:
        return "the log has another history"
    if (saved["state"]["last_id"], saved["state"]["last_hash"]) != (saved["last_id"], saved["last_hash"]):
        return "it contradicts itself"
    return ""


def _restored(cluster: str, make_projection: ProjectionFactory | None, blob: Any) -> Projection | None:
    if make_projection is None:
        return None
    projection = make_projection(cluster)
    projection.load(blob)
    return projection


def save(store: Store, epoch: int, state: ClusterState, projection: Projection | None) -> None:
    """Write the snapshot of a state that the log holds, if `epoch` still leads.

    Raises:
        StoreRefused, StoreUnavailable: see `orchestrator.ports`. Nothing is lost by it: the next one folds more.
    """
    saved = {
        "code": CODE,
        "last_id": state.last_id,
        "last_hash": state.last_hash,
        "projection": projection.dump() if projection is not None else None,
        "state": state.model_dump(mode="json"),
    }
    store.put_snapshot(state.cluster, epoch, json.dumps(saved, separators=(",", ":"), ensure_ascii=False).encode())
