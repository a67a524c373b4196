"""What CLUSTERPRO runs on a node: the scripts of the group's script and application resources.

    linux/      sh, for CLUSTERPRO on Linux and for the sandbox; lib.sh describes settings and rules
    windows/    batch, for CLUSTERPRO on Windows
    .../guide/  the guide's plain sequence and nothing else, for going back

The files are the same for every site. What differs is in one settings file beside them, which `dcsup render` writes from dcsup.toml
(orchestrator/rendering), as it does the encoding and the line ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).resolve().parent
SUFFIXES = {"linux": ".sh", "windows": ".bat"}


def sources(platform: Literal["linux", "windows"]) -> dict[str, str]:
    """The platform's scripts as they are kept here (UTF-8, LF): `start.sh`, `guide/start.sh`, ... -> text."""
    folder = FOLDER / platform
    files = sorted(folder.rglob(f"*{SUFFIXES[platform]}"))
    return {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}
