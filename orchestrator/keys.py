"""The clusters' keys, with which an orchestrator signs the jobs that it gives to nodes (statemachines/signing.py).

They come from [keys.<cluster>]; an embedded Redis, which serves one machine and one user, makes one for all of its clusters in its data
folder. A cluster without a key has jobs that anybody could forge who may write to its queues: that is said at every start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.ports import Commit
from orchestrator.said import Said, say
from orchestrator.secretfiles import SecretError, read_secret
from statemachines import signing
from statemachines.cluster import JobOrder
from statemachines.configuration import Configuration, SecretSettings

KEY_BYTES = 32


def cluster_keys(configuration: Configuration) -> dict[str, str]:
    """Cluster -> the key that signs; clusters without one are missing.

    Raises:
        SecretError: one is not where the configuration says, or is none.
    """
    found = {cluster: _first(source, f"keys.{cluster}") for cluster, source in configuration.keys.items()}
    if configuration.redis.embedded is not None and configuration.clusters.keys() - found.keys():
        own = _first(SecretSettings(file=str(make_key(Path(configuration.redis.embedded)))), "redis.embedded")
        found = dict.fromkeys(configuration.clusters, own) | found
    return found


def job_payload(commit: Commit, order: JobOrder, keys: Mapping[str, str]) -> dict[str, Any]:
    """What a job of this commit carries: the order, the log's head, and the signature where the cluster has a key."""
    payload = {**order.payload, "head": commit.new.seen()}
    key = keys.get(commit.cluster)
    if key is None:
        return payload
    return signing.signed(payload, signing.node_key(key, commit.cluster, order.node), commit.cluster, order.node, order.job_id)


def new_key() -> str:
    """A cluster's key: 64 hexadecimal digits of chance."""
    return secrets.token_hex(KEY_BYTES)


def make_key(folder: Path) -> Path:
    """The key file of an embedded Redis's data folder, made if it is not there. Of several who make it at once, one has made it.

    Raises:
        SecretError: it cannot be made.
    """
    path = folder / signing.EMBEDDED_FILE
    if path.exists():
        return path
    aside = folder / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_whole(aside, new_key() + "\n")
        _take_name(aside, path)
        aside.unlink()
    except OSError as error:
        said = say("the key file {file} cannot be made ({reason})", file=path, reason=error.strerror or type(error).__name__)
        raise SecretError(said) from error
    return path


def _write_whole(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _take_name(aside: Path, path: Path) -> None:
    """Give the whole file its name, unless there is one: a key that somebody uses already must not be replaced."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return


def _first(source: SecretSettings, where: str) -> str:
    text = read_secret(source.file, source.env, where)
    try:
        return signing.keys_in(text)[0]
    except signing.BadKey as error:
        place = source.file or f"${source.env}"
        said = say("{where}: {place}: {why}; take it from what `dcsup render redis` wrote", where=where, place=place, why=Said(str(error)))
        raise SecretError(said) from None
