"""Process groups: start one, see whether it lives, end it and see it gone.

A command of the site (`dcserver start`) may start further processes. NODE.md N3 asks that none of them outlives its launcher unseen, so
the launcher leads a process group of its own, and the group lives while any member that is not a zombie lives; a daemon that the command
started on purpose leaves the group with setsid(), as services do. A bare process id is no name: ids are reused. So each
process is named by id and *birth* (N4): one token that says when it began. Another birth behind an id means that the
process is gone, and what runs there now is a stranger that is never touched.

What cannot be told apart: a group whose leader is gone, and members left over from a later group whose leader had the same id and is gone
too. The system does not give an id to a new process while a group of that name has members, so this needs a full wrap of the ids between.

Linux is read through /proc; other POSIX systems through `ps` (births there have a resolution of one second). deploy/clusterpro/linux/lib.sh
does the same in sh, and both must print the same birth for the same process.

Windows: the launcher puts itself into a Job Object with kill-on-close; when it is ended, the system ends what it started. **That branch
has never been run**: it is written after the API's documentation, and kept small for that reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

_PAUSE_S = 0.02
"""Between two looks at whether something is gone."""

_PID_LAST = 2**31 - 1
"""The highest process id that a system call takes; a damaged name or file may hold any number."""

_PS_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC0"}
"""`ps` prints births in the caller's language and time zone; a service and a script may have different ones."""


class Process(NamedTuple):
    pid: int
    group: int
    zombie: bool


if sys.platform == "win32":  # never run: see above
    import ctypes
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.OpenProcess.restype = wintypes.HANDLE
    _kernel.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel.GetCurrentProcess.restype = wintypes.HANDLE
    _QUERY, _TERMINATE, _SYNCHRONIZE = 0x1000, 0x0001, 0x00100000
    _EXTENDED_LIMITS, _KILL_ON_CLOSE, _TIMED_OUT = 9, 0x2000, 0x102
    _job: int | None = None

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64), ("PerJobUserTimeLimit", ctypes.c_int64), ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t), ("MaximumWorkingSetSize", ctypes.c_size_t), ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t), ("PriorityClass", wintypes.DWORD), ("SchedulingClass", wintypes.DWORD),
        )  # fmt: skip

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits), ("IoInfo", ctypes.c_uint64 * 6), ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t), ("PeakProcessMemoryUsed", ctypes.c_size_t), ("PeakJobMemoryUsed", ctypes.c_size_t),
        )  # fmt: skip

    def _is_running(handle: int) -> bool:
        return bool(_kernel.WaitForSingleObject(wintypes.HANDLE(handle), 0) == _TIMED_OUT)

    def born(pid: int) -> str | None:
        handle = _kernel.OpenProcess(_QUERY | _SYNCHRONIZE, False, pid)
        if not handle:
            return None
        try:
            times = [wintypes.FILETIME() for _ in range(4)]
            if not _is_running(handle) or not _kernel.GetProcessTimes(wintypes.HANDLE(handle), *map(ctypes.byref, times)):
                return None
            return str((times[0].dwHighDateTime << 32) + times[0].dwLowDateTime)
        finally:
            _kernel.CloseHandle(wintypes.HANDLE(handle))

    def alive(pid: int, birth: str) -> bool:
        return born(pid) == birth

    def group_alive(pid: int, birth: str) -> bool:
        return 0 < pid <= _PID_LAST and alive(pid, birth)

    def _end_group(pid: int) -> None:
        handle = _kernel.OpenProcess(_TERMINATE, False, pid)
        if handle:
            _kernel.TerminateProcess(wintypes.HANDLE(handle), 1)
            _kernel.CloseHandle(wintypes.HANDLE(handle))

    def lead_group() -> None:
        """Put this process into a job that ends with it; the handle is kept open on purpose until the process ends."""
        global _job
        _job = _kernel.CreateJobObjectW(None, None)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_CLOSE
        handle = wintypes.HANDLE(_job)
        if not _kernel.SetInformationJobObject(handle, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)):
            raise OSError(ctypes.get_last_error(), "no job object with kill-on-close")
        if not _kernel.AssignProcessToJobObject(handle, wintypes.HANDLE(_kernel.GetCurrentProcess())):
            raise OSError(ctypes.get_last_error(), "this process cannot be put into a job object")

    def end_others(child: subprocess.Popen[bytes]) -> None:
        """End `child` and what it started."""
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        child.wait()

    def end_tree(child: subprocess.Popen[bytes]) -> list[subprocess.Popen[bytes]]:
        """As `end_others`, without waiting; returns what does it, to be polled until it has ended."""
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            return [subprocess.Popen(["taskkill", "/F", "/T", "/PID", str(child.pid)], **quiet)]
        except OSError:
            child.kill()
            return []

else:

    def born(pid: int) -> str | None:
        """When process `pid` began, as one token of letters and digits; None when there is no such process."""
        if _has_proc():
            fields = _proc_fields(pid)
            return fields[19] if fields else None
        return _born_by_ps(pid)

    def alive(pid: int, birth: str) -> bool:
        """Whether the process that began at `birth` runs; a zombie does not."""
        if born(pid) != birth:
            return False
        if _has_proc():
            fields = _proc_fields(pid)
            return bool(fields) and fields[0] not in "ZX"
        return any(process.pid == pid and not process.zombie for process in _processes())

    def group_alive(pid: int, birth: str) -> bool:
        """Whether the group that was led by process (`pid`, `birth`) has a member that is not a zombie."""
        if not 1 < pid <= _PID_LAST:
            return False  # kill(-1) and kill(-0) mean something else altogether, and the system has no higher ones
        now = born(pid)
        if now is not None and now != birth:
            return False
        return alive(pid, birth) or bool(_members(pid))

    def _end_group(pid: int) -> None:
        # Some systems answer "not permitted" for a group of which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def lead_group() -> None:
        """Make this process the leader of a group of its own, if it is not yet."""
        if os.getpgrp() != os.getpid():
            os.setsid()

    def end_others(child: subprocess.Popen[bytes]) -> None:
        """End every other member of this process's own group, and return when they are seen gone.

        A member in an uninterruptible wait makes this wait too: as long as it lives, the command is under way.
        """
        while others := [pid for pid in _members(os.getpgrp()) if pid != os.getpid()]:
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.poll()
            time.sleep(_PAUSE_S)

    def end_tree(child: subprocess.Popen[bytes]) -> list[subprocess.Popen[bytes]]:
        """Tell the group that `child` leads to end, without waiting; on this system no process is needed for that."""
        _end_group(child.pid)
        return []

    def _has_proc() -> bool:
        return Path("/proc/self/stat").exists()

    def _proc_fields(pid: int) -> list[str]:
        """The fields of /proc/PID/stat from `state` on (the name before it may hold anything); empty: no such process."""
        try:
            return Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
        except OSError:
            return []

    def _members(group: int) -> list[int]:
        try:
            os.killpg(group, 0)  # most groups that are asked about are long gone, and this says so without reading every process
        except ProcessLookupError:
            return []
        except PermissionError:
            pass
        return [process.pid for process in _processes() if process.group == group and not process.zombie]

    def _processes() -> Iterable[Process]:
        if not _has_proc():
            yield from map(_parse_ps_line, _ps("-A", "-o", "pid=", "-o", "pgid=", "-o", "stat=").splitlines())
            return
        for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted, several hundred of them, many times a second
            if name.isdigit() and (fields := _proc_fields(int(name))):
                yield Process(int(name), int(fields[2]), fields[0] in "ZX")

    def _parse_ps_line(line: str) -> Process:
        pid, group, state = line.split()[:3]
        return Process(int(pid), int(group), state.startswith("Z"))

    def _born_by_ps(pid: int) -> str | None:
        return "".join(letter for letter in _ps("-o", "lstart=", "-p", str(pid)) if letter.isascii() and letter.isalnum()) or None

    def _ps(*arguments: str) -> str:
        environment = {**os.environ, **_PS_ENVIRONMENT}
        # In a group of its own: who lists the members of our group must not be one of them.
        return subprocess.run(
            ["ps", *arguments], capture_output=True, text=True, errors="replace", env=environment, check=False, start_new_session=True
        ).stdout


def kill_group(pid: int, birth: str, see_gone_s: float = 10.0) -> bool:
    """End the group led by process (`pid`, `birth`) and return when it is seen gone.

    Args:
        see_gone_s: how long to look, in seconds, >= 0.

    Returns:
        True: it is gone (also when it was gone before, or the id belongs to a stranger, who is left alone). False: still there.
    """
    give_up = time.monotonic() + see_gone_s
    while group_alive(pid, birth):
        _end_group(pid)
        if time.monotonic() >= give_up:
            return not group_alive(pid, birth)
        time.sleep(_PAUSE_S)
    return True


def spawn_leader(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start `argv` as the leader of a group and session of its own; `options` go to `subprocess.Popen`.

    Raises:
        OSError: it cannot be started.
    """
    if sys.platform == "win32":
        return subprocess.Popen(argv, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP, **options)
    return subprocess.Popen(argv, start_new_session=True, **options)


def exit_code(returned: int) -> int:
    """A process's end as a shell tells it: a signal N is 128 + N."""
    return returned if returned >= 0 else 128 - returned


def run_limited(argv: list[str], limit_s: float, keep_waiting: Callable[[], bool] = lambda: True, *, leader: bool = True) -> int | None:
    """Run a question such as `dcstatus` and return its exit code.

    Args:
        limit_s: after this it is ended with everything that it started, in seconds.
        keep_waiting: asked every 50 ms; when it says False, the question is ended too.
        leader: give it a group of its own. False: it stays in ours, for a caller that is ended as a group.

    Returns:
        The exit code; None when it gave none: not in time, or no longer wanted. None is *unknown*, never a failure.

    Raises:
        OSError: it cannot be started.
    """
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = spawn_leader(argv, **quiet) if leader else subprocess.Popen(argv, **quiet)
    give_up = time.monotonic() + limit_s
    while True:
        try:
            return exit_code(child.wait(0.05))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= give_up or not keep_waiting():
                break
    if leader:
        _end_child_group(child)
    else:
        end_others(child)
    return None


def _end_child_group(child: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        end_others(child)
    else:
        _end_group(child.pid)
        child.wait()
