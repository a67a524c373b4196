"""`dcsup move`: when it refuses, what it runs, what it hands in, how it follows; with a small script in clpgrp's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.cli import moving
from orchestrator.embedded import EmbeddedRedis
from orchestrator.http import serve
from orchestrator.metrics import registry_of
from statemachines import wire
from statemachines.facts import AnyFact, Envelope, parse_body
from statemachines.states import ClusterState
from tests.cli.conftest import CONFIGURATION, Answer, Dcsup, process
from tests.conftest import wait_until
from tests.statemachines.story import Story

NODE = """\
[node]
name = "node1"
cluster = "demo"
folder = "/nowhere"
[node.services.agent]
command = ["x"]
status = ["x"]
[node.services.server]
command = ["x"]
status = ["x"]
"""
CLPGRP = """\
import pathlib, sys, time
here = pathlib.Path(__file__).parent
(here / "asked").write_text("\\n".join(sys.argv[1:]))
while not (here / "code").exists():
    time.sleep(0.02)
print((here / "words").read_text() if (here / "words").exists() else "Command succeeded.")
sys.exit(int((here / "code").read_text()))
"""


class Stage:
    """A cluster as its leading orchestrator tells it (over real HTTP), and a clpgrp that waits for the test's word."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.client: Any = redis.Redis.from_url(url)
        self.story = Story()
        self.story.bring_up("node1")
        self.story.tell("node2", "NodeJoined", boot="boot-2", version="0")
        self.story.wait(30)
        self.changes: dict[str, Any] = {}
        """What is told otherwise than the story has it."""
        self.configuration = folder / "dcsup.toml"
        script = folder / "clp grp.py"
        script.write_text(CLPGRP)
        self.write(f"clpgrp = {json.dumps([sys.executable, str(script)])}", url)
        self.address, self.close_http = serve("127.0.0.1:0", registry_of(dict, threading.Lock()), self.status)
        self.lead()

    def write(self, clpgrp: str, url: str) -> None:
        text = CONFIGURATION.format(url=url) + NODE.replace("[node.services.agent]", f"{clpgrp}\n[node.services.agent]")
        self.configuration.write_text(text)

    def lead(self) -> None:
        self.client.set(wire.owner("demo"), "me")
        self.client.set(wire.lease("me"), json.dumps({"url": self.address}))

    def status(self) -> dict[str, Any]:
        return {"clusters": {"demo": self.state.model_dump(mode="json") | self.changes}}

    @property
    def state(self) -> ClusterState:
        return self.story.state

    def says(self, code: int, words: str = "Command succeeded.") -> None:
        """clpgrp ends like this."""
        (self.folder / "words").write_text(words)
        aside = self.folder / "code.tmp"
        aside.write_text(str(code))
        aside.replace(self.folder / "code")

    def asked(self) -> list[str] | None:
        file = self.folder / "asked"
        return file.read_text().split("\n") if file.exists() and file.read_text() else None

    def moves(self) -> None:
        """The group comes to node2, with its schedules."""
        self.story.take_down("node1", "START", factor="GROUPMOVE")
        self.story.bring_up("node2")
        self.story.wait(40)

    def facts(self) -> list[AnyFact]:
        rows = self.client.xrange(wire.inbox("demo", wire.OPERATOR_INBOX))
        envelopes = [Envelope.model_validate_json(fields[wire.FACT_FIELD.encode()]) for _, fields in rows]
        return [parse_body(one, wire.OPERATOR_INBOX) for one in envelopes]

    def close(self) -> None:
        self.close_http()
        self.client.close()


@pytest.fixture
def stage(tmp_path: Path, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(moving, "LOOK_EVERY_S", 0.02)
    found = Stage(tmp_path, redis_server.url)
    yield found
    found.close()


ASKED = ("--to", "node2", "--why", "保守", "--by", "田中", "--yes")


def beside(stage: Stage, play: Callable[[], None]) -> threading.Thread:
    """Plays as soon as clpgrp was asked."""

    def body() -> None:
        wait_until(stage.asked, "clpgrp was asked")
        play()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def move(dcsup: Dcsup, stage: Stage, play: Callable[[], None], *more: str) -> Answer:
    thread = beside(stage, play)
    answer = dcsup("move", "--config", stage.configuration, *ASKED, *more)
    thread.join()
    return answer


# --- moving ---------------------------------------------------------------------------------------------------------------------------


def test_a_move_is_asked_for_followed_and_told(dcsup: Dcsup, stage: Stage) -> None:
    """Who and why are handed in first, then clpgrp is called with group and node; its end is handed in, and phases and schedules shown."""

    def play() -> None:
        [asked] = stage.facts()
        assert (asked.type, asked.model_dump()["to"], asked.model_dump()["by"]) == ("MoveRequested", "node2", "田中")
        stage.moves()
        stage.says(0)

    answer = move(dcsup, stage, play)
    assert answer.code == 0, answer.err
    assert stage.asked() == ["-m", "failover1", "-a", "node2"]
    first, second = (fact.model_dump() for fact in stage.facts())
    assert first["why"] == "保守"
    assert (second["type"], second["ok"], second["request"]) == ("MoveEnded", True, first["request"])
    for words in ("node1 -> node2", "takeover", "completed", "the group is on node2, and every service is verified there"):
        assert words in answer.out
    assert "asking the cluster manager: " in answer.err
    assert "-m failover1 -a node2" in answer.err


def test_a_move_as_json(dcsup: Dcsup, stage: Stage) -> None:
    """One document: the request, the command's end, the failover's record, and whether it is good."""

    def play() -> None:
        stage.says(0)
        stage.moves()

    answer = move(dcsup, stage, play, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["ok"], found["verified"], found["to"], found["by"], found["why"]) == (0, True, True, "node2", "田中", "保守")
    assert found["command"] == {"ok": True, "reason": "Command succeeded."}
    assert found["failover"]["kind"] == "move"
    assert found["failover"]["outcome"] == "completed"
    assert found["failover"]["judgements"]


def test_a_manager_that_refuses_ends_with_1(dcsup: Dcsup, stage: Stage) -> None:
    """Its words are shown, and handed in; nothing was seen of a move."""
    answer = move(dcsup, stage, lambda: stage.says(9, "Error: The group is busy."))
    assert answer.code == 1
    assert "the cluster manager did not do it: code 9: Error: The group is busy." in answer.err
    assert "nothing was seen of a move" in answer.err
    ended = stage.facts()[-1].model_dump()
    assert (ended["ok"], ended["reason"]) == (False, "code 9: Error: The group is busy.")


def test_a_group_that_ends_elsewhere_ends_with_1(dcsup: Dcsup, stage: Stage) -> None:
    """The start on the target fails and the manager brings the group up again where it was: told as it is."""

    def play() -> None:
        stage.story.take_down("node1", "START", factor="GROUPMOVE")
        stage.story.bring_up("node1")
        stage.story.wait(40)
        stage.says(1, "Error: Failed to move the group.")

    answer = move(dcsup, stage, play)
    assert answer.code == 1
    assert "the group is on node1 or on its way; not every service is verified on node2" in answer.out


def test_a_command_that_is_not_there_ends_with_1(dcsup: Dcsup, stage: Stage, redis_server: EmbeddedRedis) -> None:
    """And says which one."""
    stage.write('clpgrp = ["/nowhere/clpgrp"]', redis_server.url)
    answer = dcsup("move", "--config", stage.configuration, *ASKED)
    assert answer.code == 1
    assert "the cluster manager did not do it: cannot run /nowhere/clpgrp" in answer.err
    assert [fact.type for fact in stage.facts()] == ["MoveRequested", "MoveEnded"]


def test_a_move_of_which_nothing_is_seen_ends_with_1(dcsup: Dcsup, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager said yes, and nothing happened: it is not waited for without end."""
    monkeypatch.setattr(moving, "SEEN_LIMIT_S", 0.2)
    answer = move(dcsup, stage, lambda: stage.says(0))
    assert answer.code == 1
    assert "nothing was seen of a move" in answer.err


def test_an_orchestrator_that_goes_meanwhile_is_waited_for(dcsup: Dcsup, stage: Stage) -> None:
    """The move goes on without it, and is told when the next one leads."""

    def play() -> None:
        stage.client.delete(wire.owner("demo"))
        stage.moves()
        stage.says(0)
        wait_until(lambda: len(stage.facts()) == 2, "the end was handed in")
        stage.lead()

    answer = move(dcsup, stage, play)
    assert answer.code == 0
    assert "just now; the move goes on" in answer.err


def test_the_name_that_the_cluster_manager_prints_is_used(dcsup: Dcsup, stage: Stage) -> None:
    """CLUSTERPRO's host name may differ in case from the node's name here."""
    view = {"node": "node1", "at_ms": 1.0, "group_state": "online", "current": "node1", "servers": {"NODE1": "online", "Node2": "online"}}
    stage.changes["view"] = view

    def play() -> None:
        stage.moves()
        stage.says(0)

    assert move(dcsup, stage, play).code == 0
    assert (stage.asked() or [])[-1] == "Node2"


def test_the_names_that_a_site_set_are_used(dcsup: Dcsup, stage: Stage) -> None:
    """Group and server as CLUSTERPRO calls them."""
    file = stage.configuration
    text = file.read_text(encoding="utf-8")
    file.write_text(text + '\n[clusters.demo.clusterpro]\ngroup = "Fail_1"\nservers = { node2 = "DB_2" }\n', encoding="utf-8")

    def play() -> None:
        stage.moves()
        stage.says(0)

    assert move(dcsup, stage, play).code == 0
    assert (stage.asked() or [])[-3:] == ["Fail_1", "-a", "DB_2"]


def test_ctrl_c_only_ends_the_following(stage: Stage) -> None:
    """It says that the move goes on; clpgrp is not interrupted and ends by itself."""
    running = process("move", "--config", stage.configuration, *ASKED)
    wait_until(stage.asked, "clpgrp was asked")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"no longer followed; what was asked of the cluster manager goes on" in err
    assert b"Traceback" not in err
    (stage.folder / "words").write_text("still here")
    stage.says(0)


def test_by_rest_the_api_is_asked(dcsup: Dcsup, stage: Stage, redis_server: EmbeddedRedis) -> None:
    """One POST to the group's move with the target; that is what `--rest` means, or a node without clpgrp."""
    import http.server

    posts: list[tuple[str, Any]] = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            body = b'{"result": {"code": 0, "message": ""}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            stage.moves()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    (stage.folder / "password").write_text("geheim\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        rest = f'url = "http://127.0.0.1:{api.server_port}"\nuser = "op"\npassword_file = "{stage.folder}/password"\n'
        stage.write("", redis_server.url)
        stage.configuration.write_text(stage.configuration.read_text() + f"[node.rest]\n{rest}")
        answer = dcsup("move", "--config", stage.configuration, *ASKED)
        api.shutdown()
    assert answer.code == 0, answer.err
    assert posts == [("/api/v1/groups/failover1/move", {"target": "node2"})]
    assert "geheim" not in answer.out + answer.err


# --- refusing -------------------------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "absent": ({"nodes": {"node2": {"present": False}}}, "node2 shows no sign of life"),
    "active": ({"active": "node2"}, "the group runs on node2 already"),
    "nowhere": ({"active": None}, "the group runs nowhere"),
    "failover": ({"failover": {"id": "f9", "state": "acting"}}, "failover f9 is not over yet (acting)"),
    "move": ({"move": {"by": "x", "to": "node2"}}, "x has asked for a move to node2 that is not over yet"),
    "twice": ({"double_activation": True}, "the group was seen on two nodes"),
    "offline": ({"view": {"servers": {"node2": "offline"}}}, "the cluster manager says that node2 is offline"),
    "paused": ({"paused_since_ms": 5, "paused_by": "x"}, "dcsup is paused by x (--force"),
    "suspended": ({"suspended": True}, "the cluster is suspended (--force"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_its_reason(dcsup: Dcsup, stage: Stage, name: str) -> None:
    """Exit 1, and neither the cluster manager nor the log hears of it."""
    changes, words = REFUSED[name]
    stage.changes = changes
    answer = dcsup("move", "--config", stage.configuration, *ASKED)
    assert answer.code == 1
    assert words in answer.err
    assert "nothing was moved" in answer.err
    assert (stage.asked(), stage.facts()) == (None, [])


def test_every_reason_is_told_at_once(dcsup: Dcsup, stage: Stage) -> None:
    """Not one after the other."""
    stage.changes = {"active": "node2", "suspended": True, "double_activation": True}
    answer = dcsup("move", "--config", stage.configuration, *ASKED)
    assert len(answer.err.splitlines()) == 3


def test_force_is_for_maintenance_only(dcsup: Dcsup, stage: Stage) -> None:
    """It moves a paused cluster, and refuses everything else all the same."""
    stage.changes = {"suspended": True, "double_activation": True}
    assert dcsup("move", "--config", stage.configuration, *ASKED, "--force").code == 1
    stage.changes = {"suspended": True, "paused_since_ms": 5}

    def play() -> None:
        stage.moves()
        stage.says(0)

    assert move(dcsup, stage, play, "--force").code == 0


WRONG = {
    "no node table": ("", "has no [node] table"),
    "another cluster": (NODE, "this node is one of cluster 'demo'"),
    "an unknown node": (NODE, "there is no node 'node9' in this cluster; known: node1, node2"),
    "nothing to move with": (NODE, "does not set [node] clpgrp"),
    "no api": (NODE, "does not set [node.rest]"),
}
MORE = {"another cluster": ["--cluster", "x"], "an unknown node": ["--to", "node9"], "no api": ["--rest"]}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_ends_with_2(dcsup: Dcsup, nowhere: Path, name: str) -> None:
    """Before anybody is asked."""
    tables, words = WRONG[name]
    nowhere.write_text(nowhere.read_text() + tables)
    answer = dcsup("move", "--config", nowhere, *ASKED, *MORE.get(name, []))
    assert (answer.code, words in answer.err) == (2, True), answer.err


def test_without_redis_nothing_is_moved(dcsup: Dcsup, stage: Stage) -> None:
    """Exit 3, and the command that a person can type instead."""
    stage.configuration.write_text(stage.configuration.read_text().replace("unix://", "unix:///nowhere"))
    answer = dcsup("move", "--config", stage.configuration, *ASKED)
    assert answer.code == 3
    assert "does not answer" in answer.err
    assert "nothing was moved; without dcsup: " in answer.err
    assert f'"{stage.folder}/clp grp.py" -m failover1 -a node2' in answer.err
    assert stage.asked() is None


def test_without_an_orchestrator_nothing_is_moved(dcsup: Dcsup, stage: Stage) -> None:
    """Nobody could tell whether it makes sense, nor how it ended."""
    stage.client.delete(wire.owner("demo"))
    answer = dcsup("move", "--config", stage.configuration, *ASKED)
    assert (answer.code, stage.asked(), stage.facts()) == (3, None, [])
    assert "no orchestrator leads cluster 'demo'" in answer.err
    assert "nothing was moved; without dcsup: " in answer.err


# --- is it meant? ---------------------------------------------------------------------------------------------------------------------


def test_nobody_to_ask_is_a_no(dcsup: Dcsup, stage: Stage) -> None:
    """Without a terminal and without --yes."""
    answer = dcsup("move", "--config", stage.configuration, *ASKED[:-1])
    assert (answer.code, "say --yes" in answer.err, stage.asked()) == (2, True, None)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_on_a_terminal_it_is_asked(stage: Stage) -> None:
    """Anything but y is a no, and moves nothing."""
    answer, shown = at_a_terminal(stage, b"n\n")
    assert "Move group failover1 of cluster demo from node1 to node2? Clients are cut off meanwhile. [y/N]" in shown
    assert (answer, stage.asked(), stage.facts()) == (1, None, [])
    beside(stage, lambda: stage.says(1))
    answer, _ = at_a_terminal(stage, b"y\n")
    assert (answer, stage.asked() is not None) == (1, True)


def at_a_terminal(stage: Stage, typed: bytes) -> tuple[int, str]:
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", "import sys; from orchestrator.cli import main; sys.exit(main())", "move"]
    try:
        os.write(ours, typed)
        done = subprocess.run(
            [*command, "--config", str(stage.configuration), *ASKED[:-1]], stdin=theirs, capture_output=True, timeout=120, check=False
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr.decode()
