"""The CLI's own fixtures: arguments in, exit code and both outputs out."""

from tests.cli.conftest import configuration, dcsup, english, nowhere, orchestrator

__all__ = ["configuration", "dcsup", "english", "nowhere", "orchestrator"]
