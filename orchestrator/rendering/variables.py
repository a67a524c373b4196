"""From settings to the variables of the scripts' settings file.

The names are described at the head of deploy/clusterpro/linux/lib.sh, and are the same for sh and batch. Scripts count whole seconds:
what is fractional in dcsup.toml is rounded up, never down, for a limit that is too short ends something that was still good.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.checking.bound import wait_s
from orchestrator.rendering import Site, Target, Unfit
from orchestrator.said import say
from orchestrator.tomllines import Path
from statemachines.configuration import ClusterSettings, NodeServiceSettings, ServiceSettings

LOG_IDS = {"server": 1, "agent": 2, "command": 3}
"""Ids in the cluster log where the site set none (G19)."""
LONGEST_S = 999_999
"""The longest duration that the scripts' arithmetic takes, with room: eleven days."""

_DURATIONS = (
    ("start", "deadline"), ("start", "command_limit"), ("stop", "deadline"), ("stop", "command_limit"), ("watch", "interval"),
    ("watch", "poll_limit"), ("clusterpro", "site_limit"),
)  # fmt: skip
_VERBS = {
    "start": "start_START", "start_after_failover": "start_FAILOVER", "stop": "stop_START", "stop_after_failover": "stop_FAILOVER",
}  # fmt: skip


class Variable(NamedTuple):
    """One variable: a plain value, or a command's words; `where` is its place in dcsup.toml."""

    name: str
    value: str | tuple[str, ...]
    where: Path


class Rounded(NamedTuple):
    """A duration that the scripts hold as whole seconds though dcsup.toml is finer."""

    where: Path
    seconds: float
    whole_s: int


def in_whole_seconds(site: Site, target: Target) -> tuple[Site, list[Rounded]]:
    """The site with every duration that the scripts use rounded up, and which ones were.

    Raises:
        Unfit: a duration is longer than the scripts can count.
    """
    durations = [*_DURATIONS, *([("ack_timeout",)] if target.platform == "windows" else [])]
    rounded: list[Rounded] = []
    cluster = site.cluster
    for path in durations:
        cluster = _with_whole(cluster, path, ("clusters", site.name), rounded)
    services = []
    for n, service in enumerate(cluster.services):
        where = ("clusters", site.name, "services", n, "wait")
        services.append(service.model_copy(update={"wait": float(_whole(service.wait, where, rounded))}) if service.wait else service)
    return Site(site.name, cluster.model_copy(update={"services": services}), site.node), rounded


def _with_whole(cluster: ClusterSettings, path: tuple[str, ...], above: Path, rounded: list[Rounded]) -> ClusterSettings:
    table = cluster if len(path) == 1 else getattr(cluster, path[0])
    whole = float(_whole(getattr(table, path[-1]), (*above, *path), rounded))
    changed = table.model_copy(update={path[-1]: whole})
    return changed if len(path) == 1 else cluster.model_copy(update={path[0]: changed})


def _whole(seconds: float, where: Path, rounded: list[Rounded]) -> int:
    whole = math.ceil(round(seconds, 6))
    if whole > LONGEST_S:
        raise Unfit([(where, say("found {seconds} s", seconds=f"{seconds:g}"), say("{limit} or less", limit=LONGEST_S))])
    if whole != seconds:
        rounded.append(Rounded(where, seconds, whole))
    return whole


def variables_of(site: Site, target: Target) -> list[Variable]:
    """Every variable of the settings file, in the order in which they are written."""
    return [*_of_node(site, target), *_of_services(site), *_of_cluster(site)]


def _of_node(site: Site, target: Target) -> Iterator[Variable]:
    node = site.node
    yield Variable("DCSUP", tuple(node.dcsup), ("node", "dcsup"))
    yield Variable("DCSUP_FOLDER", _folder(node.folder), ("node", "folder"))
    yield Variable("DCSUP_GROUP", site.cluster.group, ("clusters", site.name, "group"))
    if node.boot is not None:
        yield Variable("DCSUP_BOOT_COMMAND", tuple(node.boot), ("node", "boot"))
    yield Variable("CLP_BIN", _folder(node.clp_bin), ("node", "clp_bin"))
    yield Variable("DCSUP_LANG", target.language, ("clusters", site.name, "language"))


def _folder(path: str) -> str:
    """Without a separator at its end, which would escape a quote behind it; a drive's root keeps its own."""
    bare = path.rstrip("\\/")
    return path if bare == "" or bare.endswith(":") else bare


def _of_services(site: Site) -> Iterator[Variable]:
    services = site.cluster.services
    yield Variable("DCSUP_SERVICES", " ".join(service.name for service in services), ("clusters", site.name, "services"))
    for n, service in enumerate(services):
        yield from _of_service(service, ("clusters", site.name, "services", n))
        yield from _commands(service.name, site.node.services[service.name])


def _of_service(service: ServiceSettings, where: Path) -> Iterator[Variable]:
    key = service.name.replace("-", "_")
    yield Variable(f"DCSUP_KIND_{key}", service.kind, (*where, "kind"))
    yield Variable(f"DCSUP_WAIT_{key}", f"{wait_s(service):.0f}", (*where, "wait"))
    yield Variable(f"DCSUP_LOG_ID_{key}", str(service.log_id or LOG_IDS[service.kind]), (*where, "log_id"))
    for setting, name in _VERBS.items():
        if (verb := getattr(service.verbs, setting)) is not None:
            yield Variable(f"DCSUP_VERB_{key}_{name}", verb, (*where, "verbs", setting))


def _commands(name: str, place: NodeServiceSettings) -> Iterator[Variable]:
    for setting in ("command", "start", "stop", "status"):
        if (words := getattr(place, setting)) is not None:
            yield Variable(f"DCSUP_{setting.upper()}_{name.replace('-', '_')}", tuple(words), ("node", "services", name, setting))


def _of_cluster(site: Site) -> Iterator[Variable]:
    cluster = site.cluster
    limits = {
        "ACK_TIMEOUT": ("ack_timeout",), "START_DEADLINE": ("start", "deadline"), "STOP_DEADLINE": ("stop", "deadline"),
        "INTERVAL": ("watch", "interval"), "POLL_LIMIT": ("watch", "poll_limit"), "SITE_LIMIT": ("clusterpro", "site_limit"),
    }  # fmt: skip
    for name, path in limits.items():
        table = cluster if len(path) == 1 else getattr(cluster, path[0])
        yield Variable(f"DCSUP_{name}", f"{getattr(table, path[-1]):g}", ("clusters", site.name, *path))
    # one for all: a script that clears the ground meets commands of starts and of stops (N6)
    limit = max(cluster.start.command_limit, cluster.stop.command_limit)
    yield Variable("DCSUP_COMMAND_LIMIT", f"{limit:g}", ("clusters", site.name, "start", "command_limit"))
    yield Variable("DCSUP_CONFIRM", str(cluster.watch.confirm), ("clusters", site.name, "watch", "confirm"))
    report = str(int(cluster.stop.report_failure))
    yield Variable("DCSUP_REPORT_FAILURE", report, ("clusters", site.name, "stop", "report_failure"))
