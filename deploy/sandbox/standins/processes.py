"""Which processes belong to a node, and how its power is cut.

Everything on a node carries ``SANDBOX_NODE=<sandbox id>/<node>`` in its environment, inherited from what was started there first; sessions,
groups and parents say nothing, for services leave them. Where a system hides the environment of its own programs (macOS
does for ``/bin/sh``), a process counts that was started from a path inside the node's folder, or whose parent counts.

A machine without power does nothing more at all: so everything is stopped first, until nothing new appears, and only then killed.
"""

from __future__ import annotations

import os
import time

import psutil

MARK = "SANDBOX_NODE"
SHELLS = ("sh", "bash", "dash", "zsh", "ksh")


def of(mark: str, folder: str) -> list[psutil.Process]:
    """All living processes whose mark is ``mark`` or begins with ``mark/``, never the caller itself.

    Args:
        mark: ``<sandbox id>/<node>``, or ``<sandbox id>`` for everything in the sandbox.
        folder: the folder of that node or sandbox.
    """
    found = {process.pid: process for process in psutil.process_iter() if _belongs(process, mark, folder)}
    for process in list(found.values()):
        found |= {child.pid: child for child in _descendants(process)}
    found.pop(os.getpid(), None)
    return list(found.values())


def kill_one(mark: str, folder: str, pid: int) -> None:
    """Kill the process with this id if it is one of these: never a stranger who was given the number later."""
    try:
        process = psutil.Process(pid)
        if _belongs(process, mark, folder):
            process.kill()
    except psutil.Error:
        pass  # gone by itself


def command_lines(mark: str, folder: str) -> list[str]:
    """``<pid> <command line>`` of all these processes."""
    lines = []
    for process in of(mark, folder):
        try:
            lines.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue  # gone meanwhile
    return lines


def kill(mark: str, folder: str, timeout_s: float = 20.0) -> int:
    """Cut the power: SIGSTOP for all, then SIGKILL for all, until none is left. Gives the number of processes killed.

    Raises:
        TimeoutError: something is still there after ``timeout_s`` seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while processes := _stopped(mark, folder):
        killed |= {process.pid for process in processes}
        _signal(processes, "kill")
        _wait_until_gone(processes, deadline)
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive: {processes}")
    return len(killed)


def pause(mark: str, folder: str) -> None:
    """Stop everything where it stands."""
    _stopped(mark, folder)


def resume(mark: str, folder: str) -> None:
    """Let everything go on."""
    _signal(of(mark, folder), "resume")


def _stopped(mark: str, folder: str) -> list[psutil.Process]:
    """All processes, stopped; looked for until no new one appears, for one may have been born meanwhile."""
    known: set[int] = set()
    while True:
        processes = of(mark, folder)
        new = [process for process in processes if process.pid not in known]
        if not new:
            return processes
        _signal(new, "suspend")
        known |= {process.pid for process in new}


def _signal(processes: list[psutil.Process], method: str) -> None:
    for process in processes:
        try:
            getattr(process, method)()
        except psutil.NoSuchProcess:
            pass  # gone by itself


def _wait_until_gone(processes: list[psutil.Process], deadline: float) -> None:
    while any(_living(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


def _living(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _living(child)]
    except psutil.NoSuchProcess:
        return []


def _belongs(process: psutil.Process, mark: str, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        value = _mark(process)
        if value is not None:
            return value == mark or value.startswith(mark + "/")
        return _started_from(folder, process.cmdline())
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or somebody else's


def _started_from(folder: str, words: list[str]) -> bool:
    """Whether a command line is that of a program in ``folder``, or of a shell that runs a script there."""
    program, script = [*words, "", ""][:2]
    return program.startswith(folder + os.sep) or (os.path.basename(program) in SHELLS and script.startswith(folder + os.sep))


def _mark(process: psutil.Process) -> str | None:
    """The process's mark, '' if it has none, None if its environment cannot be seen."""
    try:
        environment = process.environ()
    except psutil.AccessDenied:
        return None
    return environment.get(MARK, "") if environment else None


def main(argv: list[str]) -> int:
    """Cut the power of the node with mark ``argv[0]`` in folder ``argv[1]``: what a shutdown by the cluster manager comes to here."""
    kill(argv[0], argv[1])
    return 0
