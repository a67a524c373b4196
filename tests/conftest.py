"""What all tests share: one real Redis, and a way to wait for something without hoping."""

from __future__ import annotations

import os
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

NOTHING_LEFT_OUT = "DCSUP_NOTHING_LEFT_OUT"
"""Environment variable that CI sets: a test that was left out because a Debian package is missing makes the run fail."""

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


LONGEST_FIRST = ("acceptance", "wine", "runbooks", "sandbox", "faults", "security", "worlds", "simulation", "fuzz")
"""Folders whose files take minutes: begun first, so that no core is left alone with one of them in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; else as they were found."""

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where nothing may be left out, say by name what was; and what tests want a reader to know (`record_property`)."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
    if os.environ.get(NOTHING_LEFT_OUT):
        for name in _left_out(terminalreporter):
            terminalreporter.write_line(f"LEFT OUT, and nothing may be: {name}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run in which something was left out for want of a package is no success there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(NOTHING_LEFT_OUT) and reporter is not None and _left_out(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _left_out(reporter: pytest.TerminalReporter) -> list[str]:
    skipped = (one for one in reporter.stats.get("skipped", []) if "Debian package" in str(one.longrepr))
    return sorted({f"{one.nodeid}: {one.longrepr[2]}" for one in skipped})
