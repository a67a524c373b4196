"""Bytes to tree: encodings that lie, XML that breaks off, XML that attacks."""

from __future__ import annotations

import pytest

from orchestrator.clpconf import reading
from orchestrator.clpconf.reading import ClpConfError, read_tree
from tests.clpconf.sample import CANARY, sample


def comment_of(raw: bytes) -> str:
    found = read_tree(raw).root.find("cluster/comment")
    assert found is not None
    return found.text


@pytest.mark.parametrize(
    ("declared", "encode", "real"),
    [
        ("ASCII", "SJIS", "cp932"),
        ("UTF-8", "SJIS", "cp932"),
        ("EUC-JP", "SJIS", "euc_jp"),
        ("UTF-8", "SJIS", "utf-8"),
        ("ASCII", "ASCII", "utf-8"),
        ("ASCII", "ASCII", "cp932"),
        ("nonsense", "nonsense", "cp932"),
        ("rot13", "zip", "cp932"),
        ("UTF-16", "SJIS", "utf-16"),
        ("UTF-8", "UTF-8", "utf-8-sig"),
    ],
)
def test_the_bytes_decide_when_declaration_and_bytes_disagree(declared: str, encode: str, real: str) -> None:
    """Declared encoding, then the file's `encode`, then what fits."""
    raw = sample(('encoding="ASCII"', f'encoding="{declared}"'), ("<encode>SJIS", f"<encode>{encode}"), encoding=real)
    assert comment_of(raw) == "業務系クラスタ"
    assert read_tree(raw).findings == ()


def test_undecodable_bytes_are_replaced_and_said() -> None:
    """One character that no encoding knows costs that character."""
    raw = sample().replace("業".encode("cp932"), b"\x81\xff\xff")
    tree = read_tree(raw)
    assert "\ufffd" in comment_of(raw)
    assert ["no encoding fits" in str(one.said) for one in tree.findings] == [True]


def test_control_characters_are_replaced_and_said() -> None:
    """A stray NUL in a comment does not cost the file."""
    tree = read_tree(sample().replace(b"<configid>17", b"<configid>1\x007"))
    assert tree.root.find("group") is not None
    assert ["control characters" in str(one.said) for one in tree.findings] == [True]


def test_lines_are_those_of_the_file() -> None:
    """Places name the line that an editor shows, whatever the line ends and the declaration."""
    for raw in (sample(), sample().replace(b"\n", b"\r\n"), sample(('<?xml version="1.0" encoding="ASCII"?>\n', ""))):
        found = read_tree(raw).root.find("resource/script")
        assert found is not None
        assert raw.splitlines()[found.line - 1].lstrip().startswith(b'<types name="script"/>')
        assert found.place.path == "/root/resource/script@script1"


def test_a_file_that_breaks_off_gives_what_was_read() -> None:
    """Truncated, or broken in the middle: the tree up to there, and the place."""
    raw = sample()
    tree = read_tree(raw[: raw.index(b"<monitor>")])
    assert tree.root.find("resource/appli") is not None
    assert tree.root.find("monitor") is None
    assert len(tree.findings) == 1
    assert tree.findings[0].place.line > 30
    broken = read_tree(raw.replace(b"<heartbeat>", b"<heartbeat><<"))
    assert [one.name for one in broken.root.all("server")] == ["NodeA", "NodeB"]
    assert broken.findings[0].place.path == "/root/heartbeat"


BOMB = '<!DOCTYPE root [<!ENTITY a "CANARY-7f3a"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "raw",
    [
        f'<?xml version="1.0"?>{BOMB}<root>&b;</root>'.encode(),
        b'<!DOCTYPE root SYSTEM "file:///etc/passwd"><root/>',
        b'<!DOCTYPE root [<!ENTITY x SYSTEM "file:///etc/passwd">]><root>&x;</root>',
        b"<!DOCTYPE root><root/>",
        f'<?xml version="1.0"?>{BOMB}<root>&b;</root>'.encode("utf-16"),
        b"<root>" + b"<a>" * 100_000,
        b"<root>" + b"<a/>" * (reading.ELEMENTS_MAX + 1),
        b" " * (reading.SIZE_MAX + 1),
        b"",
        b"\x00" * 100,
        b"\xff" * 100,
        b"not xml",
        b"[redis]\nurl = 'CANARY-7f3a'\n",
        b"<configuration/>",
    ],
)
def test_hostile_and_foreign_files_are_refused(raw: bytes) -> None:
    """DTDs, entities, depth, number, size, no XML, another XML: one sentence each, which quotes nothing."""
    with pytest.raises(ClpConfError) as caught:
        read_tree(raw)
    assert str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_names_are_fit_for_a_terminal() -> None:
    """Control characters, escape sequences and marks that turn text round are replaced; long names are cut."""
    cleaned = reading.clean("a\x1b[31m\u202eb\n c" + "x" * 1000)
    assert cleaned.startswith("a\ufffd[31m\ufffdb c")
    assert len(cleaned) == 255
