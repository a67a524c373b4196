"""Looking at a node for `dcsup check --node`: what is there, and what cannot be seen.

It only looks. Each look has a thread of its own that nobody waits for beyond the limit, because a network drive or a command that hangs
may never answer; what did not answer, or failed, is simply missing from the result, and missing means *unknown*. The result
is plain data (JSON), so that it can be carried to another machine and compared there.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from statemachines.configuration import ClusterSettings, Configuration, NodeSettings
from workers import permissions
from workers.runs import Outcome, Run

LIMIT_S = 15.0
"""For all looks together; they run side by side."""
_CONNECT_S = 3.0
_COMMAND_S = 8.0
_HOOK_FALLS_BACK = 75
"""What `dcsup hook` without a ticket answers (workers/hooks): it was found, it ran, it touched nothing."""
_TOOLS = ("clplogcmd", "armsleep", "armbcast")
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "sshfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "davfs"}
)
_SERVICE_NAME = re.compile(r"^\s*SERVICE_NAME\s*:\s*(.+?)\s*$", re.MULTILINE)
_OURS = re.compile(r"datacoordinator", re.IGNORECASE)
_NUMBERED = r"^\s*{key}\s*:\s*(\d+)"
_STARTUPS = {"2": "auto", "3": "manual", "4": "disabled"}
_STATES = {"1": "stopped", "4": "running"}

Looks = dict[str, Callable[[], Any]]


def inspect(configuration: Configuration, limit_s: float = LIMIT_S, config_file: str | None = None) -> dict[str, Any]:
    """What this machine shows; keys that are missing are unknown. Never raises, changes nothing, returns within `limit_s` and a moment.

    Args:
        configuration: whose [node] table this machine is; without one, only what needs none is looked at.
        limit_s: seconds, > 0.
        config_file: where the configuration stands, if who may change it is to be seen.
    """
    looks: Looks = {
        "versions": _versions,
        "redis": lambda: _redis(configuration),
        "permissions": lambda: permissions.look_at_node(configuration, config_file),
    }
    if configuration.node is not None:
        looks |= _looks_of_node(configuration.node, configuration.clusters[configuration.node.cluster])
    found = _side_by_side(looks, limit_s)
    node = configuration.node
    about = {"name": node.name, "cluster": node.cluster} if node is not None else {"name": "", "cluster": ""}
    return {**about, "system": "windows" if sys.platform == "win32" else "other", **found}


def _side_by_side(looks: Looks, limit_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    threads = [threading.Thread(target=_look, args=(name, look, found), daemon=True) for name, look in looks.items()]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return {name: value for name, value in list(found.items()) if value is not None}


def _look(name: str, look: Callable[[], Any], found: dict[str, Any]) -> None:
    try:
        found[name] = look()
    except Exception:  # whatever it is, this look saw nothing, and nothing is an answer
        return


def _looks_of_node(node: NodeSettings, cluster: ClusterSettings) -> Looks:
    port = cluster.metadata.port if cluster.metadata is not None else None
    return {
        "folder": lambda: _folder(node.folder),
        "commands": lambda: {name: _commands(place.command or place.start or []) for name, place in node.services.items()},
        "tools": lambda: _tools(node),
        "dcsup": lambda: _dcsup(node.dcsup),
        "services": _windows_services,
        "metadata_running": lambda: _metadata_running(node),
        "metadata_listening": lambda: _answers("127.0.0.1", port) if port is not None else None,
        "endpoints": lambda: {one.name: _answers(one.host, one.port) for one in cluster.endpoints},
    }


# --- machine ------------------------------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    try:
        return {"python": python, "dcsup": metadata.version("dcsup")}
    except metadata.PackageNotFoundError:
        return {"python": python}


def _folder(folder: str) -> dict[str, Any]:
    """The node folder, or the nearest folder above it that is there: whether it is on a disk of this machine, and may be written."""
    path = Path(folder)
    standing = next((one for one in (path, *path.parents) if one.is_dir()), None)
    if standing is None:
        return {"path": folder, "exists": False}
    return {"path": folder, "exists": standing == path, "writable": os.access(standing, os.W_OK), "local": _is_local(standing)}


def _is_local(path: Path) -> bool | None:
    """Whether the path is on a disk of this machine; None: the system does not say."""
    import psutil

    resolved = str(path.resolve())
    if resolved.startswith("\\\\"):
        return False
    fitting = [one for one in psutil.disk_partitions(all=True) if _is_below(resolved, one.mountpoint)]
    if not fitting:
        return None
    nearest = max(fitting, key=lambda one: len(one.mountpoint))
    return nearest.fstype.lower() not in _REMOTE and "remote" not in nearest.opts.split(",")


def _is_below(path: str, mountpoint: str) -> bool:
    one, other = os.path.normcase(path), os.path.normcase(mountpoint).rstrip("\\/")
    return one == other or one.startswith((f"{other}/", f"{other}\\"))


def _commands(argv: Sequence[str]) -> dict[str, Any]:
    """A service's command: its path as configured, and whether a file is there."""
    return {"path": argv[0], "exists": shutil.which(argv[0]) is not None or Path(argv[0]).is_file()} if argv else {}


def _tools(node: NodeSettings) -> dict[str, bool]:
    where = node.clp_bin or None
    found = {name: shutil.which(name, path=where) is not None for name in _TOOLS}
    asked = {"clpstat": node.clpstat, "clpgrp": node.clpgrp}
    return found | {name: shutil.which(argv[0]) is not None for name, argv in asked.items() if argv}


def _dcsup(argv: Sequence[str]) -> dict[str, Any]:
    """Called as the scripts call it, with a hook that has no ticket: it answers 75 and does nothing."""
    outcome = _ended([*argv, "hook", "start"])
    return {"callable": outcome.code == _HOOK_FALLS_BACK, "code": outcome.code, "took_s": round(outcome.duration_s, 2)}


# --- operating system's services ----------------------------------------------------------------------------------------------------


def _windows_services() -> dict[str, dict[str, str]] | None:
    """DataCoordinator's services: startup type, state, account (G30, G33). None elsewhere: unknown."""
    if sys.platform != "win32":
        return None
    listed = _ended(["sc", "query", "type=", "service", "state=", "all", "bufsize=", "600000"])
    if listed.code != 0:
        return None
    return {name: _service(name) for name in _SERVICE_NAME.findall(listed.output) if _OURS.search(name)}


def _service(name: str) -> dict[str, str]:
    return parse_sc_qc(_ended(["sc", "qc", name, "8000"]).output) | parse_sc_query(_ended(["sc", "query", name]).output)


def parse_sc_qc(output: str) -> dict[str, str]:
    """Startup type (auto, manual, disabled) and account in a print-out of `sc qc`; the numbers are the same in every language."""
    found: dict[str, str] = {}
    if (startup := re.search(_NUMBERED.format(key="START_TYPE"), output, re.MULTILINE)) is not None:
        found["startup"] = _STARTUPS.get(startup[1], "unknown")
    if (account := re.search(r"^\s*SERVICE_START_NAME\s*:\s*(\S.*?)\s*$", output, re.MULTILINE)) is not None:
        found["account"] = account[1]
    return found


def parse_sc_query(output: str) -> dict[str, str]:
    """State (running, stopped, other) in a print-out of `sc query`."""
    state = re.search(_NUMBERED.format(key="STATE"), output, re.MULTILINE)
    return {"state": _STATES.get(state[1], "other")} if state is not None else {}


def _metadata_running(node: NodeSettings) -> bool | None:
    """What the site's own command says (G44). None: there is none."""
    if node.metadata_status is None:
        return None
    outcome = _ended(node.metadata_status)
    return None if outcome.code is None else outcome.code == 0


def _ended(argv: Sequence[str]) -> Outcome:
    """A command that only looks, ended after its limit."""
    run = Run(argv, _COMMAND_S, encoding="cp932" if sys.platform == "win32" else "utf-8")
    while (outcome := run.poll()) is None:
        time.sleep(0.02)
    return outcome


# --- network ------------------------------------------------------------------------------------------------------------------------


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _CONNECT_S):
            return True
    except OSError:
        return False


def _redis(configuration: Configuration) -> dict[str, Any] | None:
    """Whether Redis answers, and how far its clock is from ours, seconds. None: it is the embedded one, which is not reached by address.

    Why it does not answer is the kind of error alone: a message may quote an address, and that a password.
    """
    if configuration.redis.embedded is not None:
        return None
    from redis.exceptions import RedisError

    from workers.redisclient import client_of

    try:
        with client_of(configuration.redis, _CONNECT_S) as client:
            before = time.time()
            answer: Any = client.time()
            now = (before + time.time()) / 2
    except (RedisError, OSError, ValueError) as error:
        return {"reachable": False, "why": type(error).__name__}
    return {"reachable": True, "clock_s": round(now - (answer[0] + answer[1] / 1e6), 3)}
