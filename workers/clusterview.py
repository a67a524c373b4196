"""Asking CLUSTERPRO for its own view: `clpstat --long` and `clpgrp -n`, or its RESTful API (workers/restview.py) in their place.

A print-out looks like this (names invented; the wide form moves the colon, nothing else):

     ========================  CLUSTER STATUS  ===========================
      Cluster : demo
      <server>
       *nodea ...........: Online           comment text
          lankhb1        : Normal           Kernel Mode LAN Heartbeat
        nodeb ...........: Offline
      <group>
        failover1 .......: Online Pending
          current        : nodea
          script1        : Online
      <monitor>
        userw            : Normal
     =====================================================================

Sections, then entries (3 blanks and `*` or 4 blanks: a server, group or monitor), then their children (6 blanks). A state may consist of
two words and a comment may follow it, in any language, so a state is the longest known phrase at the beginning of what stands behind the
colon (workers/views.py). Without `--long` a name longer than 16 characters is cut; such a name matches the one configured name
that begins with it.

How a suspended cluster is printed is not documented. A server's state word `Suspend`, or such a status in the head, says that it is
suspended; a server online beside a monitor at work says that it is not; anything else leaves it open.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from statemachines.configuration import ClusterSettings, NodeSettings
from workers import restview
from workers.polls import Report
from workers.runs import Outcome, Run
from workers.views import WORKING, Reading, View, ViewError, known, state_of

LIMIT_LEAST_S = 10.0
"""The manager's commands may block; after this, or one interval, they are ended and the view counts as failed."""

SUSPENDED_FOR = 3
"""How many intervals a view that says "suspended" stays true without a newer one."""

_ENTRY = re.compile(r"^ {3}[* ](?P<name>\S+)[ .]*?\s*: ?(?P<rest>.*)$")
_CHILD = re.compile(r"^ {6}(?P<name>\S+)\s*: ?(?P<rest>.*)$")
_SECTION = re.compile(r"^\s*<(?P<name>[a-z]+)>\s*$")
_STATUS = re.compile(r"^\s*(?:cluster\s+)?(?:status|state)\s*: ?(?P<rest>.*)$", re.IGNORECASE)
_NOWHERE = ("None", "なし")


def status_argv(clpstat: Sequence[str]) -> list[str]:
    """The configured `clpstat` with `--long` behind it, unless the site put it there already."""
    return [*clpstat] if "--long" in clpstat else [*clpstat, "--long"]


def in_our_names(view: View, cluster: ClusterSettings) -> View:
    """The view with the servers called as dcsup calls the nodes."""
    ours = {cluster.server_there(node): node for node in cluster.nodes}
    servers = {ours.get(name, name): state for name, state in view.servers.items()}
    current = None if view.current is None else ours.get(view.current, view.current)
    return dataclasses.replace(view, servers=servers, current=current)


def group_argv(clpgrp: Sequence[str], group: str) -> list[str]:
    """The configured `clpgrp` with `-n GROUP` behind it."""
    return [*clpgrp, "-n", group]


def output_of(outcome: Outcome, command: str) -> str:
    """What an ended run printed.

    Raises:
        ViewError: it could not be run, hung, or ended with another code than 0 (the cluster service is not running here).
    """
    if outcome.error == "limit":
        raise ViewError(f"{command} did not end in time")
    if outcome.error:
        raise ViewError(outcome.error)
    if outcome.code != 0:
        raise ViewError(f"{command} ended with code {outcome.code}")
    return outcome.output


def parse_clpstat(text: str, group: str, nodes: Sequence[str]) -> Reading:
    """The view of `group` in a `clpstat --long` (or plain `clpstat`) print-out.

    `nodes` are the configured names; servers are called by them where they match (any case, or cut), else as printed in lower
    case. Text without the group gives `group_state` "unknown"; nothing is guessed, and the faults say what was missing.
    """
    listing = _Listing(group, nodes)
    for line in text.splitlines():
        listing.read(line)
    return listing.reading()


class _Listing:
    """One print-out while it is read, line by line."""

    def __init__(self, group: str, nodes: Sequence[str]) -> None:
        self._group, self._nodes = group, nodes
        self._section, self._mine = "", False
        self._found_whole = False
        self._state: str | None = None
        self._head = "unknown"
        self._current: list[str] = []
        self._servers: dict[str, str] = {}
        self._monitors: dict[str, str] = {}
        self._resources: dict[str, str] = {}

    def read(self, line: str) -> None:
        if heading := _SECTION.match(line):
            self._section, self._mine = heading["name"], False
        elif child := _CHILD.match(line):
            self._read_child(child["name"], child["rest"])
        elif entry := _ENTRY.match(line):
            self._read_entry(entry["name"].rstrip(".") or entry["name"], entry["rest"])
        elif not self._section and (status := _STATUS.match(line)):
            self._head = state_of(status["rest"])

    def _read_entry(self, name: str, rest: str) -> None:
        if self._section == "server":
            self._servers[known(name, self._nodes, cut=True)] = state_of(rest)
        elif self._section == "monitor":
            self._monitors[name] = state_of(rest)
        elif self._section == "group":
            self._read_group(name, rest)

    def _read_group(self, name: str, rest: str) -> None:
        """A whole name counts more than one that may have been cut: another group's may be how ours begins."""
        whole = known(name, [self._group]) == self._group
        self._mine = whole or (not self._found_whole and known(name, [self._group], cut=True) == self._group)
        if self._mine:
            self._found_whole = whole
            self._state, self._current, self._resources = state_of(rest), [], {}

    def _read_child(self, name: str, rest: str) -> None:
        if self._section != "group" or not self._mine:
            return
        if name.lower() in ("current", "カレント"):
            self._current += [known(word, self._nodes, cut=True) for word in _places(rest, self._nodes) if word not in _NOWHERE]
        else:
            self._resources[name] = state_of(rest)

    def reading(self) -> Reading:
        active = list(dict.fromkeys(self._current))
        view = View(
            self._state or "unknown", active[0] if active else None, self._servers, self._monitors, self._resources,
            self._is_suspended(), len(active) > 1,
        )  # fmt: skip
        return Reading(view, tuple(self._faults()))

    def _is_suspended(self) -> bool | None:
        if "suspend" in (self._head, *self._servers.values()):
            return True
        works = "online" in self._servers.values() and any(state in WORKING for state in self._monitors.values())
        return False if works else None

    def _faults(self) -> Iterator[str]:
        if not self._servers:
            yield "clpstat: no server in <server>"
        if self._state is None:
            yield f"clpstat: no group '{self._group}' in <group>"
        elif self._state == "unknown":
            yield f"clpstat: <group> {self._group}: the state is unknown, or a word that dcsup does not know"


def _places(text: str, nodes: Sequence[str]) -> list[str]:
    """Where a group is, behind `current`: the first word, and whatever else there is a node of ours."""
    words = text.replace(",", " ").split()
    return words[:1] + [word for word in words[1:] if known(word, nodes, cut=True) in nodes]


def parse_clpgrp(text: str, nodes: Sequence[str]) -> tuple[str, ...]:
    """The active servers in the output of `clpgrp -n GROUP`: none, one, or (double activation) several.

    Lines that are not a bare name (messages) are not servers.
    """
    names = [line.strip() for line in text.splitlines()]
    return tuple(dict.fromkeys(known(name, nodes) for name in names if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)))


def with_active(view: View, active: tuple[str, ...]) -> View:
    """The view completed by what `clpgrp -n` said: it is the better witness for where the group is, and one for two places."""
    if not active:
        return view
    current = view.current if view.current in active else active[0]
    return dataclasses.replace(view, current=current, double_activation=view.double_activation or len(active) > 1)


class ClusterWatch:
    """Asks for the manager's view every `view_interval`, all commands side by side, and reports what changed."""

    def __init__(self, node: NodeSettings, cluster: ClusterSettings, report: Report) -> None:
        self._node, self._cluster, self._report = node, cluster, report
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, Outcome] = {}
        self._due = 0.0
        self._told: View | None = None
        self._taken: float | None = None
        """When the commands behind the last view that could be had were begun."""
        self._failed = ""
        self._seen_suspended = False
        self._lost = False
        """The last round gave no view at all."""

    @staticmethod
    def is_configured(node: NodeSettings) -> bool:
        return node.rest is not None if node.view == "rest" else bool(node.clpstat or node.clpgrp)

    def step(self, now: float) -> None:
        """Begin what is due; when all commands of a round have ended, tell what they said."""
        if not self._runs and now >= self._due:
            self._due = now + self._node.view_interval
            self._ended, self._runs = {}, self._begin()
        for name, run in list(self._runs.items()):
            if (outcome := run.poll()) is not None:
                del self._runs[name]
                self._ended[name] = outcome
        if self._ended and not self._runs:
            self._take(min(outcome.started for outcome in self._ended.values()))
            self._ended = {}

    @property
    def busy(self) -> bool:
        return bool(self._runs)

    def is_suspended(self, now: float) -> bool:
        """Whether the cluster is suspended as far as this node itself saw lately."""
        age_s = now - self._taken if self._taken is not None else float("inf")
        return self._told is not None and bool(self._told.suspended) and age_s < SUSPENDED_FOR * self._node.view_interval

    def tell_again(self) -> None:
        """The next view is told, whether it is a change or not."""
        self._lost = True

    def discard(self) -> None:
        """End the commands under way and forget them."""
        for run in self._runs.values():
            run.discard()
        self._runs, self._ended = {}, {}

    def _begin(self) -> dict[str, Run]:
        node, limit_s = self._node, max(LIMIT_LEAST_S, self._node.view_interval)
        if node.view == "rest" and node.rest is not None:
            size = restview.BODY_LIMIT_BYTES * len(restview.VIEW) * 2  # in JSON a letter may become six
            asking = restview.argv(node.rest, restview.VIEW)
            return {"rest": Run(asking, node.rest.limit + restview.START_S, output_limit=size)}
        commands = {}
        if node.clpstat:
            commands["clpstat"] = status_argv(node.clpstat)
        if node.clpgrp:
            commands["clpgrp"] = group_argv(node.clpgrp, self._cluster.group_there)
        return {name: Run(argv, limit_s, encoding=node.encoding) for name, argv in commands.items()}

    def _take(self, began: float) -> None:
        try:
            reading = self._reading()
        except ViewError as error:
            self._lost = True
            self._fail(str(error))
            return
        view = self._with_memory(reading.view)
        if view != self._told or self._lost:
            self._report("ClusterViewed", dict(view.__dict__), "cluster")
        self._told, self._taken, self._lost = view, began, False
        self._fail("; ".join(reading.faults))

    def _with_memory(self, view: View) -> View:
        """Where the view leaves open whether the cluster is suspended: a server that was shown suspended and is online again is not."""
        if view.suspended is None and self._seen_suspended and "online" in view.servers.values():
            view = dataclasses.replace(view, suspended=False)
        self._seen_suspended = self._seen_suspended if view.suspended is None else view.suspended
        return view

    def _reading(self) -> Reading:
        """What all commands of the round said together. One that failed does not take the others' word away.

        Raises:
            ViewError: none of them said anything.
        """
        reading: Reading | None = None
        faults: list[str] = []
        for name in ("rest", "clpstat", "clpgrp"):
            if (outcome := self._ended.get(name)) is not None:
                try:
                    reading = self._read(name, outcome, reading)
                except ViewError as error:
                    faults.append(str(error))
        if reading is None:
            raise ViewError("; ".join(faults))
        return Reading(in_our_names(reading.view, self._cluster), (*reading.faults, *faults))

    def _read(self, name: str, outcome: Outcome, before: Reading | None) -> Reading:
        group, nodes = self._cluster.group_there, [self._cluster.server_there(node) for node in self._cluster.nodes]
        if name == "rest":
            return restview.parse(restview.output_of(outcome.output, outcome.error), group, nodes)
        text = output_of(outcome, name)
        if name == "clpstat":
            return parse_clpstat(text, group, nodes)
        before = before or Reading(View())
        return Reading(with_active(before.view, parse_clpgrp(text, nodes)), before.faults)

    def _fail(self, reason: str) -> None:
        """Say what could not be read, when it is news; the empty text: all could."""
        if reason and reason != self._failed:
            self._report("ClusterViewFailed", {"reason": reason}, "cluster")
        self._failed = reason
