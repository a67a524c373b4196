"""A person's word to the clusters: a fact in their inbox `_operator`, as a node hands in its own; the orchestrator decides."""

from __future__ import annotations

import getpass
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis


def hand_in(client: Redis, cluster: str, kind: str, data: Mapping[str, Any]) -> str:
    """Put a person's fact into the cluster's inbox and ring its bell; its id in that inbox.

    Each call is a stream of its own with one fact in it: two people asking at the same time need not agree on a number.
    """
    from statemachines import wire
    from statemachines.facts import Envelope

    envelope = Envelope(type=kind, source="operator", stream=secrets.token_hex(6), seq=1, wall=time.time(), data=dict(data))
    pipeline = client.pipeline(transaction=True)
    pipeline.xadd(wire.inbox(cluster, wire.OPERATOR_INBOX), {wire.FACT_FIELD: envelope.model_dump_json()})
    pipeline.publish(wire.bell(cluster), wire.OPERATOR_INBOX)
    inbox_id: bytes = pipeline.execute()[0]
    return inbox_id.decode()


def user() -> str:
    """The name of whoever runs this process, as far as the system tells."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
