"""What the cluster manager tells the world: its events by module and id, and the commands that its alert extension runs for them.

Each record in ``records/cluster.jsonl`` that is one of the product's events is one in ``records/alerts.jsonl`` too. Where the node has a
command for it, in ``<node>/clp/etc/alerts.json`` (``{"rm@9": ["<command line>", ...]}``, the product's own spelling of module and id),
that is run with ``%%MSG%%`` replaced by the event's text: one after the other, never waited for by the cluster manager itself.
"""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .place import Place

COMMAND_LIMIT_S = 60.0

Event = tuple[str, int, str]
"""Module, id, text."""


class ReportingPlace(Place):
    """A node as its cluster service sees it: what it records is told to the world as well."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._events: queue.Queue[Event] = queue.Queue()
        threading.Thread(target=self._tell, daemon=True).start()

    def record(self, name: str, what: str, **fields: Any) -> None:
        """Append to ``records/<name>.jsonl``, and raise the events that belong to it."""
        super().record(name, what, **fields)
        for event in events_of(what, fields, self.settings["group"]) if name == "cluster" else ():
            super().record("alerts", "event", module=event[0], id=event[1], text=event[2])
            self._events.put(event)

    def _tell(self) -> None:
        while True:
            module, number, text = self._events.get()
            for line in self._commands(f"{module}@{number}"):
                self._run([word.replace("%%MSG%%", text) for word in shlex.split(line)])

    def _commands(self, key: str) -> list[str]:
        try:
            with open(self.path("clp", "etc", "alerts.json"), encoding="utf-8") as file:
                lines: list[str] = json.load(file).get(key, [])
        except FileNotFoundError:
            return []
        return lines

    def _run(self, argv: list[str]) -> None:
        with open(self.path("log", "alerts.log"), "ab") as output:
            try:
                subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=COMMAND_LIMIT_S, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                output.write(f"{error}\n".encode())


def events_of(what: str, fields: dict[str, Any], group: str) -> Iterator[Event]:
    """The product's events (CLUSTERPRO.md, section 6.2) for one record of the cluster manager."""
    if what in _EVENTS:
        yield from ((module, number, text.format(group=group, **fields)) for module, number, text in _EVENTS[what](fields))


def _resource(fields: dict[str, Any]) -> list[Event]:
    starts = fields["action"] == "start"
    doing, base = ("Activating", 30) if starts else ("Inactivating", 40)
    if "ok" not in fields:
        return [("rc", base, doing + " {resource} has started.")]
    if fields["ok"]:
        return [("rc", base + 1, doing + " {resource} has completed.")]
    return [("rc", base + 2, doing + " {resource} has failed. (1 : {reason})")]


def _activated(fields: dict[str, Any]) -> list[Event]:
    if not fields["ok"]:
        return [("rc", 12, "Activating group {group} has failed.")]
    events: list[Event] = [("rc", 11, "Activating group {group} has completed.")]
    if fields["event"] == "FAILOVER":
        events.append(("rc", 61, "Failover of group {group} has completed."))
    elif fields["previous"]:
        events.append(("rc", 51, "Moving group {group} has completed."))
    return events


def _deactivating(fields: dict[str, Any]) -> list[Event]:
    begun: dict[str, list[Event]] = {
        "GROUPMOVE": [("rc", 50, "Moving group {group} has started.")],
        "GROUPFAILOVER": [("rc", 60, "Failover of group {group} has started.")],
        "SERVERSHUTDOWN": [("rc", 60, "Failover of group {group} has started.")],
    }
    return [*begun.get(fields["factor"], []), ("rc", 20, "Stopping group {group} has started.")]


def _deactivated(fields: dict[str, Any]) -> list[Event]:
    if fields["ok"]:
        return [("rc", 21, "Stopping group {group} has completed.")]
    return [("rc", 22, "Stopping group {group} has failed.")]


def _restarted(fields: dict[str, Any]) -> list[Event]:
    if fields["ok"]:
        return [("rc", 81, "Restart of {resource} has completed.")]
    return [("rc", 82, "Restart of {resource} has failed.")]


def _acted(fields: dict[str, Any]) -> list[Event]:
    texts: dict[str, Event] = {
        "restart": ("rm", 13, "Recovery target script1 was restarted because an error was detected in monitoring {monitor}."),
        "failover": ("rm", 14, "Recovery target script1 failed over because an error was detected in monitoring {monitor}."),
        "none": ("rm", 200, "The final action is suppressed, for no other server is in order. Monitor {monitor}."),
    }
    return [texts[fields["action"]]]


def _always(*events: Event) -> Callable[[dict[str, Any]], list[Event]]:
    return lambda _fields: list(events)


_EVENTS: dict[str, Callable[[dict[str, Any]], list[Event]]] = {
    "node-joined": _always(("nm", 1, "This server has joined the cluster.")),
    "node-left": _always(("nm", 2, "Server {peer} has been stopped.")),
    "node-dead": _always(("nm", 2, "Server {peer} has been stopped.")),
    "group-takeover": _always(("rc", 60, "Failover of group {group} has started.")),
    "group-activation-begin": _always(("rc", 10, "Activating group {group} has started.")),
    "group-activation-end": _activated,
    "group-deactivation-begin": _deactivating,
    "group-deactivation-end": _deactivated,
    "resource-begin": _resource,
    "resource-end": _resource,
    "resource-restart-begin": _always(("rc", 80, "Restart of {resource} has started.")),
    "resource-restart-end": _restarted,
    "no-destination": _always(("rc", 65, "There is no server to which group {group} could fail over.")),
    "double-activation": _always(("rc", 92, "Group {group} is active on more than one server.")),
    "monitor-detected": _always(("rm", 9, "An error was detected in monitoring {monitor}. ({code} : process has ended)")),
    "monitor-acted": _acted,
}
