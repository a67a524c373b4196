"""What dcsup wants to know of a clp.conf, and nothing else.

Only values that differ from the product's default stand in the file, so each setting keeps apart whether it was given, is the default
(CLUSTERPRO.md says which), or is unknown because nobody is sure of the default. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from orchestrator.clpconf.reading import Finding, Place

T = TypeVar("T")
Origin = Literal["file", "default", "unknown"]

SCRIPT_TIMEOUT_S = 1800
"""Default of a start or stop script (CLUSTERPRO.md, section 1.3)."""
ACTIVATION_EXTRA_S = 180
"""A resource's own (de)activation timeout is its script's plus this."""
NO_ACTION, STOP_AND_SHUT_DOWN = 1, 4
"""Default final actions of activation and deactivation (CLUSTERPRO.md, section 3.1)."""
DISKS = ("sd", "md", "hd", "disk", "volmgr")
SCRIPTS = ("script", "exec")
"""Resources with start and stop scripts: Windows, Linux."""


@dataclass(frozen=True)
class Value(Generic[T]):
    """One setting. `value` is None where `origin` is unknown."""

    value: T | None
    origin: Origin
    place: Place

    @property
    def known(self) -> bool:
        return self.origin != "unknown"


@dataclass(frozen=True)
class Server:
    name: str
    priority: int | None
    """0 is the master."""
    addresses: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Group:
    name: str
    resources: tuple[str, ...]
    """As `type@name`."""
    order: tuple[str, ...]
    """Servers on which it may run, the best first; empty: the file does not say (all of them)."""
    auto_start: Value[bool]
    auto_failover: Value[bool]
    auto_failback: Value[bool]
    place: Place


@dataclass(frozen=True)
class Resource:
    type: str
    name: str
    depends: Value[tuple[str, ...]]
    """Names of resources. Not in the file: the type's default dependencies, which nobody is sure of."""
    start_timeout: Value[float]
    stop_timeout: Value[float]
    act_timeout: Value[float]
    deact_timeout: Value[float]
    act_action: Value[int]
    deact_action: Value[int]
    start_sync: Value[bool]
    stop_sync: Value[bool]
    normal_start: Value[str]
    """Normal return value of the start script; blank: its exit code is not judged (CLUSTERPRO.md, section 1.3)."""
    normal_stop: Value[str]
    resident: Value[bool]
    start_path: Value[str]
    """The program alone: arguments may hold a password."""
    stop_path: Value[str]
    address: Value[str]
    """Of a floating IP."""
    volume: Value[str]
    """Drive or mount point of a disk."""
    place: Place

    @property
    def key(self) -> str:
        return f"{self.type}@{self.name}"


@dataclass(frozen=True)
class Monitor:
    type: str
    name: str
    target: Value[str]
    relation_type: Value[str]
    """rsc, grp or cls: what its recovery acts on."""
    relation_name: Value[str]
    interval: Value[float]
    timeout: Value[float]
    restarts: Value[int]
    failovers: Value[int]
    final_action: Value[int]
    place: Place


@dataclass(frozen=True)
class AlertCommand:
    """The alert extension for one event id (CLUSTERPRO.md, section 5)."""

    module: str
    id: str
    calls_dcsup: bool
    place: Place


@dataclass(frozen=True)
class ClpConf:
    cluster: str
    os: Literal["windows", "linux"] | None
    version: str
    """`savedversion`; empty: the file does not say."""
    encoding: str
    servers: tuple[Server, ...]
    groups: tuple[Group, ...]
    resources: tuple[Resource, ...]
    monitors: tuple[Monitor, ...]
    alerts: tuple[AlertCommand, ...]
    api: Value[bool]
    """Whether the RESTful API is switched on."""
    findings: tuple[Finding, ...]

    def group(self, name: str) -> Group | None:
        return next((group for group in self.groups if group.name == name), None)

    def of_group(self, group: Group, *types: str) -> tuple[Resource, ...]:
        """The group's resources, of these types only if any are named."""
        members = frozenset(group.resources)
        return tuple(one for one in self.resources if one.key in members and (not types or one.type in types))
