"""`python -m workers.hooks start ...`: the hooks without the rest of dcsup's command line."""

import sys

from workers.hooks import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
