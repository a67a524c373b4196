"""What the tests of the node's worker share: a node with scripted commands, and what arrived in its inbox."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from redis import Redis

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.facts import Envelope
from tests.conftest import wait_until
from workers import files, journal
from workers.redisclient import connect
from workers.settings import NodeConfiguration, load_node

T = TypeVar("T")

BOOT = "boot1"
CLUSTER, NODE = "c1", "n1"

STATUS_SCRIPT = """\
code=$(cat "{base}/{name}.code")
echo asked >> "{base}/{name}.asked"
case "$code" in hang) exec sleep 600 ;; esac
exit "$code"
"""

COMMAND_SCRIPT = """\
echo "$1" >> "{base}/{name}.ran"
test ! -e "{base}/{name}.slow" || sleep 600
exit "$(cat "{base}/{name}.result")"
"""


@dataclass
class NodeFixture:
    """One node: its folder, its commands (scripted by files beside them), its configuration."""

    base: Path
    url: str
    client: Redis
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.base / "node"

    @property
    def config(self) -> Path:
        return self.base / "dcsup.toml"

    def settings(self) -> NodeConfiguration:
        return load_node(self.config)

    def dcstatus(self, service: str, answer: int | str) -> None:
        """What the service's dcstatus answers from now on: a code, or "hang"."""
        files.write_aside(self.base / f"{service}.code", f"{answer}\n", flush=False)

    def asked(self, service: str) -> int:
        """How often the service's dcstatus was run."""
        path = self.base / f"{service}.asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def ran(self, service: str) -> list[str]:
        """The verbs that were run."""
        path = self.base / f"{service}.ran"
        return path.read_text().split() if path.exists() else []

    def ticket(self, seq: int, kind: str, commands: list[tuple[str, str]], state: str = "worker", boot: str = BOOT) -> str:
        """Put a ticket on the disk, as a script does; with a sign of life from now."""
        name = f"{boot}-g1-{seq}-{kind}"
        fields: dict[str, object] = {"ticket": name, "boot": boot, "group": "g1", "script": kind, "commands": len(commands)}
        for n, (service, verb) in enumerate(commands, start=1):
            fields |= {f"{n}.service": service, f"{n}.verb": verb}
        files.write_aside(self.folder / "tickets" / f"{name}.{state}", files.to_text(fields))
        self.touch_alive(name)
        return name

    def touch_alive(self, ticket: str) -> None:
        files.write_aside(self.folder / "tickets" / f"{ticket}.alive", f"{time.time_ns()}\n", flush=False)

    def close(self, ticket: str) -> None:
        """End the ticket, as its script does before it returns."""
        found = next(path for path in (self.folder / "tickets").glob(f"{ticket}.*") if path.suffix in (".open", ".worker", ".script"))
        found.rename(found.with_suffix(".done"))

    def journal(self, ticket: str, n: int, state: journal.State, service: str) -> None:
        journal.write(self.folder, ticket, n, state, {"service": service, "by": "script", "boot": BOOT})

    def status(self, service: str) -> dict[str, str]:
        """The service's status file; empty while there is none."""
        return files.read_fields(self.folder / "watch" / f"{service}.status") or {}

    def outbox_facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Facts still in the outbox folder, not numbered yet, oldest first."""
        facts = []
        for path in sorted((self.folder / "outbox").glob("[!.]*.fact")):
            try:
                facts.append(json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue  # it was numbered just now
        return [fact for fact in facts if not kind or fact["type"] == kind]

    def inbox(self, kind: str = "") -> list[Envelope]:
        """What arrived in Redis, in order of arrival."""
        entries: Any = self.client.xrange(wire.inbox(CLUSTER, NODE))
        envelopes = [Envelope.model_validate_json(fields[wire.FACT_FIELD.encode()]) for _, fields in entries]
        return [envelope for envelope in envelopes if not kind or envelope.type == kind]

    def set_mark(self, streams: dict[str, int], commit: int = 1, last_id: str = "1-0", last_hash: str = "aa") -> None:
        """Play the orchestrator: everything up to these numbers is durably in the log."""
        head = {"epoch": 1, "commit": commit, "last_id": last_id, "last_hash": last_hash}
        self.client.set(wire.mark(CLUSTER, NODE), json.dumps({"streams": streams, "head": head}))


KINDS = {"both": ["agent", "server"], "server": ["server"], "dbms": ["command"]}


def commands_of(node: NodeFixture, kind: str) -> str:
    """The lines of `[node.services.<kind>]` that name the fixture's scripts."""
    script = f'"sh", "{node.base}/{kind}-command"'
    named = f'start = [{script}, "up"]\nstop = [{script}, "down"]\n' if kind == "command" else f"command = [{script}]\n"
    return f'[node.services.{kind}]\n{named}status = ["sh", "{node.base}/{kind}-status"]\n'


def write_config(
    node: NodeFixture, *, watch: str = "", extra_node: str = "", schedules: str = "", services: str = "both", extra_cluster: str = ""
) -> None:
    """Write the node's dcsup.toml; the arguments are lines for the tables of the same name. Services are called as their kind."""
    names = KINDS[services]
    listed = ", ".join(f'{{ name = "{name}", kind = "{name}" }}' for name in names)
    tables = "".join(commands_of(node, name) for name in names)
    node.config.write_text(
        f'[redis]\nurl = "{node.url}"\n'
        f'[clusters.{CLUSTER}]\nmode = "supervise"\ngroup = "g1"\nnodes = ["n1", "n2"]\nservices = [{listed}]\nnode_ttl = "2s"\n'
        f"{extra_cluster}\n"
        f"[clusters.{CLUSTER}.watch]\n{watch}\n[clusters.{CLUSTER}.schedules]\n{schedules}\n"
        f'[node]\nname = "{NODE}"\ncluster = "{CLUSTER}"\nfolder = "{node.folder}"\nboot = ["echo", "{BOOT}"]\n{extra_node}\n{tables}'
    )


def make_node(base: Path, url: str, client: Redis) -> NodeFixture:
    node = NodeFixture(base, url, client)
    for name in ("outbox", "tickets", "journal", "watch"):
        (node.folder / name).mkdir(parents=True)
    for name in ("agent", "server", "command"):
        (base / f"{name}-status").write_text(STATUS_SCRIPT.format(base=base, name=name))
        (base / f"{name}-command").write_text(COMMAND_SCRIPT.format(base=base, name=name))
        (base / f"{name}.result").write_text("0\n")
        node.dcstatus(name, 1)
    write_config(node)
    return node


@pytest.fixture
def node(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[NodeFixture]:
    """A node of cluster c1 with an agent and a server, neither running, and the shared Redis, empty."""
    with connect(redis_server.url) as client:
        yield make_node(tmp_path, redis_server.url, client)


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A server of the test's own, to be killed and started as it likes."""
    folder = Path(tempfile.mkdtemp(prefix="dcsup-own-"))
    server = EmbeddedRedis(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(look: Callable[[], T | None], what: str) -> T:
    """As `wait_until`, for something that is None until it is there."""
    found = wait_until(look, what)
    assert found is not None
    return found


def log_lines(path: Path, event: str) -> list[dict[str, Any]]:
    """The whole lines of this event in a process's log."""
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
    return [line for line in map(json.loads, whole) if line["event"] == event]


class Reports:
    """A `report` function that remembers what it was told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any], str]] = []

    def __call__(self, kind: str, data: dict[str, Any], source: str = "worker") -> None:
        self.all.append((kind, data, source))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for told, data, _ in self.all if told == kind]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def log() -> Any:
    return structlog.get_logger()


@pytest.fixture
def stepped() -> Callable[[Callable[[], object], Callable[[], Any]], Callable[[], Any]]:
    """stepped(step, condition): a condition for `wait_until` that does one step of a loop before it looks."""

    def make(step: Callable[[], object], condition: Callable[[], Any]) -> Callable[[], Any]:
        def look() -> Any:
            step()
            return condition()

        return look

    return make
