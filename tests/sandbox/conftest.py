"""Sandboxes for these tests: real ones, quick ones, and none left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.standins.cluster import SandboxCluster

MakeSandbox = Callable[..., SandboxCluster]


@pytest.fixture
def make_sandbox(tmp_path: Path) -> Iterator[MakeSandbox]:
    """Makes sandboxes with short waits, and ends them with the test."""
    made: list[SandboxCluster] = []

    def make(**settings: Any) -> SandboxCluster:
        quick = {"armsleep_scale": 0.01, "heartbeat_interval_s": 0.1, "heartbeat_timeout_s": 1.5, "monitor_interval_s": 0.1}
        made.append(SandboxCluster(tmp_path / f"sandbox{len(made)}", **{**quick, **settings}))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.shutdown()
        assert sandbox.processes() == []
