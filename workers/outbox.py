"""The producer's side of the outbox: a fact is first a file on the node's disk (DESIGN.md, "The way of an event").

Hooks and launchers write here and are done: no network, nothing that can hang. The forwarder of the node's worker numbers the files and
hands them in. Who cannot write a fact (disk full) goes on without it: facts tell what happened, they never decide
whether a service is started. Standard library only.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workers import files

FACT_SUFFIX = ".fact"
LINE_SUFFIX = ".line"

_numbers = itertools.count(1)


def folder_of(node_folder: Path) -> Path:
    return node_folder / "outbox"


def write_fact(node_folder: Path, kind: str, source: str, data: dict[str, Any], boot: str | None = None) -> Path:
    """Put one fact on the disk, flushed; its types and data are those of statemachines/facts.py.

    Args:
        kind: the fact's type, such as `StartHookCalled`.
        source: who saw it: hook, worker, watch, probe, cluster, alert.
        boot: this boot's id, which says what `mono` can be compared with.

    Raises:
        OSError: the fact is not on the disk.
    """
    body = {"type": kind, "version": 1, "source": source, "boot": boot, "mono": time.monotonic(), "wall": time.time(), "data": data}
    folder = folder_of(node_folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns()}-{os.getpid()}-{next(_numbers):06d}{FACT_SUFFIX}"
    files.write_aside(path, json.dumps(body, ensure_ascii=False))
    return path


def boot_id(command: list[str] | None = None, limit_s: float = 10.0) -> str:
    """An id of this boot of the node, letters and digits only (NODE.md N4).

    Args:
        command: whose output is the id, the same one that the scripts use; None: what the operating system has.

    Raises:
        OSError: the command cannot be run, fails, prints no id, or takes longer than `limit_s` seconds.
    """
    text = _output(command, limit_s) if command else _system_boot(limit_s)
    boot = re.sub(r"[^A-Za-z0-9]", "", text)
    if not boot:
        raise OSError(f"no boot id: {' '.join(command) if command else 'the operating system'} printed no letter or digit")
    return boot


def _system_boot(limit_s: float) -> str:
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    if sys.platform == "win32":
        return _windows_boot()
    return _output(["sysctl", "-n", "kern.bootsessionuuid"], limit_s)


def _windows_boot() -> str:
    """The counter that Windows raises at each boot; a batch file reads the same with `reg query`. Never run."""
    if sys.platform != "win32":
        raise OSError("only Windows has a registry")
    import winreg

    name = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, name) as key:
        return str(winreg.QueryValueEx(key, "BootId")[0])


def _output(command: list[str], limit_s: float) -> str:
    try:
        printed = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit_s, check=True).stdout
    except subprocess.SubprocessError as error:
        raise OSError(f"no boot id: {error}") from error
    # A batch file reads one line of a command's output, a shell all of it; each side must call a boot what its scripts do.
    return next(iter(printed.splitlines()), "") if sys.platform == "win32" else printed
