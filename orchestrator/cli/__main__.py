"""`python -m orchestrator.cli`: the same as `dcsup`, where the console script is not on hand."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
