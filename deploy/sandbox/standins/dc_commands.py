"""The commands of a DataCoordinator installation and of the databases beside it.

===========================  =======================================================================================================
``server/bin``               dcserver VERB, dcstatus, dcschedules, dcmetaopen
``agent/bin``                dcagent VERB, dcstatus
``metadata/bin``             metastart, metastop, metastatus: the operating system's service of the metadata DB (G33, G44)
``dbms/bin``                 dbstart, dbstop, dbstatus: the DBMS that an agent connects to (G2, G24)
===========================  =======================================================================================================

Each is a short shell wrapper in that folder of its node and ends up here. Exit codes: 0 good, 1 not (with the reason on stderr), 2 wrong
usage, or whatever a fault says:

- ``fail-<component>-<verb>``: end with that code and do nothing (the verb may be the status command's name);
- ``hang-<component>-<verb>``: hang before doing anything, as long as the fault stands;
- ``disk-held``: a stop leaves the metadata DB server running, also when the disk is then taken from it by force.

Every call that starts or stops something leaves two lines in ``records/verbs.jsonl``: ``begin``, with its chain of parents, and ``end``
with the exit code; both carry the same ``pid`` and ``begin``. A call that was killed has no ``end``.
"""

from __future__ import annotations

import json
import os
import sys
import time

from . import records
from .place import Place, ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START_VERBS = ("start", "recover")
STOP_VERBS = ("stop", "faststop")
SERVICE_VERBS = {"metastart": "start", "metastop": "stop", "dbstart": "start", "dbstop": "stop"}
"""Commands that are a verb by themselves."""
DATABASES = ("metadata", "dbms")
STOP_TIMEOUT_S = 600.0
END_TIMEOUT_S = 10.0


class Refused(Exception):
    """The command cannot do what was asked; the text says why."""


def main(argv: list[str]) -> int:
    """Run: component, command, node folder, and the caller's own arguments."""
    component, command, folder, *arguments = argv
    place = Place(folder)
    try:
        if command in ("dcstatus", "metastatus", "dbstatus"):
            return _status(place, component, command)
        if command == "dcschedules":
            return _schedules(place)
        if command == "dcmetaopen":
            return _open_metadata(place)
        return _recorded_verb(place, component, command, arguments)
    except (Refused, OSError) as reason:
        print(f"{command}: {reason}", file=sys.stderr)
        return 1


def _status(place: Place, component: str, command: str) -> int:
    began = time.time()
    code = _faulty(place, component, command)
    if code is None:
        code, answer = _service_state(place) if command == "metastatus" else _asked_status(place, component)
        print(answer)
    place.record("status", command, component=component, code=code, begin=began, pid=os.getpid(), parent=os.getppid())
    return code


def _service_state(place: Place) -> tuple[int, str]:
    """What the operating system knows of a service: whether it runs, not whether it answers."""
    from . import dc_daemon

    return (0, "running") if dc_daemon.running(place, "metadata") else (1, "stopped")


def _asked_status(place: Place, component: str) -> tuple[int, str]:
    try:
        answer = ask(place.ports[component], "STATUS", 5.0)
    except OSError as error:
        return 1, f"{component} does not answer: {error}"
    return (0 if answer == "healthy" else 1), answer


def _schedules(place: Place) -> int:
    answer = ask(place.ports["server"], "SCHEDULES", 5.0)
    if not answer.startswith("["):
        raise Refused(f"the server is not serving: {answer or 'no answer'}")
    for name, mode, state in json.loads(answer):
        print(json.dumps({"name": name, "startup_mode": mode, "state": state}, ensure_ascii=False))
    return 0


def _open_metadata(place: Place) -> int:
    """Try to open the metadata DB's file from this node: the proof that a standby cannot."""
    import sqlite3  # a quick dcstatus should not pay for it

    try:
        connection = sqlite3.connect(f"file:{place.metadata}?mode=rw", uri=True)
        print(connection.execute("SELECT count(*) FROM schedules").fetchone()[0])
    except sqlite3.Error as error:
        raise Refused(f"cannot open {place.metadata}: {error}") from error
    return 0


def _recorded_verb(place: Place, component: str, command: str, arguments: list[str]) -> int:
    words = [SERVICE_VERBS[command], *arguments] if command in SERVICE_VERBS else arguments
    verb, began, code = words[0] if words else "", time.time(), 1
    common = {"component": component, "verb": verb, "pid": os.getpid(), "begin": began}
    place.record("verbs", "begin", **common, argv=[command, *arguments], chain=_chain(place))
    try:
        if verb not in START_VERBS + STOP_VERBS or len(words) != 1:
            code = 2
            print(f"usage: {command}" + ("" if command in SERVICE_VERBS else " start|recover|stop|faststop"), file=sys.stderr)
        else:
            code = _verb(place, component, verb)
    finally:
        place.record("verbs", "end", **common, end=time.time(), code=code)
    return code


def _chain(place: Place) -> list[dict[str, Any]]:
    return records.parent_chain(os.getpid(), place.settings["driver"])


def _verb(place: Place, component: str, verb: str) -> int:
    code = _faulty(place, component, verb)
    if code is not None:
        print(f"{component} {verb}: failed", file=sys.stderr)
        return code
    if verb in START_VERBS:
        _start(place, component, verb)
    else:
        _stop(place, component, verb)
    return 0


def _faulty(place: Place, component: str, verb: str) -> int | None:
    """Play the faults set for this command: the exit code to end with, or None to go on."""
    while place.fault(f"hang-{component}-{verb}") is not None:
        time.sleep(0.2)
    code = place.fault(f"fail-{component}-{verb}")
    return None if code is None else int(code or 1)


def _start(place: Place, component: str, verb: str) -> None:
    from . import dc_daemon  # a quick dcstatus should not pay for it

    if not place.attached():
        raise Refused(f"the switchable disk is not attached to this node ({place.disk})")
    descriptor = dc_daemon.lock(place, component)
    if descriptor is None:
        raise Refused(f"the {component} is running already on this node")
    if component == "server" and place.settings["metadata_by_server"]:
        # G44: the guide has the metadata DB started 'by the cluster software' and shows no script that does; here the server's start does.
        metadata = dc_daemon.lock(place, "metadata")
        if metadata is not None:
            dc_daemon.launch(place, "metadata", verb, metadata)
    dc_daemon.launch(place, component, verb, descriptor)


def _stop(place: Place, component: str, verb: str) -> None:
    from . import dc_daemon

    if component == "metadata" and place.fault("disk-held") is not None:
        return
    if dc_daemon.running(place, component):
        _ask_to_end(place, component, verb)
    elif not place.attached():
        raise Refused(f"the switchable disk is not attached to this node ({place.disk})")
    else:
        print(f"the {component} was not running")
    if component == "server" and place.settings["metadata_by_server"] and dc_daemon.running(place, "metadata"):
        # G44 again: whether a stop ends the metadata DB is not said; here it does, unless the fault says otherwise.
        _stop(place, "metadata", verb)


def _ask_to_end(place: Place, component: str, verb: str) -> None:
    from . import dc_daemon

    deadline = time.monotonic() + END_TIMEOUT_S
    request = json.dumps({"op": "stop"}) if component in DATABASES else f"STOP {verb}"
    while dc_daemon.running(place, component):
        if time.monotonic() > deadline:
            raise Refused(f"the {component} does not end")
        try:
            ask(place.ports[component], request, STOP_TIMEOUT_S)
        except ConnectionError:
            time.sleep(0.02)  # it does not listen yet, or broke off while ending
