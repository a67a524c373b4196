"""An exported configuration on disk, and the CLI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import dcsup, english  # noqa: F401 - fixtures
from tests.clpconf.sample import START_BAT, sample


@pytest.fixture
def pulled(tmp_path: Path) -> Path:
    """What `clpcfctrl --pull` writes: clp.conf, and the scripts."""
    folder = tmp_path / "pulled"
    place = folder / "scripts" / "failover1" / "script1"
    place.mkdir(parents=True)
    (folder / "clp.conf").write_bytes(sample())
    (place / "start.bat").write_bytes(START_BAT.replace("\n", "\r\n").encode("cp932"))
    return folder
