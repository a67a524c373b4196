"""`python -m tests.simulation`: see runner.py. Sets of texts must have the same order each time: Python starts with a fixed hash seed."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    from tests.simulation.runner import main

    sys.exit(main())
