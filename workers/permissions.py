"""Who may change what this node trusts, and read what it keeps secret.

Tickets are the fence (NODE.md): whoever may rename a file in the node folder may act there. dcsup.toml names commands that are run. A
secret file is worth what its readers are. So of each: which accounts beyond the owner and the administrators may write it, or read it.

It only looks, and what it cannot see is None, *unknown*. Nothing is refused for what is found: a worker that does not start because of
a permission would be the greater harm. It is logged at the start of a worker, and `dcsup check --node` calls it an error.

On POSIX the answer is in owner and mode, also of the folders above (whoever may write one of these may put another folder in its place; a
sticky one is no danger). On Windows it is in the access list as `icacls /save` writes it, in SDDL, which is the same in every language.
"""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from statemachines.configuration import Configuration, NodeSettings

Kind = Literal["folder", "settings", "secret"]

FOLDERS = ("outbox", "tickets", "journal", "watch")
_ICACLS_LIMIT_S = 8.0
_BROAD = {
    "WD": "Everyone", "S-1-1-0": "Everyone", "BU": "Users", "S-1-5-32-545": "Users", "AU": "Authenticated Users",
    "S-1-5-11": "Authenticated Users", "IU": "Interactive", "S-1-5-4": "Interactive", "NU": "Network", "S-1-5-2": "Network",
    "BG": "Guests", "S-1-5-32-546": "Guests", "AN": "Anonymous", "S-1-5-7": "Anonymous", "DU": "Domain Users", "DG": "Domain Guests",
    "DC": "Domain Computers",
}  # fmt: skip
"""Groups of which anybody may be a member, as SDDL names them."""
_RIGHTS = {
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100, "SD": 0x10000,
    "RC": 0x20000, "WD": 0x40000, "WO": 0x80000, "GA": 0x10000000, "GX": 0x20000000, "GW": 0x40000000, "GR": 0x80000000,
    "FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200A0,
}  # fmt: skip
_WRITES = 0x2 | 0x4 | 0x40 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000
"""Write or add, append or add a folder, delete what is in it, delete, change the list, take it over; all, generic write."""
_READS = 0x1 | 0x10000000 | 0x80000000
_ACE = re.compile(r"\((\w+);(\w*);(\w*);[^;]*;[^;]*;([\w-]+)(?:;[^()]*)?\)")


class Exposed(NamedTuple):
    """Who else may do what with a file or folder; empty: nobody."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]


def look(path: Path) -> Exposed | None:
    """Who beyond the owner and the administrators has access; None: this system does not say, or there is nothing."""
    return _on_windows(path) if sys.platform == "win32" else _on_posix(path)


def look_at_node(configuration: Configuration, config_file: str | None) -> list[dict[str, Any]]:
    """Everything that this machine's configuration names and that is there, as plain data: path, kind, and who may write and read it (None:
    unknown)."""
    return [
        {"path": str(path), "kind": kind, "writers": _listed(seen and seen.writers), "readers": _listed(seen and seen.readers)}
        for kind, path in _places(configuration, config_file)
        if path.exists()
        for seen in (look(path),)
    ]


def objections(seen: list[dict[str, Any]]) -> list[str]:
    """What of that is wrong, one sentence each, for a log."""
    said = []
    for one in seen:
        if one["writers"]:
            said.append(f"{one['path']} can be changed by: {', '.join(one['writers'])}")
        if one["kind"] == "secret" and one["readers"]:
            said.append(f"{one['path']} can be read by: {', '.join(one['readers'])}")
    return said


def tell(configuration: Configuration, config_file: str | None, log: Any) -> None:
    """Log what is wrong, from a thread: the system's answer may take its time, and nothing waits for it."""

    def look_and_tell() -> None:
        try:
            found = objections(look_at_node(configuration, config_file))
        except OSError as error:
            log.warning("permissions cannot be seen", error=str(error))
            return
        for objection in found:
            log.warning("others have access that they should not have; `dcsup check --node` says what to do", what=objection)

    threading.Thread(target=look_and_tell, name="permissions", daemon=True).start()


def _listed(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def _places(configuration: Configuration, config_file: str | None) -> Iterator[tuple[Kind, Path]]:
    if config_file is not None:
        yield "settings", Path(config_file)
    node = configuration.node
    if node is not None:
        yield "folder", Path(node.folder)
        for name in FOLDERS:
            yield "folder", Path(node.folder) / name
    for file in _secret_files(configuration, node):
        if file is not None:
            yield "secret", Path(file)


def _secret_files(configuration: Configuration, node: NodeSettings | None) -> list[str | None]:
    redis, orchestrator = configuration.redis, configuration.orchestrator
    return [
        redis.password_file, redis.sentinel_password_file, redis.key_file, orchestrator.token_file, orchestrator.key_file,
        *(key.file for key in configuration.keys.values()),
        *((node.key.file if node.key else None, node.rest.password_file if node.rest else None) if node is not None else ()),
    ]  # fmt: skip


# --- POSIX --------------------------------------------------------------------------------------------------------------------------------


def _on_posix(path: Path) -> Exposed | None:
    try:
        whole = path.resolve(strict=True)
        own = whole.stat()
        above = [one for parent in whole.parents for one in _who(parent.stat(), stat.S_IWGRP, stat.S_IWOTH, sticky=True)]
    except OSError:
        return None
    writers = [*_who(own, stat.S_IWGRP, stat.S_IWOTH), *(f"{name} (through a folder above)" for name in above)]
    readers = _who(own, stat.S_IRGRP, stat.S_IROTH)
    return Exposed(tuple(dict.fromkeys(writers)), tuple(readers))


def _who(found: Any, group_bit: int, others_bit: int, *, sticky: bool = False) -> list[str]:
    """Names for who has the right beside root and this user. `sticky`: where that bit is set, others cannot replace what is ours."""
    names = []
    if found.st_uid not in (0, _own_uid()):
        names.append(f"user {found.st_uid}")
    if sticky and found.st_mode & stat.S_ISVTX:
        return names
    if found.st_mode & group_bit and found.st_gid != 0:
        names.append(f"group {found.st_gid}")
    if found.st_mode & others_bit:
        names.append("everyone")
    return names


def _own_uid() -> int:
    if sys.platform == "win32":
        return 0
    import os

    return os.geteuid()


# --- Windows ------------------------------------------------------------------------------------------------------------------------------


def _on_windows(path: Path) -> Exposed | None:
    with tempfile.TemporaryDirectory(prefix="dcsup-acl-") as folder:
        saved = Path(folder) / "acl"
        try:
            argv = ["icacls", str(path), "/save", str(saved)]
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_ICACLS_LIMIT_S, check=False
            )
            text = saved.read_bytes().decode("utf-16-le", "replace") if done.returncode == 0 else ""
        except (OSError, subprocess.TimeoutExpired):
            return None
    return parse_icacls(text)


def parse_icacls(text: str) -> Exposed | None:
    """What a file of `icacls PATH /save FILE` says: a name, and below it the access list in SDDL. None: it says nothing that is understood.

    Inherit-only entries are about what will be in a folder; what is in it is looked at by itself. Who is no broad group counts as chosen
    by the site.
    """
    _, found, entries = text.partition("D:")
    aces = _ACE.findall(entries)
    if not found or entries.startswith("NO_ACCESS_CONTROL"):
        return Exposed(("Everyone",), ("Everyone",)) if found else None
    if entries.count("(") != len(aces):
        return None
    here = [(_BROAD[who], _mask(rights)) for kind, flags, rights, who in aces if kind == "A" and who in _BROAD and not _inherit_only(flags)]
    writers = dict.fromkeys(name for name, mask in here if mask & _WRITES)
    readers = dict.fromkeys(name for name, mask in here if mask & _READS)
    return Exposed(tuple(writers), tuple(readers))


def _inherit_only(flags: str) -> bool:
    return "IO" in re.findall("..", flags)


def _mask(rights: str) -> int:
    if rights.startswith(("0x", "0X")):
        return int(rights, 16)
    return sum(_RIGHTS.get(one, 0) for one in set(re.findall("..", rights)))
