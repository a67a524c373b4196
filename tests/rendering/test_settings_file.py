"""The scripts' settings file: every value arrives as it was set, or is refused with its place."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from deploy.clusterpro import sources
from orchestrator.rendering import Unfit, platform_of, site_of
from orchestrator.rendering.quoting import batch_command, lacks, settings_file
from orchestrator.rendering.variables import in_whole_seconds, variables_of
from statemachines.configuration import Configuration
from tests.rendering.conftest import ENGLISH, SHAPES, Recipe

NASTY = "/tmp/a node & 'more' (x) \"y\" $HOME `id` \\ノード ;|<>*?~#!%^"
"""A path that no quoting by halves survives."""

SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


def values_of(recipe: Recipe) -> dict[str, str | tuple[str, ...]]:
    return {variable.name: variable.value for variable in variables_of(recipe.site(), recipe.target())}


def in_shell(shell: str, settings: str, script: str, folder: Path) -> list[str]:
    """What a shell prints, line by line, after it has read the settings."""
    file = folder / "dcsup.env"
    file.write_text(settings, encoding="utf-8")
    done = subprocess.run([shell, "-c", f". '{file}'\n{script}"], capture_output=True, timeout=30, check=True)
    return done.stdout.decode("utf-8").splitlines()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_its_services_and_their_commands(shape: str) -> None:
    """Services stand in start order (G23), each with its kind and the commands of its kind (G24)."""
    values = values_of(Recipe(shape))
    assert values["DCSUP_SERVICES"] == " ".join(SHAPES[shape])
    for kind in SHAPES[shape]:
        own = {name.removesuffix(f"_{kind}") for name in values if name.endswith(f"_{kind}")}
        commands = {"DCSUP_START", "DCSUP_STOP"} if kind == "command" else {"DCSUP_COMMAND"}
        assert own == {"DCSUP_KIND", "DCSUP_WAIT", "DCSUP_LOG_ID", "DCSUP_STATUS", *commands}


def test_defaults_are_the_guides() -> None:
    """G19, G20, G22: ids in the cluster log, waits and interval where the site set none."""
    values = values_of(Recipe("dbms"))
    assert [values[f"DCSUP_LOG_ID_{kind}"] for kind in ("server", "agent", "command")] == ["1", "2", "3"]
    assert [values[f"DCSUP_WAIT_{kind}"] for kind in ("server", "agent", "command")] == ["20", "10", "10"]
    assert values["DCSUP_INTERVAL"] == "10"
    assert not [name for name in values if name.startswith("DCSUP_VERB")]


def test_a_sites_own_choices_are_written() -> None:
    """Verbs (G8-G15 are defaults), waits, ids, limits and a service's name with a dash in it."""
    server = {"name": "dc-server", "wait": 3, "log_id": 77, "verbs": {"start": "start", "stop_after_failover": "stop"}}
    cluster = {"start": {"command_limit": 7}, "stop": {"command_limit": 9, "report_failure": True}, "watch": {"confirm": 3}}
    values = values_of(Recipe("server", services={"server": server}, cluster=cluster, node={"boot": ["cat", "/boot id"]}))
    assert values["DCSUP_SERVICES"] == "dc-server"
    assert (values["DCSUP_WAIT_dc_server"], values["DCSUP_LOG_ID_dc_server"]) == ("3", "77")
    assert (values["DCSUP_VERB_dc_server_start_START"], values["DCSUP_VERB_dc_server_stop_FAILOVER"]) == ("start", "stop")
    assert values["DCSUP_COMMAND_LIMIT"] == "9"
    assert (values["DCSUP_REPORT_FAILURE"], values["DCSUP_CONFIRM"]) == ("1", "3")
    assert values["DCSUP_BOOT_COMMAND"] == ("cat", "/boot id")


def test_fractions_are_rounded_up_and_told() -> None:
    """Scripts count whole seconds; a limit is never shorter than it was set. sh alone knows a fraction: ack_timeout."""
    recipe = Recipe("server", cluster={"watch": {"interval": "300ms"}, "ack_timeout": 1.5}, services={"server": {"wait": 2.2}})
    configured = site_of(Configuration.model_validate(tomllib.loads(recipe.toml())))
    site, rounded = in_whole_seconds(configured, recipe.target())
    assert {(one.where[2:], one.seconds, one.whole_s) for one in rounded} == {
        (("watch", "interval"), 0.3, 1), (("ack_timeout",), 1.5, 2), (("services", 0, "wait"), 2.2, 3),
    }  # fmt: skip
    assert (site.cluster.watch.interval, site.cluster.ack_timeout, site.cluster.services[0].wait) == (1, 2, 3)
    sh = Recipe("server", "linux", cluster={"ack_timeout": 1.5})
    assert values_of(sh)["DCSUP_ACK_TIMEOUT"] == "1.5"


def test_a_duration_that_the_scripts_cannot_count_is_refused() -> None:
    """Their arithmetic is cmd's; more than eleven days is no limit but a slip of the pen."""
    with pytest.raises(Unfit) as caught:
        Recipe("server", cluster={"start": {"deadline": "30d"}}).site()
    assert caught.value.reasons[0][0] == ("clusters", "pair", "start", "deadline")


@pytest.mark.parametrize("shell", SHELLS)
def test_sh_gets_plain_values_as_they_are(shell: str, tmp_path: Path) -> None:
    """Blanks, quotes, Japanese and everything that means something to a shell."""
    recipe = Recipe("server", "linux", node={"folder": NASTY, "clp_bin": NASTY + "/bin/"})
    settings = settings_file(variables_of(recipe.site(), recipe.target()), recipe.target(), ENGLISH)
    assert in_shell(shell, settings, 'printf "%s\\n" "$DCSUP_FOLDER" "$CLP_BIN"', tmp_path) == [NASTY, NASTY + "/bin"]


@pytest.mark.parametrize("shell", SHELLS)
def test_sh_runs_a_command_whose_path_and_words_hold_anything(shell: str, tmp_path: Path) -> None:
    """As the scripts run it: by `eval`, with the verb behind it."""
    words = ["a b", "$HOME", "'", "表&(1)"]
    command = tmp_path / "a node & 'more' (ノード)" / "dc server.sh"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
    command.chmod(0o755)
    recipe = Recipe("server", "linux", places={"server": {"command": [str(command), *words]}})
    settings = settings_file(variables_of(recipe.site(), recipe.target()), recipe.target(), ENGLISH)
    assert in_shell(shell, settings, 'eval "$DCSUP_COMMAND_server start"', tmp_path) == [str(command), *words, "start"]


def test_batch_quotes_each_word_of_a_command() -> None:
    """The whole is not quoted, or the quotes within would end it; a plain value is, so that & and ( are nothing but characters."""
    path = "C:\\a & b (x)\\dc server.bat"
    recipe = Recipe("server", places={"server": {"command": [path, "plain", "two words"]}}, node={"folder": "C:\\d & (e)"})
    lines = settings_file(variables_of(recipe.site(), recipe.target()), recipe.target(), ENGLISH).splitlines()
    assert f'set DCSUP_COMMAND_server="{path}" plain "two words"' in lines
    assert 'set "DCSUP_FOLDER=C:\\d & (e)"' in lines
    assert batch_command(["dcsup"]) == '"dcsup"'


@pytest.mark.parametrize("folder", ["C:\\a%b", 'C:\\a"b', "C:\\a!b", "C:\\a^b", "C:\\a\nb"])
def test_what_batch_cannot_hold_is_refused_with_its_place(folder: str) -> None:
    """`%`, `!`, quotes, `^` and line ends: no way of writing them is right wherever a script uses the value."""
    with pytest.raises(Unfit) as caught:
        Recipe("server", node={"folder": folder}).files()
    assert [where for where, _found, _expected in caught.value.reasons] == [("node", "folder")]


def test_every_refused_setting_is_told_at_once() -> None:
    """One round of corrections, not one for each."""
    recipe = Recipe("both", node={"folder": "C:\\50%", "dcsup": ["dcsup", "100%"]}, places={"agent": {"status": ["C:\\x\\", "a\\"]}})
    with pytest.raises(Unfit) as caught:
        recipe.files()
    found = {where for where, _found, _expected in caught.value.reasons}
    assert found == {("node", "folder"), ("node", "dcsup"), ("node", "services", "agent", "status")}


def test_what_cp932_lacks_is_refused_and_utf_8_holds_it() -> None:
    """cmd would run another path: also where an encoder would quietly put another character."""
    recipe = Recipe("server", node={"folder": "C:\\données"})
    with pytest.raises(Unfit) as caught:
        recipe.files(encoding="cp932")
    ((where, _found, expected),) = caught.value.reasons
    assert where == ("node", "folder")
    assert "é" in str(expected) and "--encoding utf-8" in str(expected)
    assert "C:\\données" in recipe.files(encoding="utf-8")["dcsup-env.bat"].decode("utf-8")
    assert lacks("ノード表ソ能①～", "cp932") is None
    assert lacks("a\u00a5", "cp932") == "\u00a5"


def test_a_service_name_that_batch_confuses_is_refused() -> None:
    """Batch ignores case: DCSUP_COMMAND_limit, of a service called limit, would be DCSUP_COMMAND_LIMIT."""
    recipe = Recipe("server", services={"server": {"name": "limit"}})
    with pytest.raises(Unfit) as caught:
        recipe.files()
    assert caught.value.reasons[0][0] == ("node", "services", "limit", "command")
    assert Recipe("server", "linux", services={"server": {"name": "limit"}}).files()


def test_a_trailing_separator_of_a_folder_is_left_out() -> None:
    """Behind it a quote would be escaped; a drive's root keeps it, and is refused for batch."""
    assert values_of(Recipe("server", node={"folder": "C:\\dcsup\\"}))["DCSUP_FOLDER"] == "C:\\dcsup"
    with pytest.raises(Unfit):
        Recipe("server", node={"folder": "C:\\"}).files()


@pytest.mark.parametrize(("folder", "platform"), [("C:\\x", "windows"), ("d:/x", "windows"), ("\\\\s\\x", "windows"), ("/var", "linux")])
def test_the_platform_is_told_by_the_nodes_folder(folder: str, platform: str) -> None:
    """Whoever renders on another machine need not say it."""
    assert platform_of(folder) == platform


def test_variables_are_the_same_on_both_platforms() -> None:
    """One set of names for sh and batch."""
    names = [{variable.name for variable in variables_of(Recipe("dbms", platform).site(), Recipe("dbms", platform).target())}
             for platform in ("windows", "linux")]  # fmt: skip
    assert names[0] == names[1]


def test_every_variable_is_described_where_it_is_used() -> None:
    """lib.sh's head is the list that an integrator reads."""
    head = sources("linux")["lib.sh"]
    for variable in variables_of(Recipe("dbms").site(), Recipe("dbms").target()):
        name = variable.name
        for kind in SHAPES["dbms"]:
            name = name.removesuffix(f"_{kind}") + "_S" if name.endswith(f"_{kind}") else name
        assert name in head, name
