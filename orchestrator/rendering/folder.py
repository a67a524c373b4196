"""Puts rendered files into a folder, and loses nothing that somebody wrote there.

Three kinds of files: ours are written anew each time; the site's own (`site/`) only when they are not there; and ours that somebody changed
by hand are noticed, kept as `<name>.kept-1`, `.kept-2`, ..., and then written anew. What we wrote last is remembered as hashes in
`dcsup-render.json`; a file that differs from both its hash and the new content was changed by hand. Files that are no longer rendered stay,
for a resource may still call them; they are named each time until somebody removes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from orchestrator.rendering import places

LIST = "dcsup-render.json"


@dataclass
class Placed:
    """What became of each file; names relative to the folder, with `/`."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Changed by hand -> the name under which that is kept."""
    site: list[str] = field(default_factory=list)
    """The site's own files, left as they are."""
    left: list[str] = field(default_factory=list)
    """Written by an earlier rendering, and no longer a part of it."""


def place(folder: Path, files: Mapping[str, bytes], *, private: bool = False) -> Placed:
    """Write the files into the folder; made if it is not there. `private`: only this user may read them, from the first byte on.

    Raises:
        OSError: the folder cannot be written; what was written until then is whole, and the next rendering goes on.
    """
    if private:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remembered = _remembered(folder)
    placed = Placed(left=sorted(name for name in remembered.keys() - files.keys() if (folder / name).exists()))
    for name, content in files.items():
        _place(folder, name, content, remembered.get(name), placed, private)
    hashes = {name: remembered[name] for name in placed.left} | {name: _hash(content) for name, content in files.items() if _ours(name)}
    _write(folder / LIST, (json.dumps({"version": 1, "files": dict(sorted(hashes.items()))}, indent=1) + "\n").encode(), private)
    return placed


def _place(folder: Path, name: str, content: bytes, remembered: str | None, placed: Placed, private: bool) -> None:
    path = folder / name
    before = path.read_bytes() if path.exists() else None
    if before == content:
        placed.unchanged.append(name)
        return
    if before is not None and not _ours(name):
        placed.site.append(name)
        return
    if before is not None and _hash(before) != remembered:
        placed.kept[name] = _keep(path, private).relative_to(folder).as_posix()
    _write(path, content, private)
    placed.written.append(name)


def _keep(path: Path, private: bool) -> Path:
    """Gives the file the first `.kept-N` that is free; a copy, so that the script is never absent."""
    kept = next(free for n in count(1) if not (free := path.with_name(f"{path.name}.kept-{n}")).exists())
    _write(kept, path.read_bytes(), private)
    return kept


def _write(path: Path, content: bytes, private: bool) -> None:
    """In one step: CLUSTERPRO may run the script at this moment."""
    path.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
        file.write(content)
    if not private:
        aside.chmod(0o755 if path.suffix == ".sh" else 0o644)
    aside.replace(path)


def _ours(name: str) -> bool:
    return not name.startswith(f"{places.FOLDER}/")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _remembered(folder: Path) -> dict[str, str]:
    """Name -> hash as we wrote it; a list that is missing or damaged remembers nothing, so that everything that differs is kept."""
    try:
        files = json.loads((folder / LIST).read_text(encoding="utf-8"))["files"]
        return {str(name): str(value) for name, value in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
