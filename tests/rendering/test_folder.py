"""Rendering again into a folder: nothing that somebody wrote there is lost."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.rendering import folder
from tests.rendering.conftest import Recipe

FILES = {"start.sh": b"1\n", "lib.sh": b"lib\n", "site/recover.sh": b"# empty\n"}


def test_a_first_rendering_writes_everything(tmp_path: Path) -> None:
    """Also the folder itself, and the list of what was written."""
    placed = folder.place(tmp_path / "new", FILES)
    assert sorted(placed.written) == sorted(FILES)
    assert json.loads((tmp_path / "new" / folder.LIST).read_text())["files"].keys() == {"start.sh", "lib.sh"}


def test_rendering_twice_changes_nothing(tmp_path: Path) -> None:
    """No file is touched."""
    files = Recipe("dbms").files()
    folder.place(tmp_path, files)
    paths = [tmp_path / name for name in files]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    placed = folder.place(tmp_path, files)
    assert (placed.written, placed.kept, placed.left, sorted(placed.unchanged)) == ([], {}, [], sorted(files))
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before


def test_our_own_files_follow_the_settings(tmp_path: Path) -> None:
    """What we wrote and nobody touched is simply written anew."""
    folder.place(tmp_path, FILES)
    placed = folder.place(tmp_path, FILES | {"start.sh": b"2\n"})
    assert (placed.written, placed.kept) == (["start.sh"], {})
    assert (tmp_path / "start.sh").read_bytes() == b"2\n"


def test_the_sites_own_code_is_never_written_again(tmp_path: Path) -> None:
    """G43: whatever stands in its place stays, even if it is nothing."""
    folder.place(tmp_path, FILES)
    (tmp_path / "site" / "recover.sh").write_bytes(b"")
    placed = folder.place(tmp_path, FILES | {"site/recover.sh": b"# other words\n"})
    assert placed.site == ["site/recover.sh"]
    assert (tmp_path / "site" / "recover.sh").read_bytes() == b""


def test_a_change_by_hand_is_kept_and_told(tmp_path: Path) -> None:
    """Each under a name of its own, however often it happens."""
    folder.place(tmp_path, FILES)
    for n in (1, 2):
        (tmp_path / "start.sh").write_bytes(b"by hand %d\n" % n)
        assert folder.place(tmp_path, FILES).kept == {"start.sh": f"start.sh.kept-{n}"}
        assert (tmp_path / "start.sh").read_bytes() == b"1\n"
    assert [(tmp_path / f"start.sh.kept-{n}").read_bytes() for n in (1, 2)] == [b"by hand 1\n", b"by hand 2\n"]


def test_a_stranger_in_the_way_is_kept(tmp_path: Path) -> None:
    """A start.sh that we never wrote is somebody's."""
    (tmp_path / "start.sh").write_bytes(b"the DBMS's own\n")
    assert folder.place(tmp_path, FILES).kept == {"start.sh": "start.sh.kept-1"}


def test_without_its_list_nothing_is_lost(tmp_path: Path) -> None:
    """A list that is missing, damaged or of another shape remembers nothing: what differs is kept."""
    for damage in (None, b"", b"nonsense", b"[]", b'{"files": 3}', b"\xff"):
        folder.place(tmp_path, FILES)
        (tmp_path / folder.LIST).unlink()
        if damage is not None:
            (tmp_path / folder.LIST).write_bytes(damage)
        (tmp_path / "lib.sh").write_bytes(b"old\n")
        assert "lib.sh" in folder.place(tmp_path, FILES).kept


def test_what_is_no_longer_rendered_stays_and_is_named_until_it_is_gone(tmp_path: Path) -> None:
    """A resource may still call it; whoever removed a service removes its watch script."""
    folder.place(tmp_path, FILES | {"watch-old.sh": b"old\n"})
    for _again in range(2):
        assert folder.place(tmp_path, FILES).left == ["watch-old.sh"]
    (tmp_path / "watch-old.sh").unlink()
    assert folder.place(tmp_path, FILES).left == []
