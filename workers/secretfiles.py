"""Secrets on a node come from a file or from the environment, never from an argument and never from dcsup.toml itself.

What is told of one that cannot be read is where it should be, never what is in it. Who may read or write the file is looked at by
workers/permissions.py; it is said, and nothing is refused for it: a node that does not start would be the worse fault.
"""

from __future__ import annotations

import os
from pathlib import Path

SECRET_BYTES_MAX = 65_536


def read_secret(file: str | None, env: str | None, where: str) -> str:
    """The secret's text, without spaces and line ends around it.

    Args:
        file: the file that holds it, UTF-8; None: it is in the environment.
        env: name of the variable that holds it; only looked at without `file`.
        where: the setting in dcsup.toml that names them, for the error.

    Raises:
        ValueError: it is not there or cannot be read; one sentence for the operator.
    """
    text = _in_file(file, where) if file is not None else os.environ.get(env or "", "").strip()
    if not text:
        place = f"the file {file}" if file is not None else f"the environment variable {env}"
        raise ValueError(f"{where}: {place} is empty or not there; put the secret into it")
    return text


def _in_file(file: str, where: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(SECRET_BYTES_MAX).decode("utf-8-sig").strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{where}: the file {file} cannot be read ({reason}); make it, readable by this user alone") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where}: the file {file} is not UTF-8; save it as plain text") from None
