"""`dcsup runbook` as an operator meets it: in the terminal, from scripts, with Redis, without it, and interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.cli import runbook
from orchestrator.cli.runbook_eyes import RealEyes
from orchestrator.embedded import EmbeddedRedis
from orchestrator.settings import load as load_configuration
from statemachines import wire
from tests.cli.conftest import SURROUNDINGS, Answer, Dcsup, process
from tests.conftest import wait_until
from tests.runbooks.support import TestEyes, ids
from tests.runbooks.test_verifying import moved_story, serving_story, told

CLUSTER = """\
[redis]
url = "{url}"
[clusters.pair]
mode = "supervise"
group = "failover1"
nodes = ["node1", "node2"]
[[clusters.pair.services]]
name = "agent"
kind = "agent"
databases = "remote"
[[clusters.pair.services]]
name = "server"
kind = "server"
"""
AWAY = "redis://ops:geheim@127.0.0.1:1/0"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A desk where nothing answers yet, as before an installation; its folder has a blank and Japanese in its name."""
    folder = tmp_path / "設定 1"
    folder.mkdir()
    (folder / "dcsup.toml").write_text(CLUSTER.format(url=AWAY), encoding="utf-8")
    return folder / "dcsup.toml"


class Terminal:
    """Types lines at the command, and reads what it says."""

    def __init__(self, dcsup: Dcsup, monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
        self.dcsup, self.monkeypatch, self.site = dcsup, monkeypatch, site

    def type(self, *lines: str, arguments: tuple[object, ...] = (), name: str = "install-server") -> Answer:
        self.monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return self.dcsup("runbook", name, "--config", self.site, "--by", "sato", *arguments)

    def listed(self, name: str = "install-server") -> dict[str, Any]:
        answer = self.dcsup("runbook", name, "--config", self.site, "--list", "--json")
        assert answer.code == 0
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def single(self, step: str, *arguments: object, name: str = "install-server") -> Answer:
        return self.dcsup("runbook", name, "--config", self.site, "--by", "suzuki", "--step", step, *arguments)


@pytest.fixture
def terminal(dcsup: Dcsup, monkeypatch: pytest.MonkeyPatch, site: Path) -> Terminal:
    return Terminal(dcsup, monkeypatch, site)


def asked(answer: Answer) -> list[str]:
    """The ids of the steps that were shown."""
    return re.findall(r"^\d+/\d+ .*\[([\w.-]+)\]$", answer.out, re.MULTILINE)


# --- in the terminal ----------------------------------------------------------------------------------------------------------------------


def test_one_step_at_a_time_to_the_end(terminal: Terminal) -> None:
    """Each step is shown once with node, text, why and rules; done ones are not asked again."""
    answer = terminal.type(*["d"] * 22)
    assert answer.code == 0
    listed = terminal.listed()
    assert asked(answer) == [step["id"] for step in listed["steps"]]
    assert (listed["finished"], listed["current"]) == (True, None)
    assert {step["by"] for step in listed["steps"]} == {"sato"}
    assert "(G26)" in answer.out
    assert "every step is done or skipped" in answer.out
    assert asked(terminal.type("d")) == []


def test_left_and_taken_up_again_at_each_step(terminal: Terminal) -> None:
    """q, and the end of the input, keep the place; nothing is lost and nothing is asked twice."""
    wanted = [step["id"] for step in terminal.listed()["steps"]]
    for number, step in enumerate(wanted):
        leaving = terminal.type("q") if number % 2 else terminal.type()
        assert leaving.code == 0
        assert asked(leaving) == [step]
        assert "goes on at this step" in leaving.out
        assert asked(terminal.type("d", "q")) == wanted[number : number + 2]
    assert terminal.listed()["finished"]


def test_skipping_and_failing_need_words(terminal: Terminal) -> None:
    """An empty reason is none; a failed step stays, with what was said of it, until it is done."""
    answer = terminal.type("s", "", "s", "built last year", "f", "", "f", "no DBA here", "q")
    assert asked(answer) == ["cluster-first", "databases"]
    first, second = terminal.listed()["steps"][:2]
    assert (first["outcome"], first["note"]) == ("skipped", "built last year")
    assert (second["outcome"], second["note"], terminal.listed()["current"]) == ("failed", "no DBA here", "databases")
    again = terminal.type("d", "q")
    assert "failed before, says sato: no DBA here" in again.out
    assert terminal.listed()["steps"][1]["outcome"] == "done"


def test_any_other_key_does_nothing(terminal: Terminal) -> None:
    """Typing mistakes, an empty line; letters of a Japanese keyboard's wide form are understood."""
    assert asked(terminal.type("", "x", "!", "ok", "ｄ", "q")) == ["cluster-first", "databases"]


def test_values_can_be_given_in_the_step_that_asks_for_them(terminal: Terminal) -> None:
    """They are in every later step's text, are kept, and are judged."""
    given = ["C:\\DC", "10.0.0.9", "22100", "E:", "E:\\", "necsys", "22110", "agent-a", "10.0.0.9:22100", "E:\\share"]
    answer = terminal.type("d", "d", "g", *given, "q")
    assert "metadata_path E:\\ is a drive's root (G29)" in answer.out
    assert "[it does NOT hold]" in answer.out
    later = terminal.type("g", *[""] * 4, "E:\\meta", "", "", "", "", "", "d", "d", "d", "q")
    assert "every value is given" in later.out
    assert "install it new, in E:\\meta. On the switchable partition (E:)" in later.out
    assert terminal.listed()["current"] == "install-server.node1"


def test_what_dcsup_sees_to_be_wrong_needs_a_persons_word(terminal: Terminal) -> None:
    """Without one it is not done; with one it is, not as verified, and the log gets both the word and what was seen."""
    terminal.single("cluster-first", "--done")
    terminal.single("databases", "--done")
    answer = terminal.type("d", "", "d", "the root is right here", "q", arguments=("--value", "metadata_path=E:\\"))
    assert asked(answer) == ["values", "group-up.node1"]
    step = terminal.listed()["steps"][2]
    assert (step["outcome"], step["verified"]) == ("done", False)
    assert step["note"] == "the root is right here / metadata_path E:\\ is a drive's root (G29)"


def test_what_dcsup_has_seen_is_recorded_as_verified(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it saw."""
    monkeypatch.setattr(runbook.Session, "eyes", lambda self: TestEyes("node1", group_on=("node1",)))
    terminal.type("d", "q")
    step = terminal.listed()["steps"][0]
    assert (step["verified"], step["note"]) == (True, "the cluster manager knows the group failover1; it is on node1")


def test_a_reboot_is_seen_across_the_reboot(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot before is remembered when the step is first shown, and the command goes on after the boot."""
    for step in ("cluster-first", "databases", "values", "group-up.node1", "port.node1"):
        terminal.single(step, "--done")
    for step in ("install-server.node1", "install-agent.node1", "move.node2"):
        terminal.single(step, "--done")
    monkeypatch.setattr(runbook.Session, "eyes", lambda self: TestEyes("node1", boot_id="41"))
    answer = terminal.type("v", "q")
    assert asked(answer) == ["reboot.node1"]
    assert answer.out.count("has not been rebooted") == 2
    monkeypatch.setattr(runbook.Session, "eyes", lambda self: TestEyes("node1", boot_id="42"))
    terminal.type("d", "q")
    assert next(step for step in terminal.listed()["steps"] if step["id"] == "reboot.node1")["verified"]


def test_danger_is_said(terminal: Terminal) -> None:
    """Before what the step asks for."""
    answer = terminal.type("q", name="uninstall-server")
    assert answer.out.index("*** CAUTION ***") < answer.out.index("remove from the group")


def test_it_speaks_japanese(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, findings, questions and the end; the log's note stays English."""
    monkeypatch.setenv("DCSUP_LANG", "ja")
    answer = terminal.type("d", "s", "担当者が確認済み", "q")
    assert "先にクラスタを構築する" in answer.out
    assert "d 完了, v もう一度確認" in answer.out
    assert "[不明です]\n  ここからはクラスタマネージャに問い合わせできません" in answer.out
    steps = terminal.listed()["steps"]
    assert steps[0]["note"] == "the cluster manager cannot be asked from here"
    assert steps[1]["note"] == "担当者が確認済み"


@pytest.mark.parametrize(("language", "encoding"), [("ja", "cp932"), ("en", "ascii"), ("ja", "ascii")])
def test_a_console_that_knows_few_characters_is_enough(language: str, encoding: str, site: Path) -> None:
    """All of a runbook, as a process of its own; what cannot be shown gets a stand-in, what is typed in cp932 arrives."""
    environment = {name: value for name, value in os.environ.items() if name not in SURROUNDINGS}
    environment |= {"PYTHONIOENCODING": encoding, "DCSUP_LANG": language, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "orchestrator.cli", "runbook", "install-server", "--config", str(site), "--by", "佐藤"]
    typed = "s\n確認済み\n".encode("cp932") + b"d\n" * 21
    done = subprocess.run(command, input=typed, capture_output=True, env=environment, check=False, timeout=120)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    if encoding == "cp932":
        assert "先にクラスタを構築する" in done.stdout.decode("cp932")
    kept = (site.parent / "runbook-install-server-pair.ndjson").read_text(encoding="utf-8")
    assert '"by":"佐藤"' in kept
    assert ("確認済み" in kept) == (encoding == "cp932")
    assert kept.count('"is":"step"') == 22


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_dies_at_its_prompt_has_lost_nothing(kill: signal.Signals, site: Path, terminal: Terminal) -> None:
    """Neither by a power cut nor by Ctrl-C; the next one goes on at the same step."""
    environment = {name: value for name, value in os.environ.items() if name not in SURROUNDINGS}
    command = [sys.executable, "-u", "-m", "orchestrator.cli", "runbook", "install-server", "--config", str(site)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"d\nd\n")
        running.stdin.flush()
        shown = b""
        while not shown.endswith(b" > ") or b"[values]" not in shown:
            shown += running.stdout.read(1)
        running.send_signal(kill)
        rest = running.stdout.read()
    assert running.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    assert (b"interrupted; the same command goes on" in rest) == (kill == signal.SIGINT)
    assert asked(terminal.type("q")) == ["values"]


# --- for scripts --------------------------------------------------------------------------------------------------------------------------


def test_single_steps_are_recorded_in_their_order(terminal: Terminal) -> None:
    """By id; another's turn is refused and says whose it is, an unknown one says what there is."""
    answer = terminal.single("values", "--done")
    assert (answer.code, "it is not the turn of 'values' but of 'cluster-first'" in answer.err) == (2, True)
    answer = terminal.single("sing", "--done")
    assert (answer.code, "there is no step 'sing'; known: cluster-first, databases" in answer.err) == (2, True)
    answer = terminal.single("cluster-first", "--skip", "is there", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["outcome"], found["current"], found["handed_in"]) == (0, "skipped", "databases", False)
    answer = terminal.single("databases", "--failed", "who knows", "--json")
    assert json.loads(answer.out)["current"] == "databases"
    answer = terminal.single("databases", "--done")
    assert answer.out == "databases: recorded (done)\n"
    listed = terminal.listed()
    assert [(step["outcome"], step["by"]) for step in listed["steps"][:3]] == [("skipped", "suzuki"), ("done", "suzuki"), (None, None)]


def test_a_step_that_does_not_hold_ends_with_1(terminal: Terminal) -> None:
    """And is not recorded, unless the script says why it knows better."""
    for step in ("cluster-first", "databases"):
        terminal.single(step, "--done")
    answer = terminal.single("values", "--done", "--value", "metadata_path=E:\\")
    assert (answer.code, "values is not recorded as done: metadata_path E:\\ is a drive's root" in answer.err) == (1, True)
    assert terminal.listed()["current"] == "values"
    answer = terminal.single("values", "--done", "--i-know-better", "as it was ordered", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["verified"], found["found"]["answer"], found["current"]) == (0, False, "no", "group-up.node1")


WRONG = {
    "--step x": "goes with one of --done",
    "--done": "--step ID goes with",
    "--json": "--json goes with",
    "--step x --skip x --i-know-better y": "--i-know-better goes with --done",
    "--step cluster-first --skip=": "a reason is not empty",
    "--kind failure": "belong to the drill",
    "--value": "expected one argument",
    "--value x=y": "names: install_path",
    "--value disk": "not NAME=TEXT",
    "--value limit_s=soon": "no number of seconds",
    "--value limit_s=nan": "no number of seconds",
    "--cluster x": "there is no cluster 'x'",
    "--step x --done --skip y": "not allowed with argument",
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.items())
def test_wrong_use_ends_with_2(arguments: str, said: str, terminal: Terminal) -> None:
    """One clear sentence, and nothing is begun."""
    answer = terminal.type(arguments=tuple(arguments.split()))
    assert answer.code == 2
    assert said in answer.err
    assert not list(terminal.site.parent.glob("*.ndjson"))


def test_a_runbook_for_another_cluster_is_refused(terminal: Terminal) -> None:
    """With what the cluster lacks."""
    text = terminal.site.read_text(encoding="utf-8").replace('databases = "remote"\n', "").replace('kind = "agent"', 'kind = "command"')
    terminal.site.write_text(text, encoding="utf-8")
    answer = terminal.type(name="install-agent")
    assert (answer.code, "has no service of kind 'agent', so install-agent is not for it" in answer.err) == (2, True)


def test_which_cluster_is_asked_where_there_are_several(terminal: Terminal) -> None:
    """The only one, this node's, or the one that is named."""
    text = terminal.site.read_text(encoding="utf-8")
    terminal.site.write_text(text + text[text.index("[clusters.pair]") :].replace("pair", "other"), encoding="utf-8")
    answer = terminal.type()
    assert (answer.code, "which cluster? name it with --cluster; known: other, pair" in answer.err) == (2, True)
    assert terminal.type("q", arguments=("--cluster", "other")).code == 0
    assert (terminal.site.parent / "runbook-install-server-other.ndjson").exists()


def test_a_damaged_progress_file_is_told_and_left_alone(terminal: Terminal) -> None:
    """File, line, remedy; a cut last line is a remark only."""
    terminal.type("d", "d", "q")
    path = terminal.site.parent / "runbook-install-server-pair.ndjson"
    good = path.read_bytes()
    path.write_bytes(good + b'{"is":"ste')
    answer = terminal.type("q")
    assert (answer.code, asked(answer)) == (0, ["values"])
    assert "the last line was cut off" in answer.err
    path.write_bytes(good.replace(b'{"is":"step","n":1', b'{"is":"stop","n":1'))
    kept = path.read_bytes()
    for arguments in ((), ("--list",), ("--step", "values", "--done"), ("--new",)):
        answer = terminal.type(arguments=arguments)
        assert (answer.code, "line 2 is damaged" in answer.err) == (2, True)
    assert path.read_bytes() == kept


def test_a_progress_file_of_another_runbook_is_not_mixed_up(terminal: Terminal, tmp_path: Path) -> None:
    """It says whose it is."""
    kept = tmp_path / "p.ndjson"
    terminal.type("d", "q", arguments=("--progress", kept))
    answer = terminal.type(arguments=("--progress", kept), name="install-agent")
    assert (answer.code, "is about install-server of cluster 'pair'" in answer.err) == (2, True)


def test_a_new_run_keeps_the_old_one(terminal: Terminal) -> None:
    """Under its own name, and begins at the first step; the old one can still be gone on with."""
    terminal.type("d", "q")
    run = terminal.listed()["run"]
    answer = terminal.type("q", arguments=("--new",))
    assert asked(answer) == ["cluster-first"]
    old = terminal.site.parent / f"runbook-install-server-pair-{run}.ndjson"
    assert str(old) in answer.err
    assert asked(terminal.type("q", arguments=("--progress", old))) == ["databases"]
    assert terminal.listed()["run"] != run


def test_listing_and_printing_begin_nothing(terminal: Terminal) -> None:
    """No file is made, and nobody is asked."""
    assert terminal.type(arguments=("--list",)).code == 0
    assert terminal.type(arguments=("--markdown",)).code == 0
    assert not list(terminal.site.parent.glob("*.ndjson"))


# --- Redis --------------------------------------------------------------------------------------------------------------------------------


def test_without_redis_steps_are_kept_and_it_is_said_once(terminal: Terminal) -> None:
    """Where and why, the password masked; not again at every step."""
    answer = terminal.type("d", "d", "d", "q")
    assert answer.err.count("does not answer") == 1
    assert "goes into the log as soon as it can" in answer.err
    assert "geheim" not in answer.err
    assert not any(step["handed_in"] for step in terminal.listed()["steps"])


@pytest.fixture
def led(site: Path, redis_server: EmbeddedRedis) -> Iterator[Path]:
    """An orchestrator leads the cluster of the configuration, which still names a Redis that is away."""
    other = site.with_name("led.toml")
    other.write_text(CLUSTER.format(url=redis_server.url) + '[orchestrator]\nlisten = "127.0.0.1:0"\n', encoding="utf-8")
    running = process("orchestrator", "--config", other)
    yield other
    if running.poll() is None:
        running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)


def recorded(dcsup: Dcsup, led: Path, count: int) -> list[dict[str, Any]]:
    """The recorded steps in the log, once there are so many."""

    def found() -> list[dict[str, Any]]:
        answer = dcsup("events", "--config", led, "--type", "RunbookStepRecorded", "--json")
        lines = answer.out.splitlines()
        return [json.loads(line) for line in lines] if len(lines) >= count else []

    return wait_until(found, f"{count} steps in the log")


def test_steps_become_events_with_who_did_them(terminal: Terminal, dcsup: Dcsup, led: Path) -> None:
    """Done, skipped and failed ones; those from before Redis was there too, once, dated when they happened."""
    terminal.type("d", "s", "as before", "q")
    terminal.site.write_text(led.read_text(encoding="utf-8"), encoding="utf-8")
    terminal.type("f", "no paper", "d", "q")
    events = recorded(dcsup, led, 4)
    assert [(one["data"]["step"], one["data"]["outcome"], one["data"]["by"]) for one in events] == [
        ("cluster-first", "done", "sato"), ("databases", "skipped", "sato"), ("values", "failed", "sato"), ("values", "done", "sato"),
    ]  # fmt: skip
    assert all(one["source"] == "operator" for one in events)
    assert all(step["handed_in"] for step in terminal.listed()["steps"] if step["outcome"])
    path = terminal.site.parent / "runbook-install-server-pair.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"handed-in"' not in line))
    terminal.type("q")
    terminal.single("group-up.node1", "--skip", "x")
    events = recorded(dcsup, led, 5)
    assert [one["data"]["step"] for one in events] == ["cluster-first", "databases", "values", "values", "group-up.node1"]


def test_a_run_goes_on_on_another_machine(terminal: Terminal, dcsup: Dcsup, led: Path, tmp_path: Path) -> None:
    """With its id: what was done there is known here from the cluster's state, and both ways."""
    terminal.site.write_text(led.read_text(encoding="utf-8"), encoding="utf-8")
    terminal.type("d", "d", "f", "x", "q")
    run = terminal.listed()["run"]
    recorded(dcsup, led, 3)
    there = ("--run", run, "--progress", tmp_path / "there.ndjson")
    answer = terminal.type("d", "q", arguments=there)
    assert asked(answer) == ["values", "group-up.node1"]
    recorded(dcsup, led, 4)
    assert asked(terminal.type("q", arguments=("--run", run))) == ["group-up.node1"]
    answer = terminal.type("q", arguments=("--run", "other"))
    assert (answer.code, f"is about the run {run}" in answer.err) == (2, True)


def test_a_run_that_nobody_knows_is_refused(terminal: Terminal, led: Path) -> None:
    """Nothing is begun under its name."""
    terminal.site.write_text(led.read_text(encoding="utf-8"), encoding="utf-8")
    answer = terminal.type("q", arguments=("--run", "feed"))
    assert (answer.code, "knows no run feed of install-server" in answer.err) == (2, True)
    assert not list(terminal.site.parent.glob("*.ndjson"))


def test_a_run_from_elsewhere_needs_redis(terminal: Terminal) -> None:
    """Without it nobody knows what was done: 3, and nothing is begun."""
    answer = terminal.type("q", arguments=("--run", "feed"))
    assert answer.code == 3
    assert not list(terminal.site.parent.glob("*.ndjson"))


def test_the_state_is_seen_only_while_somebody_leads(site: Path, led: Path, dcsup: Dcsup, redis_server: EmbeddedRedis) -> None:
    """The orchestrator's own answer; a log without a leader is no evidence, and neither is a Redis that is away."""
    wait_until(lambda: RealEyes(load_configuration(led), "pair", str(led)).state() is not None, "the orchestrator's answer")
    assert RealEyes(load_configuration(site), "pair", str(site)).state() is None
    with redis.Redis.from_url(redis_server.url) as client:
        owner: Any = client.get(wire.owner("pair"))
        configuration = load_configuration(led)
        client.set(wire.owner("pair"), b"nobody")
        assert RealEyes(configuration, "pair", str(led)).state() is None
        client.set(wire.owner("pair"), owner)


# --- the drill ----------------------------------------------------------------------------------------------------------------------------


def test_a_drill_ends_with_a_report_in_both_languages(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found, measured, judged and written down: who, which failover, its phases, its schedules, every step."""
    eyes = TestEyes("node1", told(serving_story()))
    monkeypatch.setattr(runbook.Session, "eyes", lambda self: eyes)
    terminal.type("d", "d", "d", "g", "60", "d", "q", name="drill")
    assert terminal.listed("drill")["current"] == "provoke"
    eyes.known_state = told(moved_story()[0])
    answer = terminal.type("d", "d", "d", "d", name="drill")
    assert answer.code == 0
    english, japanese = sorted(terminal.site.parent.glob("*.md"))
    assert f"report: {english}" in answer.out
    text = english.read_text(encoding="utf-8")
    assert "**The objectives were met.**" in text
    for words in ("planned move", "node1, node2", "| verify |", "| 60 |", "| auto-started-1 | resumed |", "sato"):
        assert words in text
    assert "**目標を満たしました。**" in japanese.read_text(encoding="utf-8")
    listed = terminal.listed("drill")["steps"]
    assert [step["verified"] for step in listed if step["id"] in ("healthy", "provoke", "objectives")] == [True] * 3


def test_a_drill_that_took_too_long_says_so(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objectives step does not hold, and the report's verdict is no."""
    eyes = TestEyes("node1", told(serving_story()))
    monkeypatch.setattr(runbook.Session, "eyes", lambda self: eyes)
    terminal.type("d", "d", "d", "d", "q", name="drill", arguments=("--value", "limit_s=0.001"))
    eyes.known_state = told(moved_story()[0])
    answer = terminal.type("d", "d", "", "s", "too slow", "d", "d", name="drill")
    assert "s of the agreed 0.001 s" in answer.out
    assert "**The objectives were NOT met.**" in min(terminal.site.parent.glob("*.md")).read_text(encoding="utf-8")


def test_a_drill_that_dcsup_did_not_see_is_not_known(terminal: Terminal) -> None:
    """Without Redis everything rests on the person's word, and the report says that nothing is known."""
    terminal.type(*["d"] * 8, name="drill", arguments=("--kind", "failure"))
    text = min(terminal.site.parent.glob("*.md")).read_text(encoding="utf-8")
    assert "**Whether the objectives were met is not known.**" in text
    assert "No failover was found" in text
    assert "provoked failure" in text


def test_a_drill_stays_what_it_was_begun_as(terminal: Terminal) -> None:
    """Another kind or target is another run."""
    terminal.type("q", name="drill")
    answer = terminal.type("q", name="drill", arguments=("--kind", "failure"))
    assert (answer.code, "this run was begun with --kind move; --new begins another" in answer.err) == (2, True)
    assert terminal.type("q", name="drill", arguments=("--kind", "failure", "--new")).code == 0


def test_a_drill_moves_to_where_the_group_is_not(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default; or where it is told to."""
    eyes = TestEyes("node1", group_on=("node2",))
    monkeypatch.setattr("orchestrator.cli.runbook_eyes.RealEyes.active", lambda self: eyes.active())
    assert "Move the group to node1" in terminal.type(arguments=("--list",), name="drill").out
    assert "Move the group to node2" in terminal.type(arguments=("--list", "--to", "node2"), name="drill").out


def test_the_move_runs_only_when_the_nodes_name_is_typed(terminal: Terminal) -> None:
    """Anything else runs nothing; what the command says is shown, and who and why are handed to it."""
    for step in ("healthy", "no-maintenance", "schedules", "announce"):
        terminal.single(step, "--done", name="drill")
    answer = terminal.type("r", "", "r", "yes", "q", name="drill")
    assert answer.out.count("not run") == 2
    assert "dcsup move --config" in answer.out
    answer = terminal.type("r", "node2", "q", name="drill")
    assert "`dcsup move` ended with code 2" in answer.out  # this desk is no node of the cluster


# --- this node ----------------------------------------------------------------------------------------------------------------------------

NODE = """\
[node]
name = "node1"
cluster = "pair"
folder = "{folder}/node"
boot = ["cat", "{folder}/boot"]
clpgrp = ["sh", "{folder}/clpgrp"]
[node.services.agent]
command = ["{folder}/dc/agent/bin/dcagent.bat"]
status = ["true"]
[node.services.server]
command = ["{folder}/dc/server/bin/dcserver.bat"]
status = ["true"]
"""


@pytest.fixture
def node(site: Path) -> RealEyes:
    """A node with commands of its own."""
    folder = site.parent
    (folder / "boot").write_text("boot-41\n")
    (folder / "clpgrp").write_text("echo NODE2\n")
    site.write_text(CLUSTER.format(url=AWAY) + NODE.format(folder=folder.as_posix()), encoding="utf-8")
    return RealEyes(load_configuration(site), "pair", str(site))


def test_a_node_sees_its_own_things(node: RealEyes, site: Path) -> None:
    """Where the group is by its own cluster manager, its boot, its programs, its ports."""
    import socket

    assert (node.node, node.active(), node.boot()) == ("node1", ("node2",), "boot41")
    program = node.program("server")
    assert program == f"{site.parent.as_posix()}/dc/server/bin/dcserver.bat"
    assert node.there(program) is False
    assert node.there(str(site)) is True
    assert node.there("x\0y") is None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert node.listening(port) in (False, None)
        listener.listen()
        assert node.listening(port) in (True, None)


def test_a_cluster_manager_that_fails_or_hangs_is_unknown(node: RealEyes, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor nowhere."""
    (site.parent / "clpgrp").write_text("exit 1\n")
    assert node.active() is None
    monkeypatch.setattr("orchestrator.cli.runbook_eyes.LOOK_LIMIT_S", 0.2)
    (site.parent / "clpgrp").write_text("sleep 600\n")
    assert RealEyes(load_configuration(site), "pair", str(site)).active() is None


def test_the_install_path_follows_from_the_nodes_configuration(node: RealEyes, site: Path, dcsup: Dcsup) -> None:
    """Where its commands lie as the guide has them."""
    answer = dcsup("runbook", "install-server", "--config", site, "--markdown")
    assert f"Install path: {site.parent}/dc." in answer.out


def test_the_check_is_run_on_the_node_itself(node: RealEyes) -> None:
    """Its own process; its exit code is the answer."""
    finding = node.check(None, None)
    assert finding.answer in ("yes", "no")
    assert node.node == "node1"


def test_a_desk_that_is_no_node_sees_nothing_of_one(site: Path) -> None:
    """No program, no boot, no group, no services."""
    desk = RealEyes(load_configuration(site), "pair", str(site))
    assert (desk.node, desk.active(), desk.boot(), desk.startups(), desk.program("server")) == (None, None, None, None, None)


def test_all_steps_of_the_list_are_the_plans(terminal: Terminal) -> None:
    """With node, rules and danger."""
    from tests.runbooks.support import steps_of

    listed = terminal.listed("uninstall-server")["steps"]
    steps = steps_of("uninstall-server", "both")
    assert [(one["id"], one["node"], tuple(one["rules"]), one["danger"]) for one in listed] == [
        (step.id, step.node, step.rules, step.danger) for step in steps
    ]
    assert ids(steps)
