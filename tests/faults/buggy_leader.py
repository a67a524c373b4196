"""As tests/orchestrator/leader_process.py, with a mistake in the core's step: a probe that failed for the reason "boom" makes it raise."""

from __future__ import annotations

import sys
from functools import partial

from orchestrator import app
from orchestrator.settings import load
from tests.orchestrator.engine import BUGGY
from workers.redisclient import client_of

if __name__ == "__main__":
    app.Orchestrator = partial(app.Orchestrator, core=BUGGY)  # type: ignore[attr-defined, assignment]
    sys.exit(app.run(load(sys.argv[1]), connect=client_of, identity=sys.argv[2]))
