"""What the daemons of DataCoordinator and of the DBMS have in common: how they leave their caller, prove that they live, and listen.

A daemon is recognised by a lock, not by its PID: ``<node>/run/<component>.lock`` is locked by the command that starts the daemon
and inherited by it, so that of two starts at the same moment one is refused, and the lock is free the moment the process is gone,
however it went. A second lock of the kind, ``disk.lock``, is shared by everything that has files open on the switchable disk.
"""

from __future__ import annotations

import fcntl
import os
import socketserver
import sys
import threading
import time
from collections.abc import Callable

from .place import LOOPBACK, Place

DISK_CHECK_INTERVAL_S = 0.5
PROGRAMS = {"server": "dc_server", "agent": "dc_agent", "metadata": "dc_metadata", "dbms": "dbms"}
"""Component -> the module that is its daemon."""


def lock(place: Place, component: str, *, shared: bool = False) -> int | None:
    """Take ``component``'s lock on this node: the open descriptor, or None if another process has it."""
    descriptor = os.open(place.path("run", f"{component}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def running(place: Place, component: str) -> bool:
    """Whether a process of ``component`` lives on this node, healthy or not."""
    descriptor = lock(place, component)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def launch(place: Place, component: str, verb: str, descriptor: int) -> None:
    """Start the daemon of ``component`` in a session of its own, as a child of init; it inherits the lock ``descriptor``."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    _redirect(place.path("log", f"{component}.log"))
    os.set_inheritable(descriptor, True)
    run = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_run.py")
    os.execv(sys.executable, [sys.executable, "-I", "-S", run, PROGRAMS[component], place.folder, verb, str(descriptor)])


def _redirect(log: str) -> None:
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)


class Daemon:
    """One daemon's life: it listens at once, is healthy later, and ends by ``end`` or with the loss of its disk.

    Subclasses answer a line of the protocol in ``answer`` and do their work in ``begin``.
    """

    component = ""

    def __init__(self, place: Place, verb: str) -> None:
        self.place = place
        self.verb = verb
        self.healthy = False
        self.ending = threading.Event()
        self._disk_lock = lock(place, "disk", shared=True)  # held until this process is gone

    def begin(self) -> None:
        """What must happen before the daemon is healthy; runs beside the listener."""

    def answer(self, line: str) -> str:
        """Answer one line of the protocol."""
        raise ValueError(f"unknown request: {line}")

    def serve(self) -> int:
        """Listen until the process is ended."""
        with open(self.place.path("run", f"{self.component}.pid"), "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        threading.Thread(target=self._live, daemon=True).start()
        try:
            with listener(self.place.ports[self.component], self.answer) as server:
                server.serve_forever(poll_interval=5)
        except OSError as error:
            self.end(f"cannot listen: {error}")
        return 0

    def _live(self) -> None:
        started = time.monotonic()
        self.place.record("daemons", "started", component=self.component, verb=self.verb, pid=os.getpid())
        try:
            self.begin()
            self.ending.wait(max(0.0, started + self.place.fault_seconds(f"start-seconds-{self.component}") - time.monotonic()))
            if not self.ending.is_set():
                self.ready()
        except OSError as error:
            self.end(f"start failed: {error}")
        while not self.ending.wait(DISK_CHECK_INTERVAL_S):
            self.check_disk()

    def ready(self) -> None:
        """The start is over: answer as healthy from now on."""
        self.healthy = True
        self.place.record("daemons", "healthy", component=self.component, verb=self.verb, pid=os.getpid())

    def check_disk(self) -> None:
        """A node that lost the disk (preempted, or detached by force) gets an I/O error, and a daemon that gets one ends."""
        if not self.place.attached():
            self.end("the switchable disk is gone")

    def end(self, reason: str) -> None:
        """Write down why, and be gone."""
        self.place.record("daemons", "ended", component=self.component, pid=os.getpid(), reason=reason)
        os._exit(0)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        try:
            for raw in self.rfile:
                self.wfile.write(self._answer(raw).encode() + b"\n")
        except OSError:
            pass  # the client is gone; that is its own affair

    def _answer(self, raw: bytes) -> str:
        assert isinstance(self.server, _Server)
        try:
            return self.server.answer(raw.decode().rstrip("\r\n"))
        except (ValueError, KeyError) as error:
            return f"ERROR bad request: {error}"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, answer: Callable[[str], str]) -> None:
        self.answer = answer
        super().__init__((LOOPBACK, port), _Handler)


def listener(port: int, answer: Callable[[str], str]) -> socketserver.ThreadingTCPServer:
    """A TCP server on loopback which answers each line with a line; an OSError of ``answer`` closes that connection."""
    return _Server(port, answer)
