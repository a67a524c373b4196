"""What the cluster manager says about one group, whichever way it was asked, and the words that it says it with.

`clpstat` (workers/clusterview.py) and the RESTful API (workers/restview.py) are two sources of the same `View`. Words are looked up in a
table; what is not in it is `unknown`, which is an answer of its own and never taken for online or offline. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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
    "Suspended": "suspend",
    "Suspension": "suspend",
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
    "サスペンド": "suspend",
    "一時停止": "suspend",
    "不明": "unknown",
}
"""A state's words as printed, and what dcsup calls it."""

WORKING = ("normal", "caution", "error")
"""A monitor in one of these is at work, which it is not in a suspended cluster."""

_BY_LENGTH = sorted(STATES, key=len, reverse=True)
_CUT_LENGTH = 16


class ViewError(ValueError):
    """Why the cluster manager's view could not be had, in words for an operator."""


@dataclass(frozen=True)
class View:
    """What the manager says about one group: statemachines.facts.ClusterViewed in the making."""

    group_state: str = "unknown"
    current: str | None = None
    servers: dict[str, str] = field(default_factory=dict)
    monitors: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    """Of our group."""
    suspended: bool | None = None
    double_activation: bool = False
    by: str = "clpstat"


@dataclass(frozen=True)
class Reading:
    """What could be read, and what could not: each fault in words, with its place."""

    view: View
    faults: tuple[str, ...] = ()


def state_of(text: str) -> str:
    """The state at the beginning of `text`, by longest known phrase; `unknown` if there is none."""
    stripped = text.strip()
    for words in _BY_LENGTH:
        behind = stripped[len(words) : len(words) + 1]
        if stripped.startswith(words) and (behind in ("", "(") or behind.isspace()):
            return STATES[words]
    return "unknown"


def known(shown: str, names: Iterable[str], *, cut: bool = False) -> str:
    """The configured name that was shown: exactly or in another case, or (`cut`) only its first 16 characters; else what was shown, in
    lower case."""
    lower, names = shown.lower(), list(names)
    exact = [name for name in names if name.lower() == lower]
    begun = [name for name in names if cut and len(shown) == _CUT_LENGTH and name.lower().startswith(lower)]
    if exact:
        return exact[0]
    return begun[0] if len(begun) == 1 else lower
