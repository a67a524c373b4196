"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from workers.messages import _

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command = Callable[[argparse.Namespace], int]

CONFIG_VARIABLE = "DCSUP_CONFIG"


def add_command(commands: Commands, name: str, help: str, run: Command) -> argparse.ArgumentParser:
    """A command with its --config; `run` gets the parsed arguments and returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def config(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get(CONFIG_VARIABLE, "dcsup.toml")
    help = _("the configuration (default: DCSUP_CONFIG, or dcsup.toml here)")
    parser.add_argument("--config", metavar=_("FILE"), default=default, help=help)


def cluster(parser: argparse.ArgumentParser) -> None:
    help = _("only this cluster (may be repeated; default: all of the configuration)")
    parser.add_argument("--cluster", metavar=_("NAME"), action="append", help=help)


def as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help=_("print JSON, for programs"))
