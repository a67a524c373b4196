"""`dcsup move`: a planned move of the group, asked for by an operator, with who and why in the log.

dcsup never starts or stops anything on its own. The one who moves the group is the cluster manager, told so by its own command
(`clpgrp -m`, or its RESTful API) on behalf of the operator at this terminal. What dcsup adds: it looks first whether a move makes sense,
writes down who asked for it and why, so that it is told apart from a failure, and follows it to its end. Ctrl-C ends the following and
nothing else: the manager goes on. So it does where Redis goes away meanwhile; that is waited for.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.cli import options, output
from orchestrator.cli.connection import configured, leader_state, redis_of
from orchestrator.cli.handing import hand_in, user
from orchestrator.cli.stopping import BAD_ANSWER, NO_ANSWER, WRONG_USE, Stop
from orchestrator.said import Said, say
from workers.messages import _, mark

if TYPE_CHECKING:
    from redis import Redis

    from statemachines.configuration import ClusterSettings, Configuration, NodeSettings, OrchestratorSettings

LOOK_EVERY_S = 0.5
SEEN_LIMIT_S = 60.0
"""So long after the manager's command has ended something must be seen of the move, and an orchestrator must answer."""

MORE_S = 60.0
"""Added to the deadlines of the cluster's own settings: by then even the last of them has been judged."""

State = dict[str, Any]
STATES = {
    "suspected": mark("a symptom was seen"),
    "acting": mark("the cluster manager moves the group"),
    "starting": mark("the group is being started"),
    "resuming": mark("the services are verified; schedules are being judged"),
    "ended": mark("it has ended"),
}


@dataclass(frozen=True)
class Wish:
    """What is asked for, and of whom."""

    cluster: str
    settings: ClusterSettings
    node: NodeSettings
    to: str
    by: str
    why: str
    rest: bool
    """By the RESTful API instead of clpgrp."""
    request: str = field(default_factory=lambda: secrets.token_hex(6))

    def argv(self, server: str) -> list[str]:
        """The command that moves the group; it is also what a person would type."""
        return [*(self.node.clpgrp or ["clpgrp"]), "-m", self.settings.group_there, "-a", server]


@dataclass(frozen=True)
class Ended:
    """How the manager's own command ended."""

    ok: bool
    reason: str


@dataclass
class Followed:
    """What was seen of the move."""

    known: set[str]
    """Ids of the failovers that were there before."""
    command: Ended | None = None
    begun_s: float = field(default_factory=time.monotonic)
    command_ended_s: float = 0.0
    told: bool = False
    """How the command ended was handed in."""
    heard_s: float = 0.0
    """When the state was last told."""
    said: str = ""
    """What is in the way of being told."""
    failover: State | None = None
    """Its record."""
    state: State | None = None
    """The cluster's, when it was last told."""


def add(commands: options.Commands) -> None:
    help = _("move the group to another node, by the cluster manager's own command, and follow it to its end")
    move = options.add_command(commands, "move", help, run_move)
    options.config(move)
    move.add_argument("--to", metavar=_("NODE"), required=True, help=_("where the group is to run"))
    move.add_argument("--why", metavar=_("TEXT"), required=True, help=_("why, for the log"))
    move.add_argument("--by", metavar=_("NAME"), default=None, help=_("who asks (default: the user's name)"))
    move.add_argument("--cluster", metavar=_("NAME"), default=None, help=_("the cluster (default: that of this node)"))
    move.add_argument("--rest", action="store_true", help=_("by CLUSTERPRO's RESTful API instead of clpgrp"))
    move.add_argument("--force", action="store_true", help=_("also while the cluster is in maintenance"))
    move.add_argument("--yes", action="store_true", help=_("do not ask whether it is meant"))
    options.as_json(move)


def run_move(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    wish = _wish(arguments, configuration)
    with _nothing_moved(wish), redis_of(configuration) as client:
        state = leader_state(client, configuration.orchestrator, wish.cluster)
        if state is None:
            raise Stop(NO_ANSWER, say("no orchestrator leads cluster '{cluster}': nobody can tell how it stands", cluster=wish.cluster))
        _refuse(reasons(state, wish, force=arguments.force))
        _confirm(arguments, state, wish)
        words = {"request": wish.request, "to": wish.to, "by": wish.by, "why": wish.why}
        hand_in(client, wish.cluster, "MoveRequested", words)
    return _move(configuration, wish, state, as_json=arguments.json)


# --- before anything is moved -------------------------------------------------------------------------------------------------------------


def _wish(arguments: argparse.Namespace, configuration: Configuration) -> Wish:
    """
    Raises:
        Stop: this machine cannot do it, or there is no such node.
    """
    node = configuration.node
    if node is None:
        text = say("{file} has no [node] table: a group is moved from one of the cluster's own nodes", file=arguments.config)
        raise Stop(WRONG_USE, text)
    if arguments.cluster not in (None, node.cluster):
        text = say("this node is one of cluster '{own}'; move '{name}' from one of its nodes", own=node.cluster, name=arguments.cluster)
        raise Stop(WRONG_USE, text)
    settings = configuration.clusters[node.cluster]
    if arguments.to not in settings.nodes:
        known = ", ".join(settings.nodes)
        raise Stop(WRONG_USE, say("there is no node '{name}' in this cluster; known: {known}", name=arguments.to, known=known))
    rest = arguments.rest or (node.clpgrp is None and node.rest is not None)
    if (node.rest if rest else node.clpgrp) is None:
        key = "[node.rest]" if rest else "[node] clpgrp"
        raise Stop(WRONG_USE, say("{file} does not set {key}: there is nothing to move the group with", file=arguments.config, key=key))
    return Wish(node.cluster, settings, node, arguments.to, arguments.by or user(), arguments.why, rest)


@contextmanager
def _nothing_moved(wish: Wish) -> Iterator[None]:
    """A Redis or an orchestrator that does not answer: say that nothing was moved, and how it goes without dcsup."""
    try:
        yield
    except Stop as stop:
        if stop.code == NO_ANSWER:
            output.remark(stop.said)
            text = say("nothing was moved; without dcsup: {command}", command=_typed(wish.argv(wish.to)))
            raise Stop(NO_ANSWER, text) from stop
        raise


def _typed(argv: list[str]) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in argv)


def reasons(state: State, wish: Wish, *, force: bool) -> list[Said]:
    """Why the group should not be moved there now; empty: nothing speaks against it."""
    found = [*_of_target(state, wish)]
    if state["active"] is None:
        found.append(say("the group runs nowhere, as far as dcsup knows: start it instead"))
    if failover := state["failover"]:
        found.append(say("failover {id} is not over yet ({state})", id=failover["id"], state=failover["state"]))
    if move := state["move"]:
        found.append(say("{by} has asked for a move to {node} that is not over yet", by=move["by"], node=move["to"] or "-"))
    if state["double_activation"]:
        found.append(say("the group was seen on two nodes: find out first where it runs"))
    if not force and state["paused_since_ms"] is not None:
        found.append(say("dcsup is paused by {by} (--force moves all the same)", by=state["paused_by"]))
    if not force and state["suspended"]:
        found.append(say("the cluster is suspended (--force moves all the same)"))
    return found


def _of_target(state: State, wish: Wish) -> Iterator[Said]:
    node = state["nodes"].get(wish.to)
    if state["active"] == wish.to:
        yield say("the group runs on {node} already", node=wish.to)
    if node is None or not node["present"]:
        yield say("{node} shows no sign of life: its dcsup worker does not run, or cannot reach Redis", node=wish.to)
    seen = _server(state, wish)[1]
    if seen not in (None, "online", "caution", "unknown"):
        yield say("the cluster manager says that {node} is {state}", node=wish.to, state=seen)


def _server(state: State, wish: Wish) -> tuple[str, str | None]:
    """What the cluster manager calls the node to move to, and its state there."""
    servers = (state["view"] or {}).get("servers", {})
    seen, words = next(((name, words) for name, words in servers.items() if name.lower() == wish.to), (wish.to, None))
    return wish.settings.clusterpro.servers.get(wish.to, seen), words


def _refuse(found: list[Said]) -> None:
    if found:
        for said in found[:-1]:
            output.remark(said)
        raise Stop(BAD_ANSWER, say("{why}; nothing was moved", why=found[-1]))


def _confirm(arguments: argparse.Namespace, state: State, wish: Wish) -> None:
    """
    Raises:
        Stop: the answer is no, or nobody can be asked.
    """
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise Stop(WRONG_USE, say("nobody can be asked whether it is meant; say --yes. Nothing was moved"))
    text = say("Move group {group} of cluster {cluster} from {old} to {new}? Clients are cut off meanwhile. [y/N]",
               group=wish.settings.group, cluster=wish.cluster, old=state["active"], new=wish.to)  # fmt: skip
    print(output.words(text), end=" ", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Stop(BAD_ANSWER, say("nothing was moved"))


# --- moving -------------------------------------------------------------------------------------------------------------------------------


def _move(configuration: Configuration, wish: Wish, state: State, *, as_json: bool) -> int:
    followed = Followed({one["id"] for one in state["failovers"]})
    try:
        _follow(configuration, wish, _asked(wish, _server(state, wish)[0]), followed)
    except KeyboardInterrupt:
        output.remark(say("no longer followed; what was asked of the cluster manager goes on. `dcsup status` shows how it stands"))
        raise
    return _show(wish, followed, as_json=as_json)


def _asked(wish: Wish, server: str) -> Callable[[], Ended | None]:
    """Tell the cluster manager; what is returned says how its command ended, None while it runs."""
    output.remark(say("asking the cluster manager: {command}", command="RESTful API" if wish.rest else _typed(wish.argv(server))))
    return _by_rest(wish, server) if wish.rest else _by_command(wish, server)


def _by_rest(wish: Wish, server: str) -> Callable[[], Ended | None]:
    from workers.restview import RestError, move

    assert wish.node.rest is not None
    try:
        move(wish.node.rest, wish.settings.group_there, server)
        ended = Ended(True, "accepted by the RESTful API")
    except RestError as error:
        ended = Ended(error.accepted is None, str(error))  # not known: what is seen of the move decides
    return lambda: ended


def _by_command(wish: Wish, server: str) -> Callable[[], Ended | None]:
    """It runs in a process group of its own: Ctrl-C at this terminal is none for it."""
    from workers.runs import Run

    limit_s = _limit_s(wish.settings)
    run = Run(wish.argv(server), limit_s, encoding=wish.node.encoding)

    def poll() -> Ended | None:
        outcome = run.poll()
        if outcome is None:
            return None
        if outcome.error == "limit":
            return Ended(True, f"clpgrp did not end within {limit_s:.0f} s")  # the manager may still be at it: what is seen decides
        words = outcome.error or " ".join(outcome.output.split())[-300:]
        return Ended(outcome.code == 0, words if outcome.code in (0, None) else f"code {outcome.code}: {words}")

    return poll


def _limit_s(settings: ClusterSettings) -> float:
    """By then every deadline of a move has passed."""
    return settings.stop.deadline + settings.takeover_deadline + settings.start.deadline + settings.schedules.deadline + MORE_S


def _follow(configuration: Configuration, wish: Wish, poll: Callable[[], Ended | None], followed: Followed) -> None:
    """Look until the move has ended, was refused, or takes longer than anything may. A Redis that goes away meanwhile is waited for."""
    limit_s, shown = _limit_s(wish.settings), ""
    while not _over(followed, limit_s):
        if followed.command is None and (ended := poll()) is not None:
            followed.command, followed.command_ended_s = ended, time.monotonic()
        try:
            with redis_of(configuration) as client:
                _look(client, configuration.orchestrator, wish, followed)
        except Stop as stop:
            _say_once(followed, stop.said)
        if followed.failover is not None and followed.failover["state"] != shown:
            shown = followed.failover["state"]
            output.remark(say(STATES[shown]))
        if not _over(followed, limit_s):
            time.sleep(LOOK_EVERY_S)


def _look(client: Redis, settings: OrchestratorSettings, wish: Wish, followed: Followed) -> None:
    if followed.command is not None and not followed.told:
        words = {"request": wish.request, "ok": followed.command.ok, "reason": followed.command.reason}
        hand_in(client, wish.cluster, "MoveEnded", words)
        followed.told = True
    state = leader_state(client, settings, wish.cluster)
    if state is None:
        _say_once(followed, say("no orchestrator leads cluster '{cluster}' just now; the move goes on", cluster=wish.cluster))
        return
    followed.state, followed.heard_s, followed.said = state, time.monotonic(), ""
    followed.failover = _record(followed)


def _say_once(followed: Followed, said: Said) -> None:
    if followed.said != str(said):
        output.remark(said)
    followed.said = str(said)


def _record(followed: Followed) -> State | None:
    """The failover that this move became: the newest one that was not there before."""
    if followed.state is None:
        return None
    every = [*followed.state["failovers"], *([followed.state["failover"]] if followed.state["failover"] else [])]
    return next((one for one in reversed(every) if one["id"] not in followed.known), None)


def _over(followed: Followed, limit_s: float) -> bool:
    now_s, command, failover = time.monotonic(), followed.command, followed.failover
    if command is None or not followed.told:
        return now_s - followed.begun_s > limit_s
    if failover is not None and failover["state"] == "ended":
        return True
    silent = now_s - max(followed.heard_s, followed.command_ended_s) > SEEN_LIMIT_S
    nothing = failover is None and (not command.ok or now_s - followed.command_ended_s > SEEN_LIMIT_S)
    return silent or nothing or now_s - followed.begun_s > limit_s


# --- afterwards ---------------------------------------------------------------------------------------------------------------------------


def there(state: Mapping[str, Any] | None, node: str) -> bool:
    """Whether the group is on the node and each of its services is verified there."""
    if state is None or state["active"] != node or not state["services"]:
        return False
    return all(service["verified"] and service["node"] == node for service in state["services"].values())


def _show(wish: Wish, followed: Followed, *, as_json: bool) -> int:
    failover, command = followed.failover, followed.command
    verified = there(followed.state, wish.to)
    good = verified and failover is not None and failover["outcome"] == "completed"
    if as_json:
        words = {"ok": command.ok, "reason": command.reason} if command is not None else None
        output.show_json({"cluster": wish.cluster, "request": wish.request, "to": wish.to, "by": wish.by, "why": wish.why,
                          "command": words, "failover": failover, "verified": verified, "ok": good})  # fmt: skip
        return 0 if good else BAD_ANSWER
    _show_words(wish, followed, verified=verified)
    return 0 if good else BAD_ANSWER


def _show_words(wish: Wish, followed: Followed, *, verified: bool) -> None:
    from orchestrator.cli.showing import show_failovers

    if followed.command is not None and not followed.command.ok:
        output.remark(say("the cluster manager did not do it: {why}", why=followed.command.reason))
    if followed.failover is None:
        output.remark(say("nothing was seen of a move"))
    else:
        show_failovers([followed.failover])
        if followed.failover["state"] != "ended":
            output.remark(say("it had not ended when it was last seen; `dcsup status` shows how it stands"))
    active = (followed.state or {}).get("active") or "-"
    if verified:
        output.show(say("the group is on {node}, and every service is verified there", node=active))
    else:
        output.show(say("the group is on {node} or on its way; not every service is verified on {to}", node=active, to=wish.to))
