"""What the orchestrator asks a node's workers to do: the payloads of RQ jobs.

A payload names a service and a verb, never a path; the node's own configuration says what that means there. It is checked again
on the node before anything happens: unknown kinds, services and verbs, and jobs without a live ticket of their own, are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from statemachines.configuration import Name, Verb


class Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeenHead(Payload):
    """The log's head as the sender knew it: a node that has seen a later one knows that the log lost its tail."""

    epoch: int
    commit: int
    last_id: str
    last_hash: str


class RunCommand(Payload):
    """Run command n of a ticket (NODE.md N2-N5)."""

    kind: Literal["command"] = "command"
    ticket: str
    n: Annotated[int, Field(ge=1)]
    service: Name
    verb: Verb
    not_after_ms: int
    """Redis TIME in ms after which the job must not begin."""
    head: SeenHead | None = None


class PutVerdict(Payload):
    """Lay the orchestrator's word beside the ticket, where the hook reads it (NODE.md N9)."""

    kind: Literal["verdict"] = "verdict"
    ticket: str
    code: Literal[40, 75]
    reason: str
    head: SeenHead | None = None


class WatchWindow(Payload):
    """Poll all services of the node for one window, then enqueue the next one."""

    kind: Literal["watch"] = "watch"


Job = Annotated[RunCommand | PutVerdict | WatchWindow, Field(discriminator="kind")]
JOB: TypeAdapter[RunCommand | PutVerdict | WatchWindow] = TypeAdapter(Job)
KINDS = frozenset({"command", "verdict", "watch"})
