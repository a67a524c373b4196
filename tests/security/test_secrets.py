"""Passwords, keys and tokens are in their files and nowhere else: a whole installation is run, and everything that it left is searched."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cli import main
from statemachines import wire
from tests.conftest import wait_until
from tests.security.installation import render, server_of
from tests.security.servers import Server, free_port
from tests.security.test_acl import Story, start

PLANTED = {
    "token": "CANARY-token-of-the-endpoint-5f1d",
    "rest.password": "CANARY-rest-password-77aa",
    "wrong": "CANARY-wrong-password-c3c3",
}
TRACEBACK = b"Traceback (most recent call last)"


class Secrets:
    """Every secret of an installation by the name of its file, and where one of them turned up."""

    def __init__(self, out: Path, folder: Path) -> None:
        self.files = [path for path in out.rglob("*") if path.suffix in (".password", ".key")]
        for name, secret in PLANTED.items():
            path = folder / f"{name}.secret"
            path.touch(mode=0o600)
            path.write_text(f"{secret}\n")
            self.files.append(path)
        self.all = {line.encode(): path.name for path in self.files for line in path.read_text().split()}
        assert len(self.files) >= 8 and all(len(secret) >= 16 for secret in self.all)
        self.found: set[tuple[str, str]] = set()

    def search(self, where: str, content: bytes) -> None:
        self.found |= {(where, name) for secret, name in self.all.items() if secret in content}

    def search_files(self, folder: Path) -> int:
        """All files below the folder but the secrets' own; how many these were."""
        others = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path not in self.files]
        for path in others:
            self.search(str(path), path.read_bytes())
        return len(others)

    def search_redis(self, admin: Any) -> int:
        """Every value there is; RQ packs the contents of jobs. How many keys these were."""
        keys = list(admin.scan_iter(count=1000))
        for key in keys:
            kind = admin.type(key)
            read = {b"string": admin.get, b"hash": admin.hgetall, b"stream": admin.xrange, b"list": lambda key: admin.lrange(key, 0, -1)}
            self.search(f"redis {key!r}", repr(read.get(kind, admin.exists)(key)).encode())
            if kind == b"hash" and (packed := admin.hget(key, "data")) is not None:
                self.search(f"redis {key!r} data", zlib.decompress(packed))
        return len(keys)


@contextlib.contextmanager
def watching_processes(secrets: Secrets) -> Iterator[set[str]]:
    """Looks at the command lines of this process's descendants all the time; the programs that were seen."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        own = psutil.Process()
        while not ended.wait(0.1):
            for process in own.children(recursive=True):
                try:
                    line = " ".join(process.cmdline())
                except psutil.Error:
                    continue  # it ended just now
                secrets.search(f"command line of {process.pid}", line.encode())
                seen.add(line)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[tuple[Story, Server, Secrets]]:
    """One node and one orchestrator with rendered users and keys, a token, and CLUSTERPRO's API for a view."""
    port = free_port()
    out = render(tmp_path, f'url = "redis://127.0.0.1:{port}/0"')
    server = server_of(out, tmp_path / "server", port).start()
    story = Story(tmp_path, out, server)
    secrets = Secrets(out, tmp_path)
    for config in story.configs.values():
        token = f'[orchestrator]\ntoken_file = "{tmp_path}/token.secret"\n'
        config.write_text(config.read_text().replace("[orchestrator]\n", token, 1))
    rest = f'rest = {{ url = "https://127.0.0.1:{free_port()}", user = "monitor", password_file = "{tmp_path}/rest.password.secret" }}\n'
    node = story.configs["c1_n1"]
    node.write_text(node.read_text().replace('boot = ["', f'{rest}view = "rest"\nview_interval = 0.5\nboot = ["', 1))
    yield story, server, secrets
    print("".join(log.read_text()[-3000:] for log in tmp_path.glob("*.log")))  # shown where a test failed
    for process in story.running:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()
    server.kill()


def cli(story: Story, *arguments: object) -> int:
    """A command as an operator runs it; what it says is kept in cli.log."""
    with (story.base / "cli.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return main([str(argument) for argument in arguments])


def test_no_secret_leaves_its_file(installed: tuple[Story, Server, Secrets]) -> None:
    """The whole way with commands run and jobs refused, the commands for people, mistakes in the configuration, a Redis that refuses the
    password: nothing of it is in any output, log, export, fact, Redis value, file of the node, or command line of any process."""
    story, server, secrets = installed
    with watching_processes(secrets) as programs:
        orchestrator, worker = story.start("orchestrator", "orchestrator"), story.start("worker", "c1_n1")
        story.until("NodeJoined")
        wait_until(lambda: story.admin.exists("rq:workers:c1_n1-cmd", wire.watch_alive("c1", "n1")) == 2, "both RQ workers", 120)
        start(story)
        _ask_everything(story)
        _make_mistakes(story)
        _lose_the_password(story, server)
        story.end(worker)
        story.end(orchestrator)
    assert any("workers.rqworker" in line for line in programs) and any("launcher" in line for line in programs)
    assert any("restview" in line for line in programs)
    assert secrets.found == set()
    secrets.search("", PLANTED["token"].encode())  # the search finds what is there
    assert secrets.found == {("", "token.secret")}
    secrets.found.clear()
    assert secrets.search_redis(story.admin) > 10
    assert secrets.search_files(story.base) > 30
    assert secrets.found == set()
    for log in story.base.glob("*.log"):
        assert TRACEBACK not in log.read_bytes(), log


def _ask_everything(story: Story) -> None:
    viewer, node, operator = (story.configs[machine] for machine in ("viewer", "c1_n1", "operator"))
    for words in (("status", "--json"), ("events", "--json"), ("failovers",)):
        assert cli(story, *words, "--config", viewer) == 0, words
    assert cli(story, "export", "--config", viewer, "--cluster", "c1", "--output", story.base / "events.ndjson") == 0
    assert cli(story, "replay", story.base / "events.ndjson", "--verify") == 0
    cli(story, "check", "--config", node, "--node", "--save", story.base / "evidence.json")
    cli(story, "check", "--config", node, "--json")
    cli(story, "pause", "--config", operator, "--json")
    cli(story, "resume", "--config", operator)
    cli(story, "render", "redis", "--config", story.base / "site.toml", "--out", story.base / "rendered")
    cli(story, "render", "clusterpro", "--config", node, "--out", story.base / "scripts")


def _make_mistakes(story: Story) -> None:
    """Secrets where they do not belong, and settings that are wrong beside them: told without the value (exit code 2)."""
    token, password = PLANTED["token"], PLANTED["wrong"]
    good = story.configs["orchestrator"].read_text()
    wrong = {
        "key": good.replace("[keys.c1]", f'[keys]\nc1 = "{token}"\n[keys.x]', 1),
        "word": good.replace("[redis]", f'[redis]\npassword = "{password}"', 1),
        "number": good.replace("[redis]", f'[redis]\npassword_env = ["{password}"]', 1),
        "url": good.replace("[redis]", f'[redis]\nurl = "redis://user:{password}@host:port/0" #', 1),
        "token": good.replace("token_file", f'token = "{token}"\ntoken_file', 1),
        "syntax": good + f'\n[more]\nx = "{token}" "{password}"\n',
    }
    for name, text in wrong.items():
        path = story.base / f"mistake-{name}.toml"
        path.write_text(text)
        for command in ("status", "check", "orchestrator"):
            assert cli(story, command, "--config", path) == 2, (name, command)
        path.unlink()  # what it holds was put there by hand


def _lose_the_password(story: Story, server: Server) -> None:
    """Redis takes another password from now on, and the files hold a wrong one: everybody says that Redis refuses them."""
    for user in ("c1_n1", "dcsup-orchestrator", "dcsup-viewer"):
        story.admin.execute_command("ACL", "SETUSER", user, "resetpass", ">another")
    story.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wrong = story.base / "wrong.secret"
    for machine in ("orchestrator", "viewer"):
        text = story.configs[machine].read_text()
        line = next(line for line in text.splitlines() if line.startswith("password_file"))
        path = story.base / f"wrong-{machine}.toml"
        path.write_text(text.replace(line, f'password_file = "{wrong}"'))
        if machine == "viewer":
            assert cli(story, "status", "--config", path) == 3
    wait_until(lambda: b"does not answer" in (story.base / "orchestrator.log").read_bytes(), "the orchestrator's complaint")
    wait_until(lambda: b"Redis" in (story.base / "worker.log").read_bytes(), "the worker's complaint")
    assert server.process is not None and server.process.poll() is None
