"""The values that installers are given, and what the guide says of them (G27-G29, G34, G35). Pure: paths are judged as texts.

A Windows path is judged by Windows' rules on every system, so that a runbook can be prepared at any desk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from orchestrator.said import Said, say
from statemachines.configuration import ClusterSettings

DEFAULT_INSTALL_PATH = r"C:\DataCoordinatorRA"
"""G27."""

NAMES = (
    "install_path", "floating_ip", "server_port", "agent_port", "agent_name", "server_address", "disk", "metadata_path", "shared_folder",
    "account", "limit_s",
)  # fmt: skip
"""What a site may give with --value."""


def known_values(settings: ClusterSettings, program: str | None) -> dict[str, str]:
    """What follows from the configuration. `program`: the server's or agent's command on this node, if this is one."""
    found = {"install_path": install_path_of(program) or DEFAULT_INSTALL_PATH}
    kinds = {service.name: service.kind for service in settings.services}
    for endpoint in settings.endpoints:
        kind = kinds.get(endpoint.service or "")
        if kind in ("server", "agent"):
            found |= {"floating_ip": endpoint.host, f"{kind}_port": str(endpoint.port)}
        if kind == "server":
            found["server_address"] = f"{endpoint.host}:{endpoint.port}"
    return found


def install_path_of(program: str | None) -> str | None:
    r"""`C:\X` of `C:\X\server\bin\dcserver.bat`; None: the command does not lie as the guide has it."""
    path = pure(program or "")
    parents = list(path.parents)
    usual = len(parents) > 3 and path.parent.name.lower() == "bin" and parents[1].name.lower() in ("server", "agent")
    return str(parents[2]) if usual else None


def pure(path: str) -> PurePath:
    return PureWindowsPath(path) if re.match(r"[A-Za-z]:|[\\/]{2}", path) else PurePosixPath(path)


def below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder or drive (`E:` is the whole drive)."""
    outer = pure(folder + "\\" if re.fullmatch(r"[A-Za-z]:", folder) else folder)
    inner = pure(path)
    return type(inner) is type(outer) and inner.is_relative_to(outer)


def mistakes(values: Mapping[str, str], asked: tuple[str, ...]) -> Iterator[Said]:
    """What is wrong with the values that are asked for, as far as they are given."""
    given = {name: values[name] for name in asked if values.get(name)}
    for name in ("install_path", "metadata_path", "shared_folder"):
        if name in given:
            yield from _bad_place(name, given[name])
    if "disk" in given:
        yield from _wrong_disk(given, given["disk"])
    if "metadata_path" in given and "shared_folder" in given and pure(given["metadata_path"]) == pure(given["shared_folder"]):
        yield say("metadata_path and shared_folder are the same folder, {path} (G35)", path=given["shared_folder"])


def _wrong_disk(given: Mapping[str, str], disk: str) -> Iterator[Said]:
    path = given.get("install_path")
    if path and below(path, disk):
        yield say("install_path {path} is on the switchable partition: programs belong on a local one (G27)", path=path)
    for name in ("metadata_path", "shared_folder"):
        if name in given and not below(given[name], disk):
            values = {"name": name, "path": given[name], "disk": disk, "rule": RULES[name]}
            yield say("{name} {path} is not on the switchable partition {disk} ({rule})", **values)


RULES = {"install_path": "G27", "metadata_path": "G29", "shared_folder": "G34"}


def _bad_place(name: str, path: str) -> Iterator[Said]:
    place = pure(path)
    if place.parent == place:
        yield say("{name} {path} is a drive's root ({rule})", name=name, path=path, rule=RULES[name])
    elif not place.is_absolute() or ".." in place.parts:
        yield say("{name} {path} is not a whole path", name=name, path=path)
    elif place.drive.startswith("\\\\"):
        yield say("{name} {path} is not on a disk of the node ({rule})", name=name, path=path, rule=RULES[name])
