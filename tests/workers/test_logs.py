"""Logging must never be what stops a supervisor."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, os, sys
from workers import logs
log = logs.configure("cmd", "node1")
{breaking}
log.warning("said")
logging.getLogger("rq.worker").warning("said too")
print("still here")
"""


FULL_DISK = ["sys.stderr = open('/dev/full', 'w')"] if sys.platform == "linux" else []


@pytest.mark.parametrize("breaking", ["sys.stderr.close()", "os.close(2)", *FULL_DISK])
def test_a_log_that_cannot_be_written_stops_nobody(breaking: str) -> None:
    """With standard error closed, or on a full disk, the process goes on."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(breaking=breaking)], capture_output=True, text=True, check=False)
    assert done.stdout == "still here\n", done.stderr
