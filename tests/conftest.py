"""What all tests share: one real Redis, and a way to wait for something without hoping."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from orchestrator.embedded import EmbeddedRedis

T = TypeVar("T")

WAIT_LIMIT_S = 30.0


def wait_until(condition: Callable[[], T], what: str, limit_s: float = WAIT_LIMIT_S) -> T:
    """What `condition` returns once that is true; fails with `what` when the limit (no promise, only a bound) is reached."""
    deadline = time.monotonic() + limit_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {limit_s:.0f} s in vain for: {what}")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def redis_session() -> Iterator[EmbeddedRedis]:
    """One server for the whole run, started as `dcsup` starts its own."""
    folder = Path(tempfile.mkdtemp(prefix="dcsup-tests-"))
    with EmbeddedRedis(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_server(redis_session: EmbeddedRedis) -> EmbeddedRedis:
    """The shared server, empty. Its address is `.url`; a test that kills a server starts one of its own."""
    with redis.Redis.from_url(redis_session.url) as client:
        client.flushall()
        client.script_flush()
    return redis_session
