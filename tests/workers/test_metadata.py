"""The metadata DB is watched and shown, and only its changes are told (G44)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from statemachines.facts import FACT
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, NodeFixture, Reports, write_config
from workers.metadata import MetadataWatch, PortCheck, service_of
from workers.watch import Watch

SC_QUERY = """
SERVICE_NAME: DataCoordinatorRA Meta DB server
        TYPE               : 10  WIN32_OWN_PROCESS
        STATE              : {state}
                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)
        WIN32_EXIT_CODE    : 0  (0x0)
        CHECKPOINT         : 0x0
"""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def watched(node: NodeFixture, reports: Reports) -> Iterator[Callable[..., Watch]]:
    """watched(port, lines for [node]): a watch of a cluster with a metadata DB."""
    made: list[Watch] = []

    def make(port: int, extra_node: str = "") -> Watch:
        table = f"metadata = {{ port = {port} }}"
        write_config(node, services="server", extra_cluster=table, extra_node=f'view_interval = "100ms"\n{extra_node}')
        made.append(Watch(node.settings(), BOOT, node.client, reports))
        return made[-1]

    yield make
    for watch in made:
        watch.discard()


def told(reports: Reports) -> list[tuple[str, str]]:
    for one in reports.of("MetadataObserved"):
        FACT.validate_python({**one, "type": "MetadataObserved"})
    return [(one["service"], one["port"]) for one in reports.of("MetadataObserved")]


def until(watch: Watch, condition: Callable[[], Any], what: str) -> None:
    wait_until(lambda: watch.step() or condition(), what)  # type: ignore[func-returns-value]


def test_g44_service_and_port_are_told_when_they_change(
    node: NodeFixture, reports: Reports, listening: socket.socket, watched: Callable[..., Watch]
) -> None:
    """G44: running with an open port, the port closed, the service stopped: three facts, however often one looks."""
    looked, answer = node.base / "looked", node.base / "answer"
    answer.write_text("0")
    script = node.base / "metastatus"
    script.write_text(f'echo >> "{looked}"\nexit "$(cat "{answer}")"\n')
    watch = watched(listening.getsockname()[1], f'metadata_status = ["sh", "{script}"]')
    until(watch, lambda: looked.exists() and len(looked.read_text()) >= 3, "three looks")
    assert told(reports) == [("running", "open")]
    listening.close()
    until(watch, lambda: len(told(reports)) == 2, "the closed port")
    answer.write_text("1")
    until(watch, lambda: len(told(reports)) == 3, "the stopped service")
    assert told(reports) == [("running", "open"), ("running", "closed"), ("stopped", "closed")]


def test_a_command_that_cannot_say_leaves_the_service_unknown(
    reports: Reports, listening: socket.socket, watched: Callable[..., Watch]
) -> None:
    """It cannot be run, or there is none: the port is told all the same."""
    for extra in ('metadata_status = ["/nowhere/metastatus"]', ""):
        watch = watched(listening.getsockname()[1], extra)
        until(watch, lambda: told(reports), "the port")
        assert told(reports) == [("unknown", "open")]
        reports.all.clear()


def test_without_a_metadata_table_nothing_is_asked(node: NodeFixture, reports: Reports) -> None:
    """Most clusters' nodes have nothing to show."""
    write_config(node, services="server")
    watch = Watch(node.settings(), BOOT, node.client, reports)
    assert watch._metadata is None
    watch.discard()


@pytest.mark.parametrize(
    ("state", "service"),
    [
        ("4  RUNNING", "running"),
        ("1  STOPPED", "stopped"),
        ("2  START_PENDING", "unknown"),
        ("3  STOP_PENDING", "unknown"),
        ("実行中", "unknown"),
    ],
)
def test_what_sc_query_prints(state: str, service: str) -> None:
    """The number counts, the words may be in any language."""
    assert service_of(SC_QUERY.format(state=state)) == service
    assert service_of("[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\n\n指定されたサービスは存在しません。\n") == "unknown"


def test_a_port_that_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is neither made nor refused within its time says nothing; nor does a machine without descriptors."""
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EINPROGRESS)
    check = PortCheck(1, limit_s=0.05)
    monkeypatch.setattr("selectors.DefaultSelector", Deaf)
    assert wait_until(check.poll, "the end") == "unknown"

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    assert PortCheck(1).poll() == "unknown"


class Deaf:
    """A selector to which nothing ever happens."""

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def register(self, *_: object) -> None:
        pass

    def select(self, _timeout: float) -> list[object]:
        return []


def test_what_is_under_way_can_be_given_up(node: NodeFixture, reports: Reports, listening: socket.socket) -> None:
    """The process ends: no command and no socket stays."""
    write_config(node, services="server", extra_cluster="metadata = {}", extra_node='metadata_status = ["sleep", "600"]')
    settings = node.settings()
    assert settings.cluster.metadata is not None
    watch = MetadataWatch(settings.node, settings.cluster.metadata, reports)
    watch.step(1.0)
    assert watch.busy
    watch.discard()
    assert not watch.busy
