"""Jobs are signed, so that writing to a queue is not enough to make a node act.

An orchestrator holds its cluster's key. A node holds only the key that is derived from it for that node: it can check what is meant for it,
and sign its own watch jobs, but whoever steals it can forge nothing for its sister. The signature covers the whole job and where it belongs
(cluster, node, job id), so that a job cannot be moved to another node or given another id. It does not make a job new: the same job sent
again has the same good signature, and is harmless because its ticket, the journal and its not-after time say so (NODE.md N2, N5).

A key is a line of text. A holder may have several: the first one signs, and each of them may have signed what comes. That is how keys are
changed without a moment in which nothing fits: the nodes learn the new one, then the orchestrators, then the old one is forgotten.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

SIGNATURE = "signature"
"""The field of a job's payload that holds the signature, 64 hexadecimal digits."""

EMBEDDED_FILE = "job.key"
"""In the data folder of an embedded Redis: the cluster key of everybody who uses that."""

KEY_LENGTH_MIN = 32
"""Characters. What `dcsup render redis` makes has 64 hexadecimal ones, 256 bits."""


class BadKey(ValueError):
    """A text that holds no usable key. The words never quote it."""


def keys_in(text: str) -> tuple[str, ...]:
    """The keys in a key file's text, one a line, the one that signs first.

    Raises:
        BadKey: there is none, or one is shorter than `KEY_LENGTH_MIN`.
    """
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise BadKey("there is no key in it")
    if any(len(key) < KEY_LENGTH_MIN for key in keys):
        raise BadKey("a key has at least 32 characters")
    return keys


@lru_cache(maxsize=4096)
def node_key(cluster_key: str, cluster: str, node: str) -> str:
    """The one node's key, 64 hexadecimal digits; the cluster's cannot be told from it, nor another node's."""
    return _digest(cluster_key, f"dcsup:{cluster}:{node}")


def node_keys(cluster_keys: Sequence[str], cluster: str, node: str) -> tuple[str, ...]:
    """`node_key` of each, in order."""
    return tuple(node_key(key, cluster, node) for key in cluster_keys)


def signed(payload: Mapping[str, Any], key: str, cluster: str, node: str, job_id: str) -> dict[str, Any]:
    """The payload with its signature by a node's key."""
    return {**payload, SIGNATURE: _digest(key, _canonical(payload, cluster, node, job_id))}


def is_signed(payload: Mapping[str, Any], keys: Sequence[str], cluster: str, node: str, job_id: str) -> bool:
    """Whether one of the node's keys has signed exactly this job, for this node, under this id. Whatever the payload: never raises."""
    signature = payload.get(SIGNATURE)
    if not isinstance(signature, str) or not signature.isascii():
        return False
    try:
        text = _canonical(payload, cluster, node, job_id)
    except (TypeError, ValueError, RecursionError):
        return False
    fitting = [hmac.compare_digest(_digest(key, text), signature) for key in keys]  # all of them: how long it takes tells nothing
    return any(fitting)


def unsigned(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without its signature: what the models of statemachines/commands.py describe."""
    return {name: value for name, value in payload.items() if name != SIGNATURE}


def _canonical(payload: Mapping[str, Any], cluster: str, node: str, job_id: str) -> str:
    """One text for one job, however its fields are ordered and its characters are escaped."""
    return json.dumps(["dcsup-job-1", cluster, node, job_id, unsigned(payload)], sort_keys=True, separators=(",", ":"))


def _digest(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()
