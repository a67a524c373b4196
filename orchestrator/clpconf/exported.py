"""An exported configuration on disk: one clp.conf, or the folder that `clpcfctrl --pull` writes, with its scripts.

Of a script only two things are kept: whether it calls dcsup, and where it has DataCoordinator's commands. Its text may hold passwords.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.clpconf.model import ClpConf
from orchestrator.clpconf.parsing import parse
from orchestrator.clpconf.reading import SIZE_MAX, ClpConfError, clean
from orchestrator.said import say

_SCRIPT_SIZE_MAX = 1_000_000
_SCRIPTS_MAX = 2_000
_SUFFIXES = frozenset({".bat", ".cmd", ".sh", ".ps1"})
_COMMENT = re.compile(rb"^\s*(?:@?rem\b|::|#)", re.IGNORECASE)
_CALL = re.compile(rb"dcsup(?:\.exe)?[\"'%}]*\s+hook\s+(?!watch\b|alert\b)|dcsup-(?:start|stop)\.(?:bat|cmd|sh)", re.IGNORECASE)
"""A start or stop hook, as the rendered scripts call it; or the rendered fragment, called from a site's own script."""
_SETTINGS = "dcsup.env"
_COMMANDS = re.compile(r"(?:(?:[A-Za-z]:)?[\\/][^\"%|<>&*?\r\n]{0,250}?[\\/])?\b(dcserver|dcagent)(?:\.bat|\.sh|\.cmd)?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Script:
    """The scripts of one script resource, taken together."""

    group: str
    resource: str
    calls_dcsup: bool
    commands: tuple[tuple[str, str], ...] = ()
    """What of DataCoordinator it calls, in its order: `("server", path or "")`."""


@dataclass(frozen=True)
class Exported:
    conf: ClpConf
    path: str
    scripts: tuple[Script, ...] | None
    """None: there is no scripts folder, so nothing is known of them."""


def read_exported(path: str | Path) -> Exported:
    """The configuration in a file or folder.

    Raises:
        ClpConfError: it cannot be read, or is no configuration of CLUSTERPRO.
    """
    given = Path(path)
    try:
        file = _file_in(given)
        with file.open("rb") as stream:
            raw = stream.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise ClpConfError(say("there is no such file")) from None
    except OSError as error:
        raise ClpConfError(say("the file cannot be read ({reason})", reason=error.strerror or type(error).__name__)) from None
    return Exported(parse(raw), str(file), _scripts_beside(file))


def _file_in(given: Path) -> Path:
    if not given.is_dir():
        return given
    for inner in (given / "clp.conf", given / "etc" / "clp.conf"):
        if inner.is_file():
            return inner
    raise ClpConfError(say("the folder holds no clp.conf; name the folder that `clpcfctrl --pull` wrote"))


def _scripts_beside(file: Path) -> tuple[Script, ...] | None:
    for folder in (file.parent / "scripts", file.parent.parent / "scripts" if file.parent.name == "etc" else None):
        if folder is not None and folder.is_dir():
            return _scripts_in(folder)
    return None


def _scripts_in(folder: Path) -> tuple[Script, ...] | None:
    """None when they cannot be read whole: half of the truth must not look like all of it."""
    try:
        found = itertools.islice(sorted(folder.glob("*/*")), _SCRIPTS_MAX)
        return tuple(_script(place) for place in found if place.is_dir() and place.parent.name != "monitor.s")
    except OSError:
        return None


def _script(place: Path) -> Script:
    files = [file for file in sorted(place.iterdir()) if (file.suffix.lower() in _SUFFIXES or file.name == _SETTINGS) and file.is_file()]
    lines = [line for file in files for line in _live_lines(file)]
    text = b"\n".join(lines).decode("cp932", "replace")
    called = [(found[1].lower().removeprefix("dc"), clean(found[0])) for found in _COMMANDS.finditer(text)]
    commands: dict[str, str] = {}
    for kind, command in called:
        commands[kind] = commands.get(kind) or (command if _is_path(command) else "")
    return Script(place.parent.name, place.name, any(_CALL.search(line) for line in lines), tuple(commands.items()))


def _is_path(command: str) -> bool:
    """Whether it says where from the root on; what a variable begins says less."""
    return bool(re.match(r"[A-Za-z]:[\\/]|/", command))


def _live_lines(file: Path) -> list[bytes]:
    with file.open("rb") as stream:
        return [line for line in stream.read(_SCRIPT_SIZE_MAX).splitlines() if not _COMMENT.match(line)]
