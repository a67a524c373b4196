"""The nodes, tickets and processes of the workers' tests, and the CLI."""

from __future__ import annotations

from tests.cli.conftest import dcsup, english  # noqa: F401 - fixtures
from tests.workers.conftest import node  # noqa: F401 - fixture
from tests.workers.test_rqworker import alive_ticket, start  # noqa: F401 - fixtures
from tests.workers.test_worker import parent  # noqa: F401 - fixture
