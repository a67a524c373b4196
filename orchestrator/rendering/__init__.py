"""What a CLUSTERPRO cluster and a Redis of one's own need, written from dcsup.toml: `dcsup render`.

    variables.py  from settings to the variables of the scripts' settings file, in whole seconds
    quoting.py    that file for sh and for batch, and what neither can hold
    scripts.py    the whole folder: static scripts (deploy/clusterpro), settings, watch scripts, places for the site's own code
    places.py     the site's own code (G43)
    alerts.py     which of CLUSTERPRO's alerts dcsup wants to hear of (CLUSTERPRO.md, section 6.2)
    page.py       the page for the integrator: resources, monitors, timeouts
    redis_acl.py  who may do what in Redis
    redis_files.py, redis_page.py   the folders of `render redis`, one a machine
    folder.py     puts files into a folder and loses nothing that somebody wrote there

All but folder.py is pure: settings and static texts in, {relative path: bytes} out, the same for the same input.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from orchestrator.said import Said
from orchestrator.tomllines import Path
from statemachines.configuration import ClusterSettings, Configuration, NodeSettings

Platform = Literal["linux", "windows"]
Encoding = Literal["utf-8", "cp932"]
Language = Literal["en", "ja"]
Words = Callable[[str], str]
"""Puts an English sentence into one language (workers/messages.py)."""


@dataclass(frozen=True)
class Target:
    """What the files are for.

    Attributes:
        platform: `windows`: batch files with CRLF; `linux`: sh.
        encoding: of batch files; sh is always UTF-8.
        language: of what the scripts write to the cluster log and broadcast, and of the comments in them.
        fragment: the group's start and stop scripts exist already (they start a DBMS) and call ours (G24, G42).
    """

    platform: Platform
    encoding: Encoding = "utf-8"
    language: Language = "en"
    fragment: bool = False

    @property
    def suffix(self) -> str:
        return ".bat" if self.platform == "windows" else ".sh"

    @property
    def separator(self) -> str:
        return "\\" if self.platform == "windows" else "/"


class Unfit(Exception):
    """Settings that no script can hold; each with its place in dcsup.toml, what stands there, and what may."""

    def __init__(self, reasons: list[tuple[Path, Said, Said]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, where))}: {found}; {expected}" for where, found, expected in reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Site:
    """One node of one cluster: what is rendered for."""

    name: str
    """The cluster's name in dcsup.toml."""
    cluster: ClusterSettings
    node: NodeSettings

    def folder(self, target: Target) -> str:
        """Where the rendered files lie on every node: in the node folder, which is on a local disk (G22)."""
        return self.node.folder.rstrip("\\/") + target.separator + "clusterpro"


def site_of(configuration: Configuration) -> Site:
    """The configuration's own node.

    Raises:
        ValueError: there is no [node] table.
    """
    node = configuration.node
    if node is None:
        raise ValueError("no [node] table")
    return Site(node.cluster, configuration.clusters[node.cluster], node)


def platform_of(folder: str) -> Platform:
    """What a path looks like: `C:\\dcsup` and `\\\\server\\share` are Windows'."""
    return "windows" if re.match(r"[A-Za-z]:|\\\\", folder) else "linux"
