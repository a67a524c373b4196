"""The resident watch script (G22): it lives as long as the service, and nothing of it outlives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wine.bench import Node, Run, eventually, windows_path

MakeNode = Callable[..., Node]


def kill_while_it_sleeps(watch: Run, node: Node, pauses_of: Callable[[], int]) -> None:
    """End the script's cmd in the middle of a pause, and wait until nothing that watches is left. The pause itself runs out by itself.

    (Wine leaves a process behind for ever whose parent is killed in the moment in which it starts it.)
    """
    pauses = pauses_of()
    eventually(lambda: pauses_of() > pauses)
    watch.kill()
    eventually(lambda: not [line for line in node.processes() if "ARMSLEEP" not in line])


def test_the_hooks_verdict_ends_the_watch_with_dcstatus_own_code(make_node: MakeNode) -> None:
    """The hook ends 40 and leaves the code; the script ends with it, so that the application monitor acts."""
    node = make_node("server")
    watch = node.start("watch", "server", MODE="working")
    eventually((node.folder / "watch" / "server.hook").exists)
    (node.folder / "watch" / "end").write_text("23\n")
    assert watch.end()[0] == 23
    assert node.calls() == ["DCSUP|hook|watch"]


@pytest.mark.parametrize("mode", ["code-75", "code-40", "crash", "hang"])
def test_whatever_else_the_hook_does_the_script_polls_for_itself(make_node: MakeNode, mode: str) -> None:
    """75, 40 without a code beside it, a crash, a hook that hangs: the guide's own loop goes on."""
    node = make_node("agent server", DCSUP_HOOK_SILENCE="5")
    node.put("server", "up")
    watch = node.start("watch", MODE=mode)
    eventually(lambda: node.calls().count("status server") >= 2)
    node.take("server", "up")
    assert watch.end()[0] == 7


@pytest.mark.parametrize("why", ["missing", "bypass", "boot"])
def test_without_dcsup_the_watch_is_the_guides(make_node: MakeNode, why: str) -> None:
    """dcsup missing, bypassed, or no boot known: dcstatus is polled at once."""
    node = make_node("server")
    if why == "missing":
        (node.bin / "dcsup.exe").unlink()
    elif why == "bypass":
        (node.folder / "dcsup.bypass").write_text("")
    else:
        (node.home / "boot").write_text("")
    assert node.run("watch", "server")[0] == 7
    assert node.calls() == ["status server"]


def test_killing_the_script_leaves_no_watcher_with_the_hook(make_node: MakeNode) -> None:
    """CLUSTERPRO kills the resident cmd and not its children: the hook sees the script's counter stand still, and ends."""
    node = make_node("server")
    node.put("server", "up")
    watch = node.start("watch", "server", MODE="working", RECORD_MS="1000")
    eventually((node.folder / "watch" / "server.hook").exists)
    assert any("dcsup.exe" in line for line in node.processes())
    kill_while_it_sleeps(watch, node, node.steps)


def test_killing_the_script_leaves_no_watcher_without_the_hook(make_node: MakeNode) -> None:
    """The plain loop runs in the script's own cmd."""
    node = make_node("server")
    node.put("server", "up")
    watch = node.start("watch", "server", MODE="code-75", RECORD_MS="100")
    eventually(lambda: node.calls().count("status server") >= 2)
    kill_while_it_sleeps(watch, node, lambda: node.calls().count("ARMSLEEP|10"))


def test_the_rendered_watch_script_of_a_service_passes_a_bad_end_on(make_node: MakeNode) -> None:
    """watch-SERVICE.bat, as it is rendered, calls watch.bat; Wine turns every code that is not 0 into 1 there, Windows does not."""
    node = make_node("server")
    (node.scripts / "watch-server.bat").write_bytes(b'@echo off\r\ncall "%~dp0watch.bat" server\r\nexit /b %ERRORLEVEL%\r\n')
    assert node.run("watch-server", MODE="code-75")[0] != 0
    assert "status server" in node.calls()


def test_a_code_of_an_earlier_watch_ends_no_later_one(make_node: MakeNode) -> None:
    """What lies in the watch folder from before is cleared first."""
    node = make_node("server")
    (node.folder / "watch").mkdir()
    (node.folder / "watch" / "server.code").write_text("9\n")
    assert node.run("watch", "server", MODE="code-40")[0] == 7


def test_the_hook_gets_dcstatus_and_its_words_behind_two_dashes(make_node: MakeNode) -> None:
    """`-- "path" words`, and the script's sign of life, not a process id that cmd does not know."""
    node = make_node("server")
    (node.bin / "show.bat").write_bytes(b'@echo off\r\n>"%DCSUP_FOLDER%\\words" echo %*\r\nexit 75\r\n')
    status = f'"{windows_path(node.bin / "dcstatus-server.bat")}" -v 1'
    node.configure(DCSUP=f'"{windows_path(node.bin / "show.bat")}"', DCSUP_STATUS_server=status)
    node.run("watch", "server")
    folder = windows_path(node.folder)
    assert (node.folder / "words").read_text("cp932").strip() == (
        f'hook watch --folder "{folder}" --service server --boot boot1'
        f' --parent-file "{folder}\\watch\\server.pulse" --interval 10 --poll-limit 300 --confirm 1 -- {status}'
    )
