"""Commands that run something: the orchestrator, a node's worker, the sandbox."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from orchestrator.cli import options
from orchestrator.cli.connection import check_redis, configured
from orchestrator.cli.stopping import NO_ANSWER, WRONG_USE, Stop
from orchestrator.said import say
from workers.messages import _


def add(commands: options.Commands) -> None:
    help = _("run an orchestrator: it leads its clusters until it is told to stop")
    orchestrator = options.add_command(commands, "orchestrator", help, run_orchestrator)
    options.config(orchestrator)
    worker = options.add_command(commands, "worker", _("run this node's worker"), run_worker)
    options.config(worker)
    help = _("--sandbox: bring up a cluster on this machine and keep it, to try things by hand; --list-shapes names the kinds")
    commands.add_parser("up", help=help)
    commands.add_parser("demo", help=_("play the whole story on the sandbox: failovers, moves, crashes, and what dcsup makes of them"))
    commands.add_parser("hook", help=_("what CLUSTERPRO's scripts call: start, stop, watch, alert"))


def run_orchestrator(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    check_redis(configuration)
    from orchestrator.app import run
    from orchestrator.http import CannotListen
    from workers import logs, permissions
    from workers.redisclient import client_of

    log = logs.configure("orchestrator")
    try:
        return with_own_redis(
            lambda: run(configuration, connect=client_of, when_up=lambda: permissions.tell(configuration, arguments.config, log))
        )
    except CannotListen as error:
        raise Stop(WRONG_USE, error.said) from error


def with_own_redis(action: Callable[[], int]) -> int:
    """What starts an embedded Redis; one that does not start is a sentence.

    Raises:
        Stop: it does not start.
    """
    from orchestrator.embedded import EmbeddedRedisError

    try:
        return action()
    except EmbeddedRedisError as error:
        raise Stop(NO_ANSWER, say("the embedded Redis cannot be used: {why}", why=error.said)) from error


def run_worker(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    if configuration.node is None:
        text = say("{file} has no [node] table; a worker needs one: it says which node this machine is", file=arguments.config)
        raise Stop(WRONG_USE, text)
    check_redis(configuration)
    from workers.worker import run

    return run(arguments.config)


def up(argv: list[str]) -> int:
    """What is brought up has options of its own."""
    rest = [argument for argument in argv if argument != "--sandbox"]
    if rest == argv:
        raise Stop(WRONG_USE, say("`dcsup up` needs --sandbox: it is the one thing that can be brought up so far"))
    from deploy.sandbox.site import up as bring_up

    return with_own_redis(lambda: bring_up(rest))


def demo(argv: list[str]) -> int:
    """The demo has options of its own."""
    from deploy.sandbox.demo import main

    return with_own_redis(lambda: main(argv))
