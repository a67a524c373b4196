"""The commands, against a real Redis, without one, and with wrong arguments."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.embedded import EmbeddedRedis
from orchestrator.settings import load
from statemachines import wire
from statemachines.facts import Envelope, parse_body
from tests.cli.conftest import CONFIGURATION, Answer, Dcsup, process
from tests.conftest import wait_until
from tests.orchestrator.surface import file_of, put_into, told_log
from tests.orchestrator.test_surface_http import ask

WITH_CONFIGURATION = ("status", "events", "failovers", "export", "pause", "resume", "orchestrator", "worker", "probe test")
ASK_REDIS = ("status", "events", "events --follow", "failovers", "export", "pause", "resume")


@pytest.fixture
def log_in_redis(configuration: Path, redis_server: EmbeddedRedis) -> Path:
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, told_log())
    return configuration


# --- wrong use ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", WITH_CONFIGURATION)
def test_a_bad_configuration_is_told_line_by_line_and_ends_with_2(command: str, dcsup: Dcsup, nowhere: Path) -> None:
    """Every command that reads it says every mistake with file and line, before it does anything."""
    nowhere.write_text(nowhere.read_text().replace("supervise", "watch").replace("group", "grupo"))
    answer = dcsup(*command.split(), "--config", nowhere)
    assert answer.code == 2
    assert [line.partition(" ")[0] for line in answer.err.splitlines()] == [
        f"{nowhere}:5:",
        f"{nowhere}:6:",
        f"{nowhere}:7:",
    ]


@pytest.mark.parametrize("command", WITH_CONFIGURATION)
def test_a_missing_configuration_ends_with_2(command: str, dcsup: Dcsup, tmp_path: Path) -> None:
    """And says how to name one."""
    answer = dcsup(*command.split(), "--config", tmp_path / "none.toml")
    assert answer.code == 2
    assert "there is no such file; name the configuration with --config FILE or DCSUP_CONFIG" in answer.err


WRONG = {
    "": "the following arguments are required: COMMAND",
    "nonsense": "invalid choice: 'nonsense'",
    "status --nope": "unrecognized arguments: --nope",
    "events --limit x": "invalid int value: 'x'",
    "probe": "the following arguments are required",
    "graph wheel": "there is no state machine 'wheel'; known: service, node, failover",
    "up": "`dcsup up` needs --sandbox",
    "replay": "the following arguments are required: FILE",
    "replay /nowhere": "/nowhere cannot be read: No such file or directory",
    "replay /": "/ cannot be read: Is a directory",
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.items())
def test_wrong_arguments_end_with_2(arguments: str, words: str, dcsup: Dcsup) -> None:
    """With one clear sentence."""
    answer = dcsup(*arguments.split())
    assert answer.code == 2
    assert words in answer.err


def test_wrong_arguments_beside_a_good_configuration(dcsup: Dcsup, nowhere: Path) -> None:
    """What only the configuration can tell: a cluster that is not there, no node table, no probe, a time that is none."""
    assert "there is no cluster 'x'" in dcsup("status", "--config", nowhere, "--cluster", "x").err
    assert "has no [node] table" in dcsup("worker", "--config", nowhere).err
    assert "sets no probe in [node]" in dcsup("probe", "test", "--config", nowhere).err
    answer = dcsup("events", "--config", nowhere, "--from", "yesterday")
    assert (answer.code, "is neither an id, nor a time" in answer.err) == (2, True)
    assert dcsup("events", "--config", nowhere, "--limit", "-1").code == 2


def test_help_names_only_what_is_there(dcsup: Dcsup) -> None:
    """Commands of the design that are not built yet are not offered."""
    answer = dcsup("--help")
    assert answer.code == 0
    shown = set(re.findall(r"^    (\w+)", answer.out, re.MULTILINE))
    assert shown == {
        *("demo", "up", "orchestrator", "worker", "hook", "status", "events", "failovers"),
        *("replay", "export", "probe", "graph", "pause", "resume", "move", "render", "import", "check", "runbook"),
    }
    for name in shown - {"demo", "up", "orchestrator", "worker", "hook", "export", "runbook"}:
        assert "--json" in dcsup(name, "--help").out


# --- nobody answers -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ASK_REDIS)
def test_without_redis_commands_end_with_3(command: str, dcsup: Dcsup, nowhere: Path) -> None:
    """One line that names the address, its password masked, and what to look at."""
    answer = dcsup(*command.split(), "--config", nowhere)
    assert answer.code == 3
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert "Redis at redis://ops:***@127.0.0.1:1/0 does not answer" in line
    assert "geheim" not in line


def test_an_embedded_redis_that_does_not_run_ends_with_3(dcsup: Dcsup, tmp_path: Path) -> None:
    """Looking does not start it; what does is said."""
    file = tmp_path / "embedded.toml"
    file.write_text(f'[redis]\nembedded = "{tmp_path}/data"\n{_CLUSTER}')
    answer = dcsup("status", "--config", file)
    assert (answer.code, "does not run; `dcsup orchestrator` starts it" in answer.err) == (3, True)


_CLUSTER = '[clusters.demo]\ngroup = "g"\nnodes = ["n1"]\n[[clusters.demo.services]]\nname = "s"\nkind = "server"\n'


def test_an_address_that_redis_cannot_understand_ends_with_2(dcsup: Dcsup, nowhere: Path) -> None:
    """Found before anything is started."""
    nowhere.write_text(nowhere.read_text().replace(":1/0", ":1/0?db=x"))
    for command in ("status", "orchestrator"):
        answer = dcsup(command, "--config", nowhere)
        assert (answer.code, "geheim" in answer.err) == (2, False)
        assert "cannot be used" in answer.err


def test_a_user_that_redis_refuses_ends_with_3(dcsup: Dcsup, configuration: Path, redis_server: EmbeddedRedis) -> None:
    """A wrong name or password is told apart from a server that is not there."""
    configuration.write_text(configuration.read_text().replace("unix://", "unix://nobody:geheim@"))
    answer = dcsup("status", "--config", configuration)
    assert answer.code == 3
    assert "refuses this user" in answer.err
    assert "geheim" not in answer.err


def test_a_fault_of_our_own_is_a_sentence(dcsup: Dcsup, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, unless one asks for it."""
    monkeypatch.setattr("statemachines.diagrams.mermaid", lambda name: 1 / 0)
    answer = dcsup("graph", "node")
    assert answer.code == 1
    assert "a fault of dcsup itself (ZeroDivisionError: division by zero)" in answer.err
    monkeypatch.setenv("DCSUP_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        dcsup("graph", "node")


# --- export and replay --------------------------------------------------------------------------------------------------------------------


def test_export_replay_and_status_agree(dcsup: Dcsup, log_in_redis: Path, tmp_path: Path) -> None:
    """I6: the exported file is the log, and leads to the very JSON that status prints."""
    file = tmp_path / "out.ndjson"
    answer = dcsup("export", "--config", log_in_redis, "-o", file)
    assert (answer.code, answer.out) == (0, "")
    assert file.read_bytes() == file_of(told_log())
    status = dcsup("status", "--config", log_in_redis, "--json")
    assert "no orchestrator leads cluster 'demo' and answers: this is the state of its log" in status.err
    replayed = dcsup("replay", file, "--state", "--json", "--verify")
    assert (replayed.code, replayed.out) == (0, status.out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_replay_says_what_it_found(dcsup: Dcsup, tmp_path: Path) -> None:
    """For people: how many entries, the head, the failovers by phase, whether the decisions are the same."""
    log = told_log()
    (tmp_path / "log").write_bytes(file_of(log))
    answer = dcsup("replay", tmp_path / "log", "--verify", "--state")
    assert answer.code == 0
    assert f"cluster demo: {len(log)} entries, every hash is right" in answer.out
    assert f"log head {log[-1].entry.id} {log[-1].hash}" in answer.out
    assert "decided again: the same decisions" in answer.out
    assert "manual-started-2" in answer.out
    summary = json.loads(dcsup("replay", tmp_path / "log", "--verify", "--json").out)
    assert summary["head"] == {"id": log[-1].entry.id, "hash": log[-1].hash}
    assert [one["kind"] for one in summary["failovers"]] == ["failure", "move"]
    assert summary["differences"] == []


def test_replay_from_standard_input(dcsup: Dcsup, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file_of(told_log()))))
    assert dcsup("replay", "-").code == 0


def test_a_changed_file_ends_with_1(dcsup: Dcsup, tmp_path: Path) -> None:
    """One changed byte, and the line it is on."""
    content = bytearray(file_of(told_log()))
    content[content.index(b"node1", 2000)] ^= 1
    (tmp_path / "log").write_bytes(content)
    line = content.count(b"\n", 0, content.index(b"oode1")) + 1
    answer = dcsup("replay", tmp_path / "log", "--state", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert f"line {line}: the hash does not match" in answer.err


def test_other_decisions_end_with_1(dcsup: Dcsup, tmp_path: Path) -> None:
    """A log that today's rules would have written otherwise: each difference is told, and the state is still the recorded one."""
    from tests.orchestrator.test_surface_replay import with_rule

    log = told_log()
    position = next(n for n, sealed in enumerate(log) if sealed.entry.transitions)
    (tmp_path / "log").write_bytes(file_of(with_rule(log, position, "X999")))
    assert dcsup("replay", tmp_path / "log").code == 0
    answer = dcsup("replay", tmp_path / "log", "--verify")
    assert answer.code == 1
    assert "decided otherwise now" in answer.out
    assert "X999" in answer.out
    assert json.loads(dcsup("replay", tmp_path / "log", "--verify", "--json").out)["differences"]


def test_a_damaged_log_is_not_exported(dcsup: Dcsup, configuration: Path, redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    """Export ends with 1 and leaves no file, not even a part of one; so does an empty log."""
    target = tmp_path / "out"
    assert dcsup("export", "--config", configuration, "-o", target).code == 1
    log = told_log()
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, log[:5] + log[6:])
    answer = dcsup("export", "--config", configuration, "-o", target)
    assert (answer.code, target.exists()) == (1, False)
    assert f"entry {log[6].entry.id}: the hash does not match" in answer.err
    assert dcsup("failovers", "--config", configuration).code == 1


# --- looking ------------------------------------------------------------------------------------------------------------------------------


def lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_events_choose_by_type_time_and_number(dcsup: Dcsup, log_in_redis: Path) -> None:
    """Each filter by itself and together; JSON lines are the exported form, byte for byte."""
    log = told_log()
    common = ("events", "--config", log_in_redis, "--json")
    assert dcsup(*common, "--from", "0000000000").out.encode() == file_of(log)
    assert [one["id"] for one in lines(dcsup(*common))] == [sealed.entry.id for sealed in log[-50:]]
    assert [one["id"] for one in lines(dcsup(*common, "--limit", 3))] == [sealed.entry.id for sealed in log[-3:]]
    assert lines(dcsup(*common, "--limit", 0)) == []
    ended = [sealed.entry.id for sealed in log if sealed.entry.type == "FailoverEnded"]
    assert [one["id"] for one in lines(dcsup(*common, "--type", "FailoverEnded"))] == ended
    assert [one["id"] for one in lines(dcsup(*common, "--type", "FailoverEnded", "--limit", 1))] == ended[1:]
    begin, end = log[10].entry, log[20].entry
    window = [sealed.entry.id for sealed in log[10:21]]
    assert [one["id"] for one in lines(dcsup(*common, "--from", begin.id, "--to", end.id))] == window
    by_time = lines(dcsup(*common, "--from", begin.time, "--to", end.time))
    assert {one["time"] for one in by_time} == {sealed.entry.time for sealed in log if begin.time <= sealed.entry.time <= end.time}
    assert lines(dcsup(*common, "--from", "1d", "--to", "1h")) == []


def test_events_for_people(dcsup: Dcsup, log_in_redis: Path) -> None:
    """A line an entry: time, place, type, rule, what moved."""
    out = dcsup("events", "--config", log_in_redis, "--from", "0000000000").out
    moved = next(sealed.entry for sealed in told_log() if sealed.entry.transitions)
    (line,) = [one for one in out.splitlines() if one.startswith(moved.time) and f"[{moved.rule}]" in one and moved.type in one][:1]
    assert f"{moved.transitions[0]['from']} -> {moved.transitions[0]['to']}" in line


def test_events_follow_new_entries(log_in_redis: Path, redis_server: EmbeddedRedis) -> None:
    """--follow prints what comes, as it comes, and Ctrl-C ends it quietly with 130."""
    from statemachines.entries import seal
    from tests.orchestrator.surface import entry

    running = process("events", "--config", log_in_redis, "--follow", "--json", "--limit", 1)
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["id"] == told_log()[-1].entry.id
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, [seal(entry(200_000, "DecisionSkipped", {"reason": "late"}), told_log()[-1].hash)])
        assert json.loads(running.stdout.readline())["type"] == "DecisionSkipped"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (130, b"", b"")


def test_failovers_are_told_by_phase(dcsup: Dcsup, log_in_redis: Path) -> None:
    """Every one that is remembered, with kind, outcome and each phase; JSON is the records themselves."""
    found = json.loads(dcsup("failovers", "--config", log_in_redis, "--json").out)["clusters"]["demo"]
    assert [(one["kind"], one["outcome"]) for one in found] == [("failure", "completed"), ("move", "completed")]
    answer = dcsup("failovers", "--config", log_in_redis)
    assert "cluster demo: 2 of 2 failovers" in answer.out
    for words in ("detect", "takeover", "resume", f"{found[0]['total_s']:.2f}", "1 missed", "stop-hook"):
        assert words in answer.out


def test_status_for_people(dcsup: Dcsup, log_in_redis: Path) -> None:
    """Services, nodes, schedules, and where the log stands."""
    answer = dcsup("status", "--config", log_in_redis)
    assert answer.code == 0
    for words in ("mode supervise, active node node1", "epoch 1", "running", "agent", "auto-started-1", told_log()[-1].hash):
        assert words in answer.out


def test_graph_draws_each_machine(dcsup: Dcsup) -> None:
    """Mermaid text, of one machine or of all."""
    from statemachines.diagrams import mermaid

    assert dcsup("graph", "service").out == mermaid("service")
    assert dcsup("graph").out.count("stateDiagram-v2") == 3
    assert json.loads(dcsup("graph", "node", "--json").out) == {"node": mermaid("node")}


def node_with_probe(configuration: Path, script: str) -> None:
    tables = '[node]\nname = "node1"\ncluster = "demo"\nfolder = "/nowhere"\n'
    services = "".join(f'[node.services.{name}]\ncommand = ["x"]\nstatus = ["x"]\n' for name in ("agent", "server"))
    probe = json.dumps([sys.executable, "-c", script])
    configuration.write_text(f"{configuration.read_text()}{tables}probe = {probe}\n{services}")


def test_probe_test_shows_what_the_probe_sees(dcsup: Dcsup, nowhere: Path) -> None:
    """The site's own command, run once, needs no Redis; Japanese names stay straight in their columns."""
    node_with_probe(nowhere, """print('{"name": "日次", "startup_mode": "auto", "state": "started"}')""")
    answer = dcsup("probe", "test", "--config", nowhere)
    assert answer.code == 0
    assert "日次" in answer.out
    assert json.loads(dcsup("probe", "test", "--config", nowhere, "--json").out)["schedules"] == [
        {"name": "日次", "startup_mode": "auto", "state": "started"}
    ]


def test_a_probe_that_tells_nothing_ends_with_1(dcsup: Dcsup, nowhere: Path) -> None:
    """With the reason, and what it printed."""
    node_with_probe(nowhere, "print('nonsense')")
    answer = dcsup("probe", "test", "--config", nowhere)
    assert answer.code == 1
    assert "nonsense" in answer.err
    assert "line 1 is not JSON" in answer.err


# --- asking -------------------------------------------------------------------------------------------------------------------------------


def test_pause_hands_in_a_fact_that_the_orchestrator_understands(dcsup: Dcsup, configuration: Path, redis_server: EmbeddedRedis) -> None:
    """One envelope in the operators' inbox, a stream of its own, and the bell is rung; that nobody leads is said."""
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as bell:
        bell.subscribe(wire.bell("demo"))
        bell.get_message(timeout=5)
        answer = dcsup("pause", "--config", configuration, "--by", "田中", "--why", "maintenance")
        assert answer.code == 0
        assert "no orchestrator leads cluster 'demo': it holds from the moment one does" in answer.err
        rung = bell.get_message(timeout=5)
        assert rung is not None
        assert rung["data"] == wire.OPERATOR_INBOX.encode()
        assert dcsup("resume", "--config", configuration, "--json").code == 0
        rows: Any = client.xrange(wire.inbox("demo", wire.OPERATOR_INBOX))
    envelopes = [Envelope.model_validate_json(fields[wire.FACT_FIELD.encode()]) for _id, fields in rows]
    assert [one.type for one in envelopes] == ["PauseRequested", "ResumeRequested"]
    assert [one.seq for one in envelopes] == [1, 1]
    assert len({one.stream for one in envelopes}) == 2
    assert envelopes[0].data == {"by": "田中", "why": "maintenance"}
    for envelope in envelopes:
        parse_body(envelope, wire.OPERATOR_INBOX)


# --- with a living orchestrator -----------------------------------------------------------------------------------------------------------


def leading(dcsup: Dcsup, configuration: Path) -> None:
    def answers() -> bool:
        answer = dcsup("status", "--config", configuration, "--json")
        return answer.code == 0 and answer.err == "" and json.loads(answer.out)["clusters"]["demo"]["settings"] is not None

    wait_until(answers, "an orchestrator that leads and answers")


def test_status_comes_from_the_leader_and_equals_the_replay(
    dcsup: Dcsup, configuration: Path, orchestrator: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """I6, live: asked over HTTP, and folded from the exported file, the state is the same as a whole; pause arrives on the way."""
    leading(dcsup, configuration)
    assert dcsup("pause", "--config", configuration, "--by", "x").err == ""
    wait_until(lambda: '"paused_by": "x"' in dcsup("status", "--config", configuration, "--json").out, "the pause in the state")
    assert "PAUSED since" in dcsup("status", "--config", configuration).out
    live = dcsup("status", "--config", configuration, "--json")
    assert live.err == ""
    assert dcsup("export", "--config", configuration, "-o", tmp_path / "log").code == 0
    assert dcsup("replay", tmp_path / "log", "--state", "--json", "--verify").out == live.out
    orchestrator.kill()
    orchestrator.wait()
    wait_until(lambda: "no orchestrator leads" in dcsup("status", "--config", configuration).err, "the lease to run out")
    assert dcsup("status", "--config", configuration, "--json").out == live.out


def test_answers_while_redis_hangs(tmp_path: Path, dcsup: Dcsup) -> None:
    """With a Redis that does not answer any more, the orchestrator still tells what it knows, and status asks it there."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        file, listen = tmp_path / "dcsup.toml", f"127.0.0.1:{_free_port()}"
        file.write_text(CONFIGURATION.format(url=server.url).replace("127.0.0.1:0", listen))
        running = process("orchestrator", "--config", file)
        leading(dcsup, file)
        before = dcsup("status", "--config", file, "--json")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert b'dcsup_leader{cluster="demo"}' in ask(f"http://{listen}", "/metrics")[1]
            assert json.loads(ask(f"http://{listen}", "/status")[1])["clusters"] == json.loads(before.out)["clusters"]
            hanging = dcsup("status", "--config", file, "--json")
        finally:
            os.kill(server.pid, signal.SIGCONT)
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=30)
    assert (hanging.code, hanging.out) == (0, before.out)
    assert "does not answer" in hanging.err


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_status_without_redis_comes_from_the_orchestrator(dcsup: Dcsup, tmp_path: Path) -> None:
    """When Redis is gone, the orchestrator at [orchestrator] listen is asked, and that is said."""
    import threading

    from orchestrator.http import serve
    from orchestrator.metrics import registry_of
    from statemachines.states import new_state

    states = {"clusters": {"demo": new_state("demo").model_dump(mode="json")}}
    url, close = serve("127.0.0.1:0", registry_of(dict, threading.Lock()), lambda: states)
    file = tmp_path / "dcsup.toml"
    file.write_text(f'[redis]\nurl = "redis://127.0.0.1:1"\n[orchestrator]\nlisten = "{url.removeprefix("http://")}"\n{_CLUSTER}')
    try:
        answer = dcsup("status", "--config", file, "--json")
    finally:
        close()
    assert (answer.code, json.loads(answer.out)) == (0, states)
    assert "does not answer" in answer.err
    assert "this is what the orchestrator at" in answer.err


def test_a_port_in_use_ends_with_2(dcsup: Dcsup, configuration: Path) -> None:
    """`dcsup orchestrator` does not start beside another one on the same address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        configuration.write_text(configuration.read_text().replace("127.0.0.1:0", listen))
        answer = dcsup("orchestrator", "--config", configuration)
    assert answer.code == 2
    assert f"cannot listen on {listen}" in answer.err


# --- the process itself -------------------------------------------------------------------------------------------------------------------


def test_a_reader_that_has_seen_enough_is_no_error(log_in_redis: Path) -> None:
    """`dcsup events | head -1`."""
    running = process("events", "--config", log_in_redis, "--from", "0000000000", "--json")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(timeout=30) == 0
    assert running.stderr.read() == b""
    running.stderr.close()


def test_hooks_start_without_anything_else() -> None:
    """On the way to a hook nothing is imported but the standard library and the hooks' own modules; CLUSTERPRO waits for it."""
    script = (
        "import sys; from orchestrator.cli import main; code = main(['hook', 'nonsense'])\n"
        "heavy = {'redis', 'rq', 'pydantic', 'rich', 'transitions', 'tree_sitter', 'prometheus_client', 'structlog', 'argparse'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith(('orchestrator', 'statemachines'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.splitlines()[-1] == "[] ['orchestrator', 'orchestrator.cli']", done.stderr


def test_the_configuration_of_these_tests_is_good(configuration: Path) -> None:
    """The text that all of them change is itself without mistakes."""
    assert load(configuration).clusters["demo"].mode == "supervise"
