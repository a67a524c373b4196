"""Secrets of the central side come from a file or from the environment, never from an argument and never from dcsup.toml itself.

What is told of one that cannot be read is where it should be, never what is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.said import Said, say
from statemachines.configuration import OrchestratorSettings

SECRET_BYTES_MAX = 65_536


class SecretError(ValueError):
    """A secret is not where the configuration says; `said` is one sentence for the operator (exit code 2)."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


def read_secret(file: str | None, env: str | None, where: str) -> str:
    """The secret's text, without spaces and line ends around it.

    Args:
        file: the file that holds it, UTF-8; None: it is in the environment.
        env: name of the variable that holds it; only looked at without `file`.
        where: the setting in dcsup.toml that names them, for the error.

    Raises:
        SecretError: it is not there or cannot be read.
    """
    if file is not None:
        text = _in_file(file, where)
        missing = say("{where}: the file {file} is empty; put the secret into it", where=where, file=file)
    else:
        text = os.environ.get(env or "", "").strip()
        missing = say("{where}: the environment variable {name} is empty or not set; put the secret into it", where=where, name=env)
    if not text:
        raise SecretError(missing)
    return text


def _in_file(file: str, where: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(SECRET_BYTES_MAX).decode("utf-8-sig").strip()
    except OSError as error:
        said = say(
            "{where}: the file {file} cannot be read ({reason}); make it, readable by this user alone",
            where=where, file=file, reason=error.strerror or type(error).__name__,
        )  # fmt: skip
        raise SecretError(said) from None
    except UnicodeDecodeError:
        raise SecretError(say("{where}: the file {file} is not UTF-8; save it as plain text", where=where, file=file)) from None


def token_of(settings: OrchestratorSettings) -> str | None:
    """The token that an orchestrator's endpoint asks for; None: it asks for none.

    Raises:
        SecretError: it is not there or cannot be read.
    """
    if not settings.has_token:
        return None
    return read_secret(settings.token_file, settings.token_env, "orchestrator." + ("token_file" if settings.token_file else "token_env"))
