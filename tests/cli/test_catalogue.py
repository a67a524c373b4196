"""One catalogue of messages: complete in Japanese, compiled from what is committed, and used."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from rich.cells import cell_len

from orchestrator import cli
from orchestrator.cli import catalogue
from orchestrator.settings import ConfigurationError, load
from tests.cli.conftest import Dcsup
from tests.orchestrator.surface import file_of, told_log
from tests.orchestrator.test_surface_settings import GOOD, ONE_MISTAKE
from workers import messages

ROOT = Path(messages.__file__).parents[1]
JAPANESE = messages.FOLDER / "ja" / "LC_MESSAGES"
FIELD = re.compile(r"\{\w*(?:[:!][^}]*)?\}|%\(\w+\)[srd]|%[srd]")


def catalogue_of(name: str) -> Catalog:
    content = io.BytesIO((JAPANESE / name).read_bytes())
    return read_po(content) if name.endswith(".po") else read_mo(content)


def sentences(catalog: Catalog) -> dict[str, str]:
    return {str(message.id): str(message.string) for message in catalog if message.id}


def used() -> set[str]:
    """Every sentence that the code marks."""
    keywords = {"_": None, "say": None, "mark": None}
    found = set()
    for package in ("orchestrator", "workers", "deploy"):
        for _file, _line, message, _comments, _context in extract_from_dir(ROOT / package, keywords=keywords):
            found.add(str(message))
    return found


def test_catalogue_is_complete_and_holds_nothing_else() -> None:
    """Every sentence of the code is in it, translated; none is left over from before."""
    known = sentences(catalogue_of("dcsup.po"))
    assert used() - set(known) == set()
    assert set(known) - used() == set()
    assert [source for source, japanese in known.items() if not japanese] == []
    assert not [message for message in catalogue_of("dcsup.po") if message.fuzzy]


def test_translations_have_the_same_fields() -> None:
    """A value that the English sentence shows is shown in Japanese too, and none that it does not have."""
    for source, japanese in sentences(catalogue_of("dcsup.po")).items():
        assert sorted(FIELD.findall(source)) == sorted(FIELD.findall(japanese)), source


def test_the_compiled_catalogue_is_the_written_one() -> None:
    """The .mo file that is installed says what the .po file says."""
    assert sentences(catalogue_of("dcsup.mo")) == sentences(catalogue_of("dcsup.po"))


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "C", "LC_ALL": "ja_JP"}, "ja"),
        ({"LC_ALL": "ja_JP.UTF-8", "DCSUP_LANG": "en"}, "en"),
        ({"DCSUP_LANG": "ja"}, "ja"),
        ({"DCSUP_LANG": "", "LANG": "ja"}, "ja"),
        ({"DCSUP_LANG": "../../etc"}, "en"),
        ({"LANG": "POSIX"}, "en"),
    ],
)
def test_language_is_the_readers(variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DCSUP_LANG, then the system's own variables in their order; anything odd is English."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert messages.language() == language
    assert messages.translate("yes") == ("はい" if language == "ja" else "yes")


def test_a_language_without_catalogue_is_english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a missing catalogue nor a broken one costs the sentence."""
    monkeypatch.setenv("DCSUP_LANG", "xx")
    assert messages.translate("yes") == "yes"
    broken = tmp_path / "yy" / "LC_MESSAGES" / "dcsup.mo"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"nonsense")
    monkeypatch.setattr(messages, "FOLDER", tmp_path)
    monkeypatch.setenv("DCSUP_LANG", "yy")
    assert messages.translate("yes") == "yes"


def test_every_mistake_of_a_configuration_is_told_in_japanese(tmp_path: Path) -> None:
    """Also those that the core words, which knows of no catalogue."""
    known = sentences(catalogue_of("dcsup.po"))
    file = tmp_path / "dcsup.toml"
    for old, new, *_rest in ONE_MISTAKE.values():
        file.write_text(GOOD.replace(old, new, 1))
        with pytest.raises(ConfigurationError) as caught:
            load(file)
        for mistake in caught.value.mistakes:
            assert mistake.found.template in known
            assert mistake.expected.template in known


def test_sentences_of_others_are_still_theirs() -> None:
    """What is listed for the core and for argparse is what they say."""
    import argparse

    modules = ("addresses.py", "configuration.py", "durations.py", "entries.py", "signing.py")
    core = " ".join((ROOT / "statemachines" / name).read_text() for name in modules)
    assert [sentence for sentence in catalogue.CORE if sentence not in core] == []
    own = Path(argparse.__file__).read_text().replace("'\n                    '", "")
    assert [sentence for sentence in catalogue.ARGPARSE if sentence.replace("\n", "\\n") not in own] == []


def test_the_cli_speaks_japanese(dcsup: Dcsup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Help, usage errors, refusals and answers; what is data stays as it is, and the environment too."""
    import os

    monkeypatch.setenv("DCSUP_LANG", "ja")
    before = dict(os.environ)
    assert "使い方: dcsup" in dcsup("--help").out
    assert "usage" not in dcsup("status", "--help").out
    assert "エラー: 次の引数が必要です: コマンド" in dcsup().err
    assert "ファイルがありません" in dcsup("status", "--config", tmp_path / "none").err
    (tmp_path / "log").write_bytes(file_of(told_log()))
    answer = dcsup("replay", tmp_path / "log", "--state", "--verify")
    assert "判断し直した結果: 記録と同じです" in answer.out
    assert straight(answer.out)
    (tmp_path / "log").write_bytes(b"x")
    assert "1 行目: 行が途中で切れています" in dcsup("replay", tmp_path / "log").err
    assert dict(os.environ) == before


def straight(output: str) -> bool:
    """Whether all lines of each table are as wide as its border, reckoned in columns of a terminal."""
    widths: set[int] = set()
    for line in output.splitlines():
        widths = widths | {cell_len(line)} if line.startswith(("|", "+")) else set()
        if len(widths) > 1:
            return False
    return "|" in output


def test_a_console_that_cannot_show_a_character_still_gets_the_line() -> None:
    """Output in a narrow encoding: a stand-in for the character, no error."""
    script = "import sys; from orchestrator.cli import main; sys.exit(main(['status', '--config', '/nowhere']))"
    for encoding, expected in (("ascii", b"???"), ("cp932", "ファイルがありません".encode("cp932"))):
        environment = {"PYTHONIOENCODING": encoding, "DCSUP_LANG": "ja", "PYTHONPATH": str(Path(cli.__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False, timeout=30)
        assert done.returncode == 2
        assert expected in done.stderr
