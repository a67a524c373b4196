"""A disk in memory, under the names of real paths, so that the real ticket, journal and outbox code works on it.

A `SimPath` is a text with those methods of `pathlib.Path` that dcsup's node code uses; the first part of it names the disk
(`/node1/dcsup/tickets`). What the code takes from `os` is in `SimOs`.

Each access goes through `Disk.looked` or `Disk.changes`, where a test or the simulation can let others run, let the disk refuse, or end the
process: before a change (it never happened) and after it (nothing else did). A change that was not flushed can be lost when the power is
cut: `crash` takes back some of the last ones, in order, as a journalling file system does.

`snapshot` and `restore` are cheap; `Disk.image` is hashable, for searches over all states.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from fnmatch import translate
from random import Random
from types import TracebackType
from typing import Any, NamedTuple

Listener = Callable[[str, str], None]
"""(what is done, path): may raise, may switch to another process."""

Image = frozenset[tuple[str, "bytes | None"]]
"""Path and content of everything; None: a folder."""


class File(NamedTuple):
    content: bytes
    mtime_s: float


class Stat(NamedTuple):
    st_mtime: float
    st_size: int
    st_mode: int = 0o600

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)


def _nothing(_what: str, _path: str) -> None:
    """Nobody listens."""


class Disk:
    """One machine's disk. `wall_s` is that machine's clock, for time stamps."""

    def __init__(self, name: str, wall_s: Callable[[], float]) -> None:
        self.name, self.wall_s = name, wall_s
        self.files: dict[str, File] = {}
        self.folders: dict[str, float] = {f"/{name}": 0.0}
        """Folder -> when something in it was last made, renamed or removed."""
        self.is_full = self.is_readonly = self.is_failing = False
        self.looked: Listener = _nothing
        """Before every look."""
        self.before: Listener = _nothing
        """Before every change."""
        self.after: Listener = _nothing
        self._unflushed: list[list[tuple[str, File | None]]] = []
        """What stood under each name before each change since the last flush; a rename is one change of two names."""
        self._change: list[tuple[str, File | None]] = []
        self._listed: dict[str, dict[str, None]] = {}
        """Folder -> the names in it, of folders that somebody listed."""
        DISKS[name] = self

    # --- what happens to it from outside

    def snapshot(self) -> tuple[dict[str, File], dict[str, float]]:
        return self.files.copy(), self.folders.copy()

    def restore(self, snapshot: tuple[dict[str, File], dict[str, float]]) -> None:
        self.files, self.folders = snapshot[0].copy(), snapshot[1].copy()
        self._unflushed.clear()
        self._listed.clear()

    @property
    def image(self) -> Image:
        """What is on it, times apart."""
        return frozenset([*((path, file.content) for path, file in self.files.items()), *((path, None) for path in self.folders)])

    def crash(self, dice: Random) -> int:
        """The power is cut: of what was not flushed, some of the last changes never reached the disk. Returns how many."""
        lost = dice.randint(0, len(self._unflushed))
        for path, file in reversed([one for change in self._unflushed[len(self._unflushed) - lost :] for one in change]):
            if file is None:
                self.files.pop(path, None)
            else:
                self.files[path] = file
        self._unflushed.clear()
        self._listed.clear()
        return lost

    # --- accesses

    def look(self, what: str, path: str) -> None:
        self.looked(what, path)
        if self.is_failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def change(self, what: str, path: str, apply: Callable[[], None], *, grows: bool = False) -> None:
        """Do one change, all or nothing. `grows`: it needs space."""
        self.before(what, path)
        for refuses, number in ((self.is_failing, errno.EIO), (self.is_readonly, errno.EROFS), (self.is_full and grows, errno.ENOSPC)):
            if refuses:
                raise OSError(number, os.strerror(number), path)
        self._change = []
        apply()
        self.after(what, path)

    def put(self, path: str, file: File | None) -> None:
        """Set or remove a name, as part of a change."""
        before = self.files.get(path)
        if not self._change:
            self._unflushed.append(self._change)
        self._change.append((path, before))
        folder, _, name = path.rpartition("/")
        listed = self._listed.get(folder)
        if file is None:
            del self.files[path]
            if listed is not None:
                del listed[name]
        else:
            self.files[path] = file
            if listed is not None:
                listed[name] = None

    def make_folder(self, path: str) -> None:
        self.folders[path] = self.wall_s()
        self._listed.pop(_parent(path), None)

    def touch_folder(self, path: str) -> None:
        self.folders[_parent(path)] = self.wall_s()

    def need_folder(self, path: str) -> None:
        if _parent(path) not in self.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def file(self, path: str) -> File:
        if path in self.folders:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.files[path]

    def names(self, folder: str) -> list[str]:
        """What is in a folder, in no particular but always the same order."""
        if folder not in self.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        if folder not in self._listed:
            begin = folder + "/"
            at = len(begin)
            inside = (path[at:] for path in (*self.files, *self.folders) if path.startswith(begin))
            self._listed[folder] = dict.fromkeys(name for name in inside if "/" not in name)
        return list(self._listed[folder])

    def flush(self, path: str) -> None:
        """What was done so far survives a power cut."""
        self.change("flush", path, self._unflushed.clear)


DISKS: dict[str, Disk] = {}
"""Name -> disk: the world's mount table. Each world makes its disks anew."""


def _parent(path: str) -> str:
    return path[: path.rindex("/")]


def disk_of(path: str) -> Disk:
    return DISKS[path.split("/", 2)[1]]


class SimPath(str):
    """A path on a `Disk`; methods do and raise what those of `pathlib.Path` do. A text, because paths are made and joined all the time."""

    __slots__ = ()

    def __truediv__(self, name: object) -> SimPath:
        return SimPath(f"{self}/{name}")

    @property
    def name(self) -> str:
        return self.rpartition("/")[2]

    @property
    def parent(self) -> SimPath:
        return SimPath(self.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        stem, dot, end = self.name.rpartition(".")
        return dot + end if stem and end else ""

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.suffix) if self.suffix else self.name

    def with_name(self, name: str) -> SimPath:
        return self.parent / name

    # looking

    def exists(self) -> bool:
        disk = disk_of(self)
        try:
            disk.look("exists", self)
        except OSError:
            return False
        return self in disk.files or self in disk.folders

    def is_dir(self) -> bool:
        return self.exists() and self in disk_of(self).folders

    def is_file(self) -> bool:
        return self.exists() and self in disk_of(self).files

    def stat(self) -> Stat:
        disk = disk_of(self)
        disk.look("stat", self)
        if self in disk.folders:
            return Stat(disk.folders[self], 0, 0o40700)
        file = disk.file(self)
        return Stat(file.mtime_s, len(file.content), 0o100600)

    def read_bytes(self) -> bytes:
        disk = disk_of(self)
        disk.look("read", self)
        return disk.file(self).content

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        text = self.read_bytes().decode(encoding or "utf-8", errors or "strict")
        return text.replace("\r\n", "\n")

    def iterdir(self) -> Iterator[SimPath]:
        disk, path = disk_of(self), str(self)
        disk.look("list", path)
        return iter([self / name for name in disk.names(path)])

    def glob(self, pattern: str) -> Iterator[SimPath]:
        fits = re.compile(translate(pattern)).fullmatch
        return iter([path for path in self.iterdir() if fits(path.name)])

    def absolute(self) -> SimPath:
        return self

    # changing

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        _ = mode
        disk, path = disk_of(self), str(self)
        if path in disk.folders:
            if exist_ok:
                return
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if parents and _parent(path) not in disk.folders:
            SimPath(_parent(path)).mkdir(parents=True, exist_ok=True)
        disk.need_folder(path)
        disk.change("mkdir", path, lambda: disk.make_folder(path), grows=True)

    def rename(self, target: SimPath | str) -> SimPath:
        disk, path, name = disk_of(self), str(self), str(target)

        def apply() -> None:
            disk.need_folder(name)
            file = disk.file(path)
            disk.put(name, file)
            disk.put(path, None)
            disk.touch_folder(path)
            disk.touch_folder(name)

        disk.change("rename", f"{path} {name}", apply)
        return SimPath(name)

    replace = rename  # type: ignore[assignment]  # a path's, which no code calls as a text's

    def unlink(self, missing_ok: bool = False) -> None:
        disk, path = disk_of(self), str(self)

        def apply() -> None:
            if path not in disk.files and missing_ok:
                return
            disk.file(path)
            disk.put(path, None)
            disk.touch_folder(path)

        disk.change("unlink", path, apply)

    def touch(self) -> None:
        with self.open("ab"):
            pass

    def write_text(self, text: str, encoding: str | None = None) -> int:
        return self.write_bytes(text.encode(encoding or "utf-8"))

    def write_bytes(self, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content)
        return len(content)

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None, **_more: Any) -> Any:
        """Reading gives a stream of what is there now; writing gives one whose content is there from its flush on."""
        if "r" in mode:
            content = self.read_bytes()
            return io.BytesIO(content) if "b" in mode else io.StringIO(content.decode(encoding or "utf-8"))
        _ = newline
        return Writing(self, mode, encoding or "utf-8")


class Writing:
    """A file that is being written."""

    def __init__(self, path: SimPath, mode: str, encoding: str) -> None:
        self.name, self._encoding, self._binary = str(path), encoding, "b" in mode
        self._disk = disk = disk_of(path)
        self._content = b""

        def apply() -> None:
            disk.need_folder(self.name)
            if "x" in mode and (self.name in disk.files or self.name in disk.folders):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.name)
            if "a" in mode and self.name in disk.files:
                self._content = disk.file(self.name).content
            disk.put(self.name, File(self._content, disk.wall_s()))
            disk.touch_folder(self.name)

        disk.change("make", self.name, apply, grows=True)
        self._written = self._content

    def write(self, what: Any) -> int:
        self._content += what if self._binary else str(what).encode(self._encoding)
        return len(what)

    def flush(self) -> None:
        if self._content == self._written:
            return

        def apply() -> None:
            if self.name in self._disk.files:  # else it was renamed or removed meanwhile, which no code of ours does
                self._disk.put(self.name, File(self._content, self._disk.wall_s()))

        self._disk.change("write", self.name, apply, grows=True)
        self._written = self._content

    def fileno(self) -> str:
        """A stand-in for the number: `SimOs.fsync` knows it."""
        return self.name

    def close(self) -> None:
        self.flush()

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()


class Entry(NamedTuple):
    """What `scandir` gives."""

    path: str
    name: str

    def stat(self) -> Stat:
        return SimPath(self.path).stat()

    def is_file(self) -> bool:
        return SimPath(self.path).is_file()


class Entries(list[Entry]):
    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""


class SimOs:
    """What node code takes from `os`; anything else is the real one's."""

    O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC = 0, 1, 64, 512

    def __init__(self, getpid: Callable[[], int]) -> None:
        self.getpid = getpid
        self.getppid: Callable[[], int] = lambda: 1

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> str:
        _ = mode
        disk_of(path).look("open", str(path))
        if not SimPath(str(path)).exists() and not flags & self.O_CREAT:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return str(path)

    def write(self, descriptor: str, content: bytes) -> int:
        """Over the beginning of the file, as a single write from offset 0."""
        disk = disk_of(descriptor)
        old = disk.files[descriptor].content if descriptor in disk.files else b""
        disk.change("write", descriptor, lambda: disk.put(descriptor, File(content + old[len(content) :], disk.wall_s())))
        return len(content)

    def close(self, _descriptor: str) -> None:
        """There is nothing to close."""

    def fsync(self, descriptor: str) -> None:
        disk_of(descriptor).flush(descriptor)

    def utime(self, path: str) -> None:
        disk, name = disk_of(path), str(path)
        disk.change("touch", name, lambda: disk.put(name, File(disk.file(name).content, disk.wall_s())))

    def listdir(self, folder: str) -> list[str]:
        disk_of(folder).look("list", str(folder))
        return disk_of(folder).names(str(folder))

    def scandir(self, folder: str) -> Entries:
        return Entries(Entry(f"{folder}/{name}", name) for name in self.listdir(folder))
