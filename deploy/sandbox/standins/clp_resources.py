"""The resources of a failover group, each with a start and a stop: floating IP, shared disk, script, resident applications.

They depend on each other in the order fip1, sd1, script1, appli-<service>; the group starts them in that order and stops them in
reverse. Every start and stop leaves a begin and an end in ``records/cluster.jsonl``.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from typing import IO, Any

from .dc_daemon import lock
from .place import Place, ask_json

DISK_HELD_WAIT_S = 3.0
VERSION = "4.3.0-1"


class Failed(Exception):
    """A resource could not be started or stopped; the text says why."""


class FloatingIp:
    """``fip1``: the address announced by this node."""

    name = "fip1"

    def __init__(self, place: Place) -> None:
        self._place = place

    def start(self) -> None:
        """Announce the address as this node's."""
        self._tell("claim")

    def stop(self) -> None:
        """Give the address up."""
        self._tell("release")

    def _tell(self, op: str) -> None:
        try:
            answer = ask_json(self._place.settings["network"]["control"], {"op": op, "node": self._place.node})
        except OSError as error:
            raise Failed(f"the network does not answer: {error}") from error
        if not answer["ok"]:
            raise Failed(answer["error"])


class SharedDisk:
    """``sd1``: the switchable disk, attached while the link ``<node>/disk`` exists."""

    name = "sd1"

    def __init__(self, place: Place) -> None:
        self._place = place

    def start(self) -> None:
        """Attach the disk; what another node still holds is preempted.

        Raises:
            Failed: the fault ``attach-fails`` is set.
        """
        if self._place.fault("attach-fails") is not None:
            raise Failed("the partition cannot be attached")
        for other in self._place.settings["nodes"]:
            if other != self._place.node and self._unlink(os.path.join(self._place.base, other, "disk")):
                self._place.record("cluster", "disk-preempted", peer=other)
        self._unlink(self._place.disk)
        os.symlink(os.path.join(self._place.base, "shared"), self._place.disk)

    def stop(self) -> None:
        """Detach the disk. If something has files open there it is waited for, and then the disk goes by force."""
        if not self._free_within(DISK_HELD_WAIT_S):
            self._place.record("cluster", "disk-held", resource=self.name, forced=True)
        self._unlink(self._place.disk)

    def _free_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while (descriptor := lock(self._place, "disk")) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        os.close(descriptor)
        return True

    @staticmethod
    def _unlink(path: str) -> bool:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True


class Script:
    """``script1``: start.sh and stop.sh, run to their end; the exit code is judged against the normal return value, if one is set."""

    name = "script1"

    def __init__(self, place: Place) -> None:
        self._place = place

    def environment(self, clp: dict[str, str]) -> dict[str, str]:
        """The whole environment of a script: the daemon's own, what is the same for every script, and ``clp``."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("CLP_")}
        return own | script_constants(self._place, self.name) | clp

    def run(self, name: str, clp: dict[str, str]) -> None:
        """Run ``start.sh`` or ``stop.sh``.

        Raises:
            Failed: it could not be run, outlived its time limit, or ended with another code than the normal return value.
        """
        environment = self.environment(clp)
        run: dict[str, Any] = {"script": name, "environment": {key: value for key, value in environment.items() if key.startswith("CLP_")}}
        self._place.record("cluster", "script-begin", **run)
        began = time.monotonic()
        pid, code, reason = self._run(self._place.path("scripts", name), environment)
        self._place.record("cluster", "script-end", **run, pid=pid, code=code, reason=reason, seconds=time.monotonic() - began)
        normal = self._place.settings["normal_return_value"]
        if reason or (normal is not None and code != normal):
            raise Failed(reason or f"{name} ended with {code}")

    def _run(self, path: str, environment: dict[str, str]) -> tuple[int | None, int | None, str]:
        """PID, exit code, and what went wrong."""
        try:
            process = spawn(self._place, [path], environment, self.name)
        except OSError as error:
            return None, None, str(error)
        try:
            return process.pid, process.wait(self._place.settings["script_timeout_s"]), ""
        except subprocess.TimeoutExpired:
            process.kill()  # the script itself, not its children: the product ends the interpreter it started
            process.wait()
            return process.pid, None, "timeout"


class Resident:
    """``appli-<service>``: the watch script of one service, which is expected to stay."""

    def __init__(self, place: Place, service: str) -> None:
        self._place = place
        self.service = service
        self.name = f"appli-{service}"
        self.monitor = f"appliw-{service}"
        self.process: subprocess.Popen[bytes] | None = None
        self.detected = False

    def start(self, clp: dict[str, str]) -> None:
        """Launch the watch script; being launched is all that a resident application needs for being online."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("CLP_")}
        environment = own | script_constants(self._place, self.name) | clp
        try:
            self.process = spawn(self._place, [self._place.path("scripts", "watch.sh"), self.service], environment, self.name)
        except OSError as error:
            raise Failed(str(error)) from error
        self.detected = False
        self._place.record("cluster", "resident-started", resource=self.name, pid=self.process.pid)

    def stop(self) -> None:
        """End the process itself; as on Windows, its children stay behind."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None


def script_constants(place: Place, resource: str) -> dict[str, str]:
    """The CLP_ variables that are the same at every run of a resource's scripts on one node."""
    priority = list(place.settings["nodes"]).index(place.node) + 1
    return {
        "CLP_GROUPNAME": place.settings["group"],
        "CLP_RESOURCENAME": resource,
        "CLP_SERVER": "HOME" if priority == 1 else "OTHER",
        "CLP_PRIORITY": str(priority),
        "CLP_SCRIPT_PATH": place.path("scripts"),
        "CLP_PATH": place.path("clp"),
        "CLP_VERSION_FULL": VERSION,
        "CLP_VERSION_MAJOR": VERSION.split(".")[0],
        "CLP_OSNAME": platform.system(),
        "CLP_OSVER": platform.release(),
    }


def spawn(place: Place, argv: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, from the product's folder as the real one does, its output in ``<node>/log``.

    Raises:
        OSError: it cannot be started.
    """
    output: IO[bytes]
    with open(place.path("log", f"{log}.log"), "ab") as output:
        return subprocess.Popen(
            argv,
            env=environment,
            cwd=place.path("clp", "bin"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
