"""What the steps say, in both languages.

The texts are long, so they stand in files of their own beside this module, not in the gettext catalogue: one table a step, the same keys
in both languages.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from orchestrator.runbooks.plans import Shape
from orchestrator.runbooks.steps import PARTS, Step

LANGUAGES = ("en", "ja")


@dataclass(frozen=True)
class Worded:
    """A step as a person reads it."""

    title: str
    text: str
    why: str


class _Blanks(dict[str, str]):
    """What nobody has given yet is shown by its name, which is also how it can be given."""

    def __missing__(self, name: str) -> str:
        return f"<{name}>"


@cache
def texts(language: str) -> dict[str, dict[str, Any]]:
    """Every text of a language; of one that there is none in, the English ones."""
    name = language if language in LANGUAGES else "en"
    return tomllib.loads(resources.files(__package__).joinpath(f"texts.{name}.toml").read_text("utf-8"))


def word(step: Step, shape: Shape, values: Mapping[str, str], language: str) -> Worded:
    """A step with everything filled in that is known."""
    said = texts(language)
    fields = _Blanks({**facts(shape), **values, **step.values, **({"node": step.node} if step.node else {})})
    found = said["steps"][step.kind]
    lines = [found["text"].strip("\n"), *(f"  - {said['parts'][part]} ({PARTS[part]})" for part in step.parts)]
    return Worded(*(text.format_map(fields) for text in (found["title"], "\n".join(lines), found["why"])))


def facts(shape: Shape) -> dict[str, str]:
    """What the settings themselves say."""
    return {
        "cluster": shape.name, "group": shape.settings.group_there, "nodes": ", ".join(shape.settings.nodes), "first": shape.first,
        "metadata_service": shape.metadata.service, "metadata_port": str(shape.metadata.port), "memory_mb": "512",
    }  # fmt: skip
