"""The keys by which this node tells its jobs from forged ones (statemachines/signing.py).

Where they come from, the first that there is: the node's own key ([node.key]), the cluster's key in the same file ([keys.<cluster>]), the
key that an embedded Redis keeps in its data folder. The latter two are cluster keys, from which the node's is derived here.

Without any, jobs are believed as they come; that is said at every start and by `dcsup check`. A file that changed is read again before it
is used next, so that keys are changed without a restart; one that cannot be read any more leaves what was known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from statemachines import signing
from statemachines.configuration import Configuration, NodeSettings, SecretSettings
from workers.secretfiles import read_secret

Stamp = tuple[int, int, int] | None


class Keyring:
    """One node's keys, the one that signs first."""

    def __init__(self, configuration: Configuration, node: NodeSettings) -> None:
        """Nothing is read yet."""
        self._cluster, self._node = node.cluster, node.name
        self._source, self._where, self._derived = _source(configuration, node)
        self._optional = configuration.redis.embedded is not None and self._where == _EMBEDDED
        self._keys: tuple[str, ...] = ()
        self._stamp: Stamp = None
        self._was_read = False

    def load(self) -> None:
        """Read the keys.

        Raises:
            ValueError: they are not where the configuration says, or are none; one sentence for the operator.
        """
        if self._source is None or (self._optional and self._seen() is None):
            return
        self._stamp, self._was_read = self._seen(), True
        text = read_secret(self._source.file, self._source.env, self._where)
        try:
            keys = signing.keys_in(text)
        except signing.BadKey as error:
            place = self._source.file or f"${self._source.env}"
            raise ValueError(f"{self._where}: {place}: {error}; take it from what `dcsup render redis` wrote") from None
        self._keys = signing.node_keys(keys, self._cluster, self._node) if self._derived else keys

    @property
    def is_named(self) -> bool:
        """Whether the configuration says where a key is; an embedded Redis's comes with its first start."""
        return self._source is not None

    @property
    def is_known(self) -> bool:
        """Whether jobs must be signed here: then none that is not runs."""
        self._refresh()
        return bool(self._keys) or (self._source is not None and not self._optional)

    def signed(self, payload: Mapping[str, Any], job_id: str) -> dict[str, Any]:
        """The payload of a job that this node enqueues for itself, signed if there is a key."""
        self._refresh()
        return signing.signed(payload, self._keys[0], self._cluster, self._node, job_id) if self._keys else dict(payload)

    def objection(self, payload: Mapping[str, Any], job_id: str) -> str | None:
        """Why a job must not be believed; None: it is signed as it should be, or this node has no key."""
        if not self.is_known or signing.is_signed(payload, self._keys, self._cluster, self._node, job_id):
            return None
        return "it is not signed with a key of this node" if signing.SIGNATURE in payload else "it is not signed"

    def _refresh(self) -> None:
        if self._was_read and self._seen() == self._stamp:
            return
        try:
            self.load()
        except ValueError:
            return  # what was known stays; how it must be was told at the start, and is by `dcsup check`

    def _seen(self) -> Stamp:
        """What tells one version of the file from another; None: there is no file."""
        if self._source is None or self._source.file is None:
            return None
        try:
            stat = Path(self._source.file).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


_EMBEDDED = "redis.embedded"


def _source(configuration: Configuration, node: NodeSettings) -> tuple[SecretSettings | None, str, bool]:
    """Where the keys are, the setting that says so, and whether they are the cluster's."""
    if node.key is not None:
        return node.key, "node.key", False
    if node.cluster in configuration.keys:
        return configuration.keys[node.cluster], f"keys.{node.cluster}", True
    if configuration.redis.embedded is not None:
        return SecretSettings(file=str(Path(configuration.redis.embedded) / signing.EMBEDDED_FILE)), _EMBEDDED, True
    return None, "", False


Sign = Callable[[Mapping[str, Any], str], dict[str, Any]]
"""(payload, job id) -> the payload, signed."""
