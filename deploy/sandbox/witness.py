"""A witness of the nodes' outboxes: every fact that ever reached a node's disk, and the number it was given, seen from outside.

A fact lives a few hundredths of a second: written, numbered, handed in, taken into the log, deleted. Whoever wants to know that none was
lost must have seen all of them, and not by asking those who might have lost one. So the kernel is asked (inotify): it tells of each
rename in `outbox/` and `outbox/numbered/`, in order, and both halves of a rename carry the same cookie. Each is written down as it
is told, in `records/outbox.jsonl`:

    written    a fact has its final name in the outbox; `content` is the file's, or null if it was gone before we could read it
    numbered   that name became number `seq` of stream `stream`
    damaged    that name was put aside as unreadable
    overflow   the kernel lost count: from here on the witness is blind, and says so

It needs Linux. The folders are made before anybody else does, for only a folder that is there can be watched.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from deploy.sandbox.standins import records

MOVED_FROM, MOVED_TO, OVERFLOW = 0x40, 0x80, 0x4000
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16
PARTS = ("outbox", "outbox/numbered", "outbox/damaged")


def available() -> bool:
    """Whether this system has what a witness needs."""
    return sys.platform == "linux"


class Witness:
    """Watches from its making until `close`.

    Args:
        folders: node -> its node folder.
        path: where it writes down what it sees.

    Raises:
        OSError: the kernel refuses to tell.
    """

    def __init__(self, folders: Mapping[str, Path], path: Path) -> None:
        self._path, self._folders = str(path), dict(folders)
        self._library = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._watched: dict[int, tuple[str, str]] = {}
        for node, folder in folders.items():
            for part in PARTS:
                self._watch(node, folder, part)
        self._moving: dict[int, tuple[str, str]] = {}
        """Cookie -> node, and the name that left the outbox."""
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write down what was told up to now, and end; once."""
        if not self._thread.is_alive():
            return
        os.write(self._waker, b".")
        self._thread.join()
        for descriptor in (self._inotify, self._wake, self._waker):
            os.close(descriptor)

    def _watch(self, node: str, folder: Path, part: str) -> None:
        (folder / part).mkdir(parents=True, exist_ok=True)
        watch = self._library.inotify_add_watch(self._inotify, os.fsencode(folder / part), MOVED_FROM | MOVED_TO)
        if watch < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {folder / part}")
        self._watched[watch] = (node, part)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        closing = False
        while not closing:
            closing = any(descriptor == self._wake for descriptor, _ in poll.poll())
            self._read()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._inotify, _BUFFER_BYTES)
            except BlockingIOError:
                return
            place = 0
            while place < len(data):
                watch, mask, cookie, length = _HEAD.unpack_from(data, place)
                place += _HEAD.size
                name = data[place : place + length].rstrip(b"\0").decode(errors="replace")
                place += length
                self._told(watch, mask, cookie, name)

    def _told(self, watch: int, mask: int, cookie: int, name: str) -> None:
        if mask & OVERFLOW:
            self._note("overflow", None)
            return
        node, part = self._watched.get(watch, ("", ""))
        if part == "outbox" and mask & MOVED_FROM:
            self._moving[cookie] = (node, name)
        elif part == "outbox":
            self._moving.pop(cookie, None)  # it left the outbox under the name that it was prepared under
            if name.endswith((".fact", ".line")):
                self._note("written", node, name=name, content=_text(self._folders[node] / part / name))
        elif part == "outbox/numbered" and mask & MOVED_TO and cookie in self._moving:
            stream = _text(self._folders[node] / "outbox" / "stream")
            self._note("numbered", node, name=self._moving.pop(cookie)[1], stream=stream, seq=int(name.partition(".")[0]))
        elif part == "outbox/damaged" and mask & MOVED_TO:
            self._moving.pop(cookie, None)
            self._note("damaged", node, name=name)

    def _note(self, what: str, node: str | None, **fields: object) -> None:
        records.append(self._path, {"time": time.time(), "what": what, "node": node, **fields})


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return None
