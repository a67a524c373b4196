"""Who may change what a node trusts, or read its secrets: seen, said, and no reason not to work (docs/security.md)."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Dcsup
from tests.conftest import wait_until
from tests.workers.conftest import NodeFixture, write_config
from tests.workers.test_worker import Parent
from workers import permissions
from workers.permissions import Exposed, look, parse_icacls
from workers.worker import prepare_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")


# --- POSIX --------------------------------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("mode", "writers", "readers"),
    [(0o700, 0, 0), (0o755, 0, 2), (0o750, 0, 1), (0o770, 1, 1), (0o777, 2, 2), (0o702, 1, 0), (0o1777, 2, 2), (0o640, 0, 1)],
)
def test_a_mode_says_who_else_may(tmp_path: Path, mode: int, writers: int, readers: int) -> None:
    """Group and others, each by itself; sticky helps what is in a folder, not the folder."""
    folder = tmp_path / "node"
    folder.mkdir()
    os.chown(folder, -1, os.getegid() or 1)
    folder.chmod(mode)
    seen = look(folder)
    assert seen is not None
    assert (len(seen.writers), len(seen.readers)) == (writers, readers)
    assert ("everyone" in seen.writers) == bool(mode & 0o002)


@posix
def test_a_folder_above_counts(tmp_path: Path) -> None:
    """Whoever may write it may put another folder in its place; a sticky one, such as /tmp, is no danger."""
    above = tmp_path / "above"
    (above / "node").mkdir(parents=True, mode=0o700)
    above.chmod(0o777)
    assert look(above / "node") == Exposed(("everyone (through a folder above)",), ())
    above.chmod(0o1777)
    assert look(above / "node") == Exposed((), ())
    (tmp_path / "link").symlink_to(above / "node")
    above.chmod(0o777)
    assert look(tmp_path / "link") == Exposed(("everyone (through a folder above)",), ())


@posix
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() != 0, reason="only root may give a file away")
def test_another_owner_is_another_writer(tmp_path: Path) -> None:
    """An owner may change the mode at any time."""
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12_345, 0)
    assert look(folder) == Exposed(("user 12345",), ("user 12345",))


def test_what_is_not_there_is_unknown(tmp_path: Path) -> None:
    """None, not 'nobody'."""
    assert look(tmp_path / "none") is None


# --- Windows, by what icacls saved --------------------------------------------------------------------------------------------------------

OURS = "(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"


@pytest.mark.parametrize(
    ("entries", "writers", "readers"),
    [
        (f"PAI{OURS}", (), ()),
        # what a folder below C:\ProgramData inherits: every user may add files to it
        (f"AI{OURS}(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)", ("Users",), ("Users",)),
        (f"PAI{OURS}(A;OICI;0x1200a9;;;BU)", (), ("Users",)),
        (f"PAI{OURS}(A;OICI;0x1301bf;;;AU)", ("Authenticated Users",), ("Authenticated Users",)),
        (f"PAI{OURS}(A;OICI;FA;;;WD)", ("Everyone",), ("Everyone",)),
        (f"PAI{OURS}(A;;FR;;;S-1-1-0)(A;;GW;;;S-1-5-32-545)", ("Users",), ("Everyone",)),
        (f"PAI{OURS}(A;;WD;;;BU)", ("Users",), ()),  # the right to change the list, not the group Everyone
        (f"PAI{OURS}(D;;FA;;;BU)", (), ()),
        (f"PAI{OURS}(A;OICIIO;FA;;;BU)", (), ()),
        (f"PAI{OURS}(A;OICI;FA;;;S-1-5-21-1-2-3-1001)", (), ()),  # an account that the site chose
        ('PAI(A;;FA;;;SY)(XA;;FA;;;WD;(@User.x=="y"))', None, None),
        ("NO_ACCESS_CONTROL", ("Everyone",), ("Everyone",)),
    ],
)
def test_an_access_list_says_who_else_may(entries: str, writers: tuple[str, ...] | None, readers: tuple[str, ...] | None) -> None:
    """Broad groups that may write or read; what is denied, inherited only by what is below, or given to a chosen account is nothing.
    What is not understood is unknown."""
    seen = parse_icacls(f"dcsup\r\nD:{entries}\r\n")
    assert seen == (None if writers is None or readers is None else Exposed(writers, readers))


@pytest.mark.parametrize("text", ["", "dcsup\r\n", "データ\r\nD:", "D:(A;;FA", "D:((((", "\ufffd" * 100])
def test_a_broken_access_list_is_unknown(text: str) -> None:
    """None, or nobody for a list that is there and empty; never an error."""
    assert parse_icacls(text) in (None, Exposed((), ()))


# --- a node -------------------------------------------------------------------------------------------------------------------------------


@posix
def test_a_new_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    """0700; one that was there before is left as it is."""
    prepare_folder(tmp_path / "a" / "node")
    assert stat.S_IMODE((tmp_path / "a" / "node").stat().st_mode) == 0o700
    assert look(tmp_path / "a" / "node" / "tickets") is not None
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    prepare_folder(tmp_path / "old")
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755


@posix
def test_a_worker_says_what_is_open_and_works(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """No key, a node folder that everybody may write, a secret that everybody may read, a dcsup.toml that everybody may change: a warning
    each, and the watch polls all the same (the first law)."""
    token = node.base / "token"
    token.write_text("t" * 64)
    write_config(node, services="server")
    node.config.write_text(f'{node.config.read_text()}[orchestrator]\ntoken_file = "{token}"\n')
    for path, mode in ((node.folder, 0o777), (token, 0o644), (node.config, 0o666)):
        path.chmod(mode)
    worker = parent(node)
    event = "others have access that they should not have; `dcsup check --node` says what to do"
    wanted = [f"{node.folder} can be changed by", f"{token} can be read by", f"{node.config} can be changed by"]
    wait_until(lambda: all(any(one["what"].startswith(words) for one in worker.said(event)) for words in wanted), "the warnings")
    wait_until(lambda: node.asked("server"), "the watch's polls", 120)
    [unsigned] = worker.said("jobs are not signed: who may write to this node's queues makes it act; run `dcsup render redis`")
    assert unsigned["level"] == "warning"


@posix
def test_the_check_calls_it_an_error(node: NodeFixture, dcsup: Dcsup) -> None:
    """Each with file, accounts and the command that mends it; nothing when it is as it should be."""
    key = node.base / "node.key"
    key.write_text("k" * 64)
    write_config(node, services="server", extra_node=f'key = {{ file = "{key}" }}')
    wrong, right = (0o777, 0o644, 0o666), (0o700, 0o600, 0o600)
    paths = (node.folder / "tickets", key, node.config)
    rules = ("N-folder-permissions", "N-secret-files", "N-settings-permissions")
    for modes, severities in ((wrong, {"error"}), (right, set())):
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
        answer = dcsup("check", "--config", node.config, "--node", "--json")
        findings = [one for one in json.loads(answer.out)["findings"] if one["rule"] in rules]
        assert {one["severity"] for one in findings} == severities
        if modes is wrong:
            assert {one["rule"] for one in findings} == set(rules)
            assert all(any(str(path) in one["found"] for one in findings) for path in paths)
            assert all("chmod" in one["remedy"] or "right to write" in one["remedy"] for one in findings)


def test_saved_evidence_tells_what_is_unknown() -> None:
    """A look that saw nothing is no objection."""
    unknown = {"path": "C:\\x", "kind": "secret", "writers": None, "readers": None}
    assert permissions.objections([unknown]) == []
    assert permissions.objections([{**unknown, "writers": ["Users"], "readers": ["Users"]}]) == [
        "C:\\x can be changed by: Users",
        "C:\\x can be read by: Users",
    ]
