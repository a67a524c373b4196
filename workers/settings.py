"""Reading dcsup.toml on a node.

A node's processes need the validated settings and nothing else; on which line of the file a mistake is, is told by `dcsup check`
and by the CLI before it starts a worker (orchestrator/settings.py). Here a bad file is one clear sentence and no start.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from statemachines.configuration import ClusterSettings, Configuration, NodeSettings


@dataclass(frozen=True)
class NodeConfiguration:
    """What one node's processes run with: the whole file, and its two tables that matter here."""

    whole: Configuration
    node: NodeSettings
    cluster: ClusterSettings


def load(path: str | Path) -> Configuration:
    """The validated content of a dcsup.toml.

    Raises:
        ValueError: the file cannot be read, is not TOML, or breaks a rule of statemachines/configuration.py; the message names
            the file and every mistake, one a line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    try:
        return Configuration.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ValueError("\n".join(_sentences(path, error))) from None


def load_node(path: str | Path) -> NodeConfiguration:
    """As `load`, for a machine that is a node.

    Raises:
        ValueError: as `load`, or the file has no [node] table.
    """
    whole = load(path)
    if whole.node is None:
        raise ValueError(f"{path}: no [node] table; a worker needs one: it says which node this machine is")
    return NodeConfiguration(whole, whole.node, whole.clusters[whole.node.cluster])


def _sentences(path: str | Path, error: ValidationError) -> list[str]:
    return [f"{path}: {'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}" for one in error.errors()]
