"""`dcsup render` as an operator meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.clusterpro import FOLDER
from tests.cli.conftest import Dcsup, dcsup, english
from tests.rendering.conftest import Recipe

__all__ = ["dcsup", "english"]  # fixtures


def test_the_windows_folder(dcsup: Dcsup, tmp_path: Path) -> None:
    """By default for what the node's folder looks like, in cp932 and in the cluster's language; the page in both."""
    config = Recipe("both", cluster={"language": "ja"}).write(tmp_path)
    answer = dcsup("render", "clusterpro", "--config", config, "--out", tmp_path / "out")
    assert answer.code == 0
    assert f"what to set up in CLUSTERPRO: {tmp_path / 'out' / 'clusterpro.en.md'}" in answer.out
    assert b'set "DCSUP_LANG=ja"\r\n' in (tmp_path / "out" / "dcsup-env.bat").read_bytes()
    pages = [(tmp_path / "out" / f"clusterpro.{language}.md").read_text("utf-8") for language in ("en", "ja")]
    assert "## 3. The script resource" in pages[0] and "## 3. スクリプトリソース" in pages[1]


def test_json_tells_what_became_of_each_file(dcsup: Dcsup, tmp_path: Path) -> None:
    """written, unchanged, kept, site, left: for whoever renders by a program."""
    config, out = Recipe("server", "linux").write(tmp_path), tmp_path / "out"
    first = json.loads(dcsup("render", "clusterpro", "--config", config, "--out", out, "--json").out)
    assert {"start.sh", "watch-server.sh", "dcsup.env", "clusterpro.ja.md", "site/recover.sh"} <= set(first["written"])
    (out / "start.sh").write_text("by hand")
    (out / "site" / "recover.sh").write_text("the site's")
    answer = dcsup("render", "clusterpro", "--config", config, "--out", out, "--json")
    second = json.loads(answer.out)
    assert (second["written"], second["kept"], second["site"]) == (["start.sh"], {"start.sh": "start.sh.kept-1"}, ["site/recover.sh"])
    assert "start.sh had been changed by hand: that is kept as start.sh.kept-1" in answer.err


def test_guide_scripts_for_going_back(dcsup: Dcsup, tmp_path: Path) -> None:
    """The plain sequence, its settings, texts and places; no page, no hook, no ticket."""
    config, out = Recipe("both", "linux").write(tmp_path), tmp_path / "out"
    assert dcsup("render", "guide", "--config", config, "--out", out).code == 0
    assert {path.name for path in out.glob("*.sh")} == {
        "start.sh", "stop.sh", "watch.sh", "watch-agent.sh", "watch-server.sh", "lib-guide.sh", "messages.en.sh", "messages.ja.sh",
    }  # fmt: skip
    assert not list(out.glob("*.md"))
    assert not [path for path in out.glob("*.sh") if " hook " in path.read_text("utf-8")]


@pytest.mark.parametrize(("arguments", "expected"), [
    (["clusterpro", "--platform", "linux", "--encoding", "cp932"], "sh scripts are always UTF-8"),
    (["guide", "--fragment"], "--fragment is for `render clusterpro`"),
    (["nonsense"], "invalid choice"),
    (["clusterpro", "--language", "fr"], "invalid choice"),
])  # fmt: skip
def test_wrong_use_is_told(dcsup: Dcsup, tmp_path: Path, arguments: list[str], expected: str) -> None:
    """2 and one sentence; nothing is written."""
    config = Recipe("server", "linux").write(tmp_path)
    answer = dcsup("render", *arguments, "--config", config, "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.err
    assert not (tmp_path / "out").exists()


def test_out_is_required(dcsup: Dcsup, tmp_path: Path) -> None:
    """Scripts are never written where somebody happens to stand."""
    answer = dcsup("render", "clusterpro", "--config", Recipe().write(tmp_path))
    assert answer.code == 2
    assert "--out" in answer.err


def test_a_configuration_without_a_node_is_told(dcsup: Dcsup, tmp_path: Path) -> None:
    """The orchestrator's own file does not know where things are on a node."""
    config = Recipe().write(tmp_path)
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("node")))
    answer = dcsup("render", "clusterpro", "--config", config, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "has no [node] table" in answer.err


def test_a_setting_that_no_script_can_hold_is_told_with_its_line(dcsup: Dcsup, tmp_path: Path) -> None:
    """File, line, place, what stands there and what to do, as for every mistake of the configuration; nothing is written."""
    config = Recipe("server", node={"folder": "C:\\100%"}).write(tmp_path)
    answer = dcsup("render", "clusterpro", "--config", config, "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.err.strip() == (
        f"{config}:3: node.folder: found C:\\100%; a batch file cannot hold % in a path or a word: choose another path"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(dcsup: Dcsup, tmp_path: Path) -> None:
    """A sentence with its name, no traceback."""
    (tmp_path / "out").write_text("a file")
    answer = dcsup("render", "clusterpro", "--config", Recipe("server").write(tmp_path), "--out", tmp_path / "out")
    assert answer.code == 2
    assert str(tmp_path / "out") in answer.err


def test_what_the_reader_must_know_is_remarked(dcsup: Dcsup, tmp_path: Path) -> None:
    """Rounded durations, a script timeout that is too short, mode observe: said beside the answer, in the reader's language too."""
    cluster = {"mode": "observe", "watch": {"interval": 1.5}, "clusterpro": {"script_timeout": 60}}
    config = Recipe("server", cluster=cluster).write(tmp_path)
    answer = dcsup("render", "clusterpro", "--config", config, "--out", tmp_path / "out")
    assert answer.code == 0
    assert "clusters.pair.watch.interval = 1.5 s is written as 2 s" in answer.err
    assert "clusterpro.script_timeout = 60 s: set" in answer.err
    assert "mode observe" in answer.err


def test_the_scripts_are_in_the_wheel(tmp_path: Path) -> None:
    """An installed dcsup renders as well as one in its source folder: every static script is packed beside deploy.clusterpro."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    root = FOLDER.parents[1]
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120, check=True)
    names = set(zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist())
    static = {path.relative_to(root).as_posix() for suffix in ("*.sh", "*.bat") for path in FOLDER.rglob(suffix)}
    assert static and static <= names
