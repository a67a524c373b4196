"""`dcsup worker`: the one long-running process that an installation has on each node.

It is a parent that does little and therefore seldom dies: it forwards the outbox, keeps two child processes alive (the RQ worker of the
command queue and that of the watch queue, workers/rqworker.py), gives the node's sign of life, seeds the watch job when there is
none, settles tickets whose launcher is gone, and clears away what is old.

It may be killed at any moment. Hooks and scripts need none of it: without a worker nobody takes their tickets, and they go on with the
guide's plain sequence. Launchers under way are processes of their own and write their own end. The children notice that they
are orphans and end; facts wait on disk for the next start.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import redis

from statemachines import wire
from workers import files, logs, outbox, permissions, reaper, tickets, watch
from workers.courier import BACKOFF_LAST_S
from workers.forwarder import Forwarder
from workers.keys import Keyring
from workers.redisclient import client_of
from workers.settings import NodeConfiguration, load_node

TEND_EVERY_S = 0.1
REAP_EVERY_S = 1.0
SEED_EVERY_S = 1.0
PRUNE_EVERY_S = 600.0
RESTART_FIRST_S = 0.1
RESTART_LAST_S = 5.0
SETTLED_AFTER_S = 10.0
"""A child that lived this long did not fail at its start: its next restart is quick again."""

STOP_LIMIT_S = 5.0
"""How long children may take to end when they are told to."""

LAST_FORWARD_S = 2.0
DAMAGED_KEPT = 100
ASIDE_KEPT_S = 3600.0
_PID_DIGITS = 20


class Child:
    """One child process, started again whenever it ends; a child that fails at its start is waited for longer each time."""

    def __init__(self, role: str, config: str, log: Any) -> None:
        self.role = role
        self.process: subprocess.Popen[bytes] | None = None
        self._config, self._log = config, log
        self._wait_s = RESTART_FIRST_S
        self._begun = self._retry_at = 0.0

    def tend(self, now: float) -> bool:
        """Start it if it does not run and is due. True: a new process began."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self._ended(now, code)
        if self.process is not None or now < self._retry_at:
            return False
        self._begin(now)
        return self.process is not None

    def _ended(self, now: float, code: int) -> None:
        if now - self._begun > SETTLED_AFTER_S:
            self._wait_s = RESTART_FIRST_S
        self._log.warning("child ended; starting it again", child=self.role, code=code, after_s=round(self._wait_s, 1))
        self.process = None
        self._retry_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, RESTART_LAST_S)

    def _begin(self, now: float) -> None:
        self._begun = now
        argv = [sys.executable, "-m", "workers.rqworker", "--role", self.role, "--config", self._config, "--parent", str(os.getpid())]
        try:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        except OSError as error:
            self._log.error("cannot start child", child=self.role, error=str(error))
            self._retry_at = now + RESTART_LAST_S

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tell_to_stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def see_gone(self, until: float) -> None:
        """Wait for its end until then; after that end it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._log.warning("child did not end in time; killed", child=self.role)
            self.process.kill()
            self.process.wait()


class Every:
    """True once per period."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._next = 0.0

    def due(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + self._period_s
        return True


class Worker:
    """The parent process's loop."""

    def __init__(self, settings: NodeConfiguration, config: str, boot: str, log: Any, stopping: threading.Event) -> None:
        """Take over the node folder; whoever sets `stopping` ends it.

        Raises:
            OSError: it cannot be written.
            ValueError: the node's key is not where the configuration says.
        """
        self.node, self.cluster = settings.node, settings.cluster
        self.keys = Keyring(settings.whole, settings.node)
        self.keys.load()
        self._configuration, self._config = settings.whole, config
        self.folder, self.boot, self.log = Path(self.node.folder), boot, log
        self.client = client_of(settings.whole.redis)
        self.forwarder = Forwarder(self.folder, self.node.cluster, self.node.name, boot, self.client, log, self._tell_again)
        self.children = [Child("cmd", config, log), Child("watch", config, log)]
        self.stopping = stopping
        self._watch_may_be_lost = True
        self._watch_seen = time.monotonic()
        """When its job was last queued, or its sign of life there."""
        self._alive = Every(self.cluster.node_ttl / 4)
        self._tend, self._seed = Every(TEND_EVERY_S), Every(SEED_EVERY_S)
        self._reap, self._prune = Every(REAP_EVERY_S), Every(PRUNE_EVERY_S)
        self._pause_until = 0.0

    def run(self, lock: IO[str]) -> None:
        """Everything until told to stop, or until the folder is not the one any more whose `lock` is held; and an orderly end.

        What this process knows of a folder that was removed, or that another was put in the place of (a restored backup), is worth
        nothing: then it writes no more into it, and it must be taken over anew.
        """
        self._tell_again()
        self._say_what_is_open()
        try:
            while not self.stopping.is_set() and holds(lock, self.folder):
                self.step(time.monotonic())
                time.sleep(self.forwarder.pause_s)
        finally:
            self._end_children(lock)
        if holds(lock, self.folder):
            self._leave()
        else:
            self.log.error("the node folder was removed or replaced; taking it over anew", folder=str(self.folder))

    def step(self, now: float) -> None:
        """One round. Nothing in it may end the loop: what fails is logged and tried again next time."""
        if self._tend.due(now):
            self._tend_children(now)
        self._forward(now)
        if self._reap.due(now):
            self._guarded(self._settle_tickets, "settling tickets")
        if self._prune.due(now):
            self._guarded(self._clear_away, "clearing away")

    def _forward(self, now: float) -> None:
        """Hand facts in and give the sign of life: as long as this process runs, also while its children end."""
        self.forwarder.step()
        if self.forwarder.courier.connected and now >= self._pause_until:
            self._with_redis(now)

    def _tend_children(self, now: float) -> None:
        for child in self.children:
            if child.tend(now) and child.role == "watch":
                self._watch_may_be_lost = True

    def _guarded(self, action: Callable[[], None], what: str) -> None:
        try:
            action()
        except OSError as error:
            self.log.error(f"{what} failed", error=str(error))
        except Exception:  # our own mistake, met by something in the folder that nobody thought of: forwarding must go on
            self.log.exception(f"{what} failed")

    # -- Redis

    def _with_redis(self, now: float) -> None:
        try:
            if self._alive.due(now):
                self.client.set(wire.alive(self.node.cluster, self.node.name), json.dumps(self.sign_of_life()), px=self._ttl_ms)
            if self._seed.due(now) and not self.stopping.is_set():
                self._seed_watch()
        except redis.RedisError as error:
            self.log.debug("Redis did not answer", error=str(error))
            self._pause_until = now + BACKOFF_LAST_S

    @property
    def _ttl_ms(self) -> int:
        return int(self.cluster.node_ttl * 1000)

    def sign_of_life(self) -> dict[str, Any]:
        """The alive key's value; the counters are of this process."""
        return {
            "boot": self.boot, "pid": os.getpid(), "version": version(), "wall": time.time(), "outbox": self.forwarder.courier.pending,
            "dropped": self.forwarder.dropped, "skew_s": round(self.forwarder.courier.clock.skew_s, 6), "head": self.forwarder.head,
            "refused": self.forwarder.disk.types["CommandRefused"],
        }  # fmt: skip

    def _seed_watch(self) -> None:
        """Enqueue a watch job where none is queued, and none can be running: its process is new, or gives no sign of life.

        A job between the two may be running; if the watch stays silent, a pop of a dead connection took it there, and nobody has it. Should
        somebody have it after all: of two jobs one ends without a successor.
        """
        queue = watch.queue(self.client, self.node.cluster, self.node.name)
        queued, between, sign = self._look_for_watch(queue.key, queue.intermediate_queue_key)
        if queued or sign:
            self._watch_seen = time.monotonic()
        is_silent = not sign and (not between or time.monotonic() - self._watch_seen > self.cluster.node_ttl)
        if not queued and (is_silent or (self._watch_may_be_lost and not between)):
            watch.enqueue_window(queue, self.node.cluster, self.node.name, self.keys.signed)
            self.log.info("watch job seeded")
        self._watch_may_be_lost = False

    def _look_for_watch(self, queue: str, intermediate: str) -> tuple[int, int, int]:
        with self.client.pipeline(transaction=True) as pipe:
            pipe.llen(queue)
            pipe.llen(intermediate)
            pipe.exists(wire.watch_alive(self.node.cluster, self.node.name))
            queued, between, sign = pipe.execute()
        return queued, between, sign

    # -- the folder

    def _settle_tickets(self) -> None:
        for done in reaper.reap(self.folder, self.boot):
            self.log.warning("a launcher is gone", ticket=done.ticket, n=done.n, journal=done.state)

    def _clear_away(self) -> None:
        tickets.prune(self.folder)
        damaged = sorted((self.folder / "outbox" / "damaged").iterdir())
        for path in damaged[:-DAMAGED_KEPT]:
            files.remove(path)
        for path in self.folder.glob(f"*/{files.ASIDE}*"):  # whoever wrote it died; a living writer needs no hour
            if time.time() - path.stat().st_mtime > ASIDE_KEPT_S:
                files.remove(path)

    # -- beginning and end

    def _tell_again(self) -> None:
        """Say that this node is there, and have the watch say what it sees: at the start, and when the log lost something.

        Who leads forgets what an earlier worker saw here as soon as a worker joins; and the watch, which goes on where the last one was,
        tells only changes by itself.
        """
        self.forwarder.reporter.report("NodeJoined", {"boot": self.boot, "version": version(), "platform": platform.platform()})
        self._guarded(lambda: watch.ask_to_tell_again(self.folder), "asking the watch to tell again")

    def _say_what_is_open(self) -> None:
        """What an attacker could use; nothing is refused for it, for a worker that does not run would be the worse fault."""
        if not self.keys.is_named:
            self.log.warning("jobs are not signed: who may write to this node's queues makes it act; run `dcsup render redis`")
        permissions.tell(self._configuration, self._config, self.log)

    def _end_children(self, lock: IO[str]) -> None:
        self.log.info("stopping")
        for child in self.children:
            child.tell_to_stop()
        until = time.monotonic() + STOP_LIMIT_S
        while any(child.is_running for child in self.children) and (now := time.monotonic()) < until and holds(lock, self.folder):
            self._forward(now)
            time.sleep(self.forwarder.pause_s)
        for child in self.children:
            child.see_gone(until)

    def _leave(self) -> None:
        self.forwarder.reporter.report("NodeLeft", {"reason": "told to stop"})
        self.forwarder.drain(LAST_FORWARD_S)


def version() -> str:
    """dcsup's version as installed."""
    try:
        return importlib.metadata.version("dcsup")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def lock_folder(folder: Path) -> IO[str]:
    """Take the folder for this process; the lock lasts as long as the returned file is open, and no longer than the process.

    Raises:
        OSError: another worker has it, or it cannot be written.
    """
    lock = (folder / "worker.lock").open("a+", encoding="ascii")
    try:
        _lock(lock)
    except OSError:
        lock.seek(0)
        holder = lock.read(_PID_DIGITS).strip("\0\n")
        lock.close()
        raise OSError(f"{folder}: another dcsup worker runs with this folder (pid {holder or 'unknown'})") from None
    _sign(lock)
    return lock


def _sign(lock: IO[str]) -> None:
    """Whose it is, for people; the lock itself is what counts, and needs no room on the disk."""
    try:
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{os.getpid()}\n".encode("ascii"))
    except OSError:
        pass


def _lock(lock: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        lock.seek(0)
        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holds(lock: IO[str], folder: Path) -> bool:
    """Whether the folder's lock is the one that this process has: nobody removed the folder, or put another in its place."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (folder / "worker.lock").stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # a disk that does not answer just now is no other folder


def prepare_folder(folder: Path) -> None:
    """Make the node folder and what is in it: for this user alone, if it is new; whose folder it was before is left as it is.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in ("outbox", "tickets", "journal", "watch"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def run(config_path: str | Path) -> int:
    """Be the node's worker until told to stop.

    Returns:
        The exit code: 0 told to stop, 2 the configuration or the node folder is not usable (said on standard error).
    """
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            _run_once(config_path, stopping)
        except (ValueError, OSError) as error:
            print(f"dcsup worker: {error}", file=sys.stderr)  # noqa: T201
            return 2
    return 0


def _run_once(config_path: str | Path, stopping: threading.Event) -> None:
    """Take over the node folder, and work for as long as it is there."""
    settings = load_node(config_path)
    folder = Path(settings.node.folder)
    prepare_folder(folder)
    with lock_folder(folder) as lock:
        boot = outbox.boot_id(list(settings.node.boot) if settings.node.boot else None)
        log = logs.configure("worker", settings.node.name)
        worker = Worker(settings, str(config_path), boot, log, stopping)
        log.info("worker started", pid=os.getpid(), cluster=settings.node.cluster, folder=str(folder), boot=boot)
        worker.run(lock)
    log.info("worker stopped")
