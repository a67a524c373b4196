"""Durations as people write them in dcsup.toml: `"10s"`, `"500ms"`, `"2m"`, `"1h"`, or a bare number of seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(value: object) -> float:
    """Seconds of `"10s"`, `"500ms"`, `"2m"`, `"1h"`, `"1d"` or of a bare number of seconds.

    Raises:
        ValueError: for anything else, and for negative numbers.
    """
    if isinstance(value, bool):
        raise ValueError('a duration is a text like "10s", "500ms" or "2m", or a number of seconds')
    if isinstance(value, (int, float)):
        if not 0 <= value < float("inf"):
            raise ValueError("a duration is not negative")
        return float(value)
    if isinstance(value, str) and (match := _PATTERN.fullmatch(value.strip())):
        return float(match[1]) * _UNITS_S[match[2]]
    raise ValueError('a duration is a text like "10s", "500ms" or "2m", or a number of seconds')


Seconds = Annotated[float, BeforeValidator(parse_duration_s)]
"""A duration in seconds; accepts the forms of `parse_duration_s`."""
