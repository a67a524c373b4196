"""`dcsup render`: what a CLUSTERPRO cluster and a Redis of one's own need, written from dcsup.toml (orchestrator/rendering)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import options, output, rendering_redis
from orchestrator.cli.connection import configured
from orchestrator.cli.stopping import WRONG_USE, Stop
from orchestrator.said import say
from workers.messages import _

if TYPE_CHECKING:
    from orchestrator.rendering import Encoding, Site, Target, Unfit
    from orchestrator.rendering.folder import Placed
    from orchestrator.rendering.variables import Rounded
    from orchestrator.settings import ConfigurationError

PAGES = {"en": "clusterpro.en.md", "ja": "clusterpro.ja.md"}


def add(commands: options.Commands) -> None:
    help = _("write what CLUSTERPRO or Redis needs, and the page that says how to set it up")
    render = options.add_command(commands, "render", help, run_render)
    what = _(
        "clusterpro: scripts that ask dcsup; guide: the guide's plain sequence and nothing else, for going back; "
        "redis: users, passwords, keys and settings of a Redis of your own, for every machine"
    )
    render.add_argument("what", choices=["clusterpro", "guide", "redis"], help=what)
    options.config(render)
    render.add_argument("--out", metavar=_("FOLDER"), required=True, help=_("where to write; may be there already"))
    platform = _("what to write for (default: what the node's folder looks like)")
    render.add_argument("--platform", choices=["windows", "linux"], help=platform)
    encoding = _("of batch files (default: cp932); what cp932 cannot hold needs utf-8")
    render.add_argument("--encoding", choices=["cp932", "utf-8"], help=encoding)
    language = _("of what the scripts write to the cluster log (default: the cluster's own)")
    render.add_argument("--language", choices=["en", "ja"], help=language)
    fragment = _("write start and stop as parts of scripts that exist, as those of a DBMS")
    render.add_argument("--fragment", action="store_true", help=fragment)
    render.add_argument("--tls", action="store_true", help=_("redis: the servers speak TLS only, and want certificates of their clients"))
    render.add_argument("--rotate", action="store_true", help=_("redis: new passwords and keys; the ones before stay good for now"))
    place = _("redis: where the files will lie on the machines (default: /etc/dcsup, on Windows C:\\ProgramData\\dcsup)")
    render.add_argument("--place", metavar=_("FOLDER"), help=place)
    options.as_json(render)


def run_render(arguments: argparse.Namespace) -> int:
    if arguments.what == "redis":
        return rendering_redis.run(arguments)
    from orchestrator.rendering import Unfit, folder, variables

    site = _site(arguments)
    target = _target(arguments, site)
    try:
        site, rounded = variables.in_whole_seconds(site, target)
        files = _files(arguments.what, site, target)
    except Unfit as unfit:
        raise _refusal(arguments.config, unfit) from None
    placed = folder.place(Path(arguments.out), files)
    _remarks(site, placed, rounded, arguments.what)
    if arguments.json:
        output.show_json({"out": arguments.out, "written": placed.written, "unchanged": placed.unchanged, "kept": placed.kept,
                          "site": placed.site, "left": placed.left})  # fmt: skip
    else:
        _show(arguments, placed)
    return 0


def _site(arguments: argparse.Namespace) -> Site:
    from orchestrator.rendering import site_of

    try:
        return site_of(configured(arguments))
    except ValueError:
        said = say(
            "{file} has no [node] table: render with the configuration of a node, which says where things are", file=arguments.config
        )
        raise Stop(WRONG_USE, said) from None


def _target(arguments: argparse.Namespace, site: Site) -> Target:
    from orchestrator.rendering import Target, platform_of

    platform = arguments.platform or platform_of(site.node.folder)
    if platform == "linux" and arguments.encoding == "cp932":
        raise Stop(WRONG_USE, say("sh scripts are always UTF-8: leave --encoding out"))
    if arguments.fragment and arguments.what == "guide":
        raise Stop(WRONG_USE, say("--fragment is for `render clusterpro`: the guide's scripts are whole ones"))
    encoding: Encoding = arguments.encoding or ("cp932" if platform == "windows" else "utf-8")
    return Target(platform, encoding, arguments.language or site.cluster.language, arguments.fragment)


def _files(what: str, site: Site, target: Target) -> dict[str, bytes]:
    from deploy.clusterpro import sources
    from orchestrator.rendering import page, scripts
    from workers.messages import in_language

    static, words = sources(target.platform), in_language(target.language)
    if what == "guide":
        return scripts.guide(site, target, static, words)
    files = scripts.supervised(site, target, static, words)
    for language, name in PAGES.items():
        files[name] = page.page(site, target, in_language(language)).encode()
    return files


def _refusal(config: str, unfit: Unfit) -> ConfigurationError:
    """The settings that no script can hold, each with its line."""
    from orchestrator.settings import ConfigurationError, Mistake, dotted
    from orchestrator.tomllines import lines_of, nearest

    lines = lines_of(Path(config).read_text(encoding="utf-8-sig").encode())
    return ConfigurationError(
        [Mistake(config, nearest(lines, where), dotted(where), found, expected) for where, found, expected in unfit.reasons]
    )


def _remarks(site: Site, placed: Placed, rounded: list[Rounded], what: str) -> None:
    from orchestrator.rendering.page import needed_timeout_s
    from orchestrator.settings import dotted

    for one in rounded:
        where, seconds = dotted(one.where), f"{one.seconds:g}"
        output.remark(
            say(
                "{where} = {seconds} s is written as {whole} s: scripts count whole seconds",
                where=where,
                seconds=seconds,
                whole=one.whole_s,
            )
        )
    for name, kept in placed.kept.items():
        output.remark(say("{file} had been changed by hand: that is kept as {kept}", file=name, kept=kept))
    for name in placed.left:
        output.remark(say("{file} is no longer a part of this: remove it when nothing calls it any more", file=name))
    needed_s, configured_s = needed_timeout_s(site), site.cluster.clusterpro.script_timeout
    if what == "clusterpro" and needed_s != configured_s:
        output.remark(
            say(
                "the scripts may take longer than clusterpro.script_timeout = {configured} s: set {needed} s, there and in CLUSTERPRO",
                configured=f"{configured_s:g}",
                needed=f"{needed_s:g}",
            )
        )
    if what == "clusterpro" and site.cluster.mode == "observe":
        output.remark(say("cluster '{name}' is in mode observe: these scripts are for mode supervise", name=site.name))


def _show(arguments: argparse.Namespace, placed: Placed) -> None:
    for name in placed.written:
        output.show(say("written: {file}", file=name))
    counts = {"written": len(placed.written), "unchanged": len(placed.unchanged), "site": len(placed.site)}
    output.show(
        say("{out}: {written} written, {unchanged} unchanged, {site} of the site's own left as they are", out=arguments.out, **counts)
    )
    if arguments.what == "clusterpro":
        output.show(say("what to set up in CLUSTERPRO: {page}", page=_page_for_reader(arguments.out)))


def _page_for_reader(out: str) -> str:
    from workers.messages import language

    return str(Path(out) / PAGES["ja" if language() == "ja" else "en"])
