"""The `dcsup` command.

Hooks come first: CLUSTERPRO waits for them, so nothing but the standard library may be imported on their way (DESIGN.md, "Hooks").
Everything else is in the modules beside this one, each loaded only when its command is called.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 good, 1 the answer is bad, 2 usage or configuration, 3 a service does not answer.

    Hooks have their own: 0, 40, 75.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["hook"]:
        from workers.hooks import main as hook

        return hook(arguments[1:])
    from orchestrator.cli.program import run

    return run(arguments)
