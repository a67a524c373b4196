"""Reading CLUSTERPRO's own view: the text of `clpstat --long` and `clpgrp -n`.

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
     =====================================================================

Sections, then entries (3 blanks and `*` or 4 blanks: a server or group), then their children (6 blanks). A state may consist of two
words and a comment may follow it, in any language, so a state is the longest known phrase at the beginning of what stands behind
the colon. Words are looked up in a table; what is not in it is `unknown`, which is an answer of its own and never taken for
online or offline. Without `--long` a name longer than 16 characters is cut; such a name matches the one configured name that
begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from statemachines.configuration import ClusterSettings, NodeSettings
from workers.polls import Report
from workers.runs import Outcome, Run

LIMIT_LEAST_S = 10.0
"""The manager's commands may block; after this, or one interval, they are ended and the view counts as failed."""

STATES = {
    "Online": "online",
    "Offline": "offline",
    "Online Pending": "online-pending",
    "Offline Pending": "offline-pending",
    "Online Failure": "online-failure",
    "Offline Failure": "offline-failure",
    "Normal": "normal",
    "Caution": "caution",
    "Error": "error",
    "Unused": "unused",
    "Suspend": "suspend",
    "Unknown": "unknown",
    # No Japanese listing is known; should a build translate the words, these are the ones it would use.
    "起動済": "online",
    "停止済": "offline",
    "起動処理中": "online-pending",
    "停止処理中": "offline-pending",
    "起動異常": "online-failure",
    "停止異常": "offline-failure",
    "正常": "normal",
    "警告": "caution",
    "異常": "error",
    "不明": "unknown",
}
"""A state's words as printed, and what dcsup calls it."""

_BY_LENGTH = sorted(STATES, key=len, reverse=True)
_CUT_LENGTH = 16
_ENTRY = re.compile(r"^ {3}[* ](?P<name>\S+)[ .]*?\s*: ?(?P<rest>.*)$")
_CHILD = re.compile(r"^ {6}(?P<name>\S+)\s*: ?(?P<rest>.*)$")
_SECTION = re.compile(r"^\s*<(?P<name>[a-z]+)>\s*$")


class ViewError(ValueError):
    """Why the cluster manager's view could not be had, in words for an operator."""


@dataclass(frozen=True)
class View:
    """What the manager says about one group: statemachines.facts.ClusterViewed in the making."""

    group_state: str = "unknown"
    current: str | None = None
    servers: dict[str, str] = field(default_factory=dict)
    double_activation: bool = False


def status_argv(clpstat: Sequence[str]) -> list[str]:
    """The configured `clpstat` with `--long` behind it, unless the site put it there already."""
    return [*clpstat] if "--long" in clpstat else [*clpstat, "--long"]


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


def parse_clpstat(text: str, group: str, nodes: Sequence[str]) -> View:
    """The view of `group` in a `clpstat --long` (or plain `clpstat`) print-out.

    `nodes` are the configured names; servers are called by them where they match (any case, or cut), else as printed in lower
    case. Text without the group gives `group_state` "unknown"; nothing is guessed.
    """
    servers: dict[str, str] = {}
    state, current = "unknown", None
    section, mine = "", False
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section, mine = heading["name"], False
        elif child := _CHILD.match(line):
            if section == "group" and mine and child["name"].lower() in ("current", "カレント"):
                current = _current(child["rest"], nodes)
        elif entry := _ENTRY.match(line):
            name = entry["name"].rstrip(".") or entry["name"]
            if section == "server":
                servers[_known(name, nodes)] = state_of(entry["rest"])
            elif section == "group":
                mine = _known(name, [group]) == group
                state = state_of(entry["rest"]) if mine else state
    return View(state, current, servers)


def parse_clpgrp(text: str, nodes: Sequence[str]) -> tuple[str, ...]:
    """The active servers in the output of `clpgrp -n GROUP`: none, one, or (double activation) several.

    Lines that are not a bare name (messages) are not servers.
    """
    names = [line.strip() for line in text.splitlines()]
    return tuple(dict.fromkeys(_known(name, nodes) for name in names if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)))


def with_active(view: View, active: tuple[str, ...]) -> View:
    """The view completed by what `clpgrp -n` said: it is the better witness for where the group is, and the only one for two places."""
    if not active:
        return view
    current = view.current if view.current in active else active[0]
    return View(view.group_state, current, view.servers, len(active) > 1)


def state_of(text: str) -> str:
    """The state at the beginning of `text`, by longest known phrase; `unknown` if there is none."""
    stripped = text.strip()
    for words in _BY_LENGTH:
        if stripped == words or (stripped.startswith(words) and stripped[len(words)].isspace()):
            return STATES[words]
    return "unknown"


def _current(text: str, nodes: Sequence[str]) -> str | None:
    word = text.split()[0] if text.split() else "None"
    return None if word in ("None", "なし") else _known(word, nodes)


def _known(shown: str, names: Iterable[str]) -> str:
    """The configured name that was shown: exactly, in another case, or cut at 16 characters; else what was shown, in lower case."""
    lower = shown.lower()
    exact = [name for name in names if name.lower() == lower]
    cut = [name for name in names if len(shown) == _CUT_LENGTH and name.lower().startswith(lower)]
    if exact:
        return exact[0]
    return cut[0] if len(cut) == 1 else lower


class ClusterWatch:
    """Asks for the manager's view every `view_interval`, both commands side by side, and reports what changed."""

    def __init__(self, node: NodeSettings, cluster: ClusterSettings, report: Report) -> None:
        self._node, self._cluster, self._report = node, cluster, report
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, Outcome] = {}
        self._due = 0.0
        self._told: View | None = None
        self._failed: str | None = None

    def step(self, now: float) -> None:
        """Begin what is due; when all commands of a round have ended, tell what they said."""
        if not self._runs and now >= self._due:
            self._due = now + self._node.view_interval
            self._ended = {}
            self._runs = {name: Run(argv, self._limit_s, encoding=self._node.encoding) for name, argv in self._commands().items()}
        for name, run in list(self._runs.items()):
            if (outcome := run.poll()) is not None:
                del self._runs[name]
                self._ended[name] = outcome
        if self._ended and not self._runs:
            self._take()
            self._ended = {}

    @property
    def busy(self) -> bool:
        return bool(self._runs)

    def discard(self) -> None:
        """End the commands under way and forget them."""
        for run in self._runs.values():
            run.discard()
        self._runs, self._ended = {}, {}

    @property
    def _limit_s(self) -> float:
        return max(LIMIT_LEAST_S, self._node.view_interval)

    def _commands(self) -> dict[str, list[str]]:
        commands = {}
        if self._node.clpstat:
            commands["clpstat"] = status_argv(self._node.clpstat)
        if self._node.clpgrp:
            commands["clpgrp"] = group_argv(self._node.clpgrp, self._cluster.group)
        return commands

    def _take(self) -> None:
        try:
            view = self._view()
        except ViewError as error:
            self._fail(str(error))
            return
        if view != self._told or self._failed is not None:
            self._report("ClusterViewed", dict(view.__dict__), "cluster")
        self._told, self._failed = view, None

    def _view(self) -> View:
        view, nodes = View(), self._cluster.nodes
        if (outcome := self._ended.get("clpstat")) is not None:
            view = parse_clpstat(output_of(outcome, "clpstat"), self._cluster.group, nodes)
        if (outcome := self._ended.get("clpgrp")) is not None:
            view = with_active(view, parse_clpgrp(output_of(outcome, "clpgrp"), nodes))
        return view

    def _fail(self, reason: str) -> None:
        if reason != self._failed:
            self._failed = reason
            self._report("ClusterViewFailed", {"reason": reason}, "cluster")
