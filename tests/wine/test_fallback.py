"""The one fallback (DESIGN.md): whatever is wrong with dcsup, the script goes on with the guide's sequence, bounded, without Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wine.bench import Node, eventually, windows_path

AWAY = "code-75"
MakeNode = Callable[..., Node]


@pytest.mark.parametrize("code", ["75", "1", "2", "9009", "-1073741819"])
def test_any_other_code_of_the_hook_means_that_dcsup_is_not_there(make_node: MakeNode, code: str) -> None:
    """Only 0 and 40 are dcsup's own words; the reason goes into the outbox."""
    node = make_node("server")
    assert node.run("start", CLP_EVENT="START", MODE=f"code-{code}")[0] == 0
    assert node.runs() == ["server recover"]
    assert [fact["reason"] for fact in node.facts() if fact["type"] == "FallbackTaken"] == [f"hook-{code}"]


def test_code_40_of_a_start_is_not_up_and_nothing_more_is_run(make_node: MakeNode) -> None:
    """40 is the verdict: an ERR line for the service, and 40 for CLUSTERPRO."""
    node = make_node("server")
    assert node.run("start", CLP_EVENT="START", MODE="code-40")[0] == 40
    assert node.runs() == []
    assert node.calls()[-1] == "CLPLOGCMD|-m|DataCoordinator server could not be started.|-i|1|-l|ERR"


def test_code_40_of_a_stop_goes_by_the_end_state(make_node: MakeNode) -> None:
    """A stop returns 0 all the same, unless the site asks for a report."""
    node = make_node("server")
    assert node.run("stop", CLP_EVENT="START", MODE="code-40")[0] == 0
    assert node.runs() == []


def test_a_hook_without_a_sign_of_life_is_not_waited_for(make_node: MakeNode) -> None:
    """DCSUP_HOOK_SILENCE seconds, counted by the script, without Python."""
    node = make_node("server", DCSUP_HOOK_SILENCE="5")
    assert node.run("start", CLP_EVENT="START", MODE="hang")[0] == 0
    assert node.runs() == ["server recover"]
    assert node.facts()[0]["reason"] == "hook-silent"


def test_a_hook_beyond_its_limit_is_not_waited_for(make_node: MakeNode) -> None:
    """Even a hook that gives signs of life has its limit: the deadline and 5 s."""
    node = make_node("server", DCSUP_START_DEADLINE="2", DCSUP_COMMAND_LIMIT="1")
    node.put("server", "hold")
    run = node.start("start", CLP_EVENT="START", MODE="working")
    eventually(lambda: [fact for fact in node.facts() if fact["type"] == "FallbackTaken"])
    node.take("server", "hold")
    run.end()
    assert node.facts()[0]["reason"] == "hook-limit"


def test_bypass_goes_on_at_once_without_dcsup(node: Node) -> None:
    """The bypass file: no hook, no Python; the ticket is made and closed all the same (N1, N8)."""
    (node.folder / "dcsup.bypass").write_text("")
    assert node.run("start", CLP_EVENT="START")[0] == 0
    assert node.runs() == ["agent start", "server recover"]
    assert not [call for call in node.calls() if call.startswith("DCSUP")]
    assert node.tickets() == ["start.done"]
    assert node.facts()[0]["reason"] == "bypass"


def test_a_command_that_ended_before_the_fallback_is_not_repeated(make_node: MakeNode) -> None:
    """The journal decides where the plain sequence goes on: `late` leaves the first command ended ok."""
    node = make_node()
    assert node.run("start", CLP_EVENT="START", MODE="late")[0] == 0
    assert node.runs() == ["agent start", "server recover"]
    assert node.calls().count("run agent start") == 1


def test_a_service_that_is_up_already_is_not_started(make_node: MakeNode) -> None:
    """The plain start asks dcstatus first; that it ran nothing is told."""
    node = make_node("server")
    node.put("server", "up")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == []
    assert [(fact["ran"], fact["reason"]) for fact in node.facts() if fact["type"] == "CommandEnded"] == [("0", "already-healthy")]


def test_a_dcstatus_that_hangs_is_bounded_and_never_started_twice(make_node: MakeNode) -> None:
    """It counts as unknown, the start ends at its deadline, and at most one such process is left."""
    node = make_node("server", DCSUP_POLL_LIMIT="2", DCSUP_START_DEADLINE="30", DCSUP_WAIT_server="5")
    node.put("server", "mute")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 40
    assert node.calls().count("status server") == 1
    assert node.runs() == ["server recover"]
    node.take("server", "mute")


def test_a_failed_stop_does_not_keep_the_next_service_from_its_stop(node: Node) -> None:
    """The guide's script goes on too; the code is 0, for a failed stop makes CLUSTERPRO shut the system down."""
    node.put("server", "fail")
    assert node.run("stop", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["server faststop", "agent stop"]


@pytest.mark.parametrize(("script", "code"), [("start", 1), ("stop", 0), ("watch", 1)])
def test_without_settings_the_script_says_so(node: Node, script: str, code: int) -> None:
    """No dcsup-env.bat: the file is named; a stop does not end badly."""
    (node.scripts / "dcsup-env.bat").unlink()
    came, output = node.run(script, CLP_EVENT="START")
    assert came == code
    assert "dcsup-env.bat cannot be read" in output


def test_settings_that_are_no_numbers_count_as_not_set(make_node: MakeNode) -> None:
    """A limit that is a word, and one with leading zeros, end no script and no sequence."""
    node = make_node("server", DCSUP_START_DEADLINE="soon", DCSUP_POLL_LIMIT="008", DCSUP_HOOK_SILENCE="00009", DCSUP_COMMAND_LIMIT="-3")
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["server recover"]


def test_without_armsleep_the_pauses_are_made_by_ping(make_node: MakeNode) -> None:
    """Later versions of CLUSTERPRO no longer have it; a loop without pauses would be worse than none."""
    node = make_node("server", DCSUP_WAIT_server="1")
    (node.bin / "ARMSLEEP.exe").unlink()
    assert node.run("start", CLP_EVENT="START", MODE=AWAY)[0] == 0
    assert node.runs() == ["server recover"]


# --- which boot this is: the same answer as the worker's (workers/outbox.py)


def test_the_boot_is_windows_own_count(make_node: MakeNode) -> None:
    """Without a setting: the registry's BootId, in decimal digits."""
    node = make_node("server", DCSUP_BOOT_FILE="")
    key = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
    words = ["reg", "add", key, "/v", "BootId", "/t", "REG_DWORD", "/d", "26", "/f"]
    assert node.windows.start(words, node.home / "reg", node.home, {}).wait(120) == 0
    assert node.run("stop", CLP_EVENT="START")[0] == 0
    assert node.facts()[-1]["ticket"].startswith("26-")


@pytest.mark.parametrize(("printed", "boot"), [("{1F-2a b}", "1F2ab"), ("a;b", None)])
def test_the_boot_may_come_from_a_command(make_node: MakeNode, printed: str, boot: str | None) -> None:
    """Its first line's letters and digits; with anything stranger in it the boot is unknown, and there is no ticket."""
    node = make_node("server", DCSUP_BOOT_FILE="")
    (node.bin / "boot.bat").write_bytes(f"@echo {printed}\r\n".encode())
    node.configure(DCSUP_BOOT_COMMAND=f'"{windows_path(node.bin / "boot.bat")}"')
    assert node.run("stop", CLP_EVENT="START")[0] == 0
    assert node.facts()[-1]["ticket"].split("-")[0] == (boot or "")
    assert node.runs() == ["server faststop"]


def test_folders_of_old_calls_do_not_pile_up(make_node: MakeNode) -> None:
    """Each call leaves a numbered folder as a mark; the one of 200 calls ago is removed."""
    node = make_node("server")
    for name in ("run/300", "run/301/leftover", "run/500"):
        (node.folder / name).mkdir(parents=True)
    (node.folder / "run" / "seq").write_text("499\r\n")
    assert node.run("stop", CLP_EVENT="START")[0] == 0
    assert sorted(path.name for path in (node.folder / "run").iterdir()) == ["300", "500", "501", "seq"]
