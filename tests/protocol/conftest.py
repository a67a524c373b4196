"""Fixtures of the node protocol's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.bench import Node, end_leftovers


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of its own for each test; commands that a test leaves running are ended after it."""
    made = Node(tmp_path)
    yield made
    end_leftovers(made)
