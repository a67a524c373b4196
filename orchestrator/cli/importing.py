"""`dcsup import clp.conf`: CLUSTERPRO's configuration as a dcsup.toml with comments, and what could not be known."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import options, output
from orchestrator.cli.stopping import WRONG_USE, Stop
from orchestrator.said import say
from workers.messages import _

if TYPE_CHECKING:
    from orchestrator.clpconf.exported import Exported
    from orchestrator.clpconf.guessing import Draft


def add(commands: options.Commands) -> None:
    parser = options.add_command(commands, "import", _("make a dcsup.toml of CLUSTERPRO's configuration, clp.conf"), run_import)
    parser.add_argument("clp_conf", metavar=_("CLP.CONF"), help=_("the file, or the folder that `clpcfctrl --pull` writes"))
    parser.add_argument("--out", metavar=_("FILE"), default=None, help=_("write it there (default: to the standard output)"))
    parser.add_argument("--force", action="store_true", help=_("overwrite a file that exists"))
    parser.add_argument("--cluster", metavar=_("NAME"), default=None, help=_("what dcsup shall call the cluster"))
    parser.add_argument("--group", metavar=_("NAME"), default=None, help=_("CLUSTERPRO's failover group, if there are several"))
    parser.add_argument("--node", metavar=_("NAME"), default=None, help=_("the machine that the [node] table is for (default: the first)"))
    options.as_json(parser)


def run_import(arguments: argparse.Namespace) -> int:
    from orchestrator.clpconf.exported import read_exported
    from orchestrator.clpconf.guessing import draft
    from orchestrator.clpconf.reading import ClpConfError
    from orchestrator.clpconf.writing import toml_of

    try:
        exported = read_exported(arguments.clp_conf)
        made = draft(exported, arguments.cluster, arguments.group, arguments.node)
    except ClpConfError as error:
        raise Stop(WRONG_USE, say("{what}: {why}", what=arguments.clp_conf, why=error.said)) from None
    toml = toml_of(made, output.words)
    if arguments.out is not None:
        _write(Path(arguments.out), toml, arguments.force)
    if arguments.json:
        output.show_json(_document(exported, made, toml, arguments.out))
        return 0
    if arguments.out is None:
        sys.stdout.write(toml)
    _remarks(exported, made, arguments.out)
    return 0


def _write(path: Path, toml: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(toml)
    except FileExistsError:
        raise Stop(WRONG_USE, say("{file} exists and was left as it is; --force overwrites it", file=str(path))) from None
    except OSError as error:
        raise Stop(WRONG_USE, say("{file} cannot be written ({reason})", file=str(path), reason=error.strerror or str(error))) from None


def _remarks(exported: Exported, made: Draft, out: str | None) -> None:
    """What a person must know beside the file; on the standard error, for the file may be on the standard output."""
    for finding in exported.conf.findings:
        output.remark(say("{file}: {place}: {what}", file=exported.path, place=str(finding.place) or "-", what=finding.said))
    for said in made.renamed:
        output.remark(said)
    if out is not None:
        output.remark(say("written: {file}", file=out))
    output.remark(say("what could not be known:"))
    for said in made.unknown:
        output.complain(f"  - {output.words(said)}")
    output.remark(say("fill it in, look at the guesses, then run `dcsup check`"))


def _document(exported: Exported, made: Draft, toml: str, out: str | None) -> dict[str, object]:
    return {
        "source": exported.path,
        "encoding": exported.conf.encoding,
        "version": exported.conf.version,
        "out": out,
        "toml": toml,
        "cluster": made.cluster,
        "group": {"clusterpro": made.group_there, "dcsup": made.group},
        "nodes": [{"clusterpro": host, "dcsup": name} for host, name in made.nodes.items()],
        "services": [{"kind": one.kind, "command": one.command, "why": output.words(one.why)} for one in made.services],
        "renamed": [output.words(said) for said in made.renamed],
        "unknown": [output.words(said) for said in made.unknown],
        "findings": [{"what": output.words(one.said), "path": one.place.path, "line": one.place.line} for one in exported.conf.findings],
    }
