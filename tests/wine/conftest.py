"""Fixtures of the tests under Wine; without its Debian packages they are left out, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wine.bench import Node, Windows, missing_packages

HOME = "ノード 1 & (表)"
"""A folder as a Japanese administrator may name it; the second byte of its last letter is a backslash in code page 932."""


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    """One Wine for all tests of this process."""
    missing = missing_packages()
    if missing:
        pytest.skip(f"Debian package {', '.join(missing)} is missing: tests/wine left out")
    made = Windows(tmp_path_factory.mktemp("windows"))
    yield made
    made.close()


@pytest.fixture
def make_node(windows: Windows, tmp_path: Path) -> Callable[..., Node]:
    """Makes a node in a folder of its own; settings as in dcsup-env.bat."""

    def make(services: str = "agent server", home: str = HOME, encoding: str = "cp932", **settings: str) -> Node:
        return Node(windows, tmp_path / home, services, encoding, **settings)

    return make


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node with an agent and a server."""
    return make_node()
