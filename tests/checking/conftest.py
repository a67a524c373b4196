"""The CLI, and files for it."""

from __future__ import annotations

from tests.cli.conftest import dcsup, english  # noqa: F401 - fixtures
from tests.clpconf.conftest import pulled  # noqa: F401 - fixture
