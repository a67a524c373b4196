"""Commands with which a person asks for something: pause, resume, and move (moving.py).

They do not act: they hand a fact to the clusters' inbox `_operator`, as a node hands in its own, and the orchestrator decides.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import moving, options, output
from orchestrator.cli.connection import chosen, configured, leader_url, redis_of
from orchestrator.cli.handing import hand_in, user
from orchestrator.said import say
from workers.messages import _


def add(commands: options.Commands) -> None:
    help = _("issue no commands until `resume`: scripts go on with the guide's plain sequence")
    pause = options.add_command(commands, "pause", help, run_pause)
    resume = options.add_command(commands, "resume", _("issue commands again"), run_resume)
    for parser in (pause, resume):
        options.config(parser)
        options.cluster(parser)
        parser.add_argument("--by", metavar=_("NAME"), default=None, help=_("who asks (default: the user's name)"))
        parser.add_argument("--why", metavar=_("TEXT"), default="", help=_("why, for the log"))
        options.as_json(parser)
    moving.add(commands)


def run_pause(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "PauseRequested")


def run_resume(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "ResumeRequested")


def _ask(arguments: argparse.Namespace, kind: str) -> int:
    configuration = configured(arguments)
    words = {"by": arguments.by or user(), "why": arguments.why}
    with redis_of(configuration) as client:
        handed_in = {cluster: hand_in(client, cluster, kind, words) for cluster in chosen(arguments, configuration)}
        led = {cluster: leader_url(client, cluster) is not None for cluster in handed_in}
    if arguments.json:
        output.show_json({"clusters": {cluster: {"inbox_id": handed_in[cluster], "led": led[cluster]} for cluster in handed_in}})
        return 0
    for cluster in handed_in:
        output.show(say("cluster {name}: {kind} handed in", name=cluster, kind=kind))
        if not led[cluster]:
            output.remark(say("no orchestrator leads cluster '{cluster}': it holds from the moment one does", cluster=cluster))
    return 0
