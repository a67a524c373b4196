"""The CLI as an operator meets it: arguments in, exit code and both outputs out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.embedded import EmbeddedRedis

CONFIGURATION = """\
[redis]
url = "{url}"
[orchestrator]
listen = "127.0.0.1:0"
[clusters.demo]
mode = "supervise"
group = "failover1"
nodes = ["node1", "node2"]
[[clusters.demo.services]]
name = "agent"
kind = "agent"
[[clusters.demo.services]]
name = "server"
kind = "server"
"""

SURROUNDINGS = ("DCSUP_LANG", "LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE", "COLUMNS", "DCSUP_CONFIG")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Dcsup = Callable[..., Answer]


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the language and the terminal of the machine: tests choose their own."""
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dcsup(capsys: pytest.CaptureFixture[str]) -> Dcsup:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def configuration(tmp_path: Path, redis_server: EmbeddedRedis) -> Path:
    """A file that names the tests' own Redis."""
    file = tmp_path / "dcsup.toml"
    file.write_text(CONFIGURATION.format(url=redis_server.url))
    return file


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A file that names a Redis that is not there."""
    file = tmp_path / "nowhere.toml"
    file.write_text(CONFIGURATION.format(url="redis://ops:geheim@127.0.0.1:1/0"))
    return file


def process(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """`dcsup` as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in SURROUNDINGS}
    command = [sys.executable, "-c", "import sys; from orchestrator.cli import main; sys.exit(main())", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**kept, **environment})


@pytest.fixture
def orchestrator(configuration: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An orchestrator that leads the configuration's cluster (once it got there)."""
    running = process("orchestrator", "--config", configuration)
    yield running
    if running.poll() is None:
        running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
