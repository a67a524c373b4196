"""The rendered folder: which files, in which bytes, and that they run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.clusterpro import sources
from orchestrator.rendering import Target, folder
from orchestrator.rendering.scripts import guide, paste, watch_script
from tests.protocol.bench import Node
from tests.rendering.conftest import ENGLISH, JAPANESE, SHAPES, Recipe

PLACES = ("after-stop", "before-stop", "recover", "start-failover-home", "start-failover-other", "start-normal-home", "start-normal-other")
RECORDER = """#!/bin/sh
echo "{name}${{1:+ $*}}" >>'{calls}'
exit {code}
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_linux_folder_holds_what_the_cluster_needs(shape: str) -> None:
    """start, stop, one watch script for each service, settings, library, texts and a place for each branch of G43."""
    files = Recipe(shape, "linux").files()
    own = {"dcsup.env", *(f"watch-{kind}.sh" for kind in SHAPES[shape]), *(f"site/{place}.sh" for place in PLACES)}
    static = {name for name in sources("linux") if "/" not in name}
    assert set(files) == own | static
    assert {"start.sh", "stop.sh", "watch.sh", "lib.sh", "messages.en.sh", "messages.ja.sh"} <= static


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_folder_holds_what_the_cluster_needs(shape: str) -> None:
    """The same for batch; every static batch file is rendered."""
    files = Recipe(shape).files()
    own = {"dcsup-env.bat", *(f"watch-{kind}.bat" for kind in SHAPES[shape]), *(f"site/{place}.bat" for place in PLACES)}
    assert set(files) == own | {name for name in sources("windows") if "/" not in name}


@pytest.mark.parametrize("encoding", ["cp932", "utf-8"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_batch_files_have_crlf_and_the_chosen_encoding(encoding: str, language: str) -> None:
    """Each line ends with CRLF, nothing else; Japanese comes back as it was."""
    recipe = Recipe("both", node={"folder": "C:\\ノード 表"})
    for name, content in recipe.files(encoding=encoding, language=language).items():
        text = content.decode(encoding)
        assert text.count("\n") == text.count("\r\n") == text.count("\r"), name
        assert text.endswith("\r\n")
    assert "ノード 表" in recipe.files(encoding=encoding)["dcsup-env.bat"].decode(encoding)


def test_utf_8_batch_files_switch_the_code_page_and_cp932_ones_do_not() -> None:
    """cmd reads a batch file in the console's code page: what CLUSTERPRO starts says which it is, before anything but ASCII comes."""
    watch = Recipe("server").files(encoding="utf-8")["watch-server.bat"].decode().splitlines()
    assert watch[:2] == ["@echo off", "chcp 65001 >nul"]
    assert b"chcp" not in Recipe("server").files(encoding="cp932")["watch-server.bat"]


def test_static_sh_files_are_rendered_as_they_are() -> None:
    """What differs between sites is in dcsup.env alone."""
    files = Recipe("both", "linux").files()
    for name, text in sources("linux").items():
        if "/" not in name:
            assert files[name] == text.encode()


def test_rendering_twice_gives_the_same_bytes() -> None:
    """Nothing in a file depends on when or where it was rendered."""
    for platform in ("windows", "linux"):
        recipe = Recipe("dbms", platform)
        assert recipe.files() == recipe.files()


def test_places_for_the_sites_own_code_say_when_they_run() -> None:
    """G43: in the chosen language, and harmless as they are."""
    files = Recipe("both").files(language="ja")
    assert "復旧処理" in files["site/start-failover-home.bat"].decode("cp932")
    assert files["site/recover.bat"].decode("cp932").splitlines()[-1] == "exit /b 0"
    linux = Recipe("both", "linux").files()["site/before-stop.sh"].decode()
    assert "CLP_FACTOR" in linux
    assert all(line.startswith("#") for line in linux.splitlines())


# --- run for real ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rendered(tmp_path: Path) -> tuple[Node, Recipe]:
    """A node of recording stand-ins whose scripts are rendered ones, under bypass: the guide's plain sequence."""
    node = Node(tmp_path)
    shutil.rmtree(node.scripts)
    for name in ("db start", "db stop"):
        node.script(name, RECORDER.format(name=f"run {name}", calls=node.calls, code=0))
    node.script("dcstatus-db", RECORDER.format(name="status db", calls=node.calls, code=7))
    up = node.script("db-up", RECORDER.format(name="status db", calls=node.calls, code=0))
    places = {
        "agent": {"command": [str(node.bin / "dcagent")], "status": [str(node.bin / "dcstatus-agent")]},
        "server": {"command": [str(node.bin / "dcserver")], "status": [str(node.bin / "dcstatus-server")]},
        "command": {"start": [str(node.bin / "db start"), "a & b"], "stop": [str(node.bin / "db stop")], "status": [str(up)]},
    }
    own = {"folder": str(node.folder), "clp_bin": str(node.bin), "boot": ["cat", str(node.home / "boot")], "dcsup": [str(node.dcsup)]}
    recipe = Recipe("both", "linux", node=own, places=places, cluster={"group": "group-a"})
    node.bypass()
    return node, recipe


def install(node: Node, recipe: Recipe, **target: bool) -> None:
    folder.place(node.scripts, recipe.files(**target))


def test_rendered_scripts_play_the_sequence(rendered: tuple[Node, Recipe]) -> None:
    """G8, G12, G10, G14, G23: with settings from dcsup.toml the scripts run the guide's verbs in order, in a path with a space."""
    node, recipe = rendered
    install(node, recipe)
    assert node.call("start.sh") == 0
    assert node.call("stop.sh") == 0
    assert node.verbs() == ["agent start", "server recover", "server faststop", "agent stop"]


def test_a_command_service_is_started_first_and_stopped_last(rendered: tuple[Node, Recipe]) -> None:
    """G24: a DBMS as a service of kind command has its own commands, its own name and id in the cluster log; its status decides."""
    node, recipe = rendered
    recipe.shape = "dbms"
    install(node, recipe)
    node.script("db-up", RECORDER.format(name="status db", calls=node.calls, code='$([ -e "$0.started" ]; echo $?)'))
    node.script("db start", RECORDER.format(name="run db start", calls=node.calls, code=f'$(: >"{node.bin}/db-up.started")'))
    assert node.call("start.sh") == 0
    assert node.call("stop.sh") == 0
    assert node.verbs() == ["db start a & b", "agent start", "server recover", "server faststop", "agent stop", "db stop"]
    assert node.recorded("clplogcmd")[0] == "clplogcmd -m Starting command. -i 3 -l INFO"


def test_a_watch_script_ends_with_the_status_of_its_service(rendered: tuple[Node, Recipe]) -> None:
    """G22: its code is dcstatus's own, and the script is one process all the time, which CLUSTERPRO can end."""
    node, recipe = rendered
    install(node, recipe)
    assert node.call("watch-server.sh") == 7
    assert node.recorded("status") == ["status server"]
    assert watch_script("server", Target("linux")).splitlines()[-1].startswith("exec ")


def test_site_code_runs_in_its_place_after_rendering_again(rendered: tuple[Node, Recipe]) -> None:
    """G21, G43: what a site put into a place survives, and runs."""
    node, recipe = rendered
    install(node, recipe)
    (node.scripts / "site" / "start-normal-other.sh").write_text(f"echo site >>'{node.calls}'\n")
    install(node, recipe)
    assert node.call("start.sh", CLP_SERVER="OTHER") == 0
    assert node.recorded()[-1] == "site"


@pytest.mark.parametrize(("shape", "lines"), [
    ("server", ["server recover", "server faststop"]),
    ("agent", ["agent start", "agent stop"]),
    ("both", ["agent start", "server recover", "server faststop", "agent stop"]),
    ("dbms", ["db start a & b", "agent start", "server recover", "server faststop", "agent stop", "db stop"]),
])  # fmt: skip
def test_guide_scripts_play_the_guides_plain_sequence(rendered: tuple[Node, Recipe], shape: str, lines: list[str]) -> None:
    """G8-G15, G23: for going back; no ticket, no fact, no dcsup."""
    node, recipe = rendered
    shutil.rmtree(node.folder)
    recipe.shape = shape
    place_guide(node, recipe)
    assert (node.call("start.sh"), node.call("stop.sh")) == (0, 0)
    assert node.verbs() == lines
    assert not node.folder.exists()


def place_guide(node: Node, recipe: Recipe) -> None:
    folder.place(node.scripts, guide(recipe.site(), recipe.target(), sources("linux"), ENGLISH))


@pytest.mark.parametrize(("event", "disk", "script", "beginning"), [
    ("RECOVER", "SUCCESS", "start.sh", None), ("", "SUCCESS", "start.sh", "armbcast /MSG The cluster is not running"),
    ("RECOVER", "SUCCESS", "stop.sh", "armbcast /MSG The cluster is not running"),
    ("START", "FAILURE", "start.sh", "armbcast /MSG The switchable partition"),
])  # fmt: skip
def test_guide_scripts_decline_as_the_guide_does(
    rendered: tuple[Node, Recipe], event: str, disk: str, script: str, beginning: str | None
) -> None:
    """G16, G17, G18: nothing is run, a broadcast says why, and the code is 0 as in the guide's samples."""
    node, recipe = rendered
    place_guide(node, recipe)
    assert node.call(script, event, CLP_DISK=disk) == 0
    assert [line.startswith(beginning or "-") for line in node.recorded()] == ([True] if beginning else [])


def test_guide_scripts_log_and_wait_as_the_guide_does(rendered: tuple[Node, Recipe]) -> None:
    """G19, G20, G22: a line before each command, ERR behind a failed one, a pause before each poll; the watch's code is dcstatus's."""
    node, recipe = rendered
    place_guide(node, recipe)
    node.put("server", "fail")
    assert node.call("start.sh", "FAILOVER") == 0
    assert node.recorded() == [
        "clplogcmd -m Starting DataCoordinator agent. -i 2 -l INFO", "run agent recover", "end agent recover", "armsleep 10",
        "status agent",
        "clplogcmd -m Starting DataCoordinator server. -i 1 -l INFO", "run server recover",
        "clplogcmd -m DataCoordinator server could not be started. -i 1 -l ERR",
    ]  # fmt: skip
    assert node.call("watch-server.sh") == 7


# --- fragments ------------------------------------------------------------------------------------------------------------------------


def test_a_fragment_takes_no_name_that_the_sites_scripts_have() -> None:
    """G42: start and stop are the DBMS's own; ours stand beside them, with the lines to paste."""
    for platform, suffix in (("windows", ".bat"), ("linux", ".sh")):
        files = Recipe("agent", platform).files(fragment=True)  # type: ignore[arg-type]
        assert not {f"start{suffix}", f"stop{suffix}"} & set(files)
        assert {"paste-into-start.txt", "paste-into-stop.txt"} <= set(files)
    assert {"dcsup-start.sh", "dcsup-stop.sh"} <= set(Recipe("agent", "linux").files(fragment=True))


def dbms_scripts(node: Node, recipe: Recipe, start_code: int = 0) -> None:
    """The site's own scripts of a DBMS, with our lines pasted in."""
    recipe.node["folder"] = str(node.folder)
    target = recipe.target(fragment=True)
    lines = {script: "\n".join(paste(recipe.site(), target, script, JAPANESE)) for script in ("start", "stop")}
    inside, _, last = lines["stop"].partition("\n\n")
    folder.place(node.folder / "clusterpro", recipe.files(fragment=True))
    own = node.scripts
    own.mkdir()
    (own / "start.sh").write_text(f"echo 'dbms up' >>'{node.calls}'\n[ {start_code} -eq 0 ] || exit 5\n{lines['start']}\nexit 0\n")
    (own / "stop.sh").write_text(f"{inside}\necho 'dbms down' >>'{node.calls}'\n{last}\n")


def test_pasted_lines_keep_the_agent_inside_the_dbms_life(rendered: tuple[Node, Recipe]) -> None:
    """G24, G42: the agent starts when the DBMS is up and stops before it."""
    node, recipe = rendered
    recipe.shape = "agent"
    dbms_scripts(node, recipe)
    assert node.call("start.sh") == 0
    assert node.call("stop.sh") == 0
    assert node.recorded("dbms", "run") == ["dbms up", "run agent start", "run agent stop", "dbms down"]


def test_pasted_lines_tell_clusterpro_of_a_failed_start_and_never_hold_up_a_stop(rendered: tuple[Node, Recipe]) -> None:
    """A start that is not up ends the site's script with its code; a stop goes on to the DBMS, and ends with the stop's own code."""
    node, recipe = rendered
    recipe.shape = "agent"
    recipe.cluster["stop"] = {"report_failure": True, "deadline": 1}
    dbms_scripts(node, recipe)
    node.put("agent", "fail")
    assert node.call("start.sh") == 40
    node.take("agent", "fail")
    node.put("agent", "up", "stubborn")
    assert node.call("stop.sh") == 1
    assert "dbms down" in node.recorded()


def test_nothing_of_ours_runs_when_the_dbms_is_not_up(rendered: tuple[Node, Recipe]) -> None:
    """The lines stand behind the DBMS's own check."""
    node, recipe = rendered
    recipe.shape = "agent"
    dbms_scripts(node, recipe, start_code=1)
    assert node.call("start.sh") == 5
    assert node.verbs() == []


def test_pasted_batch_lines_call_by_absolute_path_and_mind_the_code() -> None:
    """In batch too: the start's code ends the script, the stop's is kept for its end."""
    recipe = Recipe("agent", node={"folder": "C:\\a & b"})
    start = paste(recipe.site(), recipe.target(fragment=True), "start", ENGLISH)
    stop = paste(recipe.site(), recipe.target(fragment=True), "stop", ENGLISH)
    assert 'call "C:\\a & b\\clusterpro\\dcsup-start.bat" || exit /b 1' in start
    assert stop.index("set DCSUP_STOP_CODE=%ERRORLEVEL%") == stop.index('call "C:\\a & b\\clusterpro\\dcsup-stop.bat"') + 1
    assert stop[-1] == "exit /b %DCSUP_STOP_CODE%"


# --- the static files themselves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(sources("linux")))
def test_sh_scripts_are_posix(name: str) -> None:
    """No shell that a Linux or macOS calls sh stumbles over them; dash is the strictest at hand."""
    shell = shutil.which("dash") or "sh"
    done = subprocess.run([shell, "-n"], input=sources("linux")[name].encode(), capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("platform", ["linux", "windows"])
def test_texts_are_complete_in_both_languages(platform: str) -> None:
    """The message files of both languages set the same names."""
    texts = [text for name, text in sources(platform).items() if name.startswith("messages.")]  # type: ignore[arg-type]
    names = [[line.split("=")[0] for line in text.splitlines() if "=" in line] for text in texts]
    assert len(names) == 2 and names[0] == names[1]


def test_entry_scripts_are_executable(tmp_path: Path) -> None:
    """CLUSTERPRO on Linux runs the files themselves."""
    folder.place(tmp_path, Recipe("server", "linux").files())
    for name in ("start.sh", "stop.sh", "watch-server.sh"):
        assert os.access(tmp_path / name, os.X_OK)
