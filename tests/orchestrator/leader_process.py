"""`python -m tests.orchestrator.leader_process FILE IDENTITY`: an orchestrator in a process of its own, for tests that kill it."""

from __future__ import annotations

import sys

from orchestrator.app import run
from orchestrator.settings import load
from workers.redisclient import client_of

if __name__ == "__main__":
    sys.exit(run(load(sys.argv[1]), connect=client_of, identity=sys.argv[2]))
