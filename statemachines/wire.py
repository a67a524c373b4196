"""Every key, queue, channel and job id, spelled once.

Both sides of Redis (orchestrator and workers) import their names from here. Cluster and node names are `[a-z0-9-]`, so `_` is
free to join them: `<cluster>_<node>` is a legal RQ queue name and a legal beginning of an RQ job id (`[A-Za-z0-9_-]+`), and no
two pairs can give the same text. Redis ACLs are written against these prefixes (DESIGN.md, "Names").
"""

from __future__ import annotations

import re

LEADER_INBOX = "_leader"
"""Inbox of facts that the leading orchestrator itself observes: deadlines, lost nodes, configuration changes."""

OPERATOR_INBOX = "_operator"
"""Inbox of what a person asks for through the CLI: pause, resume."""

GENESIS_HASH = "0" * 64
"""The hash that the first log entry's chain starts from."""

JOB_FUNCTION = "workers.jobs.perform"
"""The one function that a node's RQ workers accept; anything else named in Redis is refused."""

FACT_FIELD = "f"
"""The field of an inbox entry that holds the fact's envelope (JSON, UTF-8)."""

ENTRY_FIELD = "e"
HASH_FIELD = "h"
"""The fields of a log entry: the exact bytes that were hashed, and the hash."""

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""What a cluster, node, service or group may be called inside dcsup."""


def head(cluster: str) -> str:
    return f"dcsup:{cluster}:head"


def log(cluster: str) -> str:
    return f"dcsup:{cluster}:log"


def inbox(cluster: str, node: str) -> str:
    return f"dcsup:{cluster}:inbox:{node}"


def quarantine(cluster: str) -> str:
    return f"dcsup:{cluster}:quarantine"


def mark(cluster: str, node: str) -> str:
    """JSON `{"streams": {stream: seq}, "head": {...}}`: how far this node's facts are durably in the log."""
    return f"dcsup:{cluster}:mark:{node}"


def alive(cluster: str, node: str) -> str:
    """Liveness of the node's worker: a key with a TTL, its value the cumulative counters."""
    return f"dcsup:{cluster}:alive:{node}"


def watch_alive(cluster: str, node: str) -> str:
    """Liveness of the node's watch job: a key with a TTL, its value the cumulative poll counters."""
    return f"dcsup:{cluster}:watch:{node}"


def owner(cluster: str) -> str:
    """Which orchestrator leads the cluster (its id)."""
    return f"dcsup:{cluster}:owner"


def lease(orchestrator: str) -> str:
    """The orchestrator's lease: a key with a TTL, its value where to reach it (JSON `{"url": ..., "pid": ...}`)."""
    return f"dcsup:lease:{orchestrator}"


def snapshot(cluster: str) -> str:
    return f"dcsup:{cluster}:snapshot"


MAINTENANCE_TTL_MS = 60_000
"""How long the nodes go on believing in maintenance that no leader renews."""


def maintenance(cluster: str) -> str:
    """There while the cluster is in maintenance: JSON `{"reason": "paused"|"suspended", "since_ms", "by"}`. Nodes read it: then no watch
    hook ends because a service is not healthy. A projection of the state, renewed by the leader: with every orchestrator gone nobody could
    end it any more, so it ends by itself after `MAINTENANCE_TTL_MS`, and no failover is prevented for ever."""
    return f"dcsup:{cluster}:maintenance"


def bell(cluster: str) -> str:
    """Pub/sub channel rung beside each XADD to one of the cluster's inboxes; the message is the inbox's node."""
    return f"dcsup:{cluster}:bell"


def prefix(cluster: str, node: str) -> str:
    return f"{cluster}_{node}"


def command_queue(cluster: str, node: str) -> str:
    return f"{prefix(cluster, node)}-cmd"


def watch_queue(cluster: str, node: str) -> str:
    return f"{prefix(cluster, node)}-watch"


def job_id(cluster: str, node: str, previous_hash: str, index: int) -> str:
    """Id of the index-th job of a commit.

    The hash of the entry before the commit makes it unique for ever and the same when the same commit is prepared again.
    """
    return f"{prefix(cluster, node)}-{previous_hash[:16]}-{index}"
