"""The mark's key may hold anything: whoever can write it must not be able to end a node's worker, or make it drop a fact."""

from __future__ import annotations

import pytest

from workers.courier import parse_mark


@pytest.mark.parametrize(
    "value",
    [
        '{"streams": {"s": 1e999}}',
        '{"streams": {"s": "many"}}',
        '{"streams": [1]}',
        "[" * 100_000,
        "[]",
        "7",
        "\xff",
        '{"streams": {"s": null}}',
    ],
    ids=range(8),
)
def test_a_mark_that_is_none_lets_nothing_go(value: str) -> None:
    """Reading nonsense neither fails nor acknowledges anything."""
    assert parse_mark(value).streams.get("s", 0) == 0
