"""The commands' names and options, and what an operator sees when one of them fails: a sentence, never a traceback.

Each group of commands is a module with `add(commands)`, which only declares; what a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import gettext
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from orchestrator.chain import Damaged
from orchestrator.cli import asking, checking, history, importing, output, processes, rendering, runbook, showing
from orchestrator.cli.stopping import BAD_ANSWER, INTERRUPTED, NO_ANSWER, WRONG_USE, Stop
from orchestrator.said import say
from orchestrator.secretfiles import SecretError
from orchestrator.settings import ConfigurationError, Mistake
from workers import messages
from workers.messages import _

TRACEBACK = "DCSUP_TRACEBACK"
"""Environment variable: set, our own faults show where they happened."""


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    output.prepare()
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def parser() -> argparse.ArgumentParser:
    description = _("Supervises InfoFrame DataCoordinator on CLUSTERPRO clusters.")
    whole = argparse.ArgumentParser("dcsup", description=description, allow_abbrev=False)
    commands = whole.add_subparsers(dest="command", metavar=_("COMMAND"), required=True)
    for group in (processes, showing, history, rendering, importing, checking, runbook, asking):
        group.add(commands)
    return whole


def _run(argv: Sequence[str]) -> int:
    own = {"demo": processes.demo, "up": processes.up}.get(argv[0] if argv else "")
    if own is not None:
        return _guarded(lambda: own(list(argv[1:])))
    try:
        with _speaking():
            arguments = parser().parse_args(argv)
    except SystemExit as leaving:  # argparse has said what is wrong, or shown its help
        return leaving.code if isinstance(leaving.code, int) else WRONG_USE
    return _guarded(lambda: arguments.run(arguments))


def _guarded(command: Callable[[], int]) -> int:
    try:
        code = command()
    except ConfigurationError as error:
        for mistake in error.mistakes:
            output.complain(_mistake(mistake))
        return WRONG_USE
    except SecretError as error:
        output.remark(error.said)
        return WRONG_USE
    except Stop as stop:
        output.remark(stop.said)
        return stop.code
    except Damaged as damaged:
        output.remark(damaged.said)
        return BAD_ANSWER
    except BrokenPipeError:
        raise
    except Exception as error:
        return _unforeseen(error)
    return code


def _mistake(mistake: Mistake) -> str:
    place = f"{mistake.file}:{mistake.line}" if mistake.line else mistake.file
    where = f"{mistake.where}: " if mistake.where else ""
    return f"{place}: {where}{output.words(mistake.found)}; {output.words(mistake.expected)}"


def _unforeseen(error: Exception) -> int:
    """The world's fault that no module took care of, or our own."""
    if os.environ.get(TRACEBACK):
        raise error
    if isinstance(error, OSError):
        output.remark(say("{what}: {why}", what=error.filename or type(error).__name__, why=error.strerror or error))
        return WRONG_USE
    if type(error).__module__.startswith("redis."):
        output.remark(say("Redis does not answer: {why}", why=str(error)))
        return NO_ANSWER
    what = f"{type(error).__name__}: {error}"
    output.remark(say("a fault of dcsup itself ({what}); {variable}=1 shows where, please report it", what=what, variable=TRACEBACK))
    return BAD_ANSWER


@contextmanager
def _speaking() -> Iterator[None]:
    """Lets argparse speak the reader's language: it asks gettext's present domain, and gettext asks LANGUAGE first (see catalogue.py)."""
    gettext.bindtextdomain(messages.DOMAIN, str(messages.FOLDER))
    before = gettext.textdomain()
    kept = os.environ.get("LANGUAGE")
    gettext.textdomain(messages.DOMAIN)
    os.environ["LANGUAGE"] = messages.language()
    try:
        yield
    finally:
        gettext.textdomain(before)
        if kept is None:
            del os.environ["LANGUAGE"]
        else:
            os.environ["LANGUAGE"] = kept
