"""The core: what dcsup knows and how it decides.

Nothing in this package reads a clock, a file, a socket or a random number; import-linter and ruff's banned-API list prove it.
A fact (something that happened, with the time it happened at) goes in, decisions come out:

    step(state, fact) -> entries        decide: the state machines' tables, stepped through `transitions`
    fold(state, entry) -> None          remember: the only way in which state ever changes

The live orchestrator, `dcsup replay` and the tests all run exactly these two.
"""
