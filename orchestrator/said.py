"""Sentences that know how to be translated.

The orchestrator's modules do not know the reader's language: they hand up an English template and the values to fill in, and the CLI
looks the template up in the catalogue (`workers/messages.py`) before it fills it. `str()` of one is its English text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """A text as the catalogue knows it, and what to fill in; values may be `Said` themselves."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.in_words(str)

    def in_words(self, translate: Callable[[str], str]) -> str:
        values = {name: value.in_words(translate) if isinstance(value, Said) else value for name, value in self.values.items()}
        return translate(self.template).format(**values)


def say(template: str, **values: Any) -> Said:
    """Marks a text for the catalogue, and fills it in later."""
    return Said(template, values)
