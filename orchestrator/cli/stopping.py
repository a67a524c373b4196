"""How a command ends other than well: one clear line, and the exit code."""

from __future__ import annotations

from orchestrator.said import Said

BAD_ANSWER = 1
WRONG_USE = 2
NO_ANSWER = 3
INTERRUPTED = 130


class Stop(Exception):
    """Ends a command with a sentence for the operator."""

    def __init__(self, code: int, said: Said) -> None:
        super().__init__(str(said))
        self.code = code
        self.said = said
