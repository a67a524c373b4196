"""`dcsup render redis`: users, passwords, keys and settings of a Redis of one's own (orchestrator/rendering/redis_files.py)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import output
from orchestrator.cli.connection import configured
from orchestrator.cli.stopping import WRONG_USE, Stop
from orchestrator.said import say

if TYPE_CHECKING:
    from orchestrator.rendering.folder import Placed
    from orchestrator.rendering.redis_files import Plan, Secrets


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.rendering import folder, redis_files
    from workers.messages import in_language

    plan = _plan(arguments)
    out = Path(arguments.out)
    secrets = _secrets(plan, out, rotate=arguments.rotate)
    files = redis_files.files(plan, secrets, {code: in_language(code) for code in ("en", "ja")})
    placed = folder.place(out, files, private=True)
    if arguments.json:
        output.show_json({"out": arguments.out, "written": placed.written, "unchanged": placed.unchanged, "kept": placed.kept,
                          "left": placed.left, "secrets": {"made": secrets.made, "kept": secrets.kept}})  # fmt: skip
    else:
        _show(arguments, placed, secrets)
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    from orchestrator.rendering import platform_of
    from orchestrator.rendering.redis_files import PLACES, Plan
    from statemachines.addresses import place_of

    configuration = configured(arguments)
    settings = configuration.redis
    if settings.embedded is not None or (settings.url is not None and place_of(settings.url) is None):
        text = say("{file}: [redis] names a server of this machine alone; name one that the nodes reach, with url or sentinels",
                   file=arguments.config)  # fmt: skip
        raise Stop(WRONG_USE, text)
    platform = arguments.platform or (platform_of(configuration.node.folder) if configuration.node is not None else "linux")
    place = (arguments.place or PLACES[platform]).rstrip("\\/")
    return Plan(settings, configuration.clusters, arguments.tls or settings.speaks_tls, place)


def _secrets(plan: Plan, out: Path, *, rotate: bool) -> Secrets:
    from orchestrator.rendering.redis_files import Secrets

    try:
        return Secrets.of(plan, out, rotate=rotate)
    except UnicodeDecodeError:
        raise Stop(WRONG_USE, say("{out}: a password or key there is no text; move it away and render again", out=str(out))) from None


def _show(arguments: argparse.Namespace, placed: Placed, secrets: Secrets) -> None:
    from workers.messages import language

    for name in placed.written:
        output.show(say("written: {file}", file=name))
    for name, kept in placed.kept.items():
        output.remark(say("{file} had been changed by hand: that is kept as {kept}", file=name, kept=kept))
    for name in placed.left:
        output.remark(say("{file} is no longer a part of this: remove it when nothing calls it any more", file=name))
    counts = {"written": len(placed.written), "unchanged": len(placed.unchanged)}
    output.show(say("{out}: {written} written, {unchanged} unchanged", out=arguments.out, **counts))
    if secrets.made:
        output.show(say("new passwords and keys for: {names}", names=", ".join(secrets.made)))
    if secrets.kept:
        output.show(say("kept, for they were there already: {names}", names=", ".join(secrets.kept)))
    page = f"README.{'ja' if language() == 'ja' else 'en'}.md"
    output.show(say("what goes where: {page}", page=str(Path(arguments.out) / page)))
